//! A document of the manifests endpoint: its exact bytes, and what they say.

use bytes::Bytes;

use crate::image::digest::Digest;
use crate::image::json::{self, Dialect, Object, Raw};
use crate::image::media_type::{self, Format};
use crate::image::oci::{self, Artifact, ImageManifest, Index};
use crate::image::schema1::Schema1;

pub use crate::image::json::DEPTH_MAX;

/// The largest manifest that is read, and the largest that is made: 4 MiB, the limit of registries (OCI
/// distribution-spec, "Pushing Manifests").
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// The largest config blob that is read.
pub const CONFIG_BYTES_MAX: usize = 8 << 20;

/// A manifest: its exact bytes next to the typed view of them.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Bytes,
    digest: Digest,
    format: Format,
    media_type: Box<str>,
    content: Content,
}

/// The typed view of a manifest.
#[derive(Clone, Debug)]
pub enum Content {
    /// Docker schema 1.
    Schema1(Schema1),
    /// Docker schema 2, or the OCI manifest of a container image; the two have one shape.
    Image(ImageManifest),
    /// A Docker manifest list or an OCI index; the two have one shape.
    Index(Index),
    /// Something that is not an image, and is never translated.
    Artifact(Artifact),
}

/// Why bytes are not a manifest that can be classified without doubt. Reads after "the stored document ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or beyond a limit, or with a key twice.
    #[error(transparent)]
    Json(#[from] json::Fault),
    /// A JSON document, but not an object.
    #[error("is not a JSON object")]
    NotAnObject,
    /// Fields of two kinds of manifest at once, so that two readers could see two images (CVE-2021-41190).
    #[error("is ambiguous: it is {} by its type, but has `{field}`, a field of another kind of manifest", .format.name())]
    Ambiguous {
        /// What its media type or shape says.
        format: Format,
        /// The field that contradicts it.
        field: &'static str,
    },
    /// A `schemaVersion` that contradicts the `mediaType`.
    #[error("is ambiguous: its `schemaVersion` is {found}, but its `mediaType` is that of {}", .format.name())]
    VersionContradicts {
        /// What its media type says.
        format: Format,
        /// Its `schemaVersion`.
        found: i64,
    },
    /// A key that Go's decoder, which ignores case, takes for one that other parsers do not see.
    #[error("is ambiguous: it names {}, which some parsers read as `{known}`", json::quoted(.key))]
    OtherCase {
        /// The key as written.
        key: String,
        /// The field's name.
        known: &'static str,
    },
    /// Neither a media type nor a shape that any specification describes.
    #[error("has no `mediaType` and the fields of no kind of manifest that is known")]
    Unrecognised,
    /// A field that is missing or holds what its specification does not allow.
    #[error("has no valid `{place}`: expected {expected}")]
    Field {
        /// Where it is, as a path of field names and positions from 0.
        place: String,
        /// What would have been right.
        expected: &'static str,
    },
}

/// The fields that tell the kinds of manifest apart (those of containers/image's guard against CVE-2021-41190).
const TELLING_FIELDS: [&str; 5] = ["config", "fsLayers", "history", "layers", "manifests"];

/// Every field of a manifest's top level that some reader acts on.
pub(in crate::image) const TOP_FIELDS: [&str; 15] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "annotations",
    "subject",
    "artifactType",
    "blobs",
    "fsLayers",
    "history",
    "name",
    "tag",
    "architecture",
    "signatures",
];

impl Manifest {
    /// Classifies a document by its own bytes (a `Content-Type` is never asked), within [`MANIFEST_BYTES_MAX`] and
    /// [`DEPTH_MAX`]. Linear in the bytes.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let (digest, format, media_type, content) = read(&bytes)?;
        Ok(Self { bytes, digest, format, media_type, content })
    }

    /// The document, byte for byte.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its SHA-256 digest: of the payload for schema 1, so that a signature does not change it, of the bytes otherwise.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What it counts as to an engine that knows Docker's types only (Docker 1.10 to 18.05): a schema 2 with a config
    /// type that is not Docker's counts as an OCI manifest, a list with a child that is not Docker's as an index.
    pub fn counts_as(&self) -> Format {
        match (&self.content, self.format) {
            (Content::Image(image), Format::Schema2) if !image.has_docker_config() => Format::Oci,
            (Content::Index(index), Format::List) if !index.has_only_docker_children() => Format::Index,
            (_, format) => format,
        }
    }

    /// The `Content-Type` of an answer that carries it. Schema 1 is always called signed: an unsigned one is given a
    /// signature on the way out, and no engine since Docker 1.10 reads the other type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What it says.
    pub fn content(&self) -> &Content {
        &self.content
    }
}

type Parts = (Digest, Format, Box<str>, Content);

fn read(bytes: &Bytes) -> Result<Parts, Malformed> {
    let document = json::scan(bytes, MANIFEST_BYTES_MAX, Dialect::Strict)?;
    let top = document.object().ok_or(Malformed::NotAnObject)?;
    refuse_other_case(&top, &["mediaType", "schemaVersion"])?;
    let named = read_media_type(&top)?;
    let format = classify(&top, named.as_deref())?;
    refuse_ambiguity(&top, format)?;
    let (format, content) = match format {
        Format::Schema1 => {
            let schema1 = Schema1::read(bytes, &top)?;
            return Ok((schema1.digest(), format, format.media_type().into(), Content::Schema1(schema1)));
        }
        Format::Schema2 | Format::Oci => oci::read_image(&top, format)?,
        Format::List | Format::Index => (format, Content::Index(Index::read(&top)?)),
        Format::Artifact => (format, Content::Artifact(Artifact::read(&top)?)),
    };
    let media_type = named.unwrap_or_else(|| format.media_type().into());
    Ok((Digest::sha256(bytes), format, media_type, content))
}

