//! A document of the manifests endpoint: its exact bytes, and what they say.

use bytes::Bytes;

use super::digest::Digest;
use super::json::{self, Keys, Object, Raw};
use super::media_type::{self, Format};
use super::oci::{self, Artifact, ImageManifest, Index};
use super::schema1::Schema1;

pub use super::json::DEPTH_MAX;

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
const TOP_FIELDS: [&str; 16] = [
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
    "protected",
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
    let document = json::scan(bytes, MANIFEST_BYTES_MAX, Keys::Distinct)?;
    let top = document.object().ok_or(Malformed::NotAnObject)?;
    refuse_other_case(&top, &TOP_FIELDS)?;
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

fn refuse_ambiguity(top: &Object<'_>, format: Format) -> Result<(), Malformed> {
    let own: &[&str] = match format {
        Format::Schema1 => &["fsLayers", "history"],
        Format::Schema2 | Format::Oci => &["config", "layers"],
        Format::List | Format::Index => &["manifests"],
        Format::Artifact => return Ok(()),
    };
    match TELLING_FIELDS.into_iter().find(|field| !own.contains(field) && top.names(field)) {
        Some(field) => Err(Malformed::Ambiguous { format, field }),
        None => Ok(()),
    }
}

/// Go's decoder takes `Layers` for `layers` and other parsers do not, so a document that depends on it is two documents.
pub(super) fn refuse_other_case(object: &Object<'_>, fields: &[&'static str]) -> Result<(), Malformed> {
    for (key, _) in object.members() {
        let known = fields.iter().find(|field| json::equal_fold(key, field));
        if let Some(known) = known.filter(|known| *key != **known) {
            return Err(Malformed::OtherCase { key: key.to_string(), known });
        }
    }
    Ok(())
}

impl Malformed {
    pub(super) fn field(place: impl Into<String>, expected: &'static str) -> Self {
        Self::Field { place: place.into(), expected }
    }

    /// The same fault, seen from the object around it.
    pub(super) fn within(self, outer: impl std::fmt::Display) -> Self {
        match self {
            Self::Field { place, expected } => Self::Field { place: format!("{outer}.{place}"), expected },
            other => other,
        }
    }
}

/// The string of this key; empty if it is not there.
pub(super) fn read_string(object: &Object<'_>, key: &'static str) -> Result<String, Malformed> {
    match object.value(key) {
        None => Ok(String::new()),
        Some(value) => value.string().map(Into::into).ok_or_else(|| Malformed::field(key, "a string")),
    }
}

