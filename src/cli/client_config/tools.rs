//! What each tool reads, and where.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::files::{File, Root};
use super::{Failure, Gateway, Tool, Upstream};

const HOSTS: &str = "etc/containerd/certs.d";
const HOSTS_FILE: &str = "hosts.toml";
const DAEMON: &str = "etc/docker/daemon.json";
const REGISTRIES: &str = "etc/containers/registries.conf.d/50-schemabridge.conf";
const K3S: &str = "etc/rancher/k3s/registries.yaml";

/// The first line of every file that has comments.
const HEAD: &str = "# Written by `schemabridge client-config`, which takes it back with `--undo`.\n";

/// The files that make a tool pull through the gateway.
pub(super) fn wanted(tool: Tool, gateway: &Gateway, upstreams: &[Upstream], root: &Root) -> Result<Vec<File>, Failure> {
    match tool {
        Tool::Containerd => Ok(upstreams.iter().map(|upstream| hosts_toml(gateway, upstream)).collect()),
        Tool::Docker => daemon_json(gateway, upstreams, root).map(|file| vec![file]),
        Tool::Podman | Tool::Crio => Ok(vec![registries_conf(gateway, upstreams)]),
        Tool::K3s => registries_yaml(gateway, upstreams, root).map(|file| vec![file]),
    }
}

/// Every place where a tool's files may have been written.
pub(super) fn places(tool: Tool, root: &Root) -> Result<Vec<PathBuf>, Failure> {
    match tool {
        Tool::Containerd => {
            let folders = root.folders(HOSTS.as_ref())?;
            Ok(folders.into_iter().map(|folder| folder.join(HOSTS_FILE)).collect())
        }
        Tool::Docker => Ok(vec![DAEMON.into()]),
        Tool::Podman | Tool::Crio => Ok(vec![REGISTRIES.into()]),
        Tool::K3s => Ok(vec![K3S.into()]),
    }
}

/// What else the person at the machine has to know or do.
pub(super) fn hints(tool: Tool, upstreams: &[Upstream]) -> Vec<&'static str> {
    match tool {
        Tool::Containerd => vec![
            "containerd reads these files without a restart, but only where its config.toml has config_path = \"/etc/containerd/certs.d\",",
            "under [plugins.\"io.containerd.grpc.v1.cri\".registry] in containerd 1 and [plugins.\"io.containerd.cri.v1.images\".registry] in containerd 2.",
            "It names the registry in each request (?ns=), from containerd 1.4 on.",
        ],
        Tool::Docker if upstreams.iter().any(|upstream| upstream.prefix.is_some()) => {
            vec!["Reload it: systemctl reload docker", "Docker takes a mirror with a path from version 25 on."]
        }
        Tool::Docker => vec![
            "Reload it: systemctl reload docker",
            "Docker does not say which registry it means: docker.io has to be the gateway's default upstream.",
        ],
        Tool::Podman => vec!["podman, buildah and skopeo read this file each time they run."],
        Tool::Crio => vec!["Reload it: systemctl reload crio"],
        Tool::K3s => vec!["Restart it: systemctl restart k3s, or k3s-agent on agents"],
    }
}

/// One file for each registry. containerd falls back to the registry itself, which needs no line.
fn hosts_toml(gateway: &Gateway, upstream: &Upstream) -> File {
    let origin = gateway.origin();
    let (host, path) = match &upstream.prefix {
        None => (origin, ""),
        Some(prefix) => (format!("{origin}/v2/{prefix}"), "  override_path = true\n"),
    };
    let content = format!("{HEAD}[host.\"{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{path}");
    File { path: [HOSTS, &upstream.host, HOSTS_FILE].iter().collect(), content }
}

/// A table for each registry, in a file of its own.
fn registries_conf(gateway: &Gateway, upstreams: &[Upstream]) -> File {
    let insecure = if gateway.is_plain() { "insecure = true\n" } else { "" };
    let tables = upstreams.iter().map(|upstream| {
        let host = &upstream.host;
        let prefix = upstream.prefix.as_ref().map_or(host.as_str(), |prefix| prefix.as_str());
        format!(
            "\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n[[registry.mirror]]\nlocation = \"{}/{prefix}\"\n{insecure}",
            gateway.authority()
        )
    });
    File { path: REGISTRIES.into(), content: HEAD.to_owned() + &tables.collect::<String>() }
}

/// The whole file: what somebody else wrote there may hold passwords and certificates that cannot be taken over.
fn registries_yaml(gateway: &Gateway, upstreams: &[Upstream], root: &Root) -> Result<File, Failure> {
    let path = PathBuf::from(K3S);
    if root.original(&path)?.is_some() {
        let words = "exists; add what this command prints for an empty `--root` to its `mirrors`, or move it away";
        return Err(format!("{} {words}", root.path(&path).display()).into());
    }
    let mirrors = upstreams.iter().map(|upstream| {
        let rewrite = upstream
            .prefix
            .as_ref()
            .map_or_else(String::new, |prefix| format!("    rewrite:\n      \"^(.*)$\": \"{prefix}/$1\"\n"));
        format!("  \"{}\":\n    endpoint:\n      - \"{}\"\n{rewrite}", upstream.host, gateway.origin())
    });
    Ok(File { path, content: format!("{HEAD}mirrors:\n{}", mirrors.collect::<String>()) })
}

/// Docker's file with the mirror added, every other setting as it was.
fn daemon_json(gateway: &Gateway, upstreams: &[Upstream], root: &Root) -> Result<File, Failure> {
    if let Some(other) = upstreams.iter().find(|upstream| !upstream.is_docker_hub()) {
        let words = "docker has mirrors for Docker Hub only; expected `--upstream docker.io`, and images of other registries named by the gateway";
        return Err(format!("--upstream {}: {words}", other.host).into());
    }
    let path = PathBuf::from(DAEMON);
    let shown = root.path(&path).display().to_string();
    let mut settings = match root.original(&path)? {
        None => Map::new(),
        Some(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
        Some(bytes) => {
            let settings: Result<Map<String, Value>, _> = serde_json::from_slice(&bytes);
            settings.map_err(|error| format!("{shown} cannot be read: {error}; expected a JSON object"))?
        }
    };
    let origin = gateway.origin();
    let mirrors = upstreams.iter().map(|upstream| match &upstream.prefix {
        None => origin.clone(),
        Some(prefix) => format!("{origin}/{prefix}"),
    });
    add(&mut settings, "registry-mirrors", mirrors).map_err(|error| format!("{shown}: {error}"))?;
    if gateway.is_plain() {
        let host = std::iter::once(gateway.authority());
        add(&mut settings, "insecure-registries", host).map_err(|error| format!("{shown}: {error}"))?;
    }
    let mut content = serde_json::to_string_pretty(&settings)?;
    content.push('\n');
    Ok(File { path, content })
}

/// Adds these texts to a list of the settings, unless they are in it.
fn add(settings: &mut Map<String, Value>, key: &str, texts: impl Iterator<Item = String>) -> Result<(), String> {
    let list = settings.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else { return Err(format!("`{key}` is not a list")) };
    for text in texts.map(Value::String) {
        if !list.contains(&text) {
            list.push(text);
        }
    }
    Ok(())
}
