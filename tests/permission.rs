//! What one caller had derived is no other caller's: not by tag, not by digest, not by blob, not from memory and not
//! through the store of another replica. And what one upstream said is never another upstream's.

use std::time::Duration;

use crate::support::basic;
use crate::support::bucket::Bucket;
use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::patiently;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/team/app/manifests/latest";
const CHALLENGE: &str = "Basic realm=\"registry\"";
/// The digest of the layer of nothing, which every schema 1 image of distribution 2.8 has.
const EMPTY_LAYER: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
const DERIVING: [fn() -> Client; 2] = [Client::docker_17, Client::docker_1_9_1];

/// A closed registry with a repository of Ann's and one of Bob's.
struct Stage {
    upstream: Upstream,
    image: Image,
    ann: String,
    bob: String,
    bucket: Bucket,
    directory: tempfile::TempDir,
}

/// Which replica is asked after another has derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replicas {
    Same,
    OfOneDirectory,
    OfOneBucket,
}

impl Replicas {
    const ALL: [Self; 3] = [Self::Same, Self::OfOneDirectory, Self::OfOneBucket];
}

impl Stage {
    async fn new() -> Self {
        let (upstream, image) = (Upstream::start().await, Image::classic("app"));
        upstream.put_image("team/app", "latest", &image, &image.oci());
        let others = Image::small("others");
        upstream.put_image("others", "latest", &others, &others.oci());
        let (ann, bob) = (basic("ann", "1"), basic("bob", "2"));
        upstream.contents().close(CHALLENGE);
        upstream.contents().admit(&ann, "team/app");
        upstream.contents().admit(&bob, "others");
        let (bucket, directory) = (Bucket::start().await, tempfile::tempdir().unwrap());
        Self { upstream, image, ann, bob, bucket, directory }
    }

    fn setup(&self, replicas: Replicas) -> Setup {
        match replicas {
            Replicas::Same => Setup::default(),
            Replicas::OfOneDirectory => Setup::default().store_in(self.directory.path()),
            Replicas::OfOneBucket => Setup::default().store_at(self.bucket.location()),
        }
    }

    /// The gateway that derives, and another one, where the store has more than one.
    async fn gateways(&self, replicas: Replicas, ttl: Duration) -> Vec<Gateway> {
        let number = if replicas == Replicas::Same { 1 } else { 2 };
        let mut gateways = Vec::new();
        for _ in 0..number {
            gateways.push(self.setup(replicas).tag_ttl(ttl).before(&self.upstream).await);
        }
        gateways
    }
}

async fn ask(gateway: &Gateway, caller: Option<&str>, method: &str, target: &str, client: &Client) -> Reply {
    let call = client.call(method, target);
    let call = caller.into_iter().fold(call, |call, caller| call.header("Authorization", caller));
    gateway.send(&call).await
}

fn ttls() -> [Duration; 2] {
    [Duration::ZERO, Duration::from_secs(3600)]
}

fn named(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/manifests/{digest}")
}

/// Nobody in particular is asked for a login, and Bob is refused, without a word of what is there.
async fn assert_closed(stage: &Stage, gateway: &Gateway, target: &str, client: &Client, why: &str) {
    for method in ["HEAD", "GET"] {
        for (caller, status) in [(None, 401), (Some(stage.bob.as_str()), 403)] {
            let reply = ask(gateway, caller, method, target, client).await;
            assert_eq!(reply.status, status, "{why}: {method} {target}: {}", reply.text());
            let challenge = (status == 401).then_some(CHALLENGE);
            assert_eq!(reply.header("www-authenticate"), challenge, "{why}: {method} {target}");
            for header in ["docker-content-digest", "etag", "schemabridge-source-digest", "schemabridge-translation"] {
                assert_eq!(reply.header(header), None, "{why}: {method} {target}");
            }
            assert!(!reply.text().contains(&stage.image.layers[0].digest), "{why}: {}", reply.text());
        }
    }
}

async fn assert_open(stage: &Stage, gateway: &Gateway, target: &str, client: &Client, why: &str) {
    for method in ["HEAD", "GET"] {
        let reply = ask(gateway, Some(&stage.ann), method, target, client).await;
        assert_eq!(reply.status, 200, "{why}: {method} {target}: {}", reply.text());
    }
}

