//! A manifest asked for by digest: the bytes that the digest names, whatever the client accepts.
//!
//! Nothing is ever translated here. A digest that this gateway (or a replica, or an earlier process) handed out names
//! derived bytes, and those are served to whoever the upstream lets see a source of them at that moment.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY};
use http::{Method, Response};
use http_body_util::BodyExt;

use crate::image::digest::Digest;
use crate::image::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::image::media_type::OCI_MANIFEST;
use crate::image::reference::{Reference, Repository};
use crate::store::memory::Handed;
use crate::store::{Recipe, Scope};
use crate::translate::Derived;
use crate::upstream::{DOCKER_CONTENT_DIGEST, Failure, StreamedBody, verified};

use super::Gateway;
use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::respond::{Addressed, Document, Origin};

/// What the upstream has under a digest.
enum Found {
    /// A document that could be parsed.
    Parsed(Arc<Manifest>),
    /// One that could not, or is larger than the gateway reads: it passes as it is.
    Unread { headers: HeaderMap, body: Body },
}

impl Gateway {
    pub(super) async fn by_digest(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: Repository,
        digest: Digest,
    ) -> Result<Response<Body>, Fault> {
        let scope = Scope::new(&self.options.upstream_name, &repository);
        if let Some(handed) = self.memory.handed(&scope, &digest).await {
            // What this process handed out needs no reading: two questions upstream, asked at once, decide who has it.
            let reference = Reference::Digest(digest.clone());
            let (stored, source) = tokio::join!(
                self.resolve(&exchange.caller, &repository, &reference),
                self.visible_source(exchange, &handed.recipes)
            );
            match (stored, source) {
                (Err(failure), _) if !failure.may_be_absence() => return Err(failure.into()),
                (Err(_), Err(refusal)) if !refusal.may_be_absence() => return Err(refusal.into()),
                (Err(_), Ok(Some(recipe))) => return Ok(answer_handed(exchange, &handed.derived, recipe)),
                // It is a stored document too, or the sources that are known here cannot be seen: the store may know
                // others.
                _ => {}
            }
        }
        let (upstream, recipes) =
            tokio::join!(self.find_stored(exchange, &repository, &digest), self.store.recipes(&scope, &digest));
        let absence = match upstream {
            Ok(Found::Parsed(stored)) => {
                exchange.record.outcome.stored = Some(stored.format());
                return self.answer_stored(exchange, &stored, &digest, Addressed::ByDigest).await;
            }
            Ok(Found::Unread { headers, body }) => return Ok(answer_unread(&headers, body, &digest)),
            Err(failure) if failure.may_be_absence() => failure,
            Err(failure) => return Err(failure.into()),
        };
        // The upstream does not have it, or will not say (some answer 403 to what they do not have). Only the store can
        // say whether it was handed out, so without the store there is no saying no.
        let recipes = match recipes {
            Ok(recipes) => recipes,
            Err(failure) if absence.is_not_found() => return Err(failure.into()),
            Err(_) => return Err(absence.into()),
        };
        match self.visible_source(exchange, &recipes).await {
            Ok(Some(recipe)) => self.handed_out(exchange, scope, recipe.clone(), recipes.clone()).await,
            Err(refusal) if absence.is_not_found() => Err(refusal.into()),
            Ok(None) | Err(_) => Err(absence.into()),
        }
    }

