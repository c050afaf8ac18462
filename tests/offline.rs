//! What was pulled once can be pulled again while the registry is away: to those who could pull it, from where they could,
//! and for as long as the operator says.

use std::path::Path;
use std::time::Duration;

use schemabridge::gateway::door::DoorOptions;
use schemabridge::store::blobs::BlobCacheOptions;

use crate::blob_cache::{started, until};
use crate::support::basic;
use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Image, Kind, index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const STALE: &str = "110 - \"Response is Stale\"";
/// The layer without content that schema 1 needs; it is everybody's.
const EMPTY_LAYER: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
/// So short that every answer is over before the next request comes.
const NO_TIME: Duration = Duration::from_nanos(1);

/// Everything that the pulls of three clients asked for, and what they got.
struct Pulled {
    upstream: Upstream,
    gateway: Gateway,
    seen: Vec<(Client, String, Reply)>,
    folder: tempfile::TempDir,
}

fn cache(folder: &Path) -> BlobCacheOptions {
    BlobCacheOptions::new(folder.to_owned(), 100 << 20)
}

async fn pulled(setup: Setup) -> Pulled {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let images = ["amd64", "arm64"].map(|architecture| Image::buildkit("app", architecture, Kind::Gzip, 2));
    for image in &images {
        upstream.put_image("app", "child", image, &image.oci());
    }
    let documents = [images[0].oci(), images[1].oci()];
    upstream.put("app", "latest", &index(&[(&documents[0], "linux/amd64"), (&documents[1], "linux/arm64")]));
    // A breaker that opens is an outage of its own kind, with its own status.
    let setup = setup.limits(|limits| limits.breaker = None);
    let gateway = started(setup.blob_cache(cache(folder.path())), &upstream).await;
    let mut pulled = Pulled { upstream, gateway, seen: Vec::new(), folder };
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::containerd_1_6()] {
        pulled.pull(&client).await;
    }
    pulled
}

impl Pulled {
    async fn pull(&mut self, client: &Client) {
        let mut targets = vec![TAGGED.to_owned()];
        let mut blobs = Vec::new();
        while let Some(target) = targets.pop() {
            let got = self.gateway.get(client, &target).await;
            assert_eq!(got.status, 200, "{target}: {}", got.text());
            if target == TAGGED {
                targets.push(format!("/v2/app/manifests/{}", got.digest()));
            } else {
                let document = got.json();
                let listed = |field: &str, key: &str| {
                    let entries = document[field].as_array().into_iter().flatten();
                    entries.map(|entry| entry[key].as_str().unwrap().to_owned()).collect::<Vec<_>>()
                };
                targets
                    .extend(listed("manifests", "digest").iter().map(|digest| format!("/v2/app/manifests/{digest}")));
                blobs.extend([listed("layers", "digest"), listed("fsLayers", "blobSum")].concat());
                blobs.extend(document["config"]["digest"].as_str().map(str::to_owned));
            }
            self.seen.push((client.clone(), target, got));
        }
        assert!(blobs.len() >= 2, "{blobs:?}");
        for digest in blobs {
            let target = format!("/v2/app/blobs/{digest}");
            let got = self.gateway.get(client, &target).await;
            assert_eq!((got.status, got.is_whole), (200, true), "{target}");
            if digest != EMPTY_LAYER {
                let (algorithm, hex) = digest.split_once(':').unwrap();
                let file = self.folder.path().join("v1/blobs").join(&hex[..2]).join(format!("{algorithm}-{hex}"));
                until("the blob to be kept", async || file.exists()).await;
            }
            self.seen.push((client.clone(), target, got));
        }
    }

    async fn befall(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Unplugged => self.upstream.go_down().await,
            Trouble::Answers(status) => {
                self.upstream.when("*", "*").answer(Answer::new(status).header("retry-after", "7"));
            }
        }
    }

    async fn statuses(&self) -> Vec<u16> {
        let mut statuses = Vec::new();
        for (client, target, _) in self.seen.iter().filter(|(_, target, _)| !target.ends_with(EMPTY_LAYER)) {
            statuses.push(self.gateway.send(&insisting(client.get(target))).await.status);
        }
        statuses.dedup();
        statuses
    }
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Unplugged,
    Answers(u16),
}

fn insisting(call: Call) -> Call {
    call.header("Cache-Control", "no-cache")
}

#[tokio::test]
async fn an_image_pulled_once_can_be_pulled_again() {
    for trouble in [Trouble::Unplugged, Trouble::Answers(503), Trouble::Answers(429)] {
        let mut pulled = pulled(Setup::default().permission_from_the_gateway()).await;
        pulled.befall(trouble).await;
        for (client, target, before) in &pulled.seen {
            let got = pulled.gateway.send(&insisting(client.get(target))).await;
            assert_eq!((got.status, got.is_whole), (200, true), "{trouble:?} {target}: {}", got.text());
            assert_eq!((&got.body, got.digest()), (&before.body, before.digest()), "{trouble:?} {target}");
            if !target.ends_with(EMPTY_LAYER) {
                assert!(got.all("warning").contains(&STALE), "{trouble:?} {target}: {:?}", got.headers);
                assert!(got.header("age").unwrap().parse::<u64>().is_ok());
            }
            let head = pulled.gateway.send(&insisting(client.head(target))).await;
            assert_eq!((head.status, head.digest()), (200, before.digest()), "{trouble:?} HEAD {target}");
            assert_eq!(head.header("content-length"), Some(before.body.len().to_string().as_str()), "{target}");
        }
        let mut kinds: Vec<_> = pulled.seen.iter().map(|(_, _, reply)| reply.content_type().to_owned()).collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), 6, "schema 1, list and schema 2, index and OCI, blobs: {kinds:?}");
    }
}

