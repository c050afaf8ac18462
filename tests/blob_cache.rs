//! Blobs that are kept: asked of the upstream once, given only to those whom the upstream would give them to, and never
//! in the way of a pull.

use std::path::{Path, PathBuf};

use schemabridge::gateway::service::ServiceOptions;
use schemabridge::gateway::{Options, Service};
use schemabridge::store::blobs::{BlobCacheOptions, USE_NOTED_EVERY};

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;
use crate::support::{basic, patiently, sha256};

const MIB: usize = 1 << 20;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    folder: tempfile::TempDir,
}

/// A blob of the upstream.
#[derive(Clone)]
struct Blob {
    target: String,
    digest: String,
    bytes: Vec<u8>,
}

fn sized(folder: &Path, bytes_max: usize) -> BlobCacheOptions {
    BlobCacheOptions::new(folder.to_owned(), bytes_max as u64)
}

async fn stage_with(change: impl FnOnce(&mut BlobCacheOptions)) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let mut options = sized(folder.path(), 100 * MIB);
    change(&mut options);
    let gateway = started(Setup::default().blob_cache(options), &upstream).await;
    Stage { upstream, gateway, folder }
}

async fn stage() -> Stage {
    stage_with(|_| {}).await
}

/// Starts a gateway and waits until it has taken stock, before which it keeps nothing.
pub async fn started(setup: Setup, upstream: &Upstream) -> Gateway {
    let gateway = setup.before(upstream).await;
    let probe = put(upstream, b"whether it keeps blobs");
    until("the cache to have taken stock", async || {
        let before = upstream.requests_to("GET", &probe.target).len();
        for _ in 0..2 {
            assert_eq!(gateway.get(&Client::curl(), &probe.target).await.status, 200);
        }
        upstream.requests_to("GET", &probe.target).len() < before + 2
    })
    .await;
    upstream.forget();
    gateway
}

/// Looks again and again: a directory has no event to wait for.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    patiently(what, looking).await;
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index + seed) % 251).unwrap()).collect()
}

fn put(upstream: &Upstream, bytes: &[u8]) -> Blob {
    let digest = upstream.contents().put_blob("team/app", bytes.to_vec().into());
    Blob { target: format!("/v2/team/app/blobs/{digest}"), digest, bytes: bytes.to_vec() }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl Stage {
    fn put(&self, length: usize) -> Blob {
        put(&self.upstream, &pattern(length, length))
    }

    /// Where a blob stands, as the documentation says.
    fn file(&self, blob: &Blob) -> PathBuf {
        let (algorithm, hex) = blob.digest.split_once(':').unwrap();
        self.folder.path().join("v1/blobs").join(&hex[..2]).join(format!("{algorithm}-{hex}"))
    }

    async fn get(&self, blob: &Blob) -> Reply {
        self.gateway.get(&Client::docker_20_10(), &blob.target).await
    }

    async fn whole(&self, blob: &Blob) {
        let got = self.get(blob).await;
        assert_eq!((got.status, got.is_whole, got.body == blob.bytes), (200, true, true), "{}", blob.target);
    }

    async fn kept(&self, blob: &Blob) {
        until("the blob to be kept", async || self.file(blob).exists()).await;
    }

    /// Gets it, which keeps it.
    async fn keep(&self, blob: &Blob) {
        self.whole(blob).await;
        self.kept(blob).await;
    }

    /// Waits until nothing is on its way, and says whether the blob is there.
    async fn settled(&self, blob: &Blob) -> bool {
        let filling = self.folder.path().join("v1/filling");
        until("the fills to end", async || files(&filling).is_empty()).await;
        self.file(blob).exists()
    }

    fn gets(&self, blob: &Blob) -> usize {
        self.upstream.requests_to("GET", &blob.target).len()
    }

    fn heads(&self, blob: &Blob) -> usize {
        self.upstream.requests_to("HEAD", &blob.target).len()
    }
}

#[tokio::test]
async fn a_blob_is_fetched_once_and_permission_is_asked_each_time() {
    let stage = stage().await;
    let blob = stage.put(3 * MIB);
    stage.keep(&blob).await;
    assert_eq!(std::fs::read(stage.file(&blob)).unwrap(), blob.bytes);
    assert_eq!((stage.gets(&blob), stage.heads(&blob)), (1, 0), "the question for the bytes is the permission check");
    for asked in 1..=3 {
        let got = stage.get(&blob).await;
        assert_eq!((got.status, got.is_whole, got.body == blob.bytes), (200, true, true));
        assert_eq!(got.header("content-length"), Some(blob.bytes.len().to_string().as_str()));
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
        assert_eq!((got.digest(), got.header("accept-ranges")), (blob.digest.as_str(), Some("bytes")));
        assert_eq!((stage.gets(&blob), stage.heads(&blob)), (1, asked));
    }
}

#[tokio::test]
async fn without_a_cache_nothing_is_kept() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(&upstream).await;
    let blob = put(&upstream, b"layer");
    for _ in 0..2 {
        assert_eq!(gateway.get(&Client::curl(), &blob.target).await.status, 200);
    }
    assert_eq!(upstream.requests_to("GET", &blob.target).len(), 2);
}

