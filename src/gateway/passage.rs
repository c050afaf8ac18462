//! A request from its head to the last byte of its answer, and what is written down of it then: the counters and the one
//! line of the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Body as _;

use crate::image::media_type::Format;
use crate::store::blobs::Broken;
use crate::upstream::trace::OpenSpan;
use crate::upstream::{Errand, X_REQUEST_ID};

use super::Gateway;
use super::body::Body;
use super::door::Admission;
use super::exchange::{Neighbour, Transport, client_address};
use super::metrics::http::{AbortedBy, Counters, Measured};
use super::metrics::{InFlight, MethodLabel, RouteLabel};
use super::record::{Outcome, Record};
use super::shared::Shared;

/// A request that is under way. Whenever it is dropped, it is over: the server drops the work on a request when its client
/// leaves, and a body when its last byte went out or nobody wants it any more.
pub(super) struct Passage {
    started: Instant,
    request: Asked,
    errand: Arc<Errand>,
    span: Option<OpenSpan>,
    counters: Arc<Counters>,
    /// None where it reached none.
    gateway: Option<Arc<Gateway>>,
    in_flight: Option<InFlight>,
    answer: Option<Answer>,
    end: End,
}

/// What is kept of the head of a request: nothing that could hold a secret is ever shown of it.
struct Asked {
    method: Method,
    /// Only its path may be shown; the query can hold a token.
    uri: Uri,
    route: RouteLabel,
    version: Version,
    transport: Transport,
    address: IpAddr,
    user_agent: Option<HeaderValue>,
}

/// What is known of an answer once its head is made.
struct Answer {
    status: StatusCode,
    to_head: Duration,
    client: Option<&'static str>,
    record: Record,
    outcome: Arc<Outcome>,
    /// The bytes of its body, where they are known before.
    expected: Option<u64>,
    sent: u64,
}

/// How the body of an answer ended.
#[derive(Debug)]
enum End {
    /// Not yet.
    Open,
    Whole,
    Broken(Broken),
}

impl Passage {
    /// A request whose head has arrived from behind this neighbour.
    pub(super) fn begin(head: &Parts, neighbour: Neighbour, shared: &Shared) -> Self {
        let started = Instant::now();
        let route = RouteLabel::of(head.uri.path());
        let request = Asked {
            method: head.method.clone(),
            uri: head.uri.clone(),
            route,
            version: head.version,
            transport: neighbour.transport,
            address: client_address(&head.headers, neighbour),
            user_agent: head.headers.get(USER_AGENT).cloned(),
        };
        let counters = Arc::clone(&shared.metrics.nobodys);
        let in_flight = Some(counters.begin(route));
        let errand = Errand::begin(&head.headers, shared.spans.as_ref());
        let span = errand.span();
        Self { started, request, errand, span, counters, gateway: None, in_flight, answer: None, end: End::Open }
    }

    /// It is for this upstream.
    pub(super) fn reaches(&mut self, gateway: &Arc<Gateway>) {
        self.counters = Arc::clone(&gateway.counters);
        self.gateway = Some(Arc::clone(gateway));
    }

    /// On whose behalf the upstream is asked.
    pub(super) fn errand(&self) -> Arc<Errand> {
        Arc::clone(&self.errand)
    }

    /// What it asks for.
    pub(super) const fn route(&self) -> RouteLabel {
        self.request.route
    }

    /// Goes out with this answer to a client of this class, and is over when that has ended.
    pub(super) fn answer(
        mut self: Box<Self>,
        mut response: Response<Body>,
        client: Option<&'static str>,
        mut record: Record,
    ) -> Response<Body> {
        let (status, to_head) = (response.status(), self.started.elapsed());
        let expected = response.body().size_hint().exact();
        let Record { outcome, .. } = &mut record;
        let outcome = Arc::new(std::mem::take(outcome));
        if let Some(request_id) = self.errand.request_id() {
            response.headers_mut().insert(X_REQUEST_ID, request_id.clone());
        }
        response.extensions_mut().insert(Arc::clone(&outcome));
        self.answer = Some(Answer { status, to_head, client, record, outcome, expected, sent: 0 });
        response.map(|body| body.ending(self))
    }

