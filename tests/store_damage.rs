//! Objects of the store that are damaged, or whose times cannot be right: noticed, made again, and never believed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use schemabridge::store::Store;
use schemabridge::store::location::Location;
use schemabridge::store::sweep::{Bounds, Occasion};
use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::client::{Client, Reply};
use crate::support::gateway::Setup;
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::sha256;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const DAMAGED: &str = "schemabridge_store_damaged_objects_total";
const REDERIVED: &str = "schemabridge_derived_digest_requests_total{upstream=\"default\",result=\"rederived\"}";
const LOST: &str = "schemabridge_derived_digest_requests_total{upstream=\"default\",result=\"lost\"}";

/// A store whose objects the test can get at.
enum Objects {
    Bucket(Bucket),
    Directory(tempfile::TempDir),
}

impl Objects {
    async fn both() -> [Self; 2] {
        [Self::Bucket(Bucket::start().await), Self::Directory(tempfile::tempdir().unwrap())]
    }

    fn setup(&self) -> Setup {
        match self {
            Self::Bucket(bucket) => Setup::default().store_at(bucket.location()),
            Self::Directory(directory) => Setup::default().store_in(directory.path()),
        }
    }

    async fn serve(&self, upstream: &Upstream) -> Process {
        match self {
            Self::Bucket(bucket) => bucket.serve(upstream).await,
            Self::Directory(directory) => {
                let store = format!("file://{}", directory.path().display());
                Process::serve(&["--upstream", &upstream.url(), "--store", &store], &[]).await
            }
        }
    }

    /// The names that begin so.
    fn names(&self, beginning: &str) -> Vec<String> {
        match self {
            Self::Bucket(bucket) => bucket.contents().names(beginning),
            Self::Directory(directory) => {
                let names = files_below(directory.path().to_owned())
                    .into_iter()
                    .map(|file| file.strip_prefix(directory.path()).unwrap().to_string_lossy().into_owned());
                names.filter(|name| name.starts_with(beginning)).collect()
            }
        }
    }

    fn only(&self, beginning: &str) -> String {
        let names = self.names(beginning);
        assert_eq!(names.len(), 1, "{names:?}");
        names.into_iter().next().unwrap()
    }

    fn get(&self, name: &str) -> Bytes {
        match self {
            Self::Bucket(bucket) => bucket.contents().get(name),
            Self::Directory(directory) => std::fs::read(directory.path().join(name)).unwrap().into(),
        }
    }

    fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        match self {
            Self::Bucket(bucket) => bucket.contents().put(name, bytes),
            Self::Directory(directory) => std::fs::write(directory.path().join(name), bytes.into()).unwrap(),
        }
    }

    fn remove(&self, name: &str) {
        match self {
            Self::Bucket(bucket) => bucket.contents().remove(name),
            Self::Directory(directory) => std::fs::remove_file(directory.path().join(name)).unwrap(),
        }
    }

    /// Flips a bit of the byte at this place, counted from the end if negative.
    fn flip(&self, name: &str, place: isize) {
        let mut bytes = self.get(name).to_vec();
        let length = isize::try_from(bytes.len()).unwrap();
        bytes[usize::try_from(place.rem_euclid(length)).unwrap()] ^= 1;
        self.put(name, bytes);
    }

    /// Says of every object that it was written then.
    fn set_modified(&self, modified: SystemTime) {
        match self {
            Self::Bucket(bucket) => bucket.contents().set_modified(modified),
            Self::Directory(directory) => {
                for file in files_below(directory.path().to_owned()) {
                    std::fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
                }
            }
        }
    }
}

fn files_below(folder: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(path) } else { vec![path] }).collect()
}

/// An object with this content, as the layout frames it.
fn framed(content: &[u8]) -> Vec<u8> {
    [format!("schemabridge 1 {}\n", sha256(content)).as_bytes(), content].concat()
}

fn content(object: &Bytes) -> Value {
    let line = object.iter().position(|byte| *byte == b'\n').unwrap();
    serde_json::from_slice(&object[line + 1..]).unwrap()
}

fn named(digest: &str) -> String {
    format!("/v2/app/manifests/{digest}")
}

