//! The cells, one rule each. Expected documents are written out by hand from Docker's and the OCI's specifications;
//! whole schema 1 documents of other programs are compared in the crate's integration tests.

use super::*;
use crate::image::json::{self, Dialect};
use crate::image::media_type;

const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
/// `printf '' | sha256sum`
const BLOB: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An image in its two documents.
struct Stored {
    manifest: Manifest,
    config: Vec<u8>,
}

fn descriptor(media_type: &str, rest: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{BLOB}","size":5{rest}}}"#)
}

/// An image of this format, config type and config, with layers of these types.
fn stored(format: Format, config_type: &str, config: &str, layers: &[&str]) -> Stored {
    let layers = json::array(layers.iter().map(|media_type| descriptor(media_type, "")));
    stored_with(format, config_type, config, &layers)
}

fn stored_with(format: Format, config_type: &str, config: impl AsRef<[u8]>, layers: &str) -> Stored {
    let config = config.as_ref();
    let (digest, size) = (Digest::sha256(config), config.len());
    let document = format!(
        r#"{{"annotations":{{"z":"<&>","a":"1"}},"schemaVersion":2,"mediaType":"{}","unknown":[1],"config":{{"mediaType":"{config_type}","annotations":{{"c":"d"}},"size":{size},"digest":"{digest}"}},"layers":{layers}}}"#,
        format.media_type(),
    );
    Stored { manifest: Manifest::parse(document.into()).unwrap(), config: config.to_vec() }
}

fn schema2(config: &str, layers: &[&str]) -> Stored {
    stored(Format::Schema2, media_type::DOCKER_CONFIG, config, layers)
}

fn oci(config: &str, layers: &[&str]) -> Stored {
    stored(Format::Oci, media_type::OCI_CONFIG, config, layers)
}

/// A config with this many layers and these further members.
fn config(layers: usize, more: &str) -> String {
    let diff_ids = json::array(vec![json::string(BLOB); layers]);
    format!(r#"{{{more}"rootfs":{{"type":"layers","diff_ids":{diff_ids}}}}}"#)
}

fn translate(stored: &Stored, target: Format) -> Result<Derived, Untranslatable> {
    translate_with(stored, target, Some(&stored.config))
}

fn translate_with(stored: &Stored, target: Format, config: Option<&[u8]>) -> Result<Derived, Untranslatable> {
    let source = Source {
        manifest: &stored.manifest,
        config,
        repository: &"a/b".parse().unwrap(),
        tag: &"t".parse().unwrap(),
        signing_key: Some(&SigningKey::generate([7; 32]).unwrap()),
        learnt: None,
    };
    cell_for(&stored.manifest, target).unwrap()(&source)
}

fn text(derived: &Derived) -> String {
    String::from_utf8(derived.bytes.to_vec()).unwrap()
}

fn refusal(stored: &Stored, target: Format) -> String {
    translate(stored, target).unwrap_err().to_string()
}

/// The `v1Compatibility` documents of a translated image, the topmost first.
fn history(stored: &Stored) -> Vec<String> {
    let derived = Manifest::parse(translate(stored, Format::Schema1).unwrap().bytes).unwrap();
    match derived.content() {
        Content::Schema1(schema1) => schema1.history.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn schema2_is_written_in_dockers_canonical_form() {
    let config = config(2, "");
    let layers = format!(
        "[{},{}]",
        descriptor(OCI_GZIP, r#","annotations":{"x":"y"},"platform":{"os":"linux"},"data":"aGVsbG8=""#),
        descriptor(OCI_FOREIGN, r#","urls":["https://x.test/?a=1&b=2","u"]"#)
    );
    let stored = stored_with(Format::Oci, media_type::OCI_CONFIG, &config, &layers);
    let expected = r#"{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
   "config": {
      "mediaType": "application/vnd.docker.container.image.v1+json",
      "size": CONFIG_SIZE,
      "digest": "CONFIG_DIGEST"
   },
   "layers": [
      {
         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
         "size": 5,
         "digest": "BLOB"
      },
      {
         "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
         "size": 5,
         "digest": "BLOB",
         "urls": [
            "https://x.test/?a=1\u0026b=2",
            "u"
         ]
      }
   ]
}"#;
    let expected = expected
        .replace("CONFIG_SIZE", &config.len().to_string())
        .replace("CONFIG_DIGEST", Digest::sha256(config.as_bytes()).as_str())
        .replace("BLOB", BLOB);
    let derived = translate(&stored, Format::Schema2).unwrap();
    assert_eq!(text(&derived), expected);
    assert_eq!((derived.digest, derived.format), (Digest::sha256(expected.as_bytes()), Format::Schema2));
}

#[test]
fn oci_is_written_compactly_with_its_annotations() {
    let config = config(2, "");
    let layers = format!(
        "[{},{}]",
        descriptor(DOCKER_FOREIGN, r#","urls":["u"],"annotations":{"y":"2","x":"1"}"#),
        descriptor("application/vnd.docker.image.rootfs.diff.tar.zstd", "")
    );
    let stored = stored_with(Format::Schema2, media_type::DOCKER_CONFIG, &config, &layers);
    let (digest, size) = (Digest::sha256(config.as_bytes()), config.len());
    let expected = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size},"annotations":{{"c":"d"}}}},"layers":[{{"mediaType":"{OCI_FOREIGN}","digest":"{BLOB}","size":5,"urls":["u"],"annotations":{{"x":"1","y":"2"}}}},{{"mediaType":"{OCI_ZSTD}","digest":"{BLOB}","size":5}}],"annotations":{{"a":"1","z":"\u003c\u0026\u003e"}}}}"#
    );
    let derived = translate(&stored, Format::Oci).unwrap();
    assert_eq!(text(&derived), expected);
    assert_eq!((derived.digest, derived.format), (Digest::sha256(expected.as_bytes()), Format::Oci));
}

