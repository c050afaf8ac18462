//! HTTP/1.1 as these tests need it: a request with exactly the headers that were written down, and a whole answer.
//!
//! A usual client would add an Accept header of its own, and its absence is what makes an asker a Docker 1.9.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What Docker 1.9.1 calls itself; it sends no Accept header.
pub const DOCKER_1_9_1: &str = "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0 os/linux arch/amd64";

/// No answer of a program on loopback takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A whole answer; header names are lower-case.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request on a connection of its own. An error is a connection that broke or an answer that is not HTTP.
pub fn ask(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut connection = TcpStream::connect(to)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    parse(&answer, method == "HEAD").ok_or_else(|| std::io::Error::other("the answer is not whole"))
}

/// A GET, as Docker 1.9.1 sends it.
pub fn ask_as_docker_1_9(to: SocketAddr, target: &str) -> Answer {
    ask(to, "GET", target, &[("User-Agent", DOCKER_1_9_1)], b"")
        .unwrap_or_else(|fault| panic!("GET {target} at {to} as Docker 1.9.1: {fault}"))
}

pub fn parse(answer: &[u8], without_body: bool) -> Option<Answer> {
    let end = find(answer, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .map(|line| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())))
        .collect::<Option<Vec<_>>>()?;
    let mut answer = Answer { status, headers, body: answer[end + 4..].to_vec() };
    if without_body {
        answer.body.clear();
    } else if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = joined_chunks(&answer.body)?;
    } else if let Some(length) = answer.header("content-length") {
        (answer.body.len() == length.parse::<usize>().ok()?).then_some(())?;
    }
    Some(answer)
}

/// The bytes of a chunked body; none if its last chunk is missing.
fn joined_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = find(rest, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// Where `part` begins in `whole`.
pub fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}
