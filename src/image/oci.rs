//! OCI image manifests, indexes and artifacts (OCI image-spec `manifest.md`, `image-index.md`). Docker's schema 2 and
//! manifest lists have the same shape and are read here too.

use std::collections::{BTreeMap, BTreeSet};

use super::descriptor::Descriptor;
use super::json::{self, Object, ObjectWriter, Raw};
use super::layer::LayerKind;
use super::manifest::{Content, Malformed, read_array, read_string, refuse_other_case};
use super::media_type::{self, Format};
use super::platform::Platform;
use super::schema2;

/// A container image, as schema 2 and OCI describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// Points to the image config.
    pub config: Descriptor,
    /// Points to the layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations of the manifest, in key order.
    pub annotations: BTreeMap<String, String>,
}

/// A Docker manifest list or an OCI index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Points to the children, in the order in which they are listed.
    pub manifests: Vec<Descriptor>,
    /// Annotations of the index, in key order.
    pub annotations: BTreeMap<String, String>,
}

/// What is known about a document that is not an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its `artifactType`, where it names one.
    pub artifact_type: Option<String>,
    /// The media type of its config, where it has one.
    pub config_media_type: Option<String>,
}

const DESCRIPTOR_FIELDS: [&str; 8] =
    ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];
const PLATFORM_FIELDS: [&str; 6] = ["architecture", "os", "os.version", "os.features", "variant", "features"];

impl ImageManifest {
    /// The config's media type is one that Docker 1.13 to 18.03 take for an image's. Their schema 2 must have it.
    pub fn has_docker_config(&self) -> bool {
        self.config.media_type == media_type::DOCKER_CONFIG || self.has_loose_config()
    }

    /// The config's media type does not say what it is, as with some tools' schema 2: it is an image's if it has a
    /// `rootfs`, so the config blob itself must be seen.
    pub fn has_loose_config(&self) -> bool {
        schema2::LOOSE_CONFIG_TYPES.contains(&self.config.media_type.as_str())
    }

    /// A layer is compressed with zstd, which Docker before 23.0 cannot read.
    pub fn has_zstd_layers(&self) -> bool {
        self.layers.iter().any(|layer| LayerKind::of(&layer.media_type).is_zstd())
    }
}

impl Index {
    /// Every child is schema 2 or schema 1 by its type (or has none), as Docker before 18.06 needs it.
    pub fn has_only_docker_children(&self) -> bool {
        let docker = ["", media_type::SCHEMA2, media_type::SCHEMA1, media_type::SCHEMA1_SIGNED];
        self.manifests.iter().all(|child| docker.contains(&child.media_type.as_str()))
    }

    pub(super) fn read(top: &Object<'_>) -> Result<Self, Malformed> {
        Ok(Self { manifests: read_descriptors(top, "manifests")?, annotations: read_annotations(top)? })
    }
}

impl Artifact {
    /// Only what a message needs; the rest of a document that nobody here understands is nobody's business here.
    pub(super) fn read(top: &Object<'_>) -> Result<Self, Malformed> {
        let config = top.value("config").and_then(Raw::object);
        let config_media_type = config.and_then(|config| config.value("mediaType")?.string().map(Into::into));
        let artifact_type = Some(read_string(top, "artifactType")?).filter(|text| !text.is_empty());
        Ok(Self { artifact_type, config_media_type })
    }
}

/// Reads a document of the shape of an image, and tells images from artifacts: an artifact has an `artifactType`, or a
/// config that is not an image's (a Docker plugin's, for one).
pub(super) fn read_image(top: &Object<'_>, format: Format) -> Result<(Format, Content), Malformed> {
    let config = top.value("config").ok_or_else(|| Malformed::field("config", "a descriptor"))?;
    let image = ImageManifest {
        config: read_descriptor(config).map_err(|fault| fault.within("config"))?,
        layers: read_descriptors(top, "layers")?,
        annotations: read_annotations(top)?,
    };
    let named_an_image =
        [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&image.config.media_type.as_str());
    let loosely_an_image = format == Format::Schema2 && image.has_loose_config();
    if read_string(top, "artifactType")?.is_empty() && (named_an_image || loosely_an_image) {
        Ok((format, Content::Image(image)))
    } else {
        Ok((Format::Artifact, Content::Artifact(Artifact::read(top)?)))
    }
}

fn read_descriptors(top: &Object<'_>, key: &'static str) -> Result<Vec<Descriptor>, Malformed> {
    let elements = read_array(top, key)?;
    let read =
        |(position, element)| read_descriptor(element).map_err(|fault| fault.within(format_args!("{key}[{position}]")));
    elements.into_iter().enumerate().map(read).collect()
}

fn read_descriptor(value: Raw<'_>) -> Result<Descriptor, Malformed> {
    let object = value.object().ok_or_else(|| Malformed::field("mediaType", "a descriptor around it"))?;
    refuse_other_case(&object, &DESCRIPTOR_FIELDS)?;
    let digest = read_string(&object, "digest")?;
    let digest = digest.parse().map_err(|_| {
        Malformed::field("digest", "sha256, sha384 or sha512, a colon and that many lower-case hexadecimal digits")
    })?;
    let size = object.value("size").and_then(Raw::integer).and_then(|size| u64::try_from(size).ok());
    Ok(Descriptor {
        media_type: read_string(&object, "mediaType")?,
        digest,
        size: size.ok_or_else(|| Malformed::field("size", "a whole number of bytes from 0 to 2^63-1"))?,
        urls: read_strings(&object, "urls")?,
        annotations: read_annotations(&object)?,
        platform: object.value("platform").map(read_platform).transpose().map_err(|fault| fault.within("platform"))?,
        artifact_type: Some(read_string(&object, "artifactType")?).filter(|text| !text.is_empty()),
    })
}