#[tokio::test]
async fn what_one_caller_derived_is_invisible_without_the_right() {
    for replicas in Replicas::ALL {
        for ttl in ttls() {
            let stage = Stage::new().await;
            let gateways = stage.gateways(replicas, ttl).await;
            let why = format!("{replicas:?}, {ttl:?}");
            for client in DERIVING.map(|client| client()) {
                assert_closed(&stage, &gateways[0], TAGGED, &client, &why).await;
                let derived = ask(&gateways[0], Some(&stage.ann), "GET", TAGGED, &client).await;
                assert_eq!(derived.status, 200, "{why}: {}", derived.text());
                for gateway in gateways.iter().rev() {
                    let digests = [derived.digest(), &stage.image.oci().digest].map(|digest| named("team/app", digest));
                    for target in digests.iter().map(String::as_str).chain([TAGGED]) {
                        assert_closed(&stage, gateway, target, &client, &why).await;
                        assert_open(&stage, gateway, target, &client, &why).await;
                        assert_closed(&stage, gateway, target, &client, &why).await;
                    }
                }
            }
        }
    }
}

/// Blobs come from the upstream, as the caller. The layer of nothing is in every image there is.
#[tokio::test]
async fn blobs_of_what_was_derived_are_the_upstreams_to_give() {
    for replicas in Replicas::ALL {
        let stage = Stage::new().await;
        let client = Client::docker_1_9_1();
        let gateways = stage.gateways(replicas, Duration::from_secs(3600)).await;
        let derived = ask(&gateways[0], Some(&stage.ann), "GET", TAGGED, &client).await;
        let layers = derived.json()["fsLayers"].as_array().unwrap().clone();
        let named: Vec<&str> = layers.iter().map(|layer| layer["blobSum"].as_str().unwrap()).collect();
        assert!(named.contains(&EMPTY_LAYER) && named.contains(&stage.image.layers[0].digest.as_str()), "{named:?}");
        for gateway in &gateways {
            for blob in [&stage.image.layers[0].digest, &stage.image.config_digest()] {
                let target = format!("/v2/team/app/blobs/{blob}");
                assert_open(&stage, gateway, &target, &client, "a blob").await;
                assert_closed(&stage, gateway, &target, &client, "a blob").await;
            }
            for caller in [None, Some(stage.bob.as_str()), Some(stage.ann.as_str())] {
                let target = format!("/v2/team/app/blobs/{EMPTY_LAYER}");
                assert_eq!(ask(gateway, caller, "GET", &target, &client).await.status, 200);
            }
        }
    }
}

