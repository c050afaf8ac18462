//! Layers of zstd for clients and formats that cannot read it, where the operator opted in: gzip layers with the same
//! archives, served by digest to whoever may see what they stand for.

use std::sync::Arc;
use std::time::Duration;

use schemabridge::gateway::LayerLimits;
use schemabridge::image::layer::GzipLayer;
use schemabridge::store::{Location, Maker, Store};
use schemabridge::transcode::Bounds;
use schemabridge::translate::LayerPolicy;

use crate::support::basic;
use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Image, Kind, Layer, OCI, SCHEMA2, index};
use crate::support::layers::{archive, gunzip, gzip, image, noise, zstd};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{patiently, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";

struct Stage {
    upstream: Upstream,
    archives: [Vec<u8>; 2],
    image: Image,
}

impl Stage {
    /// An OCI image with a zstd layer below a gzip one.
    async fn new() -> Self {
        let archives = [archive("etc/one", &noise(1, 700_000)), archive("etc/two", b"two")];
        let image = image("amd64", &[(Kind::Zstd, &archives[0]), (Kind::Gzip, &archives[1])]);
        let upstream = Upstream::start().await;
        upstream.put_image("app", "latest", &image, &image.oci());
        Self { upstream, archives, image }
    }

    fn zstd_path(&self) -> String {
        format!("/v2/app/blobs/{}", self.image.layers[0].digest)
    }

    fn reads_of_zstd(&self) -> usize {
        self.upstream.requests_to("GET", &self.zstd_path()).len()
    }
}

fn opted_in() -> Setup {
    Setup::default().transcode_zstd()
}

/// The path of the layer that stands for the zstd one.
fn gzip_path(manifest: &Reply) -> String {
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    format!("/v2/app/blobs/{}", manifest.json()["layers"][0]["digest"].as_str().unwrap())
}

#[tokio::test]
async fn every_target_without_zstd_gets_gzip_layers_with_the_same_archives() {
    let stage = Stage::new().await;
    let gateway = opted_in().before(&stage.upstream).await;
    let mut gzip = Vec::new();
    for (client, media_type) in
        [(Client::docker_20_10(), OCI), (Client::docker_17(), SCHEMA2), (Client::only(SCHEMA2), SCHEMA2)]
    {
        let reply = gateway.manifest(&client, TAGGED).await;
        assert_eq!((reply.status, reply.content_type()), (200, media_type), "{}", reply.text());
        let manifest = reply.json();
        assert_eq!(manifest["config"]["digest"], stage.image.config_digest(), "the image ID stays");
        assert_eq!(manifest["layers"][1]["digest"], stage.image.layers[1].digest);
        let layer = gateway.get(&client, &gzip_path(&reply)).await;
        assert_eq!(layer.status, 200);
        assert_eq!(manifest["layers"][0]["digest"], sha256(&layer.body));
        assert_eq!(manifest["layers"][0]["size"], layer.body.len());
        assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with("gzip"));
        assert_eq!(gunzip(&layer.body), stage.archives[0]);
        gzip.push(layer.body);
    }
    assert!(gzip.iter().all(|other| *other == gzip[0]));
    let old = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await.json();
    assert_eq!(old["fsLayers"][1]["blobSum"], sha256(&gzip[0]));
    assert_eq!(stage.reads_of_zstd(), 1, "it was read once for all of them");
    // Who reads zstd gets what is stored.
    assert_eq!(gateway.manifest(&Client::containerd_1_6(), TAGGED).await.digest(), stage.image.oci().digest);
}

