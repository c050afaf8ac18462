//! The in-process upstream behaves like a registry and misbehaves only as scripted, so that a promise test that fails
//! says something about the gateway.

use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::images::{self, Image};
use crate::support::upstream::Upstream;
use crate::support::{basic, sha256};

#[tokio::test]
async fn it_serves_manifests_and_blobs_like_a_registry() {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    upstream.put_image("library/app", "latest", &image, &image.oci());
    let got = Client::curl().get("/v2/library/app/manifests/latest").send(upstream.address()).await;
    assert_eq!((got.status, got.body.as_slice(), got.is_whole), (200, &image.oci().bytes[..], true));
    assert_eq!((got.content_type(), got.digest()), (images::OCI, image.oci().digest.as_str()));
    let head = Client::curl().head("/v2/library/app/manifests/latest").send(upstream.address()).await;
    assert_eq!(head.header("content-length").unwrap(), got.body.len().to_string());
    assert!(head.body.is_empty() && head.is_whole);

    let blob = format!("/v2/library/app/blobs/{}", image.layers[0].digest);
    let part = Call::new("GET", &blob).header("Range", "bytes=2-4").send(upstream.address()).await;
    assert_eq!((part.status, part.text()), (206, "p a".to_owned()));
    assert_eq!(
        Call::new("GET", "/v2/library/app/blobs/sha256:0").send(upstream.address()).await.error().0,
        "BLOB_UNKNOWN"
    );
    assert_eq!(upstream.requests_to("*", "/v2/*/blobs/*").len(), 2);
}

#[tokio::test]
async fn it_takes_an_upload_whose_state_comes_back_untouched() {
    let upstream = Upstream::start().await;
    let begun = Call::new("POST", "/v2/app/blobs/uploads/").body("").send(upstream.address()).await;
    let location = begun.header("location").unwrap().strip_prefix(&upstream.url()).unwrap().to_owned();
    let digest = sha256(b"content");
    let done = Call::new("PUT", &format!("{location}&digest={digest}")).body("content").send(upstream.address()).await;
    assert_eq!(done.status, 201, "{}", done.text());
    let spoilt = Call::new("PATCH", &location.replace("%2F", "/")).body("x").send(upstream.address()).await;
    assert_eq!(spoilt.status, 404);
    assert!(upstream.contents().blob("app", &digest).is_some());
}

#[tokio::test]
async fn it_knows_its_callers() {
    let upstream = Upstream::start().await;
    upstream.put("team/app", "latest", &Image::small("app").oci());
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&basic("ann", "pw"), "team/app");
    let path = "/v2/team/app/manifests/latest";
    let status = async |caller: &str| {
        Call::new("GET", path).header("Authorization", caller).send(upstream.address()).await.status
    };
    assert_eq!(status(&basic("ann", "pw")).await, 200);
    assert_eq!(status(&basic("bob", "pw")).await, 401);
    upstream.contents().revoke(&basic("ann", "pw"), "team/app");
    assert_eq!(status(&basic("ann", "pw")).await, 403);
}

#[tokio::test]
async fn it_misbehaves_as_often_as_scripted() {
    let upstream = Upstream::start().await;
    upstream.contents().place("/file", "0123456789".into());
    upstream.when("GET", "/file").times(1).answer(Answer::new(503).header("retry-after", "7").body("<html>"));
    let get = Call::new("GET", "/file");
    assert_eq!(get.send(upstream.address()).await.status, 503);
    assert_eq!(get.send(upstream.address()).await.text(), "0123456789");

    upstream.when("GET", "/file").times(1).cut(4);
    let cut = get.send(upstream.address()).await;
    assert_eq!((cut.text(), cut.is_whole), ("0123".to_owned(), false));

    upstream.when("GET", "/file").times(1).alter(|_, answer| {
        answer.headers.remove("content-length");
    });
    let chunked = get.send(upstream.address()).await;
    assert_eq!((chunked.text(), chunked.is_whole), ("0123456789".to_owned(), true));
    assert_eq!(chunked.header("transfer-encoding"), Some("chunked"));

    upstream.when("GET", "/file").times(1).reset();
    let mut lost = get.open(upstream.address()).await;
    lost.rest().await;
    assert!(lost.received().is_empty());

    let gate = upstream.when("GET", "/file").times(1).hold_body(3);
    let mut waiting = get.open(upstream.address()).await;
    gate.reached(1).await;
    waiting.at_least(1).await;
    drop(waiting);
    gate.abandoned(1).await;

    let gate = upstream.when("GET", "/file").times(1).hold();
    let waiting = get.open(upstream.address()).await;
    gate.reached(1).await;
    drop(waiting);
    gate.abandoned(1).await;
    assert_eq!(upstream.requests_to("GET", "/file").len(), 7);
}
