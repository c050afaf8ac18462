//! Layers that are measured while they are uploaded, so that what a schema 1 does not say of them is known when it comes.
//!
//! Docker up to 1.9 waits a minute for the answer to its schema 1 and does not ask again. To read its layers from the upstream
//! only then may take longer; to read them while they pass takes nothing of that minute. An upload is never changed by it, and
//! a measurement that is given up costs nothing but that the layer is read again when it is wanted.
//!
//! Measured are the uploads of Docker before 1.10 alone: it pushes nothing but schema 1. Later ones push schema 1 only to a
//! registry that takes nothing else, and of skopeo's uploads nobody can tell what will name them; to measure those of everybody
//! would cost every push two threads for nothing.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::{CONTENT_RANGE, HeaderMap, LOCATION};
use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::image::digest::{Algorithm, Digest};
use crate::image::layer::LayerFacts;
use crate::transcode::{Fault, Workers};
use crate::upstream::{RequestBody, StreamedBody};

use crate::gateway::Gateway;
use crate::gateway::by_tag::never_asks_by_digest;
use crate::gateway::exchange::Exchange;
use crate::gateway::metrics::LayerRead;

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

/// The measurements of uploads whose next part is to come, by the path that it will come to. As many as there are turns at
/// most, but for those that ended and are cleared away with the next.
#[derive(Default)]
pub(in crate::gateway) struct Uploads(Mutex<HashMap<String, Measurement>>);

/// What an upload is measured by. Dropped, it is given up.
struct Measurement {
    pieces: mpsc::Sender<Message>,
    outcome: JoinHandle<Result<(Digest, LayerFacts), Fault>>,
    /// How many bytes were seen.
    bytes: u64,
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

/// A part of an upload that is under way.
pub(super) struct Passing {
    part: Part,
    /// Comes when the part has passed whole.
    passed: oneshot::Receiver<Measurement>,
}

/// What a part is.
enum Part {
    /// Others follow.
    Chunk,
    /// The last, after which the upload is the blob of this digest.
    Last(Digest),
}

impl Uploads {
    fn take(&self, path: &str) -> Option<Measurement> {
        self.waiting().remove(path)
    }

