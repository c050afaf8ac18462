//! Lists and indexes: what their entries are, and parents made of children that are derived and kept first, because
//! clients ask for those by digest next.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::image::config;
use crate::image::descriptor::{Descriptor, Role};
use crate::image::digest::Digest;
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::image::oci::Index;
use crate::image::platform::Platform;
use crate::image::reference::Repository;
use crate::negotiate::{LayerWork, TRANSCODING_WOULD_HELP, Transcode, UPGRADE_WOULD_HELP, Upgrade};
use crate::store::memory::Completeness;
use crate::translate::index::{self, Entry, Fate, Layers, Omission, Order as EntryOrder, Packing, Shape};
use crate::translate::{Derived, LayerPolicy, Untranslatable};
use crate::upstream::Caller;

use super::Gateway;
use super::derive::{Obstacle, Order, Part};

/// How much of a list or index the gateway takes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLimits {
    /// How many entries a list or index may have, nested ones counted in, to be translated. Default 256.
    pub entries_max: usize,
    /// How deep lists and indexes may be nested in each other. Default 4.
    pub nesting_max: usize,
    /// How many children of one list or index are asked for at once. Default 32.
    pub children_at_once: usize,
}

impl Default for IndexLimits {
    fn default() -> Self {
        Self { entries_max: 256, nesting_max: 4, children_at_once: 32 }
    }
}

/// Whose list or index it is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) caller: &'a Caller,
    pub(super) repository: &'a Repository,
}

/// The entries of a list or index and of those that are nested in it.
#[derive(Default)]
struct TakenApart {
    entries: Vec<Descriptor>,
    /// How many entries were there in all, those of nested lists and indexes too.
    seen: usize,
}

/// A child that was read.
enum Child {
    Read(Arc<Manifest>),
    /// It cannot be used, and why.
    Unusable(Omission),
}

impl Gateway {
    /// The entries of a list or index, nested ones taken apart where they stand. What is called a list or index and is none,
    /// or is not there, stays as the entry that it is.
    pub(super) async fn entries(
        self: &Arc<Self>,
        place: Place<'_>,
        index: &Index,
    ) -> Result<Vec<Descriptor>, Obstacle> {
        let mut apart = TakenApart::default();
        self.take_apart(place, index, self.options.index.nesting_max, &mut apart).await?;
        Ok(apart.entries)
    }

