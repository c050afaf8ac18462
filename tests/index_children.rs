//! A list made of an index, or the other way round, names children that the gateway then serves: each is derived and kept
//! before the parent is answered, by every replica alike.

use crate::support::basic;
use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, docker_list, oci_index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const CHILDREN: &str = "/v2/app/manifests/sha256:*";

fn named(digest: &str) -> String {
    format!("/v2/app/manifests/{digest}")
}

fn image(architecture: &str) -> Image {
    Image::buildkit("app", architecture, Kind::Gzip, 1)
}

/// As many architectures as a test asks for; no two images are alike.
fn architectures(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("arch{number}")).collect()
}

/// An index of OCI images of these architectures, and the list that is made of it.
async fn with_architectures(architectures: &[String]) -> (Upstream, Document) {
    let upstream = Upstream::start().await;
    let (mut stored, mut expected) = (Vec::new(), Vec::new());
    for architecture in architectures {
        let image = image(architecture);
        upstream.put_image("app", "latest", &image, &image.oci());
        let platform = format!("linux/{architecture}");
        stored.push(Entry::on(&image.oci(), &platform));
        expected.push(Entry::on(&image.schema2(), &platform));
    }
    upstream.put("app", "latest", &oci_index(&stored));
    (upstream, docker_list(&expected))
}

async fn with_three() -> (Upstream, Document) {
    with_architectures(&["amd64", "arm64", "s390x"].map(str::to_owned)).await
}

#[tokio::test]
async fn every_child_is_served_by_digest_as_soon_as_the_parent_is_answered() {
    let (upstream, expected) = with_three().await;
    let gateway = Gateway::before(&upstream).await;
    let parent = gateway.get(&Client::docker_17(), TAGGED).await;
    assert_eq!((parent.content_type(), parent.text().as_str()), (images::LIST, expected.text()));
    for architecture in ["amd64", "arm64", "s390x"] {
        let child = image(architecture).schema2();
        let got = gateway.manifest(&Client::docker_17(), &named(&child.digest)).await;
        assert_eq!((got.status, got.content_type(), &got.body[..]), (200, images::SCHEMA2, &child.bytes[..]));
        assert_eq!(got.header("schemabridge-source-digest"), Some(image(architecture).oci().digest.as_str()));
    }
}

#[tokio::test]
async fn a_replica_with_the_same_store_serves_parent_and_children_that_another_made() {
    let (upstream, expected) = with_three().await;
    let store = tempfile::tempdir().unwrap();
    let first = Setup::default().store_in(store.path()).before(&upstream).await;
    let second = Setup::default().store_in(store.path()).before(&upstream).await;
    let parent = first.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(parent.digest(), expected.digest);
    first.stop().await;
    let again = second.manifest(&Client::docker_17(), &named(&expected.digest)).await;
    assert_eq!((again.status, again.content_type(), again.text().as_str()), (200, images::LIST, expected.text()));
    for architecture in ["amd64", "arm64", "s390x"] {
        let child = image(architecture).schema2();
        let got = second.manifest(&Client::docker_17(), &named(&child.digest)).await;
        assert_eq!((got.status, &got.body[..]), (200, &child.bytes[..]));
    }
}

/// A client that was told the parent's digest asks for the children's next, on any replica: that they can be kept is part
/// of the answer.
#[tokio::test]
async fn a_parent_whose_children_cannot_be_kept_is_not_answered() {
    let (upstream, _) = with_three().await;
    let store = tempfile::tempdir().unwrap();
    let gateway = Setup::default().store_in(store.path()).before(&upstream).await;
    gateway.manifest(&Client::docker_20_10(), TAGGED).await;
    let documents = store.path().join("v1/documents");
    std::fs::write(&documents, "a file where a folder is needed").unwrap();
    let refused = gateway.get(&Client::docker_17(), TAGGED).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    std::fs::remove_file(&documents).unwrap();
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.status, 200);
}