/// The elements of this key's array; none if it is not there.
pub(super) fn read_array<'a>(object: &Object<'a>, key: &'static str) -> Result<Vec<Raw<'a>>, Malformed> {
    match object.value(key) {
        None => Ok(Vec::new()),
        Some(value) => value.array().ok_or_else(|| Malformed::field(key, "an array")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A descriptor of this type.
    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":7}}"#)
    }

    /// An image of this manifest and config type without layers.
    fn image(media_type: &str, config_type: &str) -> String {
        let config = descriptor(config_type);
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[]}}"#)
    }

    fn schema1() -> String {
        format!(
            r#"{{"schemaVersion":1,"name":"a","tag":"b","architecture":"c","fsLayers":[{{"blobSum":"{DIGEST}"}}],"history":[{{"v1Compatibility":"{{}}"}}]}}"#
        )
    }

    fn parse(text: &str) -> Result<Manifest, Malformed> {
        Manifest::parse(text.to_owned().into())
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_document_is_what_its_media_type_says() {
        for (text, format) in [
            (image(media_type::SCHEMA2, media_type::DOCKER_CONFIG), Format::Schema2),
            (image(media_type::SCHEMA2, media_type::OCI_CONFIG), Format::Schema2),
            (image(media_type::SCHEMA2, "application/octet-stream"), Format::Schema2),
            (image(media_type::SCHEMA2, ""), Format::Schema2),
            (image(media_type::SCHEMA2, media_type::DOCKER_PLUGIN_CONFIG), Format::Artifact),
            (image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG), Format::Oci),
            (image(media_type::OCI_MANIFEST, media_type::DOCKER_CONFIG), Format::Oci),
            (image(media_type::OCI_MANIFEST, "application/vnd.oci.empty.v1+json"), Format::Artifact),
            (image(media_type::OCI_MANIFEST, "application/json"), Format::Artifact),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX), Format::Index),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, media_type::MANIFEST_LIST), Format::List),
            (format!(r#"{{"mediaType":"{}","blobs":[]}}"#, media_type::OCI_ARTIFACT), Format::Artifact),
        ] {
            let manifest = parse(&text).unwrap();
            assert_eq!(manifest.format(), format, "{text}");
            assert!(text.contains(&format!("\"mediaType\":\"{}\"", manifest.media_type())), "{text}");
            assert_eq!((manifest.bytes(), manifest.digest()), (&text.clone().into(), &Digest::sha256(text.as_bytes())));
        }
        let future = parse(r#"{"mediaType":"application/vnd.future.v9+json","layers":1,"manifests":2}"#).unwrap();
        assert_eq!((future.format(), future.media_type()), (Format::Artifact, "application/vnd.future.v9+json"));
    }

    #[test]
    fn without_a_media_type_its_shape_decides() {
        let without = |text: String| text.replacen(&format!(r#""mediaType":"{}","#, media_type::OCI_MANIFEST), "", 1);
        for config in [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG] {
            let manifest = parse(&without(image(media_type::OCI_MANIFEST, config))).unwrap();
            assert_eq!((manifest.format(), manifest.media_type()), (Format::Oci, media_type::OCI_MANIFEST));
        }
        let index = parse(r#"{"schemaVersion":2,"mediaType":"","manifests":[]}"#).unwrap();
        assert_eq!((index.format(), index.media_type()), (Format::Index, media_type::OCI_INDEX));
        let unsigned = parse(&schema1()).unwrap();
        assert_eq!((unsigned.format(), unsigned.media_type()), (Format::Schema1, media_type::SCHEMA1_SIGNED));
        for text in ["{}", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":3,"layers":[]}"#, r#"{"layers":[]}"#] {
            assert_eq!(parse(text).unwrap_err(), Malformed::Unrecognised, "{text}");
        }
        for text in ["[]", "null", "\"manifest\"", "1"] {
            assert_eq!(parse(text).unwrap_err(), Malformed::NotAnObject, "{text}");
        }
    }

    #[test]
    fn an_artifact_type_makes_an_artifact() {
        let text = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
        let named = parse(&text.replacen('{', r#"{"artifactType":"application/x.y","#, 1)).unwrap();
        assert_eq!(named.format(), Format::Artifact);
        let Content::Artifact(artifact) = named.content() else { panic!("{named:?}") };
        assert_eq!(artifact.artifact_type.as_deref(), Some("application/x.y"));
        assert_eq!(artifact.config_media_type.as_deref(), Some(media_type::OCI_CONFIG));
        for absent in [r#"{"artifactType":"","#, r#"{"artifactType":null,"#] {
            assert_eq!(parse(&text.replacen('{', absent, 1)).unwrap().format(), Format::Oci);
        }
    }

    #[test]
    fn two_documents_in_one_are_refused() {
        let oci = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
        for field in ["manifests", "fsLayers", "history"] {
            let message = refusal(&oci.replacen('{', &format!(r#"{{"{field}":[],"#), 1));
            assert!(message.starts_with("is ambiguous: it is an OCI manifest by its type, but has `"), "{message}");
        }
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        for (text, fields) in [
            (index, ["layers", "config", "fsLayers", "history"].as_slice()),
            (schema1(), &["layers", "manifests", "config"]),
        ] {
            for field in fields {
                let both = text.replacen('{', &format!(r#"{{"{field}":null,"#), 1);
                assert!(matches!(parse(&both), Err(Malformed::Ambiguous { .. })), "{both}");
            }
        }
        for (version, text) in [
            ("1", &oci),
            (
                "2",
                &schema1().replacen('{', r#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+json","#, 1),
            ),
        ] {
            let other = text.replacen(
                if version == "1" { r#"Version":2"# } else { r#"Version":1"# },
                &format!(r#"Version":{version}"#),
                1,
            );
            assert!(matches!(parse(&other), Err(Malformed::VersionContradicts { .. })), "{other}");
        }
    }

    #[test]
    fn what_go_alone_would_read_is_refused() {
        let oci = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
        for (good, bad) in [
            ("\"layers\"", "\"Layers\""),
            ("\"layers\"", "\"layer\u{17f}\""),
            ("\"config\"", "\"CONFIG\""),
            ("\"schemaVersion\"", "\"SchemaVersion\""),
            ("\"size\"", "\"Size\""),
            ("{\"mediaType\"", "{\"mediatype\""),
            ("\"layers\":[]", "\"layers\":[],\"MediaType\":\"x/y\""),
            ("\"layers\":[]", r#""layers":[],"\u004cayers":[]"#),
        ] {
            let text = oci.replace(good, bad);
            assert_ne!(text, oci, "{good}");
            assert!(matches!(parse(&text), Err(Malformed::OtherCase { .. })), "{text}");
        }
        assert!(parse(&oci.replacen('{', r#"{"annotations":{"Layers":"x","layers":"y"},"#, 1)).is_ok());
        assert_eq!(refusal(&oci.replacen('{', r#"{"\u006cayers":[],"#, 1)), "names `layers` twice");
        assert_eq!(refusal(&oci.replacen('{', r#"{"annotations":{"a":"x","a":"y"},"#, 1)), "names `a` twice");
    }

    #[test]
    fn fields_that_do_not_hold_are_refused_by_name() {
        let oci = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
        let layered = oci.replace("[]", &format!("[{layer},{layer}]"));
        assert!(parse(&layered).is_ok());
        for (good, bad, place) in [
            (DIGEST, "sha256:../../etc", "config.digest"),
            (DIGEST, "", "config.digest"),
            ("\"size\":7", "\"size\":-1", "config.size"),
            ("\"size\":7", "\"size\":9223372036854775808", "config.size"),
            ("\"size\":7", "\"size\":1e3", "config.size"),
            (",\"size\":7", "", "config.size"),
            (r#""layers":["#, r#""layers":[5,"#, "layers[0].mediaType"),
            (r#""layers":["#, r#""layers":[{},"#, "layers[0].digest"),
            (r#""layers":["#, r#""annotations":{"a":1},"layers":["#, "annotations"),
            (r#""schemaVersion":2"#, r#""schemaVersion":"2""#, "schemaVersion"),
            (media_type::OCI_MANIFEST, "text\\r\\nX-Evil: 1", "mediaType"),
            (media_type::OCI_MANIFEST, "a b/c", "mediaType"),
        ] {
            let text = layered.replacen(good, bad, 1);
            assert_ne!(text, layered, "{good}");
            assert!(refusal(&text).starts_with(&format!("has no valid `{place}`: expected ")), "{text}");
        }
        let huge = format!("{oci}{}", " ".repeat(MANIFEST_BYTES_MAX));
        assert!(matches!(parse(&huge), Err(Malformed::Json(json::Fault::TooLarge { .. }))));
        assert!(matches!(parse(&format!("{oci}x")), Err(Malformed::Json(json::Fault::Syntax { .. }))));
    }

    #[test]
    fn a_foreign_type_inside_counts_as_the_other_family() {
        let counts_as = |text: &str| parse(text).unwrap().counts_as();
        assert_eq!(counts_as(&image(media_type::SCHEMA2, media_type::OCI_CONFIG)), Format::Oci);
        assert_eq!(counts_as(&image(media_type::SCHEMA2, "text/html")), Format::Schema2);
        let list = |child: &str| {
            let child = descriptor(child);
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{child}]}}"#, media_type::MANIFEST_LIST)
        };
        for (child, format) in [
            (media_type::SCHEMA2, Format::List),
            (media_type::SCHEMA1, Format::List),
            ("", Format::List),
            (media_type::OCI_MANIFEST, Format::Index),
            (media_type::MANIFEST_LIST, Format::Index),
        ] {
            assert_eq!(counts_as(&list(child)), format, "{child}");
        }
    }

    #[test]
    fn entries_of_an_index_keep_what_choosing_needs() {
        let entry = format!(
            r#"{{"mediaType":"m","digest":"{DIGEST}","size":0,"artifactType":"t","annotations":{{"b":"1","a":"2"}},"platform":{{"os":"linux","architecture":"arm","variant":"v7","os.version":"1","os.features":["x"]}}}}"#
        );
        let bare = entry.replace("\"platform\"", "\"x\"");
        let text = format!(r#"{{"schemaVersion":2,"annotations":{{"k":"v"}},"manifests":[{entry},{bare}]}}"#);
        let manifest = parse(&text).unwrap();
        let Content::Index(index) = manifest.content() else { panic!("{manifest:?}") };
        let platforms: Vec<_> =
            index.manifests.iter().map(|child| child.platform.as_ref().map(ToString::to_string)).collect();
        assert_eq!(platforms, [Some("linux/arm/v7".to_owned()), None]);
        assert_eq!(index.manifests[0].platform.as_ref().unwrap().os_version.as_deref(), Some("1"));
        assert_eq!((index.annotations["k"].as_str(), index.manifests[0].annotations["b"].as_str()), ("v", "1"));
        assert_eq!(index.manifests[1].artifact_type.as_deref(), Some("t"));
    }
}
