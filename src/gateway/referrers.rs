//! The referrers of a derived digest are those of its source (OCI distribution-spec, section "Listing Referrers").
//!
//! A signature or an SBOM was attached to what is stored; nobody ever attached anything to a translation of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use crate::image::digest::{Algorithm, Digest};
use crate::image::media_type::OCI_INDEX;
use crate::image::oci::{self, Index};
use crate::image::reference::{Reference, Repository, Tag};
use crate::store::{Recipe, Scope};
use crate::upstream::Resolved;

use super::Gateway;
use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::respond::{Addressed, Document};

impl Gateway {
    /// `/v2/<name>/referrers/<digest>`. Of a stored digest, and of one that nobody knows, the upstream's answer passes.
    pub(super) async fn referrers(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: Repository,
        digest: Digest,
    ) -> Result<Response<Body>, Fault> {
        let Some(recipe) = self.source_of(exchange, &repository, &digest).await? else {
            return self.forward(exchange).await;
        };
        let path = format!("/v2/{repository}/referrers/{}", recipe.source);
        match self.pass(exchange, &path).await {
            Ok(answer) => Ok(answer.map(Body::streamed)),
            Err(Fault::Upstream(failure)) if failure.is_not_found() => {
                self.referrers_by_tag(exchange, &repository, &recipe.source).await
            }
            Err(fault) => Err(fault),
        }
    }

    /// What the fall-back tag of a source lists, for an upstream without the referrers API; an empty index where it has
    /// neither, because a client that asks for a derived digest is not helped by hearing that nobody knows it.
    async fn referrers_by_tag(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: &Repository,
        source: &Digest,
    ) -> Result<Response<Body>, Fault> {
        let Some(tag) = fallback_tag(source) else { return Ok(empty_index()) };
        match self.resolve(exchange, repository, &Reference::Tag(tag)).await {
            Ok(resolved) => {
                let listed = self.stored(&exchange.caller, repository, &resolved.digest).await?;
                let (bytes, media_type) = (listed.bytes().clone(), listed.media_type());
                let document = Document { bytes, media_type, digest: &resolved.digest, origin: None };
                Ok(document.answer(Addressed::ByTag, &exchange.head.headers))
            }
            Err(failure) if failure.is_not_found() => Ok(empty_index()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// What the fall-back tag of a derived digest names: what that of its source names. `None` for any other tag.
    pub(super) async fn resolve_fallback_tag(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Arc<Resolved>>, Fault> {
        let digest = tag.as_str().strip_prefix("sha256-").map(|hex| format!("sha256:{hex}"));
        let Some(digest) = digest.and_then(|digest| digest.parse::<Digest>().ok()) else { return Ok(None) };
        let Some(recipe) = self.source_of(exchange, repository, &digest).await? else { return Ok(None) };
        let Some(tag) = fallback_tag(&recipe.source) else { return Ok(None) };
        let resolved = self.resolve(exchange, repository, &Reference::Tag(tag)).await?;
        Ok(Some(resolved))
    }

    /// A recipe of a digest that this gateway handed out and that the upstream does not have, whose source this caller
    /// may see.
    async fn source_of(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Recipe>, Fault> {
        let scope = Scope::new(&self.options.upstream_name, repository);
        let known = self.memory.handed(&scope, digest).await;
        let recipes = match &known {
            Some(handed) => handed.recipes.clone(),
            None => self.shared.store.recipes(&scope, digest).await?,
        };
        if recipes.is_empty() {
            return Ok(None);
        }
        let reference = Reference::Digest(digest.clone());
        match self.resolve(exchange, repository, &reference).await {
            Ok(_) => return Ok(None),
            Err(failure) if failure.may_be_absence() => {}
            Err(failure) => return Err(failure.into()),
        }
        match self.visible_source(exchange, &recipes).await? {
            Some(recipe) => Ok(Some(recipe.clone())),
            None if known.is_none() => Ok(None),
            // The store may know more sources than this process has met.
            None => {
                let recipes = self.shared.store.recipes(&scope, digest).await?;
                Ok(self.visible_source(exchange, &recipes).await?.cloned())
            }
        }
    }
}

/// `sha256-<digits>`: where registries without the referrers API keep the list.
fn fallback_tag(digest: &Digest) -> Option<Tag> {
    let is_tag_sized = digest.algorithm() == Algorithm::Sha256;
    is_tag_sized.then(|| format!("{}-{}", digest.algorithm().name(), digest.hex()).parse().ok())?
}

fn empty_index() -> Response<Body> {
    let document = oci::write_index(&Index { manifests: Vec::new(), annotations: BTreeMap::new() });
    let length = HeaderValue::from(document.len());
    let mut response = Response::new(Body::whole(document));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}
