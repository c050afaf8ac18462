//! The schema 1 of the golden inputs is, byte for byte, what docker-registry 2.8 made of them (`golden/make.py`).

use std::path::{Path, PathBuf};

use bytes::Bytes;
use schemabridge::{
    image::{
        digest::Digest, manifest::Content, manifest::Manifest, media_type::Format, reference::Repository,
        reference::Tag,
    },
    translate::{self, Derived, SigningKey, Source, Untranslatable},
};

/// docker-registry translates these, but not as it should; the tests against the real one say what the difference is.
const TRANSLATED_WRONGLY: [&str; 4] =
    ["history-too-short", "stray-keys", "stray-keys-unicode-case", "created-unreadable"];

fn file(folder: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder).join(name)
}

/// The names of the golden files of one kind: those in `schema1` that end so.
fn names(ending: &str) -> Vec<String> {
    let files = std::fs::read_dir(file("schema1", "")).unwrap();
    let names = files.filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(ending)?.to_owned()));
    let mut names = names.collect::<Vec<_>>();
    names.sort();
    names
}

/// The two manifests over one config and one list of layers: as the golden input has it, and its OCI twin.
fn twins(name: &str) -> [Manifest; 2] {
    let schema2 = std::fs::read_to_string(file("inputs", &format!("{name}.manifest.json"))).unwrap();
    let oci = schema2
        .replace("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json")
        .replace("application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json")
        .replace("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip");
    let manifests = [schema2, oci].map(|text| Manifest::parse(Bytes::from(text)).unwrap());
    assert_eq!(manifests.each_ref().map(Manifest::format), [Format::Schema2, Format::Oci]);
    manifests
}

fn schema1(manifest: &Manifest, name: &str) -> Result<Derived, Untranslatable> {
    let config = std::fs::read(file("inputs", &format!("{name}.config.json"))).unwrap();
    let (repository, tag): (Repository, Tag) = ("test/repo".parse().unwrap(), "tag-1".parse().unwrap());
    let signing_key = SigningKey::generate([7; 32]).unwrap();
    let source = Source {
        manifest,
        config: Some(&config),
        repository: &repository,
        tag: &tag,
        signing_key: Some(&signing_key),
        learnt: None,
    };
    translate::cell(manifest.format(), Format::Schema1).expect("the table has this cell")(&source)
}

/// What the digest of a signed document is of.
fn payload(signed: &Bytes) -> Bytes {
    let manifest = Manifest::parse(signed.clone()).unwrap();
    match manifest.content() {
        Content::Schema1(document) => document.payload().clone(),
        _ => panic!("this is {}", manifest.format()),
    }
}

#[test]
fn schema_1_of_both_twins_is_what_docker_registry_made() {
    let names = names(".payload");
    assert!(names.len() > 40, "the golden files are missing");
    for name in names.iter().filter(|name| !TRANSLATED_WRONGLY.contains(&name.as_str())) {
        let expected = std::fs::read(file("schema1", &format!("{name}.payload"))).unwrap();
        for manifest in twins(name) {
            let stored = manifest.format();
            let derived = schema1(&manifest, name).unwrap_or_else(|fault| panic!("{name} stored as {stored}: {fault}"));
            assert_eq!(
                String::from_utf8_lossy(&payload(&derived.bytes)),
                String::from_utf8_lossy(&expected),
                "{name} stored as {stored}"
            );
            assert!(
                payload(&derived.bytes) == expected,
                "{name} stored as {stored}: the bytes differ, though not as text"
            );
            assert_eq!(derived.digest, Digest::sha256(&expected), "{name} stored as {stored}");
            assert_eq!(derived.format, Format::Schema1);
        }
    }
}

#[test]
fn both_twins_give_one_schema_1_where_docker_registry_gives_none_or_another() {
    for name in names(".refused").iter().map(String::as_str).chain(TRANSLATED_WRONGLY) {
        let [schema2, oci] = twins(name);
        assert_eq!(schema1(&schema2, name), schema1(&oci, name), "{name}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_and_nothing_else() {
    const CONTRADICTORY: [&str; 5] =
        ["config-is-a-list", "diff-ids-missing-one", "diff-ids-one-too-many", "history-too-long", "no-rootfs"];
    for name in names(".refused").iter().map(String::as_str).chain(TRANSLATED_WRONGLY) {
        for manifest in twins(name) {
            let outcome = schema1(&manifest, name);
            assert_eq!(outcome.is_err(), CONTRADICTORY.contains(&name), "{name}: {outcome:?}");
        }
    }
}

#[test]
fn a_short_history_loses_no_layer() {
    for manifest in twins("history-too-short") {
        let derived = schema1(&manifest, "history-too-short").unwrap();
        let document: serde_json::Value = serde_json::from_slice(&derived.bytes).unwrap();
        assert_eq!(document["fsLayers"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn documents_that_docker_registry_signed_are_read() {
    for name in names(".signed") {
        let signed = Bytes::from(std::fs::read(file("schema1", &format!("{name}.signed"))).unwrap());
        let manifest = Manifest::parse(signed.clone()).unwrap_or_else(|fault| panic!("{name} {fault}"));
        assert_eq!(manifest.format(), Format::Schema1);
        let expected = std::fs::read(file("schema1", &format!("{name}.payload"))).unwrap();
        assert!(payload(&signed) == expected, "{name}");
        assert_eq!(*manifest.digest(), Digest::sha256(&expected), "{name}");
        let key = SigningKey::generate([7; 32]).unwrap();
        assert!(translate::signed(&manifest, &key) == signed, "{name}: a stored signature is never replaced");
    }
}
