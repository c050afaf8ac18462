//! Gzip layers in stores that replicas share: a directory, and buckets of real servers.

use std::{net::SocketAddr, sync::Barrier, thread};

use serde_json::Value;

use crate::{
    guises::READS_SCHEMA_2,
    http,
    images::{self, Blob, Image, Twin},
    layers,
    registries::{Gateway, Registry, said},
    stores::Store,
};

const REPOSITORY: &str = "test/layers";
const TAG: &str = "v1";
const TRANSCODE: [&str; 2] = ["--transcode", "zstd"];

/// An archive that takes a while: the digits of hashes, of which no compressor makes less than half.
fn archive() -> Vec<u8> {
    let digits = (0..100_000_u32).map(|number| images::hexadecimal(&number.to_le_bytes())).collect::<String>();
    layers::tar(&[("data/digits", &digits)])
}

/// A registry with an image whose layer is zstd.
fn registry_with(archive: &[u8]) -> Registry {
    let registry = Registry::docker_registry();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [images::digest(archive)]},
    });
    let config = Blob::new(serde_json::to_vec(&config).unwrap());
    let image = Image { name: "zstd".to_owned(), config, layers: vec![Blob::new(layers::zstd(archive))] };
    for blob in image.blobs() {
        registry.push_blob(REPOSITORY, blob);
    }
    let manifest = image.manifest_with_layers(Twin::Oci, "application/vnd.oci.image.layer.v1.tar+zstd");
    let put = registry.put_manifest(REPOSITORY, TAG, Twin::Oci.media_type(), &manifest);
    assert_eq!(put.status, 201, "{}", put.text());
    registry
}

fn ask(of: SocketAddr, path: &str) -> http::Answer {
    let answer = READS_SCHEMA_2.ask(of, &format!("/v2/{REPOSITORY}/{path}"));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

/// The gzip layer that a manifest names, as this gateway serves it.
fn gzip_layer(of: SocketAddr, manifest: &[u8]) -> Vec<u8> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let layer = ask(of, &format!("blobs/{digest}")).body;
    assert_eq!(images::digest(&layer), digest);
    layer
}

fn gzip_layers_in(store: &Store) -> Value {
    let counted: Value = serde_json::from_str(&store.told(&["stat", "--json"])).unwrap();
    counted["transcoded layers"]["objects"].clone()
}

/// All replicas are asked at the same moment, and for nothing that was made before.
fn assert_replicas_make_one_layer(store: &Store) {
    let registry = registry_with(&archive());
    let gateways: [Gateway; 3] = std::array::from_fn(|_| Gateway::start_on_with(&registry, store, &TRANSCODE));
    let start = Barrier::new(gateways.len());
    let manifests: Vec<Vec<u8>> = thread::scope(|scope| {
        let asking = gateways.each_ref().map(|gateway| {
            scope.spawn(|| {
                start.wait();
                ask(gateway.address, "manifests/v1").body
            })
        });
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let first = gzip_layer(gateways[0].address, &manifests[0]);
    for (gateway, manifest) in gateways.iter().zip(&manifests) {
        assert_eq!(String::from_utf8_lossy(manifest), String::from_utf8_lossy(&manifests[0]));
        assert!(gzip_layer(gateway.address, manifest) == first, "a replica serves other bytes");
    }
    assert_eq!(gzip_layers_in(store), 1, "losers take theirs away");
    let verified = store.told(&["verify"]);
    assert!(verified.contains("all sound"), "{verified}");
}

#[test]
fn replicas_on_a_directory_make_one_gzip_layer() {
    assert_replicas_make_one_layer(&Store::directory());
}

#[test]
fn replicas_on_a_bucket_of_s3_make_one_gzip_layer() {
    let store = Store::s3();
    assert_replicas_make_one_layer(&store);
    assert_eq!(store.unfinished_uploads(), 0);
}

#[test]
fn replicas_on_a_container_of_azure_make_one_gzip_layer() {
    assert_replicas_make_one_layer(&Store::azure());
}

/// Killed once something of the layer is on its way, and asked again.
fn assert_a_kill_loses_nothing(store: &Store, is_under_way: impl FnMut() -> bool) {
    let registry = registry_with(&archive());
    let mut gateway = Gateway::start_on_with(&registry, store, &TRANSCODE);
    let address = gateway.address;
    let target = format!("/v2/{REPOSITORY}/manifests/v1");
    // It breaks off.
    let asked = thread::spawn(move || {
        let headers = [("User-Agent", READS_SCHEMA_2.user_agent), ("Accept", READS_SCHEMA_2.accept.unwrap())];
        http::ask(address, "GET", &target, &headers, b"").map(|answer| answer.status)
    });
    gateway.wait_for_line("begin work", |line| said(line, "message") == "work on layers begins");
    gateway.wait_until("begin an upload", is_under_way);
    gateway.kill();
    assert!(asked.join().unwrap().is_err(), "it was through before it was killed");
    assert!(matches!(gzip_layers_in(store).as_u64(), None | Some(0)), "half a layer has a name");

    let gateway = Gateway::start_on_with(&registry, store, &TRANSCODE);
    let manifest = ask(gateway.address, "manifests/v1").body;
    gzip_layer(gateway.address, &manifest);
    assert_eq!(gzip_layers_in(store), 1);
    let verified = store.told(&["verify"]);
    assert!(verified.contains("all sound"), "{verified}");
}

#[test]
fn kill_9_in_the_middle_of_an_upload_to_s3_loses_nothing() {
    let store = Store::s3();
    assert_a_kill_loses_nothing(&store, || store.unfinished_uploads() > 0);
}

#[test]
fn kill_9_in_the_middle_of_an_upload_to_azure_loses_nothing() {
    assert_a_kill_loses_nothing(&Store::azure(), || true);
}

#[test]
fn kill_9_in_the_middle_of_an_upload_to_a_directory_loses_nothing() {
    assert_a_kill_loses_nothing(&Store::directory(), || true);
}
