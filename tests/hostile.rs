//! Bytes from outside, in either direction, that aim at headers, logs or memory.

use crate::support::client::{Call, Client, raw};
use crate::support::fault::Answer;
use crate::support::gateway::Gateway;
use crate::support::images::{self, Image};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

async fn stage() -> (Upstream, Gateway, Image) {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway, image)
}

#[tokio::test]
async fn line_breaks_in_a_path_reach_no_header_and_no_upstream() {
    let (upstream, gateway, _) = stage().await;
    for path in [
        "/v2/app/manifests/x%0d%0aX-Evil:%201",
        "/v2/app%0aX-Evil/tags/list",
        "/token?x=%0d%0aX-Evil:1",
        "/v1/repositories/a%0d%0ab/images",
    ] {
        let got = gateway.send(&Call::new("GET", path)).await;
        assert!(got.status >= 400 && got.header("x-evil").is_none(), "{path}: {}", got.status);
    }
    assert!(upstream.requests_to("*", "*app*").is_empty(), "{:?}", upstream.lines());
}

/// A translated answer's warning, source and refusal texts are built from what a stored document says.
#[tokio::test]
async fn what_a_document_says_gets_into_no_header() {
    let (upstream, gateway, image) = stage().await;
    let odd = image.oci().changed(|manifest| manifest["config"]["mediaType"] = "x/y\r\nX-Evil: 1\u{7f}\"\\".into());
    upstream.put("app", "latest", &odd);
    for client in [Client::docker_1_9_1(), Client::docker_17()] {
        let refused = gateway.manifest(&client, TAGGED).await;
        assert_eq!((refused.status, refused.header("x-evil")), (406, None));
    }
    let early = Client::docker_1_6_2();
    gateway.get(&early, TAGGED).await;
    assert_eq!(gateway.get(&early, "/v1/repositories/app/images").await.header("x-evil"), None);
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_is_not_followed() {
    let (upstream, gateway, image) = stage().await;
    upstream
        .when("GET", "/v2/app/blobs/*")
        .answer(Answer::new(101).header("upgrade", "h2c").header("connection", "upgrade"));
    let got = gateway.get(&Client::docker_20_10(), &format!("/v2/app/blobs/{}", image.config_digest())).await;
    assert!(got.status >= 500, "{}", got.status);
}

#[tokio::test]
async fn a_flood_of_upstream_headers_is_an_error_and_not_the_end() {
    let (upstream, gateway, image) = stage().await;
    upstream.when("*", "/v2/app/*").times(1).alter(|_, answer| {
        for number in 0..5000 {
            let name: http::HeaderName = format!("x-flood-{number}").parse().unwrap();
            answer.headers.insert(name, http::HeaderValue::from_static("x"));
        }
    });
    let got = gateway.get(&Client::docker_17(), TAGGED).await;
    assert!(got.status == 200 || got.status >= 500, "{}", got.status);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.digest(), image.schema2().digest);
}

#[tokio::test]
async fn a_flood_of_request_headers_is_refused() {
    let (upstream, gateway, _) = stage().await;
    let many = "X-Many: y\r\n".repeat(5000);
    let long = format!("X-Long: {}\r\n", "y".repeat(1 << 20));
    for flood in [many, long] {
        let answer = raw(gateway.address(), format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{flood}\r\n").as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer[..answer.len().min(40)])
        );
    }
    assert!(upstream.requests().is_empty());
}

/// The digest is that of the bytes on the wire; nothing compressed may be taken for a document.
#[tokio::test]
async fn a_compressed_manifest_is_never_passed_for_a_plain_one() {
    let (upstream, gateway, image) = stage().await;
    upstream.when("GET", "/v2/app/manifests/*").alter(|_, answer| {
        answer.headers.insert("content-encoding", http::HeaderValue::from_static("gzip"));
        answer.body = bytes::Bytes::from_static(b"\x1f\x8b\x08\0\0\0\0\0\0\x03not really");
        answer.headers.insert("content-length", answer.body.len().into());
    });
    for client in [Client::docker_17(), Client::curl()] {
        for target in [TAGGED.to_owned(), format!("/v2/app/manifests/{}", image.oci().digest)] {
            assert_eq!(gateway.get(&client, &target).await.status, 502);
        }
    }
    let asked = upstream.requests_to("GET", "/v2/app/manifests/*");
    assert!(
        asked.iter().all(|request| request.header("accept-encoding").is_none_or(|encoding| encoding == "identity"))
    );
}

/// Strings that break out of JSON, of HTML or of a line, inside of a config, come through the translation as they were.
#[tokio::test]
async fn odd_strings_survive_translation() {
    let mut image = Image::small("app");
    let odd = "\"\\\u{2028}\u{2029}\u{0}\u{1}\u{7f}<script>&amp;\u{1f600}\r\n\t";
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    config["config"]["Labels"]["odd"] = odd.into();
    config["history"][0]["created_by"] = odd.into();
    config["history"] = serde_json::json!([config["history"][0], {"created_by": odd, "empty_layer": true}]);
    image.config = config.to_string().into();
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    let document: serde_json::Value = serde_json::from_slice(&images::payload(&got.body)).unwrap();
    let entry = |index: usize| -> serde_json::Value {
        serde_json::from_str(document["history"][index]["v1Compatibility"].as_str().unwrap()).unwrap()
    };
    assert_eq!(entry(0)["config"]["Labels"]["odd"], odd);
    assert_eq!(entry(1)["container_config"]["Cmd"][0], odd);
}

/// Numbers that no client should send must not become room in memory.
#[tokio::test]
async fn counts_from_outside_are_the_upstreams_business() {
    let (_upstream, gateway, _) = stage().await;
    for query in ["n=99999999999", "n=-1", "n=1e9", "n="] {
        assert_eq!(gateway.send(&Call::new("GET", &format!("/v2/app/tags/list?{query}"))).await.status, 200, "{query}");
    }
}
