//! How much is asked of an upstream at once: every request to its origin goes past here.
//!
//! A request waits for its turn a short while and is refused then; nothing is sent to an upstream that does not answer
//! or, where all requests go under the same credentials, that said it has had enough.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Origin;

use super::breaker::{Admission, Breaker, BreakerPolicy, Verdict};
use super::errand::Leg;
use super::metrics::{Meter, Metrics, Operation, RedirectAction};
use super::pace::Pace;
use super::rate_limit::{CoolDown, Reading, whole_seconds};
use super::standing::{Last, Standing};
use super::{Failure, Options};

/// Where permission to see something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// From the upstream, which is asked with each caller's own credentials.
    Upstream,
    /// From the gateway: its own credentials, or none, go upstream for everybody alike.
    Gateway,
}

/// How much is asked of an upstream at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests are in flight, a streamed body's until its end. Default: no limit.
    pub in_flight: Option<NonZeroUsize>,
    /// How many of them may be bodies that stream (blobs, uploads), each of which has a connection of its own. Below
    /// `in_flight`, it leaves room for manifests while slow clients read blobs. Default: no limit.
    pub connections: Option<NonZeroUsize>,
    /// How many requests are sent each second; one second's worth may go at once. Default: no limit.
    pub requests_per_second: Option<NonZeroU32>,
    /// How long a request waits for its turn before it is refused with 503. Default 10 s.
    pub queue_timeout: Duration,
    /// When an upstream that does not answer is left alone; `None` asks it each time.
    pub breaker: Option<BreakerPolicy>,
    /// How many requests the upstream's own count is kept above, by answers from what is remembered. Default: none.
    pub rate_limit_floor: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: None,
            connections: None,
            requests_per_second: None,
            queue_timeout: Duration::from_secs(10),
            breaker: Some(BreakerPolicy::default()),
            rate_limit_floor: None,
        }
    }
}

/// How a body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Travel {
    /// On a connection that it may share.
    Document,
    /// On one of its own, from the upstream.
    Download,
    /// On one of its own, from a client.
    Upload,
}

/// Everything that is under way to one upstream.
pub(super) struct Traffic {
    origin: Origin,
    permission: Permission,
    in_flight: Option<Arc<Semaphore>>,
    streams: Option<Arc<Semaphore>>,
    queue_timeout: Duration,
    rate_limit_floor: Option<u64>,
    signals: Mutex<Signals>,
    meter: Meter,
}

/// What was learnt of the upstream by asking it.
struct Signals {
    breaker: Option<Breaker>,
    pace: Option<Pace>,
    cool_downs: HashMap<Counted, CoolDown>,
    reading: Option<(Instant, Reading)>,
    last: Last,
}

/// What registries count apart: Docker Hub limits manifests and lets blobs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Manifests,
    Blobs,
    Others,
}

/// Sends a request that is none of the upstream's.
pub(super) async fn abroad<Sending>(
    request: reqwest::Request,
    send: impl FnOnce(reqwest::Request) -> Sending,
) -> Result<Response<reqwest::Body>, Failure>
where
    Sending: Future<Output = Result<Response<reqwest::Body>, Failure>>,
{
    let leg = Leg::abroad(&request);
    let answer = send(request).await;
    leg.ended(&answer);
    answer
}

/// A place among what is in flight as long as this lives.
struct Permits([Option<OwnedSemaphorePermit>; 2]);