#[tokio::test]
async fn a_gzip_layer_is_served_in_parts_and_its_length_is_said() {
    let stage = Stage::new().await;
    let gateway = opted_in().before(&stage.upstream).await;
    let client = Client::docker_20_10();
    let path = gzip_path(&gateway.get(&client, TAGGED).await);
    let whole = gateway.get(&client, &path).await;
    let length = whole.body.len();
    assert_eq!(whole.header("content-length"), Some(length.to_string().as_str()));
    let head = gateway.head(&client, &path).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.to_string().as_str())));
    let part = gateway.send(&client.get(&path).header("range", "bytes=100-299")).await;
    assert_eq!((part.status, part.body.as_ref()), (206, &whole.body[100..300]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 100-299/{length}").as_str()));
    let rest = gateway.send(&client.get(&path).header("range", &format!("bytes={}-", length - 5))).await;
    assert_eq!((rest.status, rest.body.as_ref()), (206, &whole.body[length - 5..]));
    let beyond = gateway.send(&client.get(&path).header("range", &format!("bytes={length}-"))).await;
    assert_eq!(beyond.status, 416);
}

#[tokio::test]
async fn without_the_switch_the_refusal_names_it() {
    let stage = Stage::new().await;
    let gateway = Gateway::before(&stage.upstream).await;
    for client in [Client::docker_20_10(), Client::docker_17(), Client::docker_1_9_1()] {
        let refused = gateway.get(&client, TAGGED).await;
        let (_, message) = refused.error();
        assert_eq!(refused.status, 406);
        assert!(message.contains("--transcode zstd"), "{message}");
    }
    assert_eq!(stage.reads_of_zstd(), 0);
}

/// In an index an image with gzip layers is taken before any are made, and others of it are made where there is none.
#[tokio::test]
async fn a_gzip_sibling_is_taken_before_any_layer_is_made() {
    let stage = Stage::new().await;
    let sibling = image("amd64", &[(Kind::Gzip, &stage.archives[1])]);
    stage.upstream.put_image("app", "sibling", &sibling, &sibling.oci());
    let both = index(&[(&stage.image.oci(), "linux/amd64"), (&sibling.oci(), "linux/amd64")]);
    let alone = index(&[(&stage.image.oci(), "linux/amd64"), (&sibling.oci(), "linux/arm64")]);
    for client in [Client::docker_20_10(), Client::docker_17(), Client::docker_1_9_1()] {
        let gateway = opted_in().before(&stage.upstream).await;
        stage.upstream.put("app", "latest", &both);
        let reply = gateway.manifest(&client, TAGGED).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        if let Some(entries) = reply.json()["manifests"].as_array() {
            assert_eq!(entries.len(), 1);
        }
        assert_eq!(stage.reads_of_zstd(), 0);
    }
    stage.upstream.put("app", "latest", &alone);
    for client in [Client::docker_20_10(), Client::docker_17()] {
        let gateway = opted_in().before(&stage.upstream).await;
        let reply = gateway.manifest(&client, TAGGED).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let entries = reply.json()["manifests"].as_array().unwrap().clone();
        assert_eq!(entries.len(), 2);
        let child = entries[0]["digest"].as_str().unwrap().to_owned();
        let child = gateway.manifest(&client, &format!("/v2/app/manifests/{child}")).await;
        let layer = gateway.get(&client, &gzip_path(&child)).await;
        assert_eq!(gunzip(&layer.body), stage.archives[0]);
    }
}

#[tokio::test]
async fn a_gzip_layer_is_only_for_who_may_see_what_it_stands_for() {
    let stage = Stage::new().await;
    let (ann, bob) = (basic("ann", "1"), basic("bob", "2"));
    let other = Image::small("others");
    stage.upstream.put_image("others", "latest", &other, &other.oci());
    stage.upstream.contents().close("Basic realm=\"registry\"");
    stage.upstream.contents().admit(&ann, "app");
    stage.upstream.contents().admit(&bob, "others");
    let gateway = opted_in().before(&stage.upstream).await;
    let client = Client::docker_20_10();
    let get = |path: &str, who: &str| client.get(path).header("authorization", who);
    let path = gzip_path(&gateway.send(&get(TAGGED, &ann)).await);
    assert_eq!(gateway.send(&get(&path, &ann)).await.status, 200);
    let elsewhere = path.replace("/app/", "/others/");
    for (path, who) in [(&path, &bob), (&elsewhere, &bob), (&elsewhere, &ann)] {
        let reply = gateway.send(&get(path, who)).await;
        assert!(matches!(reply.status, 401 | 403 | 404), "{path}: {}", reply.status);
    }
}

#[tokio::test]
async fn bytes_that_were_evicted_are_made_again() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let client = Client::docker_20_10();
    let path = gzip_path(&gateway.get(&client, TAGGED).await);
    let first = gateway.get(&client, &path).await.body;
    std::fs::remove_dir_all(directory.path().join("v1/layers")).unwrap();
    let head = gateway.head(&client, &path).await;
    assert_eq!((head.status, stage.reads_of_zstd()), (200, 1));
    assert_eq!(gateway.get(&client, &path).await.body, first);
    assert_eq!(stage.reads_of_zstd(), 2);
}

