//! On whose behalf the upstream is asked: the name of one client's request, the trace that it belongs to, and how long it
//! waited for upstreams.
//!
//! An errand goes with the task that works on a request, and with the tasks that this one starts, so that no function on
//! the way has to hand it on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::Failure;
use super::trace::{OpenSpan, Place, Spans, Trace, chance};

/// The trace that a request belongs to (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The name of a request, from whoever was the first to give it one.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long such a name may be, in bytes; a longer one is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Where the trace stands in it.
const TRACE_ID: Range<usize> = 3..35;

tokio::task_local! {
    static CURRENT: Arc<Errand>;
}

/// One client's request, as far as upstreams are asked for it.
#[derive(Debug, Default)]
pub struct Errand {
    /// None where there is no request.
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    /// Where its spans are wanted.
    trace: Option<Trace>,
    waited_microseconds: AtomicU64,
    /// 0 while no upstream answered.
    status: AtomicU16,
}

impl Errand {
    /// The errand of a request with these headers, which may say its name and the trace that it belongs to. Its
    /// spans go there.
    pub fn begin(headers: &HeaderMap, spans: Option<&Spans>) -> Arc<Self> {
        let request_id = headers.get(X_REQUEST_ID).filter(|name| is_request_id(name.as_bytes())).cloned();
        let request_id = request_id.or_else(new_request_id);
        let traceparent = headers.get(TRACEPARENT).filter(|value| is_traceparent(value.as_bytes())).cloned();
        let trace = spans.and_then(|spans| Trace::begin(spans, traceparent.as_ref()));
        let traceparent = trace.as_ref().and_then(|trace| trace.place.traceparent()).or(traceparent);
        Arc::new(Self { request_id, traceparent, trace, ..Self::default() })
    }

    /// Begins the span of the request, if it is wanted.
    pub fn span(&self) -> Option<OpenSpan> {
        self.trace.as_ref().map(Trace::open)
    }

    /// What the request is called by everybody whom it passes.
    pub const fn request_id(&self) -> Option<&HeaderValue> {
        self.request_id.as_ref()
    }

    /// The trace that it belongs to, in 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_ref()?.to_str().ok()?.get(TRACE_ID)
    }

    /// Does the work of this errand.
    pub fn run<Work: Future>(self: Arc<Self>, work: Work) -> impl Future<Output = Work::Output> {
        CURRENT.scope(self, work)
    }

    /// How long heads of upstreams' answers were waited for in all, and the status of the last; `None` if none came.
    pub fn upstream(&self) -> Option<(Duration, u16)> {
        let status = self.status.load(Ordering::Relaxed);
        (status != 0).then(|| (Duration::from_micros(self.waited_microseconds.load(Ordering::Relaxed)), status))
    }

    fn note(&self, waited: Duration, status: StatusCode) {
        let waited = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.waited_microseconds.fetch_add(waited, Ordering::Relaxed);
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }
}

/// It is short, and of characters that mean nothing anywhere.
fn is_request_id(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&name.len()) && name.iter().all(is_plain)
}

fn new_request_id() -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{:016x}{:016x}", chance(), chance())).ok()
}

/// `00-` trace `-` parent `-` flags, in lower-case hexadecimal digits. A later version has more behind it.
fn is_traceparent(value: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let dashes = [2, 35, 52];
    value.len() == 55
        && value
            .iter()
            .enumerate()
            .all(|(place, byte)| if dashes.contains(&place) { *byte == b'-' } else { is_digit(byte) })
        && value.get(TRACE_ID).is_some_and(|trace| trace.iter().any(|byte| *byte != b'0'))
}

/// Work for a task of its own, which goes on with the errand of the task that this is called on.
pub fn continued<Work: Future>(work: Work) -> impl Future<Output = Work::Output> {
    let current = CURRENT.try_with(Arc::clone).unwrap_or_default();
    CURRENT.scope(current, work)
}

/// One request to an upstream, or to where its word leads.
pub(super) struct Leg {
    errand: Option<Arc<Errand>>,
    started: Instant,
    span: Option<OpenSpan>,
}

impl Leg {
    /// Begins; the request says on behalf of which one it is, and which trace it belongs to.
    pub(super) fn begin(request: &mut reqwest::Request, operation: &'static str) -> Self {
        let leg = Self::new(request, operation);
        let Some(errand) = &leg.errand else { return leg };
        let own = leg.span.as_ref().and_then(OpenSpan::place);
        let traceparent = own.and_then(Place::traceparent).or_else(|| errand.traceparent.clone());
        let said = [(TRACEPARENT, traceparent), (X_REQUEST_ID, errand.request_id.clone())];
        request.headers_mut().extend(said.into_iter().filter_map(|(name, value)| Some((name, value?))));
        leg
    }

    /// Begins one that is another's business: neither is said there.
    pub(super) fn abroad(request: &reqwest::Request) -> Self {
        Self { errand: None, ..Self::new(request, "abroad") }
    }

    fn new(request: &reqwest::Request, operation: &'static str) -> Self {
        let errand = CURRENT.try_with(Arc::clone).ok();
        let span = errand.as_ref().and_then(|errand| errand.trace.as_ref()).map(|trace| {
            let (mut span, url) = (trace.open_child(), request.url());
            span.name(operation.to_owned());
            span.note("http.request.method", Some(request.method().as_str()));
            span.note("server.address", url.host_str());
            span.note("server.port", url.port_or_known_default());
            span.note("url.path", Some(url.path()));
            span
        });
        Self { errand, started: Instant::now(), span }
    }

    /// The head of the answer is there, or there is none; says how long it took.
    pub(super) fn ended<Body>(mut self, answer: &Result<Response<Body>, Failure>) -> Duration {
        let waited = self.started.elapsed();
        let status = answer.as_ref().ok().map(Response::status);
        if let (Some(errand), Some(status)) = (self.errand, status) {
            errand.note(waited, status);
        }
        if let Some(span) = &mut self.span {
            span.note("http.response.status_code", status.map(|status| status.as_u16()));
            span.note("error.type", answer.as_ref().err().map(Failure::kind));
            if status.is_none_or(|status| status.is_client_error() || status.is_server_error()) {
                span.fail();
            }
        }
        waited
    }
}
