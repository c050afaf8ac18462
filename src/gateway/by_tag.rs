//! A manifest asked for by tag: resolve, read, choose, and derive where the client does not read what is stored.

use std::sync::Arc;

use http::Response;

use crate::image::digest::Digest;
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Reference, Repository, Tag};
use crate::negotiate::choose::{objection, otherwise};
use crate::negotiate::clients::Quirk;
use crate::negotiate::{Candidate, Choice, Client, Policy, Refusal, Scope, Stored, Why, choose, platform};
use crate::store::memory::Kept;
use crate::translate;
use crate::translate::index::{Layers, Order as EntryOrder, Shape};
use crate::upstream::Failure;

use super::Gateway;
use super::body::Body;
use super::derive::{Freshness, Obstacle, Order, Part, is_unsigned};
use super::exchange::Exchange;
use super::fault::Fault;
use super::index::Place;
use super::respond::{Addressed, Document, Origin};

/// Docker came back by digest from this version on; older engines read the answer by tag and never ask for it again.
const FIRST_DOCKER_THAT_PULLS_BY_DIGEST: (u32, u32) = (1, 10);

/// A stored document that a tag names at this moment.
struct Tagged {
    repository: Repository,
    tag: Tag,
    stored: Arc<Manifest>,
    /// The digest that the upstream knows it by.
    digest: Digest,
}

impl Gateway {
    pub(super) async fn manifest(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: Repository,
        reference: Reference,
    ) -> Result<Response<Body>, Fault> {
        match reference {
            Reference::Tag(tag) => self.by_tag(exchange, repository, tag).await,
            Reference::Digest(digest) => self.by_digest(exchange, repository, digest).await,
        }
    }

    async fn by_tag(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: Repository,
        tag: Tag,
    ) -> Result<Response<Body>, Fault> {
        let reference = Reference::Tag(tag.clone());
        let resolved = match self.resolve(exchange, &repository, &reference).await {
            Ok(resolved) => resolved,
            Err(failure) if failure.is_not_found() => {
                let other = self.resolve_fallback_tag(exchange, &repository, &tag).await?;
                other.ok_or_else(|| too_large_is_malformed(failure))?
            }
            Err(failure) => return Err(too_large_is_malformed(failure)),
        };
        let stored = match &resolved.bytes {
            Some(bytes) => {
                let stored = self.parse_stored(&repository, bytes.clone())?;
                self.memory.remember_stored(repository.clone(), resolved.digest.clone(), Arc::clone(&stored)).await;
                stored
            }
            None => self.stored_in_turn(&exchange.caller, &repository, &resolved.digest).await?,
        };
        exchange.record.outcome.stored = Some(stored.format());
        exchange.record.outcome.source = Some(resolved.digest.to_string());
        let tagged = Tagged { repository, tag, stored, digest: resolved.digest.clone() };
        let facts = Stored::of(&tagged.stored);
        match choose(&facts, &exchange.client) {
            Choice::AsStored { why } => self.as_stored(exchange, &tagged, why).await,
            Choice::Derive { candidates, why } => {
                let cooked =
                    candidates.into_iter().filter(|candidate| has_cell(&tagged.stored, *candidate)).collect::<Vec<_>>();
                if cooked.is_empty() {
                    return match otherwise(&facts, &exchange.client) {
                        Choice::AsStored { why } => self.as_stored(exchange, &tagged, why).await,
                        Choice::Refuse(refusal) => Err(refused(refusal)),
                        Choice::Derive { .. } => Err(Fault::Internal),
                    };
                }
                exchange.record.outcome.why = Some(why.as_str());
                self.first_of(exchange, &tagged, &cooked).await
            }
            Choice::Refuse(refusal) => Err(refused(refusal)),
        }
    }

    async fn as_stored(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        tagged: &Tagged,
        why: Why,
    ) -> Result<Response<Body>, Fault> {
        exchange.record.outcome.why = Some(why.as_str());
        if let Some(order) = self.amended(exchange, tagged).await? {
            return self.derived(exchange, order, tagged.stored.format()).await.map_err(|attempt| match attempt {
                Attempt::Refused(refusal) => Fault::Refused(refusal),
                Attempt::Failed(fault) => fault,
            });
        }
        self.answer_stored(exchange, &tagged.stored, &tagged.digest, Addressed::ByTag).await
    }

