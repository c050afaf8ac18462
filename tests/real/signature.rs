//! The gateway's signature, judged by docker-registry: it takes a signed schema 1, and refuses it with one byte changed.

use crate::{
    documents::{self, PRETTYJWS},
    http,
    images::{self, Blob, Twin},
    registries::{Gateway, Registry},
};

/// The gzip of the empty tar (1,024 NULs) that stands for "no change" in schema 1.
const EMPTY_LAYER: [u8; 32] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x09, 0x6e, 0x88, 0x00, 0xff, 0x62, 0x18, 0x05, 0xa3, 0x60, 0x14, 0x8c, 0x58, 0x00,
    0x08, 0x00, 0x00, 0xff, 0xff, 0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00,
];

pub const REPOSITORY: &str = "test/signed";
pub const TAG: &str = "tag-1";

/// The schema 1 that a gateway makes of the runnable image, and a registry that holds every blob it names.
pub fn signed_document_and_its_judge() -> (Vec<u8>, Registry) {
    let image = images::runnable();
    let source = Registry::docker_registry();
    source.push(&image, Twin::Oci, REPOSITORY, TAG);
    let gateway = Gateway::start(&source);
    let answer = http::ask_as_docker_1_9(gateway.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
    documents::schema1_of(&answer, "the runnable image");

    let judge = Registry::docker_registry_with_schema1();
    for blob in image.layers.iter().cloned().chain([Blob::new(EMPTY_LAYER)]) {
        judge.push_blob(REPOSITORY, &blob);
    }
    (answer.body, judge)
}

#[test]
fn docker_registry_takes_the_signed_schema_1() {
    let (document, judge) = signed_document_and_its_judge();
    let answer = judge.put_manifest(REPOSITORY, TAG, PRETTYJWS, &document);
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[test]
fn docker_registry_refuses_it_with_one_byte_changed() {
    let (document, judge) = signed_document_and_its_judge();
    for (what, part) in [("the payload", &b"\"architecture\": \"am"[..]), ("the signature", &b"\"signature\": \""[..])]
    {
        let at = http::find(&document, part).unwrap_or_else(|| panic!("{what} is not where it should be")) + part.len();
        let mut changed = document.clone();
        changed[at] = if changed[at] == b'n' { b'm' } else { b'n' };
        let answer = judge.put_manifest(REPOSITORY, TAG, PRETTYJWS, &changed);
        assert_eq!(answer.status, 400, "with one byte of {what} changed: {}", answer.text());
    }
}
