//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]

mod accept;
mod blobs;
mod by_digest;
mod clients_over_a_socket;
mod commands;
mod crash;
mod credentials;
mod faults;
mod golden_schema1;
mod headers;
mod hostile;
mod import_direction;
mod index_children;
mod index_golden;
mod index_hostile;
mod index_properties;
mod index_pruning;
mod negotiation_table;
mod parsing;
mod platform_choice;
mod platforms;
mod push;
mod recook;
mod referrers;
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
