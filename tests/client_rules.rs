//! The operator's rules about clients go before what is known about them: whom they are about, and what they change.

use schemabridge::image::media_type::Format;
use schemabridge::negotiate::{Asks, Formats, Schema1, Senders, Treatment};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, docker_list, oci_index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

fn agents(pattern: &str) -> Senders {
    Senders { user_agents: vec![pattern.parse().unwrap()], ..Senders::default() }
}

fn within(network: &str) -> Senders {
    Senders { networks: vec![network.parse().unwrap()], ..Senders::default() }
}

fn asking(asks: Asks) -> Treatment {
    Treatment { asks, ..Treatment::default() }
}

fn denied() -> Treatment {
    Treatment { schema1: Schema1::Denied, ..Treatment::default() }
}

fn watchtower() -> Client {
    let accept = [images::SCHEMA2, images::LIST, images::SCHEMA1, images::INDEX];
    Client::new("Watchtower", &accept)
}

async fn upstream_with(image: &Image, document: &Document) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", image, document);
    upstream
}

/// What can be stored, each with whatever it needs beside it.
async fn every_stored() -> Vec<(&'static str, Upstream)> {
    let image = Image::buildkit("app", "amd64", Kind::Gzip, 2);
    let other = Image::buildkit("other", "arm", Kind::Gzip, 1);
    let mut all = Vec::new();
    for (name, document) in [("schema 2", image.schema2()), ("OCI", image.oci()), ("hybrid", image.hybrid())] {
        all.push((name, upstream_with(&image, &document).await));
    }
    let entries = [Entry::on(&other.oci(), "linux/arm/v7"), Entry::on(&image.oci(), "linux/amd64")];
    for (name, parent) in [("index", oci_index(&entries)), ("list of OCI children", docker_list(&entries))] {
        let upstream = upstream_with(&image, &image.oci()).await;
        upstream.put_image("app", "other", &other, &other.oci());
        upstream.put("app", "latest", &parent);
        all.push((name, upstream));
    }
    all
}

#[tokio::test]
async fn watchtower_sees_the_digest_that_the_old_docker_beside_it_pulled() {
    for docker in [Client::docker_17(), Client::docker_1_9_1()] {
        let engine = docker.user_agent.clone().unwrap();
        let mut differed = 0;
        for (stored, upstream) in every_stored().await {
            let setup = Setup::default().client_rule(agents("Watchtower*"), asking(Asks::ForEngine(engine.clone())));
            let gateway = setup.before(&upstream).await;
            let pulled = gateway.manifest(&docker, TAGGED).await;
            assert_eq!(pulled.status, 200, "{stored}: {}", pulled.text());
            let seen = gateway.head(&watchtower(), TAGGED).await;
            assert_eq!((seen.status, seen.digest()), (200, pulled.digest()), "{stored}, {engine}");
            let without_a_rule = Gateway::before(&upstream).await.head(&watchtower(), TAGGED).await;
            differed += usize::from(without_a_rule.digest() != pulled.digest());
        }
        assert!(differed >= 4, "without the rule Watchtower would restart containers for ever");
    }
}

#[tokio::test]
async fn a_digest_probe_sees_what_is_stored() {
    let image = Image::classic("app");
    let upstream = upstream_with(&image, &image.oci()).await;
    let setup = Setup::default().client_rule(agents("watcher/*"), asking(Asks::ForStored));
    let gateway = setup.before(&upstream).await;
    let digest =
        async |name| gateway.manifest(&Client::new(name, &[images::SCHEMA2]), TAGGED).await.digest().to_owned();
    assert_eq!(digest("watcher/1.0").await, image.oci().digest);
    assert_eq!(digest("other/1.0").await, image.schema2().digest);
}

#[tokio::test]
async fn who_is_denied_schema_1_is_told_why_in_words_that_it_shows() {
    let image = Image::classic("app");
    let upstream = upstream_with(&image, &image.oci()).await;
    let gateway = Setup::default().client_rule(agents("*"), denied()).before(&upstream).await;
    for client in [Client::docker_1_9_1(), Client::docker_1_6_2(), Client::only(images::SCHEMA1_SIGNED)] {
        let refused = gateway.manifest(&client, TAGGED).await;
        let (code, message) = refused.error();
        assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"));
        assert!(message.contains("the operator of this gateway keeps that old format from"), "{message}");
    }
    let legacy = gateway.get(&Client::docker_1_6_2(), "/v1/repositories/app/images").await;
    assert!(legacy.status == 406 && legacy.text().contains("Docker 1.10 or newer"), "{}", legacy.text());
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.digest(), image.schema2().digest);
}

