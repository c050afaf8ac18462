//! Schema 1 pushed through a gateway to registries that refuse it: what skopeo makes of an image, sent as skopeo and in the guise
//! of Docker 1.9, and pulled back by everybody.

use std::process::Command;

use serde_json::Value;

use crate::{
    disguise::disguised,
    documents,
    engines::{Containerd, Dockerd, reference},
    guises::{READS_OCI, READS_SCHEMA_1, READS_SCHEMA_2},
    http,
    images::{self, Twin},
    programs::{self, run},
    registries::{Gateway, Registry},
};

const REPOSITORY: &str = "test/pushed";
const TAG: &str = "v1";

/// What decides how a container runs. What is empty is as good as not there.
const RUN: [&str; 9] =
    ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"];

/// Who pushes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pusher {
    Skopeo,
    /// The same program in its guise: it uploads as Docker 1.9 does, by POST, one PATCH and PUT.
    Docker19,
}

/// A registry that holds what was pushed through the gateway before it.
struct Stage {
    registry: Registry,
    gateway: Gateway,
    pusher: Pusher,
    /// What the client showed after its push.
    printed: String,
}

impl Stage {
    fn set(registry: Registry, pusher: Pusher, more: &[(&str, &str)]) -> Self {
        let source = Registry::docker_registry();
        source.push(&images::runnable(), Twin::Schema2, REPOSITORY, "source");
        let switches = [&[("SCHEMABRIDGE_PUSH", "true")], more].concat();
        let gateway = Gateway::start_before(&format!("http://{}", registry.address), &switches);
        let address = match pusher {
            Pusher::Skopeo => gateway.address,
            Pusher::Docker19 => disguised(gateway.address, READS_SCHEMA_1),
        };
        let directory = programs::directory();
        let file = directory.path().join("digest");
        let from = format!("docker://{}", reference(source.address, REPOSITORY, "source"));
        let to = format!("docker://{}", reference(address, REPOSITORY, TAG));
        let mut copy = skopeo();
        run(copy.args(["--format", "v2s1", "--digestfile"]).arg(&file).args([&from, &to]));
        let printed = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        Self { registry, gateway, pusher, printed }
    }

    /// Each registry that refuses schema 1, with each who pushes: docker-registry 2.8 answers 500, distribution 3 answers 400.
    fn each() -> impl Iterator<Item = Self> {
        let of = |pusher| Registry::both().into_iter().map(move |registry| Self::set(registry, pusher, &[]));
        [Pusher::Skopeo, Pusher::Docker19].into_iter().flat_map(of)
    }

    fn what(&self) -> String {
        format!("{:?} to {}", self.pusher, self.registry.name)
    }

    fn name(&self) -> String {
        reference(self.gateway.address, REPOSITORY, TAG)
    }

    /// What the registry holds under the tag, and its config.
    fn stored(&self, twin: Twin) -> (Value, Value) {
        let get = |target: String| {
            let answer = http::ask(self.registry.address, "GET", &target, &[("Accept", twin.media_type())], b"");
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200, "{}: {target}: {}", self.what(), answer.text());
            answer
        };
        let manifest = get(format!("/v2/{REPOSITORY}/manifests/{TAG}"));
        assert_eq!(manifest.header("content-type"), Some(twin.media_type()), "{}", self.what());
        let manifest: Value = serde_json::from_slice(&manifest.body).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap();
        let config = get(format!("/v2/{REPOSITORY}/blobs/{config}"));
        (manifest, serde_json::from_slice(&config.body).unwrap())
    }

    /// How many layers the gateway came to know in this way.
    fn layers(&self, way: &str) -> u64 {
        let shown = http::ask(self.gateway.admin, "GET", "/metrics", &[], b"").unwrap().text();
        let series = format!("schemabridge_layer_reads_total{{result=\"{way}\"}} ");
        shown.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }
}

fn skopeo() -> Command {
    let mut command = Command::new(programs::debian("skopeo"));
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    command.args(["--insecure-policy", "copy", "--quiet"]).args(plain);
    command
}

/// What skopeo writes down of an image, in the format that it is told to make of it: the manifest and the config.
fn by_skopeo(name: &str, format: &str) -> (Value, Value) {
    let directory = programs::directory();
    let to = format!("dir:{}", directory.path().display());
    run(skopeo().args(["--format", format, &format!("docker://{name}"), &to]));
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(directory.path().join(name)).unwrap()).unwrap() };
    let manifest = read("manifest.json");
    let config = read(manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    (manifest, config)
}

fn digests_of_layers(manifest: &Value) -> Vec<&str> {
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap()).collect()
}

fn run_configuration(config: &Value) -> Vec<(&'static str, &Value)> {
    let is_empty = |value: &Value| {
        value.is_null()
            || value.as_str() == Some("")
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    };
    RUN.map(|field| (field, &config["config"][field])).into_iter().filter(|(_, value)| !is_empty(value)).collect()
}

