//! Where to listen: an address and a port, or a socket in the file system.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a socket in the file system begins with.
const UNIX: &str = "unix:";

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address of this machine and a port.
    Network(SocketAddr),
    /// A file that processes of this machine connect to.
    UnixSocket(PathBuf),
}

/// Why a text is not a [`ListenAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an IP address and a port, such as `127.0.0.1:5000` or `[::1]:5000`, or `unix:` and an absolute path, such as `unix:/run/schemabridge/schemabridge.sock`"
)]
pub struct InvalidListenAddress;

impl ListenAddress {
    /// The address, where others than this machine's own processes can reach it.
    pub const fn network(&self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(*address),
            Self::UnixSocket(_) => None,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = Path::new(path);
            let names_a_file = path.is_absolute() && path.file_name().is_some() && !text.ends_with('/');
            return if names_a_file { Ok(Self::UnixSocket(path.to_owned())) } else { Err(InvalidListenAddress) };
        }
        let text = text.strip_prefix(':').map_or_else(|| text.to_owned(), |port| format!("0.0.0.0:{port}"));
        text.parse().map(Self::Network).map_err(|_| InvalidListenAddress)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(formatter),
            Self::UnixSocket(path) => write!(formatter, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_file() {
        for (text, shown) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            (":80", "0.0.0.0:80"),
            ("[::1]:0", "[::1]:0"),
            ("unix:/run/a b.sock", "unix:/run/a b.sock"),
            ("unix:///run/a.sock", "unix:///run/a.sock"),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), shown);
        }
        for bad in
            ["", "5000", "localhost:5000", "unix:", "unix:run/a.sock", "unix:/", "unix:/run/", "unix:@name", "/run/a"]
        {
            assert_eq!(bad.parse::<ListenAddress>(), Err(InvalidListenAddress), "{bad}");
        }
    }
}
