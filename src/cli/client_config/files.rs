//! Writing somebody else's files so that it can be undone.
//!
//! Beside each file `F` that is written stand `F.schemabridge-written`, which says what was written and which folders were
//! made for it, and, where there was a file before, `F.schemabridge-backup`: that very file under another name. They are
//! made in this order, before `F` is replaced at a stroke: the backup, the note, the file. A file that is neither what the
//! note says nor the backup was changed by somebody else and is left alone.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::image::digest::Digest;

use super::Failure;

const BACKUP: &str = ".schemabridge-backup";
const NOTE: &str = ".schemabridge-written";

/// A file as it should be.
#[derive(Debug)]
pub(super) struct File {
    /// Below the root.
    pub(super) path: PathBuf,
    pub(super) content: String,
}

/// Where the file system begins.
pub(super) struct Root(PathBuf);

/// What `F.schemabridge-written` holds.
#[derive(Debug, Deserialize, Serialize)]
struct Note {
    /// The digest of what was written.
    digest: String,
    /// Folders that were made for it, outermost first, below the root.
    folders: Vec<PathBuf>,
}

/// A file of somebody else's, as it is found.
struct Found {
    current: Option<Vec<u8>>,
    backup: Option<Vec<u8>>,
    note: Option<Note>,
}

impl Found {
    /// What was written stands there, untouched.
    fn is_ours(&self) -> bool {
        let digest = self.current.as_ref().map(|bytes| Digest::sha256(bytes).to_string());
        self.note.as_ref().is_some_and(|note| Some(&note.digest) == digest.as_ref())
    }

    /// What was there before anything was written stands there still: a write that was broken off.
    fn is_original(&self) -> bool {
        if self.note.is_none() && self.backup.is_none() { true } else { self.current == self.backup }
    }

    fn original(self) -> Option<Vec<u8>> {
        if self.note.is_none() && self.backup.is_none() { self.current } else { self.backup }
    }
}

impl Root {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The path of a file below the root.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.0.join(path)
    }

    /// The folders in a folder, which need not be there.
    pub(super) fn folders(&self, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
        let entries = match std::fs::read_dir(self.path(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| said(&self.path(folder), &error))?,
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| said(&self.path(folder), &error))?;
            if entry.path().is_dir() {
                folders.push(folder.join(entry.file_name()));
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// What stands at this path, or stood there before this command wrote to it.
    pub(super) fn original(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.found(path)?.original())
    }

    /// Writes these files. True for each that was not as it should be. All are looked at before the first is written.
    pub(super) fn write(&self, files: &[File]) -> Result<Vec<bool>, Failure> {
        let found = files.iter().map(|file| self.untouched(&file.path)).collect::<Result<Vec<_>, _>>()?;
        files.iter().zip(found).map(|(file, found)| self.write_one(file, found)).collect()
    }

    /// Puts back what stood at these paths before; the paths where something was written.
    pub(super) fn undo(&self, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
        let mut written = Vec::new();
        for path in paths {
            let found = self.untouched(path)?;
            if found.note.is_some() || found.backup.is_some() {
                written.push((path.clone(), found));
            }
        }
        for (path, found) in &written {
            self.undo_one(path, found)?;
        }
        // After all files: one of them made a folder that others stand in.
        let notes = written.iter().filter_map(|(_, found)| found.note.as_ref());
        let mut folders: Vec<&PathBuf> = notes.flat_map(|note| &note.folders).collect();
        folders.sort();
        for folder in folders.into_iter().rev() {
            // Whoever put something into it needs it.
            let _ = std::fs::remove_dir(self.path(folder));
        }
        Ok(written.into_iter().map(|(path, _)| path).collect())
    }

    fn found(&self, path: &Path) -> Result<Found, Failure> {
        let path = self.path(path);
        let note = match read(&beside(&path, NOTE))? {
            None => None,
            Some(text) => {
                let note = serde_json::from_slice(&text);
                Some(note.map_err(|error| format!("{} cannot be read: {error}", beside(&path, NOTE).display()))?)
            }
        };
        Ok(Found { current: read(&path)?, backup: read(&beside(&path, BACKUP))?, note })
    }

    fn untouched(&self, path: &Path) -> Result<Found, Failure> {
        let found = self.found(path)?;
        if found.is_ours() || found.is_original() {
            return Ok(found);
        }
        let path = self.path(path);
        let (backup, note) = (beside(&path, BACKUP), beside(&path, NOTE));
        let words =
            "was changed after this command wrote it, and is left alone; take back that change, or keep it and remove";
        Err(format!("{} {words} {} and {}", path.display(), backup.display(), note.display()).into())
    }

    fn write_one(&self, file: &File, found: Found) -> Result<bool, Failure> {
        if found.current.as_deref() == Some(file.content.as_bytes()) {
            return Ok(false);
        }
        let path = self.path(&file.path);
        let is_first = found.note.is_none();
        let mut folders = found.note.map(|note| note.folders).unwrap_or_default();
        folders.extend(self.make_folders(&file.path)?);
        if found.current.is_some() && found.backup.is_none() && is_first {
            let backup = beside(&path, BACKUP);
            // The file itself, so that whatever belongs to it comes back with it.
            std::fs::hard_link(&path, &backup).map_err(|error| said(&backup, &error))?;
        }
        let note = Note { digest: Digest::sha256(file.content.as_bytes()).to_string(), folders };
        replace(&beside(&path, NOTE), &serde_json::to_vec(&note)?)?;
        replace(&path, file.content.as_bytes())?;
        Ok(true)
    }

    /// Makes the folders of a file; those that were not there.
    fn make_folders(&self, path: &Path) -> Result<Vec<PathBuf>, Failure> {
        let mut missing: Vec<PathBuf> = path
            .ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty() && !self.path(folder).exists())
            .map(Path::to_owned)
            .collect();
        missing.reverse();
        for folder in &missing {
            std::fs::create_dir(self.path(folder)).map_err(|error| said(&self.path(folder), &error))?;
        }
        Ok(missing)
    }

    fn undo_one(&self, path: &Path, found: &Found) -> Result<(), Failure> {
        let file = self.path(path);
        let backup = beside(&file, BACKUP);
        let undone = match (&found.backup, &found.current) {
            // Renaming a file to another name of its own does nothing.
            (Some(_), _) if found.is_original() => std::fs::remove_file(&backup),
            (Some(_), _) => std::fs::rename(&backup, &file),
            (None, Some(_)) => std::fs::remove_file(&file),
            (None, None) => Ok(()),
        };
        undone.map_err(|error| said(&file, &error))?;
        if found.note.is_some() {
            std::fs::remove_file(beside(&file, NOTE)).map_err(|error| said(&file, &error))?;
        }
        Ok(())
    }
}

/// Writes a file at a stroke, all of it on the disk. Who may read it stays as it was.
fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let staged = beside(path, ".schemabridge-new");
    let written = std::fs::File::create(&staged).and_then(|mut file| {
        if let Ok(metadata) = std::fs::metadata(path) {
            fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&staged, path)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&staged);
        said(path, &error)
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(suffix);
    path.with_file_name(name)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(said(path, &error)),
    }
}

fn said(path: &Path, error: &std::io::Error) -> Failure {
    format!("{}: {error}", path.display()).into()
}
