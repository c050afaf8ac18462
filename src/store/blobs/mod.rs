//! Blobs kept on a disk of this machine, so that they are asked of the upstream once.
//!
//! A blob is written here while it streams to the clients that want it, and counts once its digest held over all its
//! bytes and they are on the disk. It is kept under its digest, whatever repository it came from: whether a caller may
//! see it is asked elsewhere, never here. Where each file stands is in `files.rs`, what is counted in `ledger.rs`.

mod files;
mod fill;
mod ledger;
mod metrics;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::image::digest::Digest;
use crate::upstream::StreamedBody;

use super::health::{Ability, Health};
use files::{Files, Unfinished};
use fill::{Audience, EndsWith, Fill, Hold, Progress, Seat};
use ledger::{Ledger, Limits, NoRoom};
use metrics::{FillEnd, Looked};

pub use files::USE_NOTED_EVERY;
pub use fill::Broken;
pub use metrics::Metrics;
pub use reading::{BlobBody, Kept};

/// How many fills there may be at a time.
pub const FILLS_MAX: usize = 16;
/// Which part of the cache all fills together may take.
const FILL_BYTES_PART: u64 = 4;

/// Where blobs are kept, and how many. [`BlobCacheOptions::new`] has every default.
#[derive(Clone, Debug)]
pub struct BlobCacheOptions {
    /// The directory, which belongs to one process at a time.
    pub directory: PathBuf,
    /// How many bytes of blobs may be in it, fills included.
    pub bytes_max: u64,
    /// How many fills there may be at a time. Default [`FILLS_MAX`].
    pub fills_max: usize,
    /// How many bytes all fills may have; a larger blob is not kept. Default a quarter of the cache.
    pub fill_bytes_max: u64,
}

impl BlobCacheOptions {
    /// A cache of this size in this directory.
    pub const fn new(directory: PathBuf, bytes_max: u64) -> Self {
        Self { directory, bytes_max, fills_max: FILLS_MAX, fill_bytes_max: bytes_max / FILL_BYTES_PART }
    }
}

/// Why a directory cannot be a blob cache.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the blob cache {}: {reason}", directory.display())]
pub struct UnusableBlobCache {
    directory: PathBuf,
    reason: String,
}

/// The blobs of one directory.
#[derive(Clone, Debug)]
pub struct BlobCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    state: Mutex<State>,
    metrics: Metrics,
    health: Health,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// The blobs that somebody is asking the upstream for.
    slots: HashMap<Digest, Slot>,
    census: Census,
    last_slot: u64,
}

/// Whether the ledger knows all that stands in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Census {
    UnderWay,
    Done,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    stage: watch::Receiver<Stage>,
    audience: Audience,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// What became of the leader's question.
#[derive(Clone, Debug)]
enum Stage {
    /// The upstream has not answered yet.
    Asked,
    /// The blob is on its way.
    Filling(Weak<Fill>),
    /// The upstream's answer is not one to keep.
    Passed,
}

/// What a request for a whole blob finds.
#[derive(Debug)]
pub enum Claim {
    /// The blob.
    Kept(Kept),
    /// Somebody else's question for it.
    Follow(Follow),
    /// Nothing: whoever asked is to ask the upstream.
    Lead(Lead),
    /// Nothing that helps: the cache is not ready for fills yet, or cannot open what it has.
    NotNow,
}

