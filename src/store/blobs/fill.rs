//! One blob on its way from the upstream to the directory, while any number of clients read what is there of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::image::digest::{Digest, Verifier};
use crate::upstream::{Failure, StreamedBody};

use crate::store::StoreFailure;

use super::Shared;
use super::ledger::Number;

/// Why the bytes of a blob stop before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Broken {
    /// The upstream broke off, or sent other bytes than the digest names.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// The directory failed.
    #[error("the blob cache failed: {0}")]
    Disk(Arc<io::Error>),
    /// A kept blob is no longer what it was.
    #[error("the blob was damaged in the cache")]
    Damaged,
    /// The fill was given up because nobody waited for it.
    #[error("the blob cache gave up the fill for another")]
    Yielded,
    /// The store failed in the middle of a layer.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// How far a fill is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// So many bytes may be read. Until the digest is known to hold, the last byte is not among them: a client that has
    /// every byte hears no verdict any more.
    Readable(u64),
    /// All bytes are there and have the digest.
    Whole,
    /// Nothing will follow after so many bytes.
    Broken { at: u64, why: Broken },
}

/// What the fill and its readers share.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) file: File,
    pub(super) length: u64,
    pub(super) progress: watch::Sender<Progress>,
    /// What the upstream still has, where only the directory failed: the first reader that has read the file to its end
    /// goes on with it.
    pub(super) rest: Mutex<Option<Rest>>,
    // Dropped after the file is closed.
    hold: Mutex<Hold>,
    _ended: EndsWith,
}

/// The bytes that could not be written, and those that follow.
pub(super) struct Rest {
    pub(super) next: Bytes,
    pub(super) body: StreamedBody,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Rest")
    }
}

/// The bytes of the directory that a fill accounts for.
#[derive(Debug)]
pub(super) struct Hold {
    shared: Arc<Shared>,
    digest: Digest,
    held: Held,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Reserved { size: u64 },
    Kept(Number),
}

impl Hold {
    pub(super) const fn reserved(shared: Arc<Shared>, digest: Digest, size: u64) -> Self {
        Self { shared, digest, held: Held::Reserved { size } }
    }

    pub(super) const fn kept(shared: Arc<Shared>, digest: Digest, number: Number) -> Self {
        Self { shared, digest, held: Held::Kept(number) }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The number of the kept blob that is read.
    pub(super) const fn number(&self) -> Option<Number> {
        match self.held {
            Held::Reserved { .. } => None,
            Held::Kept(number) => Some(number),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.change(|state| match self.held {
            Held::Reserved { size } => state.ledger.release(size),
            Held::Kept(number) => state.ledger.end_reading(&self.digest, number),
        });
    }
}

/// Says that something is over when it is dropped.
#[derive(Debug)]
pub(super) struct EndsWith(pub(super) CancellationToken);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How many wait for one blob: whoever asked the upstream for it, and all who read it or are about to.
#[derive(Clone, Debug, Default)]
pub(super) struct Audience(Arc<AtomicUsize>);

/// One of an audience.
#[derive(Debug)]
pub(super) struct Seat(Audience);

impl Audience {
    pub(super) fn join(&self) -> Seat {
        self.0.fetch_add(1, Ordering::AcqRel);
        Seat(self.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Fill {
    pub(super) fn new(file: File, length: u64, hold: Hold, ended: EndsWith) -> Self {
        let progress = watch::Sender::new(Progress::Readable(0));
        Self { file, length, progress, rest: Mutex::default(), hold: Mutex::new(hold), _ended: ended }
    }

    /// Takes what is left of the upstream's answer, for the one reader that asks first.
    pub(super) fn take_rest(&self) -> Option<Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The bytes are a blob of the directory now.
    pub(super) fn is_kept(&self, now: std::time::SystemTime) {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let (shared, digest) = (Arc::clone(&hold.shared), hold.digest.clone());
        let number = shared.change(|state| state.ledger.keep(&digest, self.length, now));
        hold.held = Held::Kept(number);
    }

    /// Writes the upstream's body to the file and holds it against the digest. The upstream is read as fast as the disk
    /// takes it, however slow the clients are.
    pub(super) async fn pour(
        self: &Arc<Self>,
        mut body: StreamedBody,
        digest: &Digest,
        stop: &CancellationToken,
    ) -> Result<(), Broken> {
        let mut verifier = Verifier::new(digest.algorithm());
        let mut written = 0;
        loop {
            let frame = tokio::select! {
                () = stop.cancelled() => return Err(Broken::Yielded),
                frame = body.frame() => frame,
            };
            let Some(frame) = frame else { break };
            let Ok(piece) = frame?.into_data() else { continue };
            if written + piece.len() as u64 > self.length {
                return Err(Failure::WrongLength { expected: self.length }.into());
            }
            let (so_far, outcome) = self.write(verifier, piece.clone(), written).await?;
            verifier = so_far;
            if let Err(error) = outcome {
                *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { next: piece, body });
                return Err(Broken::Disk(Arc::new(error)));
            }
            written += piece.len() as u64;
            self.progress.send_replace(Progress::Readable(written.min(self.length - 1)));
        }
        if written != self.length {
            return Err(Failure::WrongLength { expected: self.length }.into());
        }
        let found = verifier.finish();
        if found != *digest {
            return Err(Failure::WrongBytes { expected: digest.clone(), found }.into());
        }
        self.progress.send_replace(Progress::Whole);
        Ok(())
    }

    /// Off the asynchronous threads: disks stand still at times, and digests take their time always.
    async fn write(
        self: &Arc<Self>,
        mut verifier: Verifier,
        piece: Bytes,
        at: u64,
    ) -> Result<(Verifier, io::Result<()>), Broken> {
        let fill = Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || {
            verifier.update(&piece);
            let outcome = fill.file.write_all_at(&piece, at);
            (verifier, outcome)
        });
        writing.await.map_err(|error| Broken::Disk(Arc::new(io::Error::other(error))))
    }

    /// Nothing follows any more; whoever reads hears why.
    pub(super) fn breaks(&self, why: Broken) {
        self.progress.send_modify(|progress| {
            let at = match progress {
                Progress::Readable(at) => *at,
                Progress::Whole | Progress::Broken { .. } => return,
            };
            *progress = Progress::Broken { at, why };
        });
    }
}
