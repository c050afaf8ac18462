//! Stored schema 1 for clients that cannot read it, where the operator opted in: whose layers are read, what comes of them,
//! who may have it, and what becomes of work that takes long.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use schemabridge::gateway::LayerLimits;
use schemabridge::transcode::Bounds;

use crate::support::basic;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{
    DOCKER_CONFIG, Document, Image, Kind, LIST, Layer, OCI, OCI_CONFIG, SCHEMA1_SIGNED, SCHEMA2, list,
};
use crate::support::layers::{archive, gzip, noise, schema1, zstd};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{patiently, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";
const DOCKER_TYPES: &str = "application/json, application/vnd.docker.distribution.manifest.v1+prettyjws, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// Lists schema 1 and cannot read it.
fn crane() -> Client {
    Client::new("crane/v0.21.9 go-containerregistry/v0.21.9", &[DOCKER_TYPES, OCI_TYPES])
}

fn docker_28() -> Client {
    Client::new("docker/28.2.2 go/go1.24 os/linux arch/amd64", &[DOCKER_TYPES, OCI_TYPES])
}

/// Two layers: what they hold, and how they are packed.
struct Stage {
    upstream: Upstream,
    archives: [Vec<u8>; 2],
    layers: [Bytes; 2],
    stored: Document,
}

impl Stage {
    /// The lower layer packed with gzip, the upper one a plain archive.
    async fn new() -> Self {
        let archives = [archive("etc/one", &noise(1, 300_000)), archive("etc/two", b"two")];
        let layers = [gzip(&archives[0]), Bytes::from(archives[1].clone())];
        Self::of(archives, layers).await
    }

    async fn of(archives: [Vec<u8>; 2], layers: [Bytes; 2]) -> Self {
        let upstream = Upstream::start().await;
        let [lower, upper] = layers.clone().map(|layer| upstream.contents().put_blob("app", layer));
        let stored = schema1(&[&lower, &upper]);
        upstream.put("app", "latest", &stored);
        Self { upstream, archives, layers, stored }
    }

    fn digest(&self, layer: usize) -> String {
        sha256(&self.layers[layer])
    }

    fn layer_path(&self, layer: usize) -> String {
        format!("/v2/app/blobs/{}", self.digest(layer))
    }
}

fn opted_in() -> Setup {
    Setup::default().upgrade_schema1()
}

#[tokio::test]
async fn an_upgraded_image_has_the_stored_layers_and_a_config_that_can_be_fetched() {
    let stage = Stage::new().await;
    let gateway = opted_in().before(&stage.upstream).await;
    let schema2 = Client::only(SCHEMA2);
    let types = [
        (
            crane(),
            OCI,
            OCI_CONFIG,
            ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"],
        ),
        (
            schema2,
            SCHEMA2,
            DOCKER_CONFIG,
            ["application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar"],
        ),
    ];
    let mut configs = Vec::new();
    for (client, media_type, config_type, layer_types) in types {
        let reply = gateway.manifest(&client, TAGGED).await;
        assert_eq!((reply.status, reply.content_type()), (200, media_type), "{}", reply.text());
        assert_eq!(reply.header("schemabridge-source-digest"), Some(stage.stored.digest.as_str()));
        let manifest = reply.json();
        assert_eq!(manifest["config"]["mediaType"], config_type);
        for layer in 0..2 {
            let found = &manifest["layers"][layer];
            assert_eq!(found["digest"], stage.digest(layer).as_str());
            assert_eq!(found["size"], stage.layers[layer].len());
            assert_eq!(found["mediaType"], layer_types[layer]);
        }
        let digest = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let target = format!("/v2/app/blobs/{digest}");
        let config = gateway.get(&client, &target).await;
        assert_eq!((config.status, sha256(&config.body)), (200, digest.clone()), "{}", config.text());
        assert_eq!(manifest["config"]["size"], config.body.len());
        let head = gateway.head(&client, &target).await;
        assert_eq!(head.header("content-length"), Some(config.body.len().to_string().as_str()));
        let part = gateway.send(&client.get(&target).header("range", "bytes=1-4")).await;
        assert_eq!((part.status, part.body.as_ref()), (206, &config.body[1..5]));
        let diff_ids = config.json()["rootfs"]["diff_ids"].clone();
        assert_eq!(diff_ids, serde_json::json!(stage.archives.each_ref().map(|archive| sha256(archive))));
        configs.push(digest);
        // HEAD → GET by digest, as engines ask.
        let again = gateway.manifest(&client, &format!("/v2/app/manifests/{}", reply.digest())).await;
        assert_eq!(again.text(), reply.text());
    }
    assert_eq!(configs[0], configs[1], "one image ID in either family");
    for layer in 0..2 {
        assert_eq!(stage.upstream.requests_to("GET", &stage.layer_path(layer)).len(), 1, "each layer is read once");
    }
}

#[tokio::test]
async fn who_reads_schema_1_gets_it_as_stored_and_nobody_is_upgraded_who_was_not_opted_in() {
    let stage = Stage::new().await;
    let gateway = opted_in().before(&stage.upstream).await;
    for client in [Client::docker_20_10(), Client::docker_1_9_1(), Client::containerd_1_6()] {
        let reply = gateway.manifest(&client, TAGGED).await;
        assert_eq!((reply.content_type(), reply.digest()), (SCHEMA1_SIGNED, stage.stored.digest.as_str()));
    }
    assert!(stage.upstream.requests_to("GET", "/v2/app/blobs/*").is_empty());
    let plain = Gateway::before(&stage.upstream).await;
    assert_eq!(plain.manifest(&docker_28(), TAGGED).await.content_type(), SCHEMA1_SIGNED);
    let (_, message) = plain.manifest(&Client::oci_only(), TAGGED).await.error();
    assert!(message.contains("--upgrade-schema1"), "{message}");
}

#[tokio::test]
async fn a_zstd_layer_of_schema_1_is_transcoded_where_both_are_let_do() {
    let archives = [archive("one", &noise(1, 40_000)), archive("two", b"two")];
    let stage = Stage::of(archives.clone(), [zstd(&archives[0]), gzip(&archives[1])]).await;
    let gateway = opted_in().transcode_zstd().before(&stage.upstream).await;
    let reply = gateway.manifest(&Client::only(SCHEMA2), TAGGED).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let digest = reply.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
    let layer = gateway.get(&Client::only(SCHEMA2), &format!("/v2/app/blobs/{digest}")).await;
    assert_eq!(crate::support::layers::gunzip(&layer.body), archives[0]);
    // Who reads zstd keeps it.
    let oci = gateway.manifest(&crane(), TAGGED).await.json();
    assert_eq!(oci["layers"][0]["digest"], stage.digest(0).as_str());
}

#[tokio::test]
async fn an_image_of_schema_1_in_a_list_is_upgraded_for_who_reads_an_index() {
    let stage = Stage::new().await;
    let parent = list(&[(&stage.stored, "linux/amd64")]);
    assert_eq!(parent.content_type, LIST);
    stage.upstream.put("app", "latest", &parent);
    let gateway = opted_in().before(&stage.upstream).await;
    let reply = gateway.manifest(&Client::oci_only(), TAGGED).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let child = reply.json()["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let child = gateway.manifest(&Client::oci_only(), &format!("/v2/app/manifests/{child}")).await;
    let config = child.json()["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get(&Client::oci_only(), &format!("/v2/app/blobs/{config}")).await.status, 200);
}

#[tokio::test]
async fn what_was_made_is_only_for_who_may_see_what_it_was_made_of() {
    let stage = Stage::new().await;
    let (ann, bob) = (basic("ann", "1"), basic("bob", "2"));
    stage.upstream.put("others", "latest", &stage.stored);
    stage.upstream.contents().close("Basic realm=\"registry\"");
    stage.upstream.contents().admit(&ann, "app");
    stage.upstream.contents().admit(&bob, "others");
    let gateway = opted_in().before(&stage.upstream).await;
    let asked = crane().get(TAGGED).header("authorization", &ann);
    let manifest = gateway.send(&asked).await;
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    let config = manifest.json()["config"]["digest"].as_str().unwrap().to_owned();
    let get = |path: String, who: &str| crane().get(&path).header("authorization", who);
    assert_eq!(gateway.send(&get(format!("/v2/app/blobs/{config}"), &ann)).await.status, 200);
    for (path, who) in [
        (format!("/v2/app/blobs/{config}"), &bob),
        (format!("/v2/others/blobs/{config}"), &bob),
        (format!("/v2/others/blobs/{config}"), &ann),
    ] {
        let reply = gateway.send(&get(path.clone(), who)).await;
        assert!(matches!(reply.status, 401 | 403 | 404), "{path}: {}", reply.status);
    }
    let nobody = gateway.get(&crane(), &format!("/v2/app/blobs/{config}")).await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn a_layer_that_cannot_be_read_is_refused_with_the_reason() {
    let zeros = archive("zeros", &vec![0; 3 << 20]);
    let by_ratio = Bounds { bytes_max: 64 << 20, ratio_max: 20, ratio_counts_from: 1 << 20, ..Bounds::default() };
    let by_size = Bounds { bytes_max: 2 << 20, ratio_max: 1_000_000, ..by_ratio };
    let cases: [(&str, Bytes, Bounds, &str); 6] = [
        ("cut", gzip(&zeros).slice(..500), by_ratio, "damaged"),
        ("rubbish", Bytes::from_static(b"neither a tar archive nor compressed"), by_ratio, "is no tar archive"),
        ("xz", Bytes::from_static(b"\xfd7zXZ\0 and more"), by_ratio, "compressed with xz"),
        ("bomb", gzip(&zeros), by_ratio, "more than 20 times its size"),
        ("bomb of zstd", zstd(&zeros), by_ratio, "more than 20 times its size"),
        ("large", gzip(&zeros), by_size, "more than the 2097152 bytes"),
    ];
    for (name, layer, bounds, reason) in cases {
        let upper = archive("two", b"two");
        let stage = Stage::of([Vec::new(), upper.clone()], [layer, gzip(&upper)]).await;
        let limits = LayerLimits { bounds, ..LayerLimits::default() };
        let gateway = opted_in().layer_limits(limits).before(&stage.upstream).await;
        let refused = gateway.get(&crane(), TAGGED).await;
        let (code, message) = refused.error();
        assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"), "{name}: {message}");
        assert!(message.contains(reason) && message.contains(&stage.digest(0)), "{name}: {message}");
        assert_eq!(stage.upstream.requests_to("GET", &stage.layer_path(0)).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_chain_of_ids_that_lies_is_refused_before_a_layer_is_read() {
    let stage = Stage::new().await;
    let lying = stage.stored.rewritten(|text| text.replace("\\\"parent\\\":\\\"0", "\\\"parent\\\":\\\"f"));
    assert_ne!(lying.digest, stage.stored.digest);
    stage.upstream.put("app", "latest", &lying);
    let gateway = opted_in().before(&stage.upstream).await;
    let (_, message) = gateway.get(&crane(), TAGGED).await.error();
    assert!(message.contains("entry 1 of its history"), "{message}");
    assert!(stage.upstream.requests_to("GET", "/v2/app/blobs/*").is_empty());
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_a_502_and_the_next_pull_goes_on() {
    let stage = Stage::new().await;
    stage.upstream.when("GET", &stage.layer_path(0)).times(1).cut(1000);
    let gateway = opted_in().before(&stage.upstream).await;
    assert_eq!(gateway.get(&crane(), TAGGED).await.status, 502);
    assert_eq!(gateway.get(&crane(), TAGGED).await.status, 200);
}

#[tokio::test]
async fn other_bytes_than_the_digest_names_are_a_502() {
    let stage = Stage::new().await;
    let other = gzip(&archive("etc/other", b"other"));
    stage.upstream.when("GET", &stage.layer_path(0)).with_body(other);
    let gateway = opted_in().before(&stage.upstream).await;
    let refused = gateway.get(&crane(), TAGGED).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
}

#[tokio::test]
async fn a_client_that_waits_too_long_is_told_how_far_it_is_and_the_work_goes_on() {
    let stage = Stage::new().await;
    let gate = stage.upstream.when("GET", &stage.layer_path(0)).hold_body(1000);
    let limits = LayerLimits { derive_timeout: Duration::from_millis(50), ..LayerLimits::default() };
    let gateway = opted_in().layer_limits(limits).before(&stage.upstream).await;
    let waited = gateway.get(&crane(), TAGGED).await;
    let (code, message) = waited.error();
    assert_eq!((waited.status, code.as_str(), waited.header("retry-after")), (503, "UNAVAILABLE", Some("10")));
    assert!(message.contains("pull it again in a while"), "{message}");
    patiently("the layer to be asked for", gate.reached(1)).await;
    let (_, message) = gateway.get(&crane(), TAGGED).await.error();
    assert!(message.contains("of 2 layers"), "{message}");
    let work = gateway.service().standing().work;
    assert_eq!((work.len(), work[0].layers, work[0].repository.as_str()), (1, 2, "app"));
    assert_eq!(gateway.metric("schemabridge_layers_in_work"), 1);
    gate.open();
    let done = async {
        while gateway.get(&crane(), TAGGED).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    patiently("the work to be done", done).await;
    assert_eq!(stage.upstream.requests_to("GET", &stage.layer_path(0)).len(), 1, "the work was not begun again");
    assert!(gateway.service().standing().work.is_empty());
}

#[tokio::test]
async fn work_goes_on_when_its_client_leaves() {
    let stage = Stage::new().await;
    let gate = stage.upstream.when("GET", &stage.layer_path(0)).hold_body(1000);
    let gateway = opted_in().before(&stage.upstream).await;
    let open = crane().get(TAGGED).open(gateway.address()).await;
    patiently("the layer to be asked for", gate.reached(1)).await;
    drop(open);
    gate.open();
    let done = async {
        while gateway.metric("schemabridge_layer_reads_total{result=\"read\"}") < 2 {
            tokio::task::yield_now().await;
        }
    };
    patiently("the layers to be read", done).await;
    assert_eq!(gateway.get(&crane(), TAGGED).await.status, 200);
    assert_eq!(stage.upstream.requests_to("GET", &stage.layer_path(0)).len(), 1);
}

/// The layers are read one after the other; the process is killed while it reads the second.
#[tokio::test]
async fn a_restart_goes_on_from_the_layers_that_were_read() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let (url, store) = (stage.upstream.url(), format!("file://{}", directory.path().display()));
    let arguments = ["--upstream", &url, "--store", &store, "--upgrade-schema1", "--layers-at-once", "1"];
    let process = Process::serve(&arguments, &[]).await;
    let gates = [0, 1].map(|layer| stage.upstream.when("GET", &stage.layer_path(layer)).hold_body(10));
    let address = process.address;
    let asked = tokio::spawn(async move { crane().get(TAGGED).open(address).await.rest().await });
    // Which of the two has the one turn is open.
    let first = tokio::select! {
        () = gates[0].reached(1) => 0,
        () = gates[1].reached(1) => 1,
    };
    gates[first].open();
    patiently("the other layer to be asked for", gates[1 - first].reached(1)).await;
    let kept = async { while process.metric("schemabridge_layer_reads_total{result=\"read\"}").await < 1 {} };
    patiently("what was learnt to be kept", kept).await;
    process.kill().await;
    asked.await.unwrap();
    stage.upstream.behave();
    let process = Process::serve(&arguments, &[]).await;
    assert_eq!(process.get(&crane(), TAGGED).await.status, 200);
    assert_eq!(stage.upstream.requests_to("GET", &stage.layer_path(first)).len(), 1, "it was read before");
    assert_eq!(stage.upstream.requests_to("GET", &stage.layer_path(1 - first)).len(), 2);
}

#[tokio::test]
async fn two_replicas_that_begin_at_once_give_the_same() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let one = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let other = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let (client, asked) = (crane(), crane());
    let (left, right) = tokio::join!(one.get(&client, TAGGED), other.get(&asked, TAGGED));
    assert_eq!((left.status, left.text()), (200, right.text()));
    let config = left.json()["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(other.get(&client, &format!("/v2/app/blobs/{config}")).await.status, 200);
}

/// Whatever took it away while its document stayed: the next process that is asked for the tag makes it again.
#[tokio::test]
async fn a_config_that_is_gone_from_the_store_is_made_again() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let config = gateway.get(&crane(), TAGGED).await.json()["config"]["digest"].as_str().unwrap().to_owned();
    let path = format!("/v2/app/blobs/{config}");
    let first = gateway.get(&crane(), &path).await;
    assert_eq!(first.status, 200);
    gateway.stop().await;
    std::fs::remove_dir_all(directory.path().join("v1/configs")).unwrap();
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    assert_eq!(gateway.get(&crane(), TAGGED).await.status, 200);
    let again = gateway.get(&crane(), &path).await;
    assert_eq!((again.status, again.text()), (200, first.text()));
}

/// The stage's image as a signed schema 1: a gateway makes that of it, and it is stored in its place.
async fn signed(stage: &Stage) -> Document {
    let layers = [0, 1].map(|layer| Layer::new(Kind::Gzip, stage.layers[layer].clone()));
    let steps = stage.archives.each_ref().map(|_| serde_json::json!({"created_by": "COPY"}));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}, "history": steps,
        "rootfs": {"type": "layers", "diff_ids": stage.archives.each_ref().map(|archive| sha256(archive))},
    });
    let image = Image { config: config.to_string().into(), layers: layers.into() };
    stage.upstream.put_image("app", "latest", &image, &image.schema2());
    let made = Gateway::before(&stage.upstream).await.get(&Client::docker_1_9_1(), TAGGED).await;
    Document::signed(made.body)
}

#[tokio::test]
async fn schema_1_whose_payload_is_not_what_its_digest_names_is_a_502_before_a_layer_is_read() {
    let stage = Stage::new().await;
    let stored = signed(&stage).await;
    stage.upstream.put("app", "latest", &stored);
    let other = stored.text().replace("COPY", "ROB ");
    stage.upstream.when("GET", &format!("/v2/app/manifests/{}", stored.digest)).with_body(other);
    let gateway = opted_in().before(&stage.upstream).await;
    let refused = gateway.get(&crane(), TAGGED).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    for layer in 0..2 {
        assert!(stage.upstream.requests_to("GET", &stage.layer_path(layer)).is_empty());
    }
}

/// Registries sign what they store anew, and nobody who pulls depends on it.
#[tokio::test]
async fn a_signature_that_does_not_fit_is_logged_and_no_reason_to_refuse() {
    let stage = Stage::new().await;
    let stored = signed(&stage).await;
    for (forged, fits) in [(stored.clone(), true), (with_another_signature(&stored), false)] {
        assert_eq!(forged.digest, stored.digest, "its payload is the same");
        stage.upstream.put("app", "latest", &forged);
        let url = stage.upstream.url();
        let process = Process::serve(&["--upstream", &url, "--store", "memory:", "--upgrade-schema1"], &[]).await;
        let reply = process.get(&crane(), TAGGED).await;
        assert_eq!((reply.status, reply.content_type()), (200, OCI), "{}", reply.text());
        let words = "the signature of a stored schema 1 does not hold";
        assert_eq!(process.lines_logged(words).await, usize::from(!fits), "{}", process.log());
    }
}

/// The signature over another payload, by the same key.
fn with_another_signature(document: &Document) -> Document {
    let at = document.text().find("\"signature\": \"").expect("it is signed") + "\"signature\": \"".len();
    let mut text = document.text().to_owned();
    let other = if text[at..].starts_with('A') { "B" } else { "A" };
    text.replace_range(at..=at, other);
    Document::signed(text.into())
}

/// However many layers there are, and however many images they are of.
#[tokio::test]
async fn no_more_layers_are_in_work_than_the_operator_lets() {
    let upstream = Upstream::start().await;
    for (repository, seed) in [("one", 0), ("two", 3)] {
        let layers: Vec<String> = (seed..seed + 3)
            .map(|seed| upstream.contents().put_blob(repository, gzip(&archive("a", &noise(seed, 10_000)))))
            .collect();
        upstream.put(repository, "latest", &schema1(&layers.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    let gate = upstream.when("GET", "/v2/*/blobs/*").hold_body(100);
    let limits = LayerLimits { at_once: NonZeroUsize::new(2).unwrap(), ..LayerLimits::default() };
    let gateway = opted_in().layer_limits(limits).before(&upstream).await;
    let (left, right) = (crane(), crane());
    let both = async {
        tokio::join!(gateway.get(&left, "/v2/one/manifests/latest"), gateway.get(&right, "/v2/two/manifests/latest"))
    };
    let watched = async {
        patiently("two layers to be read", gate.reached(2)).await;
        // A third would have been asked for by the time that something else was answered.
        assert_eq!(gateway.get(&crane(), "/v2/one/tags/list").await.status, 200);
        assert_eq!(gateway.metric("schemabridge_layers_in_work"), 2);
        assert_eq!(upstream.requests_to("GET", "/v2/*/blobs/*").len(), 2);
        gate.open();
    };
    let ((one, two), ()) = tokio::join!(both, watched);
    assert_eq!((one.status, two.status), (200, 200));
}
