//! Derived schema 2 and OCI documents, compared with what real programs make of the same image.

use std::process::Command;

use serde_json::Value;

use crate::{
    engines::{Dockerd, reference},
    guises::{READS_OCI, READS_SCHEMA_2},
    images::{self, Blob, Image, Twin},
    programs::{self, run},
    registries::{Gateway, Registry},
};

const REPOSITORY: &str = "test/derived";
const TAG: &str = "v1";

fn target() -> String {
    format!("/v2/{REPOSITORY}/manifests/{TAG}")
}

/// The manifest that skopeo writes when it is told to convert.
fn converted_by_skopeo(registry: &Registry, format: &str) -> Value {
    let directory = programs::directory();
    let target = directory.path().join("image");
    run(Command::new(programs::debian("skopeo"))
        .args(["--insecure-policy", "copy", "--src-tls-verify=false", "--format", format])
        .arg(format!("docker://{}", reference(registry.address, REPOSITORY, TAG)))
        .arg(format!("dir:{}", target.display())));
    serde_json::from_slice(&std::fs::read(target.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn derived_schema_2_says_what_skopeo_says() {
    for registry in Registry::both() {
        registry.push(&images::runnable(), Twin::Oci, REPOSITORY, TAG);
        let gateway = Gateway::start(&registry);
        let answer = READS_SCHEMA_2.ask(gateway.address, &target());
        assert_eq!(answer.header("content-type"), Some(Twin::Schema2.media_type()), "{}", answer.text());
        let derived: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(derived, converted_by_skopeo(&registry, "v2s2"), "{}", registry.name);
    }
}

/// skopeo rewrites the config on this way, which changes the image's id; the gateway does not. The rest is the same.
#[test]
fn derived_oci_says_what_skopeo_says_but_for_the_config() {
    for registry in Registry::both() {
        let image = images::runnable();
        registry.push(&image, Twin::Schema2, REPOSITORY, TAG);
        let gateway = Gateway::start(&registry);
        let answer = READS_OCI.ask(gateway.address, &target());
        assert_eq!(answer.header("content-type"), Some(Twin::Oci.media_type()), "{}", answer.text());
        let derived: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(derived["config"]["digest"], image.config.digest.as_str(), "{}", registry.name);
        let mut expected = converted_by_skopeo(&registry, "oci");
        expected["config"] = derived["config"].clone();
        assert_eq!(derived, expected, "{}", registry.name);
    }
}

/// An image that Docker pushed, kept by a mirror in OCI words, is again what Docker pushed, and has the same digest.
#[test]
fn the_oci_twin_of_what_docker_pushed_comes_back_as_docker_wrote_it() {
    for registry in Registry::both() {
        let (image, pushed) = pushed_by_docker(&registry);
        registry.push(&image, Twin::Oci, REPOSITORY, TAG);
        let gateway = Gateway::start(&registry);
        let answer = READS_SCHEMA_2.ask(gateway.address, &target());
        assert_eq!(answer.text(), String::from_utf8_lossy(&pushed), "{}", registry.name);
        assert_eq!(answer.header("docker-content-digest"), Some(images::digest(&pushed).as_str()), "{}", registry.name);
    }
}

/// The runnable image as Docker pushes it, and the manifest that Docker wrote: it compresses the layers itself.
fn pushed_by_docker(registry: &Registry) -> (Image, Vec<u8>) {
    let dockerd = Dockerd::start();
    let loaded = reference(registry.address, REPOSITORY, "loaded");
    let pushed = reference(registry.address, "test/pushed", TAG);
    registry.push(&images::runnable(), Twin::Schema2, REPOSITORY, "loaded");
    dockerd.pull(&loaded);
    run(dockerd.docker().args(["tag", &loaded, &pushed]));
    run(dockerd.docker().args(["push", &pushed]));

    let manifest = READS_SCHEMA_2.ask(registry.address, &format!("/v2/test/pushed/manifests/{TAG}")).body;
    let document: Value = serde_json::from_slice(&manifest).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        Blob::new(READS_SCHEMA_2.ask(registry.address, &format!("/v2/test/pushed/blobs/{digest}")).body)
    };
    let layers = document["layers"].as_array().unwrap().iter().map(blob).collect();
    (Image { name: "pushed".to_owned(), config: blob(&document["config"]), layers }, manifest)
}
