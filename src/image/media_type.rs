//! Every media type that the gateway knows by name, once, and the formats that they stand for.

use std::fmt;

/// Docker schema 1, signed. What every answered schema 1 is labelled, because containerd and Docker ≥ 1.10 know only it.
pub const SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker schema 1 without a signature block.
pub const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker schema 2.
pub const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The withdrawn OCI artifact manifest of image-spec 1.1.0-rc.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker plugin config, which is not an image's.
pub const DOCKER_PLUGIN_CONFIG: &str = "application/vnd.docker.plugin.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a document on the manifests endpoint can be. A stored document has one, a client reads a set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Docker schema 1, signed or not.
    Schema1,
    /// Docker schema 2.
    Schema2,
    /// OCI image manifest of a container image.
    Oci,
    /// Docker manifest list.
    List,
    /// OCI image index.
    Index,
    /// Anything else a registry holds under a manifest reference: an OCI manifest whose config is not an image's or that
    /// has an `artifactType`, the withdrawn artifact manifest, a Docker plugin, a type of the future. Never translated.
    Artifact,
}

impl Format {
    /// All formats, in the order of the product's table.
    pub const ALL: [Self; 6] = [Self::Schema1, Self::Schema2, Self::Oci, Self::List, Self::Index, Self::Artifact];

    /// One lower-case word: `schema1`, `schema2`, `oci`, `list`, `index`, `artifact`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Schema1 => "schema1",
            Self::Schema2 => "schema2",
            Self::Oci => "oci",
            Self::List => "list",
            Self::Index => "index",
            Self::Artifact => "artifact",
        }
    }

    /// The name for a sentence that a person reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schema1 => "Docker schema 1",
            Self::Schema2 => "Docker schema 2",
            Self::Oci => "an OCI manifest",
            Self::List => "a Docker manifest list",
            Self::Index => "an OCI index",
            Self::Artifact => "an OCI artifact",
        }
    }

    /// The media type that an answer of this format carries; of an artifact, the one that most of them have.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Schema1 => SCHEMA1_SIGNED,
            Self::Schema2 => SCHEMA2,
            Self::Oci | Self::Artifact => OCI_MANIFEST,
            Self::List => MANIFEST_LIST,
            Self::Index => OCI_INDEX,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}
