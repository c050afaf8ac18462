//! Whatever the upstream does wrong, no client is given bytes that are not what they are called, nothing wrong is kept,
//! and a troubled upstream is not asked twice.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

async fn with(document: &Document, image: &Image) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", image, document);
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway)
}

fn named(document: &Document) -> String {
    format!("/v2/app/manifests/{}", document.digest)
}

mod integrity {
    use super::*;

    #[tokio::test]
    async fn a_manifest_that_is_not_what_its_digest_says_is_502_and_not_kept() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        for wrong in [Image::small("evil").oci().bytes, image.oci().bytes.slice(..50), "".into()] {
            for client in [Client::docker_1_9_1(), Client::docker_17(), Client::containerd_1_6()] {
                for target in [TAGGED.to_owned(), named(&image.oci())] {
                    upstream.when("GET", "/v2/app/manifests/*").with_body(wrong.clone());
                    let got = gateway.get(&client, &target).await;
                    assert_eq!(got.status, 502, "{target} {}", got.text());
                    got.error();
                    upstream.behave();
                }
            }
        }
        for client in [Client::docker_17(), Client::containerd_1_6()] {
            assert_eq!(gateway.manifest(&client, TAGGED).await.status, 200);
        }
    }

    #[tokio::test]
    async fn a_digest_header_that_lies_about_the_body_is_502() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        let lie = Image::small("other").oci().digest;
        upstream.when("*", TAGGED).with("docker-content-digest", &lie);
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::containerd_1_6()] {
            let got = gateway.get(&client, TAGGED).await;
            assert!(got.status == 502 || got.status == 404, "{} {}", got.status, got.text());
        }
    }

    #[tokio::test]
    async fn a_header_that_is_no_digest_is_never_used_as_one() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        for odd in
            ["sha256:../../etc/passwd", "sha256:", "latest", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:ABC"]
        {
            upstream.behave();
            upstream.when("*", TAGGED).with("docker-content-digest", odd);
            let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
            assert_eq!((got.status, got.digest()), (200, image.schema2().digest.as_str()), "{odd}");
        }
        assert!(upstream.requests().iter().all(|request| !request.path.contains("..")));
    }

    #[tokio::test]
    async fn a_config_that_is_not_what_its_digest_says_is_502_and_not_kept() {
        let image = Image::golden("html-escape");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        let config = format!("/v2/app/blobs/{}", image.config_digest());
        for wrong in [bytes::Bytes::from("{}"), image.config.slice(1..), "".into()] {
            upstream.when("GET", &config).with_body(wrong);
            let got = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
            assert_eq!(got.status, 502, "{}", got.text());
            upstream.behave();
        }
        assert_eq!(gateway.manifest(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    }

    #[tokio::test]
    async fn a_truncated_document_is_502_and_not_kept() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        for path in [named(&image.oci()), format!("/v2/app/blobs/{}", image.config_digest())] {
            upstream.when("GET", &path).cut(30);
            let got = gateway.get(&Client::docker_1_9_1(), TAGGED).await;
            assert_eq!(got.status, 502, "{path}: {}", got.text());
            upstream.behave();
        }
        assert_eq!(gateway.manifest(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    }
}

mod documents {
    use super::*;

    /// Each is stored as it is; a tag that points at it is refused to every client, its digest gives it as stored.
    async fn is_refused_by_tag_and_passes_by_digest(document: &Document, found: &str) {
        let image = Image::classic("app");
        let (_upstream, gateway) = with(document, &image).await;
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::docker_20_10(), Client::curl()] {
            let by_tag = gateway.manifest(&client, TAGGED).await;
            let (code, message) = by_tag.error();
            assert_eq!((by_tag.status, code.as_str()), (406, "UNSUPPORTED"), "{message}");
            assert!(message.contains(found), "expected `{found}` in: {message}");
            let by_digest = gateway.get(&client, &named(document)).await;
            assert_eq!(by_digest.status, 200, "{}", by_digest.text());
            assert!(by_digest.body == document.bytes, "changed by digest");
            let head = gateway.head(&client, &named(document)).await;
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, Some(document.bytes.len().to_string().as_str()))
            );
        }
    }

    /// CVE-2021-41190: one document, two meanings.
    #[tokio::test]
    async fn an_ambiguous_document_is_refused() {
        let image = Image::classic("app");
        let both = image.oci().changed(|manifest| manifest["manifests"] = serde_json::json!([]));
        is_refused_by_tag_and_passes_by_digest(&both, "manifests").await;
        let list = images::index(&[(&image.oci(), "linux/amd64")]);
        let both = list.changed(|index| index["layers"] = serde_json::json!([]));
        is_refused_by_tag_and_passes_by_digest(&both, "layers").await;
        let both = list.changed(|index| index["config"] = image.oci().json()["config"].clone());
        is_refused_by_tag_and_passes_by_digest(&both, "config").await;
    }

    #[tokio::test]
    async fn a_key_that_stands_twice_is_refused_at_any_depth() {
        let image = Image::classic("app");
        let top = image
            .oci()
            .rewritten(|text| text.replacen("{\"schemaVersion\":2", "{\"layers\":[],\"schemaVersion\":2", 1));
        is_refused_by_tag_and_passes_by_digest(&top, "layers").await;
        let media_type =
            image.oci().rewritten(|text| text.replacen("\"mediaType\"", "\"mediaType\":\"x\",\"mediaType\"", 1));
        is_refused_by_tag_and_passes_by_digest(&media_type, "mediaType").await;
        let deep = image.oci().rewritten(|text| text.replacen("\"size\"", "\"size\":1,\"size\"", 1));
        is_refused_by_tag_and_passes_by_digest(&deep, "size").await;
        let escaped = image.oci().rewritten(|text| text.replacen("\"size\"", "\"s\\u0069ze\":1,\"size\"", 1));
        is_refused_by_tag_and_passes_by_digest(&escaped, "size").await;
    }

    #[tokio::test]
    async fn a_document_that_is_too_deep_is_refused() {
        let image = Image::classic("app");
        let nest = format!("\"x\":{}{},\"schemaVersion\"", "[".repeat(10_000), "]".repeat(10_000));
        let deep = image.oci().rewritten(|text| text.replacen("\"schemaVersion\"", &nest, 1));
        is_refused_by_tag_and_passes_by_digest(&deep, "deep").await;
    }

    #[tokio::test]
    async fn a_document_that_is_too_big_is_refused() {
        let image = Image::classic("app");
        let big = image
            .oci()
            .changed(|manifest| manifest["annotations"] = serde_json::json!({"x": "y".repeat(4 * 1024 * 1024)}));
        is_refused_by_tag_and_passes_by_digest(&big, "4").await;
    }

    #[tokio::test]
    async fn what_is_not_json_is_refused() {
        let image = Image::classic("app");
        for text in ["", "<html></html>", "\u{feff}{\"schemaVersion\":2}", "[]", "7", "{\"schemaVersion\":2}x"] {
            is_refused_by_tag_and_passes_by_digest(&Document::new(images::OCI, text), "").await;
        }
        let trailing = image.oci().rewritten(|text| format!("{text} {{}}"));
        is_refused_by_tag_and_passes_by_digest(&trailing, "").await;
    }

    #[tokio::test]
    async fn a_digest_in_a_document_that_is_no_digest_is_never_asked_for() {
        for odd in ["sha256:../../etc/passwd", "../../x", "sha256:ABC", "sha256:e3b0"] {
            let image = Image::classic("app");
            let document = image.oci().changed(|manifest| manifest["config"]["digest"] = odd.into());
            let (upstream, gateway) = with(&document, &image).await;
            for client in [Client::docker_1_9_1(), Client::docker_17()] {
                let got = gateway.manifest(&client, TAGGED).await;
                assert_eq!(got.status, 406, "{odd}: {}", got.text());
            }
            assert!(upstream.requests_to("*", "/v2/app/blobs/*").is_empty(), "{:?}", upstream.lines());
        }
    }

    #[tokio::test]
    async fn a_foreign_layers_url_is_never_fetched() {
        let elsewhere = Upstream::start().await;
        let image = Image::buildkit("app", "amd64", Kind::Foreign, 1);
        let url = format!("{}/layer", elsewhere.url());
        let document = image.oci().changed(|manifest| manifest["layers"][0]["urls"] = serde_json::json!([url]));
        let (_upstream, gateway) = with(&document, &image).await;
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::docker_20_10()] {
            gateway.manifest(&client, TAGGED).await;
        }
        assert_eq!(elsewhere.connections(), 0);
    }

    #[tokio::test]
    async fn a_config_that_is_too_big_is_refused_and_not_collected() {
        let mut image = Image::classic("app");
        let end = image.config.len() - 1;
        let padding = format!(",\"x\":\"{}\"}}", "y".repeat(9 * 1024 * 1024));
        image.config = [&image.config[..end], padding.as_bytes()].concat().into();
        let (_upstream, gateway) = with(&image.oci(), &image).await;
        let got = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
        assert!(matches!(got.status, 406 | 502), "{} {}", got.status, got.text());
        assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.status, 200, "schema 2 needs no config");
    }
}