/// Mixed lists exist: what the client reads as it is stored keeps its digest.
#[tokio::test]
async fn children_that_the_client_reads_as_stored_stay() {
    let upstream = Upstream::start().await;
    let (docker, oci) = (image("amd64"), image("arm64"));
    upstream.put_image("app", "latest", &docker, &docker.schema2());
    upstream.put_image("app", "latest", &oci, &oci.oci());
    let mixed = [Entry::on(&docker.schema2(), "linux/amd64"), Entry::on(&oci.oci(), "linux/arm64")];
    let for_docker = [Entry::on(&docker.schema2(), "linux/amd64"), Entry::on(&oci.schema2(), "linux/arm64")];
    for stored in [oci_index(&mixed), docker_list(&mixed)] {
        upstream.put("app", "latest", &stored);
        let gateway = Gateway::before(&upstream).await;
        let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
        assert_eq!((got.content_type(), got.text().as_str()), (images::LIST, docker_list(&for_docker).text()));
        let newer = gateway.manifest(&Client::docker_20_10(), TAGGED).await;
        assert_eq!(newer.text(), stored.text(), "Docker since 18.06 reads it as it is");
    }
}

#[tokio::test]
async fn a_client_that_lists_schema_2_beside_the_index_keeps_schema_2_children() {
    let upstream = Upstream::start().await;
    let app = image("amd64");
    upstream.put_image("app", "latest", &app, &app.schema2());
    upstream.put("app", "latest", &docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]));
    let gateway = Gateway::before(&upstream).await;
    let both = Client::new("", &[&format!("{}, {}", images::INDEX, images::SCHEMA2)]);
    let got = gateway.manifest(&both, TAGGED).await;
    assert_eq!(got.text(), oci_index(&[Entry::on(&app.schema2(), "linux/amd64")]).text());
    let pure = gateway.manifest(&Client::oci_only(), TAGGED).await;
    assert_eq!(pure.text(), oci_index(&[Entry::on(&app.oci(), "linux/amd64")]).text());
}

#[tokio::test]
async fn a_stored_list_with_oci_children_is_made_of_schema_2_for_docker_before_18_06() {
    let upstream = Upstream::start().await;
    let app = image("amd64");
    upstream.put_image("app", "latest", &app, &app.oci());
    upstream.put("app", "latest", &docker_list(&[Entry::on(&app.oci(), "linux/amd64")]));
    let gateway = Gateway::before(&upstream).await;
    let expected = docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]);
    for version in ["1.10.3", "1.13.1", "17.12.1-ce", "18.03.1-ce", "19.03.4"] {
        let mut client = Client::docker_17();
        client.user_agent = Some(format!("docker/{version} go/go1.9 kernel/4.9.0 os/linux arch/amd64"));
        let got = gateway.manifest(&client, TAGGED).await;
        assert_eq!((got.content_type(), got.text().as_str()), (images::LIST, expected.text()), "{version}");
    }
}

/// The config of a schema 2 child decides too: under OCI's type Docker 1.10 to 18.05 refuses it.
#[tokio::test]
async fn hybrid_children_are_made_proper_for_docker_before_18_06() {
    let upstream = Upstream::start().await;
    let app = image("amd64");
    upstream.put_image("app", "latest", &app, &app.hybrid());
    upstream.put("app", "latest", &oci_index(&[Entry::on(&app.hybrid(), "linux/amd64")]));
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(got.text(), docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]).text());
}

#[tokio::test]
async fn a_hundred_at_once_are_given_the_same_bytes() {
    let (upstream, expected) = with_architectures(&architectures(8)).await;
    let gateway = Gateway::before(&upstream).await;
    let asked = (0..100).map(|_| Client::docker_17().get(TAGGED));
    let asked: Vec<Call> = asked.collect();
    let answers = futures_util::future::join_all(asked.iter().map(|call| gateway.send(call))).await;
    for answer in answers {
        assert_eq!((answer.status, answer.text().as_str()), (200, expected.text()));
    }
    assert_eq!(upstream.requests_to("GET", CHILDREN).len(), 9, "each document is read once, however many ask");
}

#[tokio::test]
async fn gateways_that_know_nothing_of_each_other_make_the_same_bytes() {
    let (upstream, expected) = with_architectures(&architectures(5)).await;
    for _ in 0..3 {
        let gateway = Gateway::before(&upstream).await;
        for _ in 0..2 {
            assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), expected.text());
        }
    }
}

