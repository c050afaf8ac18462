//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]

mod golden_schema1;
mod import_direction;
mod negotiation_table;
mod support;
mod translation_golden;
mod translation_properties;
mod upstream_for_tests;