fn read_platform(value: Raw<'_>) -> Result<Platform, Malformed> {
    let object = value.object().ok_or_else(|| Malformed::field("os", "a platform around it"))?;
    refuse_other_case(&object, &PLATFORM_FIELDS)?;
    let optional = |key| read_string(&object, key).map(|text| Some(text).filter(|text| !text.is_empty()));
    Ok(Platform {
        os: read_string(&object, "os")?,
        architecture: read_string(&object, "architecture")?,
        variant: optional("variant")?,
        os_version: optional("os.version")?,
        os_features: read_strings(&object, "os.features")?,
        features: read_strings(&object, "features")?,
    })
}

fn read_strings(object: &Object<'_>, key: &'static str) -> Result<Vec<String>, Malformed> {
    let text = |element: Raw<'_>| element.string().map(Into::into).ok_or_else(|| Malformed::field(key, "strings"));
    read_array(object, key)?.into_iter().map(text).collect()
}

fn read_annotations(object: &Object<'_>) -> Result<BTreeMap<String, String>, Malformed> {
    let invalid = || Malformed::field("annotations", "an object of strings");
    let Some(value) = object.value("annotations") else {
        return Ok(BTreeMap::new());
    };
    let annotations = value.object().ok_or_else(invalid)?;
    let pair =
        |(key, value): &(std::borrow::Cow<'_, str>, Raw<'_>)| Some((key.to_string(), value.string()?.into_owned()));
    annotations.members().iter().map(|member| pair(member).ok_or_else(invalid)).collect()
}

/// Writes an OCI index: compact, without a newline at the end, annotations kept.
pub fn write_index(index: &Index) -> String {
    let text = ObjectWriter::new()
        .json("schemaVersion", "2")
        .string("mediaType", media_type::OCI_INDEX)
        .json("manifests", &json::array(index.manifests.iter().map(write_entry)));
    with_annotations(text, &index.annotations).finish()
}

/// The same list or index without the entries at these positions: every other byte of an entry, and of the members
/// around them, as it was written. `None` if the document has no entries.
pub fn without_entries(document: &str, dropped: &BTreeSet<usize>) -> Option<String> {
    fn text(raw: Raw<'_>) -> Option<&str> {
        std::str::from_utf8(raw.as_bytes()).ok()
    }
    let top = json::scan(document.as_bytes(), document.len(), json::Dialect::Strict).ok()?.object()?;
    let entries = top.value("manifests")?.array()?.into_iter().enumerate();
    let kept: Option<Vec<&str>> =
        entries.filter(|(position, _)| !dropped.contains(position)).map(|(_, entry)| text(entry)).collect();
    let manifests = json::array(kept?);
    let mut written = ObjectWriter::new();
    for (key, value) in top.members() {
        written = written.json(key, if key == "manifests" { &manifests } else { text(*value)? });
    }
    Some(written.finish())
}

/// Writes an OCI manifest: compact, without a newline at the end, annotations kept.
pub fn write(image: &ImageManifest) -> String {
    let text = ObjectWriter::new()
        .json("schemaVersion", "2")
        .string("mediaType", media_type::OCI_MANIFEST)
        .json("config", &write_descriptor(&image.config))
        .json("layers", &json::array(image.layers.iter().map(write_descriptor)));
    with_annotations(text, &image.annotations).finish()
}

fn write_descriptor(descriptor: &Descriptor) -> String {
    descriptor_members(descriptor).finish()
}

/// An entry of an index, which says more than other descriptors: what it runs on, or what kind of artifact it is.
fn write_entry(entry: &Descriptor) -> String {
    let mut text = descriptor_members(entry);
    if let Some(platform) = &entry.platform {
        text = text.json("platform", &write_platform(platform));
    }
    text.string_unless_empty("artifactType", entry.artifact_type.as_deref().unwrap_or_default()).finish()
}

fn descriptor_members(descriptor: &Descriptor) -> ObjectWriter {
    let mut text = ObjectWriter::new()
        .string("mediaType", &descriptor.media_type)
        .string("digest", descriptor.digest.as_str())
        .json("size", &descriptor.size.to_string());
    if !descriptor.urls.is_empty() {
        text = text.json("urls", &json::array(descriptor.urls.iter().map(|url| json::string(url))));
    }
    with_annotations(text, &descriptor.annotations)
}

fn write_platform(platform: &Platform) -> String {
    let text = ObjectWriter::new()
        .string("architecture", &platform.architecture)
        .string("os", &platform.os)
        .string_unless_empty("os.version", platform.os_version.as_deref().unwrap_or_default());
    let text = with_strings(text, "os.features", &platform.os_features);
    text.string_unless_empty("variant", platform.variant.as_deref().unwrap_or_default()).finish()
}

/// A member that is an array of strings; none where there are none.
pub(super) fn with_strings(text: ObjectWriter, key: &str, values: &[String]) -> ObjectWriter {
    if values.is_empty() {
        return text;
    }
    text.json(key, &json::array(values.iter().map(|value| json::string(value))))
}

fn with_annotations(text: ObjectWriter, annotations: &BTreeMap<String, String>) -> ObjectWriter {
    if annotations.is_empty() {
        return text;
    }
    let written = annotations.iter().fold(ObjectWriter::new(), |object, (key, value)| object.string(key, value));
    text.json("annotations", &written.finish())
}
