//! Whether an upstream that does not answer is asked at all. A state machine without a clock: time comes as a value.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// When the breaker of an upstream opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// How many requests in a row must fail. Default 5.
    pub failures: NonZeroU32,
    /// How long nothing is asked when it opens for the first time; each time that the probe after it fails, twice as
    /// long. Default 1 s.
    pub first_pause: Duration,
    /// How long nothing is asked at most. Default 60 s.
    pub longest_pause: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        let failures = NonZeroU32::MIN.saturating_add(4);
        Self { failures, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(60) }
    }
}

/// The breaker of one upstream.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// How often it opened since it was last closed.
    openings: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { since: Instant },
    HalfOpen { since: Instant },
}

/// As what a request is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// One of many.
    Ordinary,
    /// The one that finds out whether the upstream answers again.
    Probe,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The upstream answered.
    Alive,
    /// It did not, or said that it cannot.
    Failed,
    /// Nobody waited for the answer.
    Unknown,
}

/// Where a breaker stands, as the metric shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

impl Position {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

impl Breaker {
    pub(super) const fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed { failures: 0 }, openings: 0 }
    }

    /// For how long nothing is let through.
    pub(super) fn pause_left(&self, now: Instant) -> Option<Duration> {
        let since = match self.state {
            State::Closed { .. } => return None,
            // A probe that takes long does not keep the others out for ever.
            State::Open { since } | State::HalfOpen { since } => since,
        };
        let left = self.pause().saturating_sub(now.saturating_duration_since(since));
        (!left.is_zero()).then_some(left)
    }

    /// Lets a request through, or says for how long none is.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        match (self.state, self.pause_left(now)) {
            (_, Some(left)) => Err(left),
            (State::Closed { .. }, None) => Ok(Admission::Ordinary),
            (_, None) => {
                self.state = State::HalfOpen { since: now };
                Ok(Admission::Probe)
            }
        }
    }

    /// Hears what became of a request that was let through. Who was let through before it opened decides nothing.
    pub(super) fn judge(&mut self, admission: Admission, verdict: Verdict, now: Instant) {
        match (self.state, admission, verdict) {
            (State::Closed { .. }, _, Verdict::Alive) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, _, Verdict::Failed) => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed { failures };
                if failures >= self.policy.failures.get() {
                    self.open(now);
                }
            }
            (State::HalfOpen { .. }, Admission::Probe, Verdict::Alive) => {
                self.openings = 0;
                self.state = State::Closed { failures: 0 };
            }
            (State::HalfOpen { .. }, Admission::Probe, Verdict::Failed) => self.open(now),
            // It found out nothing, so the next one is the probe.
            (State::HalfOpen { since }, Admission::Probe, Verdict::Unknown) => {
                let over = since.checked_sub(self.pause()).unwrap_or(since);
                self.state = State::Open { since: over };
            }
            _ => {}
        }
    }

    pub(super) const fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } => Position::Closed,
            State::HalfOpen { .. } => Position::HalfOpen,
            State::Open { .. } => Position::Open,
        }
    }

    fn open(&mut self, now: Instant) {
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open { since: now };
    }

    fn pause(&self) -> Duration {
        let doublings = self.openings.saturating_sub(1);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.policy.first_pause.saturating_mul(factor).min(self.policy.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(failures: u32) -> Breaker {
        let failures = NonZeroU32::new(failures).unwrap();
        Breaker::new(BreakerPolicy { failures, first_pause: SECOND, longest_pause: 5 * SECOND })
    }

    fn fail(breaker: &mut Breaker, now: Instant) {
        let admission = breaker.admit(now).unwrap();
        breaker.judge(admission, Verdict::Failed, now);
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut breaker = breaker(3);
        for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Alive, Verdict::Failed, Verdict::Failed] {
            let admission = breaker.admit(now).unwrap();
            breaker.judge(admission, verdict, now);
            assert_eq!(breaker.position(), Position::Closed);
        }
        fail(&mut breaker, now);
        assert_eq!(breaker.position(), Position::Open);
        assert_eq!(breaker.admit(now + SECOND / 4), Err(SECOND * 3 / 4));
    }

    #[test]
    fn one_probe_decides_and_each_failed_one_doubles_the_pause() {
        let mut now = Instant::now();
        let mut breaker = breaker(1);
        fail(&mut breaker, now);
        for pause in [1, 2, 4, 5, 5] {
            assert!(breaker.admit(now + pause * SECOND * 99 / 100).is_err(), "{pause} s are not over");
            now += pause * SECOND;
            assert_eq!(breaker.admit(now), Ok(Admission::Probe), "{pause} s are over");
            assert!(breaker.admit(now).is_err(), "one probe at a time");
            breaker.judge(Admission::Probe, Verdict::Failed, now);
        }
        now += 5 * SECOND;
        assert_eq!(breaker.admit(now), Ok(Admission::Probe));
        breaker.judge(Admission::Probe, Verdict::Alive, now);
        assert_eq!((breaker.position(), breaker.admit(now)), (Position::Closed, Ok(Admission::Ordinary)));
        fail(&mut breaker, now);
        assert_eq!(breaker.admit(now), Err(SECOND), "it starts from the beginning");
    }

    #[test]
    fn a_probe_that_nobody_waits_for_hands_its_part_on() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        fail(&mut breaker, now);
        let later = now + SECOND;
        assert_eq!(breaker.admit(later), Ok(Admission::Probe));
        breaker.judge(Admission::Probe, Verdict::Unknown, later);
        assert_eq!(breaker.admit(later), Ok(Admission::Probe));
    }

    #[test]
    fn a_late_answer_from_before_it_opened_decides_nothing() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        let late = breaker.admit(now).unwrap();
        fail(&mut breaker, now);
        for verdict in [Verdict::Alive, Verdict::Failed] {
            breaker.judge(late, verdict, now);
            assert_eq!(breaker.admit(now), Err(SECOND));
        }
    }

    proptest! {
        /// Whatever happens, in whatever order and however the clock jumps: never two probes within one pause, and there is
        /// always a moment at which something is let through again.
        #[test]
        fn it_never_locks_up(steps in proptest::collection::vec((0_u64..7000, 0_u8..4), 1..200)) {
            let start = Instant::now();
            let mut breaker = breaker(2);
            let mut out = Vec::new();
            for (at, step) in steps {
                let now = start + Duration::from_millis(at);
                match step {
                    0 => out.extend(breaker.admit(now)),
                    verdict => {
                        let verdict = [Verdict::Alive, Verdict::Failed, Verdict::Unknown][usize::from(verdict) - 1];
                        if let Some(admission) = out.pop() {
                            breaker.judge(admission, verdict, now);
                        }
                    }
                }
            }
            prop_assert!(breaker.admit(start + Duration::from_secs(3600)).is_ok());
        }
    }
}
