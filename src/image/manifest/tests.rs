//! What a document is taken for, and what it is refused for.

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A descriptor of this type.
fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":7}}"#)
}

/// An image of this manifest and config type without layers.
fn image(media_type: &str, config_type: &str) -> String {
    let config = descriptor(config_type);
    format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[]}}"#)
}

fn schema1() -> String {
    format!(
        r#"{{"schemaVersion":1,"name":"a","tag":"b","architecture":"c","fsLayers":[{{"blobSum":"{DIGEST}"}}],"history":[{{"v1Compatibility":"{{}}"}}]}}"#
    )
}

fn parse(text: &str) -> Result<Manifest, Malformed> {
    Manifest::parse(text.to_owned().into())
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_document_is_what_its_media_type_says() {
    for (text, format) in [
        (image(media_type::SCHEMA2, media_type::DOCKER_CONFIG), Format::Schema2),
        (image(media_type::SCHEMA2, media_type::OCI_CONFIG), Format::Schema2),
        (image(media_type::SCHEMA2, "application/octet-stream"), Format::Schema2),
        (image(media_type::SCHEMA2, ""), Format::Schema2),
        (image(media_type::SCHEMA2, media_type::DOCKER_PLUGIN_CONFIG), Format::Artifact),
        (image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG), Format::Oci),
        (image(media_type::OCI_MANIFEST, media_type::DOCKER_CONFIG), Format::Oci),
        (image(media_type::OCI_MANIFEST, "application/vnd.oci.empty.v1+json"), Format::Artifact),
        (image(media_type::OCI_MANIFEST, "application/json"), Format::Artifact),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX), Format::Index),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, media_type::MANIFEST_LIST), Format::List),
        (format!(r#"{{"mediaType":"{}","blobs":[]}}"#, media_type::OCI_ARTIFACT), Format::Artifact),
    ] {
        let manifest = parse(&text).unwrap();
        assert_eq!(manifest.format(), format, "{text}");
        assert!(text.contains(&format!("\"mediaType\":\"{}\"", manifest.media_type())), "{text}");
        assert_eq!((manifest.bytes(), manifest.digest()), (&text.clone().into(), &Digest::sha256(text.as_bytes())));
    }
    let future = r#"{"mediaType":"application/vnd.future.v9+json","layers":1,"manifests":2,"Name":3}"#;
    let future = parse(future).unwrap();
    assert_eq!((future.format(), future.media_type()), (Format::Artifact, "application/vnd.future.v9+json"));
}

