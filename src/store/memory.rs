//! moka in front: parsed stored documents and derived ones, by content, weighed in bytes together.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use moka::future::Cache;
use prometheus_client::metrics::counter::Counter;
use sha2::{Digest as _, Sha256};

use crate::image::digest::Digest;
use crate::image::manifest::Manifest;
use crate::image::media_type::Format;
use crate::image::reference::{Repository, Tag};
use crate::translate::index::Shape;
use crate::translate::{Derived, LayerPolicy};

use super::USE_NOTED_EVERY;
pub use super::metrics::MemoryCollector;
use super::metrics::{Evictions, Filling};
use super::recipe::{Recipe, Scope};

/// For how many lists and indexes it is remembered where their images with zstd layers stand.
const ZSTD_FACTS_MAX: u64 = 10_000;

/// What an entry costs beside its bytes: keys, counters and the typed view. A rough figure, meant to be no less.
const ENTRY_OVERHEAD_BYTES: usize = 1024;

/// What a parsed document costs at most, bytes and typed view together, as a multiple of its bytes: one of nothing but
/// short annotations was measured at seven.
const TYPED_VIEW_FACTOR: usize = 8;

/// What decides the bytes of a derived document within one process, whose edition and signing key do not change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dish {
    /// The repository, as sent upstream.
    pub repository: Repository,
    /// The tag, for schema 1 only.
    pub tag: Option<Tag>,
    /// The stored document.
    pub source: Digest,
    /// What it is to become.
    pub target: Format,
    /// How it is to look, if it is a list or index.
    pub shape: Option<Shape>,
    /// What becomes of its layers.
    pub layers: LayerPolicy,
}

impl Dish {
    /// 64 hexadecimal digits that name this among all replicas of an edition in front of an upstream.
    pub fn key(&self, upstream: &str, edition: u32) -> String {
        let Self { repository, tag, source, target, shape, layers } = self;
        let tag = tag.as_ref().map_or("", Tag::as_str);
        let shape = serde_json::to_string(shape).unwrap_or_default();
        let layers = match layers {
            LayerPolicy::Stored => "",
            LayerPolicy::Gzip => "\ngzip",
        };
        // No part but the shape can hold a line feed, and that begins with none.
        let words = format!("{edition}\n{upstream}\n{repository}\n{tag}\n{source}\n{}\n{shape}{layers}", target.word());
        data_encoding::HEXLOWER.encode(&Sha256::digest(words))
    }
}

/// A derived document that is kept in the store, with a recipe that it was kept under.
#[derive(Debug)]
pub struct Kept {
    /// The document.
    pub derived: Derived,
    /// How it was made.
    pub recipe: Recipe,
    /// Whether the registry had everything that it could be made of.
    pub completeness: Completeness,
    /// When the store was told that it is in use.
    pub last_use: LastUse,
}

/// Whether the registry had everything that a document names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It had: the same document gives the same result for ever.
    Whole,
    /// A child was missing, and may come later.
    Partial,
}

/// A derived document as it is asked for by digest, with the recipes that this process has seen of it.
#[derive(Debug)]
pub struct Handed {
    /// The document.
    pub derived: Derived,
    /// Newest first. There may be more in the store.
    pub recipes: Vec<Recipe>,
    /// When the store was told that it is in use.
    pub last_use: LastUse,
}

/// When the store was last told that something in memory is in use. Until it is told again, it sees no use at all.
#[derive(Debug)]
pub struct LastUse {
    since: Instant,
    noted_after_seconds: AtomicU64,
}

impl LastUse {
    /// It was told just now.
    pub fn now() -> Self {
        Self { since: Instant::now(), noted_after_seconds: AtomicU64::new(0) }
    }

