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
                if self.is_failing.load(Ordering::Relaxed) && self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(%store, "the store answers again");
                }
            }
            Err(failure) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%store, error = %failure, "the store fails; what needs it is answered with 503 until it does not");
                }
            }
        }
    }
}
