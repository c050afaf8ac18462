//! `client-config`: what it writes is what each tool's documentation asks for, and taking it back leaves nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use serde_json::json;

const GATEWAY: &str = "http://10.0.0.7:5000";

const HOSTS: &str = "etc/containerd/certs.d/docker.io/hosts.toml";
const DAEMON: &str = "etc/docker/daemon.json";
const REGISTRIES: &str = "etc/containers/registries.conf.d/50-schemabridge.conf";
const K3S: &str = "etc/rancher/k3s/registries.yaml";

fn run(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.env_clear().arg("client-config").args(arguments).arg("--root").arg(root).output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Writes for this tool and these upstreams.
fn write(root: &Path, tool: &str, upstreams: &[&str]) -> Output {
    let mut arguments = vec![tool, "--gateway", GATEWAY, "--write"];
    arguments.extend(upstreams.iter().flat_map(|upstream| ["--upstream", upstream]));
    run(root, &arguments)
}

fn undo(root: &Path, tool: &str) -> Output {
    run(root, &[tool, "--undo"])
}

/// Exit 1 and one line that holds these words.
fn complaint(output: Output, words: &[&str]) {
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(1), 1), "{line}");
    for word in words {
        assert!(line.contains(word), "{word} is not in {line}");
    }
}

fn put(root: &Path, path: &str, content: &[u8]) {
    let file = root.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Every folder and file below, with what identifies a file: its bytes, its mode and when it was changed.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, u32, std::time::SystemTime)>> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
            found.insert(path, None);
        } else {
            let metadata = path.metadata().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Some((bytes, metadata.permissions().mode(), metadata.modified().unwrap())));
        }
    }
    found
}

/// The lines that are no comments.
fn said(text: &str) -> String {
    let lines = text.split_inclusive('\n').filter(|line| !line.starts_with('#'));
    lines.collect::<String>().trim_start().to_owned()
}

/// containerd's `docs/hosts.md`: a folder for each host, `[host."URL"]`, `capabilities`, and `override_path` where the
/// path of the URL is the whole path.
#[test]
fn containerd_has_a_file_for_each_registry() {
    let root = tempfile::tempdir().unwrap();
    text(write(root.path(), "containerd", &["docker.io", "quay.io=mirrors/quay", "registry.example:5443"]));
    let plain = "[host.\"http://10.0.0.7:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n";
    assert_eq!(said(&read(root.path(), HOSTS)), plain);
    assert_eq!(said(&read(root.path(), "etc/containerd/certs.d/registry.example:5443/hosts.toml")), plain);
    assert_eq!(
        said(&read(root.path(), "etc/containerd/certs.d/quay.io/hosts.toml")),
        "[host.\"http://10.0.0.7:5000/v2/mirrors/quay\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n"
    );
    let printed = text(run(root.path(), &["containerd", "--gateway", GATEWAY, "--upstream", "docker.io"]));
    assert!(printed.contains("config_path = \"/etc/containerd/certs.d\"") && printed.contains(plain), "{printed}");
}

/// containers-registries.conf(5): a `[[registry]]` with `prefix` and `location`, its `[[registry.mirror]]` tables after it,
/// `insecure` for plain HTTP.
#[test]
fn podman_and_crio_have_a_table_for_each_registry() {
    for tool in ["podman", "crio"] {
        let root = tempfile::tempdir().unwrap();
        text(write(root.path(), tool, &["docker.io", "quay.io=mirrors/quay"]));
        let expected = r#"[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "10.0.0.7:5000/docker.io"
insecure = true

[[registry]]
prefix = "quay.io"
location = "quay.io"

[[registry.mirror]]
location = "10.0.0.7:5000/mirrors/quay"
insecure = true
"#;
        assert_eq!(said(&read(root.path(), REGISTRIES)), expected);
    }
    let root = tempfile::tempdir().unwrap();
    let secure = ["podman", "--gateway", "https://gateway.example", "--upstream", "docker.io"];
    let printed = text(run(root.path(), &secure));
    assert!(printed.contains("location = \"gateway.example/docker.io\"") && !printed.contains("insecure"), "{printed}");
}

