//! The command line of schemabridge.

fn main() {}
