//! The promises of the gateway, one file each, through real sockets against an in-process upstream.

mod translation_golden;
mod translation_properties;
