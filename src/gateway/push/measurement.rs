//! The measuring of one upload: its body, teed into a queue, and whoever reads from there.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::image::digest::{Algorithm, Digest};
use crate::image::layer::LayerFacts;
use crate::transcode::{Fault, Workers};

/// How many pieces of an upload wait to be measured: with what a connection gives at a time, at most some MiB.
const PIECES_QUEUED_MAX: usize = 16;
/// How long a measurement that lags may hold up its upload, in all. To wait a little is better than to give up: what is
/// not measured now is read by the same threads at the same pace while the client waits for its manifest. To wait long is
/// not: the threads may be kept from working by something else, and the client or the upstream may lose patience.
const HELD_UP_MAX: Duration = Duration::from_secs(5);
/// How long nothing may come of an upload before its measurement is given up.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long an upload is measured in all, however it drips: it holds a turn meanwhile.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// What an upload is measured by. Dropped, it is given up.
pub(super) struct Measurement {
    pieces: mpsc::Sender<Message>,
    outcome: JoinHandle<Result<(Digest, LayerFacts), Fault>>,
    /// How many bytes were seen.
    pub(super) bytes: u64,
    /// How long the upload may still be held up.
    patience: Duration,
}

enum Message {
    Piece(Bytes),
    End,
}

/// Why a measurement is given up.
#[derive(Debug, thiserror::Error)]
#[error("its upload did not come to its end")]
struct Unfinished;

impl Measurement {
    /// Begins, if there is a turn.
    pub(super) fn begin(workers: &Workers) -> Option<Self> {
        let turn = workers.free_turn()?;
        let (pieces, messages) = mpsc::channel(PIECES_QUEUED_MAX);
        let workers = workers.clone();
        let measure = async move { workers.measure_unnamed(turn, Algorithm::Sha256, pieces_of(messages)).await };
        let outcome = tokio::spawn(measure);
        Some(Self { pieces, outcome, bytes: 0, patience: HELD_UP_MAX })
    }

    /// It is worked on no more.
    pub(super) fn is_over(&self) -> bool {
        self.pieces.is_closed()
    }

    /// All of the upload has passed: what it is.
    pub(super) async fn finish(self) -> Result<(Digest, LayerFacts), Fault> {
        let Self { pieces, outcome, .. } = self;
        // Whoever stopped listening says why.
        let _ = pieces.send(Message::End).await;
        drop(pieces);
        outcome.await.unwrap_or(Err(Fault::Internal))
    }
}

/// The pieces as they come, for as long as they do.
fn pieces_of(messages: mpsc::Receiver<Message>) -> impl Stream<Item = Result<Bytes, Unfinished>> + Send {
    let over = Instant::now() + AGE_MAX;
    stream::unfold(messages, move |mut messages| async move {
        let until = over.min(Instant::now() + IDLE_MAX);
        match tokio::time::timeout_at(until, messages.recv()).await {
            Ok(Some(Message::Piece(piece))) => Some((Ok(piece), messages)),
            Ok(Some(Message::End)) => None,
            Ok(None) | Err(_) => Some((Err(Unfinished), messages)),
        }
    })
}

/// The body of a part, which is measured as it passes.
pub(super) struct Teed {
    inner: reqwest::Body,
    /// How many bytes are still to come, where that is known.
    left: Option<u64>,
    /// `None` once all of it has passed, or it is measured no more.
    measuring: Option<Measuring>,
}

struct Measuring {
    measurement: Measurement,
    room: Room,
    pass: oneshot::Sender<Measurement>,
}

/// Whether there is room for the next piece in the queue.
enum Room {
    Unknown,
    Free(OwnedPermit<Message>),
    /// `None` where it took too long, or nobody measures any more.
    Awaited(Pin<Box<dyn Future<Output = Option<Place>> + Send + Sync>>),
}

/// A place in the queue that was waited for.
struct Place {
    permit: OwnedPermit<Message>,
    /// How much patience is left.
    patience: Duration,
}

impl Teed {
    /// The same body, whose measurement comes out when all of it has passed.
    pub(super) fn new(inner: reqwest::Body, measurement: Measurement, pass: oneshot::Sender<Measurement>) -> Self {
        let left = inner.size_hint().exact();
        Self { inner, left, measuring: Some(Measuring { measurement, room: Room::Unknown, pass }) }
    }

    fn take(&mut self, piece: &Bytes) {
        self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
        if let Some(measuring) = &mut self.measuring
            && let Room::Free(permit) = std::mem::replace(&mut measuring.room, Room::Unknown)
        {
            permit.send(Message::Piece(piece.clone()));
            measuring.measurement.bytes += piece.len() as u64;
        }
    }

    fn end(&mut self) {
        if let Some(Measuring { measurement, pass, .. }) = self.measuring.take() {
            // Whoever asked for it may have left.
            let _ = pass.send(measurement);
        }
    }
}

