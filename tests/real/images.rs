//! Images to put into registries: the odd ones of the golden inputs, and one that engines can unpack.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::layers;

/// Bytes and their digest.
#[derive(Clone)]
pub struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
}

impl Blob {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest(&bytes), bytes }
    }
}

/// `sha256:` and the hexadecimal hash of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(bytes))
}

/// The hexadecimal SHA-256 of `bytes`.
pub fn hexadecimal(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// In which of the two families an image is stored; its config and layers are the same bytes in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    Schema2,
    Oci,
}

impl Twin {
    pub const BOTH: [Self; 2] = [Self::Schema2, Self::Oci];

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Schema2 => "application/vnd.docker.distribution.manifest.v2+json",
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
        }
    }

    fn config_type(self) -> &'static str {
        match self {
            Self::Schema2 => "application/vnd.docker.container.image.v1+json",
            Self::Oci => "application/vnd.oci.image.config.v1+json",
        }
    }

    fn layer_type(self) -> &'static str {
        match self {
            Self::Schema2 => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

/// One image: config and layers, oldest first.
#[derive(Clone)]
pub struct Image {
    pub name: String,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

impl Image {
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The manifest that names this image's blobs in the words of one family.
    pub fn manifest(&self, twin: Twin) -> Vec<u8> {
        self.manifest_with_layers(twin, twin.layer_type())
    }

    /// The same with layers of a media type of their own.
    pub fn manifest_with_layers(&self, twin: Twin, layer_type: &str) -> Vec<u8> {
        let descriptor = |media_type: &str, blob: &Blob| json!({"mediaType": media_type, "size": blob.bytes.len(), "digest": blob.digest});
        let layers = self.layers.iter().map(|layer| descriptor(layer_type, layer)).collect::<Vec<_>>();
        let document = json!({
            "schemaVersion": 2,
            "mediaType": twin.media_type(),
            "config": descriptor(twin.config_type(), &self.config),
            "layers": layers,
        });
        serde_json::to_vec_pretty(&document).unwrap()
    }
}

/// The golden inputs whose schema 1 docker-registry makes (`schema1/<name>.payload` is there), or refuses to make.
pub fn golden(translated: bool) -> Vec<Image> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names = std::fs::read_dir(folder.join("inputs"))
        .unwrap()
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".config.json")?.to_owned()))
        .filter(|name| folder.join(format!("schema1/{name}.payload")).exists() == translated)
        .collect::<Vec<_>>();
    names.sort();
    names.iter().map(|name| golden_image(&folder.join("inputs"), name)).collect()
}

/// One golden input by name.
pub fn golden_named(name: &str) -> Image {
    golden_image(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inputs"), name)
}

fn golden_image(inputs: &Path, name: &str) -> Image {
    let file = |kind: &str| -> PathBuf { inputs.join(format!("{name}.{kind}.json")) };
    let manifest: Value = serde_json::from_slice(&std::fs::read(file("manifest")).unwrap()).unwrap();
    let layers = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| numbered_layer(layer["digest"].as_str().unwrap()))
        .collect();
    Image { name: name.to_owned(), config: Blob::new(std::fs::read(file("config")).unwrap()), layers }
}

/// The layer of the golden inputs with this digest: the text `layer <number>` and a line feed.
fn numbered_layer(digest: &str) -> Blob {
    (0..128)
        .map(layer_number)
        .find(|layer| layer.digest == digest)
        .expect("the layers of the golden inputs are numbered")
}

/// Layer `number` as the golden inputs have it.
pub fn layer_number(number: usize) -> Blob {
    Blob::new(format!("layer {number}\n"))
}

/// The files of [`runnable`], as the topmost layer leaves them.
pub const FILES: [layers::File<'static>; 3] = [
    ("etc/first", "from the first layer\n"),
    ("data/second", "from the second layer\n"),
    ("data/deep/third", "third: ž 🐳\n"),
];

/// The runnable image with a label of its own, so that nobody has derived anything of it yet.
pub fn runnable_labelled(label: &str) -> Image {
    let mut image = runnable();
    let mut config: Value = serde_json::from_slice(&image.config.bytes).unwrap();
    config["config"]["Labels"]["of"] = label.into();
    image.config = Blob::new(serde_json::to_vec(&config).unwrap());
    image
}

/// An image of three real layers and three entries without a layer; its first layer has a file that the third replaces.
pub fn runnable() -> Image {
    let contents = [vec![FILES[0], ("data/deep/third", "to be replaced\n")], vec![FILES[1]], vec![FILES[2]]];
    let archives = contents.map(|files| layers::tar(&files));
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-02T03:04:05.6Z",
        "config": {"Cmd": ["/x"], "Env": ["A=<b> & c"], "Labels": {"what": "a test"}},
        "rootfs": {"type": "layers", "diff_ids": archives.iter().map(|archive| digest(archive)).collect::<Vec<_>>()},
        "history": [
            {"created": "2020-01-02T03:04:05Z", "created_by": "ADD first / # <&>"},
            {"created": "2020-01-02T03:04:05Z", "created_by": "ENV A=<b> & c", "empty_layer": true},
            {"created": "2020-01-02T03:04:05Z", "created_by": "ADD second /", "comment": "second"},
            {"created": "2020-01-02T03:04:05Z", "created_by": "LABEL what=a test", "empty_layer": true},
            {"created": "2020-01-02T03:04:05.6Z", "created_by": "ADD third /"},
            {"created": "2020-01-02T03:04:05.6Z", "created_by": "CMD [\"/x\"]", "empty_layer": true},
        ],
    });
    Image {
        name: "runnable".to_owned(),
        config: Blob::new(serde_json::to_vec(&config).unwrap()),
        layers: archives.iter().map(|archive| Blob::new(layers::gzip(archive))).collect(),
    }
}