    /// It is time to tell it again: true once for each [`USE_NOTED_EVERY`], to one of those who ask.
    pub fn is_due(&self) -> bool {
        let elapsed = self.since.elapsed().as_secs();
        let noted = self.noted_after_seconds.load(Ordering::Relaxed);
        elapsed.saturating_sub(noted) >= USE_NOTED_EVERY.as_secs()
            && self.noted_after_seconds.compare_exchange(noted, elapsed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The memory of one process, as one upstream sees it. Having a document here gives nobody the right to see it.
#[derive(Clone)]
pub struct Memory {
    upstream: Arc<str>,
    stored: Cache<Place, Arc<Manifest>>,
    derived: Cache<(Arc<str>, Dish), Arc<Kept>>,
    handed: Cache<(Scope, Digest), Arc<Handed>>,
    /// Where in a list or index the images with zstd layers stand.
    zstd: Cache<Place, Arc<BTreeSet<usize>>>,
    evictions: Evictions,
}

/// Where a document was read: upstream, repository, digest. That one repository has it says nothing about another, whose
/// index may name it without having it, and nothing at all about another upstream.
type Place = (Arc<str>, Repository, Digest);

impl Memory {
    /// A memory of about this many bytes: half for stored documents, half for derived ones.
    pub fn new(bytes_max: u64) -> Self {
        let evictions = Evictions::default();
        Self {
            upstream: Arc::from(""),
            stored: weighed(bytes_max / 2, evictions.of("manifest"), |manifest: &Arc<Manifest>| {
                manifest.bytes().len() * TYPED_VIEW_FACTOR
            }),
            derived: weighed(bytes_max / 4, evictions.of("derived"), |kept: &Arc<Kept>| kept.derived.bytes.len()),
            zstd: Cache::new(ZSTD_FACTS_MAX),
            handed: weighed(bytes_max / 4, evictions.of("handed"), |handed: &Arc<Handed>| {
                handed.derived.bytes.len() + handed.recipes.len() * ENTRY_OVERHEAD_BYTES
            }),
            evictions,
        }
    }

    /// The same memory, as the upstream of this name sees it.
    #[must_use]
    pub fn of_upstream(&self, name: &str) -> Self {
        Self { upstream: Arc::from(name), ..self.clone() }
    }

    /// What each part of it holds at this moment, about.
    pub(super) fn fillings(&self) -> [Filling; 3] {
        fn filling<Key, Value>(cache: &Cache<Key, Value>, name: &'static str) -> Filling
        where
            Key: Hash + Eq + Send + Sync + 'static,
            Value: Clone + Send + Sync + 'static,
        {
            let capacity = cache.policy().max_capacity().unwrap_or_default();
            Filling { cache: name, entries: cache.entry_count(), bytes: cache.weighted_size(), capacity }
        }
        let Self { stored, derived, handed, .. } = self;
        [filling(stored, "manifest"), filling(derived, "derived"), filling(handed, "handed")]
    }

    /// What left it.
    pub(super) const fn evictions(&self) -> &Evictions {
        &self.evictions
    }

    /// How many documents it holds, and about how many bytes they take.
    pub fn fill(&self) -> (u64, u64) {
        let entries = [self.stored.entry_count(), self.derived.entry_count(), self.handed.entry_count()];
        let bytes = [self.stored.weighted_size(), self.derived.weighted_size(), self.handed.weighted_size()];
        (entries.iter().sum(), bytes.iter().sum())
    }

    fn place(&self, repository: Repository, digest: Digest) -> Place {
        (Arc::clone(&self.upstream), repository, digest)
    }

    /// A stored document that was read from this repository before.
    pub async fn stored(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Manifest>> {
        self.stored.get(&self.place(repository.clone(), digest.clone())).await
    }

    /// The stored document with this digest: the one that is here, or what `read` brings, which runs once however many
    /// ask. Must be called on a task that no client can cancel.
    pub async fn stored_or<Error: Send + Sync + 'static>(
        &self,
        repository: Repository,
        digest: Digest,
        read: impl Future<Output = Result<Arc<Manifest>, Error>>,
    ) -> Result<Arc<Manifest>, Arc<Error>> {
        self.stored.try_get_with(self.place(repository, digest), read).await
    }

    /// Remembers a stored document whose digest was checked.
    pub async fn remember_stored(&self, repository: Repository, digest: Digest, manifest: Arc<Manifest>) {
        self.stored.insert(self.place(repository, digest), manifest).await;
    }

    /// A derived document that was made before and is in the store.
    pub async fn derived(&self, dish: &Dish) -> Option<Arc<Kept>> {
        self.derived.get(&(Arc::clone(&self.upstream), dish.clone())).await
    }

    /// The derived document: the one that is here, or what `cook` brings, which runs once however many ask. Must be
    /// called on a task that no client can cancel.
    pub async fn derived_or<Error: Send + Sync + 'static>(
        &self,
        dish: Dish,
        cook: impl Future<Output = Result<Arc<Kept>, Error>>,
    ) -> Result<Arc<Kept>, Arc<Error>> {
        self.derived.try_get_with((Arc::clone(&self.upstream), dish), cook).await
    }

    /// Forgets a derived document, so that it is made again for the next who asks.
    pub async fn forget_derived(&self, dish: &Dish) {
        self.derived.invalidate(&(Arc::clone(&self.upstream), dish.clone())).await;
    }

    /// A derived document by its digest, within one repository of one upstream.
    pub async fn handed(&self, scope: &Scope, derived: &Digest) -> Option<Arc<Handed>> {
        self.handed.get(&(scope.clone(), derived.clone())).await
    }

    /// The same: what is here, or what `read` brings, which runs once however many ask. A failure, which is also how `read`
    /// says that there is nothing, is not remembered. Must be called on a task that no client can cancel.
    pub async fn handed_or<Error: Send + Sync + 'static>(
        &self,
        scope: Scope,
        derived: Digest,
        read: impl Future<Output = Result<Arc<Handed>, Error>>,
    ) -> Result<Arc<Handed>, Arc<Error>> {
        self.handed.try_get_with((scope, derived), read).await
    }

    /// Where in this list or index the images with zstd layers stand, if that was looked up before.
    pub async fn zstd_entries(&self, repository: &Repository, index: &Digest) -> Option<Arc<BTreeSet<usize>>> {
        self.zstd.get(&self.place(repository.clone(), index.clone())).await
    }

    /// Remembers where the images with zstd layers stand.
    pub async fn remember_zstd_entries(&self, repository: Repository, index: Digest, entries: Arc<BTreeSet<usize>>) {
        self.zstd.insert(self.place(repository, index), entries).await;
    }

    /// Remembers a derived document that is in the store, with its recipes.
    pub async fn remember_handed(&self, scope: Scope, handed: Handed) -> Arc<Handed> {
        let handed = Arc::new(handed);
        self.handed.insert((scope, handed.derived.digest.clone()), Arc::clone(&handed)).await;
        handed
    }
}

fn weighed<Key, Value>(
    bytes_max: u64,
    evicted: Counter,
    bytes: impl Fn(&Value) -> usize + Send + Sync + 'static,
) -> Cache<Key, Value>
where
    Key: Hash + Eq + Send + Sync + 'static,
    Value: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(bytes_max)
        .eviction_listener(move |_, _, cause| {
            if cause.was_evicted() {
                evicted.inc();
            }
        })
        .weigher(move |_, value| u32::try_from(bytes(value) + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX))
        .build()
}
