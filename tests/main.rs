//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]

mod negotiation_table;
mod translation_golden;
mod translation_properties;
