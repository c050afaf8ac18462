//! Gzip layers whose store is a bucket: uploaded in parts, decided between replicas by a record, and gone without a trace where
//! they came to nothing.

use std::time::{Duration, SystemTime};

use crate::support::bucket::{Bucket, refusal};
use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Image, Kind};
use crate::support::layers::{archive, gunzip, image, noise};
use crate::support::patiently;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const TRANSCODE: [&str; 2] = ["--transcode", "zstd"];
/// What docs/store.md says a part has.
const PART_BYTES: usize = 8 << 20;

struct Stage {
    upstream: Upstream,
    bucket: Bucket,
    archive: Vec<u8>,
    image: Image,
}

impl Stage {
    async fn new() -> Self {
        Self::of(300_000).await
    }

    /// A layer of zstd whose gzip layer takes two parts.
    async fn of_two_parts() -> Self {
        Self::of(PART_BYTES + (1 << 20)).await
    }

    async fn of(length: usize) -> Self {
        let archive = archive("etc/one", &noise(1, length));
        let image = image("amd64", &[(Kind::Zstd, &archive)]);
        let (upstream, bucket) = (Upstream::start().await, Bucket::start().await);
        upstream.put_image("app", "latest", &image, &image.oci());
        Self { upstream, bucket, archive, image }
    }

    async fn gateway(&self) -> Gateway {
        Setup::default().transcode_zstd().store_at(self.bucket.location()).before(&self.upstream).await
    }

    async fn process(&self, more: &[&str]) -> Process {
        self.bucket.serve_with(&self.upstream, &[&TRANSCODE, more].concat()).await
    }

    fn zstd_path(&self) -> String {
        format!("/v2/app/blobs/{}", self.image.layers[0].digest)
    }

    fn reads(&self) -> usize {
        self.upstream.requests_to("GET", &self.zstd_path()).len()
    }

    /// The gzip layers that stand in the bucket.
    fn layers(&self) -> Vec<String> {
        self.bucket.contents().names("v1/layers/")
    }

    fn assert_nothing_is_there(&self, what: &str) {
        assert_eq!(self.layers(), Vec::<String>::new(), "{what}");
        assert_eq!(self.bucket.contents().unfinished_uploads(), 0, "{what}");
    }
}

fn gzip_path(manifest: &Reply) -> String {
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    format!("/v2/app/blobs/{}", manifest.json()["layers"][0]["digest"].as_str().unwrap())
}

#[tokio::test]
async fn a_gzip_layer_goes_in_parts_and_comes_out_whole_or_in_ranges() {
    let stage = Stage::of_two_parts().await;
    let (gateway, client) = (stage.gateway().await, Client::docker_20_10());
    let path = gzip_path(&gateway.get(&client, TAGGED).await);
    let parts = stage.bucket.requests_to("PUT", &Bucket::path("v1/layers/*"));
    let sizes: Vec<usize> = parts.iter().map(|part| part.body.len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= PART_BYTES), "{sizes:?}");
    let whole = gateway.get(&client, &path).await;
    assert!(gunzip(&whole.body) == stage.archive);
    let part = gateway.send(&client.get(&path).header("range", "bytes=9000000-9000009")).await;
    assert_eq!((part.status, part.body.as_ref()), (206, &whole.body[9_000_000..=9_000_009]));
    assert_eq!((stage.layers().len(), stage.bucket.contents().unfinished_uploads()), (1, 0));
}

/// What is left of the upload has no name. S3 shows it to whoever lists uploads, and the rule of docs/operating.md clears it.
#[tokio::test]
async fn kill_9_in_the_middle_of_an_upload_leaves_nothing_under_a_name() {
    let stage = Stage::new().await;
    let process = stage.process(&[]).await;
    let gate = stage.upstream.when("GET", &stage.zstd_path()).times(1).hold_body(stage.image.layers[0].size - 1000);
    let address = process.address;
    let asked = tokio::spawn(async move { Client::docker_20_10().get(TAGGED).open(address).await.rest().await });
    patiently("the layer to be asked for", gate.reached(1)).await;
    patiently("the upload to begin", stage.bucket.arrived(1, "POST", &Bucket::path("v1/layers/*"))).await;
    process.kill().await;
    gate.open();
    asked.await.unwrap();
    assert_eq!((stage.layers().len(), stage.bucket.contents().unfinished_uploads()), (0, 1));

    let process = stage.process(&[]).await;
    let client = Client::docker_20_10();
    let reply = process.get(&client, TAGGED).await;
    assert!(gunzip(&process.get(&client, &gzip_path(&reply)).await.body) == stage.archive);
    assert_eq!((stage.layers().len(), stage.bucket.contents().unfinished_uploads()), (1, 1));
}

