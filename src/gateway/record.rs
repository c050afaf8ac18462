//! What is noted about a request, and the one line that says it.

use std::time::Duration;

use http::Response;
use http::header::USER_AGENT;

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;

/// What became of a request for a manifest. It goes with the response, for the commands that explain it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The format that is stored, in a word.
    pub stored: Option<&'static str>,
    /// The format that is served, in a word.
    pub served: Option<&'static str>,
    /// Why.
    pub why: Option<&'static str>,
    /// Whether the derived document was at hand.
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
    fault: Option<String>,
    fault_is_ours: bool,
}

impl Record {
    pub(super) fn fault(&mut self, fault: &Fault) {
        self.fault_is_ours = fault.is_ours();
        self.fault = Some(fault.to_string());
    }

    /// Writes the access log line. Never the query, which can hold a token, nor a header with credentials.
    pub(super) fn log(&self, exchange: &Exchange, response: &Response<Body>, took: Duration) {
        let Self { outcome, .. } = self;
        let head = &exchange.head;
        let duration_ms = took.as_secs_f64() * 1000.0;
        let user_agent = head.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "schemabridge::access",
                    method = %head.method,
                    path = ?head.uri.path(),
                    status = response.status().as_u16(),
                    client = exchange.client.class(),
                    user_agent = user_agent.as_deref(),
                    stored = outcome.stored,
                    served = outcome.served,
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
