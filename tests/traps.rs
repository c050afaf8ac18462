//! Thirty ways in which gateways have broken real clients; each that a plain HTTP gateway can fall into, by its name.

use serde_json::{Value, json};

use crate::support::client::{Call, Client, raw};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::sha256;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

async fn with(document: &Document, image: &Image) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", image, document);
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway)
}

async fn with_oci() -> (Upstream, Gateway, Image) {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    (upstream, gateway, image)
}

#[tokio::test]
async fn trap_01_every_accept_line_counts_in_any_order() {
    let (_upstream, gateway, image) = with_oci().await;
    let lines = Client::docker_20_10().accept;
    for turn in 0..lines.len() {
        let mut accept = lines.clone();
        accept.rotate_left(turn);
        let one_each = Client { user_agent: None, accept: accept.clone() };
        let joined = Client { user_agent: None, accept: vec![accept.join(",")] };
        let untidy = Client { user_agent: None, accept: vec![format!(" ,{} ,, ", accept.join(" , ").to_uppercase())] };
        for client in [one_each, joined, untidy] {
            assert_eq!(gateway.manifest(&client, TAGGED).await.digest(), image.oci().digest);
        }
    }
}

#[tokio::test]
async fn trap_02_no_error_is_without_an_entry() {
    let (upstream, gateway, _) = with_oci().await;
    upstream.when("GET", "/v2/app/blobs/*").answer(Answer::new(404).body("{\"errors\":[]}"));
    upstream.when("GET", "/v2/app/tags/list").answer(Answer::new(500));
    let digest = sha256(b"");
    for target in [
        "/v2/app/manifests/none",
        &format!("/v2/app/blobs/{digest}"),
        "/v2/app/tags/list",
        "/none",
        "/v2/A/manifests/x",
    ] {
        gateway.get(&Client::docker_1_9_1(), target).await.error();
    }
}

#[tokio::test]
async fn trap_03_what_cannot_be_translated_is_unsupported_and_not_unknown() {
    let (_upstream, gateway) = with(&images::helm_chart(), &Image::small("chart")).await;
    let refused = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!((refused.status, refused.error().0.as_str()), (406, "UNSUPPORTED"));
}

#[tokio::test]
async fn trap_04_head_is_get_without_the_body() {
    let (_upstream, gateway, _) = with_oci().await;
    for client in
        [Client::docker_1_9_1(), Client::docker_17(), Client::docker_20_10(), Client::containerd_1_6(), Client::curl()]
    {
        gateway.manifest(&client, TAGGED).await;
    }
    // The first of all may be a HEAD, which then does the whole work.
    let (_upstream, gateway, _) = with_oci().await;
    let head = gateway.head(&Client::docker_1_9_1(), TAGGED).await;
    let got = gateway.get(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!(head.header("content-length"), got.header("content-length"));
}

#[tokio::test]
async fn trap_05_the_digest_of_schema_1_is_that_of_its_payload() {
    let (_upstream, gateway, _) = with_oci().await;
    let got = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!(got.digest(), sha256(&images::payload(&got.body)));
    assert_ne!(got.digest(), sha256(&got.body));
}

#[tokio::test]
async fn trap_06_a_derived_digest_is_known_to_every_replica() {
    let image = Image::classic("app");
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", &image, &image.oci());
    let directory = tempfile::tempdir().unwrap();
    let one = Setup::default().store_in(directory.path()).before(&upstream).await;
    let other = Setup::default().store_in(directory.path()).before(&upstream).await;
    let told = one.head(&Client::docker_17(), TAGGED).await;
    let got = other.manifest(&Client::docker_17(), &format!("/v2/app/manifests/{}", told.digest())).await;
    assert_eq!((got.status, got.digest()), (200, told.digest()));
}

#[tokio::test]
async fn trap_07_schema_1_is_always_labelled_as_signed() {
    let (_upstream, gateway, _) = with_oci().await;
    for asked in [images::SCHEMA1, images::SCHEMA1_SIGNED] {
        let got = gateway.manifest(&Client::only(asked), TAGGED).await;
        assert_eq!((got.status, got.content_type()), (200, images::SCHEMA1_SIGNED));
        images::payload(&got.body);
    }
}

fn schema1_of(body: &[u8]) -> Value {
    serde_json::from_slice(&images::payload(body)).unwrap()
}

#[tokio::test]
async fn trap_08_schema_1_names_its_repository_and_tag() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("team/app", "v1.0", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&Client::docker_1_6_2(), "/v2/team/app/manifests/v1.0").await;
    let document = schema1_of(&got.body);
    assert_eq!(
        (&document["name"], &document["tag"], &document["architecture"]),
        (&json!("team/app"), &json!("v1.0"), &json!("amd64"))
    );
}

