//! Layers that are read for a client, where the operator opted in: what their bytes tell, for upgrades of schema 1, and
//! gzip layers in the place of zstd ones.
//!
//! A layer is read once however many ask, as a caller who may see it. What is learnt is kept in the store at once, layer by
//! layer, so whoever begins again after an end, be it sudden, goes on from there.

mod blob;
mod gzip;
mod learn;
mod open;
mod pace;
mod refused;
mod work;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::image::digest::Digest;
use crate::image::layer::LayerFacts;
use crate::image::reference::Repository;
use crate::transcode::{Bounds, Workers};
use crate::upstream::Caller;

use super::Gateway;
use super::derive::Obstacle;
use super::fault::Fault;
use super::metrics::LayerRead;

pub(super) use blob::Made;
pub use pace::LayerPace;
use refused::{Refusals, obstacle};
pub(super) use work::Work;
use work::Works;
pub use work::{Kind, Shown};

/// How many layers are measured while they are uploaded. One more is not: it is read when it is wanted.
const UPLOADS_MEASURED_AT_ONCE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
/// The largest window of a zstd frame that is measured so, as a power of two bytes: 8 MiB, as zstd makes it unless it is told
/// otherwise. Whoever uploads chooses it, and old clients send no zstd.
const UPLOADS_ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How much work on layers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerLimits {
    /// How many layers are worked on at a time. Default: one fewer than there are processors.
    pub at_once: NonZeroUsize,
    /// How much a layer may unpack to.
    pub bounds: Bounds,
    /// How fast the upstream has to send one.
    pub pace: LayerPace,
    /// How long a client waits for work on layers before it is asked to come again; the work goes on. Default 50 s.
    pub derive_timeout: Duration,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            at_once: Workers::default_at_once(),
            bounds: Bounds::default(),
            pace: LayerPace::default(),
            derive_timeout: Duration::from_secs(50),
        }
    }
}

/// The work on layers of all upstreams.
pub(super) struct Layers {
    workers: Workers,
    /// Those who measure layers while they are uploaded have turns of their own: a client must not wait behind a reader, and
    /// no upload takes a turn from one.
    pub(super) of_uploads: Workers,
    pace: LayerPace,
    pub(super) derive_timeout: Duration,
    /// Which layers are being read, and for what.
    taken: Mutex<HashMap<(Purpose, Digest), Weak<Seat>>>,
    refusals: Refusals,
    works: Arc<Works>,
}

/// The one seat of those who read a layer for one purpose.
type Seat = tokio::sync::Mutex<()>;

/// What a layer is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Facts,
    Gzip,
}

impl Layers {
    pub(super) fn new(limits: LayerLimits) -> Self {
        Self {
            workers: Workers::new(limits.at_once, limits.bounds),
            of_uploads: Workers::new(
                UPLOADS_MEASURED_AT_ONCE,
                Bounds { zstd_window_log_max: UPLOADS_ZSTD_WINDOW_LOG_MAX, ..limits.bounds },
            ),
            pace: limits.pace,
            derive_timeout: limits.derive_timeout,
            taken: Mutex::default(),
            refusals: Refusals::default(),
            works: Arc::default(),
        }
    }

    /// The work that is under way.
    pub(super) fn shown(&self) -> Vec<Shown> {
        self.works.shown()
    }

    /// Waits until nobody else reads this layer for this purpose. Whoever was at it may have left what is wanted.
    async fn alone_at(&self, purpose: Purpose, layer: &Digest) -> OwnedMutexGuard<()> {
        self.seat(purpose, layer).lock_owned().await
    }

    /// The seat of whoever learns what the bytes of a layer tell, where it is free: who wants to know waits for him.
    pub(super) fn free_seat(&self, layer: &Digest) -> Option<OwnedMutexGuard<()>> {
        self.seat(Purpose::Facts, layer).try_lock_owned().ok()
    }

    fn seat(&self, purpose: Purpose, layer: &Digest) -> Arc<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, lock| lock.strong_count() > 0);
        let key = (purpose, layer.clone());
        taken.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let lock = Arc::default();
            taken.insert(key, Arc::downgrade(&lock));
            lock
        })
    }
}

impl Gateway {
    /// Waits for work on layers of this repository as long as a client is kept waiting. The work must be on a task of its
    /// own: it goes on.
    pub(super) async fn within_patience<Output>(
        &self,
        repository: &Repository,
        work: impl Future<Output = Output>,
    ) -> Result<Output, Fault> {
        let layers = &self.shared.layers;
        tokio::time::timeout(layers.derive_timeout, work).await.map_err(|_| {
            let far = work::how_far(&layers.shown(), &self.options.upstream_name, repository);
            Fault::LayersInWork(far.unwrap_or_else(|| "it is under way".to_owned()))
        })
    }

    /// What the bytes of a layer tell: out of the store, or else by reading it, as a caller who was let see a document that
    /// names it.
    pub(super) async fn facts_of(
        &self,
        caller: &Caller,
        repository: &Repository,
        layer: &Digest,
        work: &Work,
    ) -> Result<LayerFacts, Obstacle> {
        let (store, metrics) = (&self.shared.store, &self.shared.metrics);
        if let Some(facts) = store.facts(layer).await? {
            metrics.count_layer(LayerRead::Known);
            return Ok(facts);
        }
        let Layers { workers, refusals, .. } = &*self.shared.layers;
        let _alone = self.shared.layers.alone_at(Purpose::Facts, layer).await;
        if let Some(facts) = store.facts(layer).await? {
            metrics.count_layer(LayerRead::Known);
            return Ok(facts);
        }
        self.known_good(Purpose::Facts, layer, None)?;
        let turn = workers.turn().await.map_err(|fault| obstacle(layer, fault))?;
        let _shown = metrics.layer_in_work();
        let read = async {
            let pieces = self.open_layer(caller, repository, layer, work).await?;
            let facts = workers.measure(turn, layer, pieces).await;
            let facts = facts.map_err(|fault| refusals.note(Purpose::Facts, (layer, None), fault))?;
            store.keep_facts(layer, &facts).await?;
            Ok(facts)
        };
        let read = read.await;
        metrics.count_layer(LayerRead::of(&read));
        read
    }

    /// Refuses a layer that was found bad before.
    fn known_good(&self, purpose: Purpose, layer: &Digest, diff_id: Option<&Digest>) -> Result<(), Obstacle> {
        self.shared.layers.refusals.check(purpose, (layer, diff_id)).inspect_err(|_| {
            self.shared.metrics.count_layer(LayerRead::Refused);
        })
    }
}
