//! Blobs from the cache: who may have them, and who fetches one for all.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, RANGE};
use http::{Method, Response, StatusCode};

use crate::image::digest::Digest;
use crate::store::blobs::{BlobCache, Claim, Joined, Kept, Lead};
use crate::upstream::{ForwardRequest, StreamedBody};

use super::Gateway;
use super::blob::drop_malformed_range;
use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::held::Held;

/// How often the place of one who left before the upstream answered is contended for, before everybody asks alone.
const CLAIMS_MAX: usize = 3;

/// Who decides whether a caller may see a blob that is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The upstream, which is asked by HEAD as the caller each time. One that cannot be reached consents to nothing.
    OfTheUpstream,
    /// Whoever came through the gateway's own door may: nobody is asked. Only for an upstream that the gateway has its own
    /// credentials for, or that needs none.
    Given,
}

/// What the cache has for a request.
pub(super) enum FromCache {
    /// The answer.
    Answer(Response<Body>),
    /// A place to put the upstream's answer.
    Lead(Lead),
    /// Nothing to do with it.
    Nothing,
}

/// What the upstream says to a caller who wants a blob that it is not asked for.
enum Verdict {
    Yes,
    /// It does not answer such questions.
    NotSaid,
}

impl Gateway {
    /// A blob that is in the cache, or on its way there, for a caller who may see it.
    pub(super) async fn blob_from_cache(
        &self,
        exchange: &Exchange,
        path: &str,
        digest: &Digest,
        consent: Consent,
    ) -> Result<FromCache, Fault> {
        let Some(cache) = &self.blob_cache else { return Ok(FromCache::Nothing) };
        if exchange.head.method == Method::HEAD || wants_a_part(&exchange.head.headers) {
            let Some(kept) = cache.find(digest).await else { return Ok(FromCache::Nothing) };
            return self.answer_kept(exchange, path, kept, consent).await;
        }
        self.whole_blob(cache, exchange, path, digest, consent).await
    }

    async fn whole_blob(
        &self,
        cache: &BlobCache,
        exchange: &Exchange,
        path: &str,
        digest: &Digest,
        consent: Consent,
    ) -> Result<FromCache, Fault> {
        for _ in 0..CLAIMS_MAX {
            let follow = match cache.claim(digest).await {
                Claim::Kept(kept) => return self.answer_kept(exchange, path, kept, consent).await,
                Claim::Lead(lead) => return Ok(FromCache::Lead(lead)),
                Claim::NotNow => break,
                Claim::Follow(follow) => follow,
            };
            let Verdict::Yes = self.may_see(exchange, path, consent).await? else { break };
            match follow.joined().await {
                Joined::Reading { size, body } => {
                    let held = Held { digest, size };
                    return Ok(FromCache::Answer(held.answer(&exchange.head.headers, |_| Body::kept(body))));
                }
                Joined::Passed => break,
                Joined::Gone => {}
            }
        }
        Ok(FromCache::Nothing)
    }

    async fn answer_kept(
        &self,
        exchange: &Exchange,
        path: &str,
        kept: Kept,
        consent: Consent,
    ) -> Result<FromCache, Fault> {
        let Verdict::Yes = self.may_see(exchange, path, consent).await? else { return Ok(FromCache::Nothing) };
        let digest = kept.digest().clone();
        let held = Held { digest: &digest, size: kept.size() };
        Ok(FromCache::Answer(held.answer(&exchange.head.headers, |part| Body::kept(kept.read(part)))))
    }

    /// The permission check. A refusal is relayed like any other, and so is an upstream that cannot be asked.
    async fn may_see(&self, exchange: &Exchange, path: &str, consent: Consent) -> Result<Verdict, Fault> {
        if consent == Consent::Given {
            return Ok(Verdict::Yes);
        }
        let (method, path) = (Method::HEAD, path.to_owned());
        let question = ForwardRequest { method, path, query: None, headers: HeaderMap::new(), body: None };
        let answer = self.upstream.forward(&exchange.caller, question).await?;
        match answer.status() {
            StatusCode::OK
            | StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => Ok(Verdict::Yes),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(Verdict::NotSaid),
            _ => Err(self.refusal(exchange, answer).await),
        }
    }
}

/// Keeps the upstream's answer while it goes out, if it is the whole blob in its own bytes. If not, everybody asks for
/// himself.
pub(super) async fn fill(lead: Lead, answer: Response<StreamedBody>) -> Result<Response<Body>, Response<StreamedBody>> {
    let (head, body) = answer.into_parts();
    let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let is_plain = head.headers.get(CONTENT_ENCODING).is_none_or(|coding| coding.as_bytes() == b"identity");
    let Some(length) = length.filter(|_| is_plain && head.status == StatusCode::OK) else {
        lead.pass();
        return Err(Response::from_parts(head, body));
    };
    match lead.fill(length, body).await {
        Ok(kept) => Ok(Response::from_parts(head, Body::kept(kept))),
        Err(body) => Err(Response::from_parts(head, body)),
    }
}

/// A range of bytes is asked for, be it one that cannot be had.
fn wants_a_part(request: &HeaderMap) -> bool {
    let mut request = request.clone();
    drop_malformed_range(&mut request);
    request.contains_key(RANGE)
}