mod resolving {
    use super::*;

    #[tokio::test]
    async fn an_answer_to_head_without_a_digest_is_followed_by_one_get() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        upstream.when("*", TAGGED).without("docker-content-digest");
        let got = gateway.get(&Client::curl(), TAGGED).await;
        assert_eq!((got.status, got.digest()), (200, image.oci().digest.as_str()));
        assert_eq!(upstream.requests_to("GET", TAGGED).len(), 1, "{:?}", upstream.lines());
        assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), 1, "{:?}", upstream.lines());
        assert!(
            upstream.requests_to("*", &named(&image.oci())).is_empty(),
            "the bytes were there: {:?}",
            upstream.lines()
        );
    }

    #[tokio::test]
    async fn an_upstream_that_knows_no_head_is_asked_by_get() {
        for status in [405, 501] {
            let image = Image::classic("app");
            let (upstream, gateway) = with(&image.oci(), &image).await;
            upstream.when("HEAD", "*").answer(Answer::new(status));
            let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
            assert_eq!((got.status, got.digest()), (200, image.schema2().digest.as_str()));
        }
    }

    #[tokio::test]
    async fn the_digest_of_a_schema_1_without_a_header_is_that_of_its_payload() {
        let stored = images::schema1_signed("single-layer");
        let (upstream, gateway) = with(&stored, &Image::golden("single-layer")).await;
        upstream.when("*", "/v2/app/manifests/*").without("docker-content-digest");
        for target in [TAGGED.to_owned(), named(&stored)] {
            let got = gateway.manifest(&Client::docker_1_9_1(), &target).await;
            assert_eq!((got.status, got.digest()), (200, stored.digest.as_str()));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_never_followed_by_a_get() {
        for status in [400, 401, 403, 404, 429, 500, 502, 503, 504] {
            let image = Image::classic("app");
            let (upstream, _) = with(&image.oci(), &image).await;
            let gateway = Setup::default().tags(|tags| tags.negative_ttl = Duration::ZERO).before(&upstream).await;
            upstream.when("HEAD", TAGGED).answer(Answer::new(status).header("retry-after", "5"));
            for client in [Client::docker_1_9_1(), Client::curl()] {
                upstream.forget();
                let got = gateway.get(&client, TAGGED).await;
                assert_eq!((got.status, got.header("retry-after")), (status, Some("5")));
                assert_eq!(upstream.lines(), [format!("HEAD {TAGGED}")]);
            }
        }
    }

    #[tokio::test]
    async fn a_429_on_the_document_is_relayed_and_not_repeated() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        for path in [named(&image.oci()), format!("/v2/app/blobs/{}", image.config_digest())] {
            upstream.forget();
            upstream.when("GET", &path).answer(Answer::new(429).header("retry-after", "13"));
            let got = gateway.get(&Client::docker_1_9_1(), TAGGED).await;
            assert_eq!(
                (got.status, got.header("retry-after"), got.error().0.as_str()),
                (429, Some("13"), "TOOMANYREQUESTS")
            );
            assert_eq!(upstream.requests_to("GET", &path).len(), 1, "{:?}", upstream.lines());
            upstream.behave();
        }
    }

    #[tokio::test]
    async fn a_tag_is_resolved_once_and_then_fetched_by_digest() {
        let image = Image::golden("html-escape");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
        let config = format!("/v2/app/blobs/{}", image.config_digest());
        let expected = [format!("HEAD {TAGGED}"), format!("GET {}", named(&image.oci())), format!("GET {config}")];
        assert_eq!(upstream.lines(), expected);
        upstream.forget();
        assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
        assert_eq!(upstream.lines(), [format!("HEAD {TAGGED}")], "the rest is known");
    }
}