#[tokio::test]
async fn a_blob_named_by_sha512_is_kept_too() {
    use sha2::Digest as _;
    let stage = stage().await;
    let bytes = pattern(5000, 1);
    let digest = format!("sha512:{}", data_encoding::HEXLOWER.encode(&sha2::Sha512::digest(&bytes)));
    let blob = Blob { target: format!("/v2/team/app/blobs/{digest}"), digest, bytes };
    stage.upstream.when("*", &blob.target).answer(Answer::new(200).body(blob.bytes.clone()));
    stage.keep(&blob).await;
    stage.whole(&blob).await;
    assert_eq!(stage.gets(&blob), 1);
}

mod fills {
    use super::*;

    #[tokio::test]
    async fn other_bytes_than_the_digest_names_never_end_cleanly_and_are_not_kept() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        stage.upstream.when("GET", &blob.target).times(1).with_body(pattern(200_000, 7));
        let got = stage.get(&blob).await;
        assert_eq!((got.status, got.is_whole), (200, false));
        assert!(!stage.settled(&blob).await);
        stage.keep(&blob).await;
    }

    #[tokio::test]
    async fn an_upstream_that_breaks_off_never_ends_cleanly_and_leaves_nothing() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        for after in [1, 65_536, 199_999] {
            stage.upstream.when("GET", &blob.target).times(1).cut(after);
            let got = stage.get(&blob).await;
            assert_eq!((got.status, got.is_whole), (200, false));
            assert!(!stage.settled(&blob).await);
        }
        stage.keep(&blob).await;
    }

    #[tokio::test]
    async fn many_clients_cost_one_fetch_and_read_it_while_it_comes() {
        const CLIENTS: usize = 20;
        let stage = stage().await;
        let blob = stage.put(3 * MIB);
        let gate = stage.upstream.when("GET", &blob.target).hold_body(MIB);
        let mut clients = vec![Call::new("GET", &blob.target).open(stage.gateway.address()).await];
        gate.reached(1).await;
        for _ in 1..CLIENTS {
            clients.push(Call::new("GET", &blob.target).open(stage.gateway.address()).await);
        }
        for client in &mut clients {
            patiently("the first half", client.at_least(MIB - 100_000)).await;
        }
        gate.open();
        for client in &mut clients {
            patiently("the rest", client.rest()).await;
            let got = client.reply(false);
            assert_eq!((got.status, got.is_whole, got.body == blob.bytes), (200, true, true));
        }
        assert_eq!(
            (stage.gets(&blob), stage.heads(&blob)),
            (1, CLIENTS - 1),
            "each other caller's consent is asked for"
        );
    }

    #[tokio::test]
    async fn who_comes_before_the_upstream_has_answered_shares_the_fetch() {
        let stage = stage().await;
        let blob = stage.put(100_000);
        let gate = stage.upstream.when("GET", &blob.target).hold();
        let mut leader = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        gate.reached(1).await;
        let mut follower = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        stage.upstream.arrived(1, "HEAD", &blob.target).await;
        gate.open();
        for client in [&mut leader, &mut follower] {
            patiently("the blob", client.rest()).await;
            assert_eq!((client.reply(false).is_whole, client.reply(false).body == blob.bytes), (true, true));
        }
        assert_eq!(stage.gets(&blob), 1);
    }

    #[tokio::test]
    async fn a_client_that_leaves_does_not_stop_the_fill() {
        let stage = stage().await;
        let blob = stage.put(3 * MIB);
        let gate = stage.upstream.when("GET", &blob.target).hold_body(MIB);
        let mut leader = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        leader.at_least(MIB / 2).await;
        gate.reached(1).await;
        drop(leader);
        gate.open();
        stage.kept(&blob).await;
        stage.whole(&blob).await;
        assert_eq!(stage.gets(&blob), 1);
    }

    #[tokio::test]
    async fn a_leader_that_leaves_before_the_answer_hands_over() {
        let stage = stage().await;
        let blob = stage.put(100_000);
        let gate = stage.upstream.when("GET", &blob.target).times(1).hold();
        let leader = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        gate.reached(1).await;
        let mut follower = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        stage.upstream.arrived(1, "HEAD", &blob.target).await;
        drop(leader);
        patiently("the blob", follower.rest()).await;
        assert!(follower.reply(false).body == blob.bytes);
        stage.kept(&blob).await;
    }

    /// More than sockets hold between the two.
    #[tokio::test]
    async fn a_slow_client_does_not_hold_up_the_fill() {
        let stage = stage().await;
        let blob = stage.put(20 * MIB);
        let mut slow = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        slow.at_least(1).await;
        stage.kept(&blob).await;
        patiently("the rest", slow.rest()).await;
        assert!(slow.reply(false).is_whole && slow.reply(false).body == blob.bytes);
    }

    #[tokio::test]
    async fn who_has_sent_nothing_yet_asks_for_himself_when_the_fill_fails() {
        let stage = stage().await;
        let blob = stage.put(100_000);
        stage.upstream.when("GET", &blob.target).times(1).cut(0);
        let gate = stage.upstream.when("GET", &blob.target).times(1).hold();
        let mut leader = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        gate.reached(1).await;
        let mut follower = Call::new("GET", &blob.target).open(stage.gateway.address()).await;
        stage.upstream.arrived(1, "HEAD", &blob.target).await;
        gate.open();
        patiently("the blob", follower.rest()).await;
        let got = follower.reply(false);
        assert_eq!((got.status, got.is_whole, got.body == blob.bytes), (200, true, true));
        patiently("the end", leader.rest()).await;
    }

    #[tokio::test]
    async fn what_cannot_be_checked_or_measured_passes_and_is_not_kept() {
        let stage = stage_with(|options| options.fill_bytes_max = 1000).await;
        let large = stage.put(1001);
        let unmeasured = stage.put(900);
        stage.upstream.when("GET", &unmeasured.target).without("content-length");
        let coded = stage.put(901);
        stage.upstream.when("GET", &coded.target).with("content-encoding", "gzip");
        for blob in [large, unmeasured, coded] {
            stage.whole(&blob).await;
            stage.whole(&blob).await;
            assert!(!stage.settled(&blob).await);
            assert_eq!(stage.gets(&blob), 2);
        }
        let fits = stage.put(1000);
        stage.keep(&fits).await;
    }

    /// What is to be kept must come by here, whatever clients do otherwise.
    #[tokio::test]
    async fn a_redirect_is_followed_and_what_it_leads_to_is_kept() {
        let (stage, storage) = (stage().await, Upstream::start().await);
        let blob = stage.put(100_000);
        storage.contents().place("/storage", blob.bytes.clone().into());
        stage.upstream.when("GET", &blob.target).redirect(307, &format!("{}/storage?signature=x", storage.url()));
        stage.keep(&blob).await;
        stage.whole(&blob).await;
        assert_eq!((stage.gets(&blob), storage.lines()), (1, vec!["GET /storage".to_owned()]));
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_yields_and_one_that_is_waited_for_does_not() {
        let stage = stage_with(|options| options.fills_max = 1).await;
        let [first, second, third] = [3 * MIB, 300_000, 300_001].map(|length| stage.put(length));
        let gate = stage.upstream.when("GET", &first.target).hold_body(MIB);
        let mut waiting = Call::new("GET", &first.target).open(stage.gateway.address()).await;
        waiting.at_least(MIB / 2).await;
        stage.whole(&second).await;
        assert!(!stage.file(&second).exists(), "there is room for one fill, and it is waited for");
        assert_eq!(stage.gets(&second), 1);
        drop(waiting);
        until("the third to be kept instead", async || {
            stage.whole(&third).await;
            stage.file(&third).exists()
        })
        .await;
        gate.abandoned(1).await;
        assert!(!stage.file(&first).exists());
        stage.upstream.behave();
        stage.keep(&first).await;
    }
}

