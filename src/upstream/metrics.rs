//! What is counted of the requests that go to upstreams.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::breaker::Position;
use super::cache_requests::{Asked, CacheRequests, Remembered};
use super::rate_limit::Reading;
use super::{Failure, Trouble};

/// Bounds of the time to the head of an answer, in seconds: from what memory answers in to the time that the head of an
/// upstream's answer may take, with about three to a decade.
pub const HEAD_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The statuses that nearly all answers have, whose counters are not looked for each time.
pub const USUAL_STATUSES: [StatusCode; 7] = [
    StatusCode::OK,
    StatusCode::PARTIAL_CONTENT,
    StatusCode::NOT_MODIFIED,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::UNAUTHORIZED,
    StatusCode::NOT_FOUND,
    StatusCode::NOT_ACCEPTABLE,
];

/// The counters of all upstreams of one process. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Answered, Counter>,
    durations: Family<Operated, Histogram, UntilHead>,
    errors: Family<Error, Counter>,
    bytes: Family<Moved, Counter>,
    token_requests: Family<TokenAsked, Counter>,
    last_success: Family<Named, Gauge>,
    credential_expiry: Family<Named, Gauge>,
    redirects: Family<Redirected, Counter>,
    rate_limit_limit: Family<Named, Gauge<u64, AtomicU64>>,
    rate_limit_remaining: Family<Named, Gauge<u64, AtomicU64>>,
    breaker_state: Family<Named, Gauge>,
    /// Questions that something remembered can answer, here and on the floors above.
    pub caches: CacheRequests,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(UntilHead),
            errors: Family::default(),
            bytes: Family::default(),
            token_requests: Family::default(),
            last_success: Family::default(),
            credential_expiry: Family::default(),
            redirects: Family::default(),
            rate_limit_limit: Family::default(),
            rate_limit_remaining: Family::default(),
            breaker_state: Family::default(),
            caches: CacheRequests::default(),
        }
    }
}

/// Makes histograms of the time to the head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct UntilHead;

impl MetricConstructor<Histogram> for UntilHead {
    fn new_metric(&self) -> Histogram {
        Histogram::new(HEAD_SECONDS)
    }
}

/// Some metrics of a family, found by a small number: each is looked for by its labels once, so that a request makes no
/// text of them and takes no lock.
#[derive(Debug)]
pub struct Slots<Metric, const SIZE: usize>([OnceLock<Metric>; SIZE]);

impl<Metric, const SIZE: usize> Default for Slots<Metric, SIZE> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl<Metric, const SIZE: usize> Slots<Metric, SIZE> {
    /// Does this with the metric of this number, which `find` looks for if there is none yet, and each time beyond the
    /// last.
    pub fn with<Output>(
        &self,
        number: usize,
        find: impl FnOnce() -> Metric,
        act: impl FnOnce(&Metric) -> Output,
    ) -> Output {
        match self.0.get(number) {
            Some(slot) => act(slot.get_or_init(find)),
            None => act(&find()),
        }
    }
}

/// The place of a status among the usual ones; beyond them for any other.
pub fn usual(status: StatusCode) -> usize {
    USUAL_STATUSES.iter().position(|usual| *usual == status).unwrap_or(USUAL_STATUSES.len())
}