    fn take_apart<'a>(
        self: &'a Arc<Self>,
        place: Place<'a>,
        index: &'a Index,
        depth_left: usize,
        apart: &'a mut TakenApart,
    ) -> BoxFuture<'a, Result<(), Obstacle>> {
        async move {
            // Before any of them is looked at: an index of nothing but indexes must come to an end too.
            apart.seen += index.manifests.len();
            if apart.seen > self.options.index.entries_max {
                return Err(too_many(self.options.index.entries_max));
            }
            for entry in &index.manifests {
                if entry.role() != Role::Nested {
                    apart.entries.push(entry.clone());
                    continue;
                }
                if depth_left == 0 {
                    let depth = self.options.index.nesting_max;
                    let words = format!("its indexes are nested more than {depth} deep, the limit of this gateway");
                    return Err(Obstacle::Untranslatable(words));
                }
                let child = self.read_child(place, &entry.digest).await?;
                if let Child::Read(nested) = &child
                    && let Content::Index(nested) = nested.content()
                {
                    self.take_apart(place, nested, depth_left - 1, apart).await?;
                } else {
                    apart.entries.push(entry.clone());
                }
            }
            Ok(())
        }
        .boxed()
    }

    /// Fills in the platforms that the entries of images do not name, from the children's configs.
    pub(super) async fn with_platforms(
        self: &Arc<Self>,
        place: Place<'_>,
        entries: Vec<Descriptor>,
    ) -> Result<Vec<Descriptor>, Obstacle> {
        let completed: Vec<BoxFuture<'_, Result<Descriptor, Obstacle>>> =
            entries.into_iter().map(|entry| self.with_platform(place, entry)).collect();
        self.at_once(completed).await
    }

    fn with_platform<'a>(
        self: &'a Arc<Self>,
        place: Place<'a>,
        mut entry: Descriptor,
    ) -> BoxFuture<'a, Result<Descriptor, Obstacle>> {
        async move {
            if entry.role() == Role::Image && entry.known_platform().is_none() {
                entry.platform = match self.read_child(place, &entry.digest).await? {
                    Child::Read(child) => self.platform_by_config(place, &child).await?,
                    Child::Unusable(_) => None,
                };
            }
            Ok(entry)
        }
        .boxed()
    }

    /// Where in a list or index the images with zstd layers stand: all children are looked at, once if all are there.
    pub(super) async fn zstd_entries(
        self: &Arc<Self>,
        place: Place<'_>,
        digest: &Digest,
        index: &Index,
    ) -> Result<(Arc<BTreeSet<usize>>, Completeness), Obstacle> {
        if let Some(known) = self.memory.zstd_entries(place.repository, digest).await {
            return Ok((known, Completeness::Whole));
        }
        // A document that is too large to be looked through goes out as it is; the client looks at one entry of it.
        if index.manifests.len() > self.options.index.entries_max {
            return Ok((Arc::default(), Completeness::Whole));
        }
        let looked_at: Vec<BoxFuture<'_, Result<Option<Packing>, Obstacle>>> =
            index.manifests.iter().map(|entry| self.packing(place, entry)).collect();
        let found: Vec<Option<Packing>> = self.at_once(looked_at).await?;
        let zstd = found.iter().enumerate().filter(|(_, packing)| **packing == Some(Packing::Zstd));
        let zstd: Arc<BTreeSet<usize>> = Arc::new(zstd.map(|(position, _)| position).collect());
        if found.contains(&None) {
            return Ok((zstd, Completeness::Partial));
        }
        self.memory.remember_zstd_entries(place.repository.clone(), digest.clone(), Arc::clone(&zstd)).await;
        Ok((zstd, Completeness::Whole))
    }

    /// How the layers of an entry are packed; `None` if the registry does not have it.
    fn packing<'a>(
        self: &'a Arc<Self>,
        place: Place<'a>,
        entry: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Option<Packing>, Obstacle>> {
        async move {
            if entry.role() != Role::Image {
                return Ok(Some(Packing::Other));
            }
            Ok(match self.read_child(place, &entry.digest).await? {
                Child::Read(child) => Some(packing_of(&child)),
                Child::Unusable(Omission::Missing) => None,
                Child::Unusable(_) => Some(Packing::Other),
            })
        }
        .boxed()
    }

    /// The results of work on children, in their order, as many at once as the limit allows.
    async fn at_once<Output: Send>(
        &self,
        work: Vec<BoxFuture<'_, Result<Output, Obstacle>>>,
    ) -> Result<Vec<Output>, Obstacle> {
        stream::iter(work).buffered(self.options.index.children_at_once).try_collect().await
    }

    /// A list or index in another format, or without what the client cannot unpack.
    pub(super) async fn cook_parent(
        self: &Arc<Self>,
        order: &Order,
        shape: &Shape,
    ) -> Result<(Derived, Completeness), Obstacle> {
        let Content::Index(stored) = order.stored.content() else {
            return Err(Obstacle::Untranslatable("it is neither a list nor an index".to_owned()));
        };
        let place = Place { caller: &order.caller, repository: &order.repository };
        match shape {
            Shape::Pruned => {
                let (dropped, completeness) = self.zstd_entries(place, &order.source, stored).await?;
                if order.layers == LayerPolicy::Gzip && !have_siblings(stored, &dropped) {
                    return self.rebuilt(order, shape, stored, &EntryOrder::Stored).await;
                }
                let is_left = |(position, entry): (usize, &Descriptor)| {
                    entry.role() == Role::Image && !dropped.contains(&position)
                };
                if !stored.manifests.iter().enumerate().any(is_left) {
                    let words =
                        "the layers of every image of it are compressed with zstd, which this client cannot unpack";
                    return Err(Obstacle::Zstd(words.to_owned()));
                }
                let made = index::without(&order.stored, &dropped);
                Ok((made.map_err(|reason| Obstacle::Untranslatable(reason.to_string()))?, completeness))
            }
            Shape::Rebuilt { order: entry_order, .. } => self.rebuilt(order, shape, stored, entry_order).await,
        }
    }

    async fn rebuilt(
        self: &Arc<Self>,
        order: &Order,
        shape: &Shape,
        stored: &Index,
        entry_order: &EntryOrder,
    ) -> Result<(Derived, Completeness), Obstacle> {
        let entries = self.fates(order, shape, stored).await?;
        let (completeness, help) = (completeness_of(&entries), would_help(&entries, self.options.policy.layers));
        let made = index::parent(stored, entries, order.target, entry_order);
        let made = made.map_err(|reason| match reason {
            Untranslatable::NothingLeft { .. } => Obstacle::Untranslatable(format!("{reason}{help}")),
            reason => Obstacle::Untranslatable(reason.to_string()),
        });
        Ok((made?, completeness))
    }

    /// What becomes of each entry: every child is derived and kept when this returns.
    async fn fates(self: &Arc<Self>, order: &Order, shape: &Shape, stored: &Index) -> Result<Vec<Entry>, Obstacle> {
        let place = Place { caller: &order.caller, repository: &order.repository };
        let listed = match order.target {
            Format::List => self.entries(place, stored).await?,
            _ if stored.manifests.len() > self.options.index.entries_max => {
                return Err(too_many(self.options.index.entries_max));
            }
            _ => stored.manifests.clone(),
        };
        let spared = self.spared(order, shape, &listed).await?;
        let entries: Vec<BoxFuture<'_, Result<Entry, Obstacle>>> =
            listed
                .into_iter()
                .enumerate()
                .map(|(position, entry)| {
                    if spared.contains(&position) { left_for_a_sibling(entry) } else { self.fate(order, shape, entry) }
                })
                .collect();
        self.at_once(entries).await
    }

    /// The positions of images with zstd layers for which no gzip layers need be made, because there is an image for the
    /// same platform without.
    async fn spared(
        self: &Arc<Self>,
        order: &Order,
        shape: &Shape,
        listed: &[Descriptor],
    ) -> Result<BTreeSet<usize>, Obstacle> {
        if !gives_gzip(order, shape) {
            return Ok(BTreeSet::new());
        }
        let place = Place { caller: &order.caller, repository: &order.repository };
        let packings: Vec<BoxFuture<'_, Result<Option<Packing>, Obstacle>>> =
            listed.iter().map(|entry| self.packing(place, entry)).collect();
        let packings = self.at_once(packings).await?;
        let zstd: BTreeSet<usize> = packings
            .iter()
            .enumerate()
            .filter(|(_, packing)| **packing == Some(Packing::Zstd))
            .map(|(position, _)| position)
            .collect();
        Ok(zstd.iter().copied().filter(|position| has_sibling(listed, &zstd, *position)).collect())
    }

    fn fate<'a>(
        self: &'a Arc<Self>,
        order: &'a Order,
        shape: &'a Shape,
        listed: Descriptor,
    ) -> BoxFuture<'a, Result<Entry, Obstacle>> {
        async move {
            let place = Place { caller: &order.caller, repository: &order.repository };
            let platform = listed.known_platform().cloned();
            let kept_as_listed =
                || Fate::Kept { media_type: listed.media_type.clone(), size: listed.size, packing: Packing::Other };
            let fate = match (listed.role(), order.target) {
                (Role::Attestation, Format::List) => Fate::LeftOut(Omission::Attestation),
                (Role::Artifact, Format::List) => Fate::LeftOut(Omission::Artifact),
                (Role::Nested, Format::List) => match self.read_child(place, &listed.digest).await? {
                    Child::Unusable(omission) => Fate::LeftOut(omission),
                    Child::Read(_) => Fate::LeftOut(Omission::Artifact),
                },
                (Role::Attestation | Role::Artifact | Role::Nested, _) => kept_as_listed(),
                (Role::Image, _) => match self.read_child(place, &listed.digest).await? {
                    Child::Unusable(omission) => Fate::LeftOut(omission),
                    Child::Read(child) => {
                        let fate = self.fate_of_image(order, shape, &child, &listed.digest).await?;
                        let platform = match platform {
                            None if !matches!(fate, Fate::LeftOut(_)) => self.platform_by_config(place, &child).await?,
                            platform => platform,
                        };
                        return Ok(Entry { listed, platform, fate });
                    }
                },
            };
            Ok(Entry { listed, platform, fate })
        }
        .boxed()
    }

    async fn fate_of_image(
        self: &Arc<Self>,
        order: &Order,
        shape: &Shape,
        child: &Arc<Manifest>,
        digest: &Digest,
    ) -> Result<Fate, Obstacle> {
        let layers = self.options.policy.layers;
        let (format, target) = match (child.format(), order.target) {
            (Format::Artifact | Format::List | Format::Index, Format::List) => {
                return Ok(Fate::LeftOut(Omission::Artifact));
            }
            (Format::Artifact | Format::List | Format::Index, _) => {
                return Ok(kept(child));
            }
            (format, Format::List) => (format, Format::Schema2),
            (format, _) => (format, Format::Oci),
        };
        let is_zstd = packing_of(child) == Packing::Zstd;
        let is_transcoded = is_zstd && gives_gzip(order, shape);
        if let Shape::Rebuilt { layers: Layers::WithoutZstd, .. } = shape
            && is_zstd
            && !is_transcoded
        {
            return Ok(Fate::LeftOut(Omission::Zstd));
        }
        let stays = stays(child, target, shape);
        if stays && !is_transcoded {
            return Ok(kept(child));
        }
        if format == Format::Schema1 && layers.upgrade == Upgrade::Nothing {
            return Ok(Fate::LeftOut(Omission::Schema1));
        }
        let target = if stays { format } else { target };
        let child_order = Order {
            stored: Arc::clone(child),
            source: digest.clone(),
            target,
            shape: None,
            layers: if is_transcoded { LayerPolicy::Gzip } else { LayerPolicy::Stored },
            known: Arc::default(),
            part: Part::Child,
            ..order.clone()
        };
        match self.derive(child_order).await {
            Ok((kept, _)) => {
                let Derived { format, digest, bytes, .. } = &kept.derived;
                Ok(Fate::Derived { format: *format, digest: digest.clone(), size: bytes.len() as u64 })
            }
            Err(Obstacle::Zstd(_)) if layers.transcode == Transcode::Nothing => Ok(Fate::LeftOut(Omission::Zstd)),
            Err(Obstacle::Untranslatable(reason) | Obstacle::Zstd(reason) | Obstacle::Layer(reason)) => {
                Ok(Fate::LeftOut(Omission::Untranslatable(reason)))
            }
            // The child was made, but it is not what was asked for, and its parent must not go out before it is kept.
            Err(Obstacle::Unkept { failure, .. }) => Err(Obstacle::Store(failure)),
            Err(obstacle) => Err(obstacle),
        }
    }

    /// A child, read and checked against its digest. That the registry lists it and does not have it, or that it cannot be
    /// read, is a fact about this entry; everything else is a failure of the whole.
    async fn read_child(self: &Arc<Self>, place: Place<'_>, digest: &Digest) -> Result<Child, Obstacle> {
        match self.stored(place.caller, place.repository, digest).await {
            Ok(child) => Ok(Child::Read(child)),
            Err(Obstacle::Upstream(failure)) if failure.is_not_found() => Ok(Child::Unusable(Omission::Missing)),
            Err(Obstacle::Malformed(words)) => {
                Ok(Child::Unusable(Omission::Untranslatable(format!("the stored document {words}"))))
            }
            Err(obstacle) => Err(obstacle),
        }
    }

    async fn platform_by_config(
        self: &Arc<Self>,
        place: Place<'_>,
        child: &Manifest,
    ) -> Result<Option<Platform>, Obstacle> {
        let Content::Image(image) = child.content() else { return Ok(None) };
        match self.fetch_config(place.caller, place.repository, &image.config).await {
            Ok((_, bytes)) => {
                let platform = config::platform(&bytes).ok();
                Ok(platform.filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty()))
            }
            Err(Obstacle::Untranslatable(_) | Obstacle::Zstd(_) | Obstacle::Malformed(_)) => Ok(None),
            Err(obstacle) => Err(obstacle),
        }
    }
}

