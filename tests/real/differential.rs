//! The same image as schema 1: from docker-registry 2.8 itself, and from the gateway in front of each registry and family.
//!
//! docker-registry makes schema 1 of schema 2 alone. The gateway must give the same bytes for the schema 2 twin and for the
//! OCI twin, whoever stores them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    documents::{self, EMPTY_LAYER},
    http::{self, Answer},
    images::{self, Image, Twin},
    mixtures::Random,
    programs::say,
    registries::{Gateway, Registry},
};

/// All images share it, so that a layer is uploaded once; each has a tag of its own.
const REPOSITORY: &str = "test/odd";

/// The registry whose schema 1 is right, and gateways in front of registries that hold one twin each.
struct Bench {
    oracle: Registry,
    sides: Vec<(Registry, Twin, Gateway)>,
}

impl Bench {
    fn start() -> Self {
        let sides =
            Twin::BOTH.into_iter().flat_map(|twin| Registry::both().into_iter().map(move |registry| (registry, twin)));
        let sides = sides
            .map(|(registry, twin)| {
                let gateway = Gateway::start(&registry);
                (registry, twin, gateway)
            })
            .collect();
        Self { oracle: Registry::docker_registry(), sides }
    }

    /// What docker-registry makes of the image.
    fn expected(&self, image: &Image) -> Answer {
        self.oracle.push(image, Twin::Schema2, REPOSITORY, &image.name);
        http::ask_as_docker_1_9(self.oracle.address, &target(image))
    }

    /// What each gateway makes of the image, with words that say where.
    fn actual(&self, image: &Image) -> Vec<(String, Answer)> {
        let ask = |(registry, twin, gateway): &(Registry, Twin, Gateway)| {
            registry.push(image, *twin, REPOSITORY, &image.name);
            let answer = http::ask_as_docker_1_9(gateway.address, &target(image));
            (format!("{} stored as {twin:?} in {}", image.name, registry.name), answer)
        };
        self.sides.iter().map(ask).collect()
    }

    fn assert_same(&self, image: &Image, note: &str) {
        let expected = self.expected(image);
        let expected = documents::schema1_of(&expected, &format!("docker-registry on {}", image.name));
        for (what, answer) in self.actual(image) {
            let actual = documents::schema1_of(&answer, &what);
            assert!(actual == expected, "{what}{note}\n{}", first_difference(&expected, &actual));
        }
    }
}

fn target(image: &Image) -> String {
    format!("/v2/{REPOSITORY}/manifests/{}", image.name)
}

/// Both texts around the first byte in which they differ.
fn first_difference(expected: &[u8], actual: &[u8]) -> String {
    let at =
        expected.iter().zip(actual).position(|(one, other)| one != other).unwrap_or(expected.len().min(actual.len()));
    let around = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[at.saturating_sub(120).min(bytes.len())..bytes.len().min(at + 120)]).into_owned()
    };
    format!("byte {at}\nexpected …{}…\nactual   …{}…", around(expected), around(actual))
}

/// Golden inputs that docker-registry translates, but not as it should: [`where_docker_registry_is_wrong`] has them.
const TRANSLATED_WRONGLY: [&str; 4] =
    ["history-too-short", "stray-keys", "stray-keys-unicode-case", "created-unreadable"];

#[test]
fn each_odd_image_is_the_schema_1_that_docker_registry_makes() {
    let bench = Bench::start();
    let images = images::golden(true);
    assert!(images.len() > 40, "the golden inputs are missing");
    for image in images.iter().filter(|image| !TRANSLATED_WRONGLY.contains(&image.name.as_str())) {
        bench.assert_same(image, "");
    }
}

#[test]
fn fifty_random_mixtures_are_the_schema_1_that_docker_registry_makes() {
    const SEED: &str = "DIFFERENTIAL_SEED";
    let seed = std::env::var(SEED).map_or_else(
        |_| {
            u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() & u128::from(u64::MAX))
                .unwrap()
        },
        |text| text.parse().unwrap(),
    );
    say(&format!("differential: the random mixtures are those of {SEED}={seed}"));
    let bench = Bench::start();
    let mut random = Random::new(seed);
    for number in 0..50 {
        let image = random.image(format!("mixture-{number}"));
        let note = format!("\n{SEED}={seed}, config:\n{}", String::from_utf8_lossy(&image.config.bytes));
        bench.assert_same(&image, &note);
    }
}

/// docker-registry refuses these (400), or its handler panics; each holds nothing that a schema 1 could not say.
#[test]
fn an_image_without_history_gets_an_entry_for_each_layer() {
    let bench = Bench::start();
    for (name, layers) in [("no-history", 2), ("history-empty-list", 1)] {
        let image = images::golden_named(name);
        assert_ne!(bench.expected(&image).status, 200, "docker-registry translates {name} now");
        for (what, answer) in bench.actual(&image) {
            let entries = documents::entries(&documents::schema1_of(&answer, &what));
            assert_eq!(entries.len(), layers, "{what}");
            for (entry, layer) in entries.iter().zip(&image.layers) {
                assert_eq!(entry.blob, layer.digest, "{what}");
                assert_eq!(entry.text("created"), "2020-01-02T03:04:05Z", "{what}");
                assert!(!entry.throwaway(), "{what}");
            }
            documents::assert_chain(&entries, &image.config, &what);
        }
    }
}

