//! The body of an answer: a document that is in memory, bytes that stream through, or a blob of the cache.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;

use crate::image::digest::{Digest, Verifier};
use crate::store::LayerBytes;
use crate::store::blobs::{BlobBody, Broken};
use crate::upstream::{Failure, StreamedBody};

use super::passage::Passage;

/// The body of an answer.
pub struct Body {
    kind: Kind,
    /// The request that it answers, which is over with it.
    passage: Option<Box<Passage>>,
}

enum Kind {
    Whole(Option<Bytes>),
    Streamed(Box<StreamedBody>),
    Checked(Box<Checked>),
    Kept(Box<BlobBody>),
    Made { layer: LayerBytes, left: u64 },
}

/// A body that is judged as it arrives: the bytes that were read already, then the rest. Each frame waits for the next one, so
/// that the last goes out only if the whole has the digest or the length that was announced: a client that counts bytes stops reading
/// at the last one and would never hear the verdict.
struct Checked {
    held: Option<Bytes>,
    rest: StreamedBody,
    /// `None` once it has spoken.
    judge: Option<Judge>,
}

/// What decides whether a body is what was announced.
enum Judge {
    Digest { expected: Digest, verifier: Box<Verifier> },
    Length { expected: u64, seen: u64 },
}

impl Body {
    const fn of(kind: Kind) -> Self {
        Self { kind, passage: None }
    }

    /// Ends this request with itself.
    pub(super) fn ending(self, passage: Box<Passage>) -> Self {
        Self { passage: Some(passage), ..self }
    }

    /// No bytes.
    pub const fn empty() -> Self {
        Self::of(Kind::Whole(None))
    }

    /// These bytes.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::of(Kind::Whole(Some(bytes.into())))
    }

    /// The upstream's body, as it arrives.
    pub fn streamed(rest: StreamedBody) -> Self {
        Self::of(Kind::Streamed(Box::new(rest)))
    }

    /// The start of a document that was read already, then the rest, checked against its digest at the end.
    pub fn checked(start: Bytes, rest: StreamedBody, expected: &Digest) -> Self {
        let mut verifier = Verifier::new(expected.algorithm());
        verifier.update(&start);
        let judge = Some(Judge::Digest { expected: expected.clone(), verifier: Box::new(verifier) });
        Self::of(Kind::Checked(Box::new(Checked { held: Some(start), rest, judge })))
    }

    /// The upstream's body, which does not say its length, under one that was learnt elsewhere.
    pub fn of_length(rest: StreamedBody, length: u64) -> Self {
        let judge = Some(Judge::Length { expected: length, seen: 0 });
        Self::of(Kind::Checked(Box::new(Checked { held: None, rest, judge })))
    }

    /// A blob of the cache, as it is read.
    pub fn kept(blob: BlobBody) -> Self {
        Self::of(Kind::Kept(Box::new(blob)))
    }

    /// So many bytes of a layer of the store, as they are read.
    pub fn made(layer: LayerBytes, length: u64) -> Self {
        Self::of(Kind::Made { layer, left: length })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(self.kind.poll_frame(context));
        let Self { kind, passage: Some(passage) } = &mut *self else { return Poll::Ready(frame) };
        match &frame {
            Some(Ok(frame)) => passage.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(broken)) => passage.broke(broken),
            None => {}
        }
        if frame.is_none() || kind.is_end_stream() {
            passage.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Streamed(rest) => rest.size_hint(),
            Kind::Checked(_) => SizeHint::default(),
            Kind::Made { left, .. } => SizeHint::with_exact(*left),
            Kind::Kept(blob) => blob.size_hint(),
        }
    }
}

impl Kind {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Streamed(rest) => Pin::new(rest.as_mut()).poll_frame(context).map_err(Broken::from),
            Self::Checked(checked) => checked.poll_frame(context).map_err(Broken::from),
            Self::Kept(blob) => Pin::new(blob.as_mut()).poll_frame(context),
            Self::Made { layer, left } => {
                let piece = ready!(layer.poll_next_unpin(context));
                if let Some(Ok(piece)) = &piece {
                    *left = left.saturating_sub(piece.len() as u64);
                }
                Poll::Ready(piece.map(|piece| piece.map(Frame::data).map_err(Broken::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streamed(rest) => rest.is_end_stream(),
            Self::Checked(checked) => checked.judge.is_none(),
            Self::Kept(blob) => blob.is_end_stream(),
            Self::Made { left, .. } => *left == 0,
        }
    }
}

impl Checked {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            let Some(judge) = &mut self.judge else { return Poll::Ready(None) };
            let next = match ready!(Pin::new(&mut self.rest).poll_frame(context)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(failure)) => {
                    self.judge = None;
                    return Poll::Ready(Some(Err(failure)));
                }
                None => return Poll::Ready(self.last()),
            };
            let Some(next) = next.filter(|next| !next.is_empty()) else { continue };
            if let Err(failure) = judge.hear(&next) {
                self.judge = None;
                return Poll::Ready(Some(Err(failure)));
            }
            if let Some(held) = self.held.replace(next) {
                return Poll::Ready(Some(Ok(Frame::data(held))));
            }
        }
    }

    /// The last frame, or an error instead of it.
    fn last(&mut self) -> Option<Result<Frame<Bytes>, Failure>> {
        match self.judge.take()?.verdict() {
            Ok(()) => self.held.take().map(|held| Ok(Frame::data(held))),
            Err(failure) => Some(Err(failure)),
        }
    }
}

impl Judge {
    fn hear(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Digest { verifier, .. } => verifier.update(bytes),
            Self::Length { expected, seen } => {
                *seen += bytes.len() as u64;
                if *seen > *expected {
                    return Err(Failure::WrongLength { expected: *expected });
                }
            }
        }
        Ok(())
    }

    fn verdict(self) -> Result<(), Failure> {
        match self {
            Self::Digest { expected, verifier } => {
                let found = verifier.finish();
                if found == expected { Ok(()) } else { Err(Failure::WrongBytes { expected, found }) }
            }
            Self::Length { expected, seen } if seen == expected => Ok(()),
            Self::Length { expected, .. } => Err(Failure::WrongLength { expected }),
        }
    }
}

/// The body of a request, whose bytes are counted as they come.
pub(super) struct Received<Inner> {
    inner: Pin<Box<Inner>>,
    bytes: Counter,
}

impl<Inner> Received<Inner> {
    pub(super) fn new(inner: Inner, bytes: Counter) -> Self {
        Self { inner: Box::pin(inner), bytes }
    }
}

impl<Inner: http_body::Body<Data = Bytes>> http_body::Body for Received<Inner> {
    type Data = Bytes;
    type Error = Inner::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Inner::Error>>> {
        let frame = ready!(self.inner.as_mut().poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes.inc_by(data.len() as u64);
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