#[test]
fn pushed_schema_1_is_stored_as_what_skopeo_makes_of_the_same_document() {
    for stage in Stage::each() {
        let what = stage.what();
        let (manifest, config) = stage.stored(Twin::Schema2);
        // The document that was pushed, turned into schema 2 by skopeo.
        let pushed = format!("{}/{REPOSITORY}@{}", stage.gateway.address, stage.printed);
        let (theirs, their_config) = by_skopeo(&pushed, "v2s2");
        assert_eq!(digests_of_layers(&manifest), digests_of_layers(&theirs), "{what}");
        assert_eq!(config["rootfs"], their_config["rootfs"], "{what}");
        assert_eq!(run_configuration(&config), run_configuration(&their_config), "{what}");
        for field in ["architecture", "os", "created", "history"] {
            assert_eq!(config[field], their_config[field], "{what}: {field}");
        }
        // And it is the image that the schema 1 was made of.
        let original: Value = serde_json::from_slice(&images::runnable().config.bytes).unwrap();
        assert_eq!(run_configuration(&config), run_configuration(&original), "{what}");
    }
}

/// Only those of Docker 1.9 are known to name them in a schema 1.
#[test]
fn pushed_layers_of_docker_1_9_are_not_read_again() {
    for stage in Stage::each() {
        let (manifest, _) = stage.stored(Twin::Schema2);
        let mut layers = digests_of_layers(&manifest);
        layers.retain(|layer| *layer != documents::EMPTY_LAYER);
        let uploaded = if stage.pusher == Pusher::Docker19 { layers.len() as u64 } else { 0 };
        let read = layers.len() as u64 - uploaded;
        assert_eq!((stage.layers("uploaded"), stage.layers("read")), (uploaded, read), "{}", stage.what());
    }
}

#[test]
fn pushed_schema_1_is_pulled_back_by_old_and_new() {
    for stage in Stage::each() {
        let what = stage.what();
        // By the tag and by the digest that the client printed, in the old guise: the same document.
        for reference in [TAG, &stage.printed] {
            let answer = READS_SCHEMA_1.ask(stage.gateway.address, &format!("/v2/{REPOSITORY}/manifests/{reference}"));
            let payload = documents::schema1_of(&answer, &what);
            assert_eq!(images::digest(&payload), stage.printed, "{what}: {reference}");
        }
        let old = reference(disguised(stage.gateway.address, READS_SCHEMA_1), REPOSITORY, TAG);
        let dockerd = Dockerd::start();
        assert_eq!(dockerd.pull(&old), stage.printed, "{what}");
        dockerd.assert_files(&old, &what);

        let dockerd = Dockerd::start();
        dockerd.pull(&stage.name());
        let (manifest, config) = stage.stored(Twin::Schema2);
        assert_eq!(dockerd.image_id(&stage.name()), manifest["config"]["digest"], "{what}");
        dockerd.assert_files(&stage.name(), &what);

        for format in ["v2s2", "oci"] {
            let (copied, its_config) = by_skopeo(&stage.name(), format);
            assert_eq!(digests_of_layers(&copied), digests_of_layers(&manifest), "{what}: {format}");
            assert_eq!(run_configuration(&its_config), run_configuration(&config), "{what}: {format}");
        }
    }
}

/// Where the operator wants it, OCI is stored; and every client gets what it reads.
#[test]
fn pushed_schema_1_is_stored_as_oci_too() {
    for registry in Registry::both() {
        let stage = Stage::set(registry, Pusher::Docker19, &[("SCHEMABRIDGE_PUSH_AS", "oci")]);
        let what = stage.what();
        let (manifest, config) = stage.stored(Twin::Oci);
        assert_eq!(run_configuration(&config), run_configuration(&by_skopeo(&stage.name(), "oci").1), "{what}");
        let containerd = Containerd::start();
        containerd.pull(&stage.name());
        containerd.assert_files(&what);
        for guise in [READS_SCHEMA_2, READS_OCI] {
            let answer = guise.ask(stage.gateway.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
            let pulled: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(pulled["config"]["digest"], manifest["config"]["digest"], "{what}: {}", guise.served);
        }
        let old = reference(disguised(stage.gateway.address, READS_SCHEMA_1), REPOSITORY, TAG);
        assert_eq!(Dockerd::start().pull(&old), stage.printed, "{what}");
    }
}

/// docker-registry that takes schema 1 has the very document, and the gateway changes nothing.
#[test]
fn pushed_schema_1_stays_as_it_is_where_it_is_taken() {
    for pusher in [Pusher::Skopeo, Pusher::Docker19] {
        let stage = Stage::set(Registry::docker_registry_with_schema1(), pusher, &[]);
        let target = format!("/v2/{REPOSITORY}/manifests/{TAG}");
        let stored = http::ask_as_docker_1_9(stage.registry.address, &target);
        assert_eq!(images::digest(&documents::schema1_of(&stored, &stage.what())), stage.printed);
        assert_eq!(stage.layers("read"), 0, "{}", stage.what());
    }
}
