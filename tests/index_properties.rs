//! What holds of every list and index, over parents made at random: of images of any platform, twice, of none, beside
//! attestations, artifacts and what is not there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use schemabridge::image::descriptor::Descriptor;
use schemabridge::image::digest::Digest;
use schemabridge::image::manifest::{Content, Manifest};
use schemabridge::image::media_type::Format;
use schemabridge::image::oci::Index;
use schemabridge::image::platform::Platform;
use schemabridge::translate::index::{Entry, Fate, Omission, Order, Packing, parent};
use schemabridge::translate::{Derived, Untranslatable};

use crate::support::client::{Client, Reply};
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{self, attestation, docker_list, oci_index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

const PLATFORMS: [&str; 9] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm64/v8",
    "linux/arm/v5",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/arm",
    "windows/amd64",
    "linux/amd64/v2",
];

const ARM_VARIANTS: [Option<&str>; 4] = [Some("v6"), Some("v5"), None, Some("v7")];

fn grouped() -> Order {
    Order::Grouped(ARM_VARIANTS.map(|variant| variant.map(str::to_owned)).to_vec())
}

/// What becomes of one entry, as a number says it.
fn fate(choice: u8, digest: &Digest) -> Fate {
    match choice {
        0 | 1 => Fate::Kept { media_type: images::SCHEMA2.to_owned(), size: 7, packing: Packing::Other },
        2 | 3 => {
            Fate::Derived { format: Format::Schema2, digest: Digest::sha256(digest.as_str().as_bytes()), size: 77 }
        }
        4 => Fate::LeftOut(Omission::Missing),
        _ => Fate::LeftOut(Omission::Untranslatable("it is odd".to_owned())),
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0..40_u8, prop::option::weighted(0.9, select(&PLATFORMS[..])), 0..6_u8, any::<bool>());
    vec(entry, 0..12).prop_map(|entries| {
        let listed = entries.into_iter().map(|(content, platform, choice, is_annotated)| {
            let digest = Digest::sha256(&[content]);
            let platform: Option<Platform> = platform.map(|platform| platform.parse().unwrap());
            let annotations = if is_annotated { [("k".to_owned(), "<v>".to_owned())].into() } else { BTreeMap::new() };
            let listed = Descriptor {
                media_type: images::OCI.to_owned(),
                digest: digest.clone(),
                size: 7,
                urls: Vec::new(),
                annotations,
                platform: platform.clone(),
                artifact_type: None,
            };
            Entry { listed, platform, fate: fate(choice, &digest) }
        });
        listed.collect()
    })
}

fn made(entries: &[Entry], target: Format, order: &Order) -> Result<Derived, Untranslatable> {
    let stored = Index { manifests: Vec::new(), annotations: [("of".to_owned(), "the index".to_owned())].into() };
    parent(&stored, entries.to_vec(), target, order)
}

fn children(derived: &Derived) -> Vec<Descriptor> {
    match Manifest::parse(derived.bytes.clone()).unwrap().content() {
        Content::Index(index) => index.manifests.clone(),
        other => panic!("{other:?}"),
    }
}

/// The digests that the entries have in the parent, in their order.
fn digests(entries: &[Entry]) -> Vec<Digest> {
    let digest = |entry: &Entry| match &entry.fate {
        Fate::Kept { .. } => Some(entry.listed.digest.clone()),
        Fate::Derived { digest, .. } => Some(digest.clone()),
        Fate::LeftOut(_) => None,
    };
    entries.iter().filter_map(digest).collect()
}

fn kind(child: &Descriptor) -> Option<(String, String)> {
    child.platform.as_ref().map(|platform| (platform.os.clone(), platform.architecture.clone()))
}

