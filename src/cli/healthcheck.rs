//! `schemabridge healthcheck`: for probes in images that hold nothing but the binary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use crate::config::values::address;

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(3);
/// More than the status line and headers of a health answer take, in bytes.
const ANSWER_BYTES_MAX: u64 = 4096;

/// The flags of `healthcheck`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The admin listener of the gateway
    #[arg(long, env = "SCHEMABRIDGE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:5001", value_parser = address)]
    admin_listen: SocketAddr,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = arguments.admin_listen;
    let answer = ask(address).map_err(|error| format!("no answer from the admin listener at {address}: {error}"))?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(format!("the gateway at {address} is not ready: it answered `{}`", String::from_utf8_lossy(line)).into())
}

fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}