mod permission {
    use super::*;

    struct Closed {
        stage: Stage,
        blob: Blob,
        ann: String,
        guest: String,
    }

    async fn closed() -> Closed {
        let stage = stage().await;
        let blob = stage.put(200_000);
        let (ann, guest) = (basic("ann", "1"), basic("guest", "2"));
        stage.upstream.contents().close("Basic realm=\"registry\"");
        stage.upstream.contents().admit(&ann, "team/app");
        stage.upstream.contents().admit(&guest, "other");
        Closed { stage, blob, ann, guest }
    }

    impl Closed {
        fn call(&self, method: &str, caller: &str) -> Call {
            Call::new(method, &self.blob.target).header("Authorization", caller)
        }

        async fn status(&self, method: &str, caller: &str) -> u16 {
            self.stage.gateway.send(&self.call(method, caller)).await.status
        }
    }

    #[tokio::test]
    async fn whoever_may_not_see_a_blob_upstream_does_not_see_it_here() {
        let closed = closed().await;
        assert_eq!(closed.status("GET", &closed.guest).await, 403);
        assert_eq!(closed.status("GET", &closed.ann).await, 200);
        closed.stage.kept(&closed.blob).await;
        for method in ["GET", "HEAD"] {
            assert_eq!(closed.status(method, &closed.guest).await, 403);
            let stranger = closed.stage.gateway.send(&Call::new(method, &closed.blob.target)).await;
            assert_eq!(stranger.status, 401);
            assert_eq!(stranger.header("www-authenticate"), Some("Basic realm=\"registry\""));
            assert_eq!(closed.status(method, &closed.ann).await, 200);
        }
        let part = closed.call("GET", &closed.guest).header("Range", "bytes=0-9");
        assert_eq!(closed.stage.gateway.send(&part).await.status, 403);
        closed.stage.upstream.contents().revoke(&closed.ann, "team/app");
        assert_eq!(closed.status("GET", &closed.ann).await, 403, "a revoked right is seen at once");
    }

