//! What is stored as schema 1 goes out as it is stored, to every engine that reads it.

use std::process::Command;

use serde_json::Value;

use crate::{
    documents::{self, PRETTYJWS},
    engines::{Containerd, Dockerd, reference},
    http, images,
    programs::{self, run},
    registries::{Gateway, Registry},
    signature::{REPOSITORY, TAG, signed_document_and_its_judge},
};

/// A registry that stores the runnable image as signed schema 1, and the document as that registry gives it.
fn stored() -> (Registry, Vec<u8>) {
    let (document, registry) = signed_document_and_its_judge();
    assert_eq!(registry.put_manifest(REPOSITORY, TAG, PRETTYJWS, &document).status, 201);
    let stored = http::ask_as_docker_1_9(registry.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
    assert_eq!(stored.status, 200, "{}", stored.text());
    (registry, stored.body)
}

/// docker-registry keeps the payload alone and signs it anew for each answer, with one key for as long as it runs. So the
/// stored document is told by its payload, and its signature by the key.
fn assert_is_stored(actual: &[u8], stored: &[u8]) {
    let key = |document: &[u8]| {
        let document: Value = serde_json::from_slice(document).unwrap();
        document["signatures"][0]["header"]["jwk"]["kid"].as_str().expect("a signature names its key").to_owned()
    };
    assert_eq!(
        String::from_utf8_lossy(&documents::payload(actual)),
        String::from_utf8_lossy(&documents::payload(stored))
    );
    assert_eq!(key(actual), key(stored), "the signature was replaced");
}

#[test]
fn docker_1_9_gets_the_stored_document() {
    let (registry, document) = stored();
    let gateway = Gateway::start(&registry);
    let answer = http::ask_as_docker_1_9(gateway.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
    assert_is_stored(&answer.body, &document);
    assert_eq!(answer.header("content-type"), Some(PRETTYJWS));
}

#[test]
fn docker_20_10_containerd_and_skopeo_pull_it() {
    let (registry, document) = stored();
    let gateway = Gateway::start(&registry);
    let reference = reference(gateway.address, REPOSITORY, TAG);

    let dockerd = Dockerd::start();
    let digest = dockerd.pull(&reference);
    assert_eq!(digest, images::digest(&documents::payload(&document)));
    dockerd.assert_files(&reference, "stored schema 1");

    let containerd = Containerd::start();
    containerd.pull(&reference);
    containerd.assert_files("stored schema 1");

    let inspected = run(Command::new(programs::debian("skopeo"))
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{reference}")));
    assert_is_stored(inspected.as_bytes(), &document);
}
