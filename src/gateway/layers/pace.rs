//! How fast a layer has to come. One that drips would hold the turn of others for as long as its sender likes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, Sleep};

use crate::upstream::Failure;

/// How fast the upstream has to send a layer. A bound on the pace and none on the time, because a layer may have ten
/// gigabytes and come over a slow line; with the bound on its size it bounds the time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerPace {
    /// How many bytes a second at least; 0 for any pace. Default 16 KiB: a layer of 1 GiB then takes 18 hours, which
    /// nobody waits for.
    pub bytes_per_second_min: u64,
    /// Over how long that is averaged. Only waiting for the upstream counts. Default 60 s, in which a connection that
    /// lost packets recovers.
    pub window: Duration,
}

impl Default for LayerPace {
    fn default() -> Self {
        Self { bytes_per_second_min: 16 << 10, window: Duration::from_secs(60) }
    }
}

impl LayerPace {
    /// How many bytes must come in one window.
    fn bytes_min(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second_min) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// A layer that breaks off where it comes too slowly.
pub(super) struct Paced<Pieces> {
    pieces: Pieces,
    pace: LayerPace,
    /// How long was waited in this window, and how many bytes came in it.
    waited: Duration,
    bytes: u64,
    waiting: Option<Waiting>,
}

/// The upstream is waited for at this moment.
struct Waiting {
    since: Instant,
    window_ends: Pin<Box<Sleep>>,
}

impl<Pieces> Paced<Pieces> {
    pub(super) const fn new(pieces: Pieces, pace: LayerPace) -> Self {
        Self { pieces, pace, waited: Duration::ZERO, bytes: 0, waiting: None }
    }

    /// Ends a window, and says whether enough came in it.
    fn end_window(&mut self) -> Result<(), Failure> {
        let (bytes, bytes_min) = (std::mem::take(&mut self.bytes), self.pace.bytes_min());
        (self.waited, self.waiting) = (Duration::ZERO, None);
        if bytes < bytes_min {
            return Err(Failure::TooSlow { bytes, bytes_min, seconds: self.pace.window.as_secs() });
        }
        Ok(())
    }
}

impl<Pieces: Stream<Item = Result<Bytes, Failure>> + Unpin> Stream for Paced<Pieces> {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(piece) = this.pieces.poll_next_unpin(context) {
            if let Some(waiting) = this.waiting.take() {
                this.waited += waiting.since.elapsed();
            }
            if let Some(Ok(piece)) = &piece {
                this.bytes = this.bytes.saturating_add(piece.len() as u64);
            }
            return Poll::Ready(piece);
        }
        loop {
            let (left, now) = (this.pace.window.saturating_sub(this.waited), Instant::now());
            let waiting = this.waiting.get_or_insert_with(|| Waiting {
                since: now,
                window_ends: Box::pin(tokio::time::sleep_until(now + left)),
            });
            ready!(waiting.window_ends.as_mut().poll(context));
            this.end_window()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const PACE: LayerPace = LayerPace { bytes_per_second_min: 100, window: Duration::from_secs(10) };

    /// So many pieces of so many bytes, each as long after the one before it.
    fn sent(pieces: usize, bytes: usize, pause: Duration) -> impl Stream<Item = Result<Bytes, Failure>> + Unpin {
        let piece = move |number| async move {
            tokio::time::sleep(pause).await;
            (number < pieces).then(|| (Ok(Bytes::from(vec![0; bytes])), number + 1))
        };
        Box::pin(stream::unfold(0, piece))
    }

    async fn read(
        pieces: impl Stream<Item = Result<Bytes, Failure>> + Unpin,
        pace: LayerPace,
    ) -> Result<usize, Failure> {
        let mut paced = Paced::new(pieces, pace);
        let mut bytes = 0;
        while let Some(piece) = paced.next().await {
            bytes += piece?.len();
        }
        Ok(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_that_drips_breaks_off_at_the_end_of_a_window() {
        let started = Instant::now();
        let failure = read(sent(10_000, 1, Duration::from_secs(1)), PACE).await.unwrap_err();
        assert!(matches!(failure, Failure::TooSlow { bytes: 9 | 10, bytes_min: 1000, seconds: 10 }), "{failure:?}");
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_that_comes_steadily_may_take_as_long_as_it_likes() {
        let bytes = read(sent(100_000, 101, Duration::from_secs(1)), PACE).await;
        assert_eq!(bytes.unwrap(), 100_000 * 101);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_up_for_by_what_came_around_it() {
        let bursts = sent(20, 5_000, Duration::from_secs(9));
        assert_eq!(read(bursts, PACE).await.unwrap(), 20 * 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_for_the_upstream_counts() {
        let mut paced = Paced::new(sent(20, 100, Duration::from_millis(500)), PACE);
        while let Some(piece) = paced.next().await {
            assert!(piece.is_ok());
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_any_pace_will_do() {
        let bytes = read(sent(100, 1, Duration::from_secs(3600)), LayerPace { bytes_per_second_min: 0, ..PACE }).await;
        assert_eq!(bytes.unwrap(), 100);
    }
}