    #[tokio::test]
    async fn nor_while_it_is_on_its_way_for_somebody_else() {
        let closed = closed().await;
        let gate = closed.stage.upstream.when("GET", &closed.blob.target).hold_body(100_000);
        let mut leader = closed.call("GET", &closed.ann).open(closed.stage.gateway.address()).await;
        gate.reached(1).await;
        assert_eq!(closed.status("GET", &closed.guest).await, 403);
        gate.open();
        patiently("the blob", leader.rest()).await;
        assert!(leader.reply(false).is_whole);
    }

    #[tokio::test]
    async fn a_blob_of_one_repository_is_not_given_out_in_another() {
        let stage = stage().await;
        let blob = stage.put(1000);
        stage.keep(&blob).await;
        let elsewhere = format!("/v2/other/blobs/{}", blob.digest);
        assert_eq!(stage.gateway.get(&Client::curl(), &elsewhere).await.status, 404);
    }

    #[tokio::test]
    async fn an_upstream_that_cannot_be_asked_consents_to_nothing() {
        let stage = stage().await;
        let blob = stage.put(1000);
        stage.keep(&blob).await;
        stage.upstream.when("HEAD", &blob.target).times(1).answer(Answer::new(429).header("retry-after", "9"));
        let busy = stage.get(&blob).await;
        assert_eq!((busy.status, busy.header("retry-after")), (429, Some("9")));
        stage.upstream.when("*", "*").reset();
        assert_eq!(stage.get(&blob).await.status, 502);
    }

    #[tokio::test]
    async fn a_redirect_is_consent_and_an_upstream_without_head_is_asked_for_the_bytes() {
        let stage = stage().await;
        let blob = stage.put(1000);
        stage.keep(&blob).await;
        stage.upstream.when("HEAD", &blob.target).times(2).redirect(307, "https://storage.example.com/blob");
        stage.whole(&blob).await;
        let head = stage.gateway.head(&Client::curl(), &blob.target).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
        assert_eq!(stage.gets(&blob), 1);
        stage.upstream.when("HEAD", &blob.target).times(1).answer(Answer::new(405));
        stage.whole(&blob).await;
        assert_eq!(stage.gets(&blob), 2);
    }

