//! Old images for new clients and new layers for old ones, by a gateway that was let read layers.

use std::process::Command;

use serde_json::Value;

use crate::{
    documents::PRETTYJWS,
    engines::{Dockerd, reference},
    http, images,
    images::Twin,
    programs::{self, run},
    registries::{Gateway, Registry},
    signature::{REPOSITORY, TAG, signed_document_and_its_judge},
};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn skopeo(arguments: &[&str]) -> String {
    let mut command = Command::new(programs::debian("skopeo"));
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run(command.args(["--insecure-policy", "copy", "--quiet"]).args(plain).args(arguments))
}

fn at(registry: &Registry, tag: &str) -> String {
    format!("docker://{}", reference(registry.address, REPOSITORY, tag))
}

fn opted_in(registry: &Registry) -> Gateway {
    let switches = [("SCHEMABRIDGE_UPGRADE_SCHEMA1", "true"), ("SCHEMABRIDGE_TRANSCODE", "zstd")];
    Gateway::start_before(&format!("http://{}", registry.address), &switches)
}

/// What crane asks for: it lists schema 1 and refuses it.
fn ask_as_crane(gateway: &Gateway, target: &str) -> http::Answer {
    let accept = format!("application/vnd.docker.distribution.manifest.v1+json, {OCI}");
    let headers = [("User-Agent", "crane/v0.20.6 go-containerregistry/v0.20.6"), ("Accept", accept.as_str())];
    http::ask(gateway.address, "GET", target, &headers, b"").unwrap()
}

/// Stored schema 1 as skopeo makes it, and as docker-registry does.
#[test]
fn schema_1_is_upgraded_to_what_skopeo_makes_of_it_and_crane_pulls_it() {
    let (document, registry) = signed_document_and_its_judge();
    assert_eq!(registry.put_manifest(REPOSITORY, TAG, PRETTYJWS, &document).status, 201);
    let image = images::runnable_labelled("made by skopeo");
    registry.push(&image, Twin::Schema2, REPOSITORY, "schema2");
    skopeo(&["--format", "v2s1", &at(&registry, "schema2"), &at(&registry, "skopeo")]);
    let gateway = opted_in(&registry);
    for tag in [TAG, "skopeo"] {
        let directory = programs::directory();
        skopeo(&["--format", "oci", &at(&registry, tag), &format!("dir:{}", directory.path().display())]);
        let read = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(directory.path().join(name)).unwrap()).unwrap()
        };
        let theirs = read("manifest.json");
        let config_name = theirs["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        let answer = ask_as_crane(&gateway, &format!("/v2/{REPOSITORY}/manifests/{tag}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(OCI)), "{}", answer.text());
        let ours: Value = serde_json::from_slice(&answer.body).unwrap();
        let layers = |manifest: &Value| -> Vec<Value> {
            manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect()
        };
        assert_eq!(layers(&ours), layers(&theirs), "{tag}");
        let digest = ours["config"]["digest"].as_str().unwrap();
        let config = ask_as_crane(&gateway, &format!("/v2/{REPOSITORY}/blobs/{digest}"));
        let config: Value = serde_json::from_slice(&config.body).unwrap();
        let their_config = read(&config_name);
        for field in ["rootfs", "architecture", "os", "created"] {
            assert_eq!(config[field], their_config[field], "{tag}: {field}");
        }
        let Some(crane) = programs::go_tool("crane") else { continue };
        let name = reference(gateway.address, REPOSITORY, tag);
        let exported = programs::outcome(Command::new(&crane).args(["export", &name, "-"]));
        assert!(exported.status.success(), "{tag}: {}", String::from_utf8_lossy(&exported.stderr));
        let found: Value = serde_json::from_str(&run(Command::new(&crane).args(["config", &name]))).unwrap();
        assert_eq!(found, config);
    }
}

/// Docker 20.10 cannot unpack zstd. Its files come through gzip layers.
#[test]
fn docker_20_10_pulls_an_image_whose_layers_skopeo_packed_with_zstd() {
    let first = Registry::docker_registry();
    first.push(&images::runnable_labelled("zstd"), Twin::Oci, REPOSITORY, "gzip");
    let directory = programs::directory();
    let plain = format!("dir:{}", directory.path().display());
    skopeo(&["--dest-decompress", &at(&first, "gzip"), &plain]);
    // Where gzip layers with the same archives are, skopeo would take those.
    let registry = Registry::docker_registry();
    skopeo(&["--format", "oci", "--dest-compress-format", "zstd", &plain, &at(&registry, "zstd")]);
    let target = format!("/v2/{REPOSITORY}/manifests/zstd");
    let stored = http::ask(registry.address, "GET", &target, &[("Accept", OCI)], b"").unwrap();
    assert!(stored.text().contains("tar+zstd"), "{}", stored.text());
    let gateway = opted_in(&registry);
    let dockerd = Dockerd::start();
    let name = reference(gateway.address, REPOSITORY, "zstd");
    dockerd.pull(&name);
    dockerd.assert_files(&name, "zstd layers");
}