fn left_for_a_sibling<'a>(listed: Descriptor) -> BoxFuture<'a, Result<Entry, Obstacle>> {
    let (platform, fate) = (listed.known_platform().cloned(), Fate::LeftOut(Omission::SamePlatform));
    std::future::ready(Ok(Entry { listed, platform, fate })).boxed()
}

/// Whether gzip layers are made for the images in it that have zstd ones: Docker's list knows none, and some clients
/// unpack none.
fn gives_gzip(order: &Order, shape: &Shape) -> bool {
    let is_wanted = match shape {
        Shape::Pruned | Shape::Rebuilt { layers: Layers::WithoutZstd, .. } => true,
        Shape::Rebuilt { .. } => order.target == Format::List,
    };
    order.layers == LayerPolicy::Gzip && is_wanted
}

/// Every image at these positions has a sibling for its platform elsewhere.
fn have_siblings(stored: &Index, zstd: &BTreeSet<usize>) -> bool {
    zstd.iter().all(|position| has_sibling(&stored.manifests, zstd, *position))
}

/// The image at this position has a sibling for its platform that is at none of those with zstd layers.
fn has_sibling(listed: &[Descriptor], zstd: &BTreeSet<usize>, position: usize) -> bool {
    let Some(platform) = listed.get(position).and_then(Descriptor::known_platform) else { return false };
    let is_sibling = |(other, entry): (usize, &Descriptor)| {
        !zstd.contains(&other) && entry.role() == Role::Image && entry.known_platform() == Some(platform)
    };
    listed.iter().enumerate().any(is_sibling)
}

