//! Sweeping by itself, for as long as the process runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::sweep::{Bounds, Occasion};
use super::{Location, Store};

/// How long after the start the first sweep comes: a gateway that is restarted has better things to do.
pub const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(5 * 60);
/// How often a sweep comes at least.
pub const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// A sweep comes early when the process wrote this part of what the store may hold, in percent.
const EARLY_PERCENT: u64 = 5;
/// How far the wall clock and the monotonic one may part between two sweeps before the former is not believed.
const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(3600);

/// What this process wrote since the last sweep.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: AtomicU64,
    more: Notify,
}

impl Written {
    pub(super) fn note(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.more.notify_one();
    }

    async fn reaches(&self, bytes: u64) {
        while self.bytes.load(Ordering::Relaxed) < bytes {
            self.more.notified().await;
        }
    }
}

impl Store {
    /// Keeps a directory or the memory within its bounds; never returns. A bucket has lifecycle rules for that.
    pub async fn tend(&self, bounds: Bounds) {
        if let Location::Bucket(_) = &self.location {
            return std::future::pending().await;
        }
        let early = bounds.documents_bytes_max.map_or(u64::MAX, |bytes| (bytes / 100 * EARLY_PERCENT).max(1));
        let mut wait = FIRST_SWEEP_AFTER;
        let mut clocks = Clocks::now();
        loop {
            // Whichever comes first; the result says nothing that matters.
            let _ = tokio::time::timeout(wait, self.written.reaches(early)).await;
            self.written.bytes.store(0, Ordering::Relaxed);
            wait = SWEEP_EVERY;
            let occasion = if clocks.agree() { Occasion::Background } else { Occasion::BackgroundWithoutClock };
            clocks = Clocks::now();
            match self.sweep(bounds, occasion, || {}).await {
                Ok(swept) => {
                    if swept.is_clock_suspicious {
                        tracing::warn!(
                            store = %self.location,
                            "so many recipes look unused for so long that the clock is likely wrong, so none was removed for its age; if it is right, run `schemabridge store gc`"
                        );
                    }
                    if swept.documents + swept.recipes + swept.layers + swept.leftovers > 0 {
                        tracing::info!(
                            store = %self.location,
                            recipes = swept.recipes,
                            documents = swept.documents,
                            documents_of_older_editions = swept.documents_of_older_editions,
                            documents_bytes = swept.documents_bytes,
                            layers = swept.layers,
                            layers_bytes = swept.layers_bytes,
                            leftovers = swept.leftovers,
                            "the store was swept"
                        );
                    }
                    self.metrics.note_swept(&swept);
                }
                Err(error) => tracing::warn!(store = %self.location, %error, "the store could not be swept"),
            }
        }
    }
}

/// The two clocks at one moment.
struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The wall clock went on since then as the monotonic one did.
    fn agree(&self) -> bool {
        let expected = self.wall + self.monotonic.elapsed();
        let now = SystemTime::now();
        let drift = now.duration_since(expected).or_else(|_| expected.duration_since(now)).unwrap_or_default();
        drift < CLOCK_DRIFT_MAX
    }
}
