//! How many requests a second go to an upstream. A state machine without a clock: time comes as a value.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// One second's requests may go at once; after them each waits for its turn.
const BURST: Duration = Duration::from_secs(1);

/// The turns of one upstream.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// When the next turn would be if all had come evenly.
    next: Option<Instant>,
}

impl Pace {
    pub(super) fn new(requests_per_second: NonZeroU32) -> Self {
        Self { interval: BURST / requests_per_second.get(), next: None }
    }

    /// Takes the next turn and says how long to wait for it; takes none where that is longer than `patience`.
    pub(super) fn take_turn(&mut self, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let ahead = self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        let wait = ahead.saturating_sub(BURST.saturating_sub(self.interval));
        if wait > patience {
            return Err(wait);
        }
        self.next = Some(now + ahead + self.interval);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_goes_at_once_and_the_rest_evenly() {
        let now = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(4).unwrap());
        let patience = Duration::from_secs(1);
        let waits: Vec<_> = (0..8).map(|_| pace.take_turn(now, patience).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500, 750, 1000].map(Ok));
        assert_eq!(pace.take_turn(now, patience), Err(Duration::from_millis(1250)));
        assert_eq!(pace.take_turn(now + Duration::from_secs(1), patience), Ok(Duration::from_millis(250)));
        assert_eq!(pace.take_turn(now + Duration::from_secs(60), patience), Ok(Duration::ZERO));
    }
}
