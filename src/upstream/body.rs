//! The upstream's bodies: streamed under an idle time-out, or collected under a cap.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::failure::Failure;
use super::{Trouble, tls};

/// A body of the upstream as it arrives. The idle time-out runs only while the gateway waits for the upstream: a client
/// that reads slowly does not make the upstream look dead.
pub struct StreamedBody {
    inner: reqwest::Body,
    idle_timeout: Duration,
    /// Counts its bytes.
    moved: Option<Counter>,
    /// Armed while the inner body is pending.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl StreamedBody {
    /// Wraps a body of the HTTP client.
    pub const fn new(inner: reqwest::Body, idle_timeout: Duration) -> Self {
        Self { inner, idle_timeout, moved: None, deadline: None }
    }

    /// The same, with its bytes counted there.
    pub(super) fn counted_by(self, moved: &Counter) -> Self {
        Self { moved: Some(moved.clone()), ..self }
    }
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.deadline = None;
            if let (Some(moved), Some(Ok(frame))) = (&this.moved, &frame)
                && let Some(data) = frame.data_ref()
            {
                moved.inc_by(data.len() as u64);
            }
            return Poll::Ready(frame.map(|result| result.map_err(broken_off)));
        }
        let idle_timeout = this.idle_timeout;
        let deadline =
            this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + idle_timeout)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(Failure::TimedOut { seconds: idle_timeout.as_secs() })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How uploads arrive from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// How long a client may send nothing while more is waited for. Default 60 s.
    pub idle_timeout: Duration,
    /// How many bytes the body of one request may have. Default any number.
    pub bytes_max: Option<u64>,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(60), bytes_max: None }
    }
}

/// The body of an upload as it arrives from the client. The idle time-out runs only while the gateway waits for the
/// client. Says when it is over, so that the time for the answer can begin.
pub(super) struct UploadBody {
    inner: StreamedBody,
    limits: UploadLimits,
    seen: u64,
    ended: Option<oneshot::Sender<()>>,
}

impl UploadBody {
    pub(super) fn new(
        inner: reqwest::Body,
        limits: UploadLimits,
        moved: &Counter,
    ) -> Result<(Self, oneshot::Receiver<()>), Failure> {
        let inner = StreamedBody::new(inner, limits.idle_timeout).counted_by(moved);
        let (ended, over) = oneshot::channel();
        let body = Self { inner, limits, seen: 0, ended: Some(ended) };
        // What is announced need not begin.
        body.check(body.size_hint().lower())?;
        Ok((body, over))
    }

    const fn check(&self, length: u64) -> Result<(), Failure> {
        match self.limits.bytes_max {
            Some(bytes_max) if length > bytes_max => Err(Failure::UploadTooLarge { bytes_max }),
            _ => Ok(()),
        }
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Err(Failure::TimedOut { seconds })) => Some(Err(Failure::UploadStalled { seconds })),
            Some(Err(Failure::Unreachable { reason, .. })) => {
                Some(Err(Failure::Unreachable { trouble: Trouble::Upload, reason }))
            }
            frame => frame,
        };
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.seen = self.seen.saturating_add(data.len() as u64);
            self.check(self.seen)?;
        }
        if frame.is_none() || self.inner.is_end_stream() {
            self.ended = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Says what broke a transfer without naming the URL, which may hold a signature. What an upload broke off for is its own.
pub(super) fn unreachable(error: reqwest::Error) -> Failure {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(failure) = source.downcast_ref::<Failure>() {
            return failure.clone();
        }
        cause = source.source();
    }
    let error = error.without_url();
    Failure::Unreachable { trouble: Trouble::of(&error), reason: innermost(&error) }
}

/// The same of a transfer whose head had come.
fn broken_off(error: reqwest::Error) -> Failure {
    match unreachable(error) {
        Failure::Unreachable { reason, .. } => Failure::Unreachable { trouble: Trouble::BrokenOff, reason },
        failure => failure,
    }
}

/// The outer errors say that a request was sent; the innermost says what became of it.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    tls::words(cause).unwrap_or_else(|| cause.to_string())
}

/// All bytes of a document, refused as soon as more than `bytes_max` have come or are declared. `what` names the
/// document in the error.
pub async fn collect(mut body: StreamedBody, bytes_max: usize, what: &'static str) -> Result<Bytes, Failure> {
    let too_large = || Failure::TooLarge { what, bytes_max };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if collected.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}
