//! Credentials that the gateway holds, wherever it has them from: clients need none, and what they send goes no further.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;

use crate::{
    engines::reference,
    home::Home,
    http,
    images::{self, Twin},
    programs::{self, outcome, run},
    recorder::Recorder,
    registries::{Gateway, PASSWORD, Registry, USER, basic},
};

const REPOSITORY: &str = "test/private";
const TAG: &str = "v1";

/// What the file says of an upstream's credentials, and the environment that this needs.
struct Held {
    auth: String,
    environment: Vec<(&'static str, String)>,
}

impl Held {
    fn new(auth: String) -> Self {
        Self { auth, environment: Vec::new() }
    }

    fn password_file(folder: &Path) -> Self {
        let file = folder.join("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        Self::new(format!(r#"{{ mode = "basic", username = "{USER}", password_file = "{}" }}"#, file.display()))
    }

    fn docker_config(folder: &Path, registry: &str) -> Self {
        let encoded = basic(USER, PASSWORD).split_off("Basic ".len());
        Self::config(folder, &json!({"auths": {registry: {"auth": encoded}}}))
    }

    /// docker's file, which leaves the registry to a helper.
    fn helper_of_docker_config(folder: &Path, registry: &str) -> Self {
        let held = Self::config(folder, &json!({"credHelpers": {registry: "of-a-test"}}));
        Self { environment: helper(folder, registry), ..held }
    }

    fn helper(folder: &Path, registry: &str) -> Self {
        let auth = r#"{ mode = "helper", helper = "of-a-test" }"#.to_owned();
        Self { auth, environment: helper(folder, registry) }
    }

    fn config(folder: &Path, config: &serde_json::Value) -> Self {
        let file = folder.join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        Self::new(format!(r#"{{ mode = "docker-config", file = "{}" }}"#, file.display()))
    }

    fn gateway(&self, registry: &str) -> Gateway {
        let file = format!("[[upstream]]\nname = \"private\"\nurl = \"http://{registry}\"\nauth = {}\n", self.auth);
        Gateway::start_with_file(&file, &self.environment)
    }
}

/// A helper that knows one registry, and the PATH where it is found.
fn helper(folder: &Path, registry: &str) -> Vec<(&'static str, String)> {
    let program = folder.join("docker-credential-of-a-test");
    let said = json!({"Username": USER, "Secret": PASSWORD});
    let script = format!("#!/bin/sh\n[ \"$1 $(cat)\" = 'get {registry}' ] || exit 1\nprintf '%s' '{said}'\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    vec![("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()))]
}

#[test]
fn anybody_pulls_with_the_gateways_credentials_and_shows_the_registry_none_of_their_own() {
    let registry = Registry::docker_registry_behind_a_door();
    let image = images::runnable();
    registry.push(&image, Twin::Oci, REPOSITORY, TAG);
    let recorder = Recorder::before(registry.address);
    let (folder, name) = (programs::directory(), recorder.address.to_string());
    let all = [
        Held::password_file(folder.path()),
        Held::docker_config(folder.path(), &name),
        Held::helper(folder.path(), &name),
    ];
    for held in &all {
        assert_pulls(&held.gateway(&name), &held.auth);
    }
    // Only now, for it is the same file.
    let held = Held::helper_of_docker_config(folder.path(), &name);
    assert_pulls(&held.gateway(&name), &held.auth);

    let shown = recorder.values("authorization");
    assert!(shown.len() > all.len(), "{:?}", recorder.heads());
    assert!(shown.iter().all(|value| *value == basic(USER, PASSWORD)), "{shown:?}");
}

fn assert_pulls(gateway: &Gateway, what: &str) {
    let home = Home::new();
    let image = reference(gateway.address, REPOSITORY, TAG);
    let (mut copy, target) = home.skopeo_copy(&["--src-tls-verify=false"], &image, "copied");
    run(&mut copy);
    let manifest = images::runnable().manifest(Twin::Oci);
    assert_eq!(std::fs::read(target.join("manifest.json")).unwrap(), manifest, "{what}");

    let layer = format!("blobs/{}", images::runnable().layers[0].digest);
    for path in [format!("manifests/{TAG}"), layer, "tags/list".to_owned()] {
        let headers = [("Authorization", &*basic("mallory", "her-own")), ("Proxy-Authorization", "Basic bWFsbG9yeTo=")];
        let answer = http::ask(gateway.address, "GET", &format!("/v2/{REPOSITORY}/{path}"), &headers, b"").unwrap();
        assert_eq!(answer.status, 200, "{what}: {path}: {}", answer.text());
    }
}

#[test]
fn a_wrong_password_of_the_gateways_is_a_refusal_without_a_challenge() {
    let registry = Registry::docker_registry_behind_a_door();
    registry.push(&images::runnable(), Twin::Oci, REPOSITORY, TAG);
    let (folder, name) = (programs::directory(), registry.address.to_string());
    let held = Held::password_file(folder.path());
    std::fs::write(folder.path().join("password"), "let-me-out").unwrap();
    let gateway = held.gateway(&name);
    let home = Home::new();
    let image = reference(gateway.address, REPOSITORY, TAG);
    let (mut copy, _) = home.skopeo_copy(&["--src-tls-verify=false"], &image, "copied");
    assert!(!outcome(&mut copy).status.success());
    let target = format!("/v2/{REPOSITORY}/manifests/{TAG}");
    // A client that knows the password is not let in with it: it is for the gateway to show.
    let own = basic(USER, PASSWORD);
    let refused = http::ask(gateway.address, "GET", &target, &[("Authorization", &*own)], b"").unwrap();
    assert_eq!((refused.status, refused.header("www-authenticate")), (403, None), "{}", refused.text());
}

#[test]
fn the_base_is_answered_while_the_registry_is_down() {
    let registry = Registry::docker_registry_behind_a_door();
    let (folder, name) = (programs::directory(), registry.address.to_string());
    let gateway = Held::password_file(folder.path()).gateway(&name);
    registry.kill();
    assert_eq!(http::ask(gateway.address, "GET", "/v2/", &[], b"").unwrap().status, 200);
    let gateway = Held::password_file(folder.path()).gateway(&name);
    assert_eq!(http::ask(gateway.address, "GET", "/v2/", &[], b"").unwrap().status, 200);
}
