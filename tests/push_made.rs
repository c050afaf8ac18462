//! Blobs that only the gateway has go along with a manifest that names them: whoever pushes was told that they are there, and
//! did not send them.

use crate::support::basic;
use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Document, Kind, OCI, SCHEMA2};
use crate::support::layers::{archive, gunzip, gzip, image, noise, schema1};
use crate::support::sha256;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const COPY: &str = "/v2/app/manifests/copy";

/// Lists schema 1 and cannot read it.
fn crane() -> Client {
    let types = ["application/vnd.docker.distribution.manifest.v1+json", OCI];
    Client::new("crane/v0.21.9 go-containerregistry/v0.21.9", &types)
}

/// A registry with a schema 1 under `app:latest`, and one with an OCI image that has a large zstd layer.
async fn with_schema1() -> (Upstream, Document) {
    let upstream = Upstream::start().await;
    let layer = upstream.contents().put_blob("app", gzip(&archive("etc/one", b"one")));
    let stored = schema1(&[&layer]);
    upstream.put("app", "latest", &stored);
    (upstream, stored)
}

async fn with_zstd() -> (Upstream, Vec<u8>) {
    let upstream = Upstream::start().await;
    let archive = archive("etc/one", &noise(1, 700_000));
    let image = image("amd64", &[(Kind::Zstd, &archive)]);
    upstream.put_image("app", "latest", &image, &image.oci());
    (upstream, archive)
}

async fn put(gateway: &Gateway, client: &Client, target: &str, manifest: &Reply) -> Reply {
    let call = client.call("PUT", target).header("Content-Type", manifest.content_type());
    gateway.send(&call.body(manifest.body.clone())).await
}

fn named(manifest: &Reply, pointer: &str) -> String {
    let value = manifest.json();
    value
        .pointer(pointer)
        .and_then(|digest| digest.as_str())
        .unwrap_or_else(|| panic!("{}", manifest.text()))
        .to_owned()
}

#[tokio::test]
async fn a_config_that_an_upgrade_made_goes_along() {
    let (upstream, _) = with_schema1().await;
    let gateway = Setup::default().push().upgrade_schema1().before(&upstream).await;
    let pulled = gateway.manifest(&crane(), TAGGED).await;
    let config = named(&pulled, "/config/digest");
    let path = format!("/v2/app/blobs/{config}");
    let head = gateway.head(&crane(), &path).await;
    assert_eq!(head.status, 200, "who asks is told what GET gives");
    assert!(upstream.contents().blob("app", &config).is_none());
    let pushed = put(&gateway, &crane(), COPY, &pulled).await;
    assert_eq!((pushed.status, pushed.digest()), (201, pulled.digest()), "{}", pushed.text());
    let brought = upstream.contents().blob("app", &config).unwrap();
    assert_eq!(sha256(&brought), config);
    // Once it is there it is not sent again.
    let sent = upstream.requests_to("POST", "*").len();
    assert_eq!(put(&gateway, &crane(), COPY, &pulled).await.status, 201);
    assert_eq!(upstream.requests_to("POST", "*").len(), sent);
}

#[tokio::test]
async fn a_layer_that_was_made_goes_along_in_every_format() {
    for client in [Client::docker_20_10(), Client::docker_17(), Client::only(SCHEMA2)] {
        let (upstream, archive) = with_zstd().await;
        let gateway = Setup::default().push().transcode_zstd().before(&upstream).await;
        let pulled = gateway.manifest(&client, TAGGED).await;
        let layer = named(&pulled, "/layers/0/digest");
        assert!(upstream.contents().blob("app", &layer).is_none());
        assert_eq!(gateway.head(&client, &format!("/v2/app/blobs/{layer}")).await.status, 200);
        let pushed = put(&gateway, &client, COPY, &pulled).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        let brought = upstream.contents().blob("app", &layer).unwrap();
        assert_eq!(gunzip(&brought), archive);
        let sent = upstream.requests_to("PUT", "/v2/app/blobs/uploads/*");
        assert_eq!(sent[0].header("content-length"), Some(brought.len().to_string().as_str()));
    }
}

