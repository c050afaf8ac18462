//! The promises of the gateway, one file each, through real sockets against an in-process upstream.
#![cfg(test)]

mod support;
mod upstream_for_tests;
