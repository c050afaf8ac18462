//! Test images, each in every form a registry can hold it in. The bytes are written out here by hand, in the forms that
//! Docker and the OCI tools give them, so that they are an oracle for what the gateway derives.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

use super::sha256;

pub const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub const SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
pub const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The layer that schema 1 names for every history entry without one.
pub const EMPTY_LAYER: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";

/// The 32 bytes of [`EMPTY_LAYER`]: gzip of 1,024 zero bytes, as Docker has always written it.
pub const EMPTY_LAYER_BYTES: [u8; 32] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x09, 0x6e, 0x88, 0x00, 0xff, 0x62, 0x18, 0x05, 0xa3, 0x60, 0x14, 0x8c, 0x58, 0x00,
    0x08, 0x00, 0x00, 0xff, 0xff, 0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00,
];

/// A document of the manifests endpoint with what the registry says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub bytes: Bytes,
    pub content_type: String,
    pub digest: String,
}

impl Document {
    pub fn new(content_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        Self { bytes, content_type: content_type.to_owned(), digest }
    }

    fn schema1(content_type: &str, bytes: Vec<u8>, payload: &[u8]) -> Self {
        Self { bytes: bytes.into(), content_type: content_type.to_owned(), digest: sha256(payload) }
    }

    /// A signed schema 1, which is named by its payload.
    pub fn signed(bytes: Vec<u8>) -> Self {
        let payload = payload(&bytes);
        Self::schema1(SCHEMA1_SIGNED, bytes, &payload)
    }

    /// The text, for finding one's way in it.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// The same document after a change to its JSON, printed compactly.
    pub fn changed(&self, change: impl FnOnce(&mut Value)) -> Self {
        let mut value = self.json();
        change(&mut value);
        Self::new(&self.content_type, value.to_string())
    }

    /// The same text after a change that JSON values cannot express.
    pub fn rewritten(&self, change: impl FnOnce(&str) -> String) -> Self {
        Self::new(&self.content_type, change(self.text()))
    }
}

/// What a layer is, which decides its media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gzip,
    Zstd,
    Foreign,
    Encrypted,
    InToto,
}

impl Kind {
    fn schema2(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Self::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            Self::Foreign => "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            Self::Encrypted => "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
            Self::InToto => "application/vnd.in-toto+json",
        }
    }

    fn oci(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Foreign => "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            Self::Encrypted => "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            Self::InToto => "application/vnd.in-toto+json",
        }
    }
}

/// A layer: its descriptor, and its bytes where a test fetches them.
#[derive(Clone, Debug)]
pub struct Layer {
    pub digest: String,
    pub size: usize,
    pub bytes: Option<Bytes>,
    pub kind: Kind,
}

impl Layer {
    pub fn new(kind: Kind, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), size: bytes.len(), bytes: Some(bytes), kind }
    }

    fn urls(&self) -> &'static str {
        if self.kind == Kind::Foreign { "https://layers.example.com/windows.tar.gz" } else { "" }
    }
}

/// An image, independent of any manifest format.
#[derive(Clone, Debug)]
pub struct Image {
    pub config: Bytes,
    pub layers: Vec<Layer>,
}

