//! The conversion table of README is what the code has and what a client gets: nine cells, by tag and by digest.

use schemabridge::image::media_type::Format;
use schemabridge::translate;

use crate::support::client::{Client, Reply};
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, Image};
use crate::support::upstream::Upstream;

const IMAGE: &str = "buildkit-healthcheck-shell";
const TAGGED: &str = "/v2/test/repo/manifests/tag-1";

struct Cell {
    upstream: Upstream,
    gateway: Gateway,
    stored: Document,
}

impl Cell {
    async fn with(stored: Document) -> Self {
        let upstream = Upstream::start().await;
        upstream.put_image("test/repo", "tag-1", &Image::golden(IMAGE), &stored);
        let gateway = Gateway::before(&upstream).await;
        Self { upstream, gateway, stored }
    }

    async fn by_tag(&self, reads: &str) -> Reply {
        self.gateway.manifest(&Client::only(reads), TAGGED).await
    }

    /// Every client, whatever it reads, gets under the stored digest what is stored.
    async fn by_digest_as_stored(&self) {
        let target = format!("/v2/test/repo/manifests/{}", self.stored.digest);
        for reads in [images::SCHEMA1_SIGNED, images::SCHEMA2, images::OCI] {
            let got = self.gateway.manifest(&Client::only(reads), &target).await;
            assert_eq!(
                (got.status, got.content_type(), &got.body[..]),
                (200, self.stored.content_type.as_str(), &self.stored.bytes[..])
            );
        }
    }

    async fn as_stored(&self, reads: &str) {
        let got = self.by_tag(reads).await;
        assert_eq!(
            (got.status, got.content_type(), &got.body[..]),
            (200, self.stored.content_type.as_str(), &self.stored.bytes[..])
        );
        assert_eq!(got.header("schemabridge-translation"), None);
        self.by_digest_as_stored().await;
    }

    async fn translated(&self, reads: &str, expected: &[u8], translation: &str) {
        let got = self.by_tag(reads).await;
        assert_eq!((got.status, got.content_type()), (200, reads), "{}", got.text());
        let body = if reads == images::SCHEMA1_SIGNED { images::payload(&got.body) } else { got.body.clone() };
        assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(expected));
        assert_eq!(got.header("schemabridge-translation"), Some(translation));
        assert_eq!(got.header("schemabridge-source-digest"), Some(self.stored.digest.as_str()));
        assert_eq!(got.header("schemabridge-source-type"), Some(self.stored.content_type.as_str()));
        assert_eq!(got.header("oci-subject"), None);
        self.by_digest_as_stored().await;

        self.upstream.forget();
        let again = self.gateway.manifest(&Client::curl(), &format!("/v2/test/repo/manifests/{}", got.digest())).await;
        assert_eq!(
            (again.status, again.content_type(), again.digest(), &again.body),
            (200, reads, got.digest(), &got.body)
        );
    }
}

#[tokio::test]
async fn schema_1_is_read_as_stored() {
    Cell::with(images::schema1_signed(IMAGE)).await.as_stored(images::SCHEMA1_SIGNED).await;
}

#[tokio::test]
async fn schema_2_is_translated_to_schema_1() {
    let cell = Cell::with(Image::golden(IMAGE).schema2()).await;
    cell.translated(images::SCHEMA1_SIGNED, &images::schema1_payload(IMAGE), "schema2 -> schema1").await;
}

#[tokio::test]
async fn oci_is_translated_to_schema_1() {
    let cell = Cell::with(Image::golden(IMAGE).oci()).await;
    cell.translated(images::SCHEMA1_SIGNED, &images::schema1_payload(IMAGE), "oci -> schema1").await;
}

#[tokio::test]
async fn a_reader_of_schema_2_falls_back_to_stored_schema_1() {
    Cell::with(images::schema1_signed(IMAGE)).await.as_stored(images::SCHEMA2).await;
}

#[tokio::test]
async fn schema_2_is_read_as_stored() {
    Cell::with(Image::golden(IMAGE).schema2()).await.as_stored(images::SCHEMA2).await;
}

#[tokio::test]
async fn oci_is_translated_to_schema_2() {
    let cell = Cell::with(Image::golden(IMAGE).oci()).await;
    cell.translated(images::SCHEMA2, &Image::golden(IMAGE).schema2().bytes, "oci -> schema2").await;
}

#[tokio::test]
async fn there_is_no_translation_of_schema_1_to_oci() {
    let cell = Cell::with(images::schema1_signed(IMAGE)).await;
    let refused = cell.by_tag(images::OCI).await;
    let (code, message) = refused.error();
    assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"));
    assert!(message.contains("schema 1") && message.contains("OCI"), "{message}");
    assert_eq!(
        (refused.header("cache-control"), refused.header("vary")),
        (Some("no-store"), Some("Accept, User-Agent"))
    );
    cell.by_digest_as_stored().await;
}

#[tokio::test]
async fn schema_2_is_translated_to_oci() {
    let cell = Cell::with(Image::golden(IMAGE).schema2()).await;
    cell.translated(images::OCI, &Image::golden(IMAGE).oci().bytes, "schema2 -> oci").await;
}

#[tokio::test]
async fn oci_is_read_as_stored() {
    Cell::with(Image::golden(IMAGE).oci()).await.as_stored(images::OCI).await;
}

/// The three formats of the table, by the word that its heads hold.
fn format_in(head: &str) -> Format {
    let words = [("schema 1", Format::Schema1), ("schema 2", Format::Schema2), ("OCI", Format::Oci)];
    let found = words.into_iter().find(|(word, _)| head.contains(word));
    found.unwrap_or_else(|| panic!("no format in the table's head `{head}`")).1
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().replace(['*', '`'], "")).collect()
}

#[test]
fn the_readme_shows_the_table_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let mut lines = readme.lines().skip_while(|line| !line.contains("client reads"));
    let columns: Vec<Format> =
        cells(lines.next().expect("a table with `client reads`")).iter().skip(1).map(|head| format_in(head)).collect();
    assert_eq!(columns, [Format::Schema1, Format::Schema2, Format::Oci]);
    let rows: Vec<Vec<String>> = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let reads = format_in(&row[0]);
        for (&stored, says) in columns.iter().zip(&row[1..]) {
            let (is_as_stored, is_translated) = (says.starts_with("as stored"), says.starts_with("translated to"));
            assert_eq!(is_as_stored, stored == reads, "reads {reads}, stored {stored}: {says}");
            assert_eq!(
                is_translated,
                translate::cell(stored, reads).is_some(),
                "reads {reads}, stored {stored}: {says}"
            );
            assert!(!is_translated || format_in(says) == reads, "reads {reads}, stored {stored}: {says}");
            assert!(is_as_stored || is_translated || says.starts_with("no translation"), "{says}");
        }
    }
}