    #[tokio::test]
    async fn where_permission_does_not_come_from_the_upstream_it_may_be_unplugged() {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let setup = Setup::default().blob_cache(sized(folder.path(), 100 * MIB)).permission_from_the_gateway();
        let gateway = started(setup, &upstream).await;
        let stage = Stage { upstream, gateway, folder };
        let (blob, other) = (stage.put(100_000), stage.put(1000));
        stage.keep(&blob).await;
        stage.upstream.when("*", "*").reset();
        stage.whole(&blob).await;
        assert_eq!(stage.heads(&blob), 0);
        assert_eq!(stage.get(&other).await.status, 502);
    }

    /// Nobody had asked for the translation while the upstream was there, but somebody had pulled the image.
    #[tokio::test]
    async fn a_translation_reads_a_kept_config_of_an_unplugged_upstream_where_the_blob_is_given_out_too() {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let setup = Setup::default().blob_cache(sized(folder.path(), 100 * MIB)).permission_from_the_gateway();
        let gateway = started(setup, &upstream).await;
        let image = Image::classic("app");
        for repository in ["app", "secret"] {
            upstream.put_image(repository, "latest", &image, &image.oci());
        }
        let plugged = Setup::default().before(&upstream).await;
        let expected = plugged.get(&Client::docker_1_9_1(), "/v2/app/manifests/latest").await;

        for repository in ["app", "secret"] {
            let stored = gateway.get(&Client::docker_20_10(), &format!("/v2/{repository}/manifests/latest")).await;
            assert_eq!(stored.status, 200);
        }
        let (digest, bytes) = (image.config_digest(), image.config.to_vec());
        let config = Blob { target: format!("/v2/app/blobs/{digest}"), digest, bytes };
        let stage = Stage { upstream, gateway, folder };
        stage.keep(&config).await;
        stage.upstream.when("*", "*").reset();
        let got = stage.gateway.get(&Client::docker_1_9_1(), "/v2/app/manifests/latest").await;
        // Of the payload: each gateway signs with a key of its own.
        assert_eq!((got.status, got.digest()), (200, expected.digest()), "{}", got.text());
        let secret = stage.gateway.get(&Client::docker_1_9_1(), "/v2/secret/manifests/latest").await;
        assert_eq!(secret.status, 502, "nobody was given its config");
    }
}

mod ranges {
    use super::*;

    #[tokio::test]
    async fn a_kept_blob_is_given_in_parts_without_the_upstream() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        stage.keep(&blob).await;
        let ask = async |headers: &[(&str, &str)]| {
            let call = Client::curl().get(&blob.target);
            let call = headers.iter().fold(call, |call, (name, value)| call.header(name, value));
            stage.gateway.send(&call).await
        };
        for (range, expected, content_range) in [
            ("bytes=10-19", 10..20, "bytes 10-19/200000"),
            ("bytes=65530-131080", 65530..131_081, "bytes 65530-131080/200000"),
            ("bytes=199990-", 199_990..200_000, "bytes 199990-199999/200000"),
            ("bytes=199990-300000", 199_990..200_000, "bytes 199990-199999/200000"),
            ("bytes=-5", 199_995..200_000, "bytes 199995-199999/200000"),
            ("bytes=0-", 0..200_000, "bytes 0-199999/200000"),
        ] {
            let got = ask(&[("Range", range)]).await;
            assert_eq!((got.status, got.header("content-range")), (206, Some(content_range)));
            assert_eq!(got.header("content-length"), Some(expected.len().to_string().as_str()));
            assert!(got.is_whole && got.body == blob.bytes[expected], "{range}");
        }
        for range in ["bytes=200000-", "bytes=-0"] {
            let beyond = ask(&[("Range", range)]).await;
            assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */200000")), "{range}");
        }
        for whole in ["bytes=0-1,5-6", "1-"] {
            let got = ask(&[("Range", whole)]).await;
            assert_eq!((got.status, got.body == blob.bytes), (200, true), "{whole}");
        }
        let etag = format!("\"{}\"", blob.digest);
        assert_eq!(ask(&[("Range", "bytes=1-2"), ("If-Range", &etag)]).await.status, 206);
        assert_eq!(ask(&[("Range", "bytes=1-2"), ("If-Range", "\"other\"")]).await.status, 200);
        assert_eq!(ask(&[("If-None-Match", &etag)]).await.status, 304);
        assert_eq!(stage.gets(&blob), 1);
    }

    #[tokio::test]
    async fn a_part_of_a_blob_that_is_not_kept_is_the_upstreams_business() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        let part = stage.gateway.send(&Client::curl().get(&blob.target).header("Range", "bytes=5-9")).await;
        assert_eq!((part.status, &part.body[..]), (206, &blob.bytes[5..10]));
        let all = stage.gateway.send(&Client::curl().get(&blob.target).header("Range", "bytes=0-")).await;
        assert_eq!((all.status, all.body == blob.bytes), (206, true));
        assert!(!stage.settled(&blob).await);
        let head = stage.gateway.head(&Client::curl(), &blob.target).await;
        assert_eq!((head.status, stage.settled(&blob).await), (200, false));
    }

    #[tokio::test]
    async fn head_is_answered_with_the_length_of_what_is_kept() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        stage.keep(&blob).await;
        stage.upstream.when("HEAD", &blob.target).without("content-length");
        let head = stage.gateway.head(&Client::docker_1_9_1(), &blob.target).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("200000"), 0));
        assert_eq!((head.digest(), stage.gets(&blob)), (blob.digest.as_str(), 1));
    }
}

