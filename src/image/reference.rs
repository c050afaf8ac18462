//! Repository names, tags and references (OCI distribution-spec, section "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, InvalidDigest};

/// The longest repository name that registries take, in bytes.
const REPOSITORY_BYTES_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;

/// A repository name: path components of lower-case letters and digits, joined by `/`, with single separators
/// (`.`, `_`, `__` or any number of `-`) between letters and digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Box<str>);

/// A tag: a word character followed by at most 127 word characters, dots and hyphens.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// What follows `/manifests/`: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// Names whatever the registry points it at now.
    Tag(Tag),
    /// Names exactly these bytes.
    Digest(Digest),
}

/// Why a text is not a [`Repository`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a repository name: expected at most 255 bytes of lower-case letters, digits and single separators (`.`, `_`, `__`, `-`), in components joined by `/`"
)]
pub struct InvalidRepository;

/// Why a text is not a [`Tag`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tag: expected at most 128 letters, digits, `_`, `.` and `-`, the first neither `.` nor `-`")]
pub struct InvalidTag;

/// Why a text is not a [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It holds a colon, so it was meant as a digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// It holds no colon, so it was meant as a tag.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
}

impl Repository {
    /// The name as it is sent to the upstream.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = InvalidRepository;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > REPOSITORY_BYTES_MAX || !text.split('/').all(is_path_component) {
            return Err(InvalidRepository);
        }
        Ok(Self(text.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, from the distribution-spec.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    bytes
        .split(|byte| is_word(*byte))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

impl Tag {
    /// The tag as it is sent to the upstream.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = text.bytes();
        let starts_well = bytes.next().is_some_and(is_word);
        if !starts_well || text.len() > TAG_BYTES_MAX || !bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
        {
            return Err(InvalidTag);
        }
        Ok(Self(text.into()))
    }
}

impl Reference {
    /// The text as it stands after `/manifests/`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

macro_rules! written_as_its_text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    )*};
}
written_as_its_text!(Repository, Tag, Reference);

macro_rules! debug_and_serde_as_text {
    ($($type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
debug_and_serde_as_text!(Repository, Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_grammar() {
        for good in ["a", "library/httpd", "a-b/c_d/e__f/g.h", "a---b", "manifests", "a/manifests/blobs", "0/1"] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a_", "_a", "a..b", "a___b", "a._b", "a/../b", "..", "a%2fb", "a b", "é",
            &long,
        ] {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tag_and_reference_grammar() {
        for good in ["latest", "1.0", "_x", "A-b.C", &"t".repeat(128)] {
            assert!(matches!(good.parse(), Ok(Reference::Tag(_))), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a%", "sha256:abc", "é", &"t".repeat(129)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