/// What a gateway that has ended since handed out.
async fn handed_out(objects: &Objects, upstream: &Upstream, client: &Client) -> Reply {
    let gateway = objects.setup().before(upstream).await;
    let reply = gateway.manifest(client, TAGGED).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    gateway.stop().await;
    reply
}

#[tokio::test]
async fn a_damaged_document_is_made_again_from_its_recipe_and_replaced() {
    let (upstream, _) = Upstream::with_app().await;
    for objects in Objects::both().await {
        for client in [Client::docker_17(), Client::docker_1_9_1()] {
            let known = handed_out(&objects, &upstream, &client).await;
            let hex = known.digest().strip_prefix("sha256:").unwrap().to_owned();
            let name = objects.only(&format!("v1/documents/1/{}/{}/{hex}", &hex[..2], &hex[2..4]));
            let original = objects.get(&name);
            // The mark, the hash, the recipe and the bytes; the last ones of a schema 1 are its signature.
            for place in [0, 40, 100, 300, -40, -1] {
                objects.flip(&name, place);
                let process = objects.serve(&upstream).await;
                let again = process.get(&Client::curl(), &named(known.digest())).await;
                assert_eq!((again.status, &again.body), (200, &known.body), "{place}: {}", process.log());
                assert!(process.metric(DAMAGED).await > 0 && process.metric(REDERIVED).await == 1, "{place}");
                process.logged("an object of the store is damaged").await;
                assert_eq!(objects.get(&name), original, "{place}");
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_recipe_is_replaced_when_the_tag_is_asked_for() {
    let (upstream, _) = Upstream::with_app().await;
    for objects in Objects::both().await {
        let known = handed_out(&objects, &upstream, &Client::docker_17()).await;
        let name = objects.only("v1/recipes/");
        let original = objects.get(&name);
        objects.flip(&name, -10);
        let process = objects.serve(&upstream).await;
        let by_digest = process.get(&Client::curl(), &named(known.digest())).await;
        assert_eq!((by_digest.status, &by_digest.body), (200, &known.body), "the document holds its recipe too");
        // Another replica may have ended its claim with this; whoever cooks writes the recipe.
        objects.names("v1/claims/").iter().for_each(|claim| objects.remove(claim));
        assert_eq!(process.get(&Client::docker_17(), TAGGED).await.body, known.body);
        assert_eq!(process.metric(DAMAGED).await, 1);
        assert_eq!(objects.get(&name), original);
    }
}

/// Nobody can say whose digest it was any more, but it was handed out.
#[tokio::test]
async fn a_damaged_document_without_a_recipe_is_not_called_absent() {
    let (upstream, _) = Upstream::with_app().await;
    for objects in Objects::both().await {
        let known = handed_out(&objects, &upstream, &Client::docker_17()).await;
        objects.flip(&objects.only("v1/documents/"), -1);
        objects.flip(&objects.only("v1/recipes/"), -1);
        objects.names("v1/claims/").iter().for_each(|claim| objects.remove(claim));
        let gateway = objects.setup().before(&upstream).await;
        let reply = gateway.get(&Client::curl(), &named(known.digest())).await;
        assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{}", reply.text());
        assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.body, known.body);
        assert_eq!(gateway.manifest(&Client::curl(), &named(known.digest())).await.body, known.body);
    }
}

/// A recipe that is whole and wrong: it leads to another document.
#[tokio::test]
async fn what_is_made_again_is_served_only_under_its_own_digest() {
    let (upstream, _) = Upstream::with_app().await;
    let other = Image::classic("other");
    upstream.put_image("app", "other", &other, &other.oci());
    for objects in Objects::both().await {
        let known = handed_out(&objects, &upstream, &Client::docker_17()).await;
        objects.remove(&objects.only("v1/documents/"));
        let name = objects.only("v1/recipes/");
        let mut recipe = content(&objects.get(&name));
        recipe["source"] = other.oci().digest.into();
        objects.put(&name, framed(recipe.to_string().as_bytes()));
        let process = objects.serve(&upstream).await;
        let reply = process.get(&Client::curl(), &named(known.digest())).await;
        assert_eq!(reply.status, 404, "{}", reply.text());
        assert!(reply.error().1.contains("pull the tag again"), "{}", reply.text());
        assert_eq!((process.metric(LOST).await, process.metric(REDERIVED).await), (1, 0));
    }
}

/// Other replicas sign with it, and a new one would give their digests other bytes.
#[tokio::test]
async fn a_damaged_signing_key_is_not_replaced() {
    let (upstream, _) = Upstream::with_app().await;
    for objects in Objects::both().await {
        let known = handed_out(&objects, &upstream, &Client::docker_1_9_1()).await;
        let other = Image::classic("other");
        upstream.put_image("app", "other", &other, &other.oci());
        let name = objects.only("v1/signing-key");
        let original = objects.get(&name);
        objects.flip(&name, 150);
        let damaged = objects.get(&name);
        let process = objects.serve(&upstream).await;
        for _ in 0..2 {
            let reply = process.get(&Client::docker_1_9_1(), "/v2/app/manifests/other").await;
            assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{}", reply.text());
            assert!(reply.error().1.contains("v1/signing-key is damaged"), "{}", reply.text());
        }
        assert_eq!(objects.get(&name), damaged);
        assert!(process.metric(DAMAGED).await > 0);
        assert_eq!(process.get(&Client::docker_17(), "/v2/app/manifests/other").await.status, 200);
        assert_eq!(process.get(&Client::curl(), &named(known.digest())).await.body, known.body, "it was signed before");
        objects.put(&name, original);
        assert_eq!(process.get(&Client::docker_1_9_1(), "/v2/app/manifests/other").await.status, 200);
    }
}

fn odd_times() -> [SystemTime; 2] {
    [SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(10 * 365 * 24 * 3600)]
}

#[tokio::test]
async fn objects_of_1970_and_of_the_future_are_served() {
    let (upstream, _) = Upstream::with_app().await;
    for objects in Objects::both().await {
        let known = [
            handed_out(&objects, &upstream, &Client::docker_17()).await,
            handed_out(&objects, &upstream, &Client::docker_1_9_1()).await,
        ];
        for time in odd_times() {
            objects.set_modified(time);
            let gateway = objects.setup().before(&upstream).await;
            for (client, known) in [Client::docker_17(), Client::docker_1_9_1()].iter().zip(&known) {
                let by_digest = gateway.manifest(&Client::curl(), &named(known.digest())).await;
                assert_eq!((by_digest.status, &by_digest.body), (200, &known.body), "{time:?}");
                assert_eq!(gateway.manifest(client, TAGGED).await.body, known.body, "{time:?}");
            }
            gateway.stop().await;
        }
    }
}

/// A claim that never ends by its time is waited for no longer than any other.
#[tokio::test]
async fn a_claim_of_the_future_does_not_block_a_derivation() {
    let (upstream, image) = Upstream::with_app().await;
    for objects in Objects::both().await {
        handed_out(&objects, &upstream, &Client::docker_17()).await;
        for time in odd_times() {
            let claim = objects.only("v1/claims/");
            for name in [&objects.names("v1/documents/")[..], &objects.names("v1/recipes/")].concat() {
                objects.remove(&name);
            }
            objects.put(&claim, framed(b"\"at_work\""));
            objects.set_modified(time);
            let gateway = objects.setup().before(&upstream).await;
            let reply = gateway.manifest(&Client::docker_17(), TAGGED).await;
            assert_eq!((reply.status, &reply.body[..]), (200, &image.schema2().bytes[..]), "{time:?}");
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn a_sweep_under_a_wrong_clock_leaves_what_is_in_use() {
    let (upstream, _) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Directory(directory.path().to_owned());
    let objects = Objects::Directory(directory);
    let known = handed_out(&objects, &upstream, &Client::docker_17()).await;
    let kept = [objects.names("v1/documents/"), objects.names("v1/recipes/")];
    for time in odd_times() {
        objects.set_modified(time);
        let swept = Store::open(&location).unwrap().sweep(Bounds::default(), Occasion::Background, || {}).await;
        let swept = swept.unwrap();
        assert_eq!((swept.documents, swept.recipes), (0, 0), "{time:?}");
        assert_eq!([objects.names("v1/documents/"), objects.names("v1/recipes/")], kept, "{time:?}");
        let gateway = objects.setup().before(&upstream).await;
        assert_eq!(gateway.manifest(&Client::curl(), &named(known.digest())).await.body, known.body);
        gateway.stop().await;
    }
}
