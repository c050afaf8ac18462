//! Lists and indexes that no honest tool makes: a clear answer, bounded work, and nothing remembered that is wrong.

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, docker_list, oci_index};
use crate::support::upstream::Upstream;
use schemabridge::gateway::IndexLimits;

const TAGGED: &str = "/v2/app/manifests/latest";

fn named(digest: &str) -> String {
    format!("/v2/app/manifests/{digest}")
}

fn image(architecture: &str) -> Image {
    Image::buildkit("app", architecture, Kind::Gzip, 1)
}

async fn upstream_with(stored: &Document, children: &[&Document]) -> Upstream {
    let upstream = Upstream::start().await;
    for child in children {
        upstream.put("app", None, child);
    }
    upstream.put("app", "latest", stored);
    upstream
}

/// Indexes in each other, this many around one image.
fn nested(levels: usize) -> Vec<Document> {
    let app = image("amd64").oci();
    let mut documents = vec![oci_index(&[Entry::on(&app, "linux/amd64")])];
    for _ in 0..levels {
        documents.push(oci_index(&[Entry::of(documents.last().unwrap())]));
    }
    documents.push(app);
    documents
}

#[tokio::test]
async fn nesting_has_a_limit_that_the_answer_names() {
    for (levels, status) in [(4, 200), (5, 406)] {
        let documents = nested(levels);
        let upstream = upstream_with(&documents[levels], &documents.iter().collect::<Vec<_>>()).await;
        let gateway = Gateway::before(&upstream).await;
        let answer = gateway.manifest(&Client::docker_17(), TAGGED).await;
        assert_eq!(answer.status, status, "{levels}: {}", answer.text());
        if status == 406 {
            assert!(answer.error().1.contains("nested more than 4 deep"), "{}", answer.text());
            let refused = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
            assert!(refused.error().1.contains("nested more than 4 deep"), "{}", refused.text());
        }
    }
}

#[tokio::test]
async fn the_limits_are_the_operators() {
    let documents = nested(2);
    let upstream = upstream_with(&documents[2], &documents.iter().collect::<Vec<_>>()).await;
    let limits = IndexLimits { nesting_max: 1, ..IndexLimits::default() };
    let gateway = Setup::default().index_limits(limits).before(&upstream).await;
    let refused = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert!(refused.error().1.contains("nested more than 1 deep"), "{}", refused.text());
    let entries = ["amd64", "arm64", "s390x"].map(|name| Entry::on(&image(name).oci(), &format!("linux/{name}")));
    let children = ["amd64", "arm64", "s390x"].map(|name| image(name).oci());
    let upstream = upstream_with(&oci_index(&entries), &children.iter().collect::<Vec<_>>()).await;
    for (entries_max, status) in [(3, 200), (2, 406)] {
        let limits = IndexLimits { entries_max, ..IndexLimits::default() };
        let gateway = Setup::default().index_limits(limits).before(&upstream).await;
        assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.status, status);
    }
}

/// No document holds its own digest, but an upstream may say so: what it sends is not what was asked for.
#[tokio::test]
async fn an_index_that_contains_itself_is_a_lie_and_is_caught() {
    let outer = oci_index(&[Entry::of(&image("amd64").oci()).called(images::INDEX)]);
    let upstream = upstream_with(&outer, &[]).await;
    upstream.when("GET", &named(&image("amd64").oci().digest)).answer(
        crate::support::fault::Answer::new(200).header("content-type", images::INDEX).body(outer.bytes.clone()),
    );
    let gateway = Gateway::before(&upstream).await;
    for client in [Client::docker_17(), Client::docker_1_9_1()] {
        assert_eq!(gateway.manifest(&client, TAGGED).await.status, 502);
    }
    assert!(upstream.requests().len() < 16, "{:?}", upstream.lines());
}

#[tokio::test]
async fn the_same_nested_index_is_read_once_and_its_images_are_listed_once() {
    let app = image("amd64");
    let inner = oci_index(&[Entry::on(&app.oci(), "linux/amd64")]);
    let outer = oci_index(&vec![Entry::of(&inner); 100]);
    let upstream = upstream_with(&outer, &[&inner, &app.oci()]).await;
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(got.text(), docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]).text());
    for document in [&inner, &app.oci()] {
        assert_eq!(upstream.requests_to("GET", &named(&document.digest)).len(), 1);
    }
}

