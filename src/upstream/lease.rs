//! A value that ends and is renewed in time: credentials, tokens.
//!
//! One renewal runs at a time, and whoever waited for it takes what it brought, good or bad. A renewal that fails costs
//! nothing as long as the value that is held has not ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Failure;

/// After how long a renewal that failed is tried again while the old value still holds.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// How long after one refusal another one does not renew: who asks for what is denied again and again does not make
/// the gateway log in again and again. Registries lock accounts for that.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);

/// A value, and for how long.
pub(super) struct Term<Value> {
    pub(super) value: Value,
    /// How old it may be when a new one is asked for.
    pub(super) renew_after: Duration,
    /// How old it may be at all; without an end it holds until there is a new one.
    pub(super) ends_after: Option<Duration>,
}

/// How much of its life a value that ends has behind it when a new one is asked for.
const RENEWED_AT: f64 = 0.7;

impl<Value> Term<Value> {
    /// Holds until there is a new one, which nobody asks for.
    pub(super) const fn endless(value: Value) -> Self {
        Self { value, renew_after: Duration::MAX, ends_after: None }
    }

    /// Holds for so long.
    pub(super) fn lasting(value: Value, life: Duration) -> Self {
        Self { value, renew_after: life.mul_f64(RENEWED_AT), ends_after: Some(life) }
    }
}

/// What is held, and who renews it.
pub(super) struct Lease<Value> {
    state: Mutex<State<Value>>,
    renewing: tokio::sync::Mutex<()>,
}

struct State<Value> {
    held: Option<Held<Value>>,
    failed: Option<(Instant, Failure)>,
    refused: Option<Instant>,
}

struct Held<Value> {
    value: Value,
    since: Instant,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

impl<Value> Default for Lease<Value> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State { held: None, failed: None, refused: None }),
            renewing: tokio::sync::Mutex::default(),
        }
    }
}

impl<Value: Clone + PartialEq> Lease<Value> {
    /// The value, from `renewal` where it is time for a new one.
    pub(super) async fn get(
        &self,
        renewal: impl Future<Output = Result<Term<Value>, Failure>>,
    ) -> Result<Value, Failure> {
        let asked = Instant::now();
        let _alone = match self.usable(asked) {
            Some((value, Age::Fresh)) => return Ok(value),
            // Somebody renews it already, and it holds until then.
            Some((value, Age::Due)) => match self.renewing.try_lock() {
                Ok(alone) => alone,
                Err(_) => return Ok(value),
            },
            None => self.renewing.lock().await,
        };
        match self.brought_since(asked) {
            Some(brought) => brought,
            None => self.renew(asked, renewal).await,
        }
    }

    /// Another value than this one, which was refused; the same one where there is no other.
    pub(super) async fn another_than(
        &self,
        refused: &Value,
        renewal: impl Future<Output = Result<Term<Value>, Failure>>,
    ) -> Result<Value, Failure> {
        let asked = Instant::now();
        let _alone = self.renewing.lock().await;
        match self.usable(Instant::now()) {
            Some((value, _)) if value != *refused => return Ok(value),
            Some((value, _)) if self.was_refused_lately() => return Ok(value),
            _ => {}
        }
        if let Some(brought) = self.brought_since(asked) {
            return brought;
        }
        self.state().refused = Some(Instant::now());
        self.renew(Instant::now(), renewal).await
    }

    async fn renew(
        &self,
        started: Instant,
        renewal: impl Future<Output = Result<Term<Value>, Failure>>,
    ) -> Result<Value, Failure> {
        let renewed = renewal.await;
        let now = Instant::now();
        let mut state = self.state();
        match renewed {
            Ok(Term { value, renew_after, ends_after }) => {
                // Counted from when it was asked for: it may have been made at that moment.
                state.held = Some(Held {
                    value: value.clone(),
                    since: now,
                    renew_at: started.checked_add(renew_after),
                    ends_at: ends_after.and_then(|ends_after| started.checked_add(ends_after)),
                });
                state.failed = None;
                Ok(value)
            }
            Err(failure) => {
                state.failed = Some((now, failure.clone()));
                let held = state.held.as_mut().filter(|held| held.holds(now)).ok_or_else(|| failure.clone())?;
                held.renew_at = now.checked_add(RETRY_PAUSE);
                let value = held.value.clone();
                drop(state);
                tracing::warn!(error = %failure, "credentials could not be renewed; the old ones are still good");
                Ok(value)
            }
        }
    }

