//! What clients would wait for can be made ahead, for a gateway that has the same store.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::images::{Kind, OCI};
use crate::support::layers::{archive, gzip, image, noise, schema1};
use crate::support::patiently;
use crate::support::upstream::Upstream;

/// `warm` with these arguments: whether it did, what it printed, and what it complained of.
async fn warm(upstream: &Upstream, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["warm", "--upstream", &upstream.url()]).args(arguments).env_clear();
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// An upstream with an old image, and the path of its layer.
async fn old_image() -> (Upstream, String) {
    let upstream = Upstream::start().await;
    let layer = upstream.contents().put_blob("app", gzip(&archive("etc/one", &noise(1, 100_000))));
    upstream.put("app", "old", &schema1(&[&layer]));
    (upstream, format!("/v2/app/blobs/{layer}"))
}

/// How often a blob was asked for.
fn read(upstream: &Upstream, path: &str) -> usize {
    upstream.lines().iter().filter(|line| **line == format!("GET {path}")).count()
}

#[tokio::test]
async fn what_was_made_ahead_is_not_read_again() {
    let (upstream, layer) = old_image().await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().display());
    let (done, said, complaint) = warm(&upstream, &["--store", &store, "--upgrade-schema1", "--json", "app:old"]).await;
    assert!(done, "{complaint}");
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&said["image"], &said["failure"]), (&"app:old".into(), &Value::Null));
    assert_eq!(read(&upstream, &layer), 1);
    let gateway = Setup::default().upgrade_schema1().store_in(folder.path()).before(&upstream).await;
    let reply = gateway.manifest(&Client::only(OCI), "/v2/app/manifests/old").await;
    assert_eq!((reply.status, reply.content_type()), (200, OCI), "{}", reply.text());
    let digest = reply.header("docker-content-digest").unwrap();
    assert!(said["digests"].as_array().unwrap().contains(&digest.into()), "{digest} is none of {said}");
    assert_eq!(read(&upstream, &layer), 1);
}

#[tokio::test]
async fn images_come_from_a_file_and_those_that_fail_are_named_without_ending_the_rest() {
    let (upstream, _) = old_image().await;
    let folder = tempfile::tempdir().unwrap();
    let (store, list) = (format!("file://{}/store", folder.path().display()), folder.path().join("images"));
    std::fs::write(&list, "# old ones\nno/such:image\n\napp:old\n").unwrap();
    let arguments = ["--store", &store, "--upgrade-schema1", "--from", list.to_str().unwrap()];
    let (done, said, complaint) = warm(&upstream, &arguments).await;
    assert!(!done);
    assert!(said.lines().any(|line| line.starts_with("no/such:image: ")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("app:old: sha256:")), "{said}");
    assert_eq!(complaint.trim_end(), "schemabridge: one image could not be made");
}

#[tokio::test]
async fn what_cannot_be_warm_is_said_before_anything_is_read() {
    let (upstream, _) = old_image().await;
    for (arguments, words) in [
        (&["--store", "memory:", "app:old"][..], "ends with this command"),
        (&["--store", "file:///tmp", "app@sha256:00"], "names no image"),
        (&["--store", "file:///tmp", "--from", "/no/such/file"], "/no/such/file"),
    ] {
        let (done, said, complaint) = warm(&upstream, arguments).await;
        assert!(!done && said.is_empty() && complaint.contains(words), "{arguments:?}: {complaint}");
    }
    assert!(upstream.lines().is_empty());
}

/// What clients get without any work on layers is named, and that is no failure.
#[tokio::test]
async fn where_there_is_nothing_to_do_no_layer_is_read() {
    let upstream = Upstream::start().await;
    let image = image("amd64", &[(Kind::Gzip, &archive("etc/one", b"one"))]);
    upstream.put_image("app", "new", &image, &image.oci());
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().display());
    let switches = ["--store", &store, "--upgrade-schema1", "--transcode", "zstd"];
    for _ in 0..2 {
        let (done, said, complaint) = warm(&upstream, &[&switches[..], &["app:new"]].concat()).await;
        assert!(done && said.contains(&image.oci().digest), "{said}{complaint}");
    }
    assert_eq!(read(&upstream, &format!("/v2/app/blobs/{}", image.layers[0].digest)), 0);
    let empty = folder.path().join("images");
    std::fs::write(&empty, "# none yet\n\n").unwrap();
    let (done, _, complaint) = warm(&upstream, &[&switches[..], &["--from", empty.to_str().unwrap()]].concat()).await;
    assert!(!done && complaint.contains("no image is named"), "{complaint}");
}

/// An image that nobody can have is a failure with the reason that clients would be told.
#[tokio::test]
async fn an_image_that_nobody_can_have_is_a_failure() {
    let (upstream, layer) = old_image().await;
    let path = layer.clone();
    upstream.when("GET", &path).with_body(gzip(&archive("etc/other", b"other")));
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().display());
    let (done, said, complaint) = warm(&upstream, &["--store", &store, "--upgrade-schema1", "--json", "app:old"]).await;
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(!done && said["failure"].is_string(), "{said}{complaint}");
}

/// A program that watches gets a line of JSON now and then, with what there is to do and how much of it is done.
#[tokio::test]
async fn a_program_is_told_how_far_it_is() {
    let (upstream, layer) = old_image().await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().display());
    let gate = upstream.when("GET", &layer).hold_body(1000);
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["warm", "--upstream", &upstream.url(), "--store", &store, "--upgrade-schema1", "--json", "app:old"]);
    let mut child = command.env_clear().stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut open = false;
    let mut last = Value::Null;
    while let Some(line) = patiently("a line", lines.next_line()).await.unwrap() {
        last = serde_json::from_str(&line).unwrap();
        if !open && last["bytes_done"] == 1000 {
            assert_eq!((&last["repository"], &last["work"]), (&"app".into(), &"upgrade".into()), "{last}");
            assert_eq!((&last["layers"], &last["layers_done"]), (&1.into(), &0.into()), "{last}");
            let size = upstream.contents().blob("app", layer.rsplit('/').next().unwrap()).unwrap().len();
            assert_eq!(last["bytes"], size, "{last}");
            gate.open();
            open = true;
        }
    }
    assert_eq!((&last["image"], &last["failure"]), (&"app:old".into(), &Value::Null));
    assert!(open && patiently("the end", child.wait()).await.unwrap().success());
}

/// A person at a terminal sees a bar: layers, bytes, and how long it will take.
#[tokio::test]
async fn a_person_sees_how_far_it_is() {
    let (upstream, layer) = old_image().await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().display());
    let gate = upstream.when("GET", &layer).hold_body(2048);
    let url = upstream.url();
    let words =
        [env!("CARGO_BIN_EXE_schemabridge"), "warm", "--upstream", &url, "--store", &store, "--upgrade-schema1"];
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &format!("exec {line} app:old"), "/dev/null"]).env_clear();
    command.env("SHELL", "/bin/sh").env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        let length = patiently("the terminal", screen.read(&mut bytes)).await.unwrap();
        if length == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        if text.contains("2.00 KiB/") {
            gate.open();
        }
    }
    assert!(patiently("the end", child.wait()).await.unwrap().success(), "{text}");
    let bar = text.split(['\r', '\n']).find(|line| line.contains("2.00 KiB/")).unwrap();
    assert!(bar.contains("app: layer 1 of 1") && !bar.contains("2.00 KiB/2.00 KiB"), "{bar}");
    assert!(text.contains("app:old: sha256:"), "{text}");
}