/// Each level names the one below a hundred times: 10^8 visits, without a single image.
#[tokio::test]
async fn nested_indexes_that_multiply_end_at_the_limit() {
    let mut levels = vec![oci_index(&[])];
    for _ in 0..4 {
        levels.push(oci_index(&vec![Entry::of(levels.last().unwrap()); 100]));
    }
    let upstream = upstream_with(&levels[4], &levels.iter().collect::<Vec<_>>()).await;
    let gateway = Gateway::before(&upstream).await;
    for client in [Client::docker_17(), Client::docker_1_9_1()] {
        let refused = crate::support::patiently("a refusal", gateway.get(&client, TAGGED)).await;
        assert!(refused.error().1.contains("more than 256 entries"), "{}", refused.text());
    }
    assert!(upstream.requests().len() < 16, "{}", upstream.requests().len());
}

#[tokio::test]
async fn ten_thousand_nested_indexes_are_not_all_asked_for() {
    let empty: Vec<Document> = (0..10_000)
        .map(|number| crate::support::parents::annotated_index(&[], &[("number", &number.to_string())]))
        .collect();
    let outer = oci_index(&empty.iter().map(Entry::of).collect::<Vec<_>>());
    let upstream = upstream_with(&outer, &empty.iter().collect::<Vec<_>>()).await;
    let gateway = Gateway::before(&upstream).await;
    let refused = gateway.get(&Client::docker_17(), TAGGED).await;
    assert!(refused.error().1.contains("more than 256 entries"), "{}", refused.text());
    assert!(upstream.requests().len() < 600, "{}", upstream.requests().len());
}

#[tokio::test]
async fn ten_thousand_children_are_a_clear_answer_and_no_requests() {
    let entries: Vec<Entry> =
        (0..10_000).map(|number| Entry::on(&image("amd64").oci(), &format!("linux/arch{number}"))).collect();
    for (stored, reader) in
        [(oci_index(&entries), Client::docker_20_10()), (docker_list(&entries), Client::docker_20_10())]
    {
        let upstream = upstream_with(&stored, &[]).await;
        let gateway = Gateway::before(&upstream).await;
        for client in [Client::docker_1_9_1(), Client::oci_only(), Client::docker_17(), Client::only(images::SCHEMA2)] {
            let answer = gateway.manifest(&client, TAGGED).await;
            if answer.status == 406 {
                assert!(answer.error().1.contains("more than 256 entries"), "{}", answer.text());
            } else {
                assert_eq!((answer.status, &answer.body), (200, &stored.bytes.to_vec()));
            }
        }
        assert_eq!(gateway.manifest(&reader, TAGGED).await.body, stored.bytes);
        assert!(upstream.requests_to("GET", "*").len() < 3, "{:?}", upstream.lines());
    }
}

#[tokio::test]
async fn a_child_with_other_bytes_is_502_and_is_not_remembered() {
    let (good, bad) = (image("amd64"), image("arm64"));
    let entries = [Entry::on(&good.oci(), "linux/amd64"), Entry::on(&bad.oci(), "linux/arm64")];
    let upstream = upstream_with(&oci_index(&entries), &[&good.oci(), &bad.oci()]).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.when("GET", &named(&bad.oci().digest)).times(2).with_body(good.oci().bytes);
    for _ in 0..2 {
        let refused = gateway.get(&Client::docker_17(), TAGGED).await;
        assert_eq!(refused.status, 502, "{}", refused.text());
    }
    let expected = docker_list(&[Entry::on(&good.schema2(), "linux/amd64"), Entry::on(&bad.schema2(), "linux/arm64")]);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), expected.text());
}

