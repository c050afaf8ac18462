//! The `--store` URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Where what must last is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `memory:`: nowhere; a restart forgets every derived digest.
    Memory,
    /// `file:///directory`.
    Directory(PathBuf),
}

/// Why a text is not a [`Location`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a store URL: expected `memory:` or `file:///directory` with an absolute path")]
pub struct InvalidLocation;

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| InvalidLocation)?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        match url.scheme() {
            "memory" if is_plain && url.path().is_empty() => Ok(Self::Memory),
            "file" if is_plain && text.starts_with("file:///") => {
                url.to_file_path().map(Self::Directory).map_err(|()| InvalidLocation)
            }
            _ => Err(InvalidLocation),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => formatter.write_str("memory:"),
            Self::Directory(directory) => write!(formatter, "file://{}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        assert_eq!("memory:".parse(), Ok(Location::Memory));
        assert_eq!("file:///var/lib/x".parse(), Ok(Location::Directory("/var/lib/x".into())));
        for bad in ["", "memory", "/var/lib/x", "file:x", "file://host/x", "file:///x?y", "s4://b", "memory:x"] {
            assert_eq!(bad.parse::<Location>(), Err(InvalidLocation), "{bad}");
        }
    }
}
