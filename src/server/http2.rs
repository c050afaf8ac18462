//! HTTP/2: how much of it one connection may have.

use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::limits::Limits;

/// How many requests may be under way on a connection. Clients ask for a handful of layers at once; a node that pulls many
/// images does it over one connection.
pub const STREAMS_MAX: u32 = 128;
/// How many bytes the head of a request may have, counted as RFC 9113 counts them: 32 more for each header.
pub const HEAD_LIST_BYTES_MAX: u32 = 64 * 1024;
/// How many bytes of an answer wait in memory for a client that does not read on, for each request. All requests of a
/// connection together hold at most [`STREAMS_MAX`] times as many.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// How many bytes of one request's body may come before they are read. Only pushes have any.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all requests of a connection together.
pub const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// How long a connection may be silent before the client is asked whether it is there.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to say so.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How many requests a client may take back that were not looked at yet. One more ends the connection: asking and taking
/// back costs a client nothing, and a server its work.
pub const UNSEEN_RESETS_MAX: usize = 20;
/// How many requests may be refused for what the client did wrong in them. One more ends the connection, for the same
/// reason.
pub const FAULTY_STREAMS_MAX: usize = 100;

/// How much of HTTP/2 one connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests under way. Default [`STREAMS_MAX`].
    pub streams_max: u32,
    /// Bytes of the head of a request. Default [`HEAD_LIST_BYTES_MAX`].
    pub head_bytes_max: u32,
    /// Bytes of an answer that wait for the client. Default [`SEND_BUFFER_BYTES`].
    pub send_buffer_bytes: usize,
    /// Bytes of a request's body that wait to be read. Default [`STREAM_WINDOW_BYTES`].
    pub stream_window_bytes: u32,
    /// Bytes of all requests' bodies that wait to be read. Default [`CONNECTION_WINDOW_BYTES`].
    pub connection_window_bytes: u32,
    /// Silence after which the client is asked whether it is there. Default [`PING_INTERVAL`].
    pub ping_interval: Duration,
    /// How long it may take to say so. Default [`PING_TIMEOUT`].
    pub ping_timeout: Duration,
    /// Requests taken back unseen. Default [`UNSEEN_RESETS_MAX`].
    pub unseen_resets_max: usize,
    /// Requests refused for what is wrong with them. Default [`FAULTY_STREAMS_MAX`].
    pub faulty_streams_max: usize,
}

impl Settings {
    /// Every setting at its default.
    pub const DEFAULT: Self = Self {
        streams_max: STREAMS_MAX,
        head_bytes_max: HEAD_LIST_BYTES_MAX,
        send_buffer_bytes: SEND_BUFFER_BYTES,
        stream_window_bytes: STREAM_WINDOW_BYTES,
        connection_window_bytes: CONNECTION_WINDOW_BYTES,
        ping_interval: PING_INTERVAL,
        ping_timeout: PING_TIMEOUT,
        unseen_resets_max: UNSEEN_RESETS_MAX,
        faulty_streams_max: FAULTY_STREAMS_MAX,
    };

    /// Every setting at its default, but for what is limited for every protocol.
    pub(super) fn within(limits: &Limits) -> Self {
        Self { head_bytes_max: u32::try_from(limits.head_bytes).unwrap_or(u32::MAX), ..Self::DEFAULT }
    }

    /// What speaks HTTP/2 within these.
    pub(super) fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(self.head_bytes_max)
            .max_send_buf_size(self.send_buffer_bytes)
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .keep_alive_interval(self.ping_interval)
            .keep_alive_timeout(self.ping_timeout)
            .max_pending_accept_reset_streams(self.unseen_resets_max)
            .max_local_error_reset_streams(self.faulty_streams_max);
        builder
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}
