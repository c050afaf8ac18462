//! A registry that takes nothing but the tokens of a server that it knows: got by the gateway, or by clients that log in
//! themselves.

use std::{net::SocketAddr, path::Path};

use crate::{
    engines::{Containerd, Dockerd, holds_files, reference},
    home::Home,
    http,
    images::{self, Twin},
    programs::{self, outcome, run},
    registries::{Gateway, PASSWORD, Registry, USER},
    token_server::TokenServer,
};

const REPOSITORY: &str = "test/private";
const TAG: &str = "v1";
const KNOWN: &str = "carol:let-me-in";

/// A registry with the runnable image, and the server of its tokens.
fn private() -> (TokenServer, Registry) {
    let (tokens, registry) = (TokenServer::start(), Registry::docker_registry());
    registry.push(&images::runnable(), Twin::Oci, REPOSITORY, TAG);
    let registry = registry.behind(&tokens);
    (tokens, registry)
}

fn gateway(registry: SocketAddr, more: &str) -> Gateway {
    Gateway::start_with_file(&format!("[[upstream]]\nname = \"private\"\nurl = \"http://{registry}\"\n{more}\n"), &[])
}

/// What the registry says to whoever has no token, and to whoever has one that somebody else signed.
#[test]
fn the_registry_checks_the_tokens() {
    let (tokens, registry) = private();
    let target = format!("/v2/{REPOSITORY}/manifests/{TAG}");
    let refused = http::ask(registry.address, "GET", &target, &[], b"").unwrap();
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains(&tokens.address.to_string()), "{challenge}");

    let ask_with_token_of = |tokens: &TokenServer| {
        let bearer = format!("Bearer {}", tokens.token(&[format!("repository:{REPOSITORY}:pull")]));
        let headers = [("Authorization", bearer.as_str()), ("Accept", Twin::Oci.media_type())];
        http::ask(registry.address, "GET", &target, &headers, b"").unwrap().status
    };
    assert_eq!(ask_with_token_of(&tokens), 200);
    assert_eq!(ask_with_token_of(&TokenServer::start()), 401);
}

#[test]
fn the_gateway_gets_its_own_tokens_and_anybody_pulls() {
    let (tokens, registry) = private();
    let folder = programs::directory();
    let file = folder.path().join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    let auth = format!(r#"auth = {{ mode = "basic", username = "{USER}", password_file = "{}" }}"#, file.display());
    let gateway = gateway(registry.address, &auth);
    let image = reference(gateway.address, REPOSITORY, TAG);

    assert_skopeo_copies(&Home::new(), &[], &image);
    let containerd = Containerd::start();
    assert_eq!(containerd.pull(&image), images::digest(&images::runnable().manifest(Twin::Oci)));
    containerd.assert_files("containerd");

    let asked = tokens.asked();
    assert!(asked.iter().all(|asked| asked.is_known), "{asked:?}");
    let scope = format!("repository:{REPOSITORY}:pull");
    assert!(asked.iter().any(|asked| asked.scopes == [scope.as_str()]), "{asked:?}");
    assert!(asked.len() <= 2, "a token is used until it expires: {asked:?}");
    assert!(asked.iter().all(|asked| !asked.user_agent.starts_with("skopeo")), "{asked:?}");
}

/// In both ways: clients reach the token server themselves, or nothing but the gateway.
#[test]
fn clients_log_in_themselves() {
    for mode in ["pass", "rewrite"] {
        let (tokens, registry) = private();
        let gateway = gateway(registry.address, &format!("challenge = \"{mode}\""));
        let image = reference(gateway.address, REPOSITORY, TAG);

        let home = Home::new();
        for credentials in ["--src-no-creds", "--src-creds=carol:let-me-out"] {
            let (mut copy, _) = home.skopeo_copy(&["--src-tls-verify=false", credentials], &image, "refused");
            assert!(!outcome(&mut copy).status.success(), "{mode}: {credentials} was let in");
        }
        assert_skopeo_copies(&home, &["--src-creds", KNOWN], &image);
        assert_podman_pulls(&home, &["--creds", KNOWN], &image);
        assert_docker_logs_in_and_pulls(gateway.address, &image);
        let containerd = Containerd::start();
        run(containerd.ctr().args([
            "images",
            "pull",
            "--snapshotter",
            "native",
            "--plain-http",
            "--user",
            KNOWN,
            &image,
        ]));
        containerd.assert_files(mode);

        let asked = tokens.asked();
        let through_gateway = asked.iter().filter(|asked| asked.user_agent.starts_with("schemabridge/")).count();
        let expected = if mode == "pass" { 0 } else { asked.len() };
        assert_eq!(through_gateway, expected, "{mode}: {asked:?}");
        assert!(asked.iter().any(|asked| !asked.is_known), "a wrong password was not asked about: {asked:?}");
    }
}

fn assert_skopeo_copies(home: &Home, credentials: &[&str], image: &str) {
    let arguments = [&["--src-tls-verify=false"], credentials].concat();
    let (mut copy, target) = home.skopeo_copy(&arguments, image, "copied");
    run(&mut copy);
    let manifest = images::runnable().manifest(Twin::Oci);
    assert_eq!(std::fs::read(target.join("manifest.json")).unwrap(), manifest);
}

fn assert_podman_pulls(home: &Home, credentials: &[&str], image: &str) {
    run(&mut home.podman_pull(&[&["--tls-verify=false"], credentials].concat(), image));
    let root = run(home.podman().args(["image", "mount", image]));
    assert!(holds_files(Path::new(root.trim())), "the files are not in {root}");
    run(home.podman().args(["image", "unmount", image]));
}

fn assert_docker_logs_in_and_pulls(gateway: SocketAddr, image: &str) {
    let (dockerd, settings) = (Dockerd::start(), programs::directory());
    let docker = |arguments: &[&str]| {
        let mut command = dockerd.docker();
        command.arg("--config").arg(settings.path()).args(arguments);
        command
    };
    assert!(!outcome(&mut docker(&["pull", image])).status.success(), "docker is let in without a password");
    run(&mut docker(&["login", "--username", USER, "--password", PASSWORD, &gateway.to_string()]));
    run(&mut docker(&["pull", image]));
    dockerd.assert_files(image, "docker");
}
