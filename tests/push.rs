//! Nothing is written unless the operator allows it; then it is written upstream, and what only the gateway has goes
//! along.

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, EMPTY_LAYER, EMPTY_LAYER_BYTES, Image};
use crate::support::registry::Locations;
use crate::support::upstream::Upstream;
use crate::support::{basic, sha256};

async fn pushing() -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    let gateway = Setup::default().push().before(&upstream).await;
    (upstream, gateway)
}

/// What of a URL the gateway gave out follows its own origin.
fn own(gateway: &Gateway, reply: &Reply) -> String {
    let location = reply.header("location").unwrap_or_else(|| panic!("no Location: {:?}", reply.headers));
    let origin = format!("http://{}", gateway.address());
    let target = location.strip_prefix(&origin).unwrap_or(location);
    assert!(target.starts_with("/v2/"), "{location}");
    target.to_owned()
}

async fn put_manifest(gateway: &Gateway, target: &str, document: &Document) -> Reply {
    let call = Call::new("PUT", target).header("Content-Type", &document.content_type).body(document.bytes.to_vec());
    gateway.send(&call).await
}

#[tokio::test]
async fn without_leave_nothing_is_written() {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    let targets = [
        ("PUT", "/v2/app/manifests/latest"),
        ("DELETE", "/v2/app/manifests/latest"),
        ("DELETE", &blob),
        ("POST", "/v2/app/blobs/uploads/"),
        ("PATCH", "/v2/app/blobs/uploads/1"),
        ("PUT", "/v2/app/blobs/uploads/1?digest=sha256:0"),
        ("DELETE", "/v2/app/blobs/uploads/1"),
        ("POST", "/v2/"),
        ("OPTIONS", "/v2/"),
        ("TRACE", "/v2/app/manifests/latest"),
        ("PROPFIND", "/v2/app/manifests/latest"),
        ("PUT", "/v2/app/anything"),
    ];
    for (method, target) in targets {
        let got = gateway.send(&Call::new(method, target).body("x")).await;
        assert_eq!((got.status, got.error().0.as_str()), (405, "UNSUPPORTED"), "{method} {target}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.lines());
}

#[tokio::test]
async fn an_upload_keeps_its_state_byte_for_byte_and_stays_with_the_gateway() {
    for locations in [Locations::Absolute, Locations::Relative] {
        let (upstream, gateway) = pushing().await;
        upstream.contents().locations = locations;
        let content = vec![7_u8; 300_000];
        let digest = sha256(&content);
        let begun = gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/").body("")).await;
        assert_eq!(begun.status, 202, "{}", begun.text());
        let target = own(&gateway, &begun);
        assert!(target.contains("_state=a;b%2Fc%3D&_z=~!"), "{target}");
        let part = Call::new("PATCH", &target)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Range", "0-99999")
            .body(&content[..100_000]);
        let patched = gateway.send(&part).await;
        assert_eq!((patched.status, patched.header("range")), (202, Some("0-99999")), "{}", patched.text());
        let target = own(&gateway, &patched);
        let done =
            gateway.send(&Call::new("PUT", &format!("{target}&digest={digest}")).body(&content[100_000..])).await;
        assert_eq!((done.status, done.digest()), (201, digest.as_str()), "{}", done.text());
        own(&gateway, &done);
        assert_eq!(upstream.contents().blob("app", &digest).unwrap().len(), content.len());
        let seen = upstream.requests_to("PATCH", "*");
        assert_eq!(seen[0].header("content-range"), Some("0-99999"));
    }
}

#[tokio::test]
async fn a_chunked_upload_streams_through() {
    let (upstream, gateway) = pushing().await;
    let begun = gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/").body("")).await;
    let target = own(&gateway, &begun);
    let request = format!(
        "PATCH {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    );
    let answer = crate::support::client::raw(gateway.address(), request.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(&upstream.requests_to("PATCH", "*")[0].body[..], b"hello world");
}

#[tokio::test]
async fn a_mount_is_the_upstreams_decision() {
    let (upstream, gateway) = pushing().await;
    let digest = upstream.contents().put_blob("from", "content".into());
    let call = Call::new("POST", &format!("/v2/app/blobs/uploads/?mount={digest}&from=from")).body("");
    let mounted = gateway.send(&call.header("Authorization", "Bearer both-scopes")).await;
    assert_eq!(mounted.status, 201, "{}", mounted.text());
    assert_eq!(upstream.requests()[0].header("authorization"), Some("Bearer both-scopes"));
}

#[tokio::test]
async fn a_manifest_is_stored_as_sent_and_read_back() {
    let (upstream, gateway) = pushing().await;
    let image = Image::classic("app");
    for blob in image.blobs() {
        upstream.contents().put_blob("app", blob);
    }
    let put = put_manifest(&gateway, "/v2/app/manifests/latest", &image.schema2()).await;
    assert_eq!((put.status, put.digest()), (201, image.schema2().digest.as_str()), "{}", put.text());
    own(&gateway, &put);
    assert_eq!(upstream.contents().manifest("app", "latest"), Some(&image.schema2()));
    let got = gateway.manifest(&Client::curl(), "/v2/app/manifests/latest").await;
    assert_eq!(&got.body[..], &image.schema2().bytes[..]);
}

#[tokio::test]
async fn a_pushed_tag_is_seen_at_once_although_consent_is_remembered() {
    let upstream = Upstream::start().await;
    let (first, second) = (Image::small("first"), Image::small("second"));
    upstream.put_image("app", "latest", &first, &first.oci());
    let gateway = Setup::default().push().tag_ttl(std::time::Duration::from_secs(3600)).before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::curl(), "/v2/app/manifests/latest").await.digest(), first.oci().digest);
    for blob in second.blobs() {
        upstream.contents().put_blob("app", blob);
    }
    assert_eq!(put_manifest(&gateway, "/v2/app/manifests/latest", &second.oci()).await.status, 201);
    assert_eq!(gateway.manifest(&Client::curl(), "/v2/app/manifests/latest").await.digest(), second.oci().digest);
}

/// A client that was told that a blob exists does not send it.
#[tokio::test]
async fn a_manifest_that_names_the_empty_layer_brings_it_along() {
    let (upstream, gateway) = pushing().await;
    upstream.contents().close("Basic realm=\"registry\"");
    let ann = basic("ann", "pw");
    upstream.contents().admit(&ann, "app");
    let image = Image::small("app");
    for blob in image.blobs() {
        upstream.contents().put_blob("app", blob);
    }
    let document = image.schema2().changed(|manifest| {
        let layer = serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 32, "digest": EMPTY_LAYER,
        });
        manifest["layers"].as_array_mut().unwrap().push(layer);
    });
    let call = Call::new("PUT", "/v2/app/manifests/latest")
        .header("Content-Type", images::SCHEMA2)
        .header("Authorization", &ann)
        .body(document.bytes.to_vec());
    let put = gateway.send(&call).await;
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(upstream.contents().blob("app", EMPTY_LAYER).as_deref(), Some(&EMPTY_LAYER_BYTES[..]));
    assert!(upstream.requests().iter().all(|request| request.header("authorization") == Some(&ann)));
}