impl BlobCache {
    /// Takes a directory and begins to read what stands in it, which is not waited for.
    pub fn open(options: &BlobCacheOptions) -> Result<Self, UnusableBlobCache> {
        let BlobCacheOptions { directory, bytes_max, fills_max, fill_bytes_max } = options;
        let unusable = |reason| UnusableBlobCache { directory: directory.clone(), reason };
        let files = Files::open(directory).map_err(unusable)?;
        let limits = Limits { bytes: *bytes_max, fills: *fills_max, fill_bytes: *fill_bytes_max };
        let state =
            State { ledger: Ledger::new(limits), slots: HashMap::new(), census: Census::UnderWay, last_slot: 0 };
        let (metrics, health) = (Metrics::default(), Health::default());
        let shared = Arc::new(Shared { files, state: Mutex::new(state), metrics, health });
        let counting = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("blob-cache".to_owned())
            .spawn(move || counting.count())
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self(shared))
    }

    /// How many blobs it has, how many bytes it takes and how many it may take.
    pub fn fill(&self) -> (u64, u64, u64) {
        self.0.change(|state| {
            let ledger = &state.ledger;
            (ledger.blobs() as u64, ledger.bytes(), ledger.bytes_max())
        })
    }

    /// What is counted of this cache.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// A blob that is here, opened.
    pub async fn find(&self, digest: &Digest) -> Option<Kept> {
        self.open_kept(digest).await.ok()?
    }

    async fn open_kept(&self, digest: &Digest) -> std::io::Result<Option<Kept>> {
        let (shared, wanted) = (Arc::clone(&self.0), digest.clone());
        if !self.0.change(|state| state.ledger.has(digest) || state.census == Census::UnderWay) {
            return Ok(None);
        }
        let opened = tokio::task::spawn_blocking(move || shared.find(&wanted)).await;
        opened.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// A blob that is here, or what there is instead.
    pub async fn claim(&self, digest: &Digest) -> Claim {
        loop {
            match self.open_kept(digest).await {
                Ok(Some(kept)) => {
                    self.0.metrics.looked(Looked::Hit);
                    return Claim::Kept(kept);
                }
                Ok(None) => {}
                Err(_) => return Claim::NotNow,
            }
            if let Some(claim) = self.0.claim(digest) {
                return claim;
            }
        }
    }
}

impl Shared {
    fn change<Output>(&self, change: impl FnOnce(&mut State) -> Output) -> Output {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let output = change(&mut state);
        self.metrics.bytes.set(i64::try_from(state.ledger.bytes()).unwrap_or(i64::MAX));
        output
    }

    /// Clears away what an earlier process left, and takes stock of what it kept.
    fn count(&self) {
        if let Err(error) = self.files.clear_leftovers() {
            tracing::warn!(%error, "leftovers of the blob cache cannot be cleared away");
        }
        let scanned = self.files.scan(|standing| {
            self.change(|state| state.ledger.found(&standing.digest, standing.size, standing.last_use));
        });
        match scanned {
            Ok(()) => {
                let surplus = self.change(|state| state.ledger.evict_surplus());
                self.remove(&surplus);
                self.change(|state| state.census = Census::Done);
            }
            // How much there is stays unknown, so nothing is added.
            Err(error) => tracing::warn!(%error, "the blob cache cannot be read; nothing is added to it"),
        }
    }

    /// Removes what the ledger has let go of; what cannot be removed is put back on its account. True if all of it went.
    fn remove(&self, evicted: &[ledger::Evicted]) -> bool {
        let mut all_went = true;
        for (digest, size) in evicted {
            match self.files.remove(digest) {
                Ok(()) => drop(self.metrics.evictions.inc()),
                Err(error) => {
                    self.cannot_write(&error);
                    self.change(|state| state.ledger.found(digest, *size, SystemTime::UNIX_EPOCH));
                    all_went = false;
                }
            }
        }
        all_went
    }

