//! A manifest asked for by tag: resolve, read, choose, and derive where the client does not read what is stored.

use std::sync::Arc;

use http::Response;

use crate::image::digest::Digest;
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Reference, Repository, Tag};
use crate::negotiate::choose::{is_transcoded, is_transcoded_when_upgraded, objection, otherwise};
use crate::negotiate::clients::Quirk;
use crate::negotiate::{
    Candidate, Choice, Client, Policy, Refusal, Scope, Stored, TRANSCODING_WOULD_HELP, Transcode, UPGRADE_WOULD_HELP,
    Upgrade, Why, choose, platform,
};
use crate::store::memory::Kept;
use crate::translate::index::{Layers, Order as EntryOrder, Shape};
use crate::translate::{self, LayerPolicy};
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
            // Boxed: what is asked for by tag, and by most, does not carry it about.
            Reference::Digest(digest) => Box::pin(self.by_digest(exchange, repository, digest)).await,
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
                let other = Box::pin(self.resolve_fallback_tag(exchange, &repository, &tag)).await?;
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
                let cooked = candidates
                    .into_iter()
                    .filter(|candidate| has_cell(&tagged.stored, *candidate, &exchange.client))
                    .collect::<Vec<_>>();
                if cooked.is_empty() {
                    return match otherwise(&facts, &exchange.client) {
                        Choice::AsStored { why } => self.as_stored(exchange, &tagged, why).await,
                        Choice::Refuse(refusal) => Err(refused(refusal)),
                        Choice::Derive { .. } => Err(Fault::Internal),
                    };
                }
                exchange.record.outcome.why = Some(why.as_str());
                Box::pin(self.first_of(exchange, &tagged, &cooked)).await
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
            let derived = Box::pin(self.derived(exchange, order, tagged.stored.format())).await;
            return derived.map_err(|attempt| match attempt {
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
                let (dropped, _) = Box::pin(self.zstd_entries(place(exchange, tagged), &tagged.digest, index)).await?;
                let layers = layers_of_children(&exchange.client);
                let pruned = || same_format(Some(Shape::Pruned)).map(|order| Order { layers, ..order });
                Ok(if dropped.is_empty() { None } else { pruned() })
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
            order.layers = layers_of_children(&exchange.client);
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
        // An image that the client can have without work on its layers goes before any other.
        let mut best = None;
        let mut later = Vec::new();
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
            if is_transcoded(&Stored::of(&child), &exchange.client, target) {
                later.push((child, entry.digest.clone()));
                continue;
            }
            match self.child(exchange, tagged, &child, &entry.digest, target).await {
                Err(Attempt::Refused(refusal)) => best = best.or(Some(refusal)),
                other => return other,
            }
        }
        for (child, digest) in later {
            let order = order_for(exchange, tagged, child, digest, target);
            match self.derived(exchange, order, stored_format).await {
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
            if child.format() == Format::Schema1 && exchange.client.layers().upgrade == Upgrade::Nothing {
                let words = format!("it is stored as schema 1, from which there is no translation{UPGRADE_WOULD_HELP}");
                let refusal = Refusal::untranslatable(tagged.stored.format(), &exchange.client, words);
                return Err(Attempt::Refused(Box::new(refusal)));
            }
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
        let derived = if self.options.policy.layers.are_read() {
            let repository = order.repository.clone();
            // A client that is sent away does not end the work: it is on a task of its own.
            self.within_patience(&repository, self.derive(order)).await.map_err(Attempt::Failed)?
        } else {
            self.derive(order).await
        };
        let kept = match derived {
            Ok((kept, freshness)) => {
                exchange.record.outcome.cache = Some(if freshness == Freshness::Remembered { "hit" } else { "miss" });
                kept
            }
            Err(Obstacle::Unkept { kept, failure }) if never_asks_by_digest(exchange) => {
                tracing::warn!(error = %failure, digest = %kept.derived.digest, "a derived document could not be kept");
                kept
            }
            Err(Obstacle::Zstd(reason)) if exchange.client.layers().transcode == Transcode::Nothing => {
                let obstacle = Obstacle::Untranslatable(format!("{reason}{TRANSCODING_WOULD_HELP}"));
                return Err(attempt(obstacle, stored, exchange));
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
        Obstacle::Untranslatable(reason) | Obstacle::Zstd(reason) => {
            Attempt::Refused(Box::new(Refusal::untranslatable(stored, &exchange.client, reason)))
        }
        obstacle => Attempt::Failed(obstacle.into()),
    }
}

fn order_for(exchange: &Exchange, tagged: &Tagged, stored: Arc<Manifest>, source: Digest, target: Format) -> Order {
    let (caller, repository, tag) = (exchange.caller.clone(), tagged.repository.clone(), tagged.tag.clone());
    let (facts, client) = (Stored::of(&stored), &exchange.client);
    let is_transcoded = is_transcoded(&facts, client, target) || is_transcoded_when_upgraded(&facts, client, target);
    let layers = if is_transcoded { LayerPolicy::Gzip } else { LayerPolicy::Stored };
    let known = Arc::default();
    Order { caller, repository, tag, stored, source, target, shape: None, layers, known, part: Part::Whole }
}

/// Whether gzip layers stand for the zstd ones of the children of a list or index, where they must.
fn layers_of_children(client: &Client) -> LayerPolicy {
    match client.layers().transcode {
        Transcode::Zstd => LayerPolicy::Gzip,
        Transcode::Nothing => LayerPolicy::Stored,
    }
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
fn has_cell(stored: &Manifest, candidate: Candidate, client: &Client) -> bool {
    candidate.scope == Scope::PlatformChild
        || matches!(stored.content(), Content::Index(_))
        || translate::cell_for(stored, candidate.target).is_some()
        || translate::upgrade_for(stored, candidate.target).is_some()
        || is_transcoded(&Stored::of(stored), client, candidate.target)
}

/// Docker before 1.10, which knows nothing but schema 1.
pub(super) fn never_asks_by_digest(exchange: &Exchange) -> bool {
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
