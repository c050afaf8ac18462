//! Where clients connect.

use tokio::net::TcpListener;

use super::limits::Places;
use super::tls::Tls;

/// Where clients connect. One that is made of a [`TcpListener`] speaks plain HTTP.
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<Tls>,
    pub(super) places: Places,
}

impl Listener {
    /// One that speaks TLS, if there is any.
    pub fn new(socket: TcpListener, tls: Option<Tls>) -> Self {
        Self { socket, tls, places: Places::default() }
    }

    /// The same, whose connections have these places: those of its own otherwise.
    #[must_use]
    pub fn within(self, places: Places) -> Self {
        Self { places, ..self }
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self::new(socket, None)
    }
}
