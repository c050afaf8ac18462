//! Floor 1, pure: one format said in another.
//!
//! A translation is a function of the stored bytes, the config's bytes, the repository and tag that schema 1 carries,
//! and the key that signs it; the same input gives the same bytes on every replica, for as long as [`EDITION`] stays.

pub mod empty_layer;
pub mod index;
mod oci_to_schema1;
mod oci_to_schema2;
mod repack;
mod schema1_to_oci;
mod schema1_to_schema2;
mod schema2_to_oci;
mod schema2_to_schema1;
pub mod sign;
pub mod table;
mod v1_container;
mod v1_image;
mod verify;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::image::config::{Config, InvalidConfig};
use crate::image::digest::Digest;
use crate::image::layer::{GzipLayer, LayerFacts, LayerKind};
use crate::image::manifest::{CONFIG_BYTES_MAX, Content, MANIFEST_BYTES_MAX, Manifest};
use crate::image::media_type::Format;
use crate::image::oci::ImageManifest;
use crate::image::reference::{Repository, Tag};

pub use repack::{needs_repacking, repacked};
pub use schema1_to_schema2::layers_read;
pub use sign::{SigningKey, signed};
pub use table::{cell, cell_for, upgrade_for};
pub use v1_image::V1Fault;
pub use verify::{BadSignature, verify};

/// Raised with every change to a byte that a translation writes.
pub const EDITION: u32 = 1;

/// What a translation is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The stored document.
    pub manifest: &'a Manifest,
    /// The config's bytes, where [`config_needed`] says so.
    pub config: Option<&'a [u8]>,
    /// The name that schema 1 carries: as it is sent upstream.
    pub repository: &'a Repository,
    /// The tag that schema 1 carries.
    pub tag: &'a Tag,
    /// Signs schema 1; no other target needs it.
    pub signing_key: Option<&'a SigningKey>,
    /// What was learnt of the layers by reading them, where somebody did.
    pub learnt: Option<&'a Learnt>,
}

/// What becomes of the layers of an image. Part of a recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerPolicy {
    /// They stay as they are.
    #[default]
    Stored,
    /// For those that are compressed with zstd stand gzip ones.
    Gzip,
}

/// What was learnt of layers by reading them, by their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// What their bytes tell. An upgrade of schema 1 needs it of each layer.
    pub facts: BTreeMap<Digest, LayerFacts>,
    /// The gzip layers that stand for them, for clients that cannot read zstd.
    pub gzip: BTreeMap<Digest, GzipLayer>,
}

/// A translated document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The document, byte for byte.
    pub bytes: Bytes,
    /// Its SHA-256 digest; for schema 1 that of the payload, which no signature changes.
    pub digest: Digest,
    /// What it is.
    pub format: Format,
    /// The blobs that it names and that were made with it: the registry does not have them.
    pub blobs: Vec<DerivedBlob>,
}

/// A blob that was made with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedBlob {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

/// One cell of the table: the function that translates.
pub type Cell = fn(&Source<'_>) -> Result<Derived, Untranslatable>;

/// Why an image cannot be said in the target format. Nothing is ever left out of an image to make it fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    /// The stored document is of a kind that no translation reads.
    #[error("{} is never translated", .format.name())]
    NotAnImage {
        /// What it is.
        format: Format,
    },
    /// The config was needed and not given.
    #[error("its config was not given")]
    ConfigMissing,
    /// The signing key was needed and not given.
    #[error("the key that signs schema 1 was not given")]
    SigningKeyMissing,
    /// The config's bytes are not those that the manifest names.
    #[error("its config does not have the digest that the manifest names, {expected}")]
    ConfigMismatch {
        /// What the manifest names.
        expected: Digest,
    },
    /// The config cannot be read.
    #[error("its config {0}")]
    Config(#[from] InvalidConfig),
    /// The config has no `rootfs`.
    #[error("its config has no `rootfs`, so it is not an image's")]
    NoRootfs,
    /// The config and the manifest count layers differently.
    #[error("its config names {diff_ids} layers, but the manifest has {layers}")]
    DiffIds {
        /// How many the config names.
        diff_ids: usize,
        /// How many the manifest has.
        layers: usize,
    },
    /// More steps that made a layer than layers.
    #[error("its history tells of {steps} layers, but the manifest has {layers}")]
    History {
        /// How many steps made a layer.
        steps: usize,
        /// How many layers there are.
        layers: usize,
    },
    /// A layer that the target format has no word for.
    #[error("layer {position} {fault}")]
    Layer {
        /// Its position, the lowest layer being 1.
        position: usize,
        /// What is wrong with it.
        fault: LayerFault,
    },
    /// Schema 1 that counts its layers and their histories differently, or has none.
    #[error("it has {layers} layers and {entries} entries of history, which must be as many")]
    Entries {
        /// How many layers.
        layers: usize,
        /// How many entries of history.
        entries: usize,
    },
    /// An entry of schema 1's history that no engine takes.
    #[error("entry {position} of its history, the topmost being 1, {fault}")]
    V1 {
        /// Its position, the topmost being 1.
        position: usize,
        /// What is wrong with it.
        fault: V1Fault,
    },
    /// A layer was to be read before, and was not.
    #[error("its layer {digest} has not been read")]
    LayerUnread {
        /// The layer.
        digest: Digest,
    },
    /// A layer's archive is not the one that the config names.
    #[error("layer {position} holds an archive with the digest {found}, but the config names {expected}")]
    DiffId {
        /// Its position, the lowest layer being 1.
        position: usize,
        /// What the config names.
        expected: String,
        /// What the layer holds.
        found: Digest,
    },
    /// The config would be larger than is read.
    #[error("its config would have {bytes} bytes, and at most {CONFIG_BYTES_MAX} are read")]
    ConfigTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// No entry of a list or index is left.
    #[error("no image is left of it: {omissions}")]
    NothingLeft {
        /// What was left out and why.
        omissions: String,
    },
    /// The result would be larger than clients and registries read.
    #[error("the translated document would have {bytes} bytes or more, and clients read at most {MANIFEST_BYTES_MAX}")]
    TooLarge {
        /// Its length, or as much of it as was known when it was given up.
        bytes: usize,
    },
}

/// What keeps a layer out of a format. Reads after "layer 3 ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerFault {
    /// zstd where only gzip is known.
    #[error("is compressed with zstd, which {} clients cannot read", word_of(*.target))]
    Zstd {
        /// The target format.
        target: Format,
    },
    /// Schema 1 has no place for `urls`.
    #[error("is foreign: it comes from elsewhere than the registry, which schema 1 cannot say")]
    Foreign,
    /// The key holder's business.
    #[error("is encrypted; only the stored document can be pulled")]
    Encrypted,
    /// The manifest is an attestation about an image.
    #[error("is an in-toto statement, so the manifest is an attestation and not an image")]
    InToto,
    /// A type that no specification of a layer knows.
    #[error("has the media type `{media_type}`, which {} has no word for", word_of(*.target))]
    Unknown {
        /// The type as written.
        media_type: String,
        /// The target format.
        target: Format,
    },
}