mod eviction {
    use super::*;

    fn sizes(stage: &Stage) -> u64 {
        files(&stage.folder.path().join("v1")).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    #[tokio::test]
    async fn what_was_used_least_lately_goes_and_the_cap_holds() {
        let stage = stage_with(|options| (options.bytes_max, options.fill_bytes_max) = (1000, 400)).await;
        let [first, second, third, fourth] = [300, 301, 302, 303].map(|length| stage.put(length));
        for blob in [&first, &second, &third] {
            stage.keep(blob).await;
        }
        stage.whole(&first).await;
        stage.keep(&fourth).await;
        assert!(stage.file(&first).exists() && stage.file(&third).exists());
        assert!(!stage.file(&second).exists());
        for length in 200..260 {
            let blob = stage.put(length);
            stage.keep(&blob).await;
            assert!(sizes(&stage) <= 1000);
        }
    }

    /// More than sockets hold between the two.
    #[tokio::test]
    async fn what_is_being_read_is_not_cut_off_and_takes_no_room_from_the_disk_twice() {
        let stage = stage_with(|options| (options.bytes_max, options.fill_bytes_max) = (21 << 20, 20 << 20)).await;
        let (read, wanted) = (stage.put(20 * MIB), stage.put(2 * MIB));
        stage.keep(&read).await;
        let mut reader = Call::new("GET", &read.target).open(stage.gateway.address()).await;
        reader.at_least(1).await;
        stage.whole(&wanted).await;
        assert!(!stage.settled(&wanted).await, "there is no room beside what is read");
        patiently("the rest", reader.rest()).await;
        assert!(reader.reply(false).is_whole && reader.reply(false).body == read.bytes);
        drop(reader);
        until("room for the other", async || {
            stage.whole(&wanted).await;
            stage.settled(&wanted).await
        })
        .await;
        assert!(!stage.file(&read).exists());
    }

    #[tokio::test]
    async fn the_last_use_is_noted_on_the_disk_at_most_once_a_minute() {
        let stage = stage().await;
        let blob = stage.put(1000);
        stage.keep(&blob).await;
        let noted = || std::fs::metadata(stage.file(&blob)).unwrap().modified().unwrap();
        let file = std::fs::File::options().write(true).open(stage.file(&blob)).unwrap();
        let recent = std::time::SystemTime::now() - USE_NOTED_EVERY / 2;
        file.set_modified(recent).unwrap();
        stage.whole(&blob).await;
        assert_eq!(noted(), recent);
        let old = std::time::SystemTime::now() - USE_NOTED_EVERY * 2;
        file.set_modified(old).unwrap();
        stage.whole(&blob).await;
        assert!(noted() > recent);
    }
}

mod the_directory {
    use super::*;