#[tokio::test]
async fn stored_schema_1_is_denied_by_tag_and_passes_by_digest() {
    let document = images::schema1_signed("single-layer");
    let upstream = Upstream::start().await;
    upstream.put("app", "latest", &document);
    let gateway = Setup::default().client_rule(agents("*"), denied()).before(&upstream).await;
    for client in [Client::curl(), Client::docker_17(), Client::docker_1_9_1(), watchtower()] {
        let refused = gateway.manifest(&client, TAGGED).await;
        assert_eq!((refused.status, refused.error().0.as_str()), (406, "UNSUPPORTED"));
        assert!(refused.error().1.contains("stored as Docker schema 1"), "{}", refused.error().1);
    }
    let by_digest = gateway.get(&Client::curl(), &format!("/v2/app/manifests/{}", document.digest)).await;
    assert_eq!((by_digest.status, by_digest.body), (200, document.bytes.to_vec()));
}

#[tokio::test]
async fn a_network_is_that_of_the_client_and_not_of_a_proxy_in_between() {
    let image = Image::classic("app");
    let upstream = upstream_with(&image, &image.schema2()).await;
    let reads = Treatment { reads: Some(Formats::of(&[Format::Oci])), ..Treatment::default() };
    let rule = || Setup::default().client_rule(within("10.1.0.0/16"), reads.clone());
    let behind = rule().trust_proxies("127.0.0.0/8").before(&upstream).await;
    let open = rule().before(&upstream).await;
    let asked = |forwarded| Client::curl().get(TAGGED).header("X-Forwarded-For", forwarded);
    assert_eq!(behind.send(&asked("192.0.2.1, 10.1.2.3")).await.digest(), image.oci().digest);
    assert_eq!(behind.send(&asked("10.1.2.3, 192.0.2.1")).await.digest(), image.schema2().digest);
    assert_eq!(open.send(&asked("10.1.2.3")).await.digest(), image.schema2().digest, "a header of anybody's");
    let own = Setup::default().client_rule(within("127.0.0.0/8"), reads.clone()).before(&upstream).await;
    assert_eq!(own.get(&Client::curl(), TAGGED).await.digest(), image.oci().digest);
}

#[tokio::test]
async fn a_platform_of_a_rule_goes_before_what_is_said_of_repositories() {
    let images = ["linux/amd64", "linux/arm64", "linux/s390x"]
        .map(|platform| (platform, Image::buildkit(platform, "any", Kind::Gzip, 1)));
    let upstream = Upstream::start().await;
    let mut entries = Vec::new();
    for (platform, image) in &images {
        upstream.put_image("app", "latest", image, &image.oci());
        entries.push(Entry::on(&image.oci(), platform));
    }
    upstream.put("app", "latest", &oci_index(&entries));
    let platform = Some("linux/s390x".parse().unwrap());
    let setup = Setup::default()
        .platform("**", "linux/arm64")
        .client_rule(agents("docker/1.9.*"), Treatment { platform, ..Treatment::default() });
    let gateway = setup.before(&upstream).await;
    for (client, expected) in [(Client::docker_1_9_1(), 2), (Client::docker_early("1.8.3"), 1)] {
        let got = gateway.manifest(&client, TAGGED).await;
        let layer = got.json()["fsLayers"][0]["blobSum"].as_str().unwrap().to_owned();
        assert_eq!(layer, images[expected].1.layers[0].digest);
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_counts_even_if_it_says_nothing() {
    let image = Image::classic("app");
    let upstream = upstream_with(&image, &image.oci()).await;
    let spared = Setup::default().client_rule(within("127.0.0.1/32"), Treatment::default());
    let gateway = spared.client_rule(agents("*"), denied()).before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::docker_1_9_1(), TAGGED).await.content_type(), images::SCHEMA1_SIGNED);
}
