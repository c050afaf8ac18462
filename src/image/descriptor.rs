//! Content descriptors (OCI image-spec `descriptor.md`; Docker schema 2 has the same shape).

use std::collections::BTreeMap;

use super::digest::Digest;
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
