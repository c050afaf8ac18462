//! Work on the layers of images that is under way: who waits can be told how far it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::image::digest::Digest;
use crate::image::reference::Repository;

/// How often it is logged how far work is.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// What is done with the layers of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They are read, because schema 1 does not say what a newer format says of them.
    Upgrade,
    /// Gzip layers are made in the place of zstd ones.
    Transcode,
}

impl Kind {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Transcode => "transcode",
        }
    }
}

/// How far work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is done.
    pub kind: Kind,
    /// The upstream's name.
    pub upstream: String,
    /// The repository.
    pub repository: String,
    /// The stored document.
    pub source: String,
    /// When it began.
    pub since: SystemTime,
    /// How many layers there are.
    pub layers: u64,
    /// With how many of them it is through.
    pub layers_done: u64,
    /// How many bytes they have, where the document or the registry says.
    pub bytes: Option<u64>,
    /// How many bytes of them were read.
    pub bytes_done: u64,
}

/// All work that is under way.
#[derive(Debug, Default)]
pub(super) struct Works {
    next: AtomicU64,
    under_way: Mutex<BTreeMap<u64, Work>>,
}

/// Work on the layers of one image.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Work(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    upstream: String,
    repository: Repository,
    source: Digest,
    since: SystemTime,
    layers: u64,
    layers_done: AtomicU64,
    bytes: Option<u64>,
    bytes_done: AtomicU64,
}

impl Work {
    /// Work that begins now.
    pub(in crate::gateway) fn new(
        kind: Kind,
        upstream: &str,
        (repository, source): (&Repository, &Digest),
        (layers, bytes): (usize, Option<u64>),
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            upstream: upstream.to_owned(),
            repository: repository.clone(),
            source: source.clone(),
            since: SystemTime::now(),
            layers: layers as u64,
            layers_done: AtomicU64::new(0),
            bytes,
            bytes_done: AtomicU64::new(0),
        }))
    }

    /// So many more bytes were read.
    pub(in crate::gateway) fn note_bytes(&self, bytes: usize) {
        self.0.bytes_done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// One more layer is done.
    pub(in crate::gateway) fn note_layer(&self) {
        self.0.layers_done.fetch_add(1, Ordering::Relaxed);
    }

    fn shown(&self) -> Shown {
        let Inner { kind, upstream, repository, source, since, layers, layers_done, bytes, bytes_done } = &*self.0;
        Shown {
            kind: *kind,
            upstream: upstream.clone(),
            repository: repository.to_string(),
            source: source.to_string(),
            since: *since,
            layers: *layers,
            layers_done: layers_done.load(Ordering::Relaxed),
            bytes: *bytes,
            bytes_done: bytes_done.load(Ordering::Relaxed),
        }
    }
}

impl Works {
    /// All of it, the oldest first.
    pub(super) fn shown(&self) -> Vec<Shown> {
        self.under_way().values().map(Work::shown).collect()
    }

    /// Shows and logs work for as long as it takes.
    pub(super) async fn during<Output, Error: std::fmt::Display>(
        self: &Arc<Self>,
        work: &Work,
        doing: impl Future<Output = Result<Output, Error>>,
    ) -> Result<Output, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.under_way().insert(number, work.clone());
        let listed = Listed { works: self, number };
        let started = Instant::now();
        log(work, "begins");
        let mut doing = std::pin::pin!(doing);
        let done = loop {
            match tokio::time::timeout(LOGGED_EVERY, &mut doing).await {
                Ok(done) => break done,
                Err(_) => log(work, "goes on"),
            }
        };
        drop(listed);
        let Shown { kind, upstream, repository, source, layers_done, bytes_done, .. } = work.shown();
        let (kind, seconds) = (kind.word(), started.elapsed().as_secs_f64());
        match &done {
            Ok(_) => {
                tracing::info!(
                    kind,
                    upstream,
                    repository,
                    source,
                    layers_done,
                    bytes_done,
                    seconds,
                    "work on layers is done"
                );
            }
            Err(error) => {
                tracing::warn!(
                    kind, upstream, repository, source, layers_done, bytes_done, seconds, %error, "work on layers failed"
                );
            }
        }
        done
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Work>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(work: &Work, what: &str) {
    let Shown { kind, upstream, repository, source, layers, layers_done, bytes, bytes_done, .. } = work.shown();
    let kind = kind.word();
    tracing::info!(kind, upstream, repository, source, layers, layers_done, bytes, bytes_done, "work on layers {what}");
}

/// Takes work off the list, whatever became of it.
struct Listed<'a> {
    works: &'a Works,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.works.under_way().remove(&self.number);
    }
}

/// How far the work on a repository is, in a clause.
pub(super) fn how_far(shown: &[Shown], upstream: &str, repository: &Repository) -> Option<String> {
    let ours = || shown.iter().filter(|work| work.upstream == upstream && work.repository == repository.as_str());
    let sum = |count: fn(&Shown) -> u64| ours().map(count).sum::<u64>();
    let layers = sum(|work| work.layers);
    let bytes = ours().try_fold(0, |all: u64, work| all.checked_add(work.bytes?));
    let of = bytes.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
    (layers > 0).then(|| {
        format!(
            "{} of {layers} layers and {}{of} bytes are done",
            sum(|work| work.layers_done),
            sum(|work| work.bytes_done)
        )
    })
}