/// K3s' page on private registries: `mirrors`, a name each, `endpoint` and `rewrite`.
#[test]
fn k3s_has_a_mirror_for_each_registry() {
    let root = tempfile::tempdir().unwrap();
    text(write(root.path(), "k3s", &["docker.io", "quay.io=mirrors/quay"]));
    let expected = r#"mirrors:
  "docker.io":
    endpoint:
      - "http://10.0.0.7:5000"
  "quay.io":
    endpoint:
      - "http://10.0.0.7:5000"
    rewrite:
      "^(.*)$": "mirrors/quay/$1"
"#;
    assert_eq!(said(&read(root.path(), K3S)), expected);
}

/// dockerd's `daemon.json`: lists `registry-mirrors` of URLs and `insecure-registries` of hosts.
#[test]
fn docker_keeps_its_other_settings() {
    let root = tempfile::tempdir().unwrap();
    text(write(root.path(), "docker", &["docker.io"]));
    let settings = || serde_json::from_str::<serde_json::Value>(&read(root.path(), DAEMON)).unwrap();
    let ours = json!({"registry-mirrors": [GATEWAY], "insecure-registries": ["10.0.0.7:5000"]});
    assert_eq!(settings(), ours);
    text(undo(root.path(), "docker"));
    put(root.path(), DAEMON, br#"{"log-level":"warn","registry-mirrors":["https://other.example"],"mtu":1400}"#);
    text(write(root.path(), "docker", &["docker.io"]));
    let merged = json!({
        "log-level": "warn", "mtu": 1400,
        "registry-mirrors": ["https://other.example", GATEWAY], "insecure-registries": ["10.0.0.7:5000"],
    });
    assert_eq!(settings(), merged);
    complaint(write(root.path(), "docker", &["docker.io", "quay.io"]), &["quay.io", "Docker Hub"]);
}

#[test]
fn printing_writes_nothing_and_shows_what_would_be_written() {
    for tool in ["containerd", "docker", "podman", "crio", "k3s"] {
        let root = tempfile::tempdir().unwrap();
        let printed = text(run(root.path(), &[tool, "--gateway", GATEWAY, "--upstream", "docker.io"]));
        assert!(tree(root.path()).is_empty());
        text(write(root.path(), tool, &["docker.io"]));
        let files: Vec<_> = tree(root.path()).into_iter().filter_map(|(path, file)| Some((path, file?.0))).collect();
        let written = files.iter().find(|(path, _)| !path.to_string_lossy().contains("schemabridge-")).unwrap();
        assert!(printed.contains(written.0.to_str().unwrap()));
        assert!(printed.contains(std::str::from_utf8(&written.1).unwrap()), "{printed}");
    }
}

#[test]
fn a_second_write_changes_nothing_and_another_begins_from_the_original() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), DAEMON, br#"{"mtu":1400}"#);
    let before = tree(root.path());
    text(write(root.path(), "docker", &["docker.io"]));
    let after = tree(root.path());
    let again = text(write(root.path(), "docker", &["docker.io"]));
    assert!(again.contains("already"), "{again}");
    assert_eq!(tree(root.path()), after);
    let elsewhere = ["docker", "--gateway", "https://other.example", "--upstream", "docker.io", "--write"];
    text(run(root.path(), &elsewhere));
    let settings: serde_json::Value = serde_json::from_str(&read(root.path(), DAEMON)).unwrap();
    assert_eq!(settings, json!({"mtu": 1400, "registry-mirrors": ["https://other.example"]}));
    text(undo(root.path(), "docker"));
    assert_eq!(tree(root.path()), before);
    assert!(text(undo(root.path(), "docker")).contains("nothing"));
    assert_eq!(tree(root.path()), before);
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_changed() {
    for content in ["{\"mtu\":", "[]", "{\"registry-mirrors\":\"x\"}", "{} x"] {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), DAEMON, content.as_bytes());
        let before = tree(root.path());
        let file = root.path().join(DAEMON);
        complaint(write(root.path(), "docker", &["docker.io"]), &[file.to_str().unwrap()]);
        assert_eq!(tree(root.path()), before);
    }
    let root = tempfile::tempdir().unwrap();
    put(root.path(), K3S, b"configs:\n  x:\n    auth: {}\n");
    let before = tree(root.path());
    complaint(write(root.path(), "k3s", &["docker.io"]), &[root.path().join(K3S).to_str().unwrap(), "mirrors"]);
    assert_eq!(tree(root.path()), before);
}