impl Measuring {
    /// Waits until there is room for a piece. `false` where it is measured no more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if let Room::Unknown = self.room {
            let (pieces, patience) = (self.measurement.pieces.clone(), self.measurement.patience);
            self.room = match pieces.try_reserve_owned() {
                Ok(permit) => Room::Free(permit),
                Err(mpsc::error::TrySendError::Closed(_)) => return Poll::Ready(false),
                Err(mpsc::error::TrySendError::Full(pieces)) => Room::Awaited(Box::pin(room_in(pieces, patience))),
            };
        }
        if let Room::Awaited(awaited) = &mut self.room {
            let Some(place) = ready!(awaited.as_mut().poll(context)) else { return Poll::Ready(false) };
            self.measurement.patience = place.patience;
            self.room = Room::Free(place.permit);
        }
        Poll::Ready(true)
    }
}

async fn room_in(pieces: mpsc::Sender<Message>, patience: Duration) -> Option<Place> {
    let since = Instant::now();
    let permit = tokio::time::timeout(patience, pieces.reserve_owned()).await.ok()?.ok()?;
    Some(Place { permit, patience: patience.saturating_sub(since.elapsed()) })
}

impl http_body::Body for Teed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        // Before the client is asked for more: a piece that is here goes on at once.
        if let Some(measuring) = &mut self.measuring
            && !ready!(measuring.poll_room(context))
        {
            self.measuring = None;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|piece| self.take(piece)),
            Some(Err(_)) => self.measuring = None,
            None => self.end(),
        }
        if self.left == Some(0) || self.inner.is_end_stream() {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::BodyExt;

    use super::*;

    /// A measurement that nobody works on: its pieces stay where they are.
    fn idle() -> (Measurement, mpsc::Receiver<Message>) {
        let (pieces, messages) = mpsc::channel(2);
        let outcome = tokio::spawn(async { Err(Fault::Abandoned) });
        (Measurement { pieces, outcome, bytes: 0, patience: HELD_UP_MAX }, messages)
    }

    fn body(pieces: &[&'static str]) -> reqwest::Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(*piece))).collect();
        reqwest::Body::wrap_stream(stream::iter(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_waits_for_its_measurement_a_bounded_time_and_then_passes_without() {
        let (measurement, messages) = idle();
        let (pass, passed) = oneshot::channel();
        let since = Instant::now();
        let teed = Teed::new(body(&["one", "two", "three", "four", "five"]), measurement, pass);
        assert_eq!(teed.collect().await.unwrap().to_bytes(), "onetwothreefourfive");
        assert!(since.elapsed() >= HELD_UP_MAX && since.elapsed() < HELD_UP_MAX * 2, "{:?}", since.elapsed());
        assert!(passed.await.is_err(), "it is given up");
        drop(messages);
    }

    #[tokio::test(start_paused = true)]
    async fn a_measurement_that_ended_holds_up_nothing() {
        let (measurement, messages) = idle();
        drop(messages);
        let (pass, passed) = oneshot::channel();
        let since = Instant::now();
        let teed = Teed::new(body(&["one", "two", "three"]), measurement, pass);
        assert_eq!(teed.collect().await.unwrap().to_bytes(), "onetwothree");
        assert_eq!(since.elapsed(), Duration::ZERO);
        assert!(passed.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_passed_whole_is_handed_on_with_what_is_left_of_its_patience() {
        let (measurement, mut messages) = idle();
        let (pass, passed) = oneshot::channel();
        let teed = Teed::new(body(&["one", "two", "three"]), measurement, pass);
        let read = async {
            tokio::time::sleep(HELD_UP_MAX / 2).await;
            let mut seen = Vec::new();
            for _ in 0..3 {
                let Some(Message::Piece(piece)) = messages.recv().await else { panic!("it ended") };
                seen.extend_from_slice(&piece);
            }
            seen
        };
        let (collected, seen) = tokio::join!(teed.collect(), read);
        assert_eq!(
            (collected.unwrap().to_bytes().as_ref(), seen.as_slice()),
            (&b"onetwothree"[..], &b"onetwothree"[..])
        );
        let measurement = passed.await.unwrap();
        assert_eq!((measurement.bytes, measurement.patience), (11, HELD_UP_MAX / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stands_still_or_drips_for_ever_is_given_up() {
        let (pieces, messages) = mpsc::channel(1);
        let since = Instant::now();
        let mut seen = Box::pin(pieces_of(messages));
        assert!(seen.next().await.unwrap().is_err());
        assert_eq!(since.elapsed(), IDLE_MAX);
        drop(pieces);
        let (pieces, messages) = mpsc::channel(1);
        let drip = async {
            while pieces.send(Message::Piece(Bytes::from_static(b"x"))).await.is_ok() {
                tokio::time::sleep(IDLE_MAX / 2).await;
            }
        };
        let since = Instant::now();
        let last =
            async move { pieces_of(messages).take_while(|piece| std::future::ready(piece.is_ok())).count().await };
        tokio::join!(drip, last);
        assert!(since.elapsed() >= AGE_MAX && since.elapsed() < AGE_MAX + IDLE_MAX, "{:?}", since.elapsed());
    }
}
