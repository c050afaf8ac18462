//! Whose platform counts where one image is picked out of a list or index: the operator's rule, then what the client says of
//! itself, then `linux/amd64`; and what is made of the image that was picked.

use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, docker_list, oci_index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

fn image(name: &str) -> Image {
    Image::buildkit(name, "any", Kind::Gzip, 1)
}

/// How a child is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Docker,
    Oci,
}

impl Family {
    fn document(self, image: &Image) -> Document {
        if self == Self::Docker { image.schema2() } else { image.oci() }
    }

    fn parent(self, entries: &[Entry]) -> Document {
        if self == Self::Docker { docker_list(entries) } else { oci_index(entries) }
    }
}

/// A parent and children of these families, one for each platform, in every repository that is named.
async fn upstream_with(parent: Family, children: Family, platforms: &[&str], repositories: &[&str]) -> Upstream {
    let upstream = Upstream::start().await;
    for repository in repositories {
        let mut entries = Vec::new();
        for platform in platforms {
            let (image, (name, version)) = (image(platform), platform.split_once('@').unwrap_or((platform, "")));
            let child = children.document(&image);
            upstream.put_image(repository, "latest", &image, &child);
            let entry = Entry::on(&child, name);
            entries.push(if version.is_empty() { entry } else { entry.version(version) });
        }
        upstream.put(repository, "latest", &parent.parent(&entries));
    }
    upstream
}

async fn index_of(platforms: &[&str]) -> Upstream {
    upstream_with(Family::Oci, Family::Oci, platforms, &["app"]).await
}

/// Docker 1.9.1 with these words at the end of its User-Agent.
fn docker_1_9(words: &str) -> Client {
    Client::new(&format!("docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 {words}"), &[])
}

fn on(os: &str, architecture: &str) -> Client {
    docker_1_9(&format!("kernel/4.9.0 os/{os} arch/{architecture}"))
}

/// The layer of the image that was picked.
fn layer(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let document = reply.json();
    let schema1 = document["fsLayers"][0]["blobSum"].as_str();
    schema1.or(document["layers"][0]["digest"].as_str()).unwrap().to_owned()
}

async fn picked(gateway: &Gateway, client: &Client, target: &str) -> String {
    layer(&gateway.manifest(client, target).await)
}

fn layer_of(platform: &str) -> String {
    image(platform).layers[0].digest.clone()
}

const FOUR: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"];

#[tokio::test]
async fn the_operators_platform_goes_before_the_clients() {
    let upstream = index_of(&FOUR).await;
    let gateway = Setup::default().platform("**", "linux/arm64").before(&upstream).await;
    for client in [on("linux", "amd64"), on("linux", "s390x"), on("windows", "amd64"), Client::only(images::SCHEMA2)] {
        assert_eq!(picked(&gateway, &client, TAGGED).await, layer_of("linux/arm64"));
    }
}

#[tokio::test]
async fn the_first_pattern_that_matches_the_repository_counts() {
    let repositories = ["team/pi", "team/pi/deep", "team/main", "other"];
    let upstream = upstream_with(Family::Oci, Family::Oci, &FOUR, &repositories).await;
    let gateway = Setup::default()
        .platform("team/pi", "linux/arm/v7")
        .platform("team/*", "linux/s390x")
        .platform("*/*/deep", "linux/arm64")
        .before(&upstream)
        .await;
    for (repository, platform) in [
        ("team/pi", "linux/arm/v7"),
        ("team/main", "linux/s390x"),
        ("team/pi/deep", "linux/arm64"),
        ("other", "linux/amd64"),
    ] {
        for client in [on("linux", "amd64"), Client::only(images::SCHEMA2)] {
            let target = format!("/v2/{repository}/manifests/latest");
            assert_eq!(picked(&gateway, &client, &target).await, layer_of(platform), "{repository}");
        }
    }
}

/// The rule is for who must be given one image. A list is still a list.
#[tokio::test]
async fn the_operators_platform_is_nothing_to_who_reads_the_list() {
    let upstream = index_of(&FOUR).await;
    let stored = upstream.contents().manifest("app", "latest").unwrap().clone();
    let gateway = Setup::default().platform("**", "linux/arm64").before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::docker_20_10(), TAGGED).await.text(), stored.text());
    let entries: Vec<Entry> = FOUR.iter().map(|platform| Entry::on(&image(platform).schema2(), platform)).collect();
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), docker_list(&entries).text());
}

