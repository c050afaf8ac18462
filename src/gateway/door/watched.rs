//! A file of secrets that is read again when it changes.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long what was read is used before the file is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How large a file may be.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a file of secrets cannot be used. Never says what stands in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct UnusableFile {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a file of secrets.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It is too large to be one.
    #[error("is larger than the limit of {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not text.
    #[error("is not UTF-8 text")]
    NotText,
    /// It has no entry.
    #[error("has no entry, so nobody could come in")]
    Empty,
    /// A line is not what it should be.
    #[error("line {number}: {expected}")]
    Line {
        /// Its number, from 1.
        number: usize,
        /// What would be accepted.
        expected: &'static str,
    },
}

type Parse<T> = dyn Fn(&str) -> Result<T, Reason> + Send + Sync;

/// A file and what was last read from it.
pub(super) struct Watched<T> {
    file: Arc<Path>,
    parse: Arc<Parse<T>>,
    current: RwLock<Arc<T>>,
    /// When it was looked at, and what it looked like.
    seen: Mutex<(Instant, Option<Stamp>)>,
}

/// What tells one state of a file from the next. A file that is replaced through a link has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    number: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            number: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    pub(super) fn open(
        file: &Path,
        parse: impl Fn(&str) -> Result<T, Reason> + Send + Sync + 'static,
    ) -> Result<Self, UnusableFile> {
        let parse: Arc<Parse<T>> = Arc::new(parse);
        let stamp = stamp(file);
        let first = read(file, &*parse).map_err(|reason| UnusableFile { file: file.to_owned(), reason })?;
        let (current, seen) = (RwLock::new(Arc::new(first)), Mutex::new((Instant::now(), stamp)));
        Ok(Self { file: file.into(), parse, current, seen })
    }

    /// What the file says. Where it cannot be read any more, what it last said.
    pub(super) async fn current(&self) -> Arc<T> {
        // Whoever finds somebody else looking goes on with what is there.
        if let Ok(mut seen) = self.seen.try_lock()
            && seen.0.elapsed() >= LOOK_EVERY
        {
            let before = seen.1;
            let (file, parse) = (Arc::clone(&self.file), Arc::clone(&self.parse));
            let looked = tokio::task::spawn_blocking(move || {
                let now = stamp(&file);
                (now, (now != before).then(|| read(&file, &*parse)))
            });
            if let Ok((now, changed)) = looked.await {
                *seen = (Instant::now(), now);
                self.take(changed);
            }
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, changed: Option<Result<T, Reason>>) {
        let file = self.file.display();
        match changed {
            None => {}
            Some(Ok(next)) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                tracing::info!(%file, "a file of logins changed and was read again");
            }
            Some(Err(reason)) => {
                tracing::warn!(%file, %reason, "a file of logins changed and cannot be used; the old logins stay good");
            }
        }
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    std::fs::metadata(file).ok().as_ref().map(Stamp::of)
}

fn read<T>(file: &Path, parse: &Parse<T>) -> Result<T, Reason> {
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(Reason::Unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Reason::Unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Reason::TooLarge);
    }
    parse(std::str::from_utf8(&bytes).map_err(|_| Reason::NotText)?)
}

/// The lines that say something, with their numbers.
pub(super) fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let trimmed = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    trimmed.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn number(text: &str) -> Result<u32, Reason> {
        text.trim().parse().map_err(|_| Reason::Line { number: 1, expected: "expected a number" })
    }

    async fn later(watched: &Watched<u32>) -> u32 {
        tokio::time::advance(LOOK_EVERY).await;
        *watched.current().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_when_it_changed_and_the_old_one_stays_good_where_the_new_one_is_bad() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "1").unwrap();
        let watched = Watched::open(&file, number).unwrap();
        assert_eq!(later(&watched).await, 1);
        std::fs::write(&file, "20").unwrap();
        assert_eq!(*watched.current().await, 1, "not looked at before it is time");
        assert_eq!(later(&watched).await, 20);
        std::fs::write(&file, "three").unwrap();
        assert_eq!(later(&watched).await, 20);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(later(&watched).await, 20);
        std::fs::write(&file, "4000").unwrap();
        assert_eq!(later(&watched).await, 4000);
    }

    /// A file in a volume of Kubernetes is a link that is pointed elsewhere; all files may have one length.
    #[tokio::test(start_paused = true)]
    async fn a_link_that_is_pointed_elsewhere_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("1"), "1").unwrap();
        std::fs::write(path("2"), "2").unwrap();
        std::os::unix::fs::symlink("1", path("file")).unwrap();
        let watched = Watched::open(&path("file"), number).unwrap();
        std::os::unix::fs::symlink("2", path("next")).unwrap();
        std::fs::rename(path("next"), path("file")).unwrap();
        assert_eq!(later(&watched).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_did_not_change_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "1").unwrap();
        let reads = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&reads);
        let parse = move |text: &str| {
            counted.fetch_add(1, Ordering::Relaxed);
            number(text)
        };
        let watched = Watched::open(&file, parse).unwrap();
        later(&watched).await;
        later(&watched).await;
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_error_names_the_file_and_not_what_stands_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let error = |file: &Path| Watched::open(file, number).err().unwrap().to_string();
        assert!(error(&file).contains("cannot be read"));
        std::fs::write(&file, "secret").unwrap();
        assert_eq!(error(&file), format!("{}: line 1: expected a number", file.display()));
        std::fs::write(&file, b"\xff").unwrap();
        assert!(error(&file).contains("not UTF-8"));
        let size = usize::try_from(FILE_BYTES_MAX).unwrap() + 1;
        std::fs::write(&file, vec![b'1'; size]).unwrap();
        assert!(error(&file).contains("larger than the limit"));
    }
}
