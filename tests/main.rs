//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]

mod accept;
mod blobs;
mod by_digest;
mod clients_over_a_socket;
mod commands;
mod credentials;
mod faults;
mod golden_schema1;
mod headers;
mod hostile;
mod import_direction;
mod negotiation_table;
mod parsing;
mod platforms;
mod push;
mod recook;
mod refusals;
mod secrets;
mod shutdown;
mod single_flight;
mod store;
mod support;
mod the_table;
mod translation_golden;
mod translation_properties;
mod traps;
mod upstream_for_tests;