    /// An error says that the blob is there as far as anybody knows, and cannot be opened now.
    fn find(self: &Arc<Self>, digest: &Digest) -> std::io::Result<Option<Kept>> {
        let now = SystemTime::now();
        let is_unknown = |state: &mut State| state.census == Census::UnderWay && !state.ledger.has(digest);
        if self.change(is_unknown)
            && let Some(standing) = self.files.look(digest)
        {
            self.change(|state| state.ledger.found(digest, standing.size, standing.last_use));
        }
        let Some((number, size)) = self.change(|state| state.ledger.begin_reading(digest, now)) else {
            return Ok(None);
        };
        let hold = Hold::kept(Arc::clone(self), digest.clone(), number);
        let error = match self.files.open_blob(digest, size) {
            Ok(file) => {
                if self.health.note_success(Ability::Reading) {
                    tracing::info!("the blob cache can be read again");
                }
                return Ok(Some(Kept { file, size, digest: digest.clone(), hold }));
            }
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                tracing::debug!(%digest, "a blob of the cache was removed by somebody else");
                self.change(|state| state.ledger.forget(digest));
                Ok(None)
            }
            ErrorKind::InvalidData => {
                hold.is_damaged(&error);
                Ok(None)
            }
            _ => {
                if self.health.note_failure(Ability::Reading) {
                    tracing::warn!(%error, "the blob cache cannot be read; blobs stream without it");
                }
                Err(error)
            }
        }
    }

    /// `None` if the blob has come in the meantime.
    fn claim(self: &Arc<Self>, digest: &Digest) -> Option<Claim> {
        self.change(|state| {
            if state.ledger.has(digest) {
                return None;
            }
            if let Some(slot) = state.slots.get(digest) {
                self.metrics.looked(Looked::Shared);
                return Some(Claim::Follow(Follow { stage: slot.stage.clone(), seat: slot.audience.join() }));
            }
            self.metrics.looked(Looked::Miss);
            if state.census == Census::UnderWay {
                return Some(Claim::NotNow);
            }
            state.last_slot += 1;
            let number = state.last_slot;
            let (announce, stage) = watch::channel(Stage::Asked);
            let (audience, stop, ended) = (Audience::default(), CancellationToken::new(), CancellationToken::new());
            let seat = audience.join();
            let place = Place { shared: Arc::clone(self), digest: digest.clone(), number };
            let lead = Lead { place, announce, seat, stop: stop.clone(), ended: ended.clone() };
            state.slots.insert(digest.clone(), Slot { number, stage, audience, stop, ended });
            Some(Claim::Lead(lead))
        })
    }

    /// Takes the place of a fill that nobody waits for, and says when it has ended.
    fn take_abandoned(&self) -> Option<CancellationToken> {
        self.change(|state| {
            let is_abandoned =
                |slot: &&Slot| slot.audience.is_empty() && matches!(&*slot.stage.borrow(), Stage::Filling(_));
            let abandoned = state.slots.values().filter(is_abandoned).min_by_key(|slot| slot.number)?;
            abandoned.stop.cancel();
            let (number, ended) = (abandoned.number, abandoned.ended.clone());
            state.slots.retain(|_, slot| slot.number != number);
            Some(ended)
        })
    }

    /// Reserves bytes for a fill, at the cost of what was used least lately and of fills that nobody waits for.
    async fn make_room(self: &Arc<Self>, digest: &Digest, size: u64) -> Option<Hold> {
        loop {
            match self.change(|state| state.ledger.reserve(size)) {
                Ok(evicted) => {
                    let hold = Hold::reserved(Arc::clone(self), digest.clone(), size);
                    let removing = Arc::clone(self);
                    let removed = tokio::task::spawn_blocking(move || removing.remove(&evicted)).await;
                    return removed.is_ok_and(|all_went| all_went).then_some(hold);
                }
                Err(NoRoom::Never) => return None,
                Err(NoRoom::Now) => self.take_abandoned()?.cancelled().await,
            }
        }
    }

    fn cannot_write(&self, error: &std::io::Error) {
        if self.health.note_failure(Ability::Writing) {
            tracing::warn!(%error, "the blob cache cannot be written; blobs stream without it");
        }
    }
}

impl Hold {
    /// Drops a blob that is not what it was.
    fn is_damaged(&self, error: &std::io::Error) {
        let (shared, digest) = (self.shared(), self.digest());
        let Some(number) = self.number() else { return };
        let is_first = shared.change(|state| {
            let is_known = state.ledger.is_kept_as(digest, number);
            if is_known {
                state.ledger.forget(digest);
            }
            is_known
        });
        if is_first {
            shared.metrics.damaged.inc();
            tracing::warn!(%digest, %error, "a blob of the cache is damaged and was dropped");
            if let Err(error) = shared.files.remove(digest) {
                shared.cannot_write(&error);
            }
        }
    }
}

/// Whoever asks the upstream for a blob that others may want as well. Dropping it lets another of them ask.
#[derive(Debug)]
pub struct Lead {
    place: Place,
    announce: watch::Sender<Stage>,
    seat: Seat,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// An entry among the slots, removed when this is dropped.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    digest: Digest,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.change(|state| {
            if state.slots.get(&self.digest).is_some_and(|slot| slot.number == self.number) {
                state.slots.remove(&self.digest);
            }
        });
    }
}

impl Lead {
    /// The upstream's answer is not one to keep: everybody asks for himself.
    pub fn pass(self) {
        self.announce.send_replace(Stage::Passed);
    }

    /// Keeps the body of the upstream's answer, of this length, and hands back the bytes for the one who asked; or the body
    /// as it was, where it cannot be kept. Goes on when this future is dropped.
    pub async fn fill(self, length: u64, body: StreamedBody) -> Result<BlobBody, StreamedBody> {
        let (begun, beginning) = oneshot::channel();
        tokio::spawn(self.run(length, body, begun));
        // A task that ended without a word has panicked, and its body with it.
        beginning.await.unwrap_or_else(|_| Ok(BlobBody::lost()))
    }

