//! A socket in the file system.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// A socket in the file system to which processes of this machine connect.
#[derive(Debug)]
pub struct UnixSocket {
    // Goes first: whoever finds the file can connect.
    _file: Option<SocketFile>,
    pub(super) listener: UnixListener,
}

/// Why a socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CannotBind {
    /// A process listens there.
    #[error("another process listens there; expected a path of its own for each")]
    Taken,
    /// A file is there that is no socket.
    #[error(
        "a file is there that is not a socket; expected a path at which there is nothing, or a socket that nobody uses"
    )]
    NotASocket,
    /// The system refused.
    #[error("{0}; expected a path of at most 107 bytes in a directory where files may be made")]
    Refused(#[from] io::Error),
}

impl UnixSocket {
    /// Makes one at which as many connections may wait. Whoever is not let in by the mode cannot connect, not even for a
    /// moment. What a dead process left there goes away; the file is removed at the end if it still is this one.
    pub fn bind(path: &Path, mode: u32, waiting: i32) -> Result<Self, CannotBind> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // A socket that is bound gives its own mode to the file, less what the process masks.
        let narrowed = File::from(OwnedFd::from(socket));
        narrowed.set_permissions(Permissions::from_mode(mode))?;
        let socket = Socket::from(OwnedFd::from(narrowed));
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::at(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(waiting)?;
        Ok(Self { listener: UnixListener::from_std(OwnedFd::from(socket).into())?, _file: Some(file) })
    }
}

impl From<UnixListener> for UnixSocket {
    /// One whose file is the business of whoever made it.
    fn from(listener: UnixListener) -> Self {
        Self { _file: None, listener }
    }
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), CannotBind> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        return Err(CannotBind::NotASocket);
    }
    let trial = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full would let this wait.
    trial.set_nonblocking(true)?;
    match trial.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error.into()),
        _ => Err(CannotBind::Taken),
    }
}

/// The file of a socket, as long as it is ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(&std::fs::symlink_metadata(path)?) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a socket's file could not be removed");
        }
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}
