//! A manifest asked for by digest: the bytes that the digest names, whatever the client accepts.
//!
//! Nothing is ever translated here. A digest that this gateway (or a replica, or an earlier process) handed out names
//! derived bytes, and those are served to whoever the upstream lets see a source of them at that moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY};
use http::{Method, Response};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use crate::image::digest::Digest;
use crate::image::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::image::media_type::{Format, OCI_MANIFEST};
use crate::image::reference::{Reference, Repository};
use crate::store::memory::{Handed, LastUse};
use crate::store::{self, Held, RECIPES_MAX, Recipe, Scope, StoreFailure};
use crate::translate::Derived;
use crate::upstream::{Caller, DOCKER_CONTENT_DIGEST, Failure, StreamedBody, verified};

use super::Gateway;
use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::metrics::DerivedDigest;
use super::respond::{Addressed, Document, Origin};

/// For how long a store that is near is asked alone. It answers in a fraction of this, and who finds a derived document
/// there need not ask the upstream for its digest, but only for its source.
const STORE_HEAD_START: Duration = Duration::from_millis(5);

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
        let known = self.memory.handed(&scope, &digest).await;
        if let Some(handed) = &known
            && let Some(response) = self.known_here(exchange, &repository, handed).await?
        {
            return Ok(response);
        }
        let mut lookup = match known {
            Some(handed) => Lookup::Ended(Ok(handed)),
            // The upstream had it, and most likely has it still.
            None if self.memory.stored(&repository, &digest).await.is_some() => Lookup::NotYet,
            None => Lookup::Running(tokio::spawn(Arc::clone(self).look_up(scope.clone(), digest.clone()))),
        };
        if self.shared.store.is_near()
            && let Some(handed) = lookup.within(STORE_HEAD_START).await
            && let Some(response) = self.known_here(exchange, &repository, &handed).await?
        {
            return Ok(response);
        }
        // Otherwise the store is asked meanwhile: what the upstream has does not wait for it.
        let absence = match self.find_stored(exchange, &repository, &digest).await {
            Ok(Found::Parsed(stored)) => {
                exchange.record.outcome.stored = Some(stored.format());
                return self.answer_stored(exchange, &stored, &digest, Addressed::ByDigest).await;
            }
            Ok(Found::Unread { headers, body }) => return Ok(answer_unread(&headers, body, &digest)),
            Err(failure) if failure.may_be_absence() || self.outlives(&failure) => failure,
            Err(failure) => return Err(failure.into()),
        };
        let looked_up = match lookup {
            Lookup::Ended(looked_up) => looked_up,
            Lookup::Running(task) => task.await.map_err(|_| Fault::Internal)?,
            Lookup::NotYet => Arc::clone(self).look_up(scope.clone(), digest.clone()).await,
        };
        // The upstream does not have it, or will not say (some answer 403 to what they do not have). Only the store can
        // say whether it was handed out, so without the store there is no saying no.
        let answered = match &looked_up {
            Err(Missing::Failed(failure)) => Err(failure.clone().into()),
            looked_up => self.handed_out(exchange, scope, &digest, looked_up.as_deref()).await,
        };
        match answered {
            Ok(Some(response)) => Ok(response),
            Err(fault @ Fault::Lost) => Err(fault),
            Err(fault) if absence.is_not_found() => Err(fault),
            Ok(None) | Err(_) => Err(absence.into()),
        }
    }

    /// What this process handed out or read before needs no reading: one question upstream decides whether this caller
    /// may have it. Only the digest of a schema 1 document leaves room for other bytes, in its signature, and what is
    /// stored goes before what is derived: there the upstream is asked for the digest too, at the same time.
    async fn known_here(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: &Repository,
        handed: &Handed,
    ) -> Result<Option<Response<Body>>, Fault> {
        let source = match handed.derived.format {
            Format::Schema1 => {
                let reference = Reference::Digest(handed.derived.digest.clone());
                let (stored, source) = tokio::join!(
                    self.resolve(exchange, repository, &reference),
                    self.visible_source(exchange, &handed.recipes)
                );
                match stored {
                    // It is a stored document too.
                    Ok(_) => return Ok(None),
                    Err(failure) if failure.may_be_absence() || (self.outlives(&failure) && source.is_ok()) => source,
                    Err(failure) => return Err(failure.into()),
                }
            }
            _ => self.visible_source(exchange, &handed.recipes).await,
        };
        match source {
            Ok(Some(recipe)) => {
                self.count(DerivedDigest::Hit);
                if handed.last_use.is_due() {
                    self.note_use(recipe, &handed.derived);
                }
                Ok(Some(answer_handed(exchange, &handed.derived, recipe)))
            }
            // The store may know other sources, or the upstream may have this very digest.
            Ok(None) => Ok(None),
            Err(refusal) if refusal.may_be_absence() => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The derived document in the store, read once however many ask. It is nobody's to see yet.
    async fn look_up(self: Arc<Self>, scope: Scope, digest: Digest) -> Result<Arc<Handed>, Missing> {
        let read = async {
            let found = match self.shared.store.document(&scope, &digest, self.shared.edition).await {
                Ok(Held::Document(found)) => found,
                Ok(Held::Damage) => return Err(Missing::Damaged),
                Ok(Held::Nothing) => return Err(Missing::Absent),
                Err(failure) => return Err(Missing::Failed(failure)),
            };
            let (store, document) = (self.shared.store.clone(), found.document.clone());
            tokio::spawn(async move { store.note_use_of(&found).await });
            Ok(Arc::new(handed(document)))
        };
        self.memory.handed_or(scope.clone(), digest.clone(), read).await.map_err(|missing| (*missing).clone())
    }

    /// A derived document that the upstream does not have itself: by the source that it was found with, or by another that
    /// the store knows. `None` if it was never handed out, or all its sources are gone.
    async fn handed_out(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        scope: Scope,
        digest: &Digest,
        looked_up: Result<&Handed, &Missing>,
    ) -> Result<Option<Response<Body>>, Fault> {
        let found = looked_up.ok();
        let mut refusal = None;
        if let Some(handed) = found {
            match self.visible_source(exchange, &handed.recipes).await {
                Ok(Some(recipe)) => {
                    self.count(DerivedDigest::Hit);
                    return Ok(Some(answer_handed(exchange, &handed.derived, recipe)));
                }
                Ok(None) => {}
                Err(failure) if failure.is_trouble() => return Err(failure.into()),
                Err(failure) => refusal = Some(failure),
            }
        }
        let mut recipes = self.shared.store.recipes(&scope, digest).await?;
        if let (Err(Missing::Damaged), []) = (looked_up, recipes.as_slice()) {
            return Err(StoreFailure::of_damage().into());
        }
        recipes.retain(|recipe| {
            !found.is_some_and(|handed| handed.recipes.iter().any(|tried| tried.source == recipe.source))
        });
        let visible = self.visible_source(exchange, &recipes).await;
        let recipe = match (visible, refusal) {
            (Ok(Some(recipe)), _) => recipe.clone(),
            (Ok(None), None) => return Ok(None),
            (Ok(None), Some(refusal)) | (Err(refusal), _) => return Err(refusal.into()),
        };
        let derived = match found {
            Some(handed) => handed.derived.clone(),
            None => self.bytes_of(&exchange.caller, &recipe, &recipes).await?,
        };
        // The source that is alive goes first from now on.
        let at = recipes.iter().position(|other| *other == recipe).unwrap_or_default();
        recipes[..=at].rotate_right(1);
        recipes.extend(found.iter().flat_map(|handed| &handed.recipes).cloned());
        recipes.truncate(RECIPES_MAX);
        let handed = Handed { derived, recipes, last_use: LastUse::now() };
        let handed = self.memory.remember_handed(scope, handed).await;
        self.note_use(&recipe, &handed.derived);
        Ok(Some(answer_handed(exchange, &handed.derived, &recipe)))
    }

    /// The bytes that a recipe gave, or another of the same digest: kept by any edition, or made again where the store has
    /// them no more.
    async fn bytes_of(
        self: &Arc<Self>,
        caller: &Caller,
        recipe: &Recipe,
        recipes: &[Recipe],
    ) -> Result<Derived, Fault> {
        // Those of this edition were looked for already.
        let editions = recipes.iter().map(|other| other.edition).filter(|edition| *edition != self.shared.edition);
        for edition in editions.collect::<BTreeSet<u32>>() {
            if let Some(found) = self.shared.store.document(&recipe.scope(), &recipe.derived, edition).await?.document()
            {
                self.count(DerivedDigest::Hit);
                return Ok(handed(found.document).derived);
            }
        }
        let derived = self.within_patience(&recipe.repository, self.cook_again(caller, recipe)).await??;
        self.count(if derived.is_some() { DerivedDigest::Rederived } else { DerivedDigest::Lost });
        derived.ok_or(Fault::Lost)
    }

    /// The first recipe whose source the upstream lets this caller see now. `None` if all sources are gone; any other
    /// refusal is the upstream's answer, unless another source is visible.
    pub(super) async fn visible_source<'a>(
        self: &Arc<Self>,
        exchange: &Exchange,
        recipes: &'a [Recipe],
    ) -> Result<Option<&'a Recipe>, Failure> {
        let mut refusal = None;
        for recipe in recipes {
            let source = Reference::Digest(recipe.source.clone());
            match self.resolve(exchange, &recipe.repository, &source).await {
                Ok(_) => return Ok(Some(recipe)),
                Err(failure) if failure.is_not_found() => {}
                // Busy or broken: to ask on would not help it.
                Err(failure) if failure.is_trouble() => return Err(failure),
                Err(failure) => refusal = refusal.or(Some(failure)),
            }
        }
        refusal.map_or(Ok(None), Err)
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
            return self.resolve(exchange, repository, &reference).await.map(|_| Found::Parsed(stored));
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
        self.note_permission(&exchange.caller, repository, digest).await;
        if let Ok(stored) = self.parse_stored(repository, bytes.clone()) {
            self.memory.remember_stored(repository.clone(), digest.clone(), Arc::clone(&stored)).await;
            return Ok(Found::Parsed(stored));
        }
        let mut headers = head.headers;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        Ok(Found::Unread { headers, body: Body::whole(bytes) })
    }
}

/// Looking for a derived document in the store.
enum Lookup {
    NotYet,
    /// On a task of its own.
    Running(JoinHandle<Result<Arc<Handed>, Missing>>),
    Ended(Result<Arc<Handed>, Missing>),
}

impl Lookup {
    /// What is found in so short a time.
    async fn within(&mut self, time: Duration) -> Option<Arc<Handed>> {
        if let Self::Running(task) = self
            && let Ok(Ok(looked_up)) = tokio::time::timeout(time, task).await
        {
            *self = Self::Ended(looked_up);
        }
        match self {
            Self::Ended(Ok(found)) => Some(Arc::clone(found)),
            Self::Ended(Err(_)) | Self::NotYet | Self::Running(_) => None,
        }
    }
}

/// Why there is nothing to remember.
#[derive(Clone)]
enum Missing {
    Absent,
    /// It was handed out once; a recipe may be left.
    Damaged,
    Failed(StoreFailure),
}

fn handed(document: store::Document) -> Handed {
    let store::Document { recipe, bytes } = document;
    let derived = Derived { bytes, digest: recipe.derived.clone(), format: recipe.target, blobs: Vec::new() };
    Handed { derived, recipes: vec![recipe], last_use: LastUse::now() }
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