/// Knowing a digest, and a repository that one may read, is not enough to bring them together.
#[tokio::test]
async fn a_derived_digest_is_good_in_its_own_repository_only() {
    for replicas in Replicas::ALL {
        for ttl in ttls() {
            let stage = Stage::new().await;
            stage.upstream.contents().admit(&stage.ann, "others");
            let gateways = stage.gateways(replicas, ttl).await;
            for client in DERIVING.map(|client| client()) {
                let derived = ask(&gateways[0], Some(&stage.ann), "GET", TAGGED, &client).await;
                assert_eq!(derived.status, 200);
                for (gateway, method) in gateways.iter().flat_map(|gateway| [(gateway, "HEAD"), (gateway, "GET")]) {
                    for caller in [&stage.ann, &stage.bob] {
                        let target = named("others", derived.digest());
                        let elsewhere = ask(gateway, Some(caller), method, &target, &client).await;
                        assert_eq!(elsewhere.status, 404, "{replicas:?} {method}: {}", elsewhere.text());
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_right_is_gone_at_once_for_what_was_derived() {
    for replicas in Replicas::ALL {
        let stage = Stage::new().await;
        let gateways = stage.gateways(replicas, Duration::ZERO).await;
        let mut targets = vec![(Client::docker_17(), TAGGED.to_owned()), (Client::docker_1_9_1(), TAGGED.to_owned())];
        for client in DERIVING.map(|client| client()) {
            for gateway in &gateways {
                let derived = ask(gateway, Some(&stage.ann), "GET", TAGGED, &client).await;
                targets.push((client.clone(), named("team/app", derived.digest())));
            }
        }
        for gateway in &gateways {
            for (client, target) in &targets {
                assert_open(&stage, gateway, target, client, "before").await;
            }
        }
        stage.upstream.contents().revoke(&stage.ann, "team/app");
        for (gateway, method) in gateways.iter().flat_map(|gateway| [(gateway, "HEAD"), (gateway, "GET")]) {
            for (client, target) in &targets {
                let reply = ask(gateway, Some(&stage.ann), method, target, client).await;
                assert_eq!(reply.status, 403, "{replicas:?}: {method} {target}: {}", reply.text());
            }
        }
    }
}

/// Using what is remembered does not make it remembered longer, and a replica that has not asked has nothing to remember.
#[tokio::test]
async fn a_revoked_right_is_gone_within_the_ttl() {
    let stage = Stage::new().await;
    let ttl = Duration::from_millis(300);
    let gateways = stage.gateways(Replicas::OfOneBucket, ttl).await;
    let client = Client::docker_17();
    let derived = ask(&gateways[0], Some(&stage.ann), "GET", TAGGED, &client).await;
    let target = named("team/app", derived.digest());
    assert_open(&stage, &gateways[0], &target, &client, "it is remembered").await;
    stage.upstream.contents().revoke(&stage.ann, "team/app");
    assert_eq!(ask(&gateways[1], Some(&stage.ann), "GET", &target, &client).await.status, 403, "it never asked");
    for target in [TAGGED, &target] {
        let denied = async { while ask(&gateways[0], Some(&stage.ann), "GET", target, &client).await.status != 403 {} };
        patiently("the end of what is remembered", denied).await;
    }
}

/// Two registries behind gateways that share a store: one of them is the attacker's.
#[tokio::test]
async fn what_one_upstream_names_is_unknown_under_another() {
    let (attacker, honest) = (Upstream::start().await, Upstream::start().await);
    let image = Image::classic("app");
    attacker.put_image("app", "latest", &image, &image.oci());
    let own = Image::small("own");
    honest.put_image("app", "latest", &own, &own.oci());
    let bucket = Bucket::start().await;
    let setup = |name| Setup::default().store_at(bucket.location()).upstream_name(name);
    let of_attacker = setup("attacker").before(&attacker).await;
    let of_honest = setup("honest").before(&honest).await;
    for client in DERIVING.map(|client| client()) {
        let tagged = "/v2/app/manifests/latest";
        let poison = of_attacker.manifest(&client, tagged).await;
        assert_eq!(poison.status, 200);
        let target = named("app", poison.digest());
        assert_eq!(of_honest.manifest(&client, &target).await.status, 404);
        // Not even where both have the same source, until it was derived there.
        honest.put_image("app", "latest", &image, &image.oci());
        assert_eq!(of_honest.manifest(&client, &target).await.status, 404);
        let derived = of_honest.manifest(&client, tagged).await;
        assert_eq!((derived.status, derived.digest()), (200, poison.digest()));
        assert_eq!(of_honest.manifest(&client, &target).await.status, 200);
        // And each is good for as long as its own upstream says so.
        attacker.contents().remove_manifest("app", &image.oci().digest);
        assert_eq!(of_attacker.manifest(&client, &target).await.status, 404);
        assert_eq!(of_honest.manifest(&client, &target).await.body, derived.body);
        attacker.put_image("app", "latest", &image, &image.oci());
        honest.contents().remove_manifest("app", &image.oci().digest);
        honest.put("app", "latest", &own.oci());
    }
}

/// A rebuild that differs only in annotations, and the older manifest cleared away: the digest stays good, also for a
/// process that knows it from the store alone, and also where its bytes have to be made again.
#[tokio::test]
async fn a_derived_digest_outlives_its_first_source() {
    for replicas in [Replicas::OfOneDirectory, Replicas::OfOneBucket] {
        let stage = Stage::new().await;
        let (first, rebuilt) = (stage.image.oci(), stage.image.oci_annotated());
        let client = Client::docker_17();
        let gateway = stage.setup(replicas).before(&stage.upstream).await;
        let derived = ask(&gateway, Some(&stage.ann), "GET", TAGGED, &client).await;
        stage.upstream.put("team/app", "latest", &rebuilt);
        let again = ask(&gateway, Some(&stage.ann), "GET", TAGGED, &client).await;
        assert_eq!((again.status, again.digest()), (200, derived.digest()));
        assert_eq!(again.header("schemabridge-source-digest"), Some(rebuilt.digest.as_str()));
        gateway.stop().await;

        stage.upstream.contents().remove_manifest("team/app", &first.digest);
        let target = named("team/app", derived.digest());
        for _ in 0..2 {
            let fresh = stage.setup(replicas).before(&stage.upstream).await;
            assert_closed(&stage, &fresh, &target, &client, "as before").await;
            let reply = ask(&fresh, Some(&stage.ann), "GET", &target, &client).await;
            assert_eq!((reply.status, &reply.body), (200, &derived.body), "{replicas:?}: {}", reply.text());
            assert_eq!(reply.header("schemabridge-source-digest"), Some(rebuilt.digest.as_str()));
            assert_closed(&stage, &fresh, &target, &client, "as before").await;
            fresh.stop().await;
            // The second time without the bytes.
            let documents = stage.bucket.contents().names("v1/documents/");
            for name in &documents {
                stage.bucket.contents().remove(name);
            }
            let _nothing_there = std::fs::remove_dir_all(stage.directory.path().join("v1/documents"));
        }
        stage.upstream.contents().remove_manifest("team/app", &rebuilt.digest);
        let fresh = stage.setup(replicas).before(&stage.upstream).await;
        assert_eq!(ask(&fresh, Some(&stage.ann), "GET", &target, &client).await.status, 404);
    }
}