/// Docker 1.9 asks HEAD of a layer before it pulls it and before it pushes it. Where the upstream refuses what it pushes, no
/// layer is read.
#[tokio::test]
async fn docker_1_9_pushes_what_it_pulled_with_layers_that_were_made() {
    let (upstream, archive) = with_zstd().await;
    upstream.contents().refuses_schema1 = Some((400, "MANIFEST_INVALID"));
    let gateway = Setup::default().push().transcode_zstd().before(&upstream).await;
    let docker = Client::docker_1_9_1();
    let pulled = gateway.manifest(&docker, TAGGED).await;
    let layer = named(&pulled, "/fsLayers/0/blobSum");
    let path = format!("/v2/app/blobs/{layer}");
    assert_eq!(gateway.head(&docker, &path).await.status, 200);
    let pushed = put(&gateway, &docker, COPY, &pulled).await;
    assert_eq!((pushed.status, pushed.digest()), (201, pulled.digest()), "{}", pushed.text());
    assert_eq!(gunzip(&upstream.contents().blob("app", &layer).unwrap()), archive);
    assert!(upstream.requests_to("GET", &path).is_empty());
    let stored = upstream.contents().manifest("app", "copy").unwrap().clone();
    assert_eq!((stored.content_type.as_str(), &stored.json()["layers"][0]["digest"]), (SCHEMA2, &layer.into()));
}

#[tokio::test]
async fn bytes_that_were_evicted_are_made_again_for_it() {
    let (upstream, archive) = with_zstd().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Setup::default().push().transcode_zstd().store_in(directory.path()).before(&upstream).await;
    let client = Client::only(SCHEMA2);
    let pulled = gateway.manifest(&client, TAGGED).await;
    let layer = named(&pulled, "/layers/0/digest");
    std::fs::remove_dir_all(directory.path().join("v1/layers")).unwrap();
    let pushed = put(&gateway, &client, COPY, &pulled).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    assert_eq!(gunzip(&upstream.contents().blob("app", &layer).unwrap()), archive);
}

#[tokio::test]
async fn what_the_registry_has_is_not_made_again_for_it() {
    let (upstream, _) = with_zstd().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Setup::default().push().transcode_zstd().store_in(directory.path()).before(&upstream).await;
    let client = Client::only(SCHEMA2);
    let pulled = gateway.manifest(&client, TAGGED).await;
    assert_eq!(put(&gateway, &client, COPY, &pulled).await.status, 201);
    std::fs::remove_dir_all(directory.path().join("v1/layers")).unwrap();
    let stored = upstream.contents().manifest("app", "latest").unwrap().json();
    let zstd = format!("/v2/app/blobs/{}", stored["layers"][0]["digest"].as_str().unwrap());
    let reads = upstream.requests_to("GET", &zstd).len();
    assert_eq!(reads, 1);
    let pushed = put(&gateway, &client, "/v2/app/manifests/again", &pulled).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    assert_eq!(upstream.requests_to("GET", &zstd).len(), reads);
}

#[tokio::test]
async fn what_the_upstream_says_to_such_a_blob_is_the_answer() {
    let (upstream, _) = with_zstd().await;
    let gateway = Setup::default().push().transcode_zstd().before(&upstream).await;
    let client = Client::only(SCHEMA2);
    let pulled = gateway.manifest(&client, TAGGED).await;
    let refusal = crate::support::fault::Answer::error(403, "DENIED", "read only");
    upstream.when("POST", "/v2/app/blobs/uploads/").answer(refusal);
    let refused = put(&gateway, &client, COPY, &pulled).await;
    assert_eq!((refused.status, refused.error().0.as_str()), (403, "DENIED"), "{}", refused.text());
    assert!(upstream.contents().manifest("app", "copy").is_none());
}

/// Everything is asked and sent as the one who pushes, and what he may not see does not get to him in this way.
#[tokio::test]
async fn nobody_gets_a_made_blob_of_what_he_may_not_see() {
    let (upstream, _) = with_zstd().await;
    upstream.contents().close("Basic realm=\"registry\"");
    let [ann, bob] = ["ann", "bob"].map(|user| basic(user, "password"));
    upstream.contents().admit(&ann, "app");
    upstream.contents().admit(&bob, "other");
    let gateway = Setup::default().push().transcode_zstd().before(&upstream).await;
    let client = Client::only(SCHEMA2);
    let pulled = gateway.send(&client.get(TAGGED).header("Authorization", &ann)).await;
    let layer = named(&pulled, "/layers/0/digest");
    let put = |target: &'static str, who: &str| {
        let call = client.call("PUT", target).header("Content-Type", SCHEMA2).header("Authorization", who);
        call.body(pulled.body.clone())
    };
    let head = client.head(&format!("/v2/other/blobs/{layer}")).header("Authorization", &bob);
    assert_eq!(gateway.send(&head).await.status, 404);
    let refused = gateway.send(&put("/v2/other/manifests/copy", &bob)).await;
    assert_eq!((refused.status, refused.error().0.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"), "{}", refused.text());
    assert!(upstream.contents().blob("other", &layer).is_none());
    assert_eq!(gateway.send(&put(COPY, &ann)).await.status, 201);
    let sent = upstream.requests_to("*", "/v2/app/blobs/uploads/*");
    assert!(!sent.is_empty() && sent.iter().all(|request| request.header("authorization") == Some(&ann)));
}
