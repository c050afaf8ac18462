//! What holds of every image's translations, over images made at random: odd strings, empty and repeated layers,
//! configs that are pretty-printed, unsorted, and full of numbers that no machine type holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;

use schemabridge::image::digest::Digest;
use schemabridge::image::json::{self, Dialect};
use schemabridge::image::layer::{Compression, LayerFacts};
use schemabridge::image::manifest::{Content, Manifest};
use schemabridge::image::media_type::Format;
use schemabridge::image::oci::ImageManifest;
use schemabridge::image::schema1::Schema1;
use schemabridge::translate::{Derived, Learnt, SigningKey, Source, cell, empty_layer, layers_read, upgrade_for};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate([7; 32]).unwrap());

const ODD: [&str; 12] = [
    "<&>",
    "\u{2028}\u{2029}",
    "é漢😀",
    "\u{8}\u{c}\u{1}\u{0}",
    "\"\\/",
    "\t\n\r",
    "a",
    "",
    "\u{7f}",
    "\u{fffd}",
    "Id",
    "}",
];
/// Times as Go prints them.
const TIMES: [&str; 5] = [
    "2020-01-02T03:04:05Z",
    "2020-01-02T03:04:05.123456789Z",
    "0001-01-01T00:00:00Z",
    "2016-02-29T23:59:59.5-07:30",
    "1969-12-31T23:59:59Z",
];
const NUMBERS: [&str; 6] = ["0", "-0.0", "1e400", "12345678901234567890123", "1.50", "-7"];

/// One step of an image's history.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which blob it made; none if it made none.
    blob: Option<u8>,
    created: &'static str,
    author: String,
    created_by: String,
    comment: String,
}

/// An image before it is stored in one family or the other.
#[derive(Clone, Debug)]
pub struct Image {
    steps: Vec<Step>,
    pub config: String,
}

fn odd_text() -> impl Strategy<Value = String> {
    vec(select(&ODD[..]), 0..4).prop_map(|parts| parts.concat())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// JSON of any shape, with whitespace in it.
fn odd_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(&NUMBERS[..]).prop_map(ToOwned::to_owned),
        odd_text().prop_map(|text| quoted(&text)),
        select(&["true", "null", "{}", "[ ]"][..]).prop_map(ToOwned::to_owned),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let member = (odd_text(), inner.clone()).prop_map(|(key, value)| format!("{} :\t{value}", quoted(&key)));
        prop_oneof![
            vec(inner, 1..4).prop_map(|elements| format!("[ {}\n]", elements.join(" , "))),
            vec(member, 1..4).prop_map(|members| format!("{{\r\n{} }}", members.join(",\n  "))),
        ]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let blob = prop::option::weighted(0.7, 0..6_u8);
    (blob, select(&TIMES[..]), odd_text(), odd_text(), odd_text())
        .prop_map(|(blob, created, author, created_by, comment)| Step { blob, created, author, created_by, comment })
}

/// A step in the order of Docker's fields, as Go writes it.
fn history_entry(step: &Step) -> String {
    let mut text = format!(r#"{{"created":"{}""#, step.created);
    for (key, value) in [("author", &step.author), ("created_by", &step.created_by), ("comment", &step.comment)] {
        if !value.is_empty() {
            write!(text, r#","{key}":{}"#, go_quoted(value)).unwrap();
        }
    }
    text + if step.blob.is_none() { r#","empty_layer":true}"# } else { "}" }
}

/// A string as Go's encoder writes it.
fn go_quoted(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '\u{8}' | '\u{c}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(character)).unwrap();
            }
            other => {
                let written = quoted(&other.to_string());
                out += &written[1..written.len() - 1];
            }
        }
    }
    format!("\"{out}\"")
}