impl Image {
    /// An image as the classic `docker build` makes it: two layers with an instruction between them that adds none.
    pub fn classic(name: &str) -> Self {
        let layers =
            vec![Layer::new(Kind::Gzip, format!("{name} base")), Layer::new(Kind::Gzip, format!("{name} top"))];
        let config = json!({
            "architecture": "amd64", "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}, "container": "c0ffee",
            "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) COPY dir:1 in /"]},
            "created": "2016-05-04T03:02:01.123456789Z", "docker_version": "1.10.3",
            "history": [
                {"created": "2016-05-04T03:02:00Z", "created_by": "/bin/sh -c #(nop) ADD file:1 in /"},
                {"created": "2016-05-04T03:02:01Z", "created_by": "/bin/sh -c #(nop) CMD [\"/bin/sh\"]", "empty_layer": true},
                {"created": "2016-05-04T03:02:01.123456789Z", "created_by": "/bin/sh -c #(nop) COPY dir:1 in /"},
            ],
            "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids(2)},
        });
        Self { config: config.to_string().into(), layers }
    }

    /// An image as BuildKit makes it, of the named architecture, its layers all of this kind.
    pub fn buildkit(name: &str, architecture: &str, kind: Kind, layers: usize) -> Self {
        let history: Vec<Value> = (0..layers)
            .map(|layer| json!({"created": "2023-01-02T03:04:05Z", "created_by": format!("COPY {layer} / # buildkit"), "comment": "buildkit.dockerfile.v0"}))
            .collect();
        let config = json!({
            "architecture": architecture, "config": {"Entrypoint": ["/run"], "WorkingDir": "/", "Labels": {"name": name}},
            "created": "2023-01-02T03:04:05Z", "history": history, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids(layers)},
        });
        let layers = (0..layers).map(|layer| Layer::new(kind, format!("{name} {architecture} {layer}"))).collect();
        Self { config: config.to_string().into(), layers }
    }

    /// An image of linux/amd64 with one gzip layer.
    pub fn small(name: &str) -> Self {
        Self::buildkit(name, "amd64", Kind::Gzip, 1)
    }

    /// An image of `tests/golden/distribution/in`, whose layers are descriptors without bytes.
    pub fn golden(name: &str) -> Self {
        let manifest: Value = serde_json::from_slice(&golden("in", &format!("{name}.manifest.json"))).unwrap();
        let layer = |layer: &Value| Layer {
            digest: layer["digest"].as_str().unwrap().to_owned(),
            size: usize::try_from(layer["size"].as_u64().unwrap()).unwrap(),
            bytes: None,
            kind: Kind::Gzip,
        };
        let layers = manifest["layers"].as_array().unwrap().iter().map(layer).collect();
        Self { config: golden("in", &format!("{name}.config.json")).into(), layers }
    }

    /// Config and layers.
    pub fn blobs(&self) -> Vec<Bytes> {
        self.layers.iter().filter_map(|layer| layer.bytes.clone()).chain([self.config.clone()]).collect()
    }

    pub fn config_digest(&self) -> String {
        sha256(&self.config)
    }

    /// As Docker pushes it: indented by three spaces, `size` before `digest`.
    pub fn schema2(&self) -> Document {
        self.schema2_with(DOCKER_CONFIG, Kind::schema2)
    }

    /// A schema 2 manifest whose config and layers have OCI types, as some tools pushed it.
    pub fn hybrid(&self) -> Document {
        self.schema2_with(OCI_CONFIG, Kind::oci)
    }

    /// A schema 2 manifest whose config has another type.
    pub fn schema2_of_config_type(&self, config_type: &str) -> Document {
        self.schema2_with(config_type, Kind::schema2)
    }

    fn schema2_with(&self, config_type: &str, layer_type: impl Fn(Kind) -> &'static str) -> Document {
        let (size, digest) = (self.config.len(), self.config_digest());
        let mut text = format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{SCHEMA2}\",\n   \"config\": {{\n      \"mediaType\": \"{config_type}\",\n      \"size\": {size},\n      \"digest\": \"{digest}\"\n   }},\n   \"layers\": ["
        );
        for (index, layer) in self.layers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (media_type, size, digest) = (layer_type(layer.kind), layer.size, &layer.digest);
            write!(text, "{comma}\n      {{\n         \"mediaType\": \"{media_type}\",\n         \"size\": {size},\n         \"digest\": \"{digest}\"").unwrap();
            if !layer.urls().is_empty() {
                write!(text, ",\n         \"urls\": [\n            \"{}\"\n         ]", layer.urls()).unwrap();
            }
            text.push_str("\n      }");
        }
        text.push_str(if self.layers.is_empty() { "]\n}" } else { "\n   ]\n}" });
        Document::new(SCHEMA2, text)
    }

    /// As the OCI tools print it: compact, `digest` before `size`.
    pub fn oci(&self) -> Document {
        self.oci_with(OCI_CONFIG, "")
    }

    /// The OCI form with annotations on the manifest.
    pub fn oci_annotated(&self) -> Document {
        self.oci_with(OCI_CONFIG, r#","annotations":{"org.opencontainers.image.source":"https://example.com/<&>"}"#)
    }

    /// The OCI form with another type on its config.
    pub fn oci_of_config_type(&self, config_type: &str) -> Document {
        self.oci_with(config_type, "")
    }

    fn oci_with(&self, config_type: &str, end: &str) -> Document {
        let layers: Vec<String> = self
            .layers
            .iter()
            .map(|layer| {
                let (media_type, digest, size) = (layer.kind.oci(), &layer.digest, layer.size);
                let urls =
                    if layer.urls().is_empty() { String::new() } else { format!(",\"urls\":[\"{}\"]", layer.urls()) };
                format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{urls}}}"#)
            })
            .collect();
        let (layers, digest, size) = (layers.join(","), self.config_digest(), self.config.len());
        Document::new(
            OCI,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{{"mediaType":"{config_type}","digest":"{digest}","size":{size}}},"layers":[{layers}]{end}}}"#
            ),
        )
    }
}

