//! The directory of the blob cache:
//!
//! ```text
//! v1/blobs/<ab>/<algorithm>-<hex>     a blob, whole and checked; `ab` are the first two digits of `hex`
//! v1/filling/<name>                   a blob on its way there
//! v1/lock                             locked by the process that the directory belongs to
//! ```
//!
//! What does not parse as one of these is somebody else's: it is neither read, removed nor counted.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::image::digest::Digest;

/// How often the last use of a blob is noted on the disk.
pub const USE_NOTED_EVERY: Duration = Duration::from_secs(60);

/// Numbers the fills of this process.
static FILLS: AtomicU64 = AtomicU64::new(0);

/// The folders of one cache, which belong to this process for as long as this lives.
#[derive(Debug)]
pub(super) struct Files {
    blobs: PathBuf,
    filling: PathBuf,
    _lock: File,
}

/// A file that is removed when this is dropped, unless it came to its name.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: Option<PathBuf>,
}

/// A blob that stands in the directory.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) last_use: SystemTime,
}

impl Files {
    /// Makes the folders where they are missing, and takes the directory for this process.
    pub(super) fn open(directory: &Path) -> Result<Self, String> {
        let root = directory.join("v1");
        let [blobs, filling] = ["blobs", "filling"].map(|name| root.join(name));
        for folder in [&blobs, &filling] {
            make(folder).map_err(|error| format!("the directory cannot be made: {error}"))?;
        }
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(root.join("lock"));
        let lock = lock.map_err(|error| format!("the directory cannot be written: {error}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { blobs, filling, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err("another process has it: expected a directory for each process".to_owned())
            }
            Err(TryLockError::Error(error)) => Err(format!("the directory cannot be locked: {error}")),
        }
    }

    /// Where a blob stands.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let first = hex.get(..2).unwrap_or_default();
        self.blobs.join(first).join(format!("{}-{hex}", digest.algorithm().name()))
    }

    /// Opens a blob of this size, and notes the use if that was not done lately.
    pub(super) fn open_blob(&self, digest: &Digest, size: u64) -> io::Result<File> {
        let file = File::open(self.path(digest))?;
        let metadata = file.metadata()?;
        if metadata.len() != size {
            let words = format!("it has {} bytes instead of {size}", metadata.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let now = SystemTime::now();
        let is_noted =
            metadata.modified().is_ok_and(|noted| now.duration_since(noted).is_ok_and(|since| since < USE_NOTED_EVERY));
        if !is_noted && let Err(error) = file.set_modified(now) {
            tracing::debug!(%digest, %error, "the last use of a blob cannot be noted");
        }
        Ok(file)
    }

    /// What is known of a blob by its name alone.
    pub(super) fn look(&self, digest: &Digest) -> Option<Standing> {
        standing(digest.clone(), &std::fs::metadata(self.path(digest)).ok()?)
    }

    /// A new file for a fill.
    pub(super) fn begin(&self) -> io::Result<(Unfinished, File)> {
        loop {
            let path = self.filling.join(FILLS.fetch_add(1, Ordering::Relaxed).to_string());
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((Unfinished { path: Some(path) }, file)),
                // A leftover that was not cleared away yet.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // Somebody emptied the directory under us.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.filling.exists() => make(&self.filling)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a fill its name, once its bytes are on the disk.
    pub(super) fn finish(&self, mut unfinished: Unfinished, file: &File, digest: &Digest) -> io::Result<()> {
        file.sync_all()?;
        let to = self.path(digest);
        if let Some(folder) = to.parent() {
            make(folder)?;
        }
        if let Some(from) = &unfinished.path {
            std::fs::rename(from, to)?;
        }
        unfinished.path = None;
        Ok(())
    }

    /// Removes a blob; one that is gone is removed.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        match std::fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what an earlier process was at when it ended.
    pub(super) fn clear_leftovers(&self) -> io::Result<()> {
        let leftovers: Vec<PathBuf> =
            std::fs::read_dir(&self.filling)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        leftovers.iter().try_for_each(std::fs::remove_file)
    }

    /// Tells every blob that stands in the directory.
    pub(super) fn scan(&self, mut found: impl FnMut(Standing)) -> io::Result<()> {
        for folder in std::fs::read_dir(&self.blobs)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let Some(digest) = digest_of(&entry.path()).filter(|digest| self.path(digest) == entry.path()) else {
                    continue;
                };
                // It may have been evicted meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                standing(digest, &metadata).into_iter().for_each(&mut found);
            }
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays is cleared away at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn standing(digest: Digest, metadata: &std::fs::Metadata) -> Option<Standing> {
    let now = SystemTime::now();
    // A use in the future would never grow old.
    let last_use = metadata.modified().map_or(now, |noted| noted.min(now));
    metadata.is_file().then_some(Standing { digest, size: metadata.len(), last_use })
}

fn digest_of(path: &Path) -> Option<Digest> {
    let (algorithm, hex) = path.file_name()?.to_str()?.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn make(folder: &Path) -> io::Result<()> {
    // Whoever reads here could read images that the registry would not show them.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
