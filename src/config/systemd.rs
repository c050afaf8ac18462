//! What systemd says in the environment: which sockets it opened for the gateway, where it wants to hear how that is, and
//! how often.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
pub use sd_notify::NotifyState;
use socket2::SockRef;

/// The names of the sockets, joined by colons.
const NAMES: &str = "LISTEN_FDNAMES";
/// What `systemd.socket` calls a socket of which nothing else is said.
const UNNAMED: &str = "unknown";

/// A socket that systemd opened.
#[derive(Debug)]
pub struct PassedSocket {
    /// What `FileDescriptorName=` says; by default that is the name of the unit.
    pub name: String,
    /// The socket.
    pub socket: ListeningSocket,
}

/// A socket to which clients connect.
#[derive(Debug)]
pub enum ListeningSocket {
    /// At an address.
    Network(TcpListener),
    /// In the file system.
    Unix(UnixListener),
}

/// Why what systemd passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnfitSockets {
    /// The names are not those of the sockets.
    #[error("systemd passed {sockets} sockets and {NAMES} names {names}: expected a name for each")]
    Names {
        /// How many sockets there are.
        sockets: usize,
        /// How many names there are.
        names: usize,
    },
    /// A socket is of a kind to which no client connects.
    #[error(
        "socket number {number} that systemd passed, `{name}`, cannot be used: {reason}; expected `ListenStream=` and `Accept=no` in its unit"
    )]
    Kind {
        /// Which one, from 1 on.
        number: usize,
        /// Its name.
        name: String,
        /// What it is.
        reason: String,
    },
}

/// Takes the sockets that systemd opened for this process; none where it did not. To be called once, and while there is
/// but one thread: what says that they are there is taken out of the environment.
pub fn passed_sockets() -> Result<Vec<PassedSocket>, UnfitSockets> {
    let names = std::env::var(NAMES).ok().filter(|names| !names.is_empty());
    let mut passed = ListenFd::from_env();
    let names: Vec<String> = match names {
        Some(names) => names.split(':').map(str::to_owned).collect(),
        None => vec![UNNAMED.to_owned(); passed.len()],
    };
    if passed.len() > 0 && passed.len() != names.len() {
        return Err(UnfitSockets::Names { sockets: passed.len(), names: names.len() });
    }
    let places = 0..passed.len();
    let taken = places.zip(names).map(|(place, name)| match listening(&mut passed, place) {
        Ok(socket) => Ok(PassedSocket { name, socket }),
        Err(error) => Err(UnfitSockets::Kind { number: place + 1, name, reason: error.to_string() }),
    });
    taken.collect()
}

fn listening(passed: &mut ListenFd, place: usize) -> io::Result<ListeningSocket> {
    let missing = || io::Error::other("it is not there");
    let socket = if let Ok(socket) = passed.take_unix_listener(place) {
        ListeningSocket::Unix(socket.ok_or_else(missing)?)
    } else {
        ListeningSocket::Network(passed.take_tcp_listener(place)?.ok_or_else(missing)?)
    };
    let looked_at = match &socket {
        ListeningSocket::Network(listener) => SockRef::from(listener),
        ListeningSocket::Unix(listener) => SockRef::from(listener),
    };
    if looked_at.peer_addr().is_ok() { Err(io::Error::other("it is a connection")) } else { Ok(socket) }
}

/// Tells systemd how the gateway is, where it wants to hear of it.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        let said = states.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        tracing::warn!(%error, said, "systemd could not be told");
    }
}

/// How long systemd waits for a sign of life before it ends the process, where it does.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}
