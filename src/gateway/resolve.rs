//! Asking the upstream what a reference names, and remembering the answer where the operator allows it.
//!
//! Where permission comes from the upstream, an answer is one caller's and holds for him alone; where it comes from the
//! gateway, it holds for everybody, and outlives an upstream that cannot be asked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::StatusCode;
use moka::Expiry;
use moka::future::Cache;

use crate::image::digest::Digest;
use crate::image::reference::{Reference, Repository, Tag};
use crate::upstream::{Asked, Caller, Failure, Permission, Remembered, Resolved, continued};

use super::Gateway;
use super::exchange::Exchange;
use super::freshness::{OnMissing, Validity};
use super::metrics::{Followed, InFlight};

/// How many answers are remembered.
const RESOLUTIONS_MAX: u64 = 100_000;
/// How many bytes of answers that a reference names nothing are remembered: clients make up as many as they like.
const ABSENCES_BYTES_MAX: u64 = 16 << 20;
/// What one costs beside its headers and its body. A rough figure, meant to be no less.
const ABSENCE_OVERHEAD_BYTES: usize = 1024;

type Fingerprint = [u8; 32];

/// What is asked, and on whose behalf where that decides the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    repository: Repository,
    reference: Reference,
    caller: Option<Fingerprint>,
}

/// A question that is being asked, and what all who wait for it will hear. `None` if nobody answered.
type Flight = Shared<BoxFuture<'static, Option<Result<Arc<Resolved>, Failure>>>>;

/// The upstream's answers. Of its refusals only that there is nothing, and that for a short while.
pub(super) struct Resolutions {
    process_key: [u8; 32],
    answers: Cache<Question, Answer>,
    absences: Cache<Question, Absence>,
    /// By the moment too: who asks after a push or a refresh does not hear what was true before.
    flights: Mutex<HashMap<(Moment, Question), Flight>>,
    /// How often something was pushed.
    pushes: AtomicU64,
    /// How often a tag was refreshed.
    refreshes: AtomicU64,
}

/// When a question is asked, by what happened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Moment {
    pushes: u64,
    refreshes: u64,
}

#[derive(Clone)]
struct Answer {
    resolved: Arc<Resolved>,
    validity: Validity,
    /// How often something had been pushed when it was asked for.
    pushes: u64,
}

#[derive(Clone)]
struct Absence {
    failure: Arc<Failure>,
    life: Duration,
    pushes: u64,
}

impl Absence {
    fn bytes(&self) -> usize {
        let Failure::Refused(refusal) = &*self.failure else { return ABSENCE_OVERHEAD_BYTES };
        let headers = refusal.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        headers.sum::<usize>() + refusal.body.len() + ABSENCE_OVERHEAD_BYTES
    }
}

struct OwnLife;

impl Expiry<Question, Answer> for OwnLife {
    fn expire_after_create(&self, _: &Question, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(answer.validity.whole())
    }

    fn expire_after_update(&self, _: &Question, answer: &Answer, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(answer.validity.whole())
    }
}

impl Expiry<Question, Absence> for OwnLife {
    fn expire_after_create(&self, _: &Question, absence: &Absence, _: Instant) -> Option<Duration> {
        Some(absence.life)
    }

    fn expire_after_update(
        &self,
        _: &Question,
        absence: &Absence,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(absence.life)
    }
}

impl Resolutions {
    pub(super) fn new(process_key: [u8; 32]) -> Self {
        Self {
            process_key,
            answers: Cache::builder().max_capacity(RESOLUTIONS_MAX).expire_after(OwnLife).build(),
            absences: Cache::builder()
                .max_capacity(ABSENCES_BYTES_MAX)
                .weigher(|_, absence: &Absence| u32::try_from(absence.bytes()).unwrap_or(u32::MAX))
                .expire_after(OwnLife)
                .build(),
            flights: Mutex::default(),
            pushes: AtomicU64::new(0),
            refreshes: AtomicU64::new(0),
        }
    }

    /// Forgets everything: something was pushed. What is being asked at this moment is not remembered either.
    pub(super) fn forget(&self) {
        self.pushes.fetch_add(1, Ordering::AcqRel);
        self.answers.invalidate_all();
        self.absences.invalidate_all();
    }

    /// Forgets what this tag names, and that it names nothing, whoever was told so; says how many callers were. What is
    /// being asked at this moment is not remembered.
    async fn forget_tag(&self, repository: &Repository, tag: &Tag) -> usize {
        self.refreshes.fetch_add(1, Ordering::AcqRel);
        let reference = Reference::Tag(tag.clone());
        let is_about_it =
            |question: &Arc<Question>| question.repository == *repository && question.reference == reference;
        let answers = self.answers.iter().filter(|(_, answer)| answer.pushes == self.now().pushes);
        let absences = self.absences.iter().filter(|(_, absence)| absence.pushes == self.now().pushes);
        let questions = answers.map(|(question, _)| question).chain(absences.map(|(question, _)| question));
        let forgotten: HashSet<Arc<Question>> = questions.filter(is_about_it).collect();
        for question in &forgotten {
            self.forget_question(question).await;
        }
        forgotten.len()
    }

