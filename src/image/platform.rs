//! Platforms (OCI image-spec `image-index.md`, property `platform`).

use std::fmt;
use std::str::FromStr;

/// An operating system, an architecture and, for some architectures, a variant, in Go's words (`linux`, `arm`, `v7`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// `GOOS`.
    pub os: String,
    /// `GOARCH`.
    pub architecture: String,
    /// Processor variant, such as `v7`; absent where the architecture has none or it is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variant: Option<String>,
    /// Operating system version, which Windows images have.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none", default)]
    pub os_version: Option<String>,
    /// Operating system features that the image needs, such as `win32k`.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty", default)]
    pub os_features: Vec<String>,
    /// Processor features that the image needs, which only Docker's manifest list can say.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub features: Vec<String>,
}

/// Why a text is not a [`Platform`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a platform: expected `os/architecture` or `os/architecture/variant`, such as `linux/amd64` or `linux/arm/v7`"
)]
pub struct InvalidPlatform;

impl Platform {
    /// `linux/amd64`, what a client that says nothing else gets.
    pub fn linux_amd64() -> Self {
        Self::new("linux", "amd64")
    }

    /// An operating system and an architecture, and nothing else known.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: None,
            os_version: None,
            os_features: Vec::new(),
            features: Vec::new(),
        }
    }

    /// Neither is known, which is how BuildKit lists its attestations.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_word) {
            return Err(InvalidPlatform);
        }
        match parts[..] {
            [os, architecture] => Ok(Self::new(os, architecture)),
            [os, architecture, variant] => Ok(Self { variant: Some(variant.into()), ..Self::new(os, architecture) }),
            _ => Err(InvalidPlatform),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(formatter, "/{variant}")?;
        }
        Ok(())
    }
}
