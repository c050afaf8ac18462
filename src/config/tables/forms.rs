//! How single values are written.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::config::values;
use crate::negotiate::Glob;

/// What an upstream is called in metrics, logs and the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub(super) String);

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = text.starts_with(|char: char| char.is_ascii_lowercase() || char.is_ascii_digit())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("the name `{text}` is not one: expected lower-case letters, digits, `-`, `_` and `.`"))
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A duration with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Duration(pub(super) std::time::Duration);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        values::duration(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// A value that is written as the flag of the same kind is.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Text<Value>(pub(in crate::config) Value);

impl<'de, Value: values::Written> Deserialize<'de> for Text<Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::read(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// A number of bytes with a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        values::byte_size(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// The URL of a proxy. It may hold credentials, so it does not print.
#[derive(Clone, PartialEq)]
pub(super) struct ProxyUrl(pub(super) Url);

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.origin().ascii_serialization())
    }
}

impl<'de> Deserialize<'de> for ProxyUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let url = Url::parse(&String::deserialize(deserializer)?).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.map(Self).ok_or_else(|| D::Error::custom("expected the http or https URL of a proxy"))
    }
}

/// A pattern of tags.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TagGlob(pub(super) Glob);

impl<'de> Deserialize<'de> for TagGlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Glob::of_tags(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}
