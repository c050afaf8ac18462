//! Where clients connect.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::gateway::Peer;

use super::limits::{Limits, Places};
use super::tls::Tls;
use super::unix_socket::UnixSocket;

/// Where clients connect. One that is made of a socket speaks plain HTTP.
pub struct Listener {
    pub(super) socket: Socket,
    pub(super) tls: Option<Tls>,
    pub(super) places: Places,
}

/// A socket to which clients connect.
#[derive(Debug)]
pub enum Socket {
    /// At an address.
    Network(TcpListener),
    /// In the file system.
    Unix(UnixSocket),
}

/// A connection that was taken.
pub(super) enum Accepted {
    Network(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// One that speaks TLS, if there is any, at an address. What comes by the file system never leaves the machine and is
    /// plain.
    pub fn new(socket: impl Into<Socket>, tls: Option<Tls>) -> Self {
        Self { socket: socket.into(), tls, places: Places::default() }
    }

    /// The same, whose connections have these places: those of its own otherwise.
    #[must_use]
    pub fn within(self, places: Places) -> Self {
        Self { places, ..self }
    }
}

impl<Made: Into<Socket>> From<Made> for Listener {
    fn from(socket: Made) -> Self {
        Self::new(socket, None)
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Self::Network(listener)
    }
}

impl From<UnixListener> for Socket {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener.into())
    }
}

impl From<UnixSocket> for Socket {
    fn from(socket: UnixSocket) -> Self {
        Self::Unix(socket)
    }
}

impl Socket {
    pub(super) async fn accept(&self, limits: &Limits) -> io::Result<(Accepted, Peer)> {
        match self {
            Self::Network(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Accepted::Network(prepared(stream, limits.body_idle_timeout)), peer.into()))
            }
            Self::Unix(socket) => {
                socket.listener.accept().await.map(|(stream, _)| (Accepted::Unix(stream), Peer::UnixSocket))
            }
        }
    }
}

fn prepared(stream: TcpStream, unanswered: Duration) -> TcpStream {
    // An answer's head and the end of its body are small writes that should not wait for each other. A socket that
    // refuses the option is only slower.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    // The kernel waits a quarter of an hour for a client whose machine is gone, and the connection with it.
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(unanswered)) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT was refused");
    }
    stream
}