/// `arm64` is `arm64/v8`.
fn one_name(child: &Descriptor) -> Option<Platform> {
    let mut platform = child.platform.clone()?;
    platform.variant = platform.variant.filter(|variant| platform.architecture != "arm64" || variant != "v8");
    Some(platform)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_parent_is_the_same_each_time_and_is_what_it_says(entries in entries(), is_grouped: bool) {
        let order = if is_grouped { grouped() } else { Order::Stored };
        for target in [Format::List, Format::Index] {
            let (first, second) = (made(&entries, target, &order), made(&entries, target, &order));
            prop_assert_eq!(&first, &second);
            if let Ok(derived) = first {
                let parsed = Manifest::parse(derived.bytes.clone()).unwrap();
                prop_assert_eq!((parsed.format(), parsed.digest()), (target, &derived.digest));
            }
        }
    }

    #[test]
    fn an_index_has_every_child_that_is_left_in_the_stored_order(entries in entries()) {
        match made(&entries, Format::Index, &Order::Stored) {
            Ok(derived) => {
                let named: Vec<Digest> = children(&derived).into_iter().map(|child| child.digest).collect();
                prop_assert_eq!(named, digests(&entries));
            }
            Err(refused) => {
                let is_nothing_left = matches!(refused, Untranslatable::NothingLeft { .. });
                prop_assert!(is_nothing_left, "{}", refused);
                prop_assert!(digests(&entries).is_empty());
            }
        }
    }

    #[test]
    fn a_list_has_the_first_child_of_each_platform_and_nothing_but_platforms(entries in entries()) {
        let Ok(derived) = made(&entries, Format::List, &Order::Stored) else {
            prop_assert!(digests(&entries).is_empty());
            return Ok(());
        };
        let named = children(&derived);
        let mut seen = BTreeSet::new();
        let mut expected = Vec::new();
        for child in children(&made(&entries, Format::Index, &Order::Stored).unwrap()) {
            if one_name(&child).is_none_or(|platform| seen.insert(platform)) {
                expected.push((child.digest, child.platform));
            }
        }
        let found: Vec<_> = named.iter().map(|child| (child.digest.clone(), child.platform.clone())).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(named.iter().all(|child| child.annotations.is_empty()));
    }

    #[test]
    fn grouping_moves_children_and_changes_none(entries in entries()) {
        let (Ok(stored), Ok(grouped)) =
            (made(&entries, Format::List, &Order::Stored), made(&entries, Format::List, &grouped())) else { return Ok(()) };
        let (stored, grouped) = (children(&stored), children(&grouped));
        let kinds_in_order = |children: &[Descriptor]| {
            let mut kinds: Vec<Option<(String, String)>> = Vec::new();
            children.iter().map(kind).for_each(|kind| if !kinds.contains(&kind) { kinds.push(kind) });
            kinds
        };
        prop_assert_eq!(kinds_in_order(&stored), kinds_in_order(&grouped));
        let mut runs: Vec<Option<(String, String)>> = grouped.iter().map(kind).collect();
        runs.dedup();
        prop_assert_eq!(runs, kinds_in_order(&stored), "each kind stands together");
        let sorted = |mut children: Vec<Descriptor>| {
            children.sort_by_key(|child| format!("{child:?}"));
            children
        };
        let arm: Vec<usize> = grouped.iter().filter_map(|child| child.platform.as_ref())
            .filter(|platform| platform.architecture == "arm")
            .filter_map(|platform| ARM_VARIANTS.iter().position(|variant| *variant == platform.variant.as_deref()))
            .collect();
        prop_assert!(arm.is_sorted(), "{:?}", arm);
        prop_assert_eq!(sorted(stored), sorted(grouped));
    }
}

/// A child of a parent in a registry.
#[derive(Clone, Copy, Debug)]
struct Listed {
    content: u8,
    platform: Option<&'static str>,
    kind: Kind,
    family: Stored,
}

/// How a child is stored.
#[derive(Clone, Copy, Debug)]
enum Stored {
    Oci,
    Schema2,
    Hybrid,
    Missing,
    Artifact,
}

fn listed() -> impl Strategy<Value = Listed> {
    let kind =
        prop_oneof![6 => Just(Kind::Gzip), 1 => Just(Kind::Zstd), 1 => Just(Kind::Foreign), 1 => Just(Kind::Encrypted)];
    let family = prop_oneof![
        5 => Just(Stored::Oci), 5 => Just(Stored::Schema2), 1 => Just(Stored::Hybrid), 1 => Just(Stored::Missing), 1 => Just(Stored::Artifact)
    ];
    (0..40_u8, prop::option::weighted(0.9, select(&PLATFORMS[..])), kind, family)
        .prop_map(|(content, platform, kind, family)| Listed { content, platform, kind, family })
}

impl Listed {
    fn image(self) -> Image {
        Image::buildkit(&format!("app {}", self.content), "amd64", self.kind, usize::from(self.content % 3))
    }

    fn document(self) -> Document {
        match self.family {
            Stored::Oci | Stored::Missing => self.image().oci(),
            Stored::Schema2 => self.image().schema2(),
            Stored::Hybrid => self.image().hybrid(),
            Stored::Artifact => images::artifact(&self.content.to_string()),
        }
    }

    fn entry(self) -> parents::Entry {
        let document = self.document();
        self.platform.map_or_else(|| parents::Entry::of(&document), |platform| parents::Entry::on(&document, platform))
    }

