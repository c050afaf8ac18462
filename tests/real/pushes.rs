//! Real clients push through a gateway that lets them, into both registries; and cannot where it does not.

use std::process::Command;

use crate::{
    engines::{Dockerd, reference},
    http,
    images::{self, Twin},
    programs::{self, outcome, run},
    registries::{Gateway, Registry},
};

const TAG: &str = "v1";

/// `skopeo copy` of the runnable image, from a registry that has it to a gateway.
fn copy_with_skopeo(source: &Registry, gateway: &Gateway) -> Command {
    source.push(&images::runnable(), Twin::Oci, "test/source", TAG);
    let mut command = Command::new(programs::debian("skopeo"));
    command
        .args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"])
        .arg(format!("docker://{}", reference(source.address, "test/source", TAG)))
        .arg(format!("docker://{}", reference(gateway.address, "test/pushed", TAG)));
    command
}

fn stored_digest(registry: &Registry, repository: &str) -> Option<String> {
    let accept = Twin::BOTH.map(Twin::media_type).join(", ");
    let target = format!("/v2/{repository}/manifests/{TAG}");
    let answer = http::ask(registry.address, "GET", &target, &[("Accept", &accept)], b"").unwrap();
    (answer.status == 200).then(|| images::digest(&answer.body))
}

#[test]
fn skopeo_pushes_through_a_gateway_that_lets_it() {
    let source = Registry::docker_registry();
    for registry in Registry::both() {
        let gateway = Gateway::start_for_pushes(&registry);
        run(&mut copy_with_skopeo(&source, &gateway));
        let expected = images::digest(&images::runnable().manifest(Twin::Oci));
        assert_eq!(stored_digest(&registry, "test/pushed"), Some(expected), "{}", registry.name);
    }
}

#[test]
fn skopeo_is_refused_by_a_gateway_that_does_not() {
    let source = Registry::docker_registry();
    for registry in Registry::both() {
        let gateway = Gateway::start(&registry);
        let refused = outcome(&mut copy_with_skopeo(&source, &gateway));
        assert!(!refused.status.success(), "{}", registry.name);
        assert_eq!(stored_digest(&registry, "test/pushed"), None, "{}", registry.name);
    }
}

#[test]
fn docker_pushes_what_it_pulled() {
    for registry in Registry::both() {
        let dockerd = Dockerd::start();
        let image = images::runnable();
        registry.push(&image, Twin::Oci, "test/source", TAG);
        let gateway = Gateway::start_for_pushes(&registry);
        let [from, to] = ["test/source", "test/again"].map(|repository| reference(gateway.address, repository, TAG));
        dockerd.pull(&from);
        run(dockerd.docker().args(["tag", &from, &to]));
        run(dockerd.docker().args(["push", &to]));
        assert!(stored_digest(&registry, "test/again").is_some(), "{}", registry.name);
        let dockerd = Dockerd::start();
        dockerd.pull(&to);
        assert_eq!(dockerd.image_id(&to), image.config.digest, "{}", registry.name);
        dockerd.assert_files(&to, registry.name);
    }
}
