//! The upgrade of stored schema 1 beside three programs that do the same on the client's side: containers/image in skopeo,
//! containerd's converter, and Docker. The schema 1 is made by others too: by skopeo, and by docker-registry.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::{
    documents::PRETTYJWS,
    engines::{Containerd, Dockerd, reference},
    guises::{Guise, READS_OCI},
    http,
    images::{self, Blob, Image, Twin},
    layers,
    programs::{self, run},
    registries::{Gateway, Registry},
};

const REPOSITORY: &str = "test/old";

/// An image as one program has it after it upgraded schema 1.
struct Upgraded {
    manifest: Value,
    config: Value,
}

/// Another program that upgrades schema 1, and what it leaves out of a config.
struct Oracle {
    name: &'static str,
    /// How the gateway is asked for the same.
    guise: Guise,
    /// Fields of `config` that the program's own types do not have: they are gone after it wrote the config anew.
    drops: &'static [&'static str],
    upgrade: fn(&Registry, &str) -> Upgraded,
}

/// What Docker's `container.Config` has and the `ImageConfig` of image-spec 1.1 has not. A field that is not said here, all
/// must have alike.
const UNKNOWN_TO_OCI: &[&str] = &[
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Healthcheck",
    "Hostname",
    "Image",
    "MacAddress",
    "NetworkDisabled",
    "OnBuild",
    "OpenStdin",
    "Shell",
    "StdinOnce",
    "StopTimeout",
    "Tty",
];

/// Nobody's: a client of Docker's types reads schema 1 too.
const READS_ONLY_SCHEMA_2: Guise = Guise {
    user_agent: "a-client-of-our-own/1.0",
    accept: Some("application/vnd.docker.distribution.manifest.v2+json"),
    served: "schema2",
};

const ORACLES: [Oracle; 3] = [
    // It deletes what is schema 1's own from the JSON, and goes through a struct only where Docker before 1.8.3 wrote it.
    Oracle { name: "skopeo, to schema 2", guise: READS_ONLY_SCHEMA_2, drops: &[], upgrade: skopeo_to_schema2 },
    // The same, and then through the OCI's struct.
    Oracle { name: "skopeo, to OCI", guise: READS_OCI, drops: UNKNOWN_TO_OCI, upgrade: skopeo_to_oci },
    // Unpacks the topmost `v1Compatibility` into the OCI's struct.
    Oracle { name: "containerd", guise: READS_OCI, drops: UNKNOWN_TO_OCI, upgrade: containerd },
];

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn skopeo(arguments: &[&str]) -> String {
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run(Command::new(programs::debian("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet"])
        .args(plain)
        .args(arguments))
}

fn at(registry: &Registry, tag: &str) -> String {
    format!("docker://{}", reference(registry.address, REPOSITORY, tag))
}

fn skopeo_to(format: &str, registry: &Registry, tag: &str) -> Upgraded {
    let directory = programs::directory();
    skopeo(&["--format", format, &at(registry, tag), &format!("dir:{}", directory.path().display())]);
    let read = |name: &str| json_of(&std::fs::read(directory.path().join(name)).unwrap());
    let manifest = read("manifest.json");
    let config = read(manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    Upgraded { manifest, config }
}

fn skopeo_to_schema2(registry: &Registry, tag: &str) -> Upgraded {
    skopeo_to("v2s2", registry, tag)
}

fn skopeo_to_oci(registry: &Registry, tag: &str) -> Upgraded {
    skopeo_to("oci", registry, tag)
}

fn containerd(registry: &Registry, tag: &str) -> Upgraded {
    let containerd = Containerd::start();
    let reference = reference(registry.address, REPOSITORY, tag);
    containerd.pull(&reference);
    let content = |digest: &str| json_of(run(containerd.ctr().args(["content", "get", digest])).as_bytes());
    let manifest = content(&containerd.digest(&reference));
    let config = content(manifest["config"]["digest"].as_str().unwrap());
    Upgraded { manifest, config }
}

fn ours(gateway: &Gateway, guise: Guise, tag: &str) -> Upgraded {
    let answer = guise.ask(gateway.address, &format!("/v2/{REPOSITORY}/manifests/{tag}"));
    assert_eq!(answer.status, 200, "{tag}: {}", answer.text());
    let manifest = json_of(&answer.body);
    let digest = manifest["config"]["digest"].as_str().unwrap();
    let config = guise.ask(gateway.address, &format!("/v2/{REPOSITORY}/blobs/{digest}"));
    assert_eq!(images::digest(&config.body), digest, "{tag}: {}", config.text());
    Upgraded { config: json_of(&config.body), manifest }
}

impl Upgraded {
    fn layers(&self) -> Vec<&str> {
        self.manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap()).collect()
    }

    /// The fields of the run configuration that say something: one that is empty is as good as not there.
    fn run_configuration(&self) -> Map<String, Value> {
        let says_something = |value: &Value| match value {
            Value::Null => false,
            Value::Bool(truth) => *truth,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::String(text) => !text.is_empty(),
            Value::Array(elements) => !elements.is_empty(),
            Value::Object(members) => !members.is_empty(),
        };
        let mut fields = self.config["config"].as_object().cloned().unwrap_or_default();
        fields.retain(|_, value| says_something(value));
        fields
    }

    fn assert_equals(&self, theirs: &Self, oracle: &Oracle, what: &str) {
        assert_eq!(self.layers(), theirs.layers(), "{what}: layers");
        for field in ["rootfs", "architecture", "os", "created", "author", "history"] {
            assert_eq!(self.config[field], theirs.config[field], "{what}: {field}");
        }
        let (ours, theirs) = (self.run_configuration(), theirs.run_configuration());
        for field in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let expected = ours.get(field).filter(|_| !oracle.drops.contains(&field.as_str()));
            assert_eq!(theirs.get(field), expected, "{what}: config.{field}");
        }
    }
}

