//! Content descriptors (OCI image-spec `descriptor.md`; Docker schema 2 has the same shape).

use std::collections::BTreeMap;

use super::digest::Digest;
use super::media_type::{
    DOCKER_CONFIG, MANIFEST_LIST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA1_SIGNED, SCHEMA2,
};
use super::platform::Platform;

/// A typed pointer to bytes. Fields that no translation looks at are dropped when it is read: a derived document says
/// only what its format can say, and a stored one is answered from its own bytes, never from this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type as written; empty where the document gives none, as some lists do.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// Where a foreign layer can be fetched from. Copied, never dialled.
    pub urls: Vec<String>,
    /// Annotations in key order.
    pub annotations: BTreeMap<String, String>,
    /// The platform of a list's or index's entry.
    pub platform: Option<Platform>,
    /// The type of the artifact that an index entry points to.
    pub artifact_type: Option<String>,
}

/// What an entry of a list or index is, as far as the entry itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An image of one platform. Some lists give no media type: the child itself will tell.
    Image,
    /// A statement about another entry, as `BuildKit` lists them: not to be run.
    Attestation,
    /// A list or index of its own.
    Nested,
    /// Anything else.
    Artifact,
}

/// The annotation that `BuildKit` gives the entries of attestations.
pub const ATTESTATION: &str = "vnd.docker.reference.type";
/// The annotation in which an attestation names the digest of the entry that it is about.
pub const ATTESTED: &str = "vnd.docker.reference.digest";

impl Descriptor {
    /// What this entry of a list or index is.
    pub fn role(&self) -> Role {
        let is_unknown = self.platform.as_ref().is_some_and(Platform::is_unknown);
        if is_unknown || self.annotations.contains_key(ATTESTATION) {
            return Role::Attestation;
        }
        // An entry's artifactType may repeat its config's type, which an image has too.
        let kind = self.artifact_type.as_deref();
        let is_of_an_image = kind.is_none_or(|kind| matches!(kind, "" | OCI_CONFIG | DOCKER_CONFIG));
        match self.media_type.as_str() {
            "" | SCHEMA1 | SCHEMA1_SIGNED | SCHEMA2 | OCI_MANIFEST if is_of_an_image => Role::Image,
            MANIFEST_LIST | OCI_INDEX => Role::Nested,
            _ => Role::Artifact,
        }
    }

    /// The platform of this entry; empty words, which some tools write, are none.
    pub fn known_platform(&self) -> Option<&Platform> {
        self.platform.as_ref().filter(|platform| !(platform.os.is_empty() && platform.architecture.is_empty()))
    }
}