    async fn run(self, length: u64, body: StreamedBody, begun: oneshot::Sender<Result<BlobBody, StreamedBody>>) {
        let Self { place, announce, seat, stop, ended } = self;
        let Some((unfinished, fill)) = place.begin(length, EndsWith(ended)).await else {
            announce.send_replace(Stage::Passed);
            // Dropped before the answer, so that whoever comes next finds nothing under way.
            drop(place);
            drop(begun.send(Err(body)));
            return;
        };
        announce.send_replace(Stage::Filling(Arc::downgrade(&fill)));
        drop(begun.send(Ok(reading::follow(Arc::clone(&fill), seat))));
        let end = match fill.pour(body, &place.digest, &stop).await {
            Ok(()) => place.finish(unfinished, fill).await,
            Err(why) => {
                drop(unfinished);
                let end = place.ended_by(&why);
                fill.breaks(why);
                end
            }
        };
        place.shared.metrics.filled(end);
    }
}

impl Place {
    /// Makes room and a file; `None` where there can be neither.
    async fn begin(&self, length: u64, ended: EndsWith) -> Option<(Unfinished, Arc<Fill>)> {
        let hold = if length == 0 { None } else { self.shared.make_room(&self.digest, length).await };
        let Some(hold) = hold else {
            self.shared.metrics.filled(FillEnd::NoRoom);
            return None;
        };
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || shared.files.begin()).await {
            Ok(Ok((unfinished, file))) => Some((unfinished, Arc::new(Fill::new(file, length, hold, ended)))),
            Ok(Err(error)) => {
                self.shared.cannot_write(&error);
                self.shared.metrics.filled(FillEnd::DiskFailed);
                None
            }
            Err(_) => None,
        }
    }

    /// Gives the blob its name. Whoever reads it has its bytes in any case.
    async fn finish(&self, unfinished: Unfinished, fill: Arc<Fill>) -> FillEnd {
        let (shared, digest) = (Arc::clone(&self.shared), self.digest.clone());
        let finished = tokio::task::spawn_blocking(move || {
            let finished = shared.files.finish(unfinished, &fill.file, &digest);
            if finished.is_ok() {
                fill.is_kept(SystemTime::now());
            }
            finished
        });
        match finished.await {
            Ok(Ok(())) => {
                if self.shared.health.note_success(Ability::Writing) {
                    tracing::info!("the blob cache can be written again");
                }
                FillEnd::Kept
            }
            Ok(Err(error)) => {
                self.shared.cannot_write(&error);
                FillEnd::DiskFailed
            }
            Err(_) => FillEnd::DiskFailed,
        }
    }

    fn ended_by(&self, why: &Broken) -> FillEnd {
        match why {
            Broken::Disk(error) => {
                self.shared.cannot_write(error);
                FillEnd::DiskFailed
            }
            Broken::Yielded => FillEnd::Yielded,
            Broken::Upstream(_) | Broken::Damaged | Broken::Store(_) => {
                tracing::debug!(digest = %self.digest, %why, "a blob was not kept");
                FillEnd::UpstreamFailed
            }
        }
    }
}

/// Whoever waits for a blob that somebody else asked the upstream for.
#[derive(Debug)]
pub struct Follow {
    stage: watch::Receiver<Stage>,
    seat: Seat,
}

/// What became of the blob that somebody else asked for.
pub enum Joined {
    /// It comes.
    Reading {
        /// How many bytes it has.
        size: u64,
        /// All of them.
        body: BlobBody,
    },
    /// The upstream's answer is not one to keep, or broke before its first byte.
    Passed,
    /// Whoever asked has left before there was an answer, or the blob is here by now.
    Gone,
}

impl Follow {
    /// Waits until the first bytes are there.
    pub async fn joined(mut self) -> Joined {
        let answered = |stage: &Stage| !matches!(stage, Stage::Asked);
        let fill = match self.stage.wait_for(answered).await.as_deref() {
            Ok(Stage::Passed) => return Joined::Passed,
            Ok(Stage::Filling(fill)) => fill.upgrade(),
            Ok(Stage::Asked) | Err(_) => None,
        };
        let Some(fill) = fill else { return Joined::Gone };
        let begun = |progress: &Progress| !matches!(progress, Progress::Readable(0));
        let is_broken = match fill.progress.subscribe().wait_for(begun).await.as_deref() {
            Ok(Progress::Readable(_) | Progress::Whole) => false,
            Ok(Progress::Broken { .. }) | Err(_) => true,
        };
        if is_broken {
            return Joined::Passed;
        }
        Joined::Reading { size: fill.length, body: reading::follow(fill, self.seat) }
    }
}