#[test]
fn hybrids_are_normalised() {
    let mixed = [DOCKER_GZIP, OCI_GZIP, "application/vnd.docker.image.rootfs.diff.tar"];
    let config = config(3, "");
    let from_oci = stored(Format::Oci, media_type::DOCKER_CONFIG, &config, &mixed);
    let from_schema2 = stored(Format::Schema2, media_type::OCI_CONFIG, &config, &mixed);
    assert_eq!(from_schema2.manifest.counts_as(), Format::Oci);
    let docker = translate(&from_oci, Format::Schema2).unwrap();
    assert_eq!(docker, translate(&from_schema2, Format::Schema2).unwrap());
    assert!(!text(&docker).contains("oci"));
    assert!(!text(&translate(&from_schema2, Format::Oci).unwrap()).contains("docker"));
}

#[test]
fn a_layer_that_nobody_knows_passes_only_into_oci() {
    let odd = schema2(&config(1, ""), &["application/x-odd"]);
    assert!(text(&translate(&odd, Format::Oci).unwrap()).contains("application/x-odd"));
    assert_eq!(
        refusal(&odd, Format::Schema1),
        "layer 1 has the media type `application/x-odd`, which schema 1 has no word for"
    );
    let odd = oci(&config(1, ""), &["application/x-odd"]);
    assert_eq!(
        refusal(&odd, Format::Schema2),
        "layer 1 has the media type `application/x-odd`, which schema 2 has no word for"
    );
}