    /// The first recipe whose source the upstream lets this caller see now. `None` if all sources are gone; any other
    /// refusal is the upstream's answer, unless another source is visible.
    pub(super) async fn visible_source<'a>(
        &self,
        exchange: &Exchange,
        recipes: &'a [Recipe],
    ) -> Result<Option<&'a Recipe>, Failure> {
        let mut refusal = None;
        for recipe in recipes {
            let source = Reference::Digest(recipe.source.clone());
            match self.resolve(&exchange.caller, &recipe.repository, &source).await {
                Ok(_) => return Ok(Some(recipe)),
                Err(failure) if failure.is_not_found() => {}
                // Busy or broken: to ask on would not help it.
                Err(failure) if failure.is_trouble() => return Err(failure),
                Err(failure) => refusal = refusal.or(Some(failure)),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    /// Derived bytes out of the store, or made again by their recipe where the store has them no more.
    async fn handed_out(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        scope: Scope,
        recipe: Recipe,
        recipes: Vec<Recipe>,
    ) -> Result<Response<Body>, Fault> {
        let kept = self.store.document(&recipe.derived).await?.filter(|bytes| verified(&recipe.derived, bytes).is_ok());
        let derived = match kept {
            Some(bytes) => Derived { bytes, digest: recipe.derived.clone(), format: recipe.target },
            None => self.cook_again(&exchange.caller, &recipe).await?.ok_or(Fault::Lost)?,
        };
        let handed = self.memory.remember_handed(scope, Handed { derived, recipes }).await;
        Ok(answer_handed(exchange, &handed.derived, &recipe))
    }

    /// What the upstream has under this digest, for this caller.
    async fn find_stored(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Found, Failure> {
        if let Some(stored) = self.memory.stored(repository, digest).await {
            let reference = Reference::Digest(digest.clone());
            return self.resolve(&exchange.caller, repository, &reference).await.map(|_| Found::Parsed(stored));
        }
        // HEAD reads the document too: only its bytes say what it is, and whoever asks HEAD asks GET next.
        let answer = self.upstream.open_manifest(&exchange.caller, repository, digest, Method::GET).await?;
        let (head, body) = answer.into_parts();
        let bytes = match self.upstream.in_time(read_start(body)).await? {
            Start::Whole(bytes) => bytes,
            Start::Larger(start, rest) => {
                let body = Body::checked(start, rest, digest);
                return Ok(Found::Unread { headers: head.headers, body });
            }
        };
        verified(digest, &bytes)?;
        if let Ok(stored) = self.parse_stored(repository, bytes.clone()) {
            self.memory.remember_stored(repository.clone(), digest.clone(), Arc::clone(&stored)).await;
            return Ok(Found::Parsed(stored));
        }
        let mut headers = head.headers;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        Ok(Found::Unread { headers, body: Body::whole(bytes) })
    }
}

enum Start {
    Whole(Bytes),
    Larger(Bytes, StreamedBody),
}

/// Reads a document up to the limit, and one frame beyond it where it is larger.
async fn read_start(mut body: StreamedBody) -> Result<Start, Failure> {
    let mut start = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            start.extend_from_slice(&data);
        }
        if start.len() > MANIFEST_BYTES_MAX {
            return Ok(Start::Larger(start.freeze(), body));
        }
    }
    Ok(Start::Whole(start.freeze()))
}

fn answer_handed(exchange: &mut Exchange, derived: &Derived, recipe: &Recipe) -> Response<Body> {
    exchange.record.outcome.stored = Some(recipe.source_format);
    exchange.record.outcome.served = Some(derived.format);
    exchange.record.outcome.source = Some(recipe.source.to_string());
    exchange.record.outcome.digest = Some(derived.digest.to_string());
    exchange.record.outcome.why = Some("derived digest");
    let origin = Origin { source: recipe.source.clone(), from: recipe.source_format, to: derived.format };
    let media_type = derived.format.media_type();
    let document = Document { bytes: derived.bytes.clone(), media_type, digest: &derived.digest, origin: Some(origin) };
    document.answer(Addressed::ByDigest, &exchange.head.headers)
}

/// The upstream's answer for a document that the gateway cannot read, under the upstream's own media type.
fn answer_unread(upstream: &HeaderMap, body: Body, digest: &Digest) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let essence = upstream.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    let media_type = essence.and_then(|essence| HeaderValue::from_str(essence.trim()).ok());
    headers.insert(CONTENT_TYPE, media_type.unwrap_or(HeaderValue::from_static(OCI_MANIFEST)));
    if let Some(length) = upstream.get(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, length.clone());
    }
    for (name, value) in [(DOCKER_CONTENT_DIGEST, digest.to_string()), (ETAG, format!("\"{digest}\""))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers.insert(VARY, HeaderValue::from_static("Accept, User-Agent"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    response
}