/// Every field of Docker's `container.Config`, none of them empty.
fn every_field() -> Value {
    json!({
        "Hostname": "host", "Domainname": "example.org", "User": "1000:50",
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
        "ExposedPorts": {"53/udp": {}, "8080/tcp": {}}, "Tty": true, "OpenStdin": true, "StdinOnce": true,
        "Env": ["PATH=/usr/bin:/bin", "A=<b> & c"], "Cmd": ["/x", "--flag"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true || exit 1"], "Interval": 5_000_000_000_u64, "Timeout": 2_000_000_000, "Retries": 3},
        "ArgsEscaped": true, "Image": "sha256:0123", "Volumes": {"/data": {}, "/cache": {}}, "WorkingDir": "/work",
        "Entrypoint": ["/entry", "point"], "NetworkDisabled": true, "MacAddress": "02:42:ac:11:00:02",
        "OnBuild": ["RUN one", "ADD . /two"], "Labels": {"what": "a test", "z": "<&>"}, "StopSignal": "SIGUSR1",
        "StopTimeout": 7, "Shell": ["/bin/bash", "-c"],
    })
}

/// The runnable image as one version of Docker would say that it made it, or as a builder that says none.
fn made_by(docker_version: Option<&str>, fields: Value) -> Image {
    let mut image = images::runnable();
    let mut config = json_of(&image.config.bytes);
    config["config"] = fields;
    config["author"] = "somebody <of@example.org>".into();
    if let Some(version) = docker_version {
        config["docker_version"] = version.into();
        config["container"] = "0".repeat(64).into();
        config["container_config"] = json!({"Cmd": ["/bin/sh", "-c", "#(nop) CMD [\"/x\"]"], "Env": null});
    }
    image.config = Blob::new(serde_json::to_vec(&config).unwrap());
    image
}

/// Many steps, every third of which made a layer; the last has none, and one layer comes twice.
fn many_steps() -> Image {
    let mut image = made_by(Some("1.12.6"), json!({"Cmd": ["/x"], "Env": ["A=b"]}));
    let archive = |step: usize| layers::tar(&[(&format!("data/{:02}", step % 57), "of a step\n")]);
    let made_layers: Vec<_> = (0..60).step_by(3).map(archive).collect();
    let entry = |step: usize| {
        let mut entry = json!({"created": "2016-05-04T03:02:01Z", "created_by": format!("step {step} # <&>")});
        if !step.is_multiple_of(3) {
            entry["empty_layer"] = true.into();
        }
        entry
    };
    let mut config = json_of(&image.config.bytes);
    config["history"] = (0..60).map(entry).collect();
    config["rootfs"]["diff_ids"] = made_layers.iter().map(|archive| images::digest(archive)).collect();
    image.layers = made_layers.iter().map(|archive| Blob::new(layers::gzip(archive))).collect();
    image.config = Blob::new(serde_json::to_vec(&config).unwrap());
    image
}

/// A registry with each image as schema 1, made by skopeo and by docker-registry, and its tags.
fn schema_1_by_others(images: &[(&str, Image)]) -> (Registry, Vec<String>) {
    let registry = Registry::docker_registry_with_schema1();
    let mut tags = Vec::new();
    for (name, image) in images {
        registry.push(image, Twin::Schema2, REPOSITORY, name);
        let by_skopeo = format!("{name}-by-skopeo");
        skopeo(&["--format", "v2s1", &at(&registry, name), &at(&registry, &by_skopeo)]);
        // Whoever sends no Accept header gets schema 1, whose empty layer the registry puts beside the others.
        let converted = http::ask_as_docker_1_9(registry.address, &format!("/v2/{REPOSITORY}/manifests/{name}"));
        assert_eq!(converted.header("content-type"), Some(PRETTYJWS), "{}", converted.text());
        let by_registry = format!("{name}-by-registry");
        let put = registry.put_manifest(REPOSITORY, &by_registry, PRETTYJWS, &converted.body);
        assert_eq!(put.status, 201, "{by_registry}: {}", put.text());
        tags.extend([by_skopeo, by_registry]);
    }
    (registry, tags)
}

fn old_images() -> [(&'static str, Image); 4] {
    [
        ("docker-1.13", made_by(Some("1.13.1"), every_field())),
        ("docker-1.7", made_by(Some("1.7.1"), every_field())),
        ("nobody", made_by(None, every_field())),
        ("many-steps", many_steps()),
    ]
}

fn upgrading(registry: &Registry) -> Gateway {
    Gateway::start_before(&format!("http://{}", registry.address), &[("SCHEMABRIDGE_UPGRADE_SCHEMA1", "true")])
}

#[test]
fn layers_diff_ids_and_each_field_are_those_of_skopeo_and_of_containerd() {
    let (registry, tags) = schema_1_by_others(&old_images());
    let gateway = upgrading(&registry);
    for tag in &tags {
        for oracle in &ORACLES {
            let theirs = (oracle.upgrade)(&registry, tag);
            ours(&gateway, oracle.guise, tag).assert_equals(&theirs, oracle, &format!("{tag}: {}", oracle.name));
        }
    }
}

/// Docker 20.10 reads schema 1 itself: the image has the ID that the gateway's config has.
#[test]
fn the_image_id_is_the_one_that_docker_gives_to_the_same_schema_1() {
    let (registry, tags) = schema_1_by_others(&old_images());
    let gateway = upgrading(&registry);
    for tag in &tags {
        let dockerd = Dockerd::start();
        let name = reference(registry.address, REPOSITORY, tag);
        dockerd.pull(&name);
        for guise in [READS_ONLY_SCHEMA_2, READS_OCI] {
            let manifest = ours(&gateway, guise, tag).manifest;
            assert_eq!(manifest["config"]["digest"], dockerd.image_id(&name), "{tag} for {}", guise.served);
        }
    }
}

/// crane lists schema 1 and refuses it; through the gateway it has the image, its config and its files.
#[test]
fn crane_refuses_the_schema_1_and_pulls_it_through_the_gateway() {
    let Some(crane) = programs::go_tool("crane") else { return };
    let (registry, tags) = schema_1_by_others(&[("runnable", images::runnable())]);
    let gateway = upgrading(&registry);
    for tag in &tags {
        let directory = programs::directory();
        let pulled = |name: &str| {
            let mut command = Command::new(&crane);
            programs::outcome(command.args(["pull", name]).arg(directory.path().join("image.tar")))
        };
        let refused = pulled(&reference(registry.address, REPOSITORY, tag));
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && words.contains("unsupported MediaType"), "{tag}: {words}");

        let name = reference(gateway.address, REPOSITORY, tag);
        let given = pulled(&name);
        assert!(given.status.success(), "{tag}: {}", String::from_utf8_lossy(&given.stderr));
        run(Command::new(&crane).args(["export", &name]).arg(directory.path().join("files.tar")));
        let files = std::fs::read(directory.path().join("files.tar")).unwrap();
        for (path, text) in images::FILES {
            assert_eq!(layers::file_in_tar(&files, path), Some(text.as_bytes()), "{tag}: {path}");
        }
        let config = json_of(run(Command::new(&crane).args(["config", &name])).as_bytes());
        assert_eq!(config, ours(&gateway, READS_OCI, tag).config, "{tag}");
    }
}