#[test]
fn layers_that_cannot_be_said_are_refused_with_the_reason() {
    let zstd = oci(&config(3, ""), &[OCI_GZIP, OCI_GZIP, OCI_ZSTD]);
    assert_eq!(refusal(&zstd, Format::Schema1), "layer 3 is compressed with zstd, which schema 1 clients cannot read");
    assert_eq!(refusal(&zstd, Format::Schema2), "layer 3 is compressed with zstd, which schema 2 clients cannot read");
    let foreign = "layer 1 is foreign: it comes from elsewhere than the registry, which schema 1 cannot say";
    assert_eq!(refusal(&schema2(&config(1, ""), &[DOCKER_FOREIGN]), Format::Schema1), foreign);
    assert_eq!(refusal(&oci(&config(1, ""), &[OCI_FOREIGN]), Format::Schema1), foreign);
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    for (layer, reason) in [
        (encrypted, "layer 1 is encrypted; only the stored document can be pulled"),
        (
            "application/vnd.in-toto+json",
            "layer 1 is an in-toto statement, so the manifest is an attestation and not an image",
        ),
    ] {
        for target in [Format::Schema1, Format::Schema2] {
            assert_eq!(refusal(&oci(&config(1, ""), &[layer]), target), reason);
        }
        for target in [Format::Schema1, Format::Oci] {
            assert_eq!(refusal(&schema2(&config(1, ""), &[layer]), target), reason);
        }
    }
}

