//! HTTP/2 frame by frame, for clients that send what no library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::patiently;

/// Types of frames, as RFC 9113 numbers them.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// The last frame of its stream.
pub const END_STREAM: u8 = 1;
/// The last frame of its head.
pub const END_HEADERS: u8 = 4;
/// The setting of how many bytes may be sent on a stream before more are asked for.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame, as it is sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head, in the form of it that needs no table.
pub fn head(method: &str, target: &str) -> Vec<u8> {
    let lines = [(":method", method), (":scheme", "https"), (":authority", "gateway.test"), (":path", target)];
    lines.iter().flat_map(|(name, value)| line(name, value)).collect()
}

fn line(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// A line whose value is so long, which the other side is to remember, and then that line again so many times.
pub fn indexed_again(length: usize, times: usize) -> Vec<u8> {
    // RFC 7541: 5.1 for lengths of 127 and more, 6.2.1 for what is remembered, 62 for what was remembered last.
    let mut value = vec![0x7f];
    let mut rest = length - 127;
    while rest >= 128 {
        value.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    value.push(u8::try_from(rest).unwrap());
    value.extend(vec![b'x'; length]);
    [&[0x40, 1, b'x'], value.as_slice(), &vec![0x80 | 62; times]].concat()
}

/// A request without a body.
pub fn request(stream: u32, target: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", target))
}

/// What the other side said until it ended the connection.
#[derive(Debug, Default)]
pub struct Said {
    /// The reason with which it said that it is over, if that was heard at all.
    pub goodbye: Option<u32>,
    /// Types of frames, in order.
    pub kinds: Vec<u8>,
}

/// A connection on which frames are sent.
pub struct Frames {
    reading: ReadHalf<TlsStream<TcpStream>>,
    writing: WriteHalf<TlsStream<TcpStream>>,
}

impl Frames {
    /// A connection on which nothing was said.
    pub fn over(stream: TlsStream<TcpStream>) -> Self {
        let (reading, writing) = tokio::io::split(stream);
        Self { reading, writing }
    }

    /// Says how HTTP/2 begins, and these settings.
    pub async fn begin(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
            .collect();
        self.send(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &payload)].concat()).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.writing.write_all(bytes).await.unwrap();
        self.writing.flush().await.unwrap();
    }

    /// Reads until the other side ends the connection.
    pub async fn ended(mut self) -> Said {
        patiently("the end of the connection", said(&mut self.reading)).await
    }

    /// Sends what belongs to each turn, and reads what comes, until the other side ends the connection.
    pub async fn flood(self, turn: impl Fn(u32) -> Vec<u8>) -> Said {
        let Self { mut reading, mut writing } = self;
        let sending = async {
            for number in 0.. {
                if writing.write_all(&turn(number)).await.is_err() || writing.flush().await.is_err() {
                    return;
                }
            }
        };
        patiently("the end of the flood", async { tokio::join!(said(&mut reading), sending).0 }).await
    }
}

async fn said(reading: &mut ReadHalf<TlsStream<TcpStream>>) -> Said {
    let mut said = Said::default();
    while let Some((kind, payload)) = next(reading).await {
        if kind == kind::GOAWAY {
            said.goodbye = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        said.kinds.push(kind);
    }
    said
}

/// The next frame. A connection that is reset has ended too.
async fn next(reading: &mut ReadHalf<TlsStream<TcpStream>>) -> Option<(u8, Vec<u8>)> {
    let mut start = [0; 9];
    reading.read_exact(&mut start).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize];
    reading.read_exact(&mut payload).await.ok()?;
    Some((start[3], payload))
}
