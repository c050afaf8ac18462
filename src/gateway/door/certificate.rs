//! Client certificates: which names in them the door knows. Whether a certificate is genuine was settled where the
//! connection was made.

use std::fmt;
use std::str::FromStr;

use crate::negotiate::glob;

/// The names in the certificate that a client showed when it connected. Whoever accepts the connection puts it among the
/// extensions of each request, with a resumed session as with a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's alternative names. Its common name is not one.
    pub names: Vec<SubjectName>,
}

/// An alternative name of a certificate's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// A name in the domain name system.
    Dns(String),
    /// A resource identifier, such as a SPIFFE one.
    Uri(String),
}

impl ClientCertificate {
    /// The first name that one of the patterns takes.
    pub fn name_among(&self, patterns: &[NamePattern]) -> Option<&str> {
        let known = |name: &&SubjectName| patterns.iter().any(|pattern| pattern.takes(name));
        self.names.iter().find(known).map(|name| match name {
            SubjectName::Dns(name) | SubjectName::Uri(name) => name.as_str(),
        })
    }
}

/// Names that the door knows: one name, or a pattern. In a DNS name `*` stands for any characters but a dot, in a URI for
/// any but a slash; `**` stands for any characters. What holds a colon is a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// Of DNS names, whose case does not count.
    Dns(Box<str>),
    /// Of URIs.
    Uri(Box<str>),
}

/// Why a text is not a [`NamePattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a name in a certificate: expected a DNS name or a URI of at most 255 characters, with `*` where any will do, \
     such as `*.ci.example` or `spiffe://example/ns/build/**`"
)]
pub struct InvalidNamePattern;

/// The longest pattern, and the longest name that is looked at, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl NamePattern {
    fn takes(&self, name: &SubjectName) -> bool {
        match (self, name) {
            (Self::Dns(pattern), SubjectName::Dns(name)) if name.len() <= NAME_BYTES_MAX => {
                glob::matches_apart(pattern.as_bytes(), name.to_ascii_lowercase().as_bytes(), b'.')
            }
            (Self::Uri(pattern), SubjectName::Uri(name)) if name.len() <= NAME_BYTES_MAX => {
                glob::matches_apart(pattern.as_bytes(), name.as_bytes(), b'/')
            }
            _ => false,
        }
    }
}

impl FromStr for NamePattern {
    type Err = InvalidNamePattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_dns = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*');
        let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        match () {
            () if !fits => Err(InvalidNamePattern),
            () if text.contains(':') => Ok(Self::Uri(text.into())),
            () if text.bytes().all(is_dns) => Ok(Self::Dns(text.to_ascii_lowercase().into())),
            () => Err(InvalidNamePattern),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Dns(pattern) | Self::Uri(pattern)) = self;
        formatter.write_str(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, name: &SubjectName) -> bool {
        pattern.parse::<NamePattern>().unwrap().takes(name)
    }

    #[test]
    fn stars_stop_at_the_parts_of_a_name() {
        let dns = |name: &str| SubjectName::Dns(name.to_owned());
        let uri = |name: &str| SubjectName::Uri(name.to_owned());
        for (pattern, name, expected) in [
            ("build.example", dns("build.example"), true),
            ("build.example", dns("BUILD.Example"), true),
            ("build.example", dns("build.example.attacker.test"), false),
            ("build.example", dns("xbuild.example"), false),
            ("*.ci.example", dns("seven.ci.example"), true),
            ("*.ci.example", dns("a.b.ci.example"), false),
            ("*.ci.example", dns("ci.example"), false),
            ("**.ci.example", dns("a.b.ci.example"), true),
            ("spiffe://example/ns/*/sa/puller", uri("spiffe://example/ns/build/sa/puller"), true),
            ("spiffe://example/ns/*/sa/puller", uri("spiffe://example/ns/a/b/sa/puller"), false),
            ("spiffe://example/**", uri("spiffe://example/ns/a/sa/b"), true),
            ("spiffe://example/**", uri("spiffe://example.attacker.test/ns/a"), false),
            ("spiffe://Example/x", uri("spiffe://example/x"), false),
            // a name of one kind is never taken for one of the other
            ("build.example", uri("build.example"), false),
            ("spiffe://example/x", dns("spiffe://example/x"), false),
            ("**", uri("spiffe://example/x"), false),
        ] {
            assert_eq!(takes(pattern, &name), expected, "{pattern} {name:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_no_pattern() {
        for bad in ["", "a b", "build/example", "ü.example", &"a".repeat(256)] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }
}
