//! What the gateway handed out stays pullable across a restart with a directory, and goes with the process without one.

use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Image};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

async fn named(gateway: &Gateway, known: &Reply) -> Reply {
    gateway.manifest(&Client::curl(), &format!("/v2/app/manifests/{}", known.digest())).await
}

#[tokio::test]
async fn a_directory_keeps_derived_digests_across_a_restart() {
    let (upstream, image) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let first = Setup::default().store_in(directory.path()).before(&upstream).await;
    let schema1 = first.manifest(&Client::docker_1_9_1(), TAGGED).await;
    let schema2 = first.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!((schema1.status, schema2.status), (200, 200));
    first.stop().await;

    upstream.put("app", "latest", &Image::small("moved on").oci());
    let second = Setup::default().store_in(directory.path()).before(&upstream).await;
    for known in [&schema1, &schema2] {
        let again = named(&second, known).await;
        assert_eq!((again.status, again.content_type(), again.text()), (200, known.content_type(), known.text()));
    }
    assert_eq!(upstream.requests_to("GET", &format!("/v2/app/blobs/{}", image.config_digest())).len(), 1);
}

#[tokio::test]
async fn the_signing_key_is_kept_so_every_byte_is_the_same_after_a_restart() {
    let (upstream, _) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let gateway = Setup::default().store_in(directory.path()).before(&upstream).await;
        seen.push(gateway.manifest(&Client::docker_1_9_1(), TAGGED).await);
        gateway.stop().await;
    }
    assert_eq!(seen[0].text(), seen[1].text());
}

#[tokio::test]
async fn two_replicas_on_one_directory_answer_for_each_other() {
    let (upstream, _) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let one = Setup::default().store_in(directory.path()).before(&upstream).await;
    let other = Setup::default().store_in(directory.path()).before(&upstream).await;
    for client in [Client::docker_1_9_1(), Client::docker_17()] {
        let derived = one.manifest(&client, TAGGED).await;
        let elsewhere = named(&other, &derived).await;
        assert_eq!((elsewhere.status, elsewhere.text()), (200, derived.text()));
        assert_eq!(other.manifest(&client, TAGGED).await.text(), derived.text());
    }
}

#[tokio::test]
async fn memory_goes_with_the_process() {
    let (upstream, image) = Upstream::with_app().await;
    let first = Gateway::before(&upstream).await;
    let derived = first.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(named(&first, &derived).await.status, 200);
    first.stop().await;
    let second = Gateway::before(&upstream).await;
    assert_eq!(named(&second, &derived).await.status, 404);
    assert_eq!(
        second.manifest(&Client::docker_17(), TAGGED).await.digest(),
        image.schema2().digest,
        "cooked again, the same"
    );
    assert_eq!(named(&second, &derived).await.status, 200);
}

#[tokio::test]
async fn each_replica_cooks_the_same_digest_on_its_own() {
    let (upstream, _) = Upstream::with_app().await;
    let (one, other) = (Gateway::before(&upstream).await, Gateway::before(&upstream).await);
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::oci_only()] {
        let (here, there) = (one.manifest(&client, TAGGED).await, other.manifest(&client, TAGGED).await);
        assert_eq!(here.digest(), there.digest());
    }
}

/// A cache hit by tag must leave a recipe too: the second source would otherwise not keep the digest alive.
#[tokio::test]
async fn a_directory_that_lost_everything_is_filled_again() {
    let (upstream, _) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Setup::default().store_in(directory.path()).before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.unwrap();
    }
    gateway.stop().await;
    let gateway = Setup::default().store_in(directory.path()).before(&upstream).await;
    assert_eq!(named(&gateway, &derived).await.status, 404);
    gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(named(&gateway, &derived).await.status, 200);
}

/// A directory that has become a file can be neither read nor written, whoever runs the test.
fn break_down(directory: &std::path::Path) {
    std::fs::remove_dir_all(directory).unwrap();
    std::fs::write(directory, "not a directory").unwrap();
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_handed_out_but_to_engines_that_do_not_come_back() {
    let (upstream, _) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let gateway = Setup::default().store_in(&store).before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    break_down(&store);
    let other = Image::classic("other");
    upstream.put_image("app", "latest", &other, &other.oci());
    let refused = gateway.get(&Client::docker_17(), TAGGED).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    refused.error();
    assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200, "it will not ask by digest");
    assert_eq!(gateway.manifest(&Client::curl(), TAGGED).await.status, 200, "what is stored upstream needs no store");
}

/// In a directory that is full or read-only a list cannot be made again, because its children cannot be kept.
#[tokio::test]
async fn a_list_that_cannot_be_made_now_is_not_called_lost() {
    let (upstream, image) = Upstream::with_app().await;
    upstream.put("app", "many", &images::index(&[(&image.oci(), "linux/amd64")]));
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup::default().store_in(directory.path());
    let first = setup().before(&upstream).await;
    let list = first.manifest(&Client::docker_17(), "/v2/app/manifests/many").await;
    assert_eq!(list.content_type(), images::LIST, "{}", list.text());
    first.stop().await;
    std::fs::remove_dir_all(directory.path().join("v1/documents")).unwrap();
    let second = setup().before(&upstream).await;
    let staging = directory.path().join("v1/staging");
    std::fs::remove_dir_all(&staging).unwrap();
    std::fs::write(&staging, "nothing can be staged").unwrap();
    let refused = named(&second, &list).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    std::fs::remove_file(&staging).unwrap();
    let again = named(&second, &list).await;
    assert_eq!((again.status, again.text()), (200, list.text()));
}

#[tokio::test]
async fn what_is_unknown_because_the_store_is_away_is_not_called_absent() {
    let (upstream, image) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let gateway = Setup::default().store_in(&store).before(&upstream).await;
    break_down(&store);
    let target = format!("/v2/app/manifests/{}", image.schema2().digest);
    let unknown = gateway.get(&Client::docker_17(), &target).await;
    assert_eq!(unknown.status, 503, "{}", unknown.text());
    assert!(unknown.header("retry-after").is_some());
    let stored = format!("/v2/app/manifests/{}", image.oci().digest);
    assert_eq!(gateway.manifest(&Client::curl(), &stored).await.status, 200);
}

/// Replicas would disagree about a signature made with a key that only one of them has.
#[tokio::test]
async fn schema_1_waits_for_the_shared_key() {
    let (upstream, _) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let gateway = Setup::default().store_in(&store).before(&upstream).await;
    break_down(&store);
    let refused = gateway.get(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    std::fs::remove_file(&store).unwrap();
    std::fs::create_dir(&store).unwrap();
    assert_eq!(gateway.manifest(&Client::docker_1_9_1(), TAGGED).await.status, 200);
}
