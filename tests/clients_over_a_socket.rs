//! Every known client gets, for every stored format, the document that the conformance table promises it: over a socket,
//! as HEAD and as GET, whatever the order of its Accept lines, and again by the digest that it was told.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, Image, Kind};
use crate::support::upstream::Upstream;

/// The image whose schema 1 form docker-registry 2.8.2 made for this repository and tag.
const IMAGE: &str = "single-layer";
const TAGGED: &str = "/v2/test/repo/manifests/tag-1";

/// The cells that need a list made of an index, or the other way round. Until that is built, these clients are given one
/// platform's image.
const WITHOUT_LIST_AND_INDEX_TRANSLATION: [(&str, &str); 8] = [
    ("docker-1.10.3", "index"),
    ("docker-1.11.2", "index"),
    ("docker-1.13.1", "index"),
    ("docker-17.03.2-ce", "index"),
    ("docker-17.12.1-ce", "index"),
    ("docker-18.03.1-ce", "index"),
    ("docker-19.03.4", "index"),
    ("script-oci-only", "list"),
];

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
    for child in [image.schema2(), image.oci(), Image::buildkit("other", "arm64", Kind::Gzip, 1).schema2()] {
        let is_child = document.text().contains(&child.digest);
        if is_child {
            upstream.put("test/repo", None, &child);
        }
    }
    upstream
}

/// The type and the bytes that a cell of the table promises; of schema 1 the signed part.
fn promised(serve: &str, stored: &Document) -> (&'static str, Vec<u8>) {
    let image = Image::golden(IMAGE);
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
    if WITHOUT_LIST_AND_INDEX_TRANSLATION.contains(&(name, format)) {
        let image = Image::golden(IMAGE);
        let readable = if name == "script-oci-only" { image.oci() } else { image.schema2() };
        assert_eq!(
            (by_tag.content_type(), by_tag.digest()),
            (readable.content_type.as_str(), readable.digest.as_str()),
            "{context}"
        );
    } else {
        let (content_type, bytes) = promised(cell["serve"].as_str().unwrap(), &document);
        assert_eq!(by_tag.content_type(), content_type, "{context}");
        let body =
            if content_type == images::SCHEMA1_SIGNED { images::payload(&by_tag.body) } else { by_tag.body.clone() };
        assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&bytes), "{context}");
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

#[test]
fn the_lenient_cells_are_exactly_those_that_need_a_list_made_of_an_index_or_the_other_way_round() {
    let mut lenient = Vec::new();
    for record in clients() {
        for (format, cell) in record["results"].as_object().unwrap() {
            if cell["how"] == "translate+children" {
                lenient.push((record["id"].as_str().unwrap().to_owned(), format.clone()));
            }
        }
    }
    let named: Vec<_> = WITHOUT_LIST_AND_INDEX_TRANSLATION
        .iter()
        .map(|(id, format)| ((*id).to_owned(), (*format).to_owned()))
        .collect();
    assert_eq!(lenient, named);
}
