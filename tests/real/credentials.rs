//! The caller's own credentials decide, at the registry, about translations as about all else.

use std::process::Command;

use crate::{
    documents,
    engines::{Dockerd, reference},
    http::{self, Answer, DOCKER_1_9_1},
    images::{self, Twin},
    programs::{self, outcome, run},
    registries::{Gateway, PASSWORD, Registry, USER, basic},
};

const REPOSITORY: &str = "test/private";
const TAG: &str = "v1";

/// Gateways in front of both registries, which ask for a password and store the runnable image.
fn private() -> Vec<(Registry, Gateway)> {
    let stored = |registry: Registry| {
        registry.push(&images::runnable(), Twin::Oci, REPOSITORY, TAG);
        let gateway = Gateway::start(&registry);
        (registry, gateway)
    };
    Registry::both_behind_a_door().into_iter().map(stored).collect()
}

fn ask(gateway: &Gateway, path: &str, authorization: Option<&str>) -> Answer {
    let mut headers = vec![("User-Agent", DOCKER_1_9_1)];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    http::ask(gateway.address, "GET", path, &headers, b"").unwrap()
}

#[test]
fn a_translation_is_for_those_whom_the_registry_lets_see_the_image() {
    let right = basic(USER, PASSWORD);
    let wrong = basic(USER, "let-me-out");
    for (registry, gateway) in private() {
        let by_tag = format!("/v2/{REPOSITORY}/manifests/{TAG}");
        let answer = ask(&gateway, &by_tag, Some(&right));
        let digest = images::digest(&documents::schema1_of(&answer, registry.name));
        for path in ["/v2/".to_owned(), by_tag, format!("/v2/{REPOSITORY}/manifests/{digest}")] {
            for authorization in [None, Some(wrong.as_str())] {
                let refused = ask(&gateway, &path, authorization);
                assert_eq!(refused.status, 401, "{} {path}: {}", registry.name, refused.text());
                let challenge = refused.header("www-authenticate").unwrap_or_default();
                assert!(challenge.starts_with("Basic realm=\"test\""), "{} {path}: {challenge}", registry.name);
            }
            assert_eq!(ask(&gateway, &path, Some(&right)).status, 200, "{} {path}", registry.name);
        }
    }
}

#[test]
fn skopeo_needs_the_password() {
    for (registry, gateway) in private() {
        let inspect = |credentials: &str| {
            let mut command = Command::new(programs::debian("skopeo"));
            command.args(["inspect", "--raw", "--tls-verify=false", "--creds", credentials]);
            command.arg(format!("docker://{}", reference(gateway.address, REPOSITORY, TAG)));
            command
        };
        let manifest = run(&mut inspect(&format!("{USER}:{PASSWORD}")));
        assert_eq!(manifest.as_bytes(), images::runnable().manifest(Twin::Oci), "{}", registry.name);
        let refused = outcome(&mut inspect(&format!("{USER}:let-me-out")));
        assert!(!refused.status.success(), "{} lets a wrong password in", registry.name);
    }
}

#[test]
fn docker_logs_in_and_pulls() {
    for (registry, gateway) in private() {
        let dockerd = Dockerd::start();
        let settings = programs::directory();
        let docker = |arguments: &[&str]| {
            let mut command = dockerd.docker();
            command.arg("--config").arg(settings.path()).args(arguments);
            command
        };
        let image = reference(gateway.address, REPOSITORY, TAG);
        assert!(!outcome(&mut docker(&["pull", &image])).status.success(), "{} lets anybody in", registry.name);
        let host = gateway.address.to_string();
        run(&mut docker(&["login", "--username", USER, "--password", PASSWORD, &host]));
        run(&mut docker(&["pull", &image]));
        dockerd.assert_files(&image, registry.name);
    }
}