/// The top-level `mediaType`; an empty one is none. It becomes a header, so it must have the grammar of RFC 6838.
fn read_media_type(top: &Object<'_>) -> Result<Option<Box<str>>, Malformed> {
    let invalid =
        || Malformed::field("mediaType", "a media type, such as `application/vnd.oci.image.manifest.v1+json`");
    let Some(value) = top.value("mediaType") else {
        return Ok(None);
    };
    let text = value.string().ok_or_else(invalid)?;
    if text.is_empty() {
        return Ok(None);
    }
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match text.split_once('/') {
        Some((group, name)) if is_name(group) && is_name(name) => Ok(Some(text.as_ref().into())),
        _ => Err(invalid()),
    }
}

/// By the document's own `mediaType`; without one, by its shape. An image that proves to be an artifact is still an
/// image here.
fn classify(top: &Object<'_>, media_type: Option<&str>) -> Result<Format, Malformed> {
    let version = match top.value("schemaVersion") {
        Some(value) => Some(value.integer().ok_or_else(|| Malformed::field("schemaVersion", "1 or 2"))?),
        None => None,
    };
    let format = match media_type {
        Some(media_type::SCHEMA1 | media_type::SCHEMA1_SIGNED) => Format::Schema1,
        Some(media_type::SCHEMA2) => Format::Schema2,
        Some(media_type::OCI_MANIFEST) => Format::Oci,
        Some(media_type::MANIFEST_LIST) => Format::List,
        Some(media_type::OCI_INDEX) => Format::Index,
        Some(_) => return Ok(Format::Artifact),
        None => return classify_by_shape(top, version),
    };
    let expected = if format == Format::Schema1 { 1 } else { 2 };
    match version {
        Some(found) if found != expected => Err(Malformed::VersionContradicts { format, found }),
        _ => Ok(format),
    }
}

/// OCI documents need not name their type; schema 1 never did. A schema 2 without its type is an OCI manifest with
/// Docker's config type: that is how registries answer it, and Docker would refuse it under its own type.
fn classify_by_shape(top: &Object<'_>, version: Option<i64>) -> Result<Format, Malformed> {
    match version {
        Some(1) => Ok(Format::Schema1),
        Some(2) if top.names("manifests") => Ok(Format::Index),
        Some(2) if top.names("layers") || top.names("config") => Ok(Format::Oci),
        _ => Err(Malformed::Unrecognised),
    }
}

/// Lets a document of an unknown type be: its fields are its own business.
fn refuse_ambiguity(top: &Object<'_>, format: Format) -> Result<(), Malformed> {
    let own: &[&str] = match format {
        Format::Schema1 => &["fsLayers", "history"],
        Format::Schema2 | Format::Oci => &["config", "layers"],
        Format::List | Format::Index => &["manifests"],
        Format::Artifact => return Ok(()),
    };
    refuse_other_case(top, &TOP_FIELDS)?;
    match TELLING_FIELDS.into_iter().find(|field| !own.contains(field) && top.names(field)) {
        Some(field) => Err(Malformed::Ambiguous { format, field }),
        None => Ok(()),
    }
}

/// Go's decoder takes `Layers` for `layers` and other parsers do not, so a document that depends on it is two documents.
pub(in crate::image) fn refuse_other_case(object: &Object<'_>, fields: &[&'static str]) -> Result<(), Malformed> {
    for (key, _) in object.members() {
        let known = fields.iter().find(|field| json::equal_fold(key, field));
        if let Some(known) = known.filter(|known| *key != **known) {
            return Err(Malformed::OtherCase { key: key.to_string(), known });
        }
    }
    Ok(())
}

impl Malformed {
    pub(in crate::image) fn field(place: impl Into<String>, expected: &'static str) -> Self {
        Self::Field { place: place.into(), expected }
    }

    /// The same fault, seen from the object around it.
    pub(in crate::image) fn within(self, outer: impl std::fmt::Display) -> Self {
        match self {
            Self::Field { place, expected } => Self::Field { place: format!("{outer}.{place}"), expected },
            other => other,
        }
    }
}

/// The string of this key; empty if it is not there.
pub(in crate::image) fn read_string(object: &Object<'_>, key: &'static str) -> Result<String, Malformed> {
    match object.value(key) {
        None => Ok(String::new()),
        Some(value) => value.string().map(Into::into).ok_or_else(|| Malformed::field(key, "a string")),
    }
}

/// The elements of this key's array; none if it is not there.
pub(in crate::image) fn read_array<'a>(object: &Object<'a>, key: &'static str) -> Result<Vec<Raw<'a>>, Malformed> {
    match object.value(key) {
        None => Ok(Vec::new()),
        Some(value) => value.array().ok_or_else(|| Malformed::field(key, "an array")),
    }
}

#[cfg(test)]
mod tests;
