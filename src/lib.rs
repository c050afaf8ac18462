//! `schemabridge`: a gateway that answers every container client in a manifest format it can read.
//!
//! The floors, from the lowest up. An arrow may only point down; `tests/` holds the direction.

// below the line: no I/O, no clock, no environment, no logging
pub mod image;

pub mod translate;

pub mod negotiate;

// knows the registry; nobody else sends
pub mod upstream;

// know bytes at rest and bytes in motion
pub mod store;
pub mod transcode;

// knows one request
pub mod gateway;

// know the process
pub mod admin;
pub mod cli;
pub mod config;
pub mod server;