#[test]
fn an_image_without_history_and_layers_is_one_empty_layer() {
    let bench = Bench::start();
    let image = images::golden_named("no-history-no-layers");
    assert_ne!(bench.expected(&image).status, 200);
    for (what, answer) in bench.actual(&image) {
        let entries = documents::entries(&documents::schema1_of(&answer, &what));
        assert_eq!(entries.len(), 1, "{what}");
        assert_eq!(entries[0].blob, EMPTY_LAYER, "{what}");
        assert!(entries[0].throwaway(), "{what}");
        documents::assert_chain(&entries, &image.config, &what);
    }
}

/// docker-registry answers 200 with two of the three layers.
#[test]
fn a_history_that_is_too_short_loses_no_layer() {
    let bench = Bench::start();
    let image = images::golden_named("history-too-short");
    let expected = documents::entries(&documents::schema1_of(&bench.expected(&image), "docker-registry"));
    assert_eq!(expected.len(), 2, "docker-registry drops no layer now");
    for (what, answer) in bench.actual(&image) {
        let entries = documents::entries(&documents::schema1_of(&answer, &what));
        let blobs = entries.iter().map(|entry| entry.blob.as_str()).collect::<Vec<_>>();
        assert_eq!(blobs, image.layers.iter().map(|layer| layer.digest.as_str()).collect::<Vec<_>>(), "{what}");
        let said =
            |number: usize| entries[number].compatibility["container_config"]["Cmd"][0].as_str().unwrap_or_default();
        assert_eq!([said(0), said(1)], ["ADD file 0", "ADD file 1"], "{what}: the history names the oldest layers");
        documents::assert_chain(&entries, &image.config, &what);
    }
}

/// docker-registry refuses the whole image for one date of its history.
#[test]
fn a_date_that_is_none_is_the_zero_time() {
    let bench = Bench::start();
    for name in ["history-bad-created", "history-created-blank"] {
        let image = images::golden_named(name);
        assert_ne!(bench.expected(&image).status, 200, "docker-registry translates {name} now");
        for (what, answer) in bench.actual(&image) {
            let entries = documents::entries(&documents::schema1_of(&answer, &what));
            assert_eq!(entries[0].text("created"), "0001-01-01T00:00:00Z", "{what}");
            documents::assert_chain(&entries, &image.config, &what);
        }
    }
}

/// Docker 1.6 to 1.9 take `Parent`, `ID` or `Size` of a config for their own, whatever the case; docker-registry lets them through.
#[test]
fn keys_that_schema_1_gives_a_meaning_do_not_survive_from_the_config() {
    const OWN: [&str; 6] = ["id", "parent", "parent_id", "layer_id", "throwaway", "size"];
    let bench = Bench::start();
    for name in ["stray-keys", "stray-keys-unicode-case", "created-unreadable"] {
        let image = images::golden_named(name);
        let expected = documents::entries(&documents::schema1_of(&bench.expected(&image), "docker-registry"));
        for (what, answer) in bench.actual(&image) {
            let entries = documents::entries(&documents::schema1_of(&answer, &what));
            documents::assert_chain(&entries, &image.config, &what);
            let top = entries.last().unwrap();
            assert_eq!(
                top.text("id"),
                expected.last().unwrap().text("id"),
                "{what}: the id is still over the raw config"
            );
            // Go's decoder folds the long s too.
            let folded = |key: &str| key.replace('ſ', "s").to_ascii_lowercase();
            let strays = top.compatibility.as_object().unwrap().keys();
            let strays =
                strays.filter(|key| OWN.contains(&folded(key).as_str()) && !["id", "parent"].contains(&key.as_str()));
            assert_eq!(strays.collect::<Vec<_>>(), Vec::<&String>::new(), "{what}");
            assert_ne!(top.text("created"), "yesterday", "{what}: every engine refuses a date that it cannot read");
        }
    }
}

/// Config and manifest that contradict each other have no schema 1; docker-registry answers 400, or breaks the connection.
#[test]
fn an_image_that_contradicts_itself_is_refused_with_a_reason() {
    let bench = Bench::start();
    for name in ["history-too-long", "diff-ids-missing-one", "diff-ids-one-too-many", "no-rootfs", "config-is-a-list"] {
        let image = images::golden_named(name);
        for (what, answer) in bench.actual(&image) {
            assert_eq!(answer.status, 406, "{what}: {}", answer.text());
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("a refusal is JSON");
            assert_eq!(body["errors"][0]["code"], "UNSUPPORTED", "{what}");
            let message = body["errors"][0]["message"].as_str().unwrap_or_default();
            assert!(message.contains("schema 1"), "{what}: {message}");
        }
    }
}
