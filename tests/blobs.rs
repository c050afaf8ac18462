//! Blobs stream through as they are: every byte, every header, every failure; only the empty layer is the gateway's own.

use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::gateway::Gateway;
use crate::support::images::{EMPTY_LAYER, EMPTY_LAYER_BYTES, Image};
use crate::support::sha256;
use crate::support::upstream::Upstream;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    /// The path of a blob.
    blob: String,
    bytes: Vec<u8>,
}

async fn stage(length: usize) -> Stage {
    let upstream = Upstream::start().await;
    let bytes: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let digest = upstream.contents().put_blob("team/app", bytes.clone().into());
    let gateway = Gateway::before(&upstream).await;
    Stage { upstream, gateway, blob: format!("/v2/team/app/blobs/{digest}"), bytes }
}

impl Stage {
    fn call(&self, method: &str) -> Call {
        Client::docker_20_10().call(method, &self.blob)
    }
}

#[tokio::test]
async fn a_blob_passes_byte_for_byte_with_its_headers() {
    let stage = stage(3_000_000).await;
    let got = stage.gateway.send(&stage.call("GET")).await;
    assert_eq!((got.status, got.is_whole, got.body == stage.bytes), (200, true, true));
    assert_eq!(got.header("content-length"), Some("3000000"));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("accept-ranges"), Some("bytes"));
    assert_eq!(got.digest(), sha256(&stage.bytes));
    let head = stage.gateway.send(&stage.call("HEAD")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3000000"), 0));
    assert_eq!(stage.upstream.requests_to("GET", &stage.blob).len(), 1);
}

