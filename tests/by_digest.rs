//! A digest names bytes: what is stored under it is answered untouched, and a digest that the gateway handed out itself
//! is answered as long as its source may be seen.

use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, Image};
use crate::support::upstream::Upstream;
use crate::support::{basic, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";

fn named(digest: &str) -> String {
    format!("/v2/app/manifests/{digest}")
}

async fn with(document: &Document, image: &Image) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", image, document);
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway)
}

#[tokio::test]
async fn a_stored_digest_is_never_translated() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    upstream.contents().negotiate_like_distribution();
    let clients = [
        Client::docker_1_6_2(),
        Client::docker_1_9_1(),
        Client::docker_17(),
        Client::only(images::SCHEMA2),
        Client::curl(),
    ];
    for client in clients {
        let got = gateway.manifest(&client, &named(&image.oci().digest)).await;
        assert_eq!((got.status, got.content_type(), &got.body[..]), (200, images::OCI, &image.oci().bytes[..]));
    }
}

#[tokio::test]
async fn the_clients_accept_never_goes_upstream_for_a_manifest() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    for target in [TAGGED.to_owned(), named(&image.oci().digest), named(&sha256(b"nothing"))] {
        for client in [Client::docker_1_9_1(), Client::only(images::SCHEMA2), Client::new("", &["text/html;q=0.3"])] {
            gateway.get(&client, &target).await;
        }
    }
    let accepts = |request: &crate::support::upstream::Recorded| {
        let lines: Vec<&str> =
            request.headers.iter().filter(|(name, _)| name == "accept").map(|(_, value)| value.as_str()).collect();
        lines.join(", ")
    };
    let manifests = upstream.requests_to("*", "/v2/app/manifests/*");
    assert!(!manifests.is_empty());
    for request in manifests {
        let accepted = accepts(&request);
        for content_type in
            [images::SCHEMA1_SIGNED, images::SCHEMA1, images::SCHEMA2, images::LIST, images::OCI, images::INDEX]
        {
            assert!(accepted.contains(content_type), "{}: {accepted}", request.line());
        }
        assert!(!accepted.contains("text/html"), "{accepted}");
    }
}

/// One question upstream, for the source. The digest of a schema 1 leaves its signature open, so there the upstream is
/// asked for the digest itself too: what is stored goes first.
#[tokio::test]
async fn a_derived_digest_is_answered_after_asking_the_upstream_for_its_source() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    let source = format!("HEAD {}", named(&image.oci().digest));
    for (client, asks_for_itself) in [(Client::docker_17(), false), (Client::docker_1_9_1(), true)] {
        let derived = gateway.manifest(&client, TAGGED).await;
        upstream.forget();
        let again = gateway.get(&client, &named(derived.digest())).await;
        assert_eq!((again.status, &again.body), (200, &derived.body));
        let itself = asks_for_itself.then(|| format!("HEAD {}", named(derived.digest())));
        let mut expected: Vec<String> = itself.into_iter().chain([source.clone()]).collect();
        let mut asked = upstream.lines();
        expected.sort();
        asked.sort();
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn a_derived_digest_goes_with_its_source() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    upstream.contents().remove_manifest("app", &image.oci().digest);
    let gone = gateway.manifest(&Client::docker_17(), &named(derived.digest())).await;
    assert_eq!((gone.status, gone.error().0.as_str()), (404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn a_derived_digest_with_two_sources_lives_as_long_as_one_of_them() {
    let image = Image::classic("app");
    let (plain, annotated) = (image.oci(), image.oci_annotated());
    let (upstream, gateway) = with(&plain, &image).await;
    upstream.put("app", "annotated", &annotated);
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let twin = gateway.manifest(&Client::docker_17(), "/v2/app/manifests/annotated").await;
    assert_eq!(derived.digest(), twin.digest());
    for source in [&annotated, &plain] {
        assert_eq!(gateway.manifest(&Client::docker_17(), &named(derived.digest())).await.status, 200);
        upstream.contents().remove_manifest("app", &source.digest);
    }
    assert_eq!(gateway.manifest(&Client::docker_17(), &named(derived.digest())).await.status, 404);
}

#[tokio::test]
async fn a_refusal_of_the_source_is_relayed() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let source = named(&image.oci().digest);
    upstream.when("*", &source).answer(Answer::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", "17"));
    let limited = gateway.get(&Client::docker_17(), &named(derived.digest())).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("17")));
}

#[tokio::test]
async fn what_the_upstream_has_under_a_derived_digest_comes_first() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    upstream.put("app", None, &image.schema2());
    upstream.contents().remove_manifest("app", &image.oci().digest);
    let got = gateway.manifest(&Client::docker_17(), &named(derived.digest())).await;
    assert_eq!((got.status, &got.body[..]), (200, &image.schema2().bytes[..]));
    assert_eq!(got.header("schemabridge-translation"), None);
}

