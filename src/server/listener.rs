//! Where clients connect.

use tokio::net::TcpListener;

use super::tls::Tls;

/// Where clients connect. One that is made of a [`TcpListener`] speaks plain HTTP.
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<Tls>,
}

impl Listener {
    /// One that speaks TLS, if there is any.
    pub const fn new(socket: TcpListener, tls: Option<Tls>) -> Self {
        Self { socket, tls }
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self::new(socket, None)
    }
}
