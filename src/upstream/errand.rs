//! On whose behalf the upstream is asked: how long one client's request waited for it, and the trace that it belongs to.
//!
//! An errand goes with the task that works on a request, and with the tasks that this one starts, so that no function on
//! the way has to hand it on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The trace that a request belongs to (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Where the trace stands in it.
const TRACE_ID: Range<usize> = 3..35;

tokio::task_local! {
    static CURRENT: Arc<Errand>;
}

/// One client's request, as far as upstreams are asked for it.
#[derive(Debug, Default)]
pub struct Errand {
    traceparent: Option<HeaderValue>,
    waited_microseconds: AtomicU64,
    /// 0 while no upstream answered.
    status: AtomicU16,
}

impl Errand {
    /// The errand of a request with these headers, which may say the trace that it belongs to.
    pub fn begin(headers: &HeaderMap) -> Arc<Self> {
        let traceparent = headers.get(TRACEPARENT).filter(|value| is_traceparent(value.as_bytes())).cloned();
        Arc::new(Self { traceparent, ..Self::default() })
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

/// One request to an upstream.
pub(super) struct Leg {
    errand: Option<Arc<Errand>>,
    started: Instant,
}

impl Leg {
    /// Begins; the request says which trace it belongs to.
    pub(super) fn begin(request: &mut reqwest::Request) -> Self {
        let errand = CURRENT.try_with(Arc::clone).ok();
        if let Some(traceparent) = errand.as_ref().and_then(|errand| errand.traceparent.as_ref()) {
            request.headers_mut().insert(TRACEPARENT, traceparent.clone());
        }
        Self { errand, started: Instant::now() }
    }

    /// The head of the answer is there, if there is one; says how long it took.
    pub(super) fn ended(self, status: Option<StatusCode>) -> Duration {
        let waited = self.started.elapsed();
        if let (Some(errand), Some(status)) = (self.errand, status) {
            errand.note(waited, status);
        }
        waited
    }
}