#[tokio::test]
async fn a_derived_digest_belongs_to_its_repository() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    upstream.put_image("other", "latest", &Image::small("other"), &Image::small("other").oci());
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let elsewhere = gateway.manifest(&Client::docker_17(), &format!("/v2/other/manifests/{}", derived.digest())).await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test]
async fn an_unknown_digest_is_the_upstreams_404() {
    let image = Image::classic("app");
    let (_upstream, gateway) = with(&image.oci(), &image).await;
    let unknown = gateway.manifest(&Client::docker_17(), &named(&sha256(b"never stored"))).await;
    assert_eq!((unknown.status, unknown.error().0.as_str()), (404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn a_miss_is_not_remembered() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    let later = Image::small("later").oci();
    assert_eq!(gateway.manifest(&Client::curl(), &named(&later.digest)).await.status, 404);
    upstream.put("app", None, &later);
    assert_eq!(gateway.manifest(&Client::curl(), &named(&later.digest)).await.status, 200);
    let derived = image.schema2().digest;
    assert_eq!(gateway.manifest(&Client::docker_17(), &named(&derived)).await.status, 404);
    gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(gateway.manifest(&Client::docker_17(), &named(&derived)).await.status, 200);
}

#[tokio::test]
async fn a_stored_schema_1_without_signatures_is_given_one_by_tag_and_by_digest() {
    let stored = images::schema1_unsigned("html-escape");
    let (_upstream, gateway) = with(&stored, &Image::golden("html-escape")).await;
    let by_tag = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!((by_tag.status, by_tag.content_type()), (200, images::SCHEMA1_SIGNED));
    assert_eq!(images::payload(&by_tag.body), stored.bytes);
    assert_eq!(by_tag.digest(), stored.digest);
    for client in [Client::docker_1_6_2(), Client::docker_20_10(), Client::curl()] {
        let by_digest = gateway.manifest(&client, &named(&stored.digest)).await;
        assert_eq!((by_digest.status, by_digest.text()), (200, by_tag.text()));
    }
}

#[tokio::test]
async fn a_stored_signature_is_never_replaced() {
    let stored = images::schema1_signed("html-escape");
    let (_upstream, gateway) = with(&stored, &Image::golden("html-escape")).await;
    for target in [TAGGED.to_owned(), named(&stored.digest)] {
        let got = gateway.manifest(&Client::docker_1_9_1(), &target).await;
        assert_eq!((got.status, &got.body[..], got.digest()), (200, &stored.bytes[..], stored.digest.as_str()));
    }
}

#[tokio::test]
async fn a_caller_who_may_not_see_the_source_gets_no_derived_answer() {
    let image = Image::classic("app");
    let (upstream, gateway) = with(&image.oci(), &image).await;
    let (ann, bob) = (basic("ann", "pw"), basic("bob", "pw"));
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&ann, "app");
    upstream.contents().admit(&bob, "elsewhere");
    let ask = async |caller: &str, target: &str| {
        let call = Client::docker_17().get(target).header("Authorization", caller);
        gateway.send(&call).await
    };
    let derived = ask(&ann, TAGGED).await;
    assert_eq!((derived.status, derived.digest()), (200, image.schema2().digest.as_str()));
    let target = named(derived.digest());
    assert_eq!(ask(&ann, &target).await.status, 200);
    assert_eq!(ask(&bob, &target).await.status, 403);
    assert_eq!(ask(&bob, TAGGED).await.status, 403);
    assert_eq!(gateway.send(&Call::new("GET", &target)).await.status, 401);
    upstream.contents().revoke(&ann, "app");
    assert_eq!(ask(&ann, &target).await.status, 403);
    assert_eq!(ask(&ann, TAGGED).await.status, 403);
}