/// Together they are more than a number of bytes can be.
#[tokio::test]
async fn sizes_that_nothing_has_stop_no_work() {
    let archives = ["one", "two", "three"].map(|name| archive(name, name.as_bytes()));
    let mut image = image("amd64", &archives.each_ref().map(|archive| (Kind::Zstd, archive.as_slice())));
    for layer in &mut image.layers {
        layer.size = usize::try_from(i64::MAX).unwrap();
    }
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = opted_in().before(&upstream).await;
    let reply = gateway.get(&Client::docker_20_10(), TAGGED).await;
    let layer = gateway.get(&Client::docker_20_10(), &gzip_path(&reply)).await;
    assert_eq!(reply.json()["layers"][0]["size"], layer.body.len());
    assert_eq!(gunzip(&layer.body), archives[0]);
}

/// An older version made it, with another compressor.
#[tokio::test]
async fn what_can_be_made_by_nobody_again_is_promised_to_nobody() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&Location::Directory(directory.path().to_owned())).unwrap();
    let bytes = gzip(&stage.archives[0]);
    let size = bytes.len() as u64;
    let [digest, diff_id, source] =
        [&sha256(&bytes), &sha256(&stage.archives[0]), &stage.image.layers[0].digest].map(|text| text.parse().unwrap());
    let older = Maker::new(LayerPolicy::Gzip, "an older compressor");
    let mut upload = store.begin_upload(&source, &older, None).await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    upload.finish(GzipLayer { digest, size, diff_id }).await.unwrap();
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let (client, path) = (Client::docker_20_10(), format!("/v2/app/blobs/{}", sha256(&bytes)));
    assert_eq!(gateway.head(&client, &path).await.status, 200);
    assert_eq!(gateway.get(&client, &path).await.body, bytes);
    std::fs::remove_dir_all(directory.path().join("v1/layers")).unwrap();
    assert_eq!(gateway.head(&client, &path).await.status, 404);
    assert_eq!(gateway.get(&client, &path).await.status, 404);
}

#[tokio::test]
async fn an_archive_that_the_config_does_not_name_is_refused() {
    let stage = Stage::new().await;
    let mut lying = stage.image.clone();
    let named = sha256(&stage.archives[0]);
    lying.config = String::from_utf8(lying.config.to_vec()).unwrap().replace(&named, &sha256(b"other")).into();
    stage.upstream.put_image("app", "latest", &lying, &lying.oci());
    let gateway = opted_in().before(&stage.upstream).await;
    let refused = gateway.get(&Client::docker_20_10(), TAGGED).await;
    let (_, message) = refused.error();
    assert_eq!(refused.status, 406);
    assert!(message.contains("holds an archive with the digest"), "{message}");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_leaves_nothing_under_a_name() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    stage.upstream.when("GET", &stage.zstd_path()).times(1).cut(1000);
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    assert_eq!(gateway.get(&Client::docker_20_10(), TAGGED).await.status, 502);
    assert!(!directory.path().join("v1/layers").exists());
    assert_eq!(gateway.get(&Client::docker_20_10(), TAGGED).await.status, 200);
}

#[tokio::test]
async fn two_replicas_that_make_the_same_at_once_serve_one_layer() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let replica = || opted_in().store_in(directory.path()).before(&stage.upstream);
    let (one, other) = (replica().await, replica().await);
    let (client, again) = (Client::docker_20_10(), Client::docker_20_10());
    let (left, right) = tokio::join!(one.get(&client, TAGGED), other.get(&again, TAGGED));
    assert_eq!((left.status, left.text()), (200, right.text()));
    let path = gzip_path(&left);
    assert_eq!(one.get(&client, &path).await.body, other.get(&client, &path).await.body);
}