    fn wait_for_more(&self, path: String, measurement: Measurement) {
        let mut waiting = self.waiting();
        waiting.retain(|_, measurement| !measurement.pieces.is_closed());
        waiting.insert(path, measurement);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, Measurement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measurement {
    /// Begins, if there is a turn.
    fn begin(workers: &Workers) -> Option<Self> {
        let turn = workers.free_turn()?;
        let (pieces, messages) = mpsc::channel(PIECES_QUEUED_MAX);
        let workers = workers.clone();
        let measure = async move { workers.measure_unnamed(turn, Algorithm::Sha256, pieces_of(messages)).await };
        let outcome = tokio::spawn(measure);
        Some(Self { pieces, outcome, bytes: 0, patience: HELD_UP_MAX })
    }

    /// All of the upload has passed: what it is.
    async fn finish(self) -> Result<(Digest, LayerFacts), Fault> {
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

impl Gateway {
    /// Lets a part of an upload be measured as it passes, where that is of use.
    pub(super) fn measured(&self, exchange: &mut Exchange) -> Option<Passing> {
        if !never_asks_by_digest(exchange) {
            return None;
        }
        let head = &exchange.head;
        // Whatever comes of this part: what was measured before goes on with it or not at all.
        let before = self.uploads.take(head.uri.path());
        let digest = digest_in(head.uri.query().unwrap_or_default());
        let part = match (&head.method, digest) {
            (&Method::PATCH, _) => Part::Chunk,
            (&Method::PUT | &Method::POST, Some(digest)) => Part::Last(digest),
            _ => return None,
        };
        let first = first_byte(&head.headers).ok()?;
        let body = match exchange.body.take() {
            Some(RequestBody::Streamed(body)) if !is_empty(&body, &head.headers) => body,
            empty => {
                exchange.body = empty;
                let (pass, passed) = oneshot::channel();
                return before.and_then(|before| pass.send(before).ok()).map(|()| Passing { part, passed });
            }
        };
        let measurement = match before {
            Some(before) if first.is_none_or(|first| first == before.bytes) => Some(before),
            None if first.unwrap_or_default() == 0 => Measurement::begin(&self.shared.layers.of_uploads),
            Some(_) | None => None,
        };
        let Some(measurement) = measurement else {
            exchange.body = Some(RequestBody::Streamed(body));
            return None;
        };
        let (pass, passed) = oneshot::channel();
        let teed = Teed::new(body, measurement, pass);
        exchange.body = Some(RequestBody::Streamed(reqwest::Body::wrap(teed)));
        Some(Passing { part, passed })
    }

    /// The upstream answered to a part: others are waited for, or the layer is known.
    pub(super) fn note_answered(self: &Arc<Self>, passing: Passing, answer: &Response<StreamedBody>) {
        let Passing { part, mut passed } = passing;
        let Ok(measurement) = passed.try_recv() else { return };
        match (part, answer.status()) {
            (Part::Chunk, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) => {
                let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
                if let Some(Ok(url)) = location.map(|location| self.upload_url(location)) {
                    self.uploads.wait_for_more(self.path_of_upload(&url), measurement);
                }
            }
            (Part::Last(digest), StatusCode::CREATED) => self.learn_uploaded(measurement, digest),
            _ => {}
        }
    }

    /// Keeps what an upload tells, if it is the layer that the client says. Nobody waits for that but who wants to know it.
    fn learn_uploaded(self: &Arc<Self>, measurement: Measurement, layer: Digest) {
        // Taken before the client hears that its upload is done: it may send its manifest at once.
        let seat = self.shared.layers.free_seat(&layer);
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let _seat = seat;
            let _shown = gateway.shared.metrics.layer_in_work();
            let kept = match measurement.finish().await {
                Ok((found, facts)) if found == layer => gateway.shared.store.keep_facts(&layer, &facts).await,
                Ok((found, _)) => return tracing::debug!(%layer, %found, "an upload was measured to be another blob"),
                Err(fault) => return tracing::debug!(%layer, %fault, "an upload is no layer that was measured"),
            };
            match kept {
                Ok(()) => gateway.shared.metrics.count_layer(LayerRead::Uploaded),
                Err(failure) => tracing::warn!(%layer, %failure, "what an upload tells of a layer cannot be kept"),
            }
        });
    }
}

fn digest_in(query: &str) -> Option<Digest> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "digest").and_then(|(_, digest)| digest.parse().ok())
}

/// Where the bytes of a part begin: `0-99999`, or as RFC 9110 has it `bytes 0-99999/*`. Who streams all at once does not say.
fn first_byte(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let Some(range) = headers.get(CONTENT_RANGE) else { return Ok(None) };
    let first = range.to_str().ok().and_then(|range| {
        let range = range.strip_prefix("bytes").map_or(range, str::trim_start);
        range.split_once('-')?.0.parse().ok()
    });
    first.map(Some).ok_or(())
}

fn is_empty(body: &reqwest::Body, headers: &HeaderMap) -> bool {
    body.is_end_stream() || headers.get(http::header::CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// The body of a part, which is measured as it passes.
struct Teed {
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
    fn new(inner: reqwest::Body, measurement: Measurement, pass: oneshot::Sender<Measurement>) -> Self {
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
    use http::HeaderValue;
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

    #[test]
    fn a_part_says_where_it_begins_in_either_form() {
        let first = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(range).unwrap());
            first_byte(&headers)
        };
        for (range, expected) in [("0-99", 0), ("100-199", 100), ("bytes 7-9/*", 7), ("bytes 7-9/10", 7)] {
            assert_eq!(first(range), Ok(Some(expected)), "{range}");
        }
        for range in ["", "99", "bytes=0-1", "bytes */10", "-5", "99999999999999999999-0"] {
            assert_eq!(first(range), Err(()), "{range}");
        }
        assert_eq!(first_byte(&HeaderMap::new()), Ok(None));
    }
}
