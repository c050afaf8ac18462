//! Lists and indexes to put into registries: a small image for each of a few platforms, and what BuildKit puts beside them.

use serde_json::{Value, json};

use crate::{
    images::{self, Blob, Image, Twin},
    layers,
    registries::Registry,
};

/// The file by which an image says which one it is.
pub const FILE: &str = "etc/platform";

pub const AMD64: &str = "linux/amd64";
pub const ARM_V7: &str = "linux/arm/v7";
pub const ARM_V6: &str = "linux/arm/v6";
pub const ARM64: &str = "linux/arm64";

/// In the words of which family a list or index is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    List,
    Index,
}

impl Form {
    pub const BOTH: [Self; 2] = [Self::List, Self::Index];

    pub fn media_type(self) -> &'static str {
        match self {
            Self::List => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::Index => "application/vnd.oci.image.index.v1+json",
        }
    }

    /// The gateway's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Index => "index",
        }
    }
}

/// One entry of a list or index: an image, and how it is listed.
pub struct Child {
    pub platform: &'static str,
    /// What [`FILE`] says in it; no other image says the same.
    pub text: String,
    pub image: Image,
    pub manifest: Vec<u8>,
    media_type: &'static str,
    annotations: Option<Value>,
}

impl Child {
    /// An image with gzip layers. `whose` is what no other list or index is called, so that nothing of it is in any
    /// engine yet.
    pub fn gzip(platform: &'static str, twin: Twin, whose: &str) -> Self {
        let text = format!("{platform} of {whose}\n");
        let archive = layers::tar(&[(FILE, &text)]);
        let image = image(platform, &archive, layers::gzip(&archive));
        let manifest = image.manifest(twin);
        Self { platform, text, image, manifest, media_type: twin.media_type(), annotations: None }
    }

    /// An OCI image with zstd layers.
    pub fn zstd(platform: &'static str, whose: &str) -> Self {
        let text = format!("{platform} of {whose} in zstd\n");
        let archive = layers::tar(&[(FILE, &text)]);
        let image = image(platform, &archive, layers::zstd(&archive));
        let manifest = image.manifest_with_layers(Twin::Oci, "application/vnd.oci.image.layer.v1.tar+zstd");
        Self { platform, text, image, manifest, media_type: Twin::Oci.media_type(), annotations: None }
    }

    /// What BuildKit says about how another child was made.
    fn attestation(about: &Self) -> Self {
        let statement = Blob::new(format!("{{\"subject\": [{{\"name\": {:?}}}]}}", about.text));
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [statement.digest]},
        });
        let config = Blob::new(serde_json::to_vec(&config).unwrap());
        let image = Image { name: "attestation".to_owned(), config, layers: vec![statement] };
        let manifest = image.manifest_with_layers(Twin::Oci, "application/vnd.in-toto+json");
        let annotations = json!({
            "vnd.docker.reference.digest": about.digest(),
            "vnd.docker.reference.type": "attestation-manifest",
        });
        Self {
            platform: "unknown/unknown",
            text: String::new(),
            image,
            manifest,
            media_type: Twin::Oci.media_type(),
            annotations: Some(annotations),
        }
    }

    pub fn digest(&self) -> String {
        images::digest(&self.manifest)
    }

    fn descriptor(&self) -> Value {
        let mut descriptor = json!({
            "mediaType": self.media_type,
            "size": self.manifest.len(),
            "digest": self.digest(),
            "platform": platform_members(self.platform),
        });
        if let Some(annotations) = &self.annotations {
            descriptor["annotations"] = annotations.clone();
        }
        descriptor
    }
}

/// `os/architecture/variant` as the members of a platform object and of a config.
fn platform_members(platform: &str) -> Value {
    let mut words = platform.split('/');
    let mut members = json!({"os": words.next(), "architecture": words.next()});
    if let Some(variant) = words.next() {
        members["variant"] = variant.into();
    }
    members
}

fn image(platform: &str, archive: &[u8], layer: Vec<u8>) -> Image {
    let mut config = platform_members(platform);
    config["created"] = "2020-01-02T03:04:05Z".into();
    config["config"] = json!({"Cmd": ["/x"]});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [images::digest(archive)]});
    config["history"] = json!([
        {"created": "2020-01-02T03:04:05Z", "created_by": "ADD platform /etc"},
        {"created": "2020-01-02T03:04:05Z", "created_by": "CMD [\"/x\"]", "empty_layer": true},
    ]);
    let config = Blob::new(serde_json::to_vec(&config).unwrap());
    Image { name: platform.to_owned(), config, layers: vec![Blob::new(layer)] }
}

/// A list or an index.
pub struct Parent {
    pub form: Form,
    /// The repository that it goes to.
    pub repository: String,
    pub children: Vec<Child>,
    pub bytes: Vec<u8>,
}

impl Parent {
    /// An image for each of four platforms, arm v7 before v6; an index has an attestation as well.
    pub fn mixed(form: Form, twin: Twin, whose: &str) -> Self {
        let name = format!("{}-of-{twin:?}", form.word()).to_lowercase();
        let whose = format!("{name} {whose}");
        let mut children = [AMD64, ARM_V7, ARM_V6, ARM64].map(|platform| Child::gzip(platform, twin, &whose)).into();
        if form == Form::Index {
            attest(&mut children);
        }
        Self::new(form, &name, children)
    }

    /// All four mixtures of lists and indexes with children of both families.
    pub fn mixtures(whose: &str) -> Vec<Self> {
        let of_form = |form| Twin::BOTH.map(|twin| Self::mixed(form, twin, whose));
        Form::BOTH.into_iter().flat_map(of_form).collect()
    }

    /// An index whose image for arm64 is compressed with zstd.
    pub fn with_zstd_for_arm64(whose: &str) -> Self {
        let children = vec![Child::gzip(AMD64, Twin::Oci, whose), Child::zstd(ARM64, whose)];
        Self::new(Form::Index, "zstd-for-arm64", children)
    }

    pub fn new(form: Form, name: &str, children: Vec<Child>) -> Self {
        let entries = children.iter().map(Child::descriptor).collect::<Vec<_>>();
        let document = json!({"schemaVersion": 2, "mediaType": form.media_type(), "manifests": entries});
        let bytes = serde_json::to_vec_pretty(&document).unwrap();
        Self { form, repository: format!("test/{name}"), children, bytes }
    }

    pub fn digest(&self) -> String {
        images::digest(&self.bytes)
    }

    /// The first image for this platform.
    pub fn child(&self, platform: &str) -> &Child {
        self.children.iter().find(|child| child.platform == platform).expect("the platform is one of ours")
    }

    /// Whether it has an image for this platform.
    pub fn has(&self, platform: &str) -> bool {
        self.children.iter().any(|child| child.platform == platform)
    }

    /// Puts the whole of it into a registry, children first.
    pub fn push(&self, registry: &Registry, tag: &str) {
        for child in &self.children {
            for blob in child.image.blobs() {
                registry.push_blob(&self.repository, blob);
            }
            let answer = registry.put_manifest(&self.repository, &child.digest(), child.media_type, &child.manifest);
            assert_eq!(answer.status, 201, "{} refuses {}: {}", registry.name, child.platform, answer.text());
        }
        let answer = registry.put_manifest(&self.repository, tag, self.form.media_type(), &self.bytes);
        assert_eq!(answer.status, 201, "{} refuses {}: {}", registry.name, self.repository, answer.text());
    }
}

/// Adds the attestation of the first image where BuildKit puts it, after all images.
fn attest(children: &mut Vec<Child>) {
    let attestation = Child::attestation(&children[0]);
    children.push(attestation);
}
