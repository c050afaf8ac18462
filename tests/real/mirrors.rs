//! One gateway in front of two registries, and clients that take it for a mirror of both: by the very files that
//! `schemabridge client-config` writes for them.

use std::{net::SocketAddr, path::Path, process::Command};

use tempfile::TempDir;

use crate::{
    engines::{Containerd, Dockerd, holds_files},
    home::Home,
    http,
    images::{self, Image, Twin},
    programs::{self, outcome, run},
    registries::{Gateway, Registry, said},
    trap::Trap,
};

const TAG: &str = "v1";
/// How images name the second registry. There is no such host.
const CORP: &str = "registry.corp.example";

/// The gateway, and what it stands in front of: Docker Hub, as far as clients can tell, and a registry of a company's own.
struct Stage {
    gateway: Gateway,
    hub: Image,
    corp: Image,
    trap: Trap,
    _registries: [Registry; 2],
}

impl Stage {
    fn set() -> Self {
        let registries = [Registry::docker_registry(), Registry::docker_registry()];
        let (hub, corp) = (images::runnable_labelled("hub"), images::runnable_labelled("corp"));
        registries[0].push(&hub, Twin::Oci, "library/app", TAG);
        registries[1].push(&corp, Twin::Schema2, "team/app", TAG);
        let file = format!(
            r#"
[[upstream]]
name = "hub"
url = "http://{}"
aliases = ["docker.io"]
prefix = "hub"
library = true
auth = {{ mode = "anonymous" }}

[[upstream]]
name = "corp"
url = "http://{}"
aliases = ["{CORP}"]
prefix = "corp"
"#,
            registries[0].address, registries[1].address
        );
        let trap = Trap::set();
        let gateway = Gateway::start_with_file(&file, &trap.environment());
        Self { gateway, hub, corp, trap, _registries: registries }
    }

    /// A client's file system with what `client-config` writes for this tool.
    fn client_config(&self, tool: &str, upstreams: &[&str]) -> TempDir {
        let root = programs::directory();
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.args(["client-config", tool, "--write", "--gateway", &format!("http://{}", self.gateway.address)]);
        command.args(upstreams.iter().flat_map(|upstream| ["--upstream", upstream]));
        run(command.arg("--root").arg(root.path()));
        root
    }

    fn hub_digest(&self) -> String {
        images::digest(&self.hub.manifest(Twin::Oci))
    }

    fn corp_digest(&self) -> String {
        images::digest(&self.corp.manifest(Twin::Schema2))
    }

    /// The gateway's own words: these paths were asked for, and answered by this upstream.
    fn wait_for(&mut self, upstream: &str, repository: &str, image: &Image) {
        let layers = image.layers.iter().map(|layer| format!("blobs/{}", layer.digest));
        for path in layers.chain([format!("manifests/{TAG}")]) {
            let path = format!("/v2/{repository}/{path}");
            let line = self.gateway.wait_for_line(&format!("log an answer for {path}"), |line| {
                said(line, "path") == path && line["status"] == 200
            });
            assert_eq!(said(&line, "upstream"), upstream, "{line}");
        }
    }

    fn assert_nobody_else_was_dialled(&self) {
        assert_eq!(self.trap.caught(), [""; 0]);
    }

    /// What nobody has is looked for at the registry itself, which is where the trap is: so it works.
    fn assert_trap_catches(&self, command: &mut Command, host: &str) {
        let output = outcome(command);
        assert!(!output.status.success(), "{command:?} found what is not there");
        let caught = self.trap.caught();
        assert!(caught.iter().any(|line| line.contains(host)), "{command:?}: {caught:?}");
    }
}

#[test]
fn containerd_pulls_by_hosts_toml_and_names_the_registry() {
    let mut stage = Stage::set();
    let root = stage.client_config("containerd", &["docker.io", CORP]);
    let hosts = root.path().join("etc/containerd/certs.d");
    let (hub, corp) = (format!("docker.io/library/app:{TAG}"), format!("{CORP}/team/app:{TAG}"));
    pull_with_containerd(&stage, &hosts, &hub, &stage.hub_digest());
    pull_with_containerd(&stage, &hosts, &corp, &stage.corp_digest());
    let (hub, corp) = (stage.hub.clone(), stage.corp.clone());
    stage.wait_for("hub", "library/app", &hub);
    stage.wait_for("corp", "team/app", &corp);
    stage.assert_nobody_else_was_dialled();
    let containerd = Containerd::start();
    let mut absent = containerd.pull_by_hosts(&hosts, &format!("{CORP}/team/absent:{TAG}"));
    stage.assert_trap_catches(absent.envs(stage.trap.environment()), CORP);
}

