//! Who is at the other end of a connection, and whether what it says of others is believed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody at an address.
    Network(SocketAddr),
    /// A process of this machine that may open a socket of the file system.
    UnixSocket,
}

impl Peer {
    /// Where it is. What comes in by a socket of the file system is on this machine.
    pub const fn address(self) -> IpAddr {
        match self {
            Self::Network(address) => address.ip(),
            Self::UnixSocket => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl Peer {
    /// Its address, if it is on the network.
    pub const fn network(self) -> Option<IpAddr> {
        match self {
            Self::Network(address) => Some(address.ip()),
            Self::UnixSocket => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(formatter),
            Self::UnixSocket => formatter.write_str("unix"),
        }
    }
}

/// Whose `X-Forwarded-Proto` and `X-Forwarded-For` are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Whoever is in this network.
    Network(IpNet),
    /// Whoever comes in by a socket of the file system: no network holds that, not even this machine's own.
    UnixSocket,
}

impl TrustedProxy {
    /// Whether this is one.
    pub fn is(self, peer: Peer) -> bool {
        match (self, peer) {
            (Self::Network(network), Peer::Network(address)) => network.contains(&address.ip()),
            (Self::UnixSocket, Peer::UnixSocket) => true,
            _ => false,
        }
    }
}

/// Why a text is not a [`TrustedProxy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network, such as `10.0.0.0/8` or `127.0.0.1`, or `unix`")]
pub struct InvalidTrustedProxy;

impl FromStr for TrustedProxy {
    type Err = InvalidTrustedProxy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::UnixSocket);
        }
        let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(single).map(Self::Network).ok_or(InvalidTrustedProxy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_the_file_system_is_trusted_by_its_own_name_only() {
        let local = Peer::from(SocketAddr::from(([127, 0, 0, 1], 40_000)));
        let trusts = |text: &str, peer| text.parse::<TrustedProxy>().unwrap().is(peer);
        assert!(trusts("unix", Peer::UnixSocket) && !trusts("unix", local));
        for network in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0"] {
            assert!(trusts(network, local) && !trusts(network, Peer::UnixSocket), "{network}");
        }
        for bad in ["", "Unix", "unix:/run/x", "10.0.0.0/33", "proxy.example"] {
            assert_eq!(bad.parse::<TrustedProxy>(), Err(InvalidTrustedProxy), "{bad}");
        }
    }
}
