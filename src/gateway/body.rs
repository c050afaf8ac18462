//! The body of an answer: a document that is in memory, or bytes that stream through.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::image::digest::{Digest, Verifier};
use crate::upstream::{Failure, StreamedBody};

/// The body of an answer.
pub struct Body(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Streamed(Box<StreamedBody>),
    Checked(Box<Checked>),
}

/// A large document as it arrives: the bytes that were read already, then the rest, and an error instead of a clean end
/// if all of it does not have the digest that it was asked by.
struct Checked {
    start: Option<Bytes>,
    rest: StreamedBody,
    expected: Digest,
    verifier: Option<Verifier>,
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Kind::Whole(None))
    }

    /// These bytes.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Some(bytes.into())))
    }

    /// The upstream's body, as it arrives.
    pub fn streamed(rest: StreamedBody) -> Self {
        Self(Kind::Streamed(Box::new(rest)))
    }

    /// The start of a document that was read already, then the rest, checked against its digest at the end.
    pub fn checked(start: Bytes, rest: StreamedBody, expected: &Digest) -> Self {
        let verifier = Some(Verifier::new(expected.algorithm()));
        Self(Kind::Checked(Box::new(Checked { start: Some(start), rest, expected: expected.clone(), verifier })))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Kind::Streamed(rest) => Pin::new(rest.as_mut()).poll_frame(context),
            Kind::Checked(checked) => checked.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Streamed(rest) => rest.is_end_stream(),
            Kind::Checked(checked) => checked.verifier.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Streamed(rest) => rest.size_hint(),
            Kind::Checked(_) => SizeHint::default(),
        }
    }
}

impl Checked {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let frame = match self.start.take() {
            Some(start) => Some(Ok(Frame::data(start))),
            None => ready!(Pin::new(&mut self.rest).poll_frame(context)),
        };
        let Some(Ok(frame)) = frame else {
            let verifier = self.verifier.take();
            return Poll::Ready(frame.or_else(|| self.verdict(verifier?)));
        };
        if let (Some(verifier), Some(data)) = (&mut self.verifier, frame.data_ref()) {
            verifier.update(data);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn verdict(&self, verifier: Verifier) -> Option<Result<Frame<Bytes>, Failure>> {
        let found = verifier.finish();
        let expected = self.expected.clone();
        (found != expected).then_some(Err(Failure::WrongBytes { expected, found }))
    }
}
