//! Work on layers that runs into trouble: what whoever waits is told, what is not tried again, and what is kept.

use std::time::Duration;

use bytes::Bytes;
use schemabridge::gateway::{LayerLimits, LayerPace};
use schemabridge::store::blobs::BlobCacheOptions;
use schemabridge::transcode::Bounds;

use crate::support::basic;
use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Kind, OCI};
use crate::support::layers::{archive, gzip, image, noise, schema1, zstd};
use crate::support::upstream::Upstream;
use crate::support::{patiently, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";

fn new_client() -> Client {
    Client::new("crane/v0.21.9 go-containerregistry/v0.21.9", &[OCI, "application/vnd.oci.image.index.v1+json"])
}

/// A stored schema 1 over these layers, the lowest first, and the paths of the layers.
async fn stored<const LAYERS: usize>(layers: [Bytes; LAYERS]) -> (Upstream, [String; LAYERS]) {
    let upstream = Upstream::start().await;
    let digests = layers.map(|layer| upstream.contents().put_blob("app", layer));
    upstream.put("app", "latest", &schema1(&digests.each_ref().map(String::as_str)));
    (upstream, digests.map(|digest| format!("/v2/app/blobs/{digest}")))
}

fn upgrading() -> Setup {
    Setup::default().upgrade_schema1()
}

fn layer(seed: u8) -> Bytes {
    gzip(&archive("file", &noise(seed, 100_000)))
}

#[tokio::test]
async fn a_layer_that_drips_is_a_504_and_holds_up_nobody() {
    let (upstream, [path]) = stored([layer(1)]).await;
    let gate = upstream.when("GET", &path).times(1).hold_body(1000);
    let pace = LayerPace { bytes_per_second_min: 1 << 20, window: Duration::from_millis(100) };
    let gateway = upgrading().layer_limits(LayerLimits { pace, ..LayerLimits::default() }).before(&upstream).await;
    let slow = gateway.get(&new_client(), TAGGED).await;
    let (code, message) = slow.error();
    assert_eq!((slow.status, code.as_str()), (504, "UNAVAILABLE"), "{message}");
    assert!(message.contains("of a layer in") && message.contains("at least 104857"), "{message}");
    patiently("the layer to be given up", gate.abandoned(1)).await;
    assert_eq!(gateway.get(&new_client(), TAGGED).await.status, 200, "there is a turn again");
}

/// The login is good for the document and the first layer, and runs out before the second is asked for.
#[tokio::test]
async fn a_login_that_runs_out_is_said_and_the_next_pull_goes_on_from_what_was_read() {
    let (upstream, paths) = stored([layer(1), layer(2)]).await;
    let (old, new) = (basic("ann", "old"), basic("ann", "new"));
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&old, "app");
    upstream.contents().admit(&new, "app");
    let one_by_one = LayerLimits { at_once: std::num::NonZeroUsize::MIN, ..LayerLimits::default() };
    let gateway = upgrading().layer_limits(one_by_one).before(&upstream).await;
    let gates = paths.each_ref().map(|path| upstream.when("GET", path).times(1).hold_body(1000));
    let pull = async |login: &str| gateway.send(&new_client().get(TAGGED).header("authorization", login)).await;
    let asked = async {
        let refused = pull(&old).await;
        let (code, message) = refused.error();
        assert_eq!((refused.status, code.as_str()), (401, "UNAUTHORIZED"), "{message}");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"registry\""));
        assert!(message.contains("new login") && message.contains("is kept"), "{message}");
    };
    let expired = async {
        // Which of the two has the one turn is open.
        let first = tokio::select! {
            () = gates[0].reached(1) => 0,
            () = gates[1].reached(1) => 1,
        };
        upstream.contents().change_the_locks();
        upstream.contents().admit(&new, "app");
        gates[first].open();
        first
    };
    let ((), first) = tokio::join!(asked, expired);
    gates[1 - first].open();
    assert_eq!(pull(&new).await.status, 200);
    assert_eq!(upstream.requests_to("GET", &paths[first]).len(), 1, "it was read before");
    assert_eq!(upstream.requests_to("GET", &paths[1 - first]).len(), 2, "refused, then read");
}

async fn refused_for(gateway: &Gateway, reason: &str) -> Reply {
    let refused = gateway.get(&new_client(), TAGGED).await;
    let (code, message) = refused.error();
    assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"), "{message}");
    assert!(message.contains(reason), "{message}");
    refused
}

