//! The conversion table is what a client gets: nine cells, by tag and by digest.

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
