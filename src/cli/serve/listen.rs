//! Where the gateway listens: what systemd opened for it, or else what flags say.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::config::systemd::{ListeningSocket, PassedSocket};
use crate::config::{ListenAddress, ServeArguments};
use crate::server::{CannotBind, Socket, UnixSocket};

use super::super::Failure;

/// How many connections may wait to be accepted, if the kernel allows as many: a fleet that is told to pull opens them all
/// at once, and one that finds no place tries again after a second at the earliest.
const WAITING_CONNECTIONS_MAX: u32 = 4096;

/// What systemd calls the socket of the operator.
const ADMIN: &str = "admin";

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
enum CannotListen {
    #[error("{flag} {address}: {reason}; expected an address of this machine and a port that nothing else listens on")]
    Network { flag: &'static str, address: SocketAddr, reason: std::io::Error },
    #[error("{flag} unix:{}: {reason}", .path.display())]
    Unix { flag: &'static str, path: PathBuf, reason: CannotBind },
}

/// A socket that is open, and where it is.
pub(super) struct Open {
    pub(super) socket: Socket,
    pub(super) address: ListenAddress,
}

/// The sockets that systemd opened.
#[derive(Default)]
pub(super) struct Passed {
    clients: Vec<ListeningSocket>,
    admin: Option<ListeningSocket>,
}

impl Passed {
    /// Tells what is for whom by the names.
    pub(super) fn sorted(sockets: Vec<PassedSocket>) -> Result<Self, Failure> {
        let mut passed = Self::default();
        for PassedSocket { name, socket } in sockets {
            if name != ADMIN {
                passed.clients.push(socket);
            } else if passed.admin.replace(socket).is_some() {
                return Err(format!("systemd passed two sockets called `{ADMIN}`: expected one at most").into());
            }
        }
        Ok(passed)
    }

    /// Where clients connect, if that is said by these.
    pub(super) fn addresses(&self) -> std::io::Result<Option<Vec<ListenAddress>>> {
        let addresses = self.clients.iter().map(address).collect::<Result<Vec<_>, _>>()?;
        Ok(if addresses.is_empty() { None } else { Some(addresses) })
    }

    /// Opens what is not open yet: for clients, and for the operator.
    pub(super) fn open(self, arguments: &ServeArguments) -> Result<(Vec<Open>, Open), Failure> {
        let mode = arguments.lifecycle.listen_mode;
        let mut clients = self.clients.into_iter().map(taken).collect::<Result<Vec<_>, _>>()?;
        if clients.is_empty() {
            for address in &arguments.listen {
                clients.push(listen("--listen", address, mode)?);
            }
        }
        let admin = match self.admin {
            Some(socket) => taken(socket)?,
            None => listen("--admin-listen", &arguments.admin_listen, mode)?,
        };
        Ok((clients, admin))
    }
}

fn address(socket: &ListeningSocket) -> std::io::Result<ListenAddress> {
    Ok(match socket {
        ListeningSocket::Network(listener) => ListenAddress::Network(listener.local_addr()?),
        ListeningSocket::Unix(listener) => {
            // One without a file has a name that only its unit knows.
            let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
            ListenAddress::UnixSocket(path.unwrap_or_default())
        }
    })
}

fn taken(socket: ListeningSocket) -> std::io::Result<Open> {
    let address = address(&socket)?;
    let socket = match socket {
        ListeningSocket::Network(listener) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)?.into()
        }
        ListeningSocket::Unix(listener) => {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)?.into()
        }
    };
    Ok(Open { socket, address })
}

fn listen(flag: &'static str, address: &ListenAddress, mode: u32) -> Result<Open, CannotListen> {
    match address {
        ListenAddress::Network(address) => {
            let address = *address;
            let cannot = |reason| CannotListen::Network { flag, address, reason };
            let listener = bound(address).map_err(cannot)?;
            // The port is the system's choice where none was said.
            let address = ListenAddress::Network(listener.local_addr().map_err(cannot)?);
            Ok(Open { socket: listener.into(), address })
        }
        ListenAddress::UnixSocket(path) => {
            let waiting = WAITING_CONNECTIONS_MAX.cast_signed();
            let socket = UnixSocket::bind(path, mode, waiting);
            let socket = socket.map_err(|reason| CannotListen::Unix { flag, path: path.clone(), reason })?;
            Ok(Open { socket: socket.into(), address: address.clone() })
        }
    }
}

fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart does not wait for what is left of the connections before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_CONNECTIONS_MAX)
}
