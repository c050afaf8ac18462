//! Asking a running gateway at its admin listener.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::admin::AdminToken;
use crate::config::{InvalidListenAddress, ListenAddress};

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(3);
/// More than any answer to a command takes, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// An answer of the admin listener.
pub(super) struct Answer {
    /// Its first line.
    pub(super) status_line: String,
    /// Its text.
    pub(super) text: String,
}

impl Answer {
    /// The gateway did what it was asked for.
    pub(super) fn is_ok(&self) -> bool {
        self.status_line.starts_with("HTTP/1.1 200 ")
    }
}

/// Where a gateway is asked: what it may be told to listen at, or a name that leads there, as a service of Kubernetes has.
pub(super) fn listening_at(text: &str) -> Result<ListenAddress, String> {
    let invalid = match text.parse() {
        Ok(address) => return Ok(address),
        Err(invalid @ InvalidListenAddress) => invalid,
    };
    let mut found = text.to_socket_addrs().map_err(|reason| format!("{invalid}, or a host and a port; {reason}"))?;
    found.next().map(ListenAddress::Network).ok_or_else(|| format!("{text} has no address"))
}

/// Sends one request; `target` is path and query.
pub(super) fn ask(
    address: &ListenAddress,
    method: &str,
    target: &str,
    token: Option<&AdminToken>,
) -> Result<Answer, Failure> {
    let received = exchange(address, method, target, token)
        .map_err(|error| format!("no answer from the admin listener at {address}: {error}"))?;
    let received = String::from_utf8_lossy(&received);
    let (head, text) = received.split_once("\r\n\r\n").unwrap_or((&received, ""));
    let status_line = head.lines().next().unwrap_or_default().to_owned();
    Ok(Answer { status_line, text: text.to_owned() })
}

fn exchange(
    address: &ListenAddress,
    method: &str,
    target: &str,
    token: Option<&AdminToken>,
) -> std::io::Result<Vec<u8>> {
    match address {
        ListenAddress::Network(address) => {
            let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange_over(stream, &address.to_string(), method, target, token)
        }
        ListenAddress::UnixSocket(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange_over(stream, "localhost", method, target, token)
        }
    }
}

fn exchange_over(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    target: &str,
    token: Option<&AdminToken>,
) -> std::io::Result<Vec<u8>> {
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n")?;
    if let Some(token) = token {
        write!(stream, "Authorization: Bearer {}\r\n", token.reveal())?;
    }
    stream.write_all(b"\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}
