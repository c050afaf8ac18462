//! What is noted about a request, and the one line that says it.

use std::time::Duration;

use http::header::USER_AGENT;
use http::request::Parts;
use http::{Method, StatusCode};

use crate::image::media_type::Format;

use super::door::Admission;
use super::fault::Fault;

/// What became of a request for a manifest. It goes with the response, for the commands that explain it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The format that is stored.
    pub stored: Option<Format>,
    /// The format that is served.
    pub served: Option<Format>,
    /// Why.
    pub why: Option<&'static str>,
    /// Whether the derived document was at hand; `stale` where the upstream could not be asked for whatever was served.
    pub cache: Option<&'static str>,
    /// The digest of the stored document.
    pub source: Option<String>,
    /// The digest of the served document.
    pub digest: Option<String>,
}

/// Filled on the way, written once at the end.
#[derive(Default)]
pub(super) struct Record {
    pub(super) outcome: Outcome,
    pub(super) admission: Option<Admission>,
    fault: Option<String>,
    code: &'static str,
    fault_is_ours: bool,
}

/// Says that a request ended without an answer, unless it is told that there was one.
pub(super) struct Unanswered {
    head: Option<(Method, String)>,
}

impl Unanswered {
    pub(super) fn new(head: &Parts) -> Self {
        Self { head: Some((head.method.clone(), head.uri.path().to_owned())) }
    }

    pub(super) fn answered(mut self) {
        self.head = None;
    }
}

/// The server drops the work on a request when its client leaves.
impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some((method, path)) = &self.head {
            tracing::info!(target: "schemabridge::access", %method, ?path, "the client left before it was answered");
        }
    }
}

impl Record {
    /// Of whoever came in so.
    pub(super) fn of(admission: Option<Admission>) -> Self {
        Self { admission, ..Self::default() }
    }

    pub(super) fn fault(&mut self, fault: &Fault) {
        self.fault_is_ours = fault.is_ours();
        self.code = fault.code();
        self.fault = Some(fault.to_string());
    }

    /// The code and the words of a refusal, if it was one.
    pub(super) fn refused(&self) -> Option<(&'static str, &str)> {
        self.fault.as_deref().map(|words| (self.code, words))
    }

    /// Writes the access log line. Never the query, which can hold a token, nor a header with credentials.
    pub(super) fn log(
        &self,
        upstream: &str,
        path: &str,
        head: &Parts,
        class: &'static str,
        status: StatusCode,
        took: Duration,
    ) {
        let Self { outcome, admission, .. } = self;
        let user = admission.as_ref().and_then(Admission::name);
        let duration_ms = took.as_secs_f64() * 1000.0;
        let user_agent = head.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "schemabridge::access",
                    method = %head.method,
                    ?path,
                    upstream,
                    status = status.as_u16(),
                    client = class,
                    user_agent = user_agent.as_deref(),
                    user,
                    stored = outcome.stored.map(Format::word),
                    served = outcome.served.map(Format::word),
                    why = outcome.why,
                    cache = outcome.cache,
                    source = outcome.source,
                    digest = outcome.digest,
                    fault = self.fault,
                    duration_ms,
                    "request"
                )
            };
        }
        if self.fault_is_ours { line!(warn) } else { line!(info) }
    }
}