#[tokio::test]
async fn a_bad_layer_is_read_once_however_often_it_is_asked_for() {
    let bomb = gzip(&archive("zeros", &vec![0; 3 << 20]));
    let cut = layer(2).slice(..1000);
    for (bad, reason) in
        [(cut, "damaged"), (Bytes::from_static(b"no archive"), "no tar archive"), (bomb, "times its size")]
    {
        let (upstream, [good, bad]) = stored([layer(1), bad]).await;
        let bounds = Bounds { bytes_max: 64 << 20, ratio_max: 20, ratio_counts_from: 1 << 20, ..Bounds::default() };
        let gateway =
            upgrading().layer_limits(LayerLimits { bounds, ..LayerLimits::default() }).before(&upstream).await;
        let first = refused_for(&gateway, reason).await;
        let second = refused_for(&gateway, reason).await;
        assert_eq!(first.text(), second.text());
        assert_eq!(upstream.requests_to("GET", &bad).len(), 1, "{reason}");
        assert!(upstream.requests_to("GET", &good).len() <= 1, "nothing else of the image is read for nothing");
    }
}

#[tokio::test]
async fn a_bad_layer_is_transcoded_once_however_often_it_is_asked_for() {
    let upstream = Upstream::start().await;
    let archive = archive("file", b"content");
    let mut lying = image("amd64", &[(Kind::Zstd, &archive)]);
    let config = String::from_utf8(lying.config.to_vec()).unwrap();
    lying.config = config.replace(&sha256(&archive), &sha256(b"another archive")).into();
    upstream.put_image("app", "latest", &lying, &lying.oci());
    let path = format!("/v2/app/blobs/{}", sha256(&zstd(&archive)));
    let gateway = Setup::default().transcode_zstd().before(&upstream).await;
    for _ in 0..2 {
        let refused = gateway.get(&Client::docker_20_10(), TAGGED).await;
        assert!(refused.error().1.contains("the config names"), "{}", refused.text());
    }
    assert_eq!(upstream.requests_to("GET", &path).len(), 1);
}

/// What cannot be unpacked because the upstream sent something else is no fault of the layer.
#[tokio::test]
async fn what_the_upstream_mangled_is_its_fault_and_is_read_again() {
    let (upstream, [path]) = stored([layer(1)]).await;
    let whole = layer(1);
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 2] ^= 0x10;
    let gateway = upgrading().before(&upstream).await;
    for mangled in [Bytes::from(flipped), whole.slice(..whole.len() / 2), Bytes::from_static(b"<html>try later</html>")]
    {
        upstream.when("GET", &path).times(1).with_body(mangled);
        let refused = gateway.get(&new_client(), TAGGED).await;
        assert_eq!(refused.status, 502, "{}", refused.text());
    }
    assert_eq!(gateway.get(&new_client(), TAGGED).await.status, 200);
}

/// A layer that a client pulled before is in the blob cache. Whoever may see it need not have it come again.
#[tokio::test]
async fn a_layer_that_is_kept_is_not_read_from_the_upstream_again() {
    let (upstream, [path]) = stored([layer(1)]).await;
    let (ann, bob) = (basic("ann", "1"), basic("bob", "2"));
    upstream.contents().close("Basic realm=\"registry\"");
    upstream.contents().admit(&ann, "app");
    let folder = tempfile::tempdir().unwrap();
    let cache = BlobCacheOptions::new(folder.path().to_owned(), 100 << 20);
    let gateway = upgrading().blob_cache(cache).before(&upstream).await;
    let ask =
        async |target: &str, login: &str| gateway.send(&new_client().get(target).header("authorization", login)).await;
    let pulled = async {
        while gateway.metric("schemabridge_blob_cache_fills_total{result=\"kept\"}") == 0 {
            assert_eq!(ask(&path, &ann).await.status, 200);
        }
    };
    patiently("the layer to be kept", pulled).await;
    let reads = upstream.requests_to("GET", &path).len();
    assert_eq!(ask(TAGGED, &bob).await.status, 401);
    assert_eq!(ask(TAGGED, &ann).await.status, 200);
    assert_eq!(upstream.requests_to("GET", &path).len(), reads);
    assert_eq!(upstream.requests_to("HEAD", &path).last().unwrap().header("authorization"), Some(ann.as_str()));
}