#[tokio::test]
async fn ranges_are_the_upstreams_business() {
    let stage = stage(1000).await;
    let ask = async |range: &str| stage.gateway.send(&stage.call("GET").header("Range", range)).await;
    let part = ask("bytes=10-19").await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 10-19/1000")));
    assert_eq!(part.body, stage.bytes[10..20]);
    assert_eq!(ask("bytes=990-").await.body, stage.bytes[990..]);
    assert_eq!(ask("bytes=-5").await.body, stage.bytes[995..]);
    let beyond = ask("bytes=2000-").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1000")));
    beyond.error();
    let sent: Vec<_> = stage.upstream.requests_to("GET", &stage.blob);
    assert_eq!(sent[0].header("range"), Some("bytes=10-19"));
    // Docker 1.9.1 resumes with this one; it means nothing and must not fail.
    assert_eq!((ask("1-").await.status, ask("1-").await.body.len()), (200, 1000));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_read_from_the_upstream() {
    let stage = stage(4_000_000).await;
    let gate = stage.upstream.when("GET", &stage.blob).hold_body(1_000_000);
    let mut reading = stage.call("GET").open(stage.gateway.address()).await;
    reading.at_least(500_000).await;
    gate.reached(1).await;
    drop(reading);
    gate.abandoned(1).await;
}

#[tokio::test]
async fn a_short_body_never_ends_cleanly() {
    let stage = stage(1000).await;
    stage.upstream.when("GET", &stage.blob).times(1).cut(400);
    let cut = stage.gateway.send(&stage.call("GET")).await;
    assert_eq!((cut.status, cut.is_whole), (200, false));

    let bytes = stage.bytes.clone();
    stage.upstream.when("GET", &stage.blob).times(1).alter(move |_, answer| {
        answer.headers.remove("content-length");
        answer.body = bytes.clone().into();
        answer.delivery = crate::support::fault::Delivery::Cut { after: 400 };
    });
    let cut = stage.gateway.send(&stage.call("GET")).await;
    assert!(!cut.is_whole);
}

/// Docker up to 1.9 reads the length of a blob from the header, of HEAD and of GET, and fails without it.
#[tokio::test]
async fn a_blob_without_a_length_is_given_one_from_the_upstreams_head() {
    let stage = stage(1000).await;
    stage.upstream.when("GET", &stage.blob).without("content-length");
    let got = stage.gateway.send(&Client::docker_1_9_1().get(&stage.blob)).await;
    assert_eq!((got.status, got.header("content-length"), got.body == stage.bytes), (200, Some("1000"), true));
    assert_eq!(got.header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_blob_whose_length_nobody_tells_is_given_the_one_in_the_manifest() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    upstream.when("*", "/v2/app/blobs/*").without("content-length");
    let client = Client::docker_1_9_1();
    assert_eq!(gateway.manifest(&client, "/v2/app/manifests/latest").await.status, 200);
    for layer in &image.layers {
        let target = format!("/v2/app/blobs/{}", layer.digest);
        let length = layer.size.to_string();
        let got = gateway.get(&client, &target).await;
        assert_eq!((got.status, got.header("content-length"), got.is_whole), (200, Some(length.as_str()), true));
        let head = gateway.head(&client, &target).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
    }
}

#[tokio::test]
async fn a_refusal_of_a_blob_keeps_status_and_headers() {
    let stage = stage(10).await;
    for (status, code) in
        [(401, "UNAUTHORIZED"), (403, "DENIED"), (404, "BLOB_UNKNOWN"), (429, "TOOMANYREQUESTS"), (503, "UNAVAILABLE")]
    {
        let refusal = Answer::error(status, code, "says the upstream")
            .header("www-authenticate", "Basic realm=\"x\"")
            .header("retry-after", "9")
            .header("ratelimit-remaining", "0");
        stage.upstream.when("*", &stage.blob).times(2).answer(refusal);
        for method in ["GET", "HEAD"] {
            let got = stage.gateway.send(&stage.call(method)).await;
            assert_eq!((got.status, got.header("retry-after")), (status, Some("9")));
            assert_eq!(got.header("www-authenticate"), Some("Basic realm=\"x\""));
            assert_eq!(got.header("ratelimit-remaining"), Some("0"));
            if method == "GET" {
                assert_eq!(got.error(), (code.to_owned(), "says the upstream".to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn the_empty_layer_is_in_every_repository_without_asking_upstream() {
    let stage = stage(10).await;
    assert_eq!(sha256(&EMPTY_LAYER_BYTES), EMPTY_LAYER);
    for repository in ["team/app", "nowhere", "a/b/c"] {
        let target = format!("/v2/{repository}/blobs/{EMPTY_LAYER}");
        let got = stage.gateway.send(&Call::new("GET", &target)).await;
        assert_eq!((got.status, &got.body[..], got.digest()), (200, &EMPTY_LAYER_BYTES[..], EMPTY_LAYER));
        assert_eq!(
            (got.header("content-length"), got.header("content-type")),
            (Some("32"), Some("application/octet-stream"))
        );
        let head = stage.gateway.send(&Call::new("HEAD", &target)).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("32"), 0));
        let part = stage.gateway.send(&Call::new("GET", &target).header("Range", "bytes=4-7")).await;
        assert_eq!((part.status, &part.body[..]), (206, &EMPTY_LAYER_BYTES[4..8]));
        assert_eq!(part.header("content-range"), Some("bytes 4-7/32"));
        let rest = stage.gateway.send(&Call::new("GET", &target).header("Range", "bytes=30-")).await;
        assert_eq!((rest.status, &rest.body[..]), (206, &EMPTY_LAYER_BYTES[30..]));
        let beyond = stage.gateway.send(&Call::new("GET", &target).header("Range", "bytes=32-")).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */32")));
        assert_eq!(stage.gateway.send(&Call::new("GET", &target).header("Range", "1-")).await.status, 200);
    }
    assert!(stage.upstream.requests_to("*", &format!("*{EMPTY_LAYER}")).is_empty());
}

#[tokio::test]
async fn an_encoded_blob_is_not_decoded() {
    let stage = stage(10).await;
    stage.upstream.when("GET", &stage.blob).with("content-encoding", "gzip");
    let got = stage.gateway.send(&stage.call("GET")).await;
    assert_eq!((got.header("content-encoding"), &got.body), (Some("gzip"), &stage.bytes));
}

mod redirects {
    use super::*;

    #[tokio::test]
    async fn a_modern_client_is_sent_on() {
        let stage = stage(10).await;
        let target = "https://storage.example.com/blob?signature=a%2Fb&x=;~";
        for (status, relayed) in [(301, 301), (302, 302), (303, 303), (307, 307), (308, 307)] {
            stage.upstream.when("*", &stage.blob).times(2).redirect(status, target);
            for method in ["GET", "HEAD"] {
                let got = stage.gateway.send(&stage.call(method)).await;
                assert_eq!((got.status, got.header("location")), (relayed, Some(target)), "{method} {status}");
            }
        }
    }

    #[tokio::test]
    async fn a_relative_location_is_made_absolute() {
        let stage = stage(10).await;
        stage.upstream.when("GET", &stage.blob).redirect(307, "/store/x?y=1");
        let got = stage.gateway.send(&stage.call("GET")).await;
        assert_eq!(got.status, 307);
        assert_eq!(got.header("location"), Some(format!("{}/store/x?y=1", stage.upstream.url()).as_str()));
    }
}