fn rootfs(steps: &[Step]) -> String {
    let diff_ids = blobs(steps).map(|blob| format!(r#""sha256:{blob:064x}""#)).collect::<Vec<_>>();
    format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, diff_ids.join(","))
}

fn blobs(steps: &[Step]) -> impl Iterator<Item = u8> {
    steps.iter().filter_map(|step| step.blob)
}

fn image() -> impl Strategy<Value = Image> {
    let members = vec((odd_text(), odd_json()), 0..5);
    (vec(step(), 0..9), members, any::<bool>(), any::<prop::sample::Index>()).prop_map(|(steps, more, told, place)| {
        let history: Vec<String> = steps.iter().map(history_entry).collect();
        let mut members: Vec<String> =
            more.iter().map(|(key, value)| format!("{} : {value}", quoted(&format!("k{key}")))).collect();
        members.insert(place.index(members.len() + 1), format!(r#""rootfs":{}"#, rootfs(&steps)));
        members.insert(place.index(members.len() + 1), r#""architecture" :"amd64""#.to_owned());
        if told {
            members.insert(place.index(members.len() + 1), format!("\"history\":[\n{}]", history.join(", ")));
        }
        Image { steps, config: format!("{{ {}\n}}\n", members.join(",\n\t")) }
    })
}

/// A config as `docker build` has written it since 1.8.3: sorted, compact, its last step told by its own fields.
pub fn classic_image() -> impl Strategy<Value = Image> {
    (vec(step(), 1..9), odd_text()).prop_map(|(steps, label)| {
        let top = steps.last().unwrap();
        let member = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut members: BTreeMap<String, String> = BTreeMap::from([
            member("architecture", "\"amd64\""),
            member("config", &format!(r#"{{"Labels":{{"l":{}}},"Memory":12345678901234567890}}"#, go_quoted(&label))),
            member("container_config", &format!(r#"{{"Cmd":[{}]}}"#, go_quoted(&top.created_by))),
            member("created", &format!("\"{}\"", top.created)),
            member("docker_version", "\"1.12.6\""),
            member("history", &format!("[{}]", steps.iter().map(history_entry).collect::<Vec<_>>().join(","))),
            member("os", "\"linux\""),
            member("rootfs", &rootfs(&steps)),
        ]);
        for (key, value) in [("author", &top.author), ("comment", &top.comment)] {
            members.extend((!value.is_empty()).then(|| member(key, &go_quoted(value))));
        }
        let members: Vec<String> = members.iter().map(|(key, value)| format!(r#""{key}":{value}"#)).collect();
        Image { config: format!("{{{}}}", members.join(",")), steps }
    })
}

impl Image {
    /// Which blobs its layers are, the lowest first. The config gives blob `n` the diff ID `n`, in 64 digits.
    pub fn blobs(&self) -> impl Iterator<Item = u8> {
        blobs(&self.steps)
    }

    fn layer_digests(&self) -> Vec<Digest> {
        blobs(&self.steps).map(|blob| Digest::sha256(&[blob])).collect()
    }

    /// Stored as schema 2 in Docker's canonical form, as Python's `json.dumps(indent=3)` and Go both write it.
    fn as_schema2(&self) -> Manifest {
        let mut text = String::from(
            "{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {\n",
        );
        let fields = |media_type: &str, size: usize, digest: &Digest, indent: &str| {
            format!(
                "{indent}\"mediaType\": \"{media_type}\",\n{indent}\"size\": {size},\n{indent}\"digest\": \"{digest}\"\n"
            )
        };
        let config = Digest::sha256(self.config.as_bytes());
        text += &fields("application/vnd.docker.container.image.v1+json", self.config.len(), &config, "      ");
        text += "   },\n   \"layers\": [";
        let layer = |digest: &Digest| {
            let fields = fields("application/vnd.docker.image.rootfs.diff.tar.gzip", 9, digest, "         ");
            format!("\n      {{\n{fields}      }}")
        };
        let layers: Vec<String> = self.layer_digests().iter().map(layer).collect();
        text += &layers.join(",");
        text += if layers.is_empty() { "]\n}" } else { "\n   ]\n}" };
        Manifest::parse(text.into()).unwrap()
    }

    fn as_oci(&self) -> Manifest {
        let text = String::from_utf8(self.as_schema2().bytes().to_vec()).unwrap();
        let oci = text
            .replace("vnd.docker.distribution.manifest.v2", "vnd.oci.image.manifest.v1")
            .replace("vnd.docker.container.image.v1", "vnd.oci.image.config.v1")
            .replace("vnd.docker.image.rootfs.diff.tar.gzip", "vnd.oci.image.layer.v1.tar+gzip");
        Manifest::parse(oci.into()).unwrap()
    }

    fn translate(&self, stored: &Manifest, target: Format) -> Derived {
        let source = Source {
            manifest: stored,
            config: Some(self.config.as_bytes()),
            repository: &"library/thing".parse().unwrap(),
            tag: &"v1".parse().unwrap(),
            signing_key: Some(&KEY),
            learnt: None,
        };
        cell(stored.format(), target).unwrap()(&source).unwrap()
    }
}

/// What a schema 1 of this image is upgraded to.
fn upgraded(image: &Image, schema1: &Manifest, target: Format) -> Derived {
    let facts = blobs(&image.steps).map(|blob| {
        let diff_id = format!("sha256:{blob:064x}").parse().unwrap();
        (Digest::sha256(&[blob]), LayerFacts { diff_id, size: 9, compression: Compression::Gzip })
    });
    let learnt = Learnt { facts: facts.collect(), ..Learnt::default() };
    assert_eq!(layers_read(schema1).unwrap(), learnt.facts.keys().cloned().collect());
    let source = Source {
        manifest: schema1,
        config: None,
        repository: &"library/thing".parse().unwrap(),
        tag: &"v1".parse().unwrap(),
        signing_key: None,
        learnt: Some(&learnt),
    };
    upgrade_for(schema1, target).unwrap()(&source).unwrap()
}

fn parsed(derived: &Derived) -> Manifest {
    Manifest::parse(derived.bytes.clone()).unwrap()
}

fn schema1_of(derived: &Derived) -> Schema1 {
    match parsed(derived).content() {
        Content::Schema1(schema1) => schema1.clone(),
        other => panic!("{other:?}"),
    }
}

fn image_of(manifest: &Manifest) -> ImageManifest {
    match manifest.content() {
        Content::Image(image) => image.clone(),
        other => panic!("{other:?}"),
    }
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

/// What Docker 1.10 to 25 make of a schema 1 (moby `MakeConfigFromV1Config`, `HistoryFromConfig`): the image's config.
fn config_that_moby_makes(schema1: &Schema1, steps: &[Step]) -> String {
    #[derive(serde::Deserialize)]
    struct V1 {
        created: String,
        #[serde(default)]
        author: String,
        #[serde(default)]
        comment: String,
        container_config: V1Config,
        #[serde(default)]
        throwaway: bool,
    }
    #[derive(serde::Deserialize)]
    struct V1Config {
        #[serde(rename = "Cmd")]
        command: Vec<String>,
    }
    let step = |entry: &String| {
        let v1: V1 = serde_json::from_str(entry).unwrap();
        let created = TIMES.into_iter().find(|time| *time == v1.created).unwrap();
        let blob = (!v1.throwaway).then_some(0);
        Step {
            blob,
            created,
            author: v1.author,
            created_by: v1.container_config.command.join(" "),
            comment: v1.comment,
        }
    };
    let history: Vec<String> = schema1.history.iter().rev().map(|entry| history_entry(&step(entry))).collect();
    let (history, rootfs) = (format!("[{}]", history.join(",")), rootfs(steps));
    let mut members: Members<'_> = serde_json::from_str(schema1.history.first().unwrap()).unwrap();
    for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
        members.remove(key);
    }
    members.insert("history".to_owned(), serde_json::from_str(&history).unwrap());
    members.insert("rootfs".to_owned(), serde_json::from_str(&rootfs).unwrap());
    serde_json::to_string(&members).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn schema1_is_the_same_each_time_and_whichever_family_is_stored(image in image()) {
        let derived = image.translate(&image.as_schema2(), Format::Schema1);
        let twin = image.translate(&image.as_oci(), Format::Schema1);
        prop_assert_eq!(&derived, &twin);
        let schema1 = schema1_of(&derived);
        prop_assert_eq!(&Digest::sha256(schema1.payload()), &derived.digest);
        prop_assert_eq!(parsed(&derived).digest().clone(), derived.digest);
        prop_assert!(schema1.is_signed());
    }

    /// Down and up again: the image ID survives, and in Docker's own format the whole manifest.
    #[test]
    fn an_upgrade_gives_back_the_classic_image_that_schema1_was_made_of(image in classic_image()) {
        prop_assume!(blobs(&image.steps).next().is_some());
        let stored = image.as_schema2();
        let schema1 = parsed(&image.translate(&stored, Format::Schema1));
        let schema2 = upgraded(&image, &schema1, Format::Schema2);
        prop_assert_eq!(&schema2.bytes, stored.bytes());
        prop_assert_eq!(&schema2.blobs[0].bytes, image.config.as_bytes());
        let oci = upgraded(&image, &schema1, Format::Oci);
        prop_assert_eq!(&oci.blobs, &schema2.blobs);
        prop_assert_eq!(oci.bytes, image.translate(&stored, Format::Oci).bytes);
    }

    #[test]
    fn schema1_loses_no_layer_and_names_only_what_there_is(image in image()) {
        let schema1 = schema1_of(&image.translate(&image.as_oci(), Format::Schema1));
        let is_throwaway = |entry: &String| {
            let top = json::scan(entry.as_bytes(), usize::MAX, Dialect::Go).unwrap().object().unwrap();
            top.value("throwaway").is_some()
        };
        let (mut real, mut empty) = (Vec::new(), Vec::new());
        for (digest, entry) in schema1.fs_layers.iter().zip(&schema1.history) {
            if is_throwaway(entry) { empty.push(digest) } else { real.push(digest.clone()) }
        }
        real.reverse();
        prop_assert_eq!(schema1.fs_layers.len(), schema1.history.len());
        prop_assert_eq!(real, image.layer_digests());
        prop_assert!(empty.into_iter().all(|digest| digest == empty_layer::digest()));
    }

    #[test]
    fn a_docker_pushed_image_comes_back_from_oci_byte_for_byte(image in image()) {
        let stored = image.as_schema2();
        let oci = image.translate(&stored, Format::Oci);
        let back = image.translate(&parsed(&oci), Format::Schema2);
        prop_assert_eq!(&back.bytes, stored.bytes());
        prop_assert_eq!(&back.digest, stored.digest());
        prop_assert_eq!(&Digest::sha256(&oci.bytes), &oci.digest);
    }

    #[test]
    fn an_oci_image_comes_back_from_schema2_with_its_blobs(image in image()) {
        let stored = image.as_oci();
        let back = parsed(&image.translate(&parsed(&image.translate(&stored, Format::Schema2)), Format::Oci));
        prop_assert_eq!(image_of(&back), image_of(&stored));
    }

    #[test]
    fn docker_reads_a_classic_config_back_out_of_schema1(image in classic_image()) {
        let schema1 = schema1_of(&image.translate(&image.as_schema2(), Format::Schema1));
        prop_assert_eq!(config_that_moby_makes(&schema1, &image.steps), image.config);
    }

    #[test]
    fn the_scanner_and_an_independent_parser_agree(text in odd_json(), cut in any::<prop::sample::Index>(), other in any::<char>()) {
        let mut characters: Vec<char> = text.chars().collect();
        prop_assert!(json::scan(text.as_bytes(), usize::MAX, Dialect::Go).is_ok());
        let at = cut.index(characters.len());
        characters[at] = other;
        let broken: String = characters.into_iter().collect();
        let ours = json::scan(broken.as_bytes(), usize::MAX, Dialect::Go).is_ok();
        prop_assert_eq!(ours, serde_json::from_str::<&RawValue>(&broken).is_ok(), "{}", broken);
    }

    #[test]
    fn no_bytes_at_all_make_the_reader_panic(image in image(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = image.translate(&image.as_oci(), Format::Schema1).bytes.to_vec();
        let at = cut.index(bytes.len());
        bytes[at] = byte;
        drop(Manifest::parse(bytes.into()));
    }
}

#[test]
fn what_a_client_reads_already_is_never_translated() {
    for format in Format::ALL {
        assert!(cell(format, format).is_none(), "{format}");
    }
}