mod connections {
    use super::*;

    #[tokio::test]
    async fn a_reset_is_502_and_the_next_request_is_served() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        let config = format!("/v2/app/blobs/{}", image.config_digest());
        for (method, path) in [("HEAD", TAGGED), ("GET", &named(&image.oci())), ("GET", &config)] {
            upstream.when(method, path).reset();
            let got = gateway.get(&Client::docker_1_9_1(), TAGGED).await;
            assert_eq!(got.status, 502, "{path}: {}", got.text());
            got.error();
            upstream.behave();
        }
        assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    }

    #[tokio::test]
    async fn an_upstream_that_is_not_there_is_502_and_does_not_stop_the_start() {
        let upstream = Upstream::start().await;
        let address = upstream.address();
        let gateway = Gateway::before(&upstream).await;
        drop(upstream);
        for target in ["/v2/", TAGGED, "/v2/app/tags/list"] {
            let got = gateway.get(&Client::docker_20_10(), target).await;
            assert!(matches!(got.status, 502..=504), "{target}: {}", got.status);
            assert!(got.error().1.contains(&address.to_string()), "{}", got.text());
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_slow_head_ends_its_request() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        let blob = format!("/v2/app/blobs/{}", image.layers[0].digest);
        let gate = upstream.when("GET", &blob).hold();
        let waiting = Client::docker_17().get(&blob).open(gateway.address()).await;
        gate.reached(1).await;
        drop(waiting);
        gate.abandoned(1).await;
    }

    #[tokio::test]
    async fn a_slow_document_arrives_when_it_arrives() {
        let image = Image::classic("app");
        let (upstream, gateway) = with(&image.oci(), &image).await;
        let head = upstream.when("GET", &named(&image.oci())).hold();
        let body = upstream.when("GET", &format!("/v2/app/blobs/{}", image.config_digest())).hold_body(100);
        let mut waiting = Client::docker_1_9_1().get(TAGGED).open(gateway.address()).await;
        head.reached(1).await;
        head.open();
        body.reached(1).await;
        body.open();
        waiting.rest().await;
        assert_eq!(waiting.reply(false).status, 200);
    }
}
