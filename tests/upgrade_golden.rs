//! The upgrade of stored schema 1 against Docker 20.10 itself: of each document of `golden/upgrade` the same config, byte for
//! byte, or a refusal where Docker refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use schemabridge::image::digest::Digest;
use schemabridge::image::layer::{Compression, LayerFacts};
use schemabridge::image::manifest::{Content, Manifest};
use schemabridge::image::media_type::{self, Format};
use schemabridge::image::oci::ImageManifest;
use schemabridge::translate::{self, Derived, Learnt, Source, Untranslatable};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upgrade")
}

fn read(name: &str, kind: &str) -> Option<Vec<u8>> {
    fs::read(folder().join(format!("{name}.{kind}"))).ok()
}

fn stored(name: &str) -> Manifest {
    Manifest::parse(read(name, "schema1.json").unwrap().into()).unwrap()
}

fn learnt(name: &str) -> Learnt {
    let facts: BTreeMap<Digest, LayerFacts> = serde_json::from_slice(&read(name, "layers.json").unwrap()).unwrap();
    Learnt { facts, ..Learnt::default() }
}

fn upgraded(manifest: &Manifest, learnt: &Learnt, target: Format) -> Result<Derived, Untranslatable> {
    translate::upgrade_for(manifest, target).unwrap()(&Source {
        manifest,
        config: None,
        repository: &"upgrade".parse().unwrap(),
        tag: &"latest".parse().unwrap(),
        signing_key: None,
        learnt: Some(learnt),
    })
}

fn image(derived: &Derived) -> ImageManifest {
    let parsed = Manifest::parse(derived.bytes.clone()).unwrap();
    assert_eq!((parsed.digest(), parsed.format()), (&derived.digest, derived.format));
    match parsed.content() {
        Content::Image(image) => image.clone(),
        other => panic!("{other:?}"),
    }
}

fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        files.filter_map(|file| file.strip_suffix(".schema1.json").map(ToOwned::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn every_config_is_the_one_that_docker_makes() {
    let mut compared = 0;
    for name in names() {
        let Some(expected) = read(&name, "config.json") else { continue };
        let (manifest, learnt) = (stored(&name), learnt(&name));
        let schema2 = upgraded(&manifest, &learnt, Format::Schema2).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        let [config] = schema2.blobs.as_slice() else { panic!("{name}: {:?}", schema2.blobs) };
        assert_eq!(String::from_utf8_lossy(&config.bytes), String::from_utf8_lossy(&expected), "{name}");
        assert_eq!(config.digest, Digest::sha256(&expected), "{name}");
        let oci = upgraded(&manifest, &learnt, Format::Oci).unwrap();
        assert_eq!(oci.blobs, schema2.blobs, "{name}");
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}

/// Docker's words are its own, but they are about the same thing.
#[test]
fn what_docker_refuses_is_refused_before_any_layer_is_read() {
    let mut compared = 0;
    for name in names() {
        if read(&name, "refused").is_none() {
            continue;
        }
        let refusal = translate::layers_read(&stored(&name)).unwrap_err();
        let reason = match &refusal {
            Untranslatable::V1 { .. } => refusal.to_string(),
            other => panic!("{name}: {other}"),
        };
        for target in [Format::Schema2, Format::Oci] {
            assert_eq!(upgraded(&stored(&name), &learnt(&name), target), Err(refusal.clone()), "{name}: {reason}");
        }
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

/// Layers in the order of the config, with the types that their bytes have; one that is no gzip is not called so.
#[test]
fn layers_are_named_as_they_are() {
    for (name, types) in [
        ("classic", ["tar.gzip", "tar.gzip", "tar.gzip"].as_slice()),
        ("a-layer-is-a-plain-archive", &["tar", "tar.gzip"]),
        ("a-layer-twice", &["tar.gzip", "tar.gzip", "tar.gzip", "tar.gzip"]),
        ("all-are-throwaway", &[]),
    ] {
        let (manifest, learnt) = (stored(name), learnt(name));
        let Content::Schema1(schema1) = manifest.content() else { panic!("{name}") };
        for (target, config_type, prefix) in [
            (Format::Schema2, media_type::DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff."),
            (Format::Oci, media_type::OCI_CONFIG, "application/vnd.oci.image.layer.v1."),
        ] {
            let derived = upgraded(&manifest, &learnt, target).unwrap();
            let image = image(&derived);
            assert_eq!(image.config.media_type, config_type);
            assert_eq!(image.config.digest, derived.blobs[0].digest);
            assert_eq!(image.config.size, derived.blobs[0].bytes.len() as u64);
            let found: Vec<String> = image.layers.iter().map(|layer| layer.media_type.replace('+', ".")).collect();
            let expected: Vec<String> = types.iter().map(|kind| format!("{prefix}{kind}")).collect();
            assert_eq!(found, expected, "{name}");
            for layer in &image.layers {
                assert!(schema1.fs_layers.contains(&layer.digest), "{name}");
                assert_eq!(layer.size, learnt.facts[&layer.digest].size, "{name}");
            }
        }
    }
}

#[test]
fn a_layer_that_nobody_read_is_named() {
    let manifest = stored("classic");
    let refusal = upgraded(&manifest, &Learnt::default(), Format::Oci).unwrap_err();
    assert!(matches!(refusal, Untranslatable::LayerUnread { .. }), "{refusal}");
    let empty = stored("all-are-throwaway");
    assert!(upgraded(&empty, &Learnt::default(), Format::Oci).is_ok(), "it has none");
    assert!(translate::layers_read(&stored("empty-layers-without-throwaway")).unwrap().len() == 1, "one is known");
}

/// Docker's types have no zstd that its old engines read; the OCI's have.
#[test]
fn a_zstd_layer_of_schema_1_is_only_said_where_it_can_be() {
    let (manifest, mut learnt) = (stored("one-entry"), learnt("one-entry"));
    for facts in learnt.facts.values_mut() {
        facts.compression = Compression::Zstd;
    }
    let refusal = upgraded(&manifest, &learnt, Format::Schema2).unwrap_err().to_string();
    assert!(refusal.contains("zstd"), "{refusal}");
    let oci = image(&upgraded(&manifest, &learnt, Format::Oci).unwrap());
    assert_eq!(oci.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
}

#[test]
fn nothing_but_schema_1_is_upgraded() {
    let config = Digest::sha256(b"{}");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","size":2,"digest":"{config}"}},"layers":[]}}"#,
        media_type::SCHEMA2,
        media_type::DOCKER_CONFIG
    );
    let schema2 = Manifest::parse(text.into()).unwrap();
    for target in Format::ALL {
        assert!(translate::upgrade_for(&schema2, target).is_none(), "{target}");
        let is_upgrade = matches!(target, Format::Schema2 | Format::Oci);
        assert_eq!(translate::upgrade_for(&stored("classic"), target).is_some(), is_upgrade, "{target}");
    }
}