impl Traffic {
    pub(super) fn new(options: &Options, name: &str, metrics: &Metrics) -> Self {
        let limits = &options.limits;
        let semaphore = |limit: Option<NonZeroUsize>| {
            limit.map(|limit| Arc::new(Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS))))
        };
        let signals = Signals {
            breaker: limits.breaker.map(Breaker::new),
            pace: limits.requests_per_second.map(Pace::new),
            cool_downs: HashMap::new(),
            reading: None,
            last: Last::default(),
        };
        Self {
            origin: options.url.origin(),
            permission: options.permission,
            in_flight: semaphore(limits.in_flight),
            streams: semaphore(limits.connections),
            queue_timeout: limits.queue_timeout,
            rate_limit_floor: limits.rate_limit_floor,
            signals: Mutex::new(signals),
            meter: Meter::new(name, metrics),
        }
    }

    /// The counters.
    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Counts a redirect.
    pub(super) fn note_redirect(&self, action: RedirectAction) {
        self.meter.redirected(action);
    }

    /// Sends a request when its turn comes, and learns from the answer. What goes to another origin is none of the
    /// upstream's, and goes at once.
    pub(super) async fn carry<Sending>(
        &self,
        travel: Travel,
        mut request: reqwest::Request,
        send: impl FnOnce(reqwest::Request) -> Sending,
    ) -> Result<Response<reqwest::Body>, Failure>
    where
        Sending: Future<Output = Result<Response<reqwest::Body>, Failure>>,
    {
        if request.url().origin() != self.origin {
            return Box::pin(abroad(request, send)).await;
        }
        let operation = Operation::of(request.method(), request.url().path());
        let (permits, admitted) = match self.enter(travel, operation).await {
            Ok(entered) => entered,
            Err(failure) => {
                self.meter.failed(&failure);
                return Err(failure);
            }
        };
        let leg = Leg::begin(&mut request, operation.as_str());
        let answer = send(request).await;
        let waited = leg.ended(&answer);
        admitted.judged(self.verdict(travel, &answer));
        match &answer {
            Ok(answer) => {
                self.meter.answered(operation, answer.status(), waited);
                self.learn(operation, answer);
            }
            Err(failure) => {
                self.meter.failed(failure);
                self.signals().last.failed(failure);
            }
        }
        answer.map(|answer| answer.map(|body| permits.held_by(body)))
    }

    /// The upstream's own count of remaining requests is below the floor.
    pub(super) fn is_near_rate_limit(&self) -> bool {
        let Some(floor) = self.rate_limit_floor else { return false };
        let signals = self.signals();
        signals.reading.as_ref().is_some_and(|(when, reading)| reading.is_below(floor, when.elapsed()))
    }

    /// How the upstream stands at this moment.
    pub(super) fn standing(&self) -> Standing {
        let signals = self.signals();
        signals.last.standing(signals.breaker.as_ref().map(Breaker::position), signals.reading.as_ref())
    }

    async fn enter(&self, travel: Travel, operation: Operation) -> Result<(Permits, Admitted<'_>), Failure> {
        // Who is refused at the end anyway need not wait first.
        self.check(operation)?;
        let overloaded = |wait| Failure::Overloaded { seconds: whole_seconds(wait).max(1) };
        let wait = self.signals().pace.as_mut().map(|pace| pace.take_turn(Instant::now(), self.queue_timeout));
        let wait = wait.transpose().map_err(overloaded)?.unwrap_or_default();
        let queue = async {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            // A stream that waits for its connection keeps no document from being asked for.
            let stream = match travel {
                Travel::Download | Travel::Upload => permit(self.streams.as_ref()).await,
                Travel::Document => None,
            };
            Permits([stream, permit(self.in_flight.as_ref()).await])
        };
        let permits = if self.has_queue(wait) {
            tokio::time::timeout(self.queue_timeout, queue).await.map_err(|_| overloaded(self.queue_timeout))?
        } else {
            queue.await
        };
        // While it waited, others may have learnt more.
        self.check(operation)?;
        Ok((permits, self.admit()?))
    }

    const fn has_queue(&self, wait: Duration) -> bool {
        self.in_flight.is_some() || self.streams.is_some() || !wait.is_zero()
    }

    /// The upstream has had enough of this, or does not answer.
    fn check(&self, operation: Operation) -> Result<(), Failure> {
        let now = Instant::now();
        let mut signals = self.signals();
        if let Some(left) = signals.breaker.as_ref().and_then(|breaker| breaker.pause_left(now)) {
            return Err(breaker_open(left));
        }
        let counted = counted(operation);
        let Some(cool_down) = signals.cool_downs.get(&counted) else { return Ok(()) };
        if let Some(refusal) = cool_down.refusal(now) {
            return Err(Failure::Refused(Box::new(refusal)));
        }
        signals.cool_downs.remove(&counted);
        Ok(())
    }

    fn admit(&self) -> Result<Admitted<'_>, Failure> {
        let mut signals = self.signals();
        let Some(breaker) = &mut signals.breaker else { return Ok(Admitted { traffic: self, admission: None }) };
        let admission = breaker.admit(Instant::now()).map_err(breaker_open)?;
        self.meter.stands(breaker.position());
        Ok(Admitted { traffic: self, admission: Some(admission) })
    }

    /// One caller's 500 is no reason to leave the others without an answer: it may be about what he asked for.
    fn verdict(&self, travel: Travel, answer: &Result<Response<reqwest::Body>, Failure>) -> Verdict {
        let failed = match answer {
            // The client may be who broke it off.
            Err(_) if travel == Travel::Upload => return Verdict::Unknown,
            Err(Failure::Unreachable { .. } | Failure::TimedOut { .. }) => true,
            Err(_) => return Verdict::Unknown,
            Ok(answer) => match answer.status().as_u16() {
                502..=504 => true,
                500 => self.permission == Permission::Gateway,
                _ => false,
            },
        };
        if failed { Verdict::Failed } else { Verdict::Alive }
    }

    fn learn(&self, operation: Operation, answer: &Response<reqwest::Body>) {
        let now = Instant::now();
        let mut signals = self.signals();
        signals.last.answered(answer.status());
        if let Some(reading) = Reading::of(answer.headers()) {
            self.meter.reads(&reading);
            signals.reading = Some((now, reading));
        }
        // Under the callers' own credentials, one caller's limit is nobody else's.
        if answer.status() == StatusCode::TOO_MANY_REQUESTS && self.permission == Permission::Gateway {
            let cool_down = CoolDown::new(answer.headers(), now, SystemTime::now());
            signals.cool_downs.insert(counted(operation), cool_down);
        }
    }

    fn signals(&self) -> MutexGuard<'_, Signals> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn counted(operation: Operation) -> Counted {
    match operation {
        Operation::HeadManifest | Operation::GetManifest => Counted::Manifests,
        Operation::Blob => Counted::Blobs,
        Operation::Push | Operation::Tags | Operation::Referrers | Operation::Other => Counted::Others,
    }
}

