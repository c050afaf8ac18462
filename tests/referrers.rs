//! What was attached to an image is found from a translation of it too: signatures and SBOMs name the stored digest, clients
//! ask with the one that they were given.

use serde_json::{Value, json};

use crate::support::basic;
use crate::support::client::{Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, oci_index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const API: &str = "/v2/app/referrers/*";

fn referrers(digest: &str) -> String {
    format!("/v2/app/referrers/{digest}")
}

/// The fall-back tag of a digest.
fn fallback(digest: &str) -> String {
    digest.replace(':', "-")
}

fn attached_to(subject: &Document, name: &str) -> Document {
    images::artifact(name).changed(|artifact| {
        artifact["subject"] =
            json!({"mediaType": subject.content_type, "digest": subject.digest, "size": subject.bytes.len()});
    })
}

fn digests(reply: &Reply) -> Vec<String> {
    assert_eq!((reply.status, reply.content_type()), (200, images::INDEX), "{}", reply.text());
    let listed = reply.json();
    listed["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

/// An image with something attached to it, and the digest of its translation for Docker 17.
async fn with_an_attachment() -> (Upstream, Image, Document) {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    let sbom = attached_to(&image.oci(), "sbom");
    upstream.put_image("app", "latest", &image, &image.oci());
    upstream.put("app", None, &sbom);
    (upstream, image, sbom)
}

#[tokio::test]
async fn a_derived_digest_has_the_referrers_of_its_source() {
    let (upstream, image, sbom) = with_an_attachment().await;
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    assert_eq!(derived, image.schema2().digest);
    for digest in [&derived, &image.oci().digest] {
        let got = gateway.get(&Client::curl(), &referrers(digest)).await;
        assert_eq!(digests(&got), std::slice::from_ref(&sbom.digest), "{digest}");
    }
}

#[tokio::test]
async fn so_have_derived_parents_and_their_children() {
    let upstream = Upstream::start().await;
    let app = Image::buildkit("app", "amd64", Kind::Gzip, 1);
    let index = oci_index(&[Entry::on(&app.oci(), "linux/amd64")]);
    let (about_child, about_index) = (attached_to(&app.oci(), "child"), attached_to(&index, "index"));
    upstream.put_image("app", "latest", &app, &app.oci());
    upstream.put("app", None, &about_child);
    upstream.put("app", None, &about_index);
    upstream.put("app", "latest", &index);
    let gateway = Gateway::before(&upstream).await;
    let list = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(list.content_type(), images::LIST);
    let of_list = gateway.get(&Client::curl(), &referrers(list.digest())).await;
    assert_eq!(digests(&of_list), [about_index.digest]);
    let of_child = gateway.get(&Client::curl(), &referrers(&app.schema2().digest)).await;
    assert_eq!(digests(&of_child), [about_child.digest]);
}

#[tokio::test]
async fn pages_and_filters_are_the_upstreams() {
    let (upstream, image, _) = with_an_attachment().await;
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    let next = format!("</v2/app/referrers/{}?n=1&last=abc>; rel=\"next\"", image.oci().digest);
    upstream.when("GET", API).with("link", &next);
    upstream.forget();
    let filter = "artifactType=application%2Fvnd.example.sbom.v1&n=1";
    let got = gateway.get(&Client::curl(), &format!("{}?{filter}", referrers(&derived))).await;
    assert_eq!(got.header("oci-filters-applied"), Some("artifactType"));
    let link = got.header("link").unwrap();
    assert!(link.contains("n=1") && link.contains("last=abc") && link.ends_with("rel=\"next\""), "{link}");
    let asked = upstream.requests_to("GET", API);
    assert_eq!((asked[0].path.as_str(), asked[0].query.as_str()), (referrers(&image.oci().digest).as_str(), filter));
    let target = link.trim_start_matches('<').split_once('>').unwrap().0;
    let path = target.find("/v2/").map(|at| &target[at..]).unwrap();
    assert_eq!(gateway.get(&Client::curl(), path).await.status, 200, "the next page is there: {link}");
}

#[tokio::test]
async fn without_the_api_the_sources_fall_back_tag_is_read() {
    let (upstream, image, sbom) = with_an_attachment().await;
    upstream.when("*", API).answer(Answer::new(404).header("content-type", "text/plain").body("404 page not found\n"));
    let listed = oci_index(&[Entry::of(&sbom)]);
    let tag: &'static str = fallback(&image.oci().digest).leak();
    upstream.put("app", tag, &listed);
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    let got = gateway.get(&Client::curl(), &referrers(&derived)).await;
    assert_eq!((digests(&got), got.text().as_str()), (vec![sbom.digest.clone()], listed.text()));
    for asked in [fallback(&derived), tag.to_owned()] {
        let by_tag = gateway.manifest(&Client::curl(), &format!("/v2/app/manifests/{asked}")).await;
        assert_eq!((by_tag.status, by_tag.text().as_str()), (200, listed.text()), "{asked}");
    }
    // What is attached to a derived digest all the same is its own.
    let own = oci_index(&[]);
    upstream.put("app", &*fallback(&derived).leak(), &own);
    let by_tag = gateway.manifest(&Client::curl(), &format!("/v2/app/manifests/{}", fallback(&derived))).await;
    assert_eq!(by_tag.text(), own.text());
}

#[tokio::test]
async fn with_neither_there_is_an_empty_index() {
    let (upstream, _, _) = with_an_attachment().await;
    upstream.when("*", API).answer(Answer::error(404, "NOT_FOUND", "no such endpoint"));
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    let got = gateway.get(&Client::curl(), &referrers(&derived)).await;
    assert_eq!(digests(&got), Vec::<String>::new());
    assert_eq!(got.json()["schemaVersion"], 2);
    let tag = gateway.manifest(&Client::curl(), &format!("/v2/app/manifests/{}", fallback(&derived))).await;
    assert_eq!((tag.status, tag.error().0.as_str()), (404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn of_a_stored_or_unknown_digest_the_upstreams_answer_passes() {
    let (upstream, image, _) = with_an_attachment().await;
    let gateway = Gateway::before(&upstream).await;
    gateway.manifest(&Client::docker_17(), TAGGED).await;
    upstream.when("*", API).answer(Answer::error(404, "NOT_FOUND", "no such endpoint"));
    for digest in [image.oci().digest, crate::support::sha256(b"nobody's")] {
        let got = gateway.get(&Client::curl(), &referrers(&digest)).await;
        assert_eq!((got.status, got.error()), (404, ("NOT_FOUND".to_owned(), "no such endpoint".to_owned())));
    }
}

/// A stored document under the same digest has referrers of its own.
#[tokio::test]
async fn a_derived_digest_that_is_stored_too_has_its_own_referrers() {
    let (upstream, image, _) = with_an_attachment().await;
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    upstream.put("app", None, &image.schema2());
    let own = attached_to(&image.schema2(), "own");
    upstream.put("app", None, &own);
    assert_eq!(digests(&gateway.get(&Client::curl(), &referrers(&derived)).await), [own.digest]);
}

#[tokio::test]
async fn another_process_with_the_same_store_knows_them() {
    let (upstream, _, sbom) = with_an_attachment().await;
    let store = tempfile::tempdir().unwrap();
    let first = Setup::default().store_in(store.path()).before(&upstream).await;
    let derived = first.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    first.stop().await;
    let second = Setup::default().store_in(store.path()).before(&upstream).await;
    assert_eq!(digests(&second.get(&Client::curl(), &referrers(&derived)).await), [sbom.digest]);
}

#[tokio::test]
async fn only_who_sees_the_source_sees_its_referrers() {
    let (upstream, _, sbom) = with_an_attachment().await;
    let (ann, bob) = (basic("ann", "pw"), basic("bob", "pw"));
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&ann, "app");
    upstream.contents().admit(&bob, "other");
    let gateway = Gateway::before(&upstream).await;
    let ask = async |caller: &str, target: &str| {
        gateway.send(&Client::docker_17().get(target).header("Authorization", caller)).await
    };
    let derived = ask(&ann, TAGGED).await.digest().to_owned();
    assert_eq!(digests(&ask(&ann, &referrers(&derived)).await), [sbom.digest]);
    for target in [referrers(&derived), format!("/v2/app/manifests/{}", fallback(&derived))] {
        let refused = ask(&bob, &target).await;
        assert_eq!(refused.status, 403, "{target}: {}", refused.text());
        assert!(!refused.text().contains("sbom"));
        assert_eq!(gateway.get(&Client::docker_17(), &target).await.status, 401);
    }
}

#[tokio::test]
async fn a_refusal_of_the_upstream_is_passed_on() {
    let (upstream, _, _) = with_an_attachment().await;
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    upstream.when("GET", API).answer(Answer::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", "17"));
    let limited = gateway.get(&Client::curl(), &referrers(&derived)).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("17")), "{}", limited.text());
}

#[tokio::test]
async fn head_of_referrers_is_get_without_its_body() {
    let (upstream, _, _) = with_an_attachment().await;
    let gateway = Gateway::before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await.digest().to_owned();
    let (head, got) = (
        gateway.head(&Client::curl(), &referrers(&derived)).await,
        gateway.get(&Client::curl(), &referrers(&derived)).await,
    );
    assert_eq!((head.status, head.content_type(), head.body.len()), (got.status, got.content_type(), 0));
    upstream.when("*", API).answer(Answer::error(404, "NOT_FOUND", "no such endpoint"));
    let (head, got) = (
        gateway.head(&Client::curl(), &referrers(&derived)).await,
        gateway.get(&Client::curl(), &referrers(&derived)).await,
    );
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, got.header("content-length"), 0));
    let entries: Value = got.json();
    assert_eq!(entries["manifests"], json!([]));
}