    fn put(self, upstream: &Upstream) {
        if !matches!(self.family, Stored::Missing) {
            upstream.put_image("app", "latest", &self.image(), &self.document());
        }
    }
}

async fn upstream_with(children: &[Listed], parent: &Document) -> Upstream {
    let upstream = Upstream::start().await;
    for child in children {
        child.put(&upstream);
    }
    upstream.put("app", None, &Image::buildkit("statement", "unknown", Kind::InToto, 1).oci());
    upstream.put("app", "latest", parent);
    upstream
}

/// What a parent of the gateway's own making names is there, of the type and the size that the parent says.
async fn serves_what_it_names(gateway: &Gateway, client: &Client, derived: &Reply) {
    for child in derived.json()["manifests"].as_array().unwrap() {
        let digest = child["digest"].as_str().unwrap();
        let got = gateway.manifest(client, &format!("/v2/app/manifests/{digest}")).await;
        assert_eq!((got.status, got.digest()), (200, digest), "{}", got.text());
        assert_eq!((&child["size"], &child["mediaType"]), (&got.body.len().into(), &got.content_type().into()));
    }
}

fn run<Output>(work: impl Future<Output = Output>) -> Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_derived_parent_names_only_what_is_served_and_is_the_same_everywhere(children in vec(listed(), 0..7), is_list: bool) {
        run(async {
            let mut entries: Vec<parents::Entry> = children.iter().map(|child| child.entry()).collect();
            if let (Some(first), false) = (entries.first().map(|entry| entry.digest.clone()), is_list) {
                entries.push(attestation(&Image::buildkit("statement", "unknown", Kind::InToto, 1).oci(), &first));
            }
            let stored = if is_list { docker_list(&entries) } else { oci_index(&entries) };
            let upstream = upstream_with(&children, &stored).await;
            let (gateway, other) = (Gateway::before(&upstream).await, Gateway::before(&upstream).await);
            let script = Client::new("", &[&format!("{}, {}", images::LIST, images::SCHEMA2)]);
            for client in [Client::docker_17(), Client::docker_20_10(), Client::oci_only(), script] {
                let first = gateway.manifest(&client, TAGGED).await;
                assert!(matches!(first.status, 200 | 406), "{}", first.text());
                for asked in [&gateway, &other] {
                    let again = asked.manifest(&client, TAGGED).await;
                    assert_eq!((again.status, again.text()), (first.status, first.text()));
                }
                // A parent in the stored format was at most pruned: it may name what nobody has.
                let is_other_parent = first.content_type() != stored.content_type
                    && [images::LIST, images::INDEX].contains(&first.content_type());
                if is_other_parent {
                    serves_what_it_names(&gateway, &client, &first).await;
                }
            }
        });
    }

    #[test]
    fn an_index_that_became_a_list_becomes_the_same_index_again(contents in vec(0..40_u8, 1..7)) {
        run(async {
            // One image for each platform, nothing that a list cannot say.
            let platforms = PLATFORMS.iter().filter(|platform| **platform != "linux/arm64/v8");
            let children: Vec<Listed> = contents
                .iter()
                .zip(platforms)
                .map(|(content, platform)| Listed { content: *content, platform: Some(platform), kind: Kind::Gzip, family: Stored::Oci })
                .collect();
            let stored = oci_index(&children.iter().map(|child| child.entry()).collect::<Vec<_>>());
            let upstream = upstream_with(&children, &stored).await;
            let gateway = Gateway::before(&upstream).await;
            // It ranks variants itself, so nothing is put in another order.
            let mut docker = Client::docker_20_10();
            docker.user_agent = Some("docker/19.03.4 go/go1.12 os/linux arch/amd64".to_owned());
            let list = gateway.manifest(&docker, TAGGED).await;
            assert_eq!((list.status, list.content_type()), (200, images::LIST), "{}", list.text());

            let second = Upstream::start().await;
            for child in list.json()["manifests"].as_array().unwrap() {
                let digest = child["digest"].as_str().unwrap();
                let got = gateway.manifest(&docker, &format!("/v2/app/manifests/{digest}")).await;
                second.put("app", None, &Document::new(got.content_type(), got.body.clone()));
            }
            second.put("app", "latest", &Document::new(images::LIST, list.body.clone()));
            let gateway = Gateway::before(&second).await;
            let back = gateway.manifest(&Client::oci_only(), TAGGED).await;
            assert_eq!(back.text(), stored.text());
        });
    }
}