#[tokio::test]
async fn not_for_longer_than_the_operator_says() {
    let setup = Setup::default().permission_from_the_gateway().tags(|tags| tags.stale_if_error = NO_TIME);
    let mut pulled = pulled(setup).await;
    pulled.befall(Trouble::Answers(503)).await;
    assert_eq!(pulled.statuses().await, [503]);
}

#[tokio::test]
async fn not_where_the_upstream_gives_permission() {
    for (trouble, status) in [(Trouble::Unplugged, 502), (Trouble::Answers(503), 503), (Trouble::Answers(504), 504)] {
        let mut pulled = pulled(Setup::default().tag_ttl(Duration::from_secs(3600))).await;
        pulled.befall(trouble).await;
        assert_eq!(pulled.statuses().await, [status], "{trouble:?}");
    }
}

#[tokio::test]
async fn not_for_whom_the_door_does_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    std::fs::write(&passwords, format!("ann:{}\n", bcrypt::hash("1", 4).unwrap())).unwrap();
    let door = DoorOptions { htpasswd: Some(passwords), ..DoorOptions::default() };
    let mut upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let setup = Setup::default().permission_from_the_gateway().blob_cache(cache(&folder.path().join("blobs")));
    let gateway = setup.door(&door).before(&upstream).await;
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    let ask = async |target: &str, caller: Option<String>| {
        let call = insisting(Client::docker_17().get(target));
        let call = caller.iter().fold(call, |call, caller| call.header("Authorization", caller));
        gateway.send(&call).await.status
    };
    let ann = || Some(basic("ann", "1"));
    // The cache keeps nothing before it has taken stock.
    until("the blob to be kept", async || {
        assert_eq!(ask(&blob, ann()).await, 200);
        !upstream.requests_to("HEAD", &blob).is_empty()
    })
    .await;
    assert_eq!(ask(TAGGED, ann()).await, 200);
    upstream.go_down().await;
    for target in [TAGGED, &blob] {
        assert_eq!(ask(target, ann()).await, 200, "{target}");
        assert_eq!(ask(target, None).await, 401, "{target}");
        assert_eq!(ask(target, Some(basic("ann", "2"))).await, 401, "{target}");
    }
}

/// That a blob is in the cache is no word of an upstream that anybody may have it there.
#[tokio::test]
async fn not_from_where_it_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Upstream::start().await, Upstream::start().await);
    let setup = Setup::default().beside("hub", &second, "hub.example", "hub.gateway.example");
    let setup = setup.permission_from_the_gateway_everywhere().blob_cache(cache(folder.path()));
    let gateway = started(setup, &first).await;
    let bytes = b"of the first upstream, in app, and nowhere else".to_vec();
    let digest = first.contents().put_blob("app", bytes.clone().into());
    for upstream in [&first, &second] {
        upstream.contents().put_blob("other", b"to have the repository".to_vec().into());
    }
    let kept = format!("/v2/app/blobs/{digest}");
    let elsewhere = [
        format!("/v2/other/blobs/{digest}"),
        format!("/v2/hub/app/blobs/{digest}"),
        format!("/hub/v2/app/blobs/{digest}"),
        format!("/v2/app/blobs/{digest}?ns=hub.example"),
    ];
    let ask = async |method: &str, target: &str, range: Option<&str>| {
        let call = Client::docker_20_10().call(method, target);
        let call = range.into_iter().fold(call, |call, range| call.header("Range", range));
        gateway.send(&call).await
    };
    let asked = [("GET", None), ("HEAD", None), ("GET", Some("bytes=0-3"))];
    until("the blob to be kept", async || {
        assert_eq!(ask("GET", &kept, None).await.body, bytes);
        let (algorithm, hex) = digest.split_once(':').unwrap();
        folder.path().join("v1/blobs").join(&hex[..2]).join(format!("{algorithm}-{hex}")).exists()
    })
    .await;
    for (outage, status) in [(false, 404), (true, 502)] {
        if outage {
            first.go_down().await;
            second.go_down().await;
        }
        for target in &elsewhere {
            for (method, range) in asked {
                let got = ask(method, target, range).await;
                assert_eq!(got.status, status, "{method} {target} {range:?}");
                assert!(!got.text().contains("first"), "{method} {target} {range:?}");
            }
        }
        for (method, range) in asked {
            let expected = if range.is_some() { 206 } else { 200 };
            assert_eq!(ask(method, &kept, range).await.status, expected, "{method} {range:?}, outage: {outage}");
        }
    }
    // Once the second gives it too, it may be had there, without its being fetched again.
    second.come_back();
    second.contents().put_blob("app", bytes.clone().into());
    second.forget();
    until("the breaker to close", async || ask("GET", &elsewhere[1], None).await.status == 200).await;
    assert!(second.requests_to("GET", "*").is_empty(), "{:?}", second.lines());
}