#[tokio::test]
async fn no_more_than_32_children_are_asked_for_at_once() {
    let (upstream, expected) = with_architectures(&architectures(100)).await;
    let gateway = Gateway::before(&upstream).await;
    // The index itself is known after this, so only children are held.
    gateway.manifest(&Client::curl(), TAGGED).await;
    upstream.forget();
    let gate = upstream.when("GET", CHILDREN).hold();
    let asking = async { gateway.get(&Client::docker_17(), TAGGED).await };
    let watching = async {
        gate.reached(32).await;
        // Whoever asked for more would have done it before these were answered.
        for _ in 0..20 {
            gateway.get(&Client::curl(), "/nowhere").await;
        }
        let asked = upstream.requests_to("GET", CHILDREN).len();
        gate.open();
        asked
    };
    let (answer, asked) = tokio::join!(asking, watching);
    assert_eq!((asked, answer.text().as_str()), (32, expected.text()));
    assert_eq!(upstream.requests_to("GET", CHILDREN).len(), 100);
}

#[tokio::test]
async fn a_cold_index_of_30_children_costs_three_round_trips_in_sequence() {
    let (upstream, expected) = with_architectures(&architectures(30)).await;
    let stored = upstream.contents().manifest("app", "latest").unwrap().clone();
    let gateway = Gateway::before(&upstream).await;
    let tag = upstream.when("HEAD", TAGGED).hold();
    let index = upstream.when("GET", &named(&stored.digest)).hold();
    let children: Vec<_> =
        architectures(30).iter().map(|name| upstream.when("GET", &named(&image(name).oci().digest)).hold()).collect();
    let asking = async { gateway.get(&Client::docker_17(), TAGGED).await };
    let answering = async {
        tag.reached(1).await;
        assert_eq!(upstream.requests().len(), 1);
        tag.open();
        index.reached(1).await;
        assert_eq!(upstream.requests().len(), 2);
        index.open();
        for child in &children {
            child.reached(1).await;
        }
        // All of them are here and none is answered: one round trip.
        assert_eq!(upstream.requests().len(), 32);
        children.iter().for_each(crate::support::fault::Gate::open);
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer.text(), expected.text());
    assert_eq!(upstream.requests().len(), 32, "{:?}", upstream.lines());
}

#[tokio::test]
async fn children_without_a_platform_cost_one_more_round_trip() {
    let upstream = Upstream::start().await;
    let images: Vec<Image> = architectures(30).iter().map(|name| image(name)).collect();
    for image in &images {
        upstream.put_image("app", "latest", image, &image.oci());
    }
    upstream.put("app", "latest", &oci_index(&images.iter().map(|image| Entry::of(&image.oci())).collect::<Vec<_>>()));
    let gateway = Gateway::before(&upstream).await;
    let configs = upstream.when("GET", "/v2/app/blobs/*").hold();
    let asking = async { gateway.get(&Client::docker_17(), TAGGED).await };
    let answering = async {
        configs.reached(30).await;
        assert_eq!(upstream.requests().len(), 62, "{:?}", upstream.lines());
        configs.open();
    };
    let (answer, ()) = tokio::join!(asking, answering);
    let platforms = architectures(30).into_iter().map(|name| format!("linux/{name}"));
    let expected: Vec<Entry> =
        images.iter().zip(platforms).map(|(image, platform)| Entry::on(&image.schema2(), &platform)).collect();
    assert_eq!(answer.text(), docker_list(&expected).text());
    assert_eq!(upstream.requests().len(), 62);
}

