//! Spans: what a request took as a whole, and each request to an upstream on its behalf.
//!
//! They wait in a queue for whoever hands them on to a collector of traces. One that is full loses spans, which are counted,
//! and holds up nobody. Without a queue there are no spans, and the trace that a client names passes as it is.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::HeaderValue;
use tokio::sync::mpsc;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Which one it is.
    pub place: Place,
    /// The span that it is a part of.
    pub parent: Option<Parent>,
    /// Whose side it is seen from.
    pub side: Side,
    /// What was done.
    pub name: String,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known of it: never a query or a header, which can hold a secret.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it came to a good end.
    pub end: End,
}

/// Where a span stands: in which trace, and by which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
}

/// A span that another one is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// One of this process.
    Own(u64),
    /// One of whoever asks.
    Clients(u64),
}

/// Whose side a request is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of who answers.
    Server,
    /// Of who asks.
    Client,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well, as far as this side can tell.
    Good,
    /// Not so.
    Bad,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// In words.
    Text(String),
    /// As a number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }
}

impl Place {
    /// A new span in this trace.
    fn within(trace: u128) -> Self {
        Self { trace, span: chance().max(1) }
    }

    /// The first span of a new trace.
    fn first() -> Self {
        Self::within(((u128::from(chance()) << 64) | u128::from(chance())).max(1))
    }

    /// How whoever is asked is told of it.
    pub(super) fn traceparent(self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("00-{:032x}-{:016x}-01", self.trace, self.span)).ok()
    }
}

/// A number that no other is likely to be. Not for secrets: it costs no call to the system.
pub(super) fn chance() -> u64 {
    RandomState::new().hash_one(())
}

/// Where spans are put when they end. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Span>,
    lost: Arc<AtomicU64>,
}

/// Where they are taken.
#[derive(Debug)]
pub struct EndedSpans {
    queue: mpsc::Receiver<Span>,
    lost: Arc<AtomicU64>,
}

impl Spans {
    /// A queue of so many places.
    pub fn queue(places: usize) -> (Self, EndedSpans) {
        let (sender, receiver) = mpsc::channel(places);
        let lost = Arc::<AtomicU64>::default();
        (Self { queue: sender, lost: Arc::clone(&lost) }, EndedSpans { queue: receiver, lost })
    }

    fn put(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl EndedSpans {
    /// Waits for spans and puts at most so many behind those that are there; 0 when there will be none. What is not waited
    /// for to the end has taken none.
    pub async fn take(&mut self, taken: &mut Vec<Span>, spans_max: usize) -> usize {
        self.queue.recv_many(taken, spans_max).await
    }

    /// Lets no more in.
    pub fn close(&mut self) {
        self.queue.close();
    }

    /// How many found no place since this was asked last.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// The trace of one request that goes to a queue.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    spans: Spans,
    /// The span of the request.
    pub(super) place: Place,
    parent: Option<Parent>,
}

impl Trace {
    /// The trace of a request whose client names one, or of one that begins here. None where the client wants none.
    pub(super) fn begin(spans: &Spans, traceparent: Option<&HeaderValue>) -> Option<Self> {
        let spans = spans.clone();
        let Some(named) = traceparent.and_then(|value| Named::read(value.to_str().ok()?)) else {
            return Some(Self { spans, place: Place::first(), parent: None });
        };
        let parent = Some(Parent::Clients(named.parent));
        named.is_sampled.then(|| Self { spans, place: Place::within(named.trace), parent })
    }

    /// The span of the request begins.
    pub(super) fn open(&self) -> OpenSpan {
        OpenSpan::begin(&self.spans, Side::Server, self.place, self.parent)
    }

    /// A part of it begins.
    pub(super) fn open_child(&self) -> OpenSpan {
        let parent = Some(Parent::Own(self.place.span));
        OpenSpan::begin(&self.spans, Side::Client, Place::within(self.place.trace), parent)
    }
}

/// What a `traceparent` says, whose form was checked.
struct Named {
    trace: u128,
    parent: u64,
    is_sampled: bool,
}

impl Named {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-').skip(1);
        let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
        let parent = u64::from_str_radix(parts.next()?, 16).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self { trace, parent, is_sampled: flags & 1 == 1 })
    }
}

/// A span that has begun. It ends when it is dropped.
#[derive(Debug)]
pub struct OpenSpan {
    spans: Spans,
    /// None only while it is dropped.
    span: Option<Span>,
}

impl OpenSpan {
    fn begin(spans: &Spans, side: Side, place: Place, parent: Option<Parent>) -> Self {
        let now = SystemTime::now();
        let span = Span {
            place,
            parent,
            side,
            name: String::new(),
            started: now,
            ended: now,
            attributes: Vec::new(),
            end: End::Good,
        };
        Self { spans: spans.clone(), span: Some(span) }
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.span.as_ref().map(|span| span.place)
    }

    /// What is done in it.
    pub fn name(&mut self, name: String) {
        if let Some(span) = &mut self.span {
            span.name = name;
        }
    }

    /// Notes what is known; nothing where there is nothing.
    pub fn note(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let (Some(span), Some(value)) = (&mut self.span, value) {
            span.attributes.push((name, value.into()));
        }
    }

    /// It came to no good end.
    pub fn fail(&mut self) {
        if let Some(span) = &mut self.span {
            span.end = End::Bad;
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            // A clock that was set back makes no span that ends before it began.
            span.ended = SystemTime::now().max(span.started);
            self.spans.put(span);
        }
    }
}
