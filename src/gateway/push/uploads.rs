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
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_RANGE, HeaderMap, LOCATION};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;

use crate::image::digest::Digest;
use crate::upstream::{RequestBody, StreamedBody};

use crate::gateway::Gateway;
use crate::gateway::by_tag::never_asks_by_digest;
use crate::gateway::exchange::Exchange;
use crate::gateway::metrics::LayerRead;

use super::measurement::{Measurement, Teed};

/// The measurements of uploads whose next part is to come, by the path that it will come to. As many as there are turns at
/// most, but for those that ended and are cleared away with the next.
#[derive(Default)]
pub(in crate::gateway) struct Uploads(Mutex<HashMap<String, Measurement>>);

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
        waiting.retain(|_, measurement| !measurement.is_over());
        waiting.insert(path, measurement);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, Measurement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
