//! A blob that the gateway has itself, as an answer: whole, in part, or the news that the client has it.

use std::ops::Range;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
    RANGE,
};
use http::{Response, StatusCode};

use crate::image::digest::Digest;
use crate::upstream::DOCKER_CONTENT_DIGEST;

use super::blob::drop_malformed_range;
use super::body::Body;
use super::respond::already_has;

/// A blob, its bytes aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    pub(super) digest: &'a Digest,
    pub(super) size: u64,
}

impl Held<'_> {
    /// The answer to this request. `body` gives the bytes of a part.
    pub(super) fn answer(self, request: &HeaderMap, body: impl FnOnce(Range<u64>) -> Body) -> Response<Body> {
        let etag = format!("\"{}\"", self.digest);
        let mut request = request.clone();
        drop_malformed_range(&mut request);
        if request.get(IF_RANGE).is_some_and(|value| value.as_bytes() != etag.as_bytes()) {
            request.remove(RANGE);
        }
        let range = request.get(RANGE).and_then(|value| single_range(value.to_str().ok()?, self.size));
        let (status, part) = match range {
            _ if already_has(&request, &etag) => (StatusCode::NOT_MODIFIED, None),
            None => (StatusCode::OK, Some(0..self.size)),
            Some(Ok(range)) => (StatusCode::PARTIAL_CONTENT, Some(range)),
            Some(Err(Unsatisfiable)) => (StatusCode::RANGE_NOT_SATISFIABLE, None),
        };
        let length = part.as_ref().map_or(0, |part| part.end - part.start);
        let content_range = match (&part, status) {
            (Some(part), StatusCode::PARTIAL_CONTENT) => {
                Some(format!("bytes {}-{}/{}", part.start, part.end - 1, self.size))
            }
            (None, StatusCode::RANGE_NOT_SATISFIABLE) => Some(format!("bytes */{}", self.size)),
            _ => None,
        };
        let mut response = Response::new(part.map_or_else(Body::empty, body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if status != StatusCode::NOT_MODIFIED {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
        let digest = self.digest.to_string();
        let texts = [(DOCKER_CONTENT_DIGEST, Some(digest)), (ETAG, Some(etag)), (CONTENT_RANGE, content_range)];
        for (name, text) in texts {
            headers.extend(text.and_then(|text| HeaderValue::from_str(&text).ok()).map(|value| (name, value)));
        }
        response
    }
}

struct Unsatisfiable;

/// The one range that is asked for; several are answered with the whole, as RFC 9110 lets a server do.
fn single_range(value: &str, length: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (first.trim(), last.trim()) {
        (_, last) if last.contains(',') => return None,
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(length),
    };
    Some(if range.start < range.end { Ok(range) } else { Err(Unsatisfiable) })
}