#[test]
fn without_a_media_type_its_shape_decides() {
    let without = |text: String| text.replacen(&format!(r#""mediaType":"{}","#, media_type::OCI_MANIFEST), "", 1);
    for config in [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG] {
        let manifest = parse(&without(image(media_type::OCI_MANIFEST, config))).unwrap();
        assert_eq!((manifest.format(), manifest.media_type()), (Format::Oci, media_type::OCI_MANIFEST));
    }
    let index = parse(r#"{"schemaVersion":2,"mediaType":"","manifests":[]}"#).unwrap();
    assert_eq!((index.format(), index.media_type()), (Format::Index, media_type::OCI_INDEX));
    let unsigned = parse(&schema1()).unwrap();
    assert_eq!((unsigned.format(), unsigned.media_type()), (Format::Schema1, media_type::SCHEMA1_SIGNED));
    for text in ["{}", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":3,"layers":[]}"#, r#"{"layers":[]}"#] {
        assert_eq!(parse(text).unwrap_err(), Malformed::Unrecognised, "{text}");
    }
    for text in ["[]", "null", "\"manifest\"", "1"] {
        assert_eq!(parse(text).unwrap_err(), Malformed::NotAnObject, "{text}");
    }
}

#[test]
fn an_artifact_type_makes_an_artifact() {
    let text = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
    let named = parse(&text.replacen('{', r#"{"artifactType":"application/x.y","#, 1)).unwrap();
    assert_eq!(named.format(), Format::Artifact);
    let Content::Artifact(artifact) = named.content() else { panic!("{named:?}") };
    assert_eq!(artifact.artifact_type.as_deref(), Some("application/x.y"));
    assert_eq!(artifact.config_media_type.as_deref(), Some(media_type::OCI_CONFIG));
    for absent in [r#"{"artifactType":"","#, r#"{"artifactType":null,"#] {
        assert_eq!(parse(&text.replacen('{', absent, 1)).unwrap().format(), Format::Oci);
    }
}

#[test]
fn two_documents_in_one_are_refused() {
    let oci = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
    for field in ["manifests", "fsLayers", "history"] {
        let message = refusal(&oci.replacen('{', &format!(r#"{{"{field}":[],"#), 1));
        assert!(message.starts_with("is ambiguous: it is an OCI manifest by its type, but has `"), "{message}");
    }
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
    for (text, fields) in [
        (index, ["layers", "config", "fsLayers", "history"].as_slice()),
        (schema1(), &["layers", "manifests", "config"]),
    ] {
        for field in fields {
            let both = text.replacen('{', &format!(r#"{{"{field}":null,"#), 1);
            assert!(matches!(parse(&both), Err(Malformed::Ambiguous { .. })), "{both}");
        }
    }
    for (version, text) in [
        ("1", &oci),
        ("2", &schema1().replacen('{', r#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+json","#, 1)),
    ] {
        let other = text.replacen(
            if version == "1" { r#"Version":2"# } else { r#"Version":1"# },
            &format!(r#"Version":{version}"#),
            1,
        );
        assert!(matches!(parse(&other), Err(Malformed::VersionContradicts { .. })), "{other}");
    }
}

#[test]
fn what_go_alone_would_read_is_refused() {
    let oci = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
    for (good, bad) in [
        ("\"layers\"", "\"Layers\""),
        ("\"layers\"", "\"layer\u{17f}\""),
        ("\"config\"", "\"CONFIG\""),
        ("\"schemaVersion\"", "\"SchemaVersion\""),
        ("\"size\"", "\"Size\""),
        ("{\"mediaType\"", "{\"mediatype\""),
        ("\"layers\":[]", "\"layers\":[],\"MediaType\":\"x/y\""),
        ("\"layers\":[]", r#""layers":[],"\u004cayers":[]"#),
    ] {
        let text = oci.replace(good, bad);
        assert_ne!(text, oci, "{good}");
        assert!(matches!(parse(&text), Err(Malformed::OtherCase { .. })), "{text}");
    }
    assert!(parse(&oci.replacen('{', r#"{"annotations":{"Layers":"x","layers":"y"},"#, 1)).is_ok());
    assert_eq!(refusal(&oci.replacen('{', r#"{"\u006cayers":[],"#, 1)), "names `layers` twice");
    assert_eq!(refusal(&oci.replacen('{', r#"{"annotations":{"a":"x","a":"y"},"#, 1)), "names `a` twice");
}

#[test]
fn fields_that_do_not_hold_are_refused_by_name() {
    let oci = image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
    let layered = oci.replace("[]", &format!("[{layer},{layer}]"));
    assert!(parse(&layered).is_ok());
    for (good, bad, place) in [
        (DIGEST, "sha256:../../etc", "config.digest"),
        (DIGEST, "", "config.digest"),
        ("\"size\":7", "\"size\":-1", "config.size"),
        ("\"size\":7", "\"size\":9223372036854775808", "config.size"),
        ("\"size\":7", "\"size\":1e3", "config.size"),
        (",\"size\":7", "", "config.size"),
        (r#""layers":["#, r#""layers":[5,"#, "layers[0].mediaType"),
        (r#""layers":["#, r#""layers":[{},"#, "layers[0].digest"),
        (r#""layers":["#, r#""annotations":{"a":1},"layers":["#, "annotations"),
        (r#""schemaVersion":2"#, r#""schemaVersion":"2""#, "schemaVersion"),
        (media_type::OCI_MANIFEST, "text\\r\\nX-Evil: 1", "mediaType"),
        (media_type::OCI_MANIFEST, "a b/c", "mediaType"),
    ] {
        let text = layered.replacen(good, bad, 1);
        assert_ne!(text, layered, "{good}");
        assert!(refusal(&text).starts_with(&format!("has no valid `{place}`: expected ")), "{text}");
    }
    let huge = format!("{oci}{}", " ".repeat(MANIFEST_BYTES_MAX));
    assert!(matches!(parse(&huge), Err(Malformed::Json(json::Fault::TooLarge { .. }))));
    assert!(matches!(parse(&format!("{oci}x")), Err(Malformed::Json(json::Fault::Syntax { .. }))));
}

#[test]
fn a_foreign_type_inside_counts_as_the_other_family() {
    let counts_as = |text: &str| parse(text).unwrap().counts_as();
    assert_eq!(counts_as(&image(media_type::SCHEMA2, media_type::OCI_CONFIG)), Format::Oci);
    assert_eq!(counts_as(&image(media_type::SCHEMA2, "text/html")), Format::Schema2);
    let list = |child: &str| {
        let child = descriptor(child);
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{child}]}}"#, media_type::MANIFEST_LIST)
    };
    for (child, format) in [
        (media_type::SCHEMA2, Format::List),
        (media_type::SCHEMA1, Format::List),
        ("", Format::List),
        (media_type::OCI_MANIFEST, Format::Index),
        (media_type::MANIFEST_LIST, Format::Index),
    ] {
        assert_eq!(counts_as(&list(child)), format, "{child}");
    }
}

#[test]
fn entries_of_an_index_keep_what_choosing_needs() {
    let entry = format!(
        r#"{{"mediaType":"m","digest":"{DIGEST}","size":0,"artifactType":"t","annotations":{{"b":"1","a":"2"}},"platform":{{"os":"linux","architecture":"arm","variant":"v7","os.version":"1","os.features":["x"]}}}}"#
    );
    let bare = entry.replace("\"platform\"", "\"x\"");
    let text = format!(r#"{{"schemaVersion":2,"annotations":{{"k":"v"}},"manifests":[{entry},{bare}]}}"#);
    let manifest = parse(&text).unwrap();
    let Content::Index(index) = manifest.content() else { panic!("{manifest:?}") };
    let platforms: Vec<_> =
        index.manifests.iter().map(|child| child.platform.as_ref().map(ToString::to_string)).collect();
    assert_eq!(platforms, [Some("linux/arm/v7".to_owned()), None]);
    assert_eq!(index.manifests[0].platform.as_ref().unwrap().os_version.as_deref(), Some("1"));
    assert_eq!((index.annotations["k"].as_str(), index.manifests[0].annotations["b"].as_str()), ("v", "1"));
    assert_eq!(index.manifests[1].artifact_type.as_deref(), Some("t"));
}