/// The bytes say what a child is; neither its entry nor its Content-Type does.
#[tokio::test]
async fn a_child_whose_type_lies_is_what_its_bytes_say() {
    let (docker, oci) = (image("amd64"), image("arm64"));
    let inner = oci_index(&[Entry::on(&image("s390x").oci(), "linux/s390x")]);
    let index = oci_index(&[
        Entry::on(&docker.schema2(), "linux/amd64").called(images::OCI),
        Entry::on(&oci.oci(), "linux/arm64").called(images::SCHEMA2),
        Entry::on(&inner, "linux/s390x").called(images::OCI),
        Entry::on(&oci.oci(), "linux/ppc64le").called(images::INDEX),
    ]);
    let upstream = upstream_with(&index, &[&docker.schema2(), &oci.oci(), &inner]).await;
    upstream.when("*", &named(&oci.oci().digest)).with("content-type", images::LIST);
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let expected =
        docker_list(&[Entry::on(&docker.schema2(), "linux/amd64"), Entry::on(&oci.schema2(), "linux/arm64")]);
    assert_eq!(got.text(), expected.text());
}

#[tokio::test]
async fn what_is_called_an_index_and_is_none_is_named_when_nothing_is_left() {
    let index = oci_index(&[Entry::on(&image("arm64").oci(), "linux/arm64").called(images::INDEX)]);
    for there in [true, false] {
        let upstream = upstream_with(&index, &[]).await;
        if there {
            upstream.put("app", None, &image("arm64").oci());
        }
        let gateway = Gateway::before(&upstream).await;
        let (_, message) = gateway.manifest(&Client::docker_17(), TAGGED).await.error();
        let words = if there { "linux/arm64 is not an image" } else { "linux/arm64 is not in the registry" };
        assert!(message.contains(words), "{message}");
    }
}

/// What was left out because it was not there is not left out for ever.
#[tokio::test]
async fn a_child_that_comes_later_is_listed() {
    let (here, late) = (image("amd64"), image("arm64"));
    let entries = [Entry::on(&here.oci(), "linux/amd64"), Entry::on(&late.oci(), "linux/arm64")];
    let upstream = upstream_with(&oci_index(&entries), &[&here.oci()]).await;
    let gateway = Gateway::before(&upstream).await;
    let without = docker_list(&[Entry::on(&here.schema2(), "linux/amd64")]);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), without.text());
    upstream.put("app", None, &late.oci());
    let with = docker_list(&[Entry::on(&here.schema2(), "linux/amd64"), Entry::on(&late.schema2(), "linux/arm64")]);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), with.text());
    assert_eq!(gateway.manifest(&Client::docker_17(), &named(&without.digest)).await.text(), without.text());
}

#[tokio::test]
async fn a_zstd_child_that_comes_later_is_taken_out() {
    let (here, late) = (image("amd64"), Image::buildkit("zstd", "arm64", Kind::Zstd, 1));
    let entries = [Entry::on(&here.oci(), "linux/amd64"), Entry::on(&late.oci(), "linux/arm64")];
    let stored = oci_index(&entries);
    let upstream = upstream_with(&stored, &[&here.oci()]).await;
    let gateway = Gateway::before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::docker_20_10(), TAGGED).await.text(), stored.text());
    upstream.put("app", None, &late.oci());
    assert_eq!(gateway.manifest(&Client::docker_20_10(), TAGGED).await.text(), oci_index(&entries[..1]).text());
}

/// A child that no parser can read is one that is left out, with the reason.
#[tokio::test]
async fn an_unreadable_child_is_left_out() {
    let good = image("amd64");
    let twice = image("arm64").oci().rewritten(|text| text.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1));
    let alone = [Entry::on(&twice, "linux/arm64")];
    let both = [Entry::on(&twice, "linux/arm64"), Entry::on(&good.oci(), "linux/amd64")];
    let upstream = upstream_with(&oci_index(&both), &[&good.oci(), &twice]).await;
    let gateway = Gateway::before(&upstream).await;
    let expected = docker_list(&[Entry::on(&good.schema2(), "linux/amd64")]);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), expected.text());
    upstream.put("app", "latest", &oci_index(&alone));
    let (_, message) = gateway.manifest(&Client::docker_17(), TAGGED).await.error();
    assert!(message.contains("linux/arm64") && message.contains("layers"), "{message}");
}
