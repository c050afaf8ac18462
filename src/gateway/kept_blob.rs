//! Blobs from the cache: who may have them, and who fetches one for all.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, RANGE};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use moka::sync::Cache;

use crate::image::descriptor::Descriptor;
use crate::image::digest::Digest;
use crate::image::manifest::CONFIG_BYTES_MAX;
use crate::image::reference::Repository;
use crate::store::blobs::{BlobCache, Claim, Joined, Kept, Lead};
use crate::upstream::{Caller, ForwardRequest, Permission, StreamedBody};

use super::Gateway;
use super::blob::drop_malformed_range;
use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::held::Held;

/// How often the place of one who left before the upstream answered is contended for, before everybody asks alone.
const CLAIMS_MAX: usize = 3;

/// How many blobs it is remembered of that the gateway may see them.
const CONSENTS_MAX: u64 = 100_000;

/// Blobs of which the upstream said that the gateway may see them in a repository, where that holds for whoever came
/// through the gateway's own door. That a blob is kept is no such word: another upstream's, or another repository's, may be
/// secret here.
pub(super) struct Consents(Cache<(Repository, Digest), Instant>);

impl Consents {
    /// Those of the last while.
    pub(super) fn new(age_max: Duration) -> Self {
        Self(Cache::builder().max_capacity(CONSENTS_MAX).time_to_live(age_max).build())
    }
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
pub(super) enum Verdict {
    Yes,
    /// It does not answer such questions.
    NotSaid,
}

impl Gateway {
    /// A blob that is in the cache, or on its way there, for a caller who may see it.
    pub(super) async fn blob_from_cache(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<FromCache, Fault> {
        let Some(cache) = &self.shared.blob_cache else { return Ok(FromCache::Nothing) };
        if exchange.head.method == Method::HEAD || wants_a_part(&exchange.head.headers) {
            let Some(kept) = cache.find(digest).await else { return Ok(FromCache::Nothing) };
            return self.answer_kept(exchange, repository, kept).await;
        }
        self.whole_blob(cache, exchange, repository, digest).await
    }

    async fn whole_blob(
        &self,
        cache: &BlobCache,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<FromCache, Fault> {
        for _ in 0..CLAIMS_MAX {
            let follow = match cache.claim(digest).await {
                Claim::Kept(kept) => return self.answer_kept(exchange, repository, kept).await,
                Claim::Lead(lead) => return Ok(FromCache::Lead(lead)),
                Claim::NotNow => break,
                Claim::Follow(follow) => follow,
            };
            let Verdict::Yes = self.may_see(exchange, repository, digest).await? else { break };
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

    async fn answer_kept(&self, exchange: &Exchange, repository: &Repository, kept: Kept) -> Result<FromCache, Fault> {
        let Verdict::Yes = self.may_see(exchange, repository, kept.digest()).await? else {
            return Ok(FromCache::Nothing);
        };
        let digest = kept.digest().clone();
        let held = Held { digest: &digest, size: kept.size() };
        Ok(FromCache::Answer(held.answer(&exchange.head.headers, |part| Body::kept(kept.read(part)))))
    }

    /// The permission check: the upstream's word, or one that it gave lately where it is good for everybody. Where it
    /// cannot be asked an older one will do there, for as long as the operator says.
    pub(super) async fn may_see(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Verdict, Fault> {
        if self.upstream.permission() == Permission::Upstream {
            return self.ask_to_see(exchange, repository, digest).await;
        }
        let key = (repository.clone(), digest.clone());
        let age = self.consents.0.get(&key).map(|given| given.elapsed());
        if age.is_some_and(|age| age < self.options.tags.ttl) && !exchange.wants_revalidation() {
            return Ok(Verdict::Yes);
        }
        match (self.ask_to_see(exchange, repository, digest).await, age) {
            (Ok(Verdict::Yes), _) => {
                self.note_consent(exchange, repository, digest);
                Ok(Verdict::Yes)
            }
            (Err(Fault::Upstream(failure)), Some(age))
                if failure.is_outage() && age < self.options.tags.stale_if_error =>
            {
                exchange.note_stale(age);
                Ok(Verdict::Yes)
            }
            (Err(refusal), _) => {
                self.consents.0.invalidate(&key);
                Err(refusal)
            }
            (said, _) => said,
        }
    }

    /// A config that clients were given as a blob, for a translation while the upstream cannot be asked for it. Only where
    /// the upstream's word of a while ago is good for whoever asks.
    pub(super) async fn kept_config(
        &self,
        caller: &Caller,
        repository: &Repository,
        config: &Descriptor,
    ) -> Option<Bytes> {
        let given = self.consents.0.get(&(repository.clone(), config.digest.clone()));
        let may_see = self.upstream.permission() == Permission::Gateway
            && caller.is_gateway()
            && given.is_some_and(|given| given.elapsed() < self.options.tags.stale_if_error);
        let cache = self.shared.blob_cache.as_ref().filter(|_| may_see)?;
        let kept = cache.find(&config.digest).await.filter(|kept| kept.size() <= CONFIG_BYTES_MAX as u64)?;
        let whole = 0..kept.size();
        Some(kept.read(whole).collect().await.ok()?.to_bytes())
    }

    /// The upstream just gave the blob, or said that it would.
    pub(super) fn note_consent(&self, exchange: &Exchange, repository: &Repository, digest: &Digest) {
        if self.upstream.permission() == Permission::Gateway && exchange.caller.is_gateway() {
            self.consents.0.insert((repository.clone(), digest.clone()), Instant::now());
        }
    }

    /// Asks by HEAD, as the caller. A refusal is relayed like any other, and so is an upstream that cannot be asked.
    async fn ask_to_see(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Verdict, Fault> {
        let (method, path) = (Method::HEAD, format!("/v2/{repository}/blobs/{digest}"));
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
