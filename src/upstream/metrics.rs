//! What is counted of the requests that go to upstreams.

use std::sync::atomic::AtomicU64;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Failure;
use super::breaker::Position;
use super::rate_limit::Reading;

/// The counters of all upstreams of one process. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Family<Answered, Counter>,
    errors: Family<Error, Counter>,
    redirects: Family<Redirected, Counter>,
    rate_limit_limit: Family<Named, Gauge<u64, AtomicU64>>,
    rate_limit_remaining: Family<Named, Gauge<u64, AtomicU64>>,
    breaker_state: Family<Named, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    upstream: String,
    operation: &'static str,
    code: String,
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
        let errors = self.errors.clone();
        registry.register("upstream_errors", "Requests to upstreams that brought nothing, by what went wrong", errors);
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
    }
}

/// The counters of one upstream.
#[derive(Debug)]
pub(super) struct Meter {
    upstream: String,
    metrics: Metrics,
}

impl Meter {
    pub(super) fn new(upstream: &str, metrics: &Metrics) -> Self {
        let meter = Self { upstream: upstream.to_owned(), metrics: metrics.clone() };
        meter.stands(Position::Closed);
        meter
    }

    pub(super) fn answered(&self, operation: Operation, status: StatusCode) {
        // A status that no registry of statuses knows would be a label that the upstream makes up.
        let code = if status.canonical_reason().is_some() { status.as_str() } else { "other" };
        let label = Answered { upstream: self.upstream.clone(), operation: operation.as_str(), code: code.to_owned() };
        self.metrics.requests.get_or_create(&label).inc();
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            status if status.is_server_error() => "5xx",
            _ => return,
        };
        self.failed_by(kind);
    }

    pub(super) fn failed(&self, failure: &Failure) {
        self.failed_by(match failure {
            Failure::Unreachable { .. } => "unreachable",
            Failure::TimedOut { .. } => "timeout",
            Failure::Overloaded { .. } => "overloaded",
            Failure::BreakerOpen { .. } => "breaker_open",
            Failure::Refused(_) => "cool_down",
            // What the client did.
            Failure::UploadStalled { .. } | Failure::UploadTooLarge { .. } => return,
            _ => "other",
        });
    }

    fn failed_by(&self, kind: &'static str) {
        let label = Error { upstream: self.upstream.clone(), r#type: kind };
        self.metrics.errors.get_or_create(&label).inc();
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
        self.metrics.breaker_state.get_or_create(&self.named()).set(position as i64);
    }

    fn named(&self) -> Named {
        Named { upstream: self.upstream.clone() }
    }
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

    const fn as_str(self) -> &'static str {
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