#[tokio::test]
async fn an_operators_platform_that_is_not_there_is_406_and_not_another_one() {
    let upstream = index_of(&["linux/amd64", "linux/arm64"]).await;
    let gateway = Setup::default().platform("**", "linux/s390x").before(&upstream).await;
    let refused = gateway.manifest(&on("linux", "amd64"), TAGGED).await;
    let (code, message) = refused.error();
    assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"));
    for platform in ["linux/s390x", "linux/amd64", "linux/arm64"] {
        assert!(message.contains(platform), "{message}");
    }
}

/// A variant that the operator names is the machines' own: what needs a later one does not run there.
#[tokio::test]
async fn an_operators_variant_takes_what_runs_on_it() {
    for (stored, chosen) in [
        (&["linux/arm/v8", "linux/arm/v7", "linux/arm/v5"][..], "linux/arm/v7"),
        (&["linux/arm/v5", "linux/arm/v6"][..], "linux/arm/v6"),
        (&["linux/arm/v8", "linux/arm"][..], "linux/arm"),
    ] {
        let upstream = index_of(stored).await;
        let gateway = Setup::default().platform("**", "linux/arm/v7").before(&upstream).await;
        assert_eq!(picked(&gateway, &on("linux", "arm"), TAGGED).await, layer_of(chosen), "{stored:?}");
    }
    let upstream = index_of(&["linux/arm/v8"]).await;
    let gateway = Setup::default().platform("**", "linux/arm/v7").before(&upstream).await;
    assert_eq!(gateway.manifest(&on("linux", "arm"), TAGGED).await.status, 406);
}

#[tokio::test]
async fn the_order_of_arm_variants_is_the_operators() {
    let upstream = index_of(&["linux/arm/v5", "linux/arm/v6", "linux/arm", "linux/arm/v7"]).await;
    for (order, chosen) in
        [(&["v7", "v6"][..], "linux/arm/v7"), (&["", "v7"][..], "linux/arm"), (&["v8", "v5"][..], "linux/arm/v5")]
    {
        let gateway = Setup::default().arm_variants(order).before(&upstream).await;
        assert_eq!(picked(&gateway, &on("linux", "arm"), TAGGED).await, layer_of(chosen), "{order:?}");
    }
    let gateway = Gateway::before(&upstream).await;
    assert_eq!(picked(&gateway, &on("linux", "arm"), TAGGED).await, layer_of("linux/arm/v6"), "the default");
}

#[tokio::test]
async fn arm64_is_v8() {
    for stored in [&["linux/arm64/v9", "linux/arm64", "linux/arm64/v8"][..], &["linux/arm/v8", "linux/arm64/v8"][..]] {
        let upstream = index_of(stored).await;
        let gateway = Gateway::before(&upstream).await;
        assert_eq!(picked(&gateway, &on("linux", "arm64"), TAGGED).await, layer_of("linux/arm64/v8"), "{stored:?}");
    }
    let upstream = index_of(&["linux/amd64", "linux/arm64"]).await;
    let gateway = Gateway::before(&upstream).await;
    assert_eq!(picked(&gateway, &on("linux", "arm64"), TAGGED).await, layer_of("linux/arm64"));
}

/// An image of a later build than the machine's does not start there.
#[tokio::test]
async fn windows_is_given_the_highest_build_that_its_own_can_run() {
    let builds = [
        "linux/amd64",
        "windows/amd64@10.0.20348.1",
        "windows/amd64@10.0.14393.1",
        "windows/amd64@10.0.17763.2",
        "windows/amd64@10.0.19042.1",
    ];
    let upstream = index_of(&builds).await;
    let gateway = Gateway::before(&upstream).await;
    for (build, chosen) in [
        ("17763", "windows/amd64@10.0.17763.2"),
        ("18362", "windows/amd64@10.0.17763.2"),
        ("14393", "windows/amd64@10.0.14393.1"),
        ("26100", "windows/amd64@10.0.20348.1"),
    ] {
        let client = docker_1_9(&format!(
            "kernel/10.0 {build} ({build}.1.amd64fre.rs5_release.180914-1434) os/windows arch/amd64"
        ));
        assert_eq!(picked(&gateway, &client, TAGGED).await, layer_of(chosen), "build {build}");
    }
    assert_eq!(
        picked(&gateway, &on("windows", "amd64"), TAGGED).await,
        layer_of(builds[1]),
        "the first, as Docker has it"
    );
}

#[tokio::test]
async fn no_client_is_ever_given_amd64_for_another_architecture() {
    for (parent, children) in [(Family::Oci, Family::Oci), (Family::Docker, Family::Docker)] {
        let upstream = upstream_with(parent, children, &["linux/amd64", "windows/amd64"], &["app"]).await;
        let gateway = Gateway::before(&upstream).await;
        for architecture in ["arm", "arm64", "386", "s390x", "ppc64le", "riscv64", "AMD64"] {
            let refused = gateway.manifest(&on("linux", architecture), TAGGED).await;
            let (code, message) = refused.error();
            assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"), "{architecture}");
            assert!(message.contains("linux/amd64, windows/amd64"), "{message}");
        }
    }
}

