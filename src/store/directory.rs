//! What a directory needs beyond the library: objects that are on the disk before they get their name, and a last use.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::layout::{self, LAYOUT, STAGING};

/// Numbers the objects that this process stages.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// Whether a directory can do what a store wants of it.
#[derive(Debug)]
pub(super) enum Usability {
    /// It can.
    Usable,
    /// Not now: it is full, read-only or its disk fails. That heals without a restart.
    Later(io::Error),
}

/// Makes the folders of a store where they are missing, and checks that the directory can give a name only if nothing has
/// it: replicas, and a restart beside the old process, rely on that.
pub(super) fn prepare(root: &Path) -> Result<Usability, String> {
    let staging = root.join(LAYOUT).join(STAGING);
    // What is made here is nobody else's to read: it will hold the signing key.
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&staging) {
        return later_or_never(error, "cannot be made");
    }
    match creates_only_once(root) {
        Ok(true) => Ok(Usability::Usable),
        Ok(false) => {
            Err("gives one name to two files: expected a file system whose hard links fail where the name is \
                          taken, such as a local disk or NFS"
                .to_owned())
        }
        Err(error) if error.kind() == ErrorKind::Unsupported || error.kind() == ErrorKind::CrossesDevices => {
            Err(no_hard_links(&error))
        }
        // Linux says "operation not permitted" for a file system without hard links; a folder that may not be written
        // to has refused the file before.
        Err(error) if error.raw_os_error() == Some(OPERATION_NOT_PERMITTED) => Err(no_hard_links(&error)),
        Err(error) => later_or_never(error, "cannot be written"),
    }
}

/// EPERM.
const OPERATION_NOT_PERMITTED: i32 = 1;

fn no_hard_links(error: &io::Error) -> String {
    format!("has no hard links ({error}), by which a name is given only once: expected a local disk or NFS")
}

fn later_or_never(error: io::Error, words: &str) -> Result<Usability, String> {
    match error.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::StaleNetworkFileHandle
        | ErrorKind::TimedOut => Ok(Usability::Later(error)),
        _ if error.raw_os_error() == Some(INPUT_OUTPUT_ERROR) => Ok(Usability::Later(error)),
        _ => Err(format!("{words}: {error}")),
    }
}

/// EIO.
const INPUT_OUTPUT_ERROR: i32 = 5;

fn creates_only_once(root: &Path) -> io::Result<bool> {
    let staged = stage(root, b"whether a name is given only once")?;
    let name = staged.with_extension("name");
    let twice = std::fs::hard_link(&staged, &name).and_then(|()| match std::fs::hard_link(&staged, &name) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
        Err(error) => Err(error),
    });
    for file in [&name, &staged] {
        // What stays is cleared away with other leftovers.
        let _ = std::fs::remove_file(file);
    }
    twice
}

/// Writes an object under a name of its own, all of it on the disk when this returns.
pub(super) fn stage(root: &Path, object: &[u8]) -> io::Result<PathBuf> {
    let (path, mut file) = stage_open(root)?;
    if let Err(error) = file.write_all(object).and_then(|()| file.sync_all()) {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(path)
}

/// Makes a file under a name of its own, for an object that comes piece by piece.
pub(super) fn stage_open(root: &Path) -> io::Result<(PathBuf, File)> {
    let folder = root.join(LAYOUT).join(STAGING);
    loop {
        let name = format!("{}-{}", std::process::id(), STAGED.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            // Another host on the same directory has a process of the same number, or one left this behind.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // Somebody emptied the directory under us.
            Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => {
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes what was staged this long ago or longer and never came to its name. How many there were.
pub(super) fn clear_staging(root: &Path, age: Duration) -> io::Result<u64> {
    let folder = match std::fs::read_dir(root.join(LAYOUT).join(STAGING)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        folder => folder?,
    };
    let now = SystemTime::now();
    let mut cleared = 0;
    for entry in folder {
        let entry = entry?;
        // Whoever staged it may have finished with it meanwhile.
        let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        if now.duration_since(modified).is_ok_and(|since| since >= age) && std::fs::remove_file(entry.path()).is_ok() {
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// The object's path in the store, for a file that was staged.
pub(super) fn staged_object(staged: &Path) -> object_store::path::Path {
    layout::staging(&staged.file_name().unwrap_or_default().to_string_lossy())
}

/// Says that an object is in use now.
pub(super) fn touch(root: &Path, object: &object_store::path::Path, now: SystemTime) -> io::Result<()> {
    let file = root.join(object.as_ref());
    File::options().write(true).open(file)?.set_modified(now)
}