    /// What must change in a stored document although the client reads its format. The answer then has a digest that the
    /// upstream does not know, so it is kept like any derived document.
    async fn amended(self: &Arc<Self>, exchange: &Exchange, tagged: &Tagged) -> Result<Option<Order>, Fault> {
        let same_format = |shape| {
            let (stored, source) = (Arc::clone(&tagged.stored), tagged.digest.clone());
            Some(Order { shape, ..order_for(exchange, tagged, stored, source, tagged.stored.format()) })
        };
        match tagged.stored.content() {
            Content::Schema1(_) if *tagged.stored.digest() != tagged.digest => Ok(same_format(None)),
            Content::Index(index) if exchange.client.has(Quirk::NoZstd) => {
                let (dropped, _) = self.zstd_entries(place(exchange, tagged), &tagged.digest, index).await?;
                Ok(if dropped.is_empty() { None } else { same_format(Some(Shape::Pruned)) })
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn answer_stored(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        stored: &Manifest,
        digest: &Digest,
        addressed: Addressed,
    ) -> Result<Response<Body>, Fault> {
        let bytes = if is_unsigned(stored) {
            translate::signed(stored, &*self.signing_key().await?)
        } else {
            stored.bytes().clone()
        };
        exchange.record.outcome.served = Some(stored.format());
        exchange.record.outcome.digest = Some(digest.to_string());
        let document = Document { bytes, media_type: stored.media_type(), digest, origin: None };
        Ok(document.answer(addressed, &exchange.head.headers))
    }

    /// The first candidate that can be made. Where none can, the reason of the first: it is the nearest.
    async fn first_of(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        tagged: &Tagged,
        candidates: &[Candidate],
    ) -> Result<Response<Body>, Fault> {
        let mut nearest = None;
        for candidate in candidates {
            let tried = match candidate.scope {
                Scope::Whole => self.whole(exchange, tagged, candidate.target).await,
                Scope::PlatformChild => self.platform_child(exchange, tagged, candidate.target).await,
            };
            match tried {
                Err(Attempt::Refused(refusal)) => nearest = nearest.or(Some(refusal)),
                Err(Attempt::Failed(fault)) => return Err(fault),
                Ok(response) => return Ok(response),
            }
        }
        Err(nearest.map_or(Fault::Internal, Fault::Refused))
    }

    async fn whole(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        tagged: &Tagged,
        target: Format,
    ) -> Result<Response<Body>, Attempt> {
        let mut order = order_for(exchange, tagged, Arc::clone(&tagged.stored), tagged.digest.clone(), target);
        if matches!(tagged.stored.content(), Content::Index(_)) {
            order.shape = Some(shape_for(&exchange.client, &self.options.policy));
        }
        self.derived(exchange, order, tagged.stored.format()).await
    }

    /// One platform's image out of a list or index, translated where the client does not read it as it is.
    async fn platform_child(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        tagged: &Tagged,
        target: Format,
    ) -> Result<Response<Body>, Attempt> {
        let Content::Index(index) = tagged.stored.content() else {
            return Err(Attempt::Failed(Fault::Internal));
        };
        let stored_format = tagged.stored.format();
        let ours = |obstacle| attempt(obstacle, stored_format, exchange);
        let entries = self.entries(place(exchange, tagged), index).await.map_err(ours)?;
        let entries = self.with_platforms(place(exchange, tagged), entries).await.map_err(ours)?;
        let wanted = exchange.client.platform_for(&tagged.repository, &self.options.policy);
        let ranked = platform::rank(&entries, &wanted)
            .map_err(|none| Attempt::Refused(Box::new(Refusal::no_platform(stored_format, &exchange.client, none))))?;
        let mut best = None;
        for entry in ranked {
            let child = match self.stored(&exchange.caller, &tagged.repository, &entry.digest).await {
                Ok(child) => child,
                Err(Obstacle::Upstream(failure)) if failure.is_not_found() => {
                    let words = format!("the registry does not have its entry {}", entry.digest);
                    best.get_or_insert(Box::new(Refusal::untranslatable(stored_format, &exchange.client, words)));
                    continue;
                }
                Err(obstacle) => return Err(attempt(obstacle, stored_format, exchange)),
            };
            match self.child(exchange, tagged, &child, &entry.digest, target).await {
                Err(Attempt::Refused(refusal)) => best = best.or(Some(refusal)),
                other => return other,
            }
        }
        let none = || Box::new(Refusal::untranslatable(stored_format, &exchange.client, "no entry of it is an image"));
        Err(Attempt::Refused(best.unwrap_or_else(none)))
    }

    async fn child(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        tagged: &Tagged,
        child: &Arc<Manifest>,
        digest: &Digest,
        target: Format,
    ) -> Result<Response<Body>, Attempt> {
        let facts = Stored::of(child);
        let from = facts.counts_as(&exchange.client);
        if from != target && !exchange.client.usable().contains(from) {
            let order = order_for(exchange, tagged, Arc::clone(child), digest.clone(), target);
            return self.derived(exchange, order, tagged.stored.format()).await;
        }
        if let Some(refusal) = objection(&facts, &exchange.client) {
            return Err(Attempt::Refused(Box::new(refusal)));
        }
        self.answer_stored(exchange, child, digest, Addressed::ByTag).await.map_err(Attempt::Failed)
    }

    async fn derived(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        order: Order,
        stored: Format,
    ) -> Result<Response<Body>, Attempt> {
        let kept = match self.derive(order).await {
            Ok((kept, freshness)) => {
                exchange.record.outcome.cache = Some(if freshness == Freshness::Remembered { "hit" } else { "miss" });
                kept
            }
            Err(Obstacle::Unkept { kept, failure }) if never_asks_by_digest(exchange) => {
                tracing::warn!(error = %failure, digest = %kept.derived.digest, "a derived document could not be kept");
                kept
            }
            Err(obstacle) => return Err(attempt(obstacle, stored, exchange)),
        };
        Ok(answer_derived(exchange, &kept))
    }
}

/// Why a candidate did not become the answer.
enum Attempt {
    /// It cannot be made of this image; the next one may.
    Refused(Box<Refusal>),
    /// Nothing else will do better.
    Failed(Fault),
}

fn refused(refusal: Refusal) -> Fault {
    Fault::Refused(Box::new(refusal))
}

fn attempt(obstacle: Obstacle, stored: Format, exchange: &Exchange) -> Attempt {
    match obstacle {
        Obstacle::Untranslatable(reason) => {
            Attempt::Refused(Box::new(Refusal::untranslatable(stored, &exchange.client, reason)))
        }
        obstacle => Attempt::Failed(obstacle.into()),
    }
}

fn order_for(exchange: &Exchange, tagged: &Tagged, stored: Arc<Manifest>, source: Digest, target: Format) -> Order {
    let (caller, repository, tag) = (exchange.caller.clone(), tagged.repository.clone(), tagged.tag.clone());
    Order { caller, repository, tag, stored, source, target, shape: None, part: Part::Whole }
}

fn place<'a>(exchange: &'a Exchange, tagged: &'a Tagged) -> Place<'a> {
    Place { caller: &exchange.caller, repository: &tagged.repository }
}

/// How a list or index is to look for this client.
fn shape_for(client: &Client, policy: &Policy) -> Shape {
    let usable = client.usable();
    let kept = [Format::Schema1, Format::Schema2, Format::Oci].into_iter().filter(|format| usable.contains(*format));
    let order = if client.has(Quirk::FirstOfArchitecture) {
        EntryOrder::Grouped(policy.arm_variants.clone())
    } else {
        EntryOrder::Stored
    };
    let layers = if client.has(Quirk::NoZstd) { Layers::WithoutZstd } else { Layers::Any };
    Shape::Rebuilt { kept: kept.collect(), order, layers }
}

fn answer_derived(exchange: &mut Exchange, kept: &Kept) -> Response<Body> {
    let Kept { derived, recipe, .. } = kept;
    exchange.record.outcome.served = Some(derived.format);
    exchange.record.outcome.digest = Some(derived.digest.to_string());
    let origin = Origin { source: recipe.source.clone(), from: recipe.source_format, to: derived.format };
    let media_type = derived.format.media_type();
    let document = Document { bytes: derived.bytes.clone(), media_type, digest: &derived.digest, origin: Some(origin) };
    document.answer(Addressed::ByTag, &exchange.head.headers)
}

/// There is a cell for this candidate; of one platform's child only the child itself will tell.
fn has_cell(stored: &Manifest, candidate: Candidate) -> bool {
    candidate.scope == Scope::PlatformChild
        || matches!(stored.content(), Content::Index(_))
        || translate::cell_for(stored, candidate.target).is_some()
}

fn never_asks_by_digest(exchange: &Exchange) -> bool {
    exchange
        .client
        .docker_version()
        .is_some_and(|version| (version.major, version.minor) < FIRST_DOCKER_THAT_PULLS_BY_DIGEST)
}

/// A document that is too large to be read is as unusable as one that cannot be parsed.
fn too_large_is_malformed(failure: Failure) -> Fault {
    match failure {
        Failure::TooLarge { bytes_max, .. } => {
            Fault::Malformed(format!("is larger than the limit of {bytes_max} bytes"))
        }
        failure => Fault::Upstream(failure),
    }
}