/// Docker 1.9 pulls a tag of any age: schema 1 comes of whichever children the parent has.
#[tokio::test]
async fn schema_1_is_made_of_lists_of_oci_children_and_of_indexes_of_schema_2_children() {
    for (parent, children) in [
        (Family::Docker, Family::Oci),
        (Family::Oci, Family::Docker),
        (Family::Docker, Family::Docker),
        (Family::Oci, Family::Oci),
    ] {
        let upstream = upstream_with(parent, children, &["linux/amd64", "linux/arm64"], &["app"]).await;
        let gateway = Gateway::before(&upstream).await;
        for platform in ["linux/amd64", "linux/arm64"] {
            let architecture = platform.split_once('/').unwrap().1;
            let by_tag = gateway.manifest(&on("linux", architecture), TAGGED).await;
            assert_eq!((by_tag.content_type(), layer(&by_tag)), (images::SCHEMA1_SIGNED, layer_of(platform)));
            assert_eq!((&by_tag.json()["name"], &by_tag.json()["tag"]), (&"app".into(), &"latest".into()));
            let source = children.document(&image(platform)).digest;
            assert_eq!(by_tag.header("schemabridge-source-digest"), Some(source.as_str()));
            let by_digest = gateway.manifest(&Client::curl(), &format!("/v2/app/manifests/{}", by_tag.digest())).await;
            assert_eq!((by_digest.status, by_digest.text()), (200, by_tag.text()));
        }
    }
}

#[tokio::test]
async fn the_picked_image_is_answered_as_stored_where_the_client_reads_it() {
    for (parent, children, reads) in [
        (Family::Docker, Family::Docker, images::SCHEMA2),
        (Family::Oci, Family::Docker, images::SCHEMA2),
        (Family::Oci, Family::Oci, images::OCI),
        (Family::Docker, Family::Oci, images::OCI),
    ] {
        let upstream = upstream_with(parent, children, &["linux/arm64", "linux/amd64"], &["app"]).await;
        let gateway = Gateway::before(&upstream).await;
        let child = children.document(&image("linux/amd64"));
        let got = gateway.manifest(&Client::only(reads), TAGGED).await;
        assert_eq!((got.content_type(), got.text().as_str()), (reads, child.text()));
        assert_eq!(got.header("schemabridge-source-digest"), None);
        let again = Client::only(reads).get(TAGGED).header("If-None-Match", &format!("\"{}\"", child.digest));
        assert_eq!(gateway.send(&again).await.status, 304);
    }
}

#[tokio::test]
async fn a_picked_and_translated_image_is_answered_like_any_derived_one() {
    let upstream = index_of(&["linux/arm64", "linux/amd64"]).await;
    let gateway = Gateway::before(&upstream).await;
    let expected = image("linux/amd64").schema2();
    let by_tag = gateway.manifest(&Client::only(images::SCHEMA2), TAGGED).await;
    assert_eq!((by_tag.digest(), by_tag.text().as_str()), (expected.digest.as_str(), expected.text()));
    let etag = format!("\"{}\"", expected.digest);
    for target in [TAGGED.to_owned(), format!("/v2/app/manifests/{}", expected.digest)] {
        let call = Client::only(images::SCHEMA2).get(&target).header("If-None-Match", &etag);
        assert_eq!(gateway.send(&call).await.status, 304, "{target}");
    }
}

/// The config says what an entry does not.
#[tokio::test]
async fn an_entry_without_a_platform_is_picked_by_its_config() {
    let upstream = Upstream::start().await;
    let images = ["amd64", "arm64"].map(|architecture| Image::buildkit("app", architecture, Kind::Gzip, 1));
    for image in &images {
        upstream.put_image("app", "latest", image, &image.oci());
    }
    let [amd64, arm64] = &images;
    upstream.put("app", "latest", &oci_index(&[Entry::of(&amd64.oci()), Entry::of(&arm64.oci())]));
    let gateway = Gateway::before(&upstream).await;
    assert_eq!(picked(&gateway, &on("linux", "arm64"), TAGGED).await, arm64.layers[0].digest);
    assert_eq!(picked(&gateway, &Client::only(images::SCHEMA2), TAGGED).await, amd64.layers[0].digest);
    assert_eq!(gateway.manifest(&on("linux", "s390x"), TAGGED).await.status, 406);
}
