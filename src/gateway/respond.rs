//! A document as an answer: the headers of every manifest that goes out.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, VARY, WARNING,
};
use http::{Response, StatusCode};

use crate::image::digest::Digest;
use crate::image::media_type::Format;
use crate::upstream::DOCKER_CONTENT_DIGEST;

use super::body::Body;

const SOURCE_DIGEST: HeaderName = HeaderName::from_static("schemabridge-source-digest");
const SOURCE_TYPE: HeaderName = HeaderName::from_static("schemabridge-source-type");
const TRANSLATION: HeaderName = HeaderName::from_static("schemabridge-translation");

/// How the client named the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressed {
    /// By tag: what it names depends on who asks and when.
    ByTag,
    /// By digest: what it names never changes.
    ByDigest,
}

/// What a translated document came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) source: Digest,
    pub(super) from: Format,
    pub(super) to: Format,
}

/// A document and what is said about it.
pub(super) struct Document<'a> {
    pub(super) bytes: Bytes,
    pub(super) media_type: &'a str,
    pub(super) digest: &'a Digest,
    pub(super) origin: Option<Origin>,
}

impl Document<'_> {
    /// The answer: 200 with the document, or 304 where the client says that it has it.
    pub(super) fn answer(self, addressed: Addressed, request: &HeaderMap) -> Response<Body> {
        let etag = format!("\"{}\"", self.digest);
        let has_it = already_has(request, &etag);
        let length = self.bytes.len();
        let mut response = Response::new(if has_it { Body::empty() } else { Body::whole(self.bytes) });
        let headers = response.headers_mut();
        headers.reserve(12);
        insert(headers, ETAG, &etag);
        insert(headers, DOCKER_CONTENT_DIGEST, self.digest.as_str());
        headers.insert(VARY, HeaderValue::from_static("Accept, User-Agent"));
        headers.insert(CACHE_CONTROL, cache_control(addressed));
        if let Some(origin) = self.origin {
            insert(headers, SOURCE_DIGEST, origin.source.as_str());
            insert(headers, SOURCE_TYPE, origin.from.media_type());
            if origin.from != origin.to {
                insert(headers, TRANSLATION, &format!("{} -> {}", origin.from, origin.to));
                insert(headers, WARNING, &format!("299 - \"translated from {} to {}\"", origin.from, origin.to));
            }
        }
        if has_it {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            insert(headers, CONTENT_TYPE, self.media_type);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

/// By tag a cache must ask again each time, and only the client's own: consent is the caller's.
const fn cache_control(addressed: Addressed) -> HeaderValue {
    match addressed {
        Addressed::ByTag => HeaderValue::from_static("private, no-cache"),
        Addressed::ByDigest => HeaderValue::from_static("private, max-age=31536000, immutable"),
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `If-None-Match` names this tag, or anything (RFC 9110, section 13.1.2; compared weakly).
pub(super) fn already_has(request: &HeaderMap, etag: &str) -> bool {
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag)
}
