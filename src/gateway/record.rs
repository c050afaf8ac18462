//! What is noted about a request, and the one line that says it.

use std::time::Duration;

use http::Response;
use http::header::USER_AGENT;

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;

/// Filled on the way, written once at the end.
#[derive(Default)]
pub(super) struct Record {
    /// The format that is stored, in a word.
    pub(super) stored: Option<&'static str>,
    /// The format that is served, in a word.
    pub(super) served: Option<&'static str>,
    /// Why.
    pub(super) why: Option<&'static str>,
    /// Whether the derived document was made for this request.
    pub(super) cache: Option<&'static str>,
    /// The digest of the stored document.
    pub(super) source: Option<String>,
    /// The digest of the served document.
    pub(super) digest: Option<String>,
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
                    stored = self.stored,
                    served = self.served,
                    why = self.why,
                    cache = self.cache,
                    source = self.source,
                    digest = self.digest,
                    fault = self.fault,
                    duration_ms,
                    "request"
                )
            };
        }
        if self.fault_is_ours { line!(warn) } else { line!(info) }
    }
}
