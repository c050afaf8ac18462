//! The body of an answer: a document that is in memory, or bytes that stream through.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::upstream::{Failure, StreamedBody};

/// The body of an answer.
pub struct Body(Kind);

enum Kind {
    Whole(Option<Bytes>),
    /// Bytes that were read already, then the rest as it arrives.
    Streamed(Option<Bytes>, Box<StreamedBody>),
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
        Self(Kind::Streamed(None, Box::new(rest)))
    }

    /// Bytes of the upstream's body that were read already, then the rest.
    pub fn continued(start: Bytes, rest: StreamedBody) -> Self {
        Self(Kind::Streamed(Some(start), Box::new(rest)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Streamed(start, rest) => match start.take().filter(|start| !start.is_empty()) {
                Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
                None => Pin::new(rest.as_mut()).poll_frame(context),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Streamed(start, rest) => start.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Streamed(None, rest) => rest.size_hint(),
            Kind::Streamed(Some(_), _) => SizeHint::default(),
        }
    }
}