    async fn forget_question(&self, question: &Question) {
        self.answers.invalidate(question).await;
        self.absences.invalidate(question).await;
    }

    pub(super) fn now(&self) -> Moment {
        let [pushes, refreshes] = [&self.pushes, &self.refreshes].map(|count| count.load(Ordering::Acquire));
        Moment { pushes, refreshes }
    }

    fn is_over(&self, moment: Moment) -> bool {
        self.now().refreshes != moment.refreshes
    }

    async fn answer(&self, question: &Question) -> Option<Answer> {
        self.answers.get(question).await.filter(|answer| answer.pushes == self.now().pushes)
    }

    async fn absence(&self, question: &Question) -> Option<Absence> {
        self.absences.get(question).await.filter(|absence| absence.pushes == self.now().pushes)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<(Moment, Question), Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a question was answered, for the counters.
type Counted = (Remembered, Asked);

impl Gateway {
    /// What a reference names for this caller: the upstream's answer now, or one that was given before and still holds.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Arc<Resolved>, Failure> {
        let question = self.question(&exchange.caller, repository, reference);
        let known = self.resolutions.answer(&question).await;
        let insists = exchange.wants_revalidation();
        if let Some(known) = known.as_ref().filter(|_| !insists) {
            if known.validity.is_fresh(Instant::now(), self.life_of(&exchange.caller)) {
                self.count_asked(Remembered::Tag, Asked::Hit);
                return Ok(Arc::clone(&known.resolved));
            }
            if self.upstream.is_near_rate_limit()
                && let Some(stale) = self.stale(exchange, known)
            {
                return Ok(stale);
            }
        }
        let absence = if insists { None } else { self.resolutions.absence(&question).await };
        let (counted, answer) = match absence {
            Some(absence) => ((Remembered::Negative, Asked::Hit), Err((*absence.failure).clone())),
            None => self.ask(&exchange.caller, question, known.is_some()).await,
        };
        if let (Err(failure), Some(known)) = (&answer, &known)
            && self.options.tags.forgives(failure)
            && let Some(stale) = self.stale(exchange, known)
        {
            return Ok(stale);
        }
        self.count_asked(counted.0, counted.1);
        answer
    }

    /// The upstream let everybody see this document just now. Where permission comes from the gateway, that holds for a
    /// while.
    pub(super) async fn note_permission(&self, caller: &Caller, repository: &Repository, digest: &Digest) {
        self.note_permission_of(caller, repository, digest, self.resolutions.now()).await;
    }

    async fn note_permission_of(&self, caller: &Caller, repository: &Repository, digest: &Digest, moment: Moment) {
        if self.upstream.permission() == Permission::Gateway {
            let resolved = Resolved { digest: digest.clone(), bytes: None };
            let question = self.question(caller, repository, &Reference::Digest(digest.clone()));
            self.remember(caller, question, Arc::new(resolved), moment).await;
        }
    }

    /// What is remembered is better than this failure, if it is not too old.
    pub(super) fn outlives(&self, failure: &Failure) -> bool {
        self.upstream.permission() == Permission::Gateway && failure.is_outage()
    }

    /// An answer that was given before, if it is not too old to be better than none.
    fn stale(&self, exchange: &Exchange, known: &Answer) -> Option<Arc<Resolved>> {
        let age = known.validity.usable_age(Instant::now())?;
        exchange.note_stale(age);
        self.count_asked(Remembered::Tag, Asked::Stale);
        Some(Arc::clone(&known.resolved))
    }

    /// Asks the upstream; where the answer holds for others too, once however many ask at the same time.
    async fn ask(
        self: &Arc<Self>,
        caller: &Caller,
        question: Question,
        is_known: bool,
    ) -> (Counted, Result<Arc<Resolved>, Failure>) {
        let asked = if is_known { Asked::Revalidated } else { Asked::Miss };
        let gateway = self.upstream.permission() == Permission::Gateway;
        if !gateway && self.options.tags.ttl_of(&question.reference).is_zero() {
            let answer = Arc::clone(self).ask_now(caller.clone(), question, self.resolutions.now()).await;
            return ((Remembered::Tag, Asked::Bypass), answer);
        }
        let key = (self.resolutions.now(), question);
        let (asked, flight) = self.join(asked, caller, &key);
        let flown = flight.await;
        if asked == Asked::Coalesced {
            let followed = if flown.is_some() { Followed::Served } else { Followed::LeaderFailed };
            self.shared.metrics.count_follower(Remembered::Tag, followed);
        }
        let answer = match flown {
            Some(answer) => answer,
            // Whoever led failed in a way of his own.
            None => Arc::clone(self).ask_now(caller.clone(), key.1, key.0).await,
        };
        ((Remembered::Tag, asked), answer)
    }

    /// The question that is being asked already, or this one as the first to ask it.
    fn join(self: &Arc<Self>, asked: Asked, caller: &Caller, key: &(Moment, Question)) -> (Asked, Flight) {
        let mut flights = self.resolutions.flights();
        if let Some(flight) = flights.get(key) {
            return (Asked::Coalesced, flight.clone());
        }
        let flight = Arc::clone(self).take_off(caller.clone(), key.clone());
        flights.insert(key.clone(), flight.clone());
        (asked, flight)
    }

    /// Asks on a task of its own, which no client can cancel.
    fn take_off(self: Arc<Self>, caller: Caller, key: (Moment, Question)) -> Flight {
        let flight = self.shared.metrics.flight(Remembered::Tag);
        let work = async move {
            let landing = Landing { gateway: &self, key: &key, _flight: flight };
            let (moment, question) = key.clone();
            let answer = Arc::clone(&self).ask_now(caller, question, moment).await;
            drop(landing);
            answer
        };
        tokio::spawn(continued(work)).map(Result::ok).boxed().shared()
    }

    async fn ask_now(
        self: Arc<Self>,
        caller: Caller,
        question: Question,
        moment: Moment,
    ) -> Result<Arc<Resolved>, Failure> {
        let asked = self.upstream.resolve(&caller, &question.repository, &question.reference).await.map(Arc::new);
        match &asked {
            Ok(resolved) => {
                self.resolutions.absences.invalidate(&question).await;
                if let Reference::Tag(_) = question.reference {
                    self.note_permission_of(&caller, &question.repository, &resolved.digest, moment).await;
                }
                // The bytes, where they had to be read, go to the memory of documents; here they would be weighed by nobody.
                let remembered = Arc::new(Resolved { bytes: None, ..(**resolved).clone() });
                self.remember(&caller, question, remembered, moment).await;
            }
            Err(failure) => self.remember_refusal(question, failure, moment).await,
        }
        asked
    }

    async fn remember(&self, caller: &Caller, question: Question, resolved: Arc<Resolved>, moment: Moment) {
        let tags = &self.options.tags;
        let stale = tags.stale_life(self.upstream.permission());
        let validity = Validity::new(Instant::now(), tags.ttl_of(&question.reference), stale, self.life_of(caller));
        if validity.whole().is_zero() || self.resolutions.is_over(moment) {
            return;
        }
        let answer = Answer { resolved, validity, pushes: moment.pushes };
        self.resolutions.answers.insert(question.clone(), answer).await;
        self.reconsider(&question, moment).await;
    }

    /// Forgets an answer to a question that was asked before a refresh which came while it was written down.
    async fn reconsider(&self, question: &Question, moment: Moment) {
        if self.resolutions.is_over(moment) {
            self.resolutions.forget_question(question).await;
        }
    }

    /// Forgets what this tag names, whoever asked; says how many callers did.
    pub(super) async fn forget_tag(&self, repository: &Repository, tag: &Tag) -> usize {
        self.resolutions.forget_tag(repository, tag).await
    }

    /// A refusal ends what was allowed before; that there is nothing is repeated for a while. No other refusal is.
    async fn remember_refusal(&self, question: Question, failure: &Failure, moment: Moment) {
        let is_absent = failure.is_not_found();
        let keeps = is_absent && self.options.tags.on_404 == OnMissing::Stale;
        if failure.may_be_absence() && !keeps || failure.status() == Some(StatusCode::UNAUTHORIZED) {
            self.resolutions.answers.invalidate(&question).await;
        }
        let life = self.options.tags.negative_ttl_of(&question.reference);
        if is_absent && !life.is_zero() && !self.resolutions.is_over(moment) {
            let absence = Absence { failure: Arc::new(failure.clone()), life, pushes: moment.pushes };
            self.resolutions.absences.insert(question.clone(), absence).await;
            self.reconsider(&question, moment).await;
        }
    }

    fn question(&self, caller: &Caller, repository: &Repository, reference: &Reference) -> Question {
        let caller = match self.upstream.permission() {
            Permission::Upstream => Some(caller.fingerprint(&self.resolutions.process_key)),
            Permission::Gateway => None,
        };
        Question { repository: repository.clone(), reference: reference.clone(), caller }
    }

    /// How long the credentials live that an answer was given to, where they say so. The gateway's own are replaced in time.
    fn life_of(&self, caller: &Caller) -> Option<Duration> {
        match self.upstream.permission() {
            Permission::Upstream => caller.remaining_life(SystemTime::now()),
            Permission::Gateway => None,
        }
    }
}

/// Takes a question off the list of those that are being asked, whatever became of it.
struct Landing<'a> {
    gateway: &'a Gateway,
    key: &'a (Moment, Question),
    _flight: InFlight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.gateway.resolutions.flights().remove(self.key);
    }
}
