//! Every known client gets, for every stored format, the document that the conformance table promises it: over a socket,
//! as HEAD and as GET, whatever the order of its Accept lines, and again by the digest that it was told.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, docker_list, oci_index};
use crate::support::upstream::Upstream;

/// The image whose schema 1 form docker-registry 2.8.2 made for this repository and tag.
const IMAGE: &str = "single-layer";
const TAGGED: &str = "/v2/test/repo/manifests/tag-1";

/// The documents of one image, stored in each of the six formats.
fn stored(format: &str) -> (Image, Document) {
    let image = Image::golden(IMAGE);
    let other = Image::buildkit("other", "arm64", Kind::Gzip, 1);
    let document = match format {
        "schema1" => images::schema1_signed(IMAGE),
        "schema2" => image.schema2(),
        "oci" => image.oci(),
        "list" => images::list(&[(&other.schema2(), "linux/arm64"), (&image.schema2(), "linux/amd64")]),
        "index" => images::index(&[(&other.oci(), "linux/arm64"), (&image.oci(), "linux/amd64")]),
        "artifact" => images::artifact("sbom"),
        _ => panic!("{format} is no format"),
    };
    (image, document)
}

async fn upstream_with(format: &str) -> Upstream {
    let upstream = Upstream::start().await;
    let (image, document) = stored(format);
    upstream.put_image("test/repo", "tag-1", &image, &document);
    for child in children(images::SCHEMA2).into_iter().chain(children(images::OCI)) {
        let is_child = document.text().contains(&child.digest);
        if is_child {
            upstream.put("test/repo", None, &child);
        }
    }
    upstream
}

/// The type and the bytes that a cell of the table promises; of schema 1 the signed part.
fn promised(serve: &str, how: &str, stored: &Document) -> (&'static str, Vec<u8>) {
    let image = Image::golden(IMAGE);
    if how == "translate+children" {
        let [other, own] = children(if serve == "list" { images::SCHEMA2 } else { images::OCI });
        let entries = [Entry::on(&other, "linux/arm64"), Entry::on(&own, "linux/amd64")];
        return match serve {
            "list" => (images::LIST, docker_list(&entries).bytes.to_vec()),
            "index" => (images::INDEX, oci_index(&entries).bytes.to_vec()),
            _ => panic!("{serve} has no children"),
        };
    }
    match serve {
        "schema1" => (images::SCHEMA1_SIGNED, images::schema1_payload(IMAGE)),
        "schema2" => (images::SCHEMA2, image.schema2().bytes.to_vec()),
        "oci" => (images::OCI, image.oci().bytes.to_vec()),
        "list" => (images::LIST, stored.bytes.to_vec()),
        "index" => (images::INDEX, stored.bytes.to_vec()),
        "artifact" => (images::OCI, stored.bytes.to_vec()),
        _ => panic!("{serve} is no format"),
    }
}

/// The children of a list or index, as documents of this type.
fn children(content_type: &str) -> [Document; 2] {
    let images = [Image::buildkit("other", "arm64", Kind::Gzip, 1), Image::golden(IMAGE)];
    images.map(|image| if content_type == images::SCHEMA2 { image.schema2() } else { image.oci() })
}

/// The children that a derived parent names are there, in the parent's own family.
async fn check_children(gateway: &Gateway, client: &Client, parent: &str, context: &str) {
    for child in children(if parent == images::LIST { images::SCHEMA2 } else { images::OCI }) {
        let got = gateway.manifest(client, &format!("/v2/test/repo/manifests/{}", child.digest)).await;
        assert_eq!(
            (got.status, got.content_type(), got.text()),
            (200, child.content_type.as_str(), child.text().to_owned()),
            "{context}"
        );
    }
}

fn orders(lines: &[String]) -> [Vec<String>; 3] {
    let reversed = lines.iter().rev().cloned().collect();
    let mut rotated = lines.to_vec();
    rotated.rotate_left(lines.len() / 2);
    [lines.to_vec(), reversed, rotated]
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// One cell of the table, one order of the Accept lines.
async fn check(gateway: &Gateway, client: &Client, record: &Value, format: &str) {
    let name = record["id"].as_str().unwrap();
    let cell = &record["results"][format];
    let (_, document) = stored(format);
    let by_tag = gateway.manifest(client, TAGGED).await;
    let context = format!("{name}, stored {format}: {} {} {}", by_tag.status, by_tag.content_type(), by_tag.text());
    if cell["how"] == "error" {
        assert_eq!((by_tag.status, by_tag.error().0.as_str()), (406, "UNSUPPORTED"), "{context}");
        return;
    }
    assert_eq!(by_tag.status, 200, "{context}");
    assert_eq!(by_tag.header("vary"), Some("Accept, User-Agent"), "{context}");
    let (content_type, bytes) = promised(cell["serve"].as_str().unwrap(), cell["how"].as_str().unwrap(), &document);
    assert_eq!(by_tag.content_type(), content_type, "{context}");
    let body = if content_type == images::SCHEMA1_SIGNED { images::payload(&by_tag.body) } else { by_tag.body.clone() };
    assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&bytes), "{context}");
    if cell["how"] == "translate+children" {
        check_children(gateway, client, content_type, &context).await;
    }
    let by_digest = gateway.manifest(client, &format!("/v2/test/repo/manifests/{}", by_tag.digest())).await;
    assert_eq!(
        (by_digest.status, by_digest.content_type(), by_digest.digest(), by_digest.text()),
        (200, by_tag.content_type(), by_tag.digest(), by_tag.text()),
        "{context}, by digest"
    );
}

async fn check_every_client(format: &str) {
    let upstream = upstream_with(format).await;
    let gateway = Gateway::before(&upstream).await;
    for record in clients() {
        for accept in orders(&strings(&record["accept"])) {
            let user_agent = record["user_agent"].as_str().map(str::to_owned);
            check(&gateway, &Client { user_agent, accept }, &record, format).await;
        }
    }
}

fn clients() -> Vec<Value> {
    let records: Value = serde_json::from_str(include_str!("clients.json")).unwrap();
    records.as_array().unwrap().clone()
}

#[tokio::test]
async fn stored_schema_1_reaches_every_client_as_promised() {
    check_every_client("schema1").await;
}

#[tokio::test]
async fn stored_schema_2_reaches_every_client_as_promised() {
    check_every_client("schema2").await;
}

#[tokio::test]
async fn stored_oci_reaches_every_client_as_promised() {
    check_every_client("oci").await;
}

#[tokio::test]
async fn stored_lists_reach_every_client_as_promised() {
    check_every_client("list").await;
}

#[tokio::test]
async fn stored_indexes_reach_every_client_as_promised() {
    check_every_client("index").await;
}

#[tokio::test]
async fn stored_artifacts_reach_every_client_as_promised() {
    check_every_client("artifact").await;
}