fn word_of(format: Format) -> &'static str {
    match format {
        Format::Schema1 => "schema 1",
        Format::Schema2 => "schema 2",
        _ => "OCI",
    }
}

/// [`Source::config`] must be given for this translation: always for schema 1, which is made from the config; else only
/// where the config's media type does not say that it is an image's.
pub fn config_needed(manifest: &Manifest, target: Format) -> bool {
    match manifest.content() {
        Content::Image(image) => target == Format::Schema1 || image.has_loose_config(),
        Content::Schema1(_) | Content::Index(_) | Content::Artifact(_) => false,
    }
}

impl<'a> Source<'a> {
    /// The stored image, gzip layers in the place of those that they stand for.
    fn image(&self) -> Result<Cow<'a, ImageManifest>, Untranslatable> {
        match self.manifest.content() {
            Content::Image(image) => self.with_gzip_layers(image),
            Content::Schema1(_) | Content::Index(_) | Content::Artifact(_) => {
                Err(Untranslatable::NotAnImage { format: self.manifest.format() })
            }
        }
    }

    /// The config's bytes, which are those that the manifest names.
    fn config_bytes(&self, image: &ImageManifest) -> Result<&'a [u8], Untranslatable> {
        let bytes = self.config.ok_or(Untranslatable::ConfigMissing)?;
        if image.config.digest.matches(bytes) {
            Ok(bytes)
        } else {
            Err(Untranslatable::ConfigMismatch { expected: image.config.digest.clone() })
        }
    }

    /// Refuses a config whose media type leaves open what it is and which turns out not to be an image's.
    fn require_image_config(&self, image: &ImageManifest) -> Result<(), Untranslatable> {
        if !image.has_loose_config() {
            return Ok(());
        }
        match Config::parse(self.config_bytes(image)?)?.rootfs {
            Some(_) => Ok(()),
            None => Err(Untranslatable::NoRootfs),
        }
    }
}

impl Derived {
    fn new(document: String, digest: Digest, format: Format) -> Result<Self, Untranslatable> {
        refuse_length(document.len())?;
        Ok(Self { bytes: document.into(), digest, format, blobs: Vec::new() })
    }
}

/// Refuses a document that will have at least this many bytes, if that is more than clients read.
fn refuse_length(bytes: usize) -> Result<(), Untranslatable> {
    if bytes > MANIFEST_BYTES_MAX { Err(Untranslatable::TooLarge { bytes }) } else { Ok(()) }
}

/// What the kind of a layer says about its place in the target format, for all but the kinds that the target knows.
fn layer_fault(kind: LayerKind, media_type: &str, target: Format) -> LayerFault {
    match kind {
        LayerKind::Encrypted => LayerFault::Encrypted,
        LayerKind::InToto => LayerFault::InToto,
        zstd if zstd.is_zstd() => LayerFault::Zstd { target },
        LayerKind::Foreign(_) => LayerFault::Foreign,
        LayerKind::Archive(_) | LayerKind::Unknown => LayerFault::Unknown { media_type: media_type.to_owned(), target },
    }
}

#[cfg(test)]
mod tests;