#[tokio::test]
async fn kill_9_after_an_upload_leaves_at_most_what_a_sweep_by_hand_clears() {
    for (point, left_over) in [("layer-uploaded:1", 1), ("transcoding-written:1", 0), ("recipe-written:1", 0)] {
        let stage = Stage::new().await;
        let mut process = stage.process(&["--fault-point", point]).await;
        let address = process.address;
        let asked = tokio::spawn(async move { Client::docker_20_10().get(TAGGED).open(address).await.rest().await });
        let said = patiently("the fault point", process.says()).await;
        assert!(said.is_some_and(|said| said.starts_with("fault point")), "{point}");
        process.kill().await;
        asked.await.unwrap();

        let process = stage.process(&[]).await;
        let client = Client::docker_20_10();
        let path = gzip_path(&process.get(&client, TAGGED).await);
        assert_eq!((stage.layers().len(), stage.reads()), (1 + left_over, 1 + left_over), "{point}");
        stage.bucket.contents().set_modified(SystemTime::now() - Duration::from_hours(2));
        stage.bucket.told(&["gc", "--bucket"]).await;
        assert_eq!(stage.layers().len(), 1, "{point}");
        assert!(gunzip(&process.get(&client, &path).await.body) == stage.archive, "{point}");
    }
}

#[tokio::test]
async fn what_breaks_off_is_given_up_in_the_bucket_too() {
    let stage = Stage::new().await;
    let (gateway, client) = (stage.gateway().await, Client::docker_20_10());
    let uploads = Bucket::path("v1/layers/*");
    let denied = || refusal(403, "AccessDenied", "Access Denied");

    stage.upstream.when("GET", &stage.zstd_path()).times(1).cut(1000);
    let reply = gateway.get(&client, TAGGED).await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    stage.assert_nothing_is_there("the upstream breaks off");

    stage.bucket.when("PUT", &uploads).times(1).answer(denied());
    let reply = gateway.get(&client, TAGGED).await;
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{}", reply.text());
    stage.assert_nothing_is_there("the bucket refuses a part");

    // Both requests of an upload that are a POST: the second ends it.
    stage.bucket.when("POST", &uploads).times(2).alter(move |request, answer| {
        if request.query.contains("uploadId=") {
            *answer = denied();
        }
    });
    let reply = gateway.get(&client, TAGGED).await;
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{}", reply.text());
    // It did end, and nobody was told: a leftover like that of a crash.
    assert_eq!((stage.layers().len(), stage.bucket.contents().unfinished_uploads()), (1, 0));
    stage.bucket.contents().set_modified(SystemTime::now() - Duration::from_hours(2));
    stage.bucket.told(&["gc", "--bucket"]).await;

    let path = gzip_path(&gateway.get(&client, TAGGED).await);
    assert!(gunzip(&gateway.get(&client, &path).await.body) == stage.archive);
}

/// Both read the layer to its end before either of them has written down what stands for it.
#[tokio::test]
async fn of_replicas_that_race_one_wins_and_the_other_takes_its_layer_away() {
    let stage = Stage::new().await;
    let [one, other] = [stage.gateway().await, stage.gateway().await];
    let gate = stage.upstream.when("GET", &stage.zstd_path()).hold_body(1000);
    let (left, right) = (Client::docker_20_10(), Client::docker_20_10());
    let open = async {
        patiently("both to read the layer", gate.reached(2)).await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(one.get(&left, TAGGED), other.get(&right, TAGGED), open);
    assert_eq!((first.status, first.text()), (200, second.text()));
    assert_eq!((stage.reads(), stage.layers().len()), (2, 1), "{:?}", stage.layers());
    assert_eq!(stage.bucket.contents().unfinished_uploads(), 0);
    let path = gzip_path(&first);
    let [ours, theirs] = [one.get(&left, &path).await, other.get(&right, &path).await];
    assert!(ours.status == 200 && ours.body == theirs.body && gunzip(&ours.body) == stage.archive);
    assert_eq!(stage.reads(), 2, "neither was made again");
}
