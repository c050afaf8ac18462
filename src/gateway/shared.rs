//! What all upstreams of a process share.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::store::blobs::{BlobCache, BlobCacheOptions, UnusableBlobCache};
use crate::store::sweep::Bounds;
use crate::store::{Location, Memory, Store};
use crate::translate::EDITION;
use crate::translate::sign::SigningKey;
use crate::upstream::UnusableUpstream;
use crate::upstream::route::AmbiguousNames;
use crate::upstream::trace::Spans;

use super::layers::{LayerLimits, Layers};
use super::legacy::Refusals;
use super::metrics::Metrics;
use super::seen::Seen;
use super::turns::{ManifestLimits, Turns};

/// What is shared.
#[derive(Clone, Debug)]
pub struct SharedOptions {
    /// Where derived documents last. Default: in memory.
    pub store: Location,
    /// How many bytes of documents the process keeps in memory. Default 256 MiB.
    pub cache_bytes: u64,
    /// Where blobs are kept. Default nowhere.
    pub blob_cache: Option<BlobCacheOptions>,
    /// How many manifests are worked on at once.
    pub manifests: ManifestLimits,
    /// The key that signs schema 1; without it, the store's.
    pub signing_key: Option<Arc<SigningKey>>,
    /// The edition of the translator, under which documents are kept. Default [`EDITION`]; another is for whoever wants to
    /// see what becomes of the digests of one edition in the hands of the next.
    pub edition: u32,
    /// How much work on layers there may be, where any is let do.
    pub layers: LayerLimits,
    /// Where spans of requests go. Default nowhere.
    pub spans: Option<Spans>,
}

impl Default for SharedOptions {
    fn default() -> Self {
        Self {
            store: Location::Memory,
            cache_bytes: 256 << 20,
            blob_cache: None,
            manifests: ManifestLimits::default(),
            signing_key: None,
            edition: EDITION,
            layers: LayerLimits::default(),
            spans: None,
        }
    }
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] crate::store::UnusableStore),
    /// The blob cache cannot be used.
    #[error(transparent)]
    BlobCache(#[from] UnusableBlobCache),
    /// The upstream client cannot be made.
    #[error(transparent)]
    Upstream(#[from] UnusableUpstream),
    /// The names of the upstreams leave it open which one is meant.
    #[error(transparent)]
    Names(#[from] AmbiguousNames),
    /// The machine gives no randomness.
    #[error("the operating system gives no random bytes")]
    Entropy,
}

/// The store, the memory and whatever else is one for all upstreams.
#[derive(Clone)]
pub struct Shared {
    pub(super) store: Store,
    pub(super) memory: Memory,
    pub(super) blob_cache: Option<BlobCache>,
    pub(super) turns: Turns,
    pub(super) edition: u32,
    pub(super) spans: Option<Spans>,
    pub(super) signing_key: Arc<OnceCell<Arc<SigningKey>>>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) seen: Arc<Seen>,
    pub(super) layers: Arc<Layers>,
    pub(super) cache_bytes: u64,
}

impl Shared {
    /// Who asked for what, and what they got.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Opens the store and makes the rest.
    pub fn start(options: &SharedOptions) -> Result<Self, StartError> {
        Ok(Self {
            store: Store::open(&options.store)?,
            memory: Memory::new(options.cache_bytes),
            blob_cache: options.blob_cache.as_ref().map(BlobCache::open).transpose()?,
            turns: Turns::new(&options.manifests),
            edition: options.edition,
            spans: options.spans.clone(),
            signing_key: Arc::new(OnceCell::new_with(options.signing_key.clone())),
            refusals: Arc::default(),
            metrics: Arc::default(),
            seen: Arc::default(),
            layers: Arc::new(Layers::new(options.layers)),
            cache_bytes: options.cache_bytes,
        })
    }

    /// Looks whether the store answers, which is a warning if not, and keeps it within its bounds for as long as this is
    /// polled. What a store in memory holds is bounded by the size of the cache too.
    pub async fn tend_store(self, mut bounds: Bounds) {
        if let Ok(name) = random_bytes() {
            self.store.check(&data_encoding::HEXLOWER.encode(&name)).await;
        }
        if !self.store.is_durable() {
            let bytes_max = bounds.documents_bytes_max.unwrap_or(u64::MAX);
            bounds.documents_bytes_max = Some(bytes_max.min(self.cache_bytes));
        }
        self.store.tend(bounds).await;
    }
}

/// Randomness for keys that live as long as the process or, as a signing key, as long as the store.
pub(crate) fn random_bytes() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_| StartError::Entropy)?;
    Ok(bytes)
}
