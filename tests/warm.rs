//! What clients would wait for can be made ahead, for a gateway that has the same store.

use serde_json::Value;
use tokio::process::Command;

use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::images::OCI;
use crate::support::layers::{archive, gzip, noise, schema1};
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
