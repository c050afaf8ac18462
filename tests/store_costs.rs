//! What an answer costs the upstream and the store, in requests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use schemabridge::gateway::service::ServiceOptions;
use schemabridge::gateway::{Options, Service};
use schemabridge::store::Location;
use tokio::task::JoinSet;

use crate::support::bucket::Bucket;
use crate::support::client::{Client, Reply};
use crate::support::gateway::Setup;
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::upstream::{Recorded, Upstream};

const TAGGED: &str = "/v2/app/manifests/latest";
const READS: &str = "schemabridge_store_operations_total{operation=\"read\",result=\"ok\"}";
const LISTS: &str = "schemabridge_store_operations_total{operation=\"list recipes\",result=\"ok\"}";

fn named(digest: &str) -> String {
    format!("/v2/app/manifests/{digest}")
}

/// What was asked upstream, sorted: questions that are asked at the same time come in any order.
fn asked(upstream: &Upstream) -> Vec<String> {
    let mut lines = upstream.lines();
    lines.sort();
    lines
}

/// The source, and for schema 1 the digest itself too: it leaves the signature open, and what is stored goes first.
fn questions(client: &Client, derived: &Reply, image: &Image) -> Vec<String> {
    let source = format!("HEAD {}", named(&image.oci().digest));
    let itself = format!("HEAD {}", named(derived.digest()));
    let is_schema1 = client.user_agent == Client::docker_1_9_1().user_agent;
    let mut questions: Vec<String> = std::iter::once(source).chain(is_schema1.then_some(itself)).collect();
    questions.sort();
    questions
}

fn reads(bucket: &Bucket) -> Vec<String> {
    bucket.requests_to("GET", "*").iter().map(Recorded::line).collect()
}

#[tokio::test]
async fn a_digest_that_is_in_memory_costs_a_question_upstream_and_no_read() {
    let (upstream, image) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    for client in [Client::docker_17(), Client::docker_1_9_1()] {
        let derived = gateway.manifest(&client, TAGGED).await;
        for method in ["GET", "HEAD"] {
            upstream.forget();
            bucket.forget();
            let again = gateway.send(&client.call(method, &named(derived.digest()))).await;
            assert_eq!(again.status, 200);
            assert_eq!(asked(&upstream), questions(&client, &derived, &image));
            assert_eq!(reads(&bucket), Vec::<String>::new());
        }
    }
}

/// A directory is given a moment before the upstream is asked for the digest itself. On a machine that is too busy for it
/// the moment may pass, so a replica may be tried again; no try may cost more than that one question.
#[tokio::test]
async fn a_digest_in_a_directory_costs_a_question_upstream_and_one_read() {
    let (upstream, image) = Upstream::with_app().await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Setup::default().store_in(directory.path()).before(&upstream).await;
    let store = format!("file://{}", directory.path().display());
    for client in [Client::docker_17(), Client::docker_1_9_1()] {
        let derived = gateway.manifest(&client, TAGGED).await;
        let expected = questions(&client, &derived, &image);
        let mut is_seen = false;
        for _ in 0..20 {
            let cold = Process::serve(&["--upstream", &upstream.url(), "--store", &store], &[]).await;
            upstream.forget();
            let reply = cold.get(&Client::curl(), &named(derived.digest())).await;
            assert_eq!((reply.status, &reply.body), (200, &derived.body));
            assert_eq!((cold.metric(READS).await, cold.metric(LISTS).await), (1, 0));
            if asked(&upstream) == expected {
                is_seen = true;
                break;
            }
            let itself = format!("GET {}", named(derived.digest()));
            assert_eq!(asked(&upstream), [itself, format!("HEAD {}", named(&image.oci().digest))]);
        }
        assert!(is_seen, "never without asking for the digest itself");
    }
}

