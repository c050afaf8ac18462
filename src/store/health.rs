//! Whether the store answers: one line when that changes, not one for each request.

use std::sync::atomic::{AtomicU8, Ordering};

use super::StoreFailure;

/// What may fail by itself: a store that is full can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ability {
    Reading = 1,
    Writing = 2,
}

/// Whether a store answered when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// It could be read.
    pub reads: bool,
    /// It could be written.
    pub writes: bool,
}

/// What is known of a store.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: AtomicU8,
}

impl Health {
    /// Takes note of how an operation ended.
    pub(super) fn note<Output>(
        &self,
        ability: Ability,
        store: &dyn std::fmt::Display,
        result: &Result<Output, StoreFailure>,
    ) {
        match result {
            Ok(_) => {
                if self.note_success(ability) {
                    tracing::info!(%store, "the store answers again");
                }
            }
            Err(failure) => {
                if self.note_failure(ability) {
                    tracing::warn!(%store, error = %failure, "the store fails; what needs it is answered with 503 until it does not");
                }
            }
        }
    }

    /// Whether it can be read and written, as far as is known.
    pub(super) fn state(&self) -> State {
        State { reads: !self.is_failing(Ability::Reading), writes: !self.is_failing(Ability::Writing) }
    }

    /// True for the first success of what failed. The rest is believed to be mended with it until it fails again: the
    /// next use of it may be far off, and a store that was away is back.
    pub(super) fn note_success(&self, ability: Ability) -> bool {
        self.is_failing(ability) && self.failing.swap(0, Ordering::Relaxed) != 0
    }

    /// True for the first failure while all was well.
    pub(super) fn note_failure(&self, ability: Ability) -> bool {
        self.failing.fetch_or(ability as u8, Ordering::Relaxed) == 0
    }

    fn is_failing(&self, ability: Ability) -> bool {
        self.failing.load(Ordering::Relaxed) & ability as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        use Ability::{Reading, Writing};
        let health = Health::default();
        assert!(!health.note_success(Reading) && !health.note_success(Writing));
        assert!(health.note_failure(Writing), "full");
        assert!(!health.note_success(Reading), "that it can be read says nothing about that");
        assert!(!health.note_failure(Writing) && !health.note_failure(Reading), "it was said");
        assert!(health.note_success(Reading), "it is back");
        assert!(!health.note_success(Reading) && !health.note_success(Writing));
        assert!(health.note_failure(Writing), "but still full");
    }
}
