//! Derived documents, byte for byte, against what other programs made of the same input.

use std::fs;
use std::path::PathBuf;

use schemabridge::image::digest::Digest;
use schemabridge::image::manifest::{Content, Manifest};
use schemabridge::image::media_type::{self, Format};
use schemabridge::image::schema1::Schema1;
use schemabridge::translate::{SigningKey, Source, Untranslatable, cell, signed};

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn golden(path: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("tests/golden").join(path)).unwrap()
}

fn golden_text(path: &str) -> String {
    String::from_utf8(golden(path)).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_pem(&golden_text("signature/key.sec1.pem")).unwrap()
}

fn schema1_of(manifest: &Manifest) -> &Schema1 {
    match manifest.content() {
        Content::Schema1(schema1) => schema1,
        other => panic!("not a schema 1: {other:?}"),
    }
}

/// The schema 1 of a vector's config and layers, stored as schema 2 or, in OCI types, as an OCI manifest.
fn derive(name: &str, stored: Format) -> Result<Manifest, Untranslatable> {
    let config = golden(&format!("distribution/in/{name}.config.json"));
    let layers = golden_text(&format!("distribution/in/{name}.manifest.json"));
    let layers = layers.strip_prefix('{').unwrap();
    let oci = stored == Format::Oci;
    let layers = if oci { layers.replace(DOCKER_LAYER, OCI_LAYER) } else { layers.to_owned() };
    let config_type = if oci { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG };
    let (digest, size, media_type) = (Digest::sha256(&config), config.len(), stored.media_type());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"{config_type}","size":{size},"digest":"{digest}"}},{layers}"#
    );
    let manifest = Manifest::parse(manifest.into()).unwrap();
    let source = Source {
        manifest: &manifest,
        config: Some(&config),
        repository: &"test/repo".parse().unwrap(),
        tag: &"tag-1".parse().unwrap(),
        signing_key: Some(&key()),
        learnt: None,
    };
    let derived = cell(stored, Format::Schema1).unwrap()(&source)?;
    let parsed = Manifest::parse(derived.bytes).unwrap();
    assert_eq!((parsed.digest(), parsed.format()), (&derived.digest, Format::Schema1));
    Ok(parsed)
}

#[test]
fn schema1_is_what_distribution_makes_whichever_family_is_stored() {
    let vectors =
        fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/distribution/out")).unwrap();
    let names = vectors.filter_map(|entry| {
        entry.unwrap().file_name().into_string().unwrap().strip_suffix(".payload").map(ToOwned::to_owned)
    });
    let mut compared = 0;
    for name in names {
        let expected = golden(&format!("distribution/out/{name}.payload"));
        for stored in [Format::Schema2, Format::Oci] {
            let derived = derive(&name, stored).unwrap();
            assert_eq!(schema1_of(&derived).payload(), &expected, "{name} stored as {stored}");
            compared += 1;
        }
    }
    assert_eq!(compared, 28, "fourteen vectors, two families");
}

#[test]
fn what_distribution_signed_is_read_back_to_its_payload() {
    for name in ["all-empty-history", "html-escape", "whitespace-unsorted", "no-architecture"] {
        let stored = Manifest::parse(golden(&format!("distribution/out/{name}.signed")).into()).unwrap();
        let payload = golden(&format!("distribution/out/{name}.payload"));
        assert_eq!((stored.format(), stored.media_type()), (Format::Schema1, media_type::SCHEMA1_SIGNED));
        assert_eq!(
            (schema1_of(&stored).payload(), stored.digest()),
            (&payload.clone().into(), &Digest::sha256(&payload))
        );
        assert!(schema1_of(&stored).is_signed());
        assert_eq!(signed(&stored, &key()), stored.bytes(), "a stored signature is never replaced");
        let unsigned = Manifest::parse(payload.into()).unwrap();
        assert_eq!(unsigned.digest(), stored.digest());
        assert!(!schema1_of(&unsigned).is_signed());
    }
}

/// distribution refuses these, or panics; ours completes what can be completed and refuses the rest with the reason.
#[test]
fn where_distribution_fails() {
    let refused = |name: &str| derive(name, Format::Schema2).unwrap_err();
    assert_eq!(refused("err-no-rootfs"), Untranslatable::NoRootfs);
    assert_eq!(refused("err-artifact-empty-config"), Untranslatable::NoRootfs);
    assert_eq!(refused("err-diffid-mismatch"), Untranslatable::DiffIds { diff_ids: 2, layers: 1 });
    assert_eq!(refused("err-too-many-nonempty"), Untranslatable::History { steps: 2, layers: 1 });
    for name in ["err-empty-history", "err-no-history", "err-bad-created"] {
        let derived = derive(name, Format::Schema2).unwrap();
        let schema1 = schema1_of(&derived);
        assert_eq!((schema1.fs_layers.len(), schema1.history.len()), (1, 1), "{name}");
        assert!(!schema1.history.iter().any(|entry| entry.contains("throwaway")), "{name}");
    }
}

/// Expected bodies from `signature/make.py`, which signs with OpenSSL through Python's `cryptography`.
#[test]
fn signatures_are_those_of_an_independent_signer() {
    let derived = derive("single-layer", Format::Schema2).unwrap();
    assert_eq!(derived.bytes(), &golden("signature/derived.signed"));
    for name in ["compact", "newline", "pretty"] {
        let unsigned = Manifest::parse(golden(&format!("signature/{name}.unsigned")).into()).unwrap();
        let body = signed(&unsigned, &key());
        assert_eq!(body, golden(&format!("signature/{name}.signed")), "{name}");
        let parsed = Manifest::parse(body).unwrap();
        assert_eq!((parsed.digest(), schema1_of(&parsed).payload()), (unsigned.digest(), unsigned.bytes()), "{name}");
    }
}

#[test]
fn keys_are_read_in_the_forms_that_openssl_and_libtrust_write() {
    let [sec1, pkcs8, id] =
        ["key.sec1.pem", "key.pkcs8.pem", "key.id"].map(|name| golden_text(&format!("signature/{name}")));
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let libtrust = sec1.replacen("-----\n", &format!("-----\nkeyID: {id}\n\n"), 1);
    for pem in [&sec1, &pkcs8, &format!("{parameters}{sec1}"), &libtrust, &sec1.replace('\n', "\r\n")] {
        let key = SigningKey::from_pem(pem).unwrap();
        assert_eq!((key.key_id(), key.to_pem()), (id.as_str(), pkcs8.clone()), "{pem}");
        assert_eq!(format!("{key:?}"), format!("SigningKey {{ key_id: \"{id}\", .. }}"));
    }
}
