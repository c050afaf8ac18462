//! A client that lets a connection stand still, told apart from an upstream that does: time runs only while nobody but
//! the client can go on.

use std::collections::BTreeMap;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::{Frame, SizeHint};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::limits::Limits;
use super::metrics::Overdue;

/// How long a client that was told that its connection is over may take to close it, on which no request is.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How requests come on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    /// One after the other: bytes between two of them begin a head, and an answer that waits is one that cannot be written.
    InTurn,
    /// Side by side, with bytes that belong to none of them. Each client says for each answer how much of it may be sent.
    Together,
}

/// What a connection waits for.
#[derive(Clone)]
pub(super) struct Watch {
    limits: Limits,
    requests: Requests,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Requests that are not answered whole.
    underway: usize,
    idle_since: Instant,
    /// The client was told that the connection is over.
    is_leaving: bool,
    /// Of the first request it is the beginning of the connection.
    head_since: Option<Instant>,
    write_since: Option<Instant>,
    /// Answers of which something was handed over that the client does not let go out, each by its number.
    handed_since: BTreeMap<u64, Instant>,
    next_number: u64,
}

impl Watch {
    /// Begins with the connection: the head of the first request is waited for.
    pub(super) fn new(limits: Limits, requests: Requests) -> Self {
        let now = Instant::now();
        let state = State {
            underway: 0,
            idle_since: now,
            is_leaving: false,
            head_since: Some(now),
            write_since: None,
            handed_since: BTreeMap::new(),
            next_number: 0,
        };
        Self { limits, requests, state: Arc::new(Mutex::new(state)) }
    }

    /// The same stream, watched.
    pub(super) fn over<Stream>(&self, stream: Stream) -> WatchedStream<Stream> {
        WatchedStream { stream, watch: self.clone() }
    }

    /// A request has come, and is under way as long as this or the body of its answer lives.
    pub(super) fn begin(&self) -> Underway {
        let mut state = self.state();
        state.underway += 1;
        state.head_since = None;
        state.next_number += 1;
        Underway { number: state.next_number, watch: self.clone() }
    }

    /// Serves until the end, which begins when there is nothing under way after `closing`, or until the client has let it
    /// wait for too long.
    pub(super) async fn until_overdue<Served: GracefulConnection>(
        &self,
        served: Served,
        closing: impl Future<Output = ()>,
    ) -> Result<Served::Output, Overdue> {
        let (mut served, mut closing) = (pin!(served), pin!(closing));
        let (mut is_closing, mut left) = (false, None);
        loop {
            tokio::select! {
                // What came in time goes first.
                biased;
                output = &mut served => return left.map_or(Ok(output), Err),
                () = &mut closing, if !is_closing => {
                    is_closing = true;
                    served.as_mut().graceful_shutdown();
                }
                // Who sends without a pause uses up what a task may do in one turn, in which no other time would run out.
                overdue = tokio::task::unconstrained(self.overdue()) => {
                    if left.is_some() || !self.takes_leave(overdue) {
                        return Err(overdue);
                    }
                    left = Some(overdue);
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Whether there is something to say before the connection is cut. A client whose requests come side by side may be
    /// sending one, and must know that nobody has looked at it.
    fn takes_leave(&self, overdue: Overdue) -> bool {
        let is_told = self.requests == Requests::Together && overdue == Overdue::Idle;
        if is_told {
            let mut state = self.state();
            (state.is_leaving, state.idle_since) = (true, Instant::now());
        }
        is_told
    }

    async fn overdue(&self) -> Overdue {
        let Limits { header_timeout, keep_alive_timeout, body_idle_timeout, .. } = self.limits;
        let look_again = header_timeout.min(keep_alive_timeout).min(body_idle_timeout);
        loop {
            let now = Instant::now();
            // What begins to stand still after this look is seen at the next one, before its time is up.
            let next = match self.state().deadline(&self.limits) {
                Some((deadline, overdue)) if deadline <= now => return overdue,
                Some((deadline, _)) => deadline.min(now + look_again),
                None => now + look_again,
            };
            tokio::time::sleep_until(next).await;
        }
    }

    fn wrote<Output>(&self, outcome: Poll<Output>) -> Poll<Output> {
        let mut state = self.state();
        match &outcome {
            Poll::Pending => {
                state.write_since.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => state.write_since = None,
        }
        outcome
    }

    fn read_some(&self) {
        let mut state = self.state();
        if self.requests == Requests::InTurn && state.underway == 0 {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When the client will have let something wait for too long, if nothing happens, and what.
    fn deadline(&self, limits: &Limits) -> Option<(Instant, Overdue)> {
        let head = self.head_since.map(|since| (since + limits.header_timeout, Overdue::Head));
        let is_idle = self.underway == 0 && head.is_none();
        let longest = if self.is_leaving { FAREWELL_TIMEOUT } else { limits.keep_alive_timeout };
        let idle = is_idle.then(|| (self.idle_since + longest.min(limits.keep_alive_timeout), Overdue::Idle));
        let stalled = self.write_since.into_iter().chain(self.handed_since.values().copied()).min();
        let answer = stalled.map(|since| (since + limits.body_idle_timeout, Overdue::Answer));
        [head, idle, answer].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }
}

/// A request that is not answered whole.
pub(super) struct Underway {
    number: u64,
    watch: Watch,
}

impl Underway {
    /// The answer, during which the request stays under way.
    pub(super) fn answered<Body>(self, answer: Response<Body>) -> Response<WatchedBody<Body>> {
        answer.map(|body| WatchedBody { body, underway: self })
    }

    fn handed_over(&self) {
        if self.watch.requests == Requests::Together {
            self.watch.state().handed_since.insert(self.number, Instant::now());
        }
    }

    fn taken(&self) {
        if self.watch.requests == Requests::Together {
            self.watch.state().handed_since.remove(&self.number);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.handed_since.remove(&self.number);
        state.underway -= 1;
        state.idle_since = Instant::now();
    }
}

/// The body of an answer.
pub(super) struct WatchedBody<Body> {
    body: Body,
    underway: Underway,
}

impl<Body: http_body::Body + Unpin> http_body::Body for WatchedBody<Body> {
    type Data = Body::Data;
    type Error = Body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Body::Data>, Body::Error>>> {
        // Who asks for more has let go out what he had.
        self.underway.taken();
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = &frame {
            self.underway.handed_over();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream of a connection.
pub(super) struct WatchedStream<Stream> {
    stream: Stream,
    watch: Watch,
}

impl<Stream: AsyncRead + Unpin> AsyncRead for WatchedStream<Stream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watch.read_some();
        }
        outcome
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for WatchedStream<Stream> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
