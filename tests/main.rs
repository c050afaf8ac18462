//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]

mod blobs;
mod by_digest;
mod clients_over_a_socket;
mod credentials;
mod faults;
mod golden_schema1;
mod headers;
mod import_direction;
mod negotiation_table;
mod parsing;
mod push;
mod recook;
mod refusals;
mod secrets;
mod single_flight;
mod store;
mod support;
mod the_table;
mod translation_golden;
mod translation_properties;
mod traps;
mod upstream_for_tests;