fn breaker_open(left: Duration) -> Failure {
    Failure::BreakerOpen { seconds: whole_seconds(left).max(1) }
}

async fn permit(semaphore: Option<&Arc<Semaphore>>) -> Option<OwnedSemaphorePermit> {
    // Nobody closes it.
    Arc::clone(semaphore?).acquire_owned().await.ok()
}

/// A request that the breaker let through and that it is to hear of.
struct Admitted<'a> {
    traffic: &'a Traffic,
    admission: Option<Admission>,
}

impl Admitted<'_> {
    fn judged(mut self, verdict: Verdict) {
        self.tell(verdict);
    }

    fn tell(&mut self, verdict: Verdict) {
        let Some(admission) = self.admission.take() else { return };
        if let Some(breaker) = &mut self.traffic.signals().breaker {
            breaker.judge(admission, verdict, Instant::now());
            self.traffic.meter.stands(breaker.position());
        }
    }
}

/// A client that leaves takes its request with it.
impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.tell(Verdict::Unknown);
    }
}

impl Permits {
    /// The body, which keeps these until its end.
    fn held_by(self, body: reqwest::Body) -> reqwest::Body {
        if self.0.iter().all(Option::is_none) || body.is_end_stream() {
            return body;
        }
        reqwest::Body::wrap(Holding { inner: body, permits: Some(self) })
    }
}

struct Holding {
    inner: reqwest::Body,
    permits: Option<Permits>,
}

impl Body for Holding {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || self.inner.is_end_stream() {
            self.permits = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
