//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must say where")]

mod golden_schema1;
mod negotiation_table;
mod translation_golden;
mod translation_properties;