    /// Whether there is a value that has not ended.
    pub(super) fn is_held(&self) -> bool {
        self.usable(Instant::now()).is_some()
    }

    fn usable(&self, now: Instant) -> Option<(Value, Age)> {
        let state = self.state();
        let held = state.held.as_ref().filter(|held| held.holds(now))?;
        let age = if held.renew_at.is_some_and(|renew_at| renew_at <= now) { Age::Due } else { Age::Fresh };
        Some((held.value.clone(), age))
    }

    /// What a renewal that ended after `asked` brought: it ran while the asker waited. A denial holds a little longer.
    fn brought_since(&self, asked: Instant) -> Option<Result<Value, Failure>> {
        let state = self.state();
        if let Some(held) = state.held.as_ref().filter(|held| held.since > asked) {
            return Some(Ok(held.value.clone()));
        }
        let (_, failure) = state.failed.as_ref().filter(|(failed, failure)| {
            *failed > asked || (matches!(failure, Failure::Denied { .. }) && failed.elapsed() < REFUSAL_PAUSE)
        })?;
        let held = state.held.as_ref().filter(|held| held.holds(Instant::now()));
        Some(held.map_or_else(|| Err(failure.clone()), |held| Ok(held.value.clone())))
    }

    fn was_refused_lately(&self) -> bool {
        self.state().refused.is_some_and(|refused| refused.elapsed() < REFUSAL_PAUSE)
    }

    fn state(&self) -> MutexGuard<'_, State<Value>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Age {
    Fresh,
    /// Good, and time for a new one.
    Due,
}

impl<Value> Held<Value> {
    fn holds(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|ends_at| now < ends_at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn lasting(value: u32, life: Duration) -> impl Future<Output = Result<Term<u32>, Failure>> {
        ready(Ok(Term::lasting(value, life)))
    }

    fn failing() -> impl Future<Output = Result<Term<u32>, Failure>> {
        ready(Err(Failure::TimedOut { seconds: 1 }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_renewed_before_it_ends_and_never_used_after() {
        let lease = Lease::default();
        assert_eq!(lease.get(lasting(1, MINUTE)).await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(41)).await;
        assert_eq!(lease.get(lasting(2, MINUTE)).await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lease.get(failing()).await.unwrap(), 1, "kept, because it has not ended");
        assert_eq!(lease.get(lasting(2, MINUTE)).await.unwrap(), 1, "not tried again at once");
        tokio::time::advance(Duration::from_secs(18)).await;
        assert!(lease.get(failing()).await.is_err(), "ended");
        assert_eq!(lease.get(lasting(3, MINUTE)).await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_renewal_serves_all_who_wait_for_it() {
        for life in [MINUTE, Duration::ZERO] {
            let (lease, (open, opened)) = (Lease::default(), tokio::sync::oneshot::channel::<()>());
            let first = lease.get(async {
                opened.await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                lasting(1, life).await
            });
            let second = async {
                open.send(()).unwrap();
                lease.get(lasting(2, life)).await
            };
            let (first, second) = tokio::join!(first, second);
            assert_eq!((first.unwrap(), second.unwrap()), (1, 1), "{life:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_renewed_once_in_a_while() {
        let lease = Lease::default();
        assert_eq!(lease.get(lasting(1, MINUTE)).await.unwrap(), 1);
        assert_eq!(lease.another_than(&1, failing()).await.unwrap(), 1, "there is no other");
        assert_eq!(lease.another_than(&1, lasting(2, MINUTE)).await.unwrap(), 1, "asked for a moment ago");
        tokio::time::advance(REFUSAL_PAUSE).await;
        assert_eq!(lease.another_than(&1, lasting(2, MINUTE)).await.unwrap(), 2);
        assert_eq!(lease.another_than(&1, lasting(3, MINUTE)).await.unwrap(), 2, "somebody else renewed it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_not_asked_for_again_at_once() {
        let denied = || {
            let (by, shown) = ("somebody".to_owned(), "something".to_owned());
            ready(Err(Failure::Denied { by, status: http::StatusCode::UNAUTHORIZED, shown }))
        };
        let lease = Lease::default();
        assert!(lease.get(denied()).await.is_err());
        assert!(lease.get(lasting(1, MINUTE)).await.is_err(), "asked for a moment ago");
        tokio::time::advance(REFUSAL_PAUSE).await;
        assert_eq!(lease.get(lasting(1, MINUTE)).await.unwrap(), 1);
    }
}
