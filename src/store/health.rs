//! Whether the store answers: one line when that changes, not one for each request.

use std::sync::atomic::{AtomicBool, Ordering};

use super::StoreFailure;

/// What is known of one kind of operation.
#[derive(Debug, Default)]
pub(super) struct Health {
    is_failing: AtomicBool,
}

impl Health {
    /// Takes note of how an operation ended.
    pub(super) fn note<Output>(&self, store: &dyn std::fmt::Display, result: &Result<Output, StoreFailure>) {
        match result {
            Ok(_) => {
                if self.note_success() {
                    tracing::info!(%store, "the store answers again");
                }
            }
            Err(failure) => {
                if self.note_failure() {
                    tracing::warn!(%store, error = %failure, "the store fails; what needs it is answered with 503 until it does not");
                }
            }
        }
    }

    /// True for the first success after failures.
    pub(super) fn note_success(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed) && self.is_failing.swap(false, Ordering::Relaxed)
    }

    /// True for the first failure after successes.
    pub(super) fn note_failure(&self) -> bool {
        !self.is_failing.swap(true, Ordering::Relaxed)
    }
}