#[test]
fn a_config_is_asked_for_where_it_is_needed_and_must_be_the_one_named() {
    let plain = oci(&config(0, ""), &[]);
    let loose = |config: &str| stored(Format::Schema2, "application/octet-stream", config, &[]);
    for (stored, target, needed) in [
        (&plain, Format::Schema1, true),
        (&plain, Format::Schema2, false),
        (&loose(&config(0, "")), Format::Schema1, true),
        (&loose(&config(0, "")), Format::Oci, true),
    ] {
        assert_eq!(config_needed(&stored.manifest, target), needed);
        assert_eq!(translate_with(stored, target, None).err(), needed.then_some(Untranslatable::ConfigMissing));
    }
    let other = translate_with(&plain, Format::Schema1, Some(b"{}"));
    assert!(matches!(other, Err(Untranslatable::ConfigMismatch { .. })));
    assert!(text(&translate(&loose(&config(0, "")), Format::Oci).unwrap()).contains(media_type::OCI_CONFIG));
    assert_eq!(translate(&loose("{}"), Format::Oci), Err(Untranslatable::NoRootfs));
    assert!(refusal(&loose("MZ"), Format::Oci).starts_with("its config is not JSON at byte 0"));
    assert_eq!(
        refusal(&oci(r#"{"history":7}"#, &[]), Format::Schema1),
        "its config has no valid `history`: expected an array of objects"
    );
}

#[test]
fn every_layer_gets_a_history() {
    let untold = config(2, r#""created":"2020-01-02T03:04:05.10+01:00","#);
    let entries = history(&oci(&untold, &[OCI_GZIP, OCI_GZIP]));
    assert_eq!(entries.len(), 2);
    let end = r#""created":"2020-01-02T03:04:05.1+01:00","container_config":{"Cmd":[""]}}"#;
    assert!(entries[1].ends_with(end), "{}", entries[1]);

    let short = config(3, r#""history":[{"created_by":"a"},{"created_by":"b","empty_layer":true}],"#);
    let entries = history(&oci(&short, &[OCI_GZIP, OCI_GZIP, OCI_GZIP]));
    let throwaway: Vec<bool> = entries.iter().map(|entry| entry.contains("throwaway")).collect();
    assert_eq!(throwaway, [false, false, true, false], "the topmost first");
    assert!(entries[3].contains(r#"{"Cmd":["a"]}"#));
    assert!(entries[1].contains(r#""created":"0001-01-01T00:00:00Z","container_config":{"Cmd":[""]}"#));

    let nothing = history(&oci(&config(0, ""), &[]));
    assert_eq!(nothing.len(), 1);
    assert!(nothing[0].ends_with(r#","throwaway":true}"#), "{}", nothing[0]);
}

#[test]
fn what_the_config_and_the_manifest_disagree_on_is_refused() {
    assert_eq!(
        refusal(&oci(&config(1, ""), &[OCI_GZIP, OCI_GZIP]), Format::Schema1),
        "its config names 1 layers, but the manifest has 2"
    );
    assert_eq!(
        refusal(&oci(&config(1, r#""history":[{},{},{}],"#), &[OCI_GZIP]), Format::Schema1),
        "its history tells of 3 layers, but the manifest has 1"
    );
    assert_eq!(refusal(&oci("{}", &[]), Format::Schema1), "its config has no `rootfs`, so it is not an image's");
}

#[test]
fn stray_keys_and_unreadable_times_stay_out_of_the_topmost_entry() {
    let stray = r#""id":"x","ID":7,"Parent":"p","parent":"q","PARENT_ID":1,"layer_id":1,"Throwaway":true,"Size":0,"\u017fize":1,"History":[],"created":"","Created":7,"kept":1,"#;
    let entry = &history(&schema2(&config(1, stray), &[DOCKER_GZIP]))[0];
    let top = json::scan(entry.as_bytes(), 4096, Dialect::Strict).unwrap().object().unwrap();
    let keys: Vec<&str> = top.members().iter().map(|(key, _)| key.as_ref()).collect();
    assert_eq!(keys, ["History", "id", "kept"]);
    assert_ne!(top.value("id").unwrap().as_bytes(), b"\"x\"");
    let null = &history(&schema2(&config(1, r#""created":null,"#), &[DOCKER_GZIP]))[0];
    assert!(null.contains(r#""created":null"#));
}

/// Expected texts from docker-registry 2.8.2. Only values that it copies unread still hold such bytes when the entry is
/// put into its string, and are escaped there.
#[test]
fn bytes_that_are_not_utf_8_are_written_as_distribution_writes_them() {
    let config = [
        b"{\"history\":[{\"author\":\"\xe2\x82\\ud800\"},{}],".as_slice(),
        b"\"\xff\":0,\"\xfe\":[\"\xf0\x9f <\", \"\xef\xbf\xbd\\ud800\"],",
        format!(r#""rootfs":{{"type":"layers","diff_ids":["{BLOB}","{BLOB}"]}}}}"#).as_bytes(),
    ]
    .concat();
    let layers = json::array([descriptor(DOCKER_GZIP, ""), descriptor(DOCKER_GZIP, "")]);
    let stored = stored_with(Format::Schema2, media_type::DOCKER_CONFIG, &config, &layers);
    let text = text(&translate(&stored, Format::Schema1).unwrap());
    for entry in [
        r#""{\"id\":\"a1ed9ab15871bd4ef64139b2a576d8a45b3935740eca1f4259606ef24ac7cee5\",\"parent\":\"543c7c06988fa6d82726d34b7cb6bcc7515dd998b88c08b2b02c867b6b28c4a4\",\"?\":[\"\ufffd\ufffd \\u003c\",\"?\\ud800\"]}""#,
        r#""{\"id\":\"543c7c06988fa6d82726d34b7cb6bcc7515dd998b88c08b2b02c867b6b28c4a4\",\"created\":\"0001-01-01T00:00:00Z\",\"container_config\":{\"Cmd\":[\"\"]},\"author\":\"???\"}""#,
    ] {
        assert!(text.contains(&entry.replace('?', "\u{fffd}")), "{text}");
    }
}

#[test]
fn a_document_that_clients_would_not_read_is_not_made() {
    let long = config(0, &format!(r#""author":"{}","#, "<".repeat(MANIFEST_BYTES_MAX / 6)));
    let many = config(
        0,
        &format!(r#""history":[{}{{}}],"#, r#"{"empty_layer":true},"#.repeat(1 << 15))
            .replace("{}]", r#"{"empty_layer":true}]"#),
    );
    let layers = vec![OCI_GZIP; 22_000];
    let wide = oci(&config(0, ""), &layers);
    for (stored, target) in
        [(oci(&long, &[]), Format::Schema1), (oci(&many, &[]), Format::Schema1), (wide, Format::Schema2)]
    {
        let fault = translate(&stored, target).map(|derived| derived.digest).unwrap_err();
        assert!(matches!(fault, Untranslatable::TooLarge { .. }), "{fault}");
    }
}