    /// So much of the body went out.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(answer) = &mut self.answer {
            answer.sent += bytes as u64;
        }
    }

    /// All of the body went out.
    pub(super) fn ended(&mut self) {
        if matches!(self.end, End::Open) {
            self.end = End::Whole;
        }
    }

    /// The body came to no good end.
    pub(super) fn broke(&mut self, broken: &Broken) {
        if let (Some(gateway), Broken::Upstream(failure)) = (&self.gateway, broken) {
            gateway.upstream.note_disappointment(failure);
        }
        self.end = End::Broken(broken.clone());
    }

    /// Whose doing it was that the answer did not come to its end.
    fn aborted_by(&self) -> Option<AbortedBy> {
        match (&self.end, &self.answer) {
            (End::Broken(_), _) => Some(AbortedBy::Source),
            (End::Whole, _) => None,
            // The server stops asking for more once it has all that the head announced.
            (End::Open, Some(answer)) if answer.expected == Some(answer.sent) => None,
            (End::Open, _) => Some(AbortedBy::Client),
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let (whole, aborted) = (self.started.elapsed(), self.aborted_by());
        let Asked { method, route, .. } = &self.request;
        if let Some(Answer { status, to_head, sent: bytes, .. }) = self.answer {
            let measured = Measured { status, to_head, whole, bytes };
            self.counters.answered(*route, MethodLabel::of(method), &measured);
        }
        if let Some(by) = aborted {
            self.counters.aborted(*route, by);
        }
        drop(self.in_flight.take());
        if let Some(span) = self.span.take() {
            self.trace(span, aborted);
        }
        self.log(whole, aborted);
    }
}

impl Passage {
    /// Ends the span, with what the log says too, as far as it is of use to whoever compares requests.
    fn trace(&self, mut span: OpenSpan, aborted: Option<AbortedBy>) {
        let Asked { method, uri, route, transport, .. } = &self.request;
        let (method, answer) = (MethodLabel::of(method).as_str(), self.answer.as_ref());
        span.name(format!("{method} {}", route.as_str()));
        span.note("http.request.method", Some(method));
        span.note("http.route", Some(route.as_str()));
        span.note("url.path", Some(uri.path()));
        span.note("url.scheme", Some(if *transport == Transport::Tls { "https" } else { "http" }));
        span.note("http.response.status_code", answer.map(|answer| answer.status.as_u16()));
        span.note("http.response.body.size", answer.map(|answer| answer.sent));
        span.note("schemabridge.upstream", Some(self.counters.upstream()));
        span.note("schemabridge.client", answer.and_then(|answer| answer.client));
        span.note("schemabridge.request_id", self.errand.request_id().and_then(|id| id.to_str().ok()));
        span.note("schemabridge.aborted_by", aborted.map(AbortedBy::as_str));
        if let Some(outcome) = answer.map(|answer| &*answer.outcome) {
            span.note("schemabridge.stored", outcome.stored.map(Format::word));
            span.note("schemabridge.served", outcome.served.map(Format::word));
            span.note("schemabridge.why", outcome.why);
            span.note("schemabridge.cache", outcome.cache);
            span.note("schemabridge.digest", outcome.digest.as_deref());
        }
        if aborted == Some(AbortedBy::Source) || answer.is_some_and(|answer| answer.status.is_server_error()) {
            span.fail();
        }
    }
}

impl Passage {
    /// Writes the access log line. Never the query, which can hold a token, nor a header with credentials.
    fn log(&self, whole: Duration, aborted: Option<AbortedBy>) {
        let Asked { method, uri, route, version, transport, address, user_agent } = &self.request;
        let answer = self.answer.as_ref();
        let record = answer.map(|answer| &answer.record);
        let outcome = answer.map(|answer| &*answer.outcome);
        let upstream = self.errand.upstream();
        let broken = if let End::Broken(broken) = &self.end { Some(broken.to_string()) } else { None };
        let user_agent = user_agent.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "schemabridge::access",
                    %method,
                    path = ?uri.path(),
                    upstream = self.counters.upstream(),
                    route = route.as_str(),
                    status = answer.map(|answer| answer.status.as_u16()),
                    client = answer.and_then(|answer| answer.client),
                    user_agent = user_agent.as_deref(),
                    user = record.and_then(|record| record.admission.as_ref()).and_then(Admission::name),
                    stored = outcome.and_then(|outcome| outcome.stored).map(Format::word),
                    served = outcome.and_then(|outcome| outcome.served).map(Format::word),
                    why = outcome.and_then(|outcome| outcome.why),
                    cache = outcome.and_then(|outcome| outcome.cache),
                    source = outcome.and_then(|outcome| outcome.source.as_deref()),
                    digest = outcome.and_then(|outcome| outcome.digest.as_deref()),
                    fault = broken.as_deref().or(record.and_then(Record::fault_words)),
                    aborted_by = aborted.map(AbortedBy::as_str),
                    bytes = answer.map_or(0, |answer| answer.sent),
                    ttfb_ms = answer.map(|answer| milliseconds(answer.to_head)),
                    duration_ms = milliseconds(whole),
                    upstream_ms = upstream.map(|(waited, _)| milliseconds(waited)),
                    upstream_status = upstream.map(|(_, status)| status),
                    request_id = self.errand.request_id().and_then(|id| id.to_str().ok()),
                    trace_id = self.errand.trace_id(),
                    peer = %address,
                    protocol = protocol(*version),
                    tls = *transport == Transport::Tls,
                    "request"
                )
            };
        }
        let is_ours = record.is_some_and(Record::is_ours) || aborted == Some(AbortedBy::Source);
        if is_ours { line!(warn) } else { line!(info) }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "http/2",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}