fn diff_ids(count: usize) -> Vec<String> {
    (0..count).map(|layer| format!("sha256:{:064x}", layer + 1)).collect()
}

/// A stored schema 1 document that docker-registry 2.8.2 made and signed, of repository `test/repo` and tag `tag-1`.
pub fn schema1_signed(name: &str) -> Document {
    Document::schema1(SCHEMA1_SIGNED, golden("out", &format!("{name}.signed")), &schema1_payload(name))
}

/// The same document without its signatures.
pub fn schema1_unsigned(name: &str) -> Document {
    let payload = schema1_payload(name);
    Document::schema1(SCHEMA1, payload.clone(), &payload)
}

/// The payload that docker-registry 2.8.2 makes of [`Image::golden`] as repository `test/repo`, tag `tag-1`.
pub fn schema1_payload(name: &str) -> Vec<u8> {
    golden("out", &format!("{name}.payload"))
}

/// The signed part of a signed schema 1 document, put together as its first signature says (libtrust `ParsePrettySignature`).
pub fn payload(signed: &[u8]) -> Vec<u8> {
    let document: Value = serde_json::from_slice(signed).unwrap();
    let protected = document["signatures"][0]["protected"].as_str().unwrap_or_else(|| panic!("not signed: {document}"));
    let protected = data_encoding::BASE64URL_NOPAD.decode(protected.as_bytes()).unwrap();
    let protected: Value = serde_json::from_slice(&protected).unwrap();
    let length = usize::try_from(protected["formatLength"].as_u64().unwrap()).unwrap();
    let tail = data_encoding::BASE64URL_NOPAD.decode(protected["formatTail"].as_str().unwrap().as_bytes()).unwrap();
    [&signed[..length], &tail].concat()
}

/// A manifest list over these documents, each with `os/architecture` or `os/architecture/variant`.
pub fn list(children: &[(&Document, &str)]) -> Document {
    Document::new(LIST, multi(LIST, children).to_string())
}

/// An OCI index over these documents.
pub fn index(children: &[(&Document, &str)]) -> Document {
    Document::new(INDEX, multi(INDEX, children).to_string())
}

fn multi(media_type: &str, children: &[(&Document, &str)]) -> Value {
    let entry = |(document, platform): &(&Document, &str)| {
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let mut platform = json!({"architecture": architecture, "os": os});
        if let Some(variant) = parts.next() {
            platform["variant"] = variant.into();
        }
        json!({
            "mediaType": document.content_type, "digest": document.digest, "size": document.bytes.len(), "platform": platform,
        })
    };
    json!({"schemaVersion": 2, "mediaType": media_type, "manifests": children.iter().map(entry).collect::<Vec<_>>()})
}

/// An OCI artifact of image-spec 1.1: empty config, a type of its own, one blob.
pub fn artifact(name: &str) -> Document {
    let blob = name.as_bytes();
    let empty = sha256(b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI, "artifactType": "application/vnd.example.sbom.v1",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
        "layers": [{"mediaType": "application/vnd.example.sbom.v1+json", "digest": sha256(blob), "size": blob.len()}],
    });
    Document::new(OCI, manifest.to_string())
}

/// A Helm chart: an OCI manifest whose config is not an image's.
pub fn helm_chart() -> Document {
    Image::small("chart").oci_of_config_type("application/vnd.cncf.helm.config.v1+json")
}

/// A Docker plugin: a schema 2 manifest whose config is not an image's.
pub fn plugin() -> Document {
    Image::small("plugin").schema2_of_config_type("application/vnd.docker.plugin.v1+json")
}

fn golden(folder: &str, name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden/distribution", folder, name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
