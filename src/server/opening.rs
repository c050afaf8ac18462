//! The first byte that a client sends, and a word to who came to the wrong port.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The first byte of TLS: a record of a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// What is said to TLS on a port that speaks plain HTTP. Docker and containerd try TLS first and go on without it only where
/// the answer begins like one of HTTP with this status.
pub(super) const PLAIN_HTTP_ONLY: &str = "This port speaks plain HTTP, and the client began TLS; use http://.\n";
/// What is said to plain HTTP on a port that speaks TLS.
pub(super) const TLS_ONLY: &str = "This port speaks TLS, and the client sent plain HTTP; use https://.\n";

/// How long, and how many bytes, a client that is turned away is still heard: one whose bytes are not read may lose the
/// answer that it has not read.
const HEARD_FOR: Duration = Duration::from_secs(1);
const HEARD_BYTES_MAX: u64 = 64 * 1024;

/// What a client begins to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// TLS.
    Tls,
    /// The method of a request.
    Http,
    /// Neither, or nothing at all.
    Other,
}

impl Opening {
    /// Waits for the first byte and leaves it where it is.
    pub(super) async fn of(stream: &TcpStream) -> io::Result<Self> {
        let mut first = [0];
        Ok(match (stream.peek(&mut first).await?, first) {
            (1, [HANDSHAKE_RECORD]) => Self::Tls,
            (1, [byte]) if byte.is_ascii_uppercase() => Self::Http,
            _ => Self::Other,
        })
    }
}

/// Answers with a bad request and ends the connection.
pub(super) async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &str) -> io::Result<()> {
    let start = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close";
    let answer = format!("{start}\r\nContent-Length: {}\r\n\r\n{words}", words.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(HEARD_BYTES_MAX);
    let heard = async { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await };
    tokio::time::timeout(HEARD_FOR, heard).await.map_or(Ok(()), |heard| heard.map(drop))
}
