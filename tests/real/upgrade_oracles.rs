//! The upgrade of stored schema 1 beside two programs that do the same on the client's side: containers/image in skopeo,
//! and containerd's converter.

use std::process::Command;

use bytes::Bytes;
use futures_util::stream;
use schemabridge::image::digest::Digest;
use schemabridge::image::manifest::{Content, Manifest};
use schemabridge::image::media_type::Format;
use schemabridge::transcode::{Bounds, Workers};
use schemabridge::translate::{self, Learnt, Source};
use serde_json::Value;

use crate::{
    documents::PRETTYJWS,
    engines::{Containerd, reference},
    http,
    programs::{self, run},
    registries::Registry,
    signature::{REPOSITORY, TAG, signed_document_and_its_judge},
};

/// What two programs have to agree on.
#[derive(Debug, PartialEq)]
struct Upgraded {
    layers: Vec<String>,
    diff_ids: Value,
    run: Vec<(&'static str, Value)>,
}

/// What decides how a container runs, in Docker's and the OCI's configs alike. What is empty is as good as not there.
const RUN: [&str; 9] =
    ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"];

impl Upgraded {
    fn new(manifest: &Value, config: &Value) -> Self {
        let layers = manifest["layers"].as_array().unwrap().iter();
        let is_empty = |value: &Value| {
            value.is_null()
                || value.as_str() == Some("")
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        let run = RUN.map(|field| (field, config["config"][field].clone()));
        Self {
            layers: layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect(),
            diff_ids: config["rootfs"]["diff_ids"].clone(),
            run: run.into_iter().filter(|(_, value)| !is_empty(value)).collect(),
        }
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

async fn read_layers(registry: &Registry, schema1: &Manifest) -> Learnt {
    let workers = Workers::new(Workers::default_at_once(), Bounds::default());
    let mut learnt = Learnt::default();
    for layer in translate::layers_read(schema1).unwrap() {
        let blob = http::ask_as_docker_1_9(registry.address, &format!("/v2/{REPOSITORY}/blobs/{layer}"));
        assert_eq!(blob.status, 200);
        let pieces = stream::iter([std::io::Result::Ok(Bytes::from(blob.body))]);
        let turn = workers.turn().await.unwrap();
        let facts = workers.measure(turn, &layer, pieces).await.unwrap();
        learnt.facts.insert(layer, facts);
    }
    learnt
}

fn ours(document: Vec<u8>, registry: &Registry) -> (Upgraded, Value) {
    let stored = Manifest::parse(document.into()).unwrap();
    assert!(matches!(stored.content(), Content::Schema1(_)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let learnt = runtime.block_on(read_layers(registry, &stored));
    let derived = translate::upgrade_for(&stored, Format::Schema2).unwrap()(&Source {
        manifest: &stored,
        config: None,
        repository: &REPOSITORY.parse().unwrap(),
        tag: &TAG.parse().unwrap(),
        signing_key: None,
        learnt: Some(&learnt),
    });
    let derived = derived.unwrap();
    let (manifest, config) = (json(&derived.bytes), json(&derived.blobs[0].bytes));
    assert_eq!(manifest["config"]["digest"], Digest::sha256(&derived.blobs[0].bytes).as_str());
    (Upgraded::new(&manifest, &config), config)
}

fn by_skopeo(registry: &Registry) -> (Upgraded, Value) {
    let directory = programs::directory();
    let source = format!("docker://{}", reference(registry.address, REPOSITORY, TAG));
    run(Command::new(programs::debian("skopeo"))
        .args(["copy", "--quiet", "--src-tls-verify=false", "--insecure-policy", "--format", "v2s2", &source])
        .arg(format!("dir:{}", directory.path().display())));
    let read = |name: &str| json(&std::fs::read(directory.path().join(name)).unwrap());
    let manifest = read("manifest.json");
    let config = read(manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    (Upgraded::new(&manifest, &config), config)
}

fn by_containerd(registry: &Registry) -> Upgraded {
    let containerd = Containerd::start();
    let reference = reference(registry.address, REPOSITORY, TAG);
    containerd.pull(&reference);
    let content = |digest: &str| json(run(containerd.ctr().args(["content", "get", digest])).as_bytes());
    let manifest = content(&containerd.digest(&reference));
    let config = content(manifest["config"]["digest"].as_str().unwrap());
    Upgraded::new(&manifest, &config)
}

#[test]
fn layers_diff_ids_and_run_configuration_are_those_of_skopeo_and_of_containerd() {
    let (document, registry) = signed_document_and_its_judge();
    assert_eq!(registry.put_manifest(REPOSITORY, TAG, PRETTYJWS, &document).status, 201);
    let (ours, config) = ours(document, &registry);
    let (skopeo, their_config) = by_skopeo(&registry);
    assert_eq!(ours, skopeo);
    // This image does not say which Docker made it: its `config` then has every field as Docker writes it, and in skopeo
    // only those that were there. What they run is compared above.
    for field in ["architecture", "os", "created", "history"] {
        assert_eq!(config[field], their_config[field], "{field}");
    }
    assert_eq!(ours, by_containerd(&registry));
}
