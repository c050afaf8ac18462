//! However many clients want one derived document, the upstream is asked for its parts once, and no caller's fate is
//! another's.

use crate::support::basic;
use crate::support::client::Client;
use crate::support::fault::Answer;
use crate::support::gateway::Gateway;
use crate::support::images::Image;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const CLIENTS: usize = 20;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    config: String,
}

async fn stage() -> Stage {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    Stage { upstream, gateway, config: format!("/v2/app/blobs/{}", image.config_digest()) }
}

#[tokio::test]
async fn many_clients_cost_one_fetch() {
    let stage = stage().await;
    let gate = stage.upstream.when("GET", &stage.config).hold();
    let mut waiting = Vec::new();
    for _ in 0..CLIENTS {
        waiting.push(Client::docker_1_9_1().get(TAGGED).open(stage.gateway.address()).await);
    }
    stage.upstream.arrived(CLIENTS, "HEAD", TAGGED).await;
    gate.reached(1).await;
    gate.open();
    for mut client in waiting {
        client.rest().await;
        assert_eq!(client.reply(false).status, 200);
    }
    assert_eq!(stage.upstream.requests_to("GET", &stage.config).len(), 1);
    assert_eq!(stage.upstream.requests_to("GET", "/v2/app/manifests/*").len(), 1);
    assert_eq!(stage.upstream.requests_to("HEAD", TAGGED).len(), CLIENTS, "each caller's consent is asked for");
}

#[tokio::test]
async fn the_work_goes_on_when_the_client_that_began_it_leaves() {
    let stage = stage().await;
    let gate = stage.upstream.when("GET", &stage.config).hold();
    let leader = Client::docker_1_9_1().get(TAGGED).open(stage.gateway.address()).await;
    gate.reached(1).await;
    let mut follower = Client::docker_1_9_1().get(TAGGED).open(stage.gateway.address()).await;
    stage.upstream.arrived(2, "HEAD", TAGGED).await;
    drop(leader);
    gate.open();
    follower.rest().await;
    assert_eq!(follower.reply(false).status, 200);
    assert_eq!(stage.upstream.requests_to("GET", &stage.config).len(), 1);
}

/// A cache that starts its work again whenever the one who waits for it leaves gives up after enough departures.
#[tokio::test]
async fn clients_that_leave_one_by_one_do_not_start_it_again() {
    let stage = stage().await;
    let gate = stage.upstream.when("GET", &stage.config).hold();
    for count in 1..=CLIENTS {
        let leaving = Client::docker_1_9_1().get(TAGGED).open(stage.gateway.address()).await;
        stage.upstream.arrived(count, "HEAD", TAGGED).await;
        drop(leaving);
    }
    gate.reached(1).await;
    let mut last = Client::docker_1_9_1().get(TAGGED).open(stage.gateway.address()).await;
    stage.upstream.arrived(CLIENTS + 1, "HEAD", TAGGED).await;
    gate.open();
    last.rest().await;
    assert_eq!(last.reply(false).status, 200);
    assert_eq!(stage.upstream.requests_to("GET", &stage.config).len(), 1);
}

/// The leader may see the manifest but not the config; that is no verdict on the others.
#[tokio::test]
async fn a_refusal_of_the_leader_is_tried_again_with_ones_own_credentials() {
    let stage = stage().await;
    let (ann, bob) = (basic("ann", "1"), basic("bob", "2"));
    stage.upstream.contents().close("Basic realm=\"registry\"");
    for caller in [&ann, &bob] {
        stage.upstream.contents().admit(caller, "app");
    }
    let refused = ann.clone();
    stage.upstream.when("GET", &stage.config).alter(move |request, answer| {
        if request.header("authorization") == Some(&refused) {
            *answer = Answer::error(403, "DENIED", "not you");
        }
    });
    let gate = stage.upstream.when("GET", &stage.config).times(1).hold();
    let ask = |caller: &str| Client::docker_1_9_1().get(TAGGED).header("Authorization", caller);
    let mut leader = ask(&ann).open(stage.gateway.address()).await;
    gate.reached(1).await;
    let mut follower = ask(&bob).open(stage.gateway.address()).await;
    stage.upstream.arrived(2, "HEAD", TAGGED).await;
    gate.open();
    leader.rest().await;
    follower.rest().await;
    assert_eq!(follower.reply(false).status, 200, "{}", follower.reply(false).text());
    assert_eq!(leader.reply(false).status, 403);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let stage = stage().await;
    stage.upstream.when("GET", &stage.config).times(1).answer(Answer::new(503));
    assert_eq!(stage.gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 503);
    assert_eq!(stage.gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
}

#[tokio::test]
async fn all_who_wait_get_the_same_bytes() {
    let stage = stage().await;
    let address = stage.gateway.address();
    let asking = (0..CLIENTS).map(|_| async move { Client::docker_1_9_1().get(TAGGED).send(address).await });
    let replies = futures_util::future::join_all(asking).await;
    let first = &replies[0];
    for reply in &replies {
        assert_eq!((reply.status, reply.digest(), &reply.body), (200, first.digest(), &first.body));
    }
}

/// Threads, formats and methods at once; each client's digest is one and the same throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_on_many_threads_sees_one_digest_for_each_form() {
    let stage = stage().await;
    let address = stage.gateway.address();
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..200 {
        let clients = [Client::docker_1_9_1(), Client::docker_17(), Client::docker_20_10(), Client::oci_only()];
        let client = clients[number % 4].clone();
        let call = if number % 3 == 0 { client.head(TAGGED) } else { client.get(TAGGED) };
        crowd.spawn(async move { (number % 4, call.send(address).await) });
    }
    let mut digests = vec![std::collections::BTreeSet::new(); 4];
    while let Some(answered) = crowd.join_next().await {
        let (form, reply) = answered.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        digests[form].insert((reply.digest().to_owned(), reply.header("content-length").map(str::to_owned)));
    }
    assert!(digests.iter().all(|seen| seen.len() == 1), "{digests:?}");
    assert_eq!(stage.upstream.requests_to("GET", &stage.config).len(), 1);
}
