//! `schemabridge healthcheck`: for probes in images that hold nothing but the binary.

use clap::Args;

use crate::config::ListenAddress;

use super::Failure;
use super::operator::{ask, listening_at};

/// The flags of `healthcheck`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The admin listener of the gateway; a name may stand for its address
    #[arg(long, env = "SCHEMABRIDGE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:5001", value_parser = listening_at)]
    admin_listen: ListenAddress,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = &arguments.admin_listen;
    let answer = ask(address, "GET", "/readyz", None)?;
    if answer.is_ok() {
        return Ok(());
    }
    Err(format!("the gateway at {address} is not ready: it answered `{}`", answer.status_line).into())
}