/// The child needs no translation: it is in the target's own format, or the client reads it as it is.
fn stays(child: &Manifest, target: Format, shape: &Shape) -> bool {
    let is_read = |format: Format| match shape {
        Shape::Rebuilt { kept, .. } => format == target || kept.contains(&format),
        Shape::Pruned => true,
    };
    is_read(child.format()) && is_read(child.counts_as())
}

/// The child as it is stored.
fn kept(child: &Manifest) -> Fate {
    let (media_type, size) = (child.media_type().to_owned(), child.bytes().len() as u64);
    Fate::Kept { media_type, size, packing: packing_of(child) }
}

fn packing_of(child: &Manifest) -> Packing {
    match child.content() {
        Content::Image(image) if image.has_zstd_layers() => Packing::Zstd,
        _ => Packing::Other,
    }
}

/// What the operator could do so that more of these stay. Ends a sentence.
fn would_help(entries: &[Entry], layers: LayerWork) -> String {
    let has =
        |wanted| entries.iter().any(|entry| matches!(&entry.fate, Fate::LeftOut(omission) if *omission == wanted));
    let upgrade = has(Omission::Schema1) && layers.upgrade == Upgrade::Nothing;
    let transcoding = has(Omission::Zstd) && layers.transcode == Transcode::Nothing;
    let words = [(upgrade, UPGRADE_WOULD_HELP), (transcoding, TRANSCODING_WOULD_HELP)];
    words.into_iter().filter_map(|(helps, words)| helps.then_some(words)).collect()
}

fn completeness_of(entries: &[Entry]) -> Completeness {
    let is_missing = |entry: &Entry| matches!(entry.fate, Fate::LeftOut(Omission::Missing));
    if entries.iter().any(is_missing) { Completeness::Partial } else { Completeness::Whole }
}

fn too_many(entries_max: usize) -> Obstacle {
    Obstacle::Untranslatable(format!("it has more than {entries_max} entries, the limit of this gateway"))
}