#[test]
fn containerd_pulls_by_hosts_toml_with_the_prefix_beside_the_name() {
    let mut stage = Stage::set();
    let root = stage.client_config("containerd", &["docker.io=hub", &format!("{CORP}=corp")]);
    let hosts = root.path().join("etc/containerd/certs.d");
    let (hub, corp) = (format!("docker.io/library/app:{TAG}"), format!("{CORP}/team/app:{TAG}"));
    pull_with_containerd(&stage, &hosts, &hub, &stage.hub_digest());
    pull_with_containerd(&stage, &hosts, &corp, &stage.corp_digest());
    let (hub, corp) = (stage.hub.clone(), stage.corp.clone());
    stage.wait_for("hub", "hub/library/app", &hub);
    stage.wait_for("corp", "corp/team/app", &corp);
    stage.assert_nobody_else_was_dialled();
}

/// On a node that has nothing yet.
fn pull_with_containerd(stage: &Stage, hosts: &Path, reference: &str, digest: &str) {
    let containerd = Containerd::start();
    run(containerd.pull_by_hosts(hosts, reference).envs(stage.trap.environment()));
    assert_eq!(containerd.digest(reference), digest, "{reference}");
    containerd.assert_files(reference);
}

#[test]
fn podman_and_skopeo_pull_by_registries_conf() {
    let mut stage = Stage::set();
    let root = stage.client_config("podman", &["docker.io=hub", &format!("{CORP}=corp")]);
    let pulled = [
        ("docker.io/library/app", Twin::Oci, stage.hub.clone()),
        ("registry.corp.example/team/app", Twin::Schema2, stage.corp.clone()),
    ];
    for (repository, twin, image) in &pulled {
        let (home, reference) = (Home::on_machine(root.path()), format!("{repository}:{TAG}"));
        run(home.podman_pull(&[], &reference).envs(stage.trap.environment()));
        let digest = run(home.podman().args(["image", "inspect", "--format", "{{.Digest}}", &reference]));
        assert_eq!(digest.trim(), images::digest(&image.manifest(*twin)), "{reference}");
        let mounted = run(home.podman().args(["image", "mount", &reference]));
        assert!(holds_files(Path::new(mounted.trim())), "{reference}: the files are not in {mounted}");
        run(home.podman().args(["image", "unmount", &reference]));

        let (mut copy, target) = home.skopeo_copy(&[], &reference, "copied");
        run(copy.envs(stage.trap.environment()));
        assert_eq!(std::fs::read(target.join("manifest.json")).unwrap(), image.manifest(*twin), "{reference}");
    }
    stage.wait_for("hub", "hub/library/app", &pulled[0].2);
    stage.wait_for("corp", "corp/team/app", &pulled[1].2);
    stage.assert_nobody_else_was_dialled();
    let home = Home::on_machine(root.path());
    let (mut absent, _) = home.skopeo_copy(&[], &format!("{CORP}/team/absent:{TAG}"), "absent");
    stage.assert_trap_catches(absent.envs(stage.trap.environment()), CORP);
}

/// Docker has mirrors for Docker Hub alone, and does not say that it means Docker Hub.
#[test]
fn docker_20_10_pulls_a_short_name_by_registry_mirrors() {
    let mut stage = Stage::set();
    let root = stage.client_config("docker", &["docker.io"]);
    let settings = std::fs::read_to_string(root.path().join("etc/docker/daemon.json")).unwrap();
    let dockerd = Dockerd::start_with(&settings, &stage.trap.environment());
    let short = format!("app:{TAG}");
    assert_eq!(dockerd.pull(&short), stage.hub_digest());
    assert_eq!(dockerd.image_id(&short), stage.hub.config.digest);
    dockerd.assert_files(&short, "docker");
    let hub = stage.hub.clone();
    stage.wait_for("hub", "library/app", &hub);
    stage.assert_nobody_else_was_dialled();
    stage.assert_trap_catches(dockerd.docker().args(["pull", "absent"]), "docker.io");
}

/// Whoever names the gateway itself may leave out `library/`, as everybody does with Docker Hub.
#[test]
fn a_name_of_docker_hub_is_completed_and_a_registry_that_nobody_set_up_is_not_dialled() {
    let stage = Stage::set();
    let (gateway, manifest) = (stage.gateway.address, format!("manifests/{TAG}"));
    for target in [format!("/v2/app/{manifest}"), format!("/v2/hub/app/{manifest}"), format!("/hub/v2/app/{manifest}")]
    {
        assert_eq!(get(gateway, &target), (200, stage.hub.manifest(Twin::Oci)), "{target}");
    }
    for name in ["ghcr.io", "127.0.0.1:1", "docker.io.example"] {
        let target = format!("/v2/library/app/{manifest}?ns={name}");
        let (status, body) = get(gateway, &target);
        assert_eq!(status, 404, "{target}");
        assert!(String::from_utf8_lossy(&body).contains("NAME_UNKNOWN"), "{target}");
    }
    stage.assert_nobody_else_was_dialled();
}

fn get(to: SocketAddr, target: &str) -> (u16, Vec<u8>) {
    let answer = http::ask(to, "GET", target, &[], b"").unwrap();
    (answer.status, answer.body)
}