    #[tokio::test]
    async fn a_restart_keeps_what_was_kept_and_clears_away_what_was_not_finished() {
        let stage = stage().await;
        let blob = stage.put(5000);
        stage.keep(&blob).await;
        let Stage { upstream, gateway, folder } = stage;
        gateway.stop().await;
        std::fs::write(folder.path().join("v1/filling/17"), b"half a blob").unwrap();
        std::fs::write(folder.path().join("v1/blobs/notes.txt"), b"somebody else's").unwrap();
        until("the directory to be free", async || free(folder.path())).await;
        let gateway = started(Setup::default().blob_cache(sized(folder.path(), 100 * MIB)), &upstream).await;
        let stage = Stage { upstream, gateway, folder };
        stage.whole(&blob).await;
        assert_eq!(stage.gets(&blob), 0);
        assert!(stage.settled(&blob).await, "leftovers go in the background");
        assert!(stage.folder.path().join("v1/blobs/notes.txt").exists());
    }

    /// As long as nobody else has the lock.
    fn free(folder: &Path) -> bool {
        std::fs::File::open(folder.join("v1/lock")).unwrap().try_lock().is_ok()
    }

    #[tokio::test]
    async fn a_smaller_cap_is_kept_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let old = std::time::SystemTime::now() - USE_NOTED_EVERY * 9;
        for number in 0..10_u8 {
            let (bytes, minutes) = ([number; 100], u32::from(number));
            let digest = sha256(&bytes);
            let shelf = folder.path().join("v1/blobs").join(&digest[7..9]);
            std::fs::create_dir_all(&shelf).unwrap();
            let file = shelf.join(digest.replace(':', "-"));
            std::fs::write(&file, bytes).unwrap();
            let used = old - USE_NOTED_EVERY * minutes;
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(used).unwrap();
        }
        let gateway = started(Setup::default().blob_cache(sized(folder.path(), 500)), &upstream).await;
        let stage = Stage { upstream, gateway, folder };
        let blobs = files(&stage.folder.path().join("v1/blobs"));
        let sizes: u64 = blobs.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(sizes <= 500 && blobs.len() > 3, "{blobs:?}");
        for (number, is_kept) in [(0, true), (1, true), (8, false), (9, false)] {
            let name = sha256(&[number; 100]).replace(':', "-");
            assert_eq!(blobs.iter().any(|file| file.ends_with(&name)), is_kept, "{number}");
        }
    }

    #[tokio::test]
    async fn a_directory_belongs_to_one_process() {
        let stage = stage().await;
        let options = Options::for_upstream(stage.upstream.url().parse().unwrap());
        let mut options = ServiceOptions::alone(options);
        options.shared.blob_cache = Some(sized(stage.folder.path(), MIB));
        let Err(error) = Service::start(options) else { panic!("two have it") };
        let words = error.to_string();
        assert!(words.contains(stage.folder.path().to_str().unwrap()) && words.contains("another process"), "{words}");
    }

    #[tokio::test]
    async fn a_broken_directory_does_not_break_a_pull() {
        let stage = stage().await;
        let (blob, cold) = (stage.put(200_000), stage.put(1000));
        stage.keep(&blob).await;
        let layout = stage.folder.path().join("v1");
        std::fs::remove_dir_all(&layout).unwrap();
        std::fs::write(&layout, b"no directory any more").unwrap();
        for _ in 0..2 {
            stage.whole(&blob).await;
            stage.whole(&cold).await;
        }
        std::fs::remove_file(&layout).unwrap();
        std::fs::create_dir_all(layout.join("filling")).unwrap();
        stage.keep(&cold).await;
    }

    #[tokio::test]
    async fn a_damaged_blob_never_ends_cleanly_and_is_fetched_anew() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        stage.keep(&blob).await;
        let mut bytes = blob.bytes.clone();
        bytes[150_000] ^= 1;
        std::fs::write(stage.file(&blob), bytes).unwrap();
        let got = stage.get(&blob).await;
        assert_eq!((got.status, got.is_whole), (200, false));
        assert!(!stage.file(&blob).exists());
        stage.keep(&blob).await;
        assert_eq!(std::fs::read(stage.file(&blob)).unwrap(), blob.bytes);
        assert_eq!(stage.gets(&blob), 2);
    }

    #[tokio::test]
    async fn a_blob_of_another_size_is_seen_before_the_answer_begins() {
        let stage = stage().await;
        let blob = stage.put(200_000);
        stage.keep(&blob).await;
        std::fs::write(stage.file(&blob), &blob.bytes[..100]).unwrap();
        stage.keep(&blob).await;
        std::fs::remove_file(stage.file(&blob)).unwrap();
        stage.keep(&blob).await;
        assert_eq!(stage.gets(&blob), 3);
    }
}
