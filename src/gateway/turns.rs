//! Turns: how many manifests the process works on at once, whatever their upstreams.
//!
//! A document that is remembered needs none. Children of a list or index come under the turn of their parent: one that
//! waited for a turn while its parent holds another could wait for itself.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::derive::Obstacle;

/// How many manifests are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestLimits {
    /// How many are read from upstreams or translated. Default 256.
    pub in_flight: NonZeroUsize,
    /// How long one more waits before it is refused with 503. Default 10 s.
    pub queue_timeout: Duration,
}

impl Default for ManifestLimits {
    fn default() -> Self {
        Self { in_flight: NonZeroUsize::MIN.saturating_add(255), queue_timeout: Duration::from_secs(10) }
    }
}

/// Turns, which are free again when they are dropped.
#[derive(Clone)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    queue_timeout: Duration,
}

impl Turns {
    pub(super) fn new(limits: &ManifestLimits) -> Self {
        let free = Arc::new(Semaphore::new(limits.in_flight.get().min(Semaphore::MAX_PERMITS)));
        Self { free, queue_timeout: limits.queue_timeout }
    }

    /// The next turn, or a refusal if it does not come in time.
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, Obstacle> {
        if let Ok(turn) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(turn);
        }
        let busy = || Obstacle::Busy { seconds: self.queue_timeout.as_secs().max(1) };
        let turn = tokio::time::timeout(self.queue_timeout, Arc::clone(&self.free).acquire_owned()).await;
        turn.map_err(|_| busy())?.map_err(|_| Obstacle::Internal)
    }
}