#[tokio::test]
async fn a_client_that_waits_too_long_comes_again() {
    let stage = Stage::new().await;
    let gate = stage.upstream.when("GET", &stage.zstd_path()).hold_body(1000);
    let limits = LayerLimits { derive_timeout: Duration::from_millis(50), ..LayerLimits::default() };
    let gateway = opted_in().layer_limits(limits).before(&stage.upstream).await;
    let far = format!("0 of 1 layers and 1000 of {} bytes", stage.image.layers[0].size);
    let told = async {
        loop {
            let waited = gateway.get(&Client::docker_20_10(), TAGGED).await;
            assert_eq!(waited.status, 503);
            if waited.error().1.contains(&far) {
                break;
            }
        }
    };
    patiently("to be told how far it is", told).await;
    gate.open();
    let done = async {
        while gateway.get(&Client::docker_20_10(), TAGGED).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    patiently("the layer to be made", done).await;
    assert_eq!(stage.reads_of_zstd(), 1);
}

/// Stops the process between two steps of a transcoding, kills it, and asks the next.
#[tokio::test]
async fn kill_9_between_the_steps_of_a_transcoding_loses_nothing_that_was_handed_out() {
    for point in ["staged:1", "staged:2", "layer-uploaded:1", "transcoding-written:1", "recipe-written:1"] {
        let stage = Stage::new().await;
        let directory = tempfile::tempdir().unwrap();
        let (url, store) = (stage.upstream.url(), format!("file://{}", directory.path().display()));
        let arguments = ["--upstream", &url, "--store", &store, "--transcode", "zstd"];
        let mut process = Process::serve(&[&arguments[..], &["--fault-point", point]].concat(), &[]).await;
        let address = process.address;
        let asked = tokio::spawn(async move { Client::docker_20_10().get(TAGGED).open(address).await.rest().await });
        let said = patiently("the fault point", process.says()).await;
        assert!(said.is_some_and(|said| said.starts_with("fault point")), "{point}");
        process.kill().await;
        asked.await.unwrap();
        let process = Process::serve(&arguments, &[]).await;
        let client = Client::docker_20_10();
        let reply = process.get(&client, TAGGED).await;
        let layer = process.get(&client, &gzip_path(&reply)).await;
        assert_eq!(gunzip(&layer.body), stage.archives[0], "{point}");
    }
}

#[tokio::test]
async fn a_derived_digest_survives_a_restart_and_the_switch() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let client = Client::docker_20_10();
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let handed_out = gateway.get(&client, TAGGED).await;
    gateway.stop().await;
    std::fs::remove_dir_all(directory.path().join("v1/documents")).unwrap();
    let gateway = Setup::default().store_in(directory.path()).before(&stage.upstream).await;
    let again = gateway.manifest(&client, &format!("/v2/app/manifests/{}", handed_out.digest())).await;
    assert_eq!(again.text(), handed_out.text());
    assert_eq!(gunzip(&gateway.get(&client, &gzip_path(&again)).await.body), stage.archives[0]);
    assert_eq!(stage.reads_of_zstd(), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_have_the_layer_read_once() {
    let stage = Stage::new().await;
    let gateway = Arc::new(opted_in().before(&stage.upstream).await);
    let asked = (0..20).map(|number| {
        let gateway = Arc::clone(&gateway);
        let client = if number % 2 == 0 { Client::docker_20_10() } else { Client::docker_17() };
        tokio::spawn(async move { gateway.get(&client, TAGGED).await.status })
    });
    for status in futures_util::future::join_all(asked).await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(stage.reads_of_zstd(), 1);
}

/// Nothing can be staged where a file stands in the place of the folder, as on a disk that is full.
#[tokio::test]
async fn a_store_that_takes_no_bytes_is_a_503_and_the_next_pull_goes_on() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = opted_in().store_in(directory.path()).before(&stage.upstream).await;
    let staging = directory.path().join("v1/staging");
    let _absent = std::fs::remove_dir_all(&staging);
    std::fs::create_dir_all(staging.parent().unwrap()).unwrap();
    std::fs::write(&staging, "").unwrap();
    let refused = gateway.get(&Client::docker_20_10(), TAGGED).await;
    assert_eq!((refused.status, refused.error().1.contains("store")), (503, true), "{}", refused.text());
    std::fs::remove_file(&staging).unwrap();
    std::fs::create_dir(&staging).unwrap();
    let reply = gateway.get(&Client::docker_20_10(), TAGGED).await;
    let layer = gateway.get(&Client::docker_20_10(), &gzip_path(&reply)).await;
    assert_eq!(gunzip(&layer.body), stage.archives[0]);
}

#[tokio::test]
async fn a_layer_that_cannot_be_unpacked_is_refused_with_the_reason_and_leaves_nothing() {
    let zeros = archive("zeros", &vec![0; 3 << 20]);
    let by_ratio = Bounds { bytes_max: 64 << 20, ratio_max: 20, ratio_counts_from: 1 << 20, ..Bounds::default() };
    let wide = Bounds { ratio_max: 1_000_000, ..by_ratio };
    let by_size = Bounds { bytes_max: 2 << 20, ..wide };
    let whole = zstd(&zeros);
    let cases = [
        ("cut", whole.slice(..whole.len() - 5), wide, "damaged"),
        ("something behind it", [&whole[..], b"rubbish"].concat().into(), wide, "damaged"),
        ("called zstd", gzip(&zeros), by_ratio, "is not compressed with zstd"),
        ("bomb", whole.clone(), by_ratio, "more than 20 times its size"),
        ("large", whole, by_size, "more than the 2097152 bytes"),
    ];
    for (name, layer, bounds, reason) in cases {
        let (upstream, directory) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let mut bad = image("amd64", &[(Kind::Zstd, &zeros)]);
        bad.layers = vec![Layer::new(Kind::Zstd, layer)];
        upstream.put_image("app", "latest", &bad, &bad.oci());
        let limits = LayerLimits { bounds, ..LayerLimits::default() };
        let gateway = opted_in().layer_limits(limits).store_in(directory.path()).before(&upstream).await;
        let refused = gateway.get(&Client::docker_20_10(), TAGGED).await;
        let (code, message) = refused.error();
        assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"), "{name}: {message}");
        assert!(message.contains(reason) && message.contains(&bad.layers[0].digest), "{name}: {message}");
        assert!(!directory.path().join("v1/layers").exists(), "{name}");
        let staged = std::fs::read_dir(directory.path().join("v1/staging")).map_or(0, Iterator::count);
        assert_eq!(staged, 0, "{name}");
    }
}

/// The page, the metrics and the log say how far it is, to the operator whose client has left.
#[tokio::test]
async fn work_goes_on_without_its_client_where_the_operator_sees_it() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let (url, store) = (stage.upstream.url(), format!("file://{}", directory.path().display()));
    let process = Process::serve(&["--upstream", &url, "--store", &store, "--transcode", "zstd"], &[]).await;
    let gate = stage.upstream.when("GET", &stage.zstd_path()).hold_body(1000);
    let open = Client::docker_20_10().get(TAGGED).open(process.address).await;
    patiently("the layer to be asked for", gate.reached(1)).await;
    drop(open);
    process.logged("work on layers begins").await;
    let seen = async {
        loop {
            let shown = Client::curl().get("/api/status").send(process.admin).await.json();
            let work = &shown["work"][0];
            if work["bytes_done"] == 1000 {
                return work.clone();
            }
        }
    };
    let work = patiently("the page to say how far it is", seen).await;
    assert_eq!((&work["kind"], &work["repository"]), (&"transcode".into(), &"app".into()), "{work}");
    assert_eq!((&work["layers"], &work["layers_done"]), (&1.into(), &0.into()), "{work}");
    assert_eq!(work["bytes"], stage.image.layers[0].size, "{work}");
    assert_eq!(process.metric("schemabridge_layers_in_work").await, 1);
    gate.open();
    process.logged("work on layers is done").await;
    let reply = process.get(&Client::docker_20_10(), TAGGED).await;
    assert_eq!(gunzip(&process.get(&Client::docker_20_10(), &gzip_path(&reply)).await.body), stage.archives[0]);
    assert_eq!(stage.reads_of_zstd(), 1, "the second request finds what the first began");
}