#[test]
fn what_somebody_changed_afterwards_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), HOSTS, b"server = \"https://registry-1.docker.io\"\n");
    text(write(root.path(), "containerd", &["docker.io", "quay.io"]));
    put(root.path(), HOSTS, b"# mine now\n");
    let before = tree(root.path());
    let file = root.path().join(HOSTS);
    complaint(write(root.path(), "containerd", &["quay.io=q", "docker.io"]), &[file.to_str().unwrap(), "changed"]);
    complaint(undo(root.path(), "containerd"), &[file.to_str().unwrap(), "changed"]);
    assert_eq!(tree(root.path()), before);
}

/// A write ends after any of its steps: the next one goes on, and undo leaves what there was.
#[test]
fn a_write_that_was_broken_off_can_be_repeated_and_undone() {
    for original in [None, Some("{\"mtu\": 1400}")] {
        for steps in 1..3 {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("etc/docker")).unwrap();
            if let Some(original) = original {
                put(root.path(), DAEMON, original.as_bytes());
            }
            let before = tree(root.path());
            let broken_off = || {
                let file = root.path().join(DAEMON);
                if original.is_some() {
                    std::fs::hard_link(&file, file.with_file_name("daemon.json.schemabridge-backup")).unwrap();
                }
                if steps == 2 {
                    let note = r#"{"digest":"sha256:0","folders":[]}"#;
                    std::fs::write(file.with_file_name("daemon.json.schemabridge-written"), note).unwrap();
                }
            };
            broken_off();
            text(undo(root.path(), "docker"));
            assert_eq!(tree(root.path()), before);
            broken_off();
            text(write(root.path(), "docker", &["docker.io"]));
            assert!(read(root.path(), DAEMON).contains(GATEWAY));
            text(undo(root.path(), "docker"));
            assert_eq!(tree(root.path()), before);
        }
    }
}

#[test]
fn names_that_are_no_hosts_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for upstream in
        ["", "../../x", "docker.io/x", "a\"b", "user@host", ".hidden", "host:port:x", "x=", "x=../y", "x=UP"]
    {
        complaint(write(root.path(), "containerd", &[upstream]), &["--upstream"]);
    }
    for gateway in ["gateway:5000", "http://gateway/path", "ftp://gateway", "http://u:p@gateway"] {
        complaint(run(root.path(), &["podman", "--gateway", gateway, "--upstream", "docker.io"]), &["--gateway"]);
    }
    complaint(run(root.path(), &["podman"]), &["--gateway"]);
    complaint(run(root.path(), &["podman", "--undo", "--write"]), &["--undo"]);
    assert!(tree(root.path()).is_empty());
}

fn content() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        Just(Some(br#"{ "mtu" : 1400, "registry-mirrors": [ ] }"#.to_vec())),
        Just(Some(b"{}\n".to_vec())),
        Just(Some(b"server = \"https://docker.io\"\n".to_vec())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever stood there: it is kept if the tool's file cannot be made of it, and comes back if it can.
    #[test]
    fn write_and_undo_leave_the_tree_as_it_was(
        files in prop::array::uniform4(content()),
        tool in prop::sample::select(vec!["containerd", "docker", "podman", "crio", "k3s"]),
        mode in prop::sample::select(vec![0o644, 0o600, 0o640]),
        rounds in 1..3_usize,
    ) {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [HOSTS, DAEMON, REGISTRIES, K3S].into_iter().zip(files) {
            if let Some(content) = content {
                put(root.path(), path, &content);
                std::fs::set_permissions(root.path().join(path), PermissionsExt::from_mode(mode)).unwrap();
            }
        }
        let before = tree(root.path());
        for _ in 0..rounds {
            let upstreams: &[&str] = if tool == "docker" { &["docker.io"] } else { &["docker.io", "a.example", "z.example"] };
            let written = write(root.path(), tool, upstreams);
            if written.status.success() {
                prop_assert_ne!(&tree(root.path()), &before);
            }
        }
        prop_assert!(undo(root.path(), tool).status.success());
        prop_assert_eq!(tree(root.path()), before);
    }
}
