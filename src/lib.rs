//! `schemabridge`: a gateway that answers every container client in a manifest format it can read.
//!
//! The floors, from the lowest up. An arrow may only point down; `tests/` holds the direction.

// below the line: no I/O, no clock, no environment, no logging
pub mod image;
pub mod translate;