/// A bucket is far away, so both are asked at the same time.
#[tokio::test]
async fn a_digest_in_a_bucket_costs_one_read() {
    let (upstream, image) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    for client in [Client::docker_17(), Client::docker_1_9_1()] {
        let derived = gateway.manifest(&client, TAGGED).await;
        let cold = Setup::default().store_at(bucket.location()).before(&upstream).await;
        upstream.forget();
        bucket.forget();
        let reply = cold.get(&Client::curl(), &named(derived.digest())).await;
        assert_eq!((reply.status, &reply.body), (200, &derived.body));
        assert_eq!(reads(&bucket).len(), 1, "{:?}", reads(&bucket));
        let both = [format!("GET {}", named(derived.digest())), format!("HEAD {}", named(&image.oci().digest))];
        assert_eq!(asked(&upstream), both);
    }
}

#[tokio::test]
async fn many_who_ask_a_replica_for_a_digest_at_once_cost_one_read() {
    let (upstream, _) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let cold = Setup::default().store_at(bucket.location()).before(&upstream).await;
    bucket.forget();
    let gate = bucket.when("GET", "*").hold();
    let target = named(derived.digest());
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(Client::curl().get(&target).open(cold.address()).await);
    }
    upstream.arrived(20, "GET", &target).await;
    gate.open();
    for mut client in waiting {
        client.rest().await;
        assert_eq!(client.reply(false).body, derived.body);
    }
    assert_eq!(reads(&bucket).len(), 1, "{:?}", reads(&bucket));
}

#[tokio::test]
async fn a_stored_digest_that_was_seen_before_costs_no_read() {
    let (upstream, image) = Upstream::with_app().await;
    let bucket = Bucket::start().await;
    let gateway = Setup::default().store_at(bucket.location()).before(&upstream).await;
    let target = named(&image.oci().digest);
    assert_eq!(gateway.get(&Client::curl(), &target).await.status, 200);
    upstream.forget();
    bucket.forget();
    assert_eq!(gateway.get(&Client::curl(), &target).await.status, 200);
    assert_eq!((asked(&upstream), bucket.lines()), (vec![format!("HEAD {target}")], Vec::new()));
}

const CROWD: usize = 1000;

/// A crowd of first requests for one tag, spread over these gateways without sockets between; the bodies that came back.
async fn crowd(gateways: &[Arc<Service>]) -> BTreeSet<Bytes> {
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        let gateway = Arc::clone(&gateways[number % gateways.len()]);
        let request = Client::docker_1_9_1().user_agent.unwrap();
        let request = http::Request::get(TAGGED).header("host", "registry").header("user-agent", request);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        crowd.spawn(async move {
            let response = gateway.answer(request, SocketAddr::from(([127, 0, 0, 1], 1))).await;
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap().to_bytes()
        });
    }
    crowd.join_all().await.into_iter().collect()
}

/// A gateway that knows what the tag names, so that the crowd does not open a thousand connections to the upstream.
async fn primed(upstream: &Upstream, directory: &std::path::Path) -> Arc<Service> {
    let mut options = Options::for_upstream(upstream.url().parse().unwrap());
    options.tags.ttl = std::time::Duration::from_secs(3600);
    let mut all = ServiceOptions::alone(options);
    all.shared.store = Location::Directory(directory.to_owned());
    let gateway = Service::start(all).unwrap();
    let request = http::Request::head(TAGGED).header("host", "registry").header("accept", "*/*");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let primed = Box::pin(gateway.answer(request, SocketAddr::from(([127, 0, 0, 1], 1)))).await;
    assert_eq!(primed.status(), 200);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_first_requests_cost_one_derivation_on_each_replica_at_most() {
    for replicas in [1, 2] {
        let (upstream, image) = Upstream::with_app().await;
        let directory = tempfile::tempdir().unwrap();
        let mut gateways = Vec::new();
        for _ in 0..replicas {
            gateways.push(primed(&upstream, directory.path()).await);
        }
        assert_eq!(crowd(&gateways).await.len(), 1, "one body for all, signature included");
        let derivations = upstream.requests_to("GET", &format!("/v2/app/blobs/{}", image.config_digest())).len();
        assert!((1..=replicas).contains(&derivations), "{derivations} with {replicas} gateways");
    }
}