/// An index may name what its repository does not have. That the same process read it elsewhere, for somebody else, does
/// not make it anybody's.
#[tokio::test]
async fn a_child_of_another_repository_is_not_served_from_memory() {
    let upstream = Upstream::start().await;
    let (own, secret) = (image("amd64"), image("arm64"));
    upstream.put_image("app", "latest", &own, &own.oci());
    upstream.put_image("secret", "latest", &secret, &secret.oci());
    let entries = [Entry::on(&own.oci(), "linux/amd64"), Entry::on(&secret.oci(), "linux/arm64")];
    upstream.put("app", "latest", &oci_index(&entries));
    let (ann, bob) = (basic("ann", "pw"), basic("bob", "pw"));
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&ann, "secret");
    upstream.contents().admit(&bob, "app");
    let gateway = Gateway::before(&upstream).await;
    for client in [Client::docker_17(), Client::docker_1_9_1(), Client::docker_20_10()] {
        let seen = client.get("/v2/secret/manifests/latest").header("Authorization", &ann);
        assert_eq!(gateway.send(&seen).await.status, 200);
    }
    let answer = gateway.send(&Client::docker_17().get(TAGGED).header("Authorization", &bob)).await;
    assert_eq!(answer.text(), docker_list(&[Entry::on(&own.schema2(), "linux/amd64")]).text());
    let mut on_arm64 = Client::docker_1_9_1();
    on_arm64.user_agent = Some("docker/1.9.1 go/go1.4.3 os/linux arch/arm64".to_owned());
    let refused = gateway.send(&on_arm64.get(TAGGED).header("Authorization", &bob)).await;
    assert_eq!(refused.status, 406, "{}", refused.text());
    for digest in [secret.oci().digest, secret.schema2().digest] {
        let refused = gateway.send(&Client::docker_17().get(&named(&digest)).header("Authorization", &bob)).await;
        assert_eq!(refused.status, 404, "{}", refused.text());
    }
}

#[tokio::test]
async fn derived_children_and_parents_are_only_for_those_who_see_their_sources() {
    let (upstream, expected) = with_three().await;
    let (ann, bob) = (basic("ann", "pw"), basic("bob", "pw"));
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&ann, "app");
    upstream.contents().admit(&bob, "other");
    let gateway = Gateway::before(&upstream).await;
    let ask = async |caller: &str, target: &str| {
        gateway.send(&Client::docker_17().get(target).header("Authorization", caller)).await.status
    };
    assert_eq!(ask(&ann, TAGGED).await, 200);
    for digest in [expected.digest, image("arm64").schema2().digest] {
        assert_eq!((ask(&ann, &named(&digest)).await, ask(&bob, &named(&digest)).await), (200, 403));
    }
    assert_eq!(ask(&bob, TAGGED).await, 403);
}

/// What holds of images: the same headers, conditional requests, HEAD.
#[tokio::test]
async fn a_derived_parent_is_answered_like_a_derived_image() {
    let (upstream, expected) = with_three().await;
    let stored = upstream.contents().manifest("app", "latest").unwrap().clone();
    let gateway = Gateway::before(&upstream).await;
    for (target, caching) in
        [(TAGGED.to_owned(), "private, no-cache"), (named(&expected.digest), "private, max-age=31536000, immutable")]
    {
        let got = gateway.manifest(&Client::docker_17(), &target).await;
        assert_eq!(got.digest(), expected.digest);
        assert_eq!(got.header("cache-control"), Some(caching));
        assert_eq!(got.header("vary"), Some("Accept, User-Agent"));
        assert_eq!(got.header("schemabridge-source-digest"), Some(stored.digest.as_str()));
        assert_eq!(got.header("schemabridge-source-type"), Some(images::INDEX));
        assert_eq!(got.header("schemabridge-translation"), Some("index -> list"));
        let etag = format!("\"{}\"", expected.digest);
        let unchanged = gateway.send(&Client::docker_17().get(&target).header("If-None-Match", &etag)).await;
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(etag.as_str())));
        let stale = format!("\"{}\"", stored.digest);
        let changed = gateway.send(&Client::docker_17().get(&target).header("If-None-Match", &stale)).await;
        assert_eq!(changed.status, 200);
    }
}

#[tokio::test]
async fn what_the_upstream_says_of_a_child_is_passed_on() {
    let (upstream, expected) = with_three().await;
    let gateway = Gateway::before(&upstream).await;
    let child = named(&image("arm64").oci().digest);
    let limited = Answer::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", "17");
    upstream.when("GET", &child).times(1).answer(limited);
    let refused = gateway.get(&Client::docker_17(), TAGGED).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("17")), "{}", refused.text());
    upstream.when("GET", &child).times(1).answer(Answer::error(403, "DENIED", "not you"));
    assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 403);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), expected.text());
}