#[tokio::test]
async fn trap_09_equal_layers_have_distinct_ids() {
    let mut image = Image::buildkit("app", "amd64", Kind::Gzip, 4);
    for layer in 1..4 {
        image.layers[layer] = image.layers[0].clone();
    }
    let (_upstream, gateway) = with(&image.oci(), &image).await;
    let got = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    let document = schema1_of(&got.body);
    let history = document["history"].as_array().unwrap();
    assert_eq!((history.len(), document["fsLayers"].as_array().unwrap().len()), (4, 4));
    let entries: Vec<Value> =
        history.iter().map(|entry| serde_json::from_str(entry["v1Compatibility"].as_str().unwrap()).unwrap()).collect();
    let mut ids: Vec<&str> = entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    for pair in entries.windows(2) {
        assert_eq!(pair[0]["parent"], pair[1]["id"]);
    }
    assert_eq!(entries[3].get("parent"), None);
    assert!(ids.iter().all(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn trap_10_a_blob_has_a_length() {
    let (upstream, gateway, image) = with_oci().await;
    upstream.when("GET", "/v2/app/blobs/*").without("content-length");
    let got = gateway.get(&Client::docker_1_9_1(), &format!("/v2/app/blobs/{}", image.layers[0].digest)).await;
    assert_eq!(got.header("content-length"), Some(image.layers[0].size.to_string().as_str()));
    assert!(got.is_whole);
}

#[tokio::test]
async fn trap_11_nobody_is_sent_a_308() {
    let (upstream, gateway, image) = with_oci().await;
    upstream.when("*", "/v2/app/*").redirect(308, "https://elsewhere.example.com/x");
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    for target in [TAGGED, &blob, "/v2/app/tags/list"] {
        for client in [Client::docker_1_9_1(), Client::docker_20_10(), Client::curl()] {
            for method in ["GET", "HEAD"] {
                assert_ne!(gateway.send(&client.call(method, target)).await.status, 308, "{target}");
            }
        }
    }
}

#[tokio::test]
async fn trap_12_empty_credentials_are_not_forwarded() {
    let (upstream, gateway, _) = with_oci().await;
    gateway.send(&Client::docker_1_6_2().get(TAGGED).header("Authorization", "Basic Og==")).await;
    assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn trap_13_a_token_has_the_name_that_early_engines_read() {
    let (upstream, _, _) = with_oci().await;
    upstream.contents().close(&format!("Bearer realm=\"{}/token\",service=\"x\"", upstream.url()));
    upstream
        .when("GET", "/token")
        .answer(Answer::new(200).header("content-type", "application/json").body("{\"access_token\":\"t\"}"));
    let gateway = Setup::default().rewrite_challenges().before(&upstream).await;
    let reply = gateway.send(&Client::docker_1_9_1().get("/token?service=x")).await;
    assert_eq!(reply.json()["token"], "t");
}

#[tokio::test]
async fn trap_14_the_base_is_200_or_401_and_names_the_api() {
    let (upstream, gateway, _) = with_oci().await;
    upstream.when("*", "/v2/").without("docker-distribution-api-version");
    for path in ["/v2/", "/v2"] {
        let got = gateway.get(&Client::docker_1_6_2(), path).await;
        assert_eq!((got.status, got.header("docker-distribution-api-version")), (200, Some("registry/2.0")));
    }
    let (upstream, gateway, _) = with_oci().await;
    upstream.contents().close("Basic realm=\"x\"");
    upstream.when("*", "/v2/").without("docker-distribution-api-version");
    let got = gateway.get(&Client::docker_1_6_2(), "/v2/").await;
    assert_eq!((got.status, got.header("docker-distribution-api-version")), (401, Some("registry/2.0")));
}

/// Docker and containerd try TLS first and take anything that begins like HTTP as "this port speaks plain HTTP".
#[tokio::test]
async fn trap_15_a_tls_greeting_is_answered_in_plain_http() {
    let (_upstream, gateway, _) = with_oci().await;
    let hello = [&[0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03][..], &[0x5a; 194][..]].concat();
    let answer = raw(gateway.address(), &hello).await;
    assert!(answer.starts_with(b"HTTP/1.") && answer[8..].starts_with(b" 400"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn trap_16_accept_encoding_changes_nothing() {
    let (_upstream, gateway, image) = with_oci().await;
    for encoding in ["zstd", "gzip", "br", "identity;q=0, *"] {
        for target in [TAGGED.to_owned(), format!("/v2/app/blobs/{}", image.config_digest())] {
            let got = gateway.send(&Client::containerd_1_6().get(&target).header("Accept-Encoding", encoding)).await;
            assert_eq!((got.status, got.header("content-encoding")), (200, None));
            assert_eq!(sha256(&got.body), got.digest());
        }
    }
}

#[tokio::test]
async fn trap_17_a_bare_star_is_everything() {
    let (_upstream, gateway, image) = with_oci().await;
    for star in ["*", "*/*", "*; q=.2", "text/html, image/gif, *; q=.2, */*; q=.2", "application/*"] {
        assert_eq!(gateway.manifest(&Client::only(star), TAGGED).await.digest(), image.oci().digest, "{star}");
    }
}

#[tokio::test]
async fn trap_18_a_mirrors_namespace_is_not_part_of_the_name() {
    let (upstream, _, image) = with_oci().await;
    let gateway = Setup::default().known_as("docker.io").before(&upstream).await;
    let got = gateway.manifest(&Client::containerd_1_6(), &format!("{TAGGED}?ns=docker.io")).await;
    assert_eq!(got.digest(), image.oci().digest);
}

#[tokio::test]
async fn trap_19_a_digest_probe_sees_the_stored_digest() {
    let (_upstream, gateway, image) = with_oci().await;
    let accept = [images::SCHEMA2, images::LIST, images::SCHEMA1];
    assert_eq!(gateway.head(&Client::new("Watchtower", &accept), TAGGED).await.digest(), image.oci().digest);
}

#[tokio::test]
async fn trap_20_who_lists_schema_1_but_cannot_read_it_is_given_something_else() {
    let image = Image::classic("app");
    let (_upstream, gateway) = with(&image.schema2(), &image).await;
    let accept = [images::SCHEMA1_SIGNED, images::SCHEMA1, images::OCI];
    let agents = [
        "docker/28.5.2 go/go1.24.9 git-commit/abcdef0 os/linux arch/amd64",
        "crane/v0.20.0 go-containerregistry/v0.20.0",
        "containerd/v2.1.4",
    ];
    for agent in agents {
        let got = gateway.manifest(&Client::new(agent, &accept), TAGGED).await;
        assert_eq!(got.digest(), image.oci().digest, "{agent}");
    }
}

#[tokio::test]
async fn trap_21_the_engine_counts_and_not_the_client_that_asked_it() {
    let (_upstream, gateway, image) = with_oci().await;
    let every = Client::docker_20_10().accept;
    let early = "docker/17.05.0-ce go/go1.7.5 os/linux arch/amd64 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))";
    let late = "docker/28.2.2 go/go1.24 os/linux arch/amd64 UpstreamClient(docker/1.9.1 \\(linux\\))";
    for (agent, digest) in [(early, image.schema2().digest), (late, image.oci().digest)] {
        let client = Client { user_agent: Some(agent.to_owned()), accept: every.clone() };
        assert_eq!(gateway.manifest(&client, TAGGED).await.digest(), digest, "{agent}");
    }
}

#[tokio::test]
async fn trap_22_a_range_without_meaning_is_no_range() {
    let (_upstream, gateway, image) = with_oci().await;
    for digest in [&image.layers[0].digest, images::EMPTY_LAYER] {
        let call = Client::docker_1_9_1().get(&format!("/v2/app/blobs/{digest}")).header("Range", "1-");
        assert_eq!(gateway.send(&call).await.status, 200);
    }
}

#[tokio::test]
async fn trap_23_no_charset_is_on_a_manifest() {
    let (upstream, gateway, _) = with_oci().await;
    upstream.when("*", TAGGED).with("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::curl()] {
        assert!(!gateway.manifest(&client, TAGGED).await.content_type().contains("charset"));
    }
}

#[tokio::test]
async fn trap_24_an_upstream_that_negotiates_is_always_asked_for_everything() {
    let (upstream, gateway, image) = with_oci().await;
    upstream.contents().negotiate_like_distribution();
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::only(images::SCHEMA2), Client::curl()] {
        let got = gateway.manifest(&client, TAGGED).await;
        assert_eq!(got.status, 200);
        assert_eq!(gateway.manifest(&client, &format!("/v2/app/manifests/{}", got.digest())).await.text(), got.text());
    }
    let stored = gateway.manifest(&Client::docker_1_9_1(), &format!("/v2/app/manifests/{}", image.oci().digest)).await;
    assert_eq!(&stored.body[..], &image.oci().bytes[..]);
}

/// The tag moves between the two questions; the answer is of one document all the same.
#[tokio::test]
async fn trap_24_a_tag_that_moves_meanwhile_gives_no_mixture() {
    let (upstream, gateway, image) = with_oci().await;
    let moved = Image::small("moved");
    let gate = upstream.when("GET", &format!("/v2/app/manifests/{}", image.oci().digest)).hold();
    let mut waiting = Client::docker_17().get(TAGGED).open(gateway.address()).await;
    gate.reached(1).await;
    upstream.put_image("app", "latest", &moved, &moved.oci());
    gate.open();
    waiting.rest().await;
    assert_eq!(waiting.reply(false).digest(), image.schema2().digest);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.digest(), moved.schema2().digest);
}

/// Docker up to 18.03 refuses a schema 2 manifest whose config has an OCI type.
#[tokio::test]
async fn trap_28_a_hybrid_is_made_proper_for_an_engine_that_chokes_on_it() {
    let image = Image::classic("app");
    let (_upstream, gateway) = with(&image.hybrid(), &image).await;
    let proper = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!((proper.content_type(), proper.digest()), (images::SCHEMA2, image.schema2().digest.as_str()));
    let stored = gateway.manifest(&Client::docker_20_10(), TAGGED).await;
    assert_eq!(stored.digest(), image.hybrid().digest);
    let modern = gateway.manifest(&Client::oci_only(), TAGGED).await;
    assert_eq!((modern.content_type(), modern.digest()), (images::OCI, image.oci().digest.as_str()));
    let early = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!(early.content_type(), images::SCHEMA1_SIGNED);
}

#[tokio::test]
async fn trap_29_the_content_type_is_the_documents() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.schema2(), &image).await;
    upstream.when("*", "/v2/app/manifests/*").with("content-type", "application/json");
    for client in [Client::docker_17(), Client::docker_20_10(), Client::curl()] {
        assert_eq!(gateway.manifest(&client, TAGGED).await.content_type(), images::SCHEMA2);
        let by_digest = gateway.manifest(&client, &format!("/v2/app/manifests/{}", image.schema2().digest)).await;
        assert_eq!(by_digest.content_type(), images::SCHEMA2);
    }
}

#[tokio::test]
async fn trap_30_each_request_may_have_its_own_connection_and_all_may_share_one() {
    let (_upstream, gateway, _) = with_oci().await;
    for _ in 0..20 {
        assert_eq!(gateway.send(&Call::new("GET", "/v2/")).await.header("connection"), Some("close"));
    }
    let kept =
        "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3) + "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = raw(gateway.address(), kept.as_bytes()).await;
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 200").count(), 4);
}