#[tokio::test]
async fn a_manifest_that_names_a_blob_nobody_has_is_the_upstreams_refusal() {
    let (_upstream, gateway) = pushing().await;
    let put = put_manifest(&gateway, "/v2/app/manifests/latest", &Image::small("app").oci()).await;
    assert_eq!((put.status, put.error().0.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
}

#[tokio::test]
async fn deleting_is_forwarded_but_not_of_what_was_derived() {
    let (upstream, gateway) = pushing().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let derived = gateway.manifest(&Client::docker_17(), "/v2/app/manifests/latest").await;
    let refused = gateway.send(&Call::new("DELETE", &format!("/v2/app/manifests/{}", derived.digest()))).await;
    let (code, message) = refused.error();
    assert_eq!((refused.status, code.as_str()), (405, "UNSUPPORTED"));
    assert!(message.contains(&image.oci().digest), "{message}");
    let deleted = gateway.send(&Call::new("DELETE", &format!("/v2/app/manifests/{}", image.oci().digest))).await;
    assert_eq!(deleted.status, 202);
    assert_eq!(gateway.manifest(&Client::curl(), "/v2/app/manifests/latest").await.status, 404);
}

#[tokio::test]
async fn a_location_at_another_host_is_not_made_the_gateways() {
    let (upstream, gateway) = pushing().await;
    let answer = Answer::new(202).header("location", "http://169.254.169.254/v2/app/blobs/uploads/1?_state=x");
    upstream.when("POST", "*").answer(answer);
    let begun = gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/").body("")).await;
    let location = begun.header("location").unwrap_or_default().to_owned();
    assert!(!location.contains(&gateway.address().to_string()), "{} {location}", begun.status);
}

/// What the upstream has under a digest comes first, here as when it is read.
#[tokio::test]
async fn a_digest_that_is_stored_may_be_deleted_although_it_was_derived_too() {
    let (upstream, gateway) = pushing().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let derived = gateway.manifest(&Client::docker_17(), "/v2/app/manifests/latest").await;
    upstream.put("app", None, &image.schema2());
    let deleted = gateway.send(&Call::new("DELETE", &format!("/v2/app/manifests/{}", derived.digest()))).await;
    assert_eq!(deleted.status, 202, "{}", deleted.text());
}

#[tokio::test]
async fn who_may_not_see_a_source_is_not_told_its_digest() {
    let (upstream, gateway) = pushing().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let derived = gateway.manifest(&Client::docker_17(), "/v2/app/manifests/latest").await;
    upstream.contents().close("Basic realm=\"registry\"");
    let refused = gateway.send(&Call::new("DELETE", &format!("/v2/app/manifests/{}", derived.digest()))).await;
    assert_eq!(refused.status, 401, "{}", refused.text());
    assert!(!refused.text().contains(&image.oci().digest), "{}", refused.text());
}

/// A path that only begins with the same letters as the upstream's own is not below it, and no part of a host name.
#[tokio::test]
async fn an_upload_goes_on_at_the_gateways_own_host_whatever_the_upstream_says() {
    let upstream = Upstream::start().await;
    let elsewhere = Answer::new(202).header("Location", "/base.elsewhere.example/v2/app/blobs/uploads/1");
    upstream.when("POST", "/base/v2/app/blobs/uploads/").answer(elsewhere);
    let gateway = Setup::default().push().before_url(&format!("{}/base", upstream.url())).await;
    let begun = gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/")).await;
    let location: url::Url = begun.header("location").unwrap().parse().unwrap();
    assert_eq!((begun.status, location.port()), (202, Some(gateway.address().port())), "{location}");
}