/// A status as a label. One that no registry of statuses knows would be a label that the upstream makes up.
pub fn code(status: StatusCode) -> String {
    if status.canonical_reason().is_some() { status.as_str() } else { "other" }.to_owned()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    upstream: String,
    operation: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operated {
    upstream: String,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Moved {
    upstream: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenAsked {
    upstream: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Error {
    upstream: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Redirected {
    upstream: String,
    action: &'static str,
}

/// What became of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectAction {
    /// It went to the client.
    Passed,
    /// The gateway went there.
    Followed,
    /// It leads to where nobody is led.
    Refused,
}

impl RedirectAction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Followed => "followed",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    upstream: String,
}

impl Metrics {
    /// Makes the counters known to whoever shows them.
    pub fn register(&self, registry: &mut Registry) {
        let requests = self.requests.clone();
        registry.register("upstream_requests", "Answers of upstreams, by what was asked and their status", requests);
        let durations = self.durations.clone();
        registry.register(
            "upstream_request_duration_seconds",
            "How long the heads of upstreams' answers took, by what was asked",
            durations,
        );
        let errors = self.errors.clone();
        registry.register("upstream_errors", "Requests to upstreams that brought nothing, by what went wrong", errors);
        let bytes = self.bytes.clone();
        registry.register("upstream_bytes", "Bytes of bodies from and to upstreams", bytes);
        let tokens = self.token_requests.clone();
        registry.register("upstream_token_requests", "Requests to token services, by how they ended", tokens);
        registry.register(
            "upstream_last_success_timestamp_seconds",
            "When the upstream last gave an answer that was no fault of its own",
            self.last_success.clone(),
        );
        registry.register(
            "upstream_credential_expiry_timestamp_seconds",
            "When the credentials end that the gateway holds for the upstream, if they do",
            self.credential_expiry.clone(),
        );
        self.caches.register(registry);
        let redirects = self.redirects.clone();
        registry.register("redirects", "Redirects by upstreams, by what became of them", redirects);
        let remaining = self.rate_limit_remaining.clone();
        registry.register(
            "upstream_rate_limit_remaining",
            "Requests that the upstream said it still allows",
            remaining,
        );
        let limit = self.rate_limit_limit.clone();
        registry.register("upstream_rate_limit_limit", "Requests that the upstream said it allows in all", limit);
        let breaker = self.breaker_state.clone();
        registry.register("upstream_breaker_state", "0 closed, 1 half open, 2 open", breaker);
    }
}

impl Metrics {
    /// Shows no longer how an upstream stands that there is no more: nothing would ever change it. Counts stay.
    pub fn forget(&self, upstream: &str) {
        let named = Named { upstream: upstream.to_owned() };
        self.rate_limit_limit.remove(&named);
        self.rate_limit_remaining.remove(&named);
        self.breaker_state.remove(&named);
        self.last_success.remove(&named);
        self.credential_expiry.remove(&named);
    }
}

/// The counters of one upstream.
#[derive(Debug)]
pub(super) struct Meter {
    upstream: String,
    metrics: Metrics,
    answers: Slots<Counter, { OPERATIONS * USUAL_STATUSES.len() }>,
    durations: Slots<Histogram, OPERATIONS>,
    breaker: Gauge,
    last_success: Gauge,
    received: Counter,
    sent: Counter,
}

impl Meter {
    pub(super) fn new(upstream: &str, metrics: &Metrics) -> Self {
        let named = Named { upstream: upstream.to_owned() };
        let bytes = |direction| metrics.bytes.get_or_create_owned(&Moved { upstream: upstream.to_owned(), direction });
        let meter = Self {
            upstream: upstream.to_owned(),
            answers: Slots::default(),
            durations: Slots::default(),
            breaker: metrics.breaker_state.get_or_create_owned(&named),
            last_success: metrics.last_success.get_or_create_owned(&named),
            received: bytes("received"),
            sent: bytes("sent"),
            metrics: metrics.clone(),
        };
        meter.stands(Position::Closed);
        meter.show();
        meter
    }

    /// Counters that are shown from the start, so that an alert has something to rise from.
    fn show(&self) {
        for kind in [
            "dns",
            "connect",
            "tls",
            "reset",
            "truncated",
            "unreachable",
            "timeout",
            "5xx",
            "rate_limited",
            "digest_mismatch",
            "auth",
        ] {
            drop(self.errors_of(kind));
        }
    }

    pub(super) fn answered(&self, operation: Operation, status: StatusCode, waited: Duration) {
        let usual = usual(status);
        let place =
            if usual < USUAL_STATUSES.len() { operation as usize * USUAL_STATUSES.len() + usual } else { usize::MAX };
        let find = || {
            let (upstream, operation) = (self.upstream.clone(), operation.as_str());
            self.metrics.requests.get_or_create_owned(&Answered { upstream, operation, code: code(status) })
        };
        self.answers.with(place, find, Counter::inc);
        let find = || {
            let (upstream, operation) = (self.upstream.clone(), operation.as_str());
            self.metrics.durations.get_or_create_owned(&Operated { upstream, operation })
        };
        self.durations.with(operation as usize, find, |duration| duration.observe(waited.as_secs_f64()));
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            status if status.is_server_error() => "5xx",
            _ => {
                self.last_success.set(seconds_from_now(Duration::ZERO));
                return;
            }
        };
        self.errors_of(kind).inc();
    }

    /// A request that had no answer, or was not sent.
    pub(super) fn failed(&self, failure: &Failure) {
        match failure {
            // What the client did.
            Failure::UploadStalled { .. }
            | Failure::UploadTooLarge { .. }
            | Failure::Unreachable { trouble: Trouble::Upload, .. } => {}
            failure => drop(self.errors_of(failure.kind()).inc()),
        }
    }

    /// An answer that came and was no use. What [`Meter::failed`] hears of is not counted again.
    pub(super) fn disappointed(&self, failure: &Failure) {
        match failure {
            Failure::Unreachable { trouble: Trouble::BrokenOff, .. }
            | Failure::WrongBytes { .. }
            | Failure::WrongLength { .. }
            | Failure::TooLarge { .. }
            | Failure::Coded { .. }
            | Failure::Unreadable { .. }
            | Failure::RedirectRefused { .. }
            | Failure::RealmRefused { .. }
            | Failure::TooPrivate { .. }
            | Failure::Denied { .. }
            | Failure::NoCredentials { .. } => drop(self.errors_of(failure.kind()).inc()),
            _ => {}
        }
    }

    fn errors_of(&self, kind: &'static str) -> Counter {
        self.metrics.errors.get_or_create_owned(&Error { upstream: self.upstream.clone(), r#type: kind })
    }

    /// Counts the bytes of bodies that come from the upstream.
    pub(super) const fn received(&self) -> &Counter {
        &self.received
    }

    /// Counts the bytes of bodies that go to it.
    pub(super) const fn sent(&self) -> &Counter {
        &self.sent
    }

    /// The gateway has new credentials, for so long.
    pub(super) fn holds_credentials(&self, life: Duration) {
        self.metrics.credential_expiry.get_or_create(&self.named()).set(seconds_from_now(life));
    }

    pub(super) fn asked_for_token(&self, answer: Option<StatusCode>) {
        let result = match answer {
            Some(StatusCode::OK) => "ok",
            Some(status) if status.is_client_error() => "refused",
            _ => "failed",
        };
        let label = TokenAsked { upstream: self.upstream.clone(), result };
        self.metrics.token_requests.get_or_create(&label).inc();
    }

    pub(super) fn looked_for_token(&self, asked: Asked) {
        self.metrics.caches.count(Remembered::Token, asked);
    }

    pub(super) fn redirected(&self, action: RedirectAction) {
        let label = Redirected { upstream: self.upstream.clone(), action: action.as_str() };
        self.metrics.redirects.get_or_create(&label).inc();
    }

    pub(super) fn reads(&self, reading: &Reading) {
        if let Some(limit) = reading.limit {
            self.metrics.rate_limit_limit.get_or_create(&self.named()).set(limit);
        }
        if let Some(remaining) = reading.remaining {
            self.metrics.rate_limit_remaining.get_or_create(&self.named()).set(remaining);
        }
    }

    pub(super) fn stands(&self, position: Position) {
        self.breaker.set(position as i64);
    }

    fn named(&self) -> Named {
        Named { upstream: self.upstream.clone() }
    }
}

/// A moment as metrics tell it.
fn seconds_from_now(later: Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_add(later).as_secs()).unwrap_or(i64::MAX)
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    HeadManifest,
    GetManifest,
    Blob,
    Push,
    Tags,
    Referrers,
    Other,
}

/// How many there are.
const OPERATIONS: usize = Operation::Other as usize + 1;

impl Operation {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        match (endpoint(path), method) {
            (Some("manifests"), &Method::HEAD) => Self::HeadManifest,
            (Some("manifests"), &Method::GET) => Self::GetManifest,
            (Some("blobs"), &Method::HEAD | &Method::GET) => Self::Blob,
            (Some("manifests" | "blobs" | "uploads"), _) => Self::Push,
            (Some("tags"), _) => Self::Tags,
            (Some("referrers"), _) => Self::Referrers,
            _ => Self::Other,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::HeadManifest => "head_manifest",
            Self::GetManifest => "get_manifest",
            Self::Blob => "blob",
            Self::Push => "push",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Other => "other",
        }
    }
}

/// The word before the last part of the path, by which registries tell what a path is.
fn endpoint(path: &str) -> Option<&str> {
    path.rsplit('/').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_of_a_few_operations() {
        let cases = [
            (Method::HEAD, "/v2/a/manifests/latest", "head_manifest"),
            (Method::GET, "/prefix/v2/a/manifests/sha256:0", "get_manifest"),
            (Method::PUT, "/v2/a/manifests/latest", "push"),
            (Method::GET, "/v2/a/manifests/blobs/sha256:0", "blob"),
            (Method::POST, "/v2/a/blobs/uploads/", "push"),
            (Method::PATCH, "/v2/a/blobs/uploads/1", "push"),
            (Method::GET, "/v2/a/tags/list", "tags"),
            (Method::GET, "/v2/a/referrers/sha256:0", "referrers"),
            (Method::GET, "/v2/", "other"),
            (Method::GET, "", "other"),
        ];
        for (method, path, expected) in cases {
            assert_eq!(Operation::of(&method, path).as_str(), expected, "{method} {path}");
        }
    }
}
