//! A store that is away, full, slow or talks nonsense: what needs it is refused for as long as that lasts, everything else
//! goes on, and nothing has to be restarted.

use std::path::Path;

use crate::support::bucket::{Bucket, refusal};
use crate::support::client::{Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::sha256;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const FAILS: &str = "the store fails";
const ANSWERS: &str = "the store answers again";

fn named(digest: &str) -> String {
    format!("/v2/app/manifests/{digest}")
}

/// Puts another image under the tag, which nobody has translated yet.
fn move_on(upstream: &Upstream, name: &str) -> Image {
    let image = Image::classic(name);
    upstream.put_image("app", "latest", &image, &image.oci());
    image
}

/// What the store cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Everything,
    Writing,
}

/// 503 with the words of an error and when to come again.
fn assert_unavailable(reply: &Reply, why: &str) {
    assert_eq!(reply.status, 503, "{why}: {}", reply.text());
    assert!(reply.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "{why}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.error().1.contains("store"), "{why}: {}", reply.text());
}

/// What is stored upstream needs no store: by tag, by digest, and blobs.
async fn assert_stored_flows(process: &Process, image: &Image) {
    for target in [TAGGED.to_owned(), named(&image.oci().digest)] {
        let reply = process.get(&Client::curl(), &target).await;
        assert_eq!((reply.status, &reply.body[..]), (200, &image.oci().bytes[..]), "{target}");
    }
    let layer = &image.layers[0];
    let blob = process.get(&Client::curl(), &format!("/v2/app/blobs/{}", layer.digest)).await;
    assert_eq!((blob.status, blob.body), (200, layer.bytes.clone().unwrap().to_vec()));
    for path in ["/readyz", "/livez"] {
        assert_eq!(Client::curl().get(path).send(process.admin).await.status, 200, "{path}");
    }
}

async fn failed(process: &Process, operation: &str) -> u64 {
    let labels = format!("operation=\"{operation}\",result=\"failed\"");
    process.metric(&format!("schemabridge_store_operations_total{{{labels}}}")).await
}

/// Breaks the bucket in one way, looks at every answer, mends it, and looks again.
async fn breaks_and_heals(
    broken: Broken,
    break_down: impl AsyncFnOnce(&mut Bucket),
    mend: impl AsyncFnOnce(&mut Bucket),
) {
    let (upstream, image) = Upstream::with_app().await;
    let mut bucket = Bucket::start().await;
    let process = bucket.serve(&upstream).await;
    let early = process.get(&Client::docker_1_9_1(), TAGGED).await;
    let known = process.get(&Client::docker_17(), TAGGED).await;
    assert_eq!((early.status, known.status), (200, 200), "{}", process.log());
    let unknown = named(&sha256(b"never stored"));
    assert_eq!(process.get(&Client::docker_17(), &unknown).await.status, 404);

    break_down(&mut bucket).await;
    for reply in [&early, &known] {
        let again = process.get(&Client::curl(), &named(reply.digest())).await;
        assert_eq!((again.status, &again.body), (200, &reply.body), "what is in memory needs no store");
    }
    assert_stored_flows(&process, &image).await;
    let next = move_on(&upstream, "next");
    assert_unavailable(&process.get(&Client::docker_17(), TAGGED).await, "it may come back by digest");
    assert_unavailable(&process.get(&Client::docker_17(), TAGGED).await, "nor the second time");
    let unkept = process.get(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!(unkept.status, 200, "it never asks by digest: {}", unkept.text());
    let by_digest = process.get(&Client::docker_17(), &unknown).await;
    match broken {
        Broken::Everything => assert_unavailable(&by_digest, "it may have been handed out"),
        Broken::Writing => assert_eq!(by_digest.status, 404, "{}", by_digest.text()),
    }
    assert_stored_flows(&process, &next).await;
    assert_eq!(process.lines_logged(FAILS).await, 1, "{}", process.log());
    assert_eq!(process.lines_logged(ANSWERS).await, 0, "{}", process.log());
    assert!(failed(&process, "write").await > 0, "{}", process.metrics().await);
    let reads = failed(&process, "read").await + failed(&process, "list recipes").await;
    assert_eq!(reads > 0, broken == Broken::Everything, "{}", process.metrics().await);

    mend(&mut bucket).await;
    let healed = process.get(&Client::docker_17(), TAGGED).await;
    assert_eq!((healed.status, &healed.body[..]), (200, &next.schema2().bytes[..]), "{}", process.log());
    assert_eq!(process.get(&Client::docker_17(), &unknown).await.status, 404, "a miss again, not a failure");
    assert_eq!(process.lines_logged(FAILS).await, 1, "{}", process.log());
    assert_eq!(process.lines_logged(ANSWERS).await, 1, "{}", process.log());

    // A replica that has nothing in memory has all of it.
    let other = bucket.serve(&upstream).await;
    for reply in [&early, &known, &healed] {
        let there = other.get(&Client::curl(), &named(reply.digest())).await;
        assert_eq!((there.status, &there.body), (200, &reply.body));
    }
}

#[tokio::test]
async fn a_bucket_that_refuses_connections() {
    breaks_and_heals(Broken::Everything, async |bucket| bucket.go_down().await, async |bucket| bucket.come_back())
        .await;
}

#[tokio::test]
async fn a_bucket_that_resets_connections() {
    let reset = async |bucket: &mut Bucket| bucket.when("*", "*").reset();
    breaks_and_heals(Broken::Everything, reset, async |bucket| bucket.behave()).await;
}

#[tokio::test]
async fn a_bucket_that_is_busy() {
    let busy = async |bucket: &mut Bucket| {
        bucket.when("*", "*").answer(refusal(503, "SlowDown", "Please reduce your request rate."));
    };
    breaks_and_heals(Broken::Everything, busy, async |bucket| bucket.behave()).await;
}

fn refuse_writes(bucket: &Bucket, status: u16, code: &'static str) {
    for method in ["PUT", "POST", "DELETE"] {
        bucket.when(method, "*").answer(refusal(status, code, "not now"));
    }
}

#[tokio::test]
async fn a_bucket_that_is_full() {
    let full = async |bucket: &mut Bucket| refuse_writes(bucket, 507, "XMinioStorageFull");
    breaks_and_heals(Broken::Writing, full, async |bucket| bucket.behave()).await;
}

#[tokio::test]
async fn a_bucket_that_may_only_be_read() {
    let read_only = async |bucket: &mut Bucket| refuse_writes(bucket, 403, "AccessDenied");
    breaks_and_heals(Broken::Writing, read_only, async |bucket| bucket.behave()).await;
}

/// A bucket that somebody deleted says 404 too, which is no answer to what is in it.
#[tokio::test]
async fn a_bucket_that_is_gone() {
    let gone = async |bucket: &mut Bucket| {
        bucket.when("*", "*").answer(refusal(404, "NoSuchBucket", "The specified bucket does not exist"));
    };
    breaks_and_heals(Broken::Everything, gone, async |bucket| bucket.behave()).await;
}

/// A file stands where objects are staged: nothing can be written, whoever runs the test.
#[tokio::test]
async fn a_directory_that_may_only_be_read() {
    let (upstream, image) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let store = format!("file://{}", directory.path().display());
    let process = Process::serve(&["--upstream", &upstream.url(), "--store", &store], &[]).await;
    let known = process.get(&Client::docker_17(), TAGGED).await;
    assert_eq!(known.status, 200);
    let staging = directory.path().join("v1/staging");
    // What is still kept of the first answer may bring the directory back.
    while std::fs::write(&staging, "not a directory").is_err() {
        let _gone_by_itself = std::fs::remove_dir_all(&staging);
    }

    move_on(&upstream, "next");
    assert_unavailable(&process.get(&Client::docker_17(), TAGGED).await, "it cannot be kept");
    assert_eq!(process.get(&Client::docker_17(), &named(&sha256(b"never stored"))).await.status, 404);
    upstream.put("app", "latest", &image.oci());
    assert_stored_flows(&process, &image).await;
    assert_eq!((process.lines_logged(FAILS).await, process.lines_logged(ANSWERS).await), (1, 0), "{}", process.log());

    std::fs::remove_file(&staging).unwrap();
    move_on(&upstream, "next");
    assert_eq!(process.get(&Client::docker_17(), TAGGED).await.status, 200);
    assert_eq!((process.lines_logged(FAILS).await, process.lines_logged(ANSWERS).await), (1, 1), "{}", process.log());
}

#[tokio::test]
async fn a_bucket_that_is_away_at_the_start_is_a_warning() {
    let (upstream, image) = Upstream::with_app().await;
    let mut bucket = Bucket::start().await;
    bucket.go_down().await;
    let process = bucket.serve(&upstream).await;
    process.logged(FAILS).await;
    assert_stored_flows(&process, &image).await;
    for client in [Client::docker_1_9_1(), Client::docker_17()] {
        assert_unavailable(
            &process.get(&client, TAGGED).await,
            "nothing can be kept, and there is no key to sign with",
        );
    }
    bucket.come_back();
    for client in [Client::docker_1_9_1(), Client::docker_17()] {
        let reply = process.get(&client, TAGGED).await;
        assert_eq!(reply.status, 200, "{}\n{}", reply.text(), process.log());
    }
    assert_eq!((process.lines_logged(FAILS).await, process.lines_logged(ANSWERS).await), (1, 1), "{}", process.log());
}

/// Replicas would disagree about a signature made with a key that only one of them has.
#[tokio::test]
async fn schema_1_waits_until_the_shared_key_can_be_read() {
    let (upstream, _) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let first = Setup::default().store_at(bucket.location()).before(&upstream).await;
    let signed = first.manifest(&Client::docker_1_9_1(), TAGGED).await;
    first.stop().await;
    bucket.when("GET", &Bucket::path("v1/signing-key")).answer(refusal(503, "SlowDown", "later"));
    let second = Setup::default().store_at(bucket.location()).before(&upstream).await;
    let tagged = Image::classic("other");
    upstream.put_image("app", "other", &tagged, &tagged.oci());
    assert_unavailable(&second.get(&Client::docker_1_9_1(), "/v2/app/manifests/other").await, "no key");
    assert_eq!(second.manifest(&Client::docker_17(), "/v2/app/manifests/other").await.status, 200);
    bucket.behave();
    assert_eq!(second.manifest(&Client::docker_1_9_1(), "/v2/app/manifests/other").await.status, 200);
    assert_eq!(second.manifest(&Client::docker_1_9_1(), TAGGED).await.text(), signed.text());
}

#[tokio::test]
async fn a_bucket_that_gives_one_name_twice_is_a_warning() {
    const WARNING: &str = "the bucket gives one name to two objects";
    let (upstream, _) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let honest = bucket.serve(&upstream).await;
    // Its check ends with the removal of what it tried with.
    bucket.arrived(1, "POST", "/derived").await;
    bucket.contents().ignore_conditions();
    let warned = bucket.serve(&upstream).await;
    warned.logged(WARNING).await;
    assert_eq!((honest.lines_logged(WARNING).await, warned.lines_logged(WARNING).await), (0, 1));
    bucket.arrived(2, "POST", "/derived").await;
    assert_eq!(bucket.contents().names("v1/staging/"), Vec::<String>::new());
}

/// While the store does not answer, whatever does not need it does not wait for it.
#[tokio::test]
async fn a_store_that_is_slow_holds_up_only_what_needs_it() {
    let (upstream, image) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    let known = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let next = move_on(&upstream, "next");
    let unseen = Image::classic("unseen").oci();
    upstream.put("app", None, &unseen);
    let gate = bucket.when("*", "*").hold();
    let mut derived = Client::docker_17().get(TAGGED).open(gateway.address()).await;
    let mut unknown = Client::docker_17().get(&named(&sha256(b"never stored"))).open(gateway.address()).await;
    gate.reached(2).await;

    let flowing = async {
        for target in [TAGGED.to_owned(), named(&next.oci().digest), named(&unseen.digest)] {
            assert_eq!(gateway.manifest(&Client::curl(), &target).await.status, 200, "{target}");
        }
        let blob = format!("/v2/app/blobs/{}", image.layers[0].digest);
        assert_eq!(gateway.get(&Client::curl(), &blob).await.status, 200);
        assert_eq!(gateway.manifest(&Client::curl(), &named(known.digest())).await.status, 200, "it is in memory");
    };
    tokio::select! {
        () = unknown.rest() => panic!("what does not need the store waited for it"),
        () = flowing => {}
    }

    gate.open();
    derived.rest().await;
    unknown.rest().await;
    assert_eq!((derived.reply(false).status, unknown.reply(false).status), (200, 404));
}

/// It is not waited for without end, and a late answer of the upstream's is no reason to call something absent.
#[tokio::test]
async fn a_store_that_never_answers_is_away() {
    let (upstream, _) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    let _gate = bucket.when("*", "*").hold();
    let unknown = named(&sha256(b"never stored"));
    let docker = Client::docker_17();
    let (by_tag, by_digest) = tokio::join!(gateway.get(&docker, TAGGED), gateway.get(&docker, &unknown));
    assert_unavailable(&by_tag, "it cannot be kept");
    assert_unavailable(&by_digest, "it may have been handed out");
}

/// Derives a document, and gives a gateway that has nothing in memory.
async fn handed_out(upstream: &Upstream, bucket: &Bucket) -> (Reply, Process) {
    let gateway = Setup::default().store_at(bucket.location()).before(upstream).await;
    let reply = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    gateway.stop().await;
    (reply, bucket.serve(upstream).await)
}

#[tokio::test]
async fn junk_is_not_served_and_is_written_over() {
    let (upstream, image) = Upstream::with_app().await;
    let other = Image::classic("other");
    upstream.put_image("app", "other", &other, &other.oci());
    let bucket = Bucket::start().await;
    let (known, process) = handed_out(&upstream, &bucket).await;
    let name = bucket.contents().names("v1/documents/").remove(0);
    let original = bucket.contents().get(&name);
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    gateway.manifest(&Client::docker_17(), "/v2/app/manifests/other").await;
    gateway.stop().await;
    let others = bucket.contents().names("v1/documents/").into_iter().find(|found| *found != name).unwrap();
    let others = bucket.contents().get(&others);

    let mut process = process;
    for junk in ["<html>welcome to the wireless network</html>".into(), bytes::Bytes::new(), others] {
        bucket.when("GET", &Bucket::path("v1/documents/*")).with_body(junk);
        let again = process.get(&Client::curl(), &named(known.digest())).await;
        assert_eq!((again.status, &again.body[..]), (200, &image.schema2().bytes[..]), "{}", process.log());
        assert!(process.metric("schemabridge_store_damaged_objects_total").await > 0);
        let series = "schemabridge_derived_digest_requests_total{upstream=\"default\",result=\"rederived\"}";
        assert_eq!(process.metric(series).await, 1);
        process.logged("an object of the store is damaged").await;
        bucket.behave();
        assert_eq!(bucket.contents().get(&name), original);
        process = bucket.serve(&upstream).await;
    }
}

/// Whether something was handed out is not known as long as only nonsense comes back, or half of an answer.
#[tokio::test]
async fn what_is_cut_or_junk_is_no_answer() {
    let (upstream, _) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let (known, process) = handed_out(&upstream, &bucket).await;
    bucket.when("GET", &Bucket::path("v1/documents/*")).cut(100);
    assert_unavailable(&process.get(&Client::curl(), &named(known.digest())).await, "half a document");
    bucket.behave();
    bucket.when("GET", "/derived").cut(60);
    assert_unavailable(&process.get(&Client::curl(), &named(&sha256(b"never stored"))).await, "half a list");
    bucket.behave();
    bucket.when("*", "*").answer(Answer::new(200).body("<html>welcome to the wireless network</html>"));
    for digest in [known.digest(), &sha256(b"never stored")] {
        assert_unavailable(&process.get(&Client::curl(), &named(digest)).await, "nothing but junk");
    }
    bucket.behave();
    assert_eq!(process.get(&Client::curl(), &named(known.digest())).await.body, known.body);
    assert_eq!(process.get(&Client::curl(), &named(&sha256(b"never stored"))).await.status, 404);
}

/// What another replica hands out a moment later must be found.
#[tokio::test]
async fn a_miss_is_never_remembered() {
    let (upstream, image) = Upstream::with_app().await;
    let (bucket, directory) = (Bucket::start().await, tempfile::tempdir().unwrap());
    let replicas = async |setup: fn(&Bucket, &Path) -> Setup| -> [Gateway; 2] {
        let start = async || setup(&bucket, directory.path()).before(&upstream).await;
        [start().await, start().await]
    };
    for [one, other] in [
        replicas(|bucket, _| Setup::default().store_at(bucket.location())).await,
        replicas(|_, directory| Setup::default().store_in(directory)).await,
    ] {
        let target = named(&image.schema2().digest);
        assert_eq!(one.manifest(&Client::docker_17(), &target).await.status, 404);
        assert_eq!(other.manifest(&Client::docker_17(), TAGGED).await.status, 200);
        assert_eq!(one.manifest(&Client::docker_17(), &target).await.status, 200);
    }
}
