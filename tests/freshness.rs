//! How long the gateway goes by what the upstream said before, and what it does when the upstream cannot be asked.

use std::time::Duration;

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Image};
use crate::support::upstream::{Absent, Upstream};
use crate::support::{basic, patiently};

const TAGGED: &str = "/v2/app/manifests/latest";
const HOUR: Duration = Duration::from_secs(3600);
/// So short that every answer is over before the next request comes.
const NO_TIME: Duration = Duration::from_nanos(1);

const STALE: &str = "110 - \"Response is Stale\"";

fn insisting(client: &Client, target: &str) -> Call {
    client.get(target).header("Cache-Control", "no-cache")
}

fn cache(result: &str) -> String {
    format!("schemabridge_cache_requests_total{{cache=\"tag\",result=\"{result}\"}}")
}

/// Opens so many calls and comes back when the gateway has all of them in hand: it accepts in order, and answered one that
/// came after them.
async fn crowd(gateway: &Gateway, number: usize, call: &Call) -> Vec<crate::support::client::Open> {
    let mut waiting = Vec::new();
    for _ in 0..number {
        waiting.push(call.open(gateway.address()).await);
    }
    assert_eq!(gateway.send(&Call::new("GET", "/v1/_ping")).await.status, 404);
    waiting
}

async fn replies(waiting: Vec<crate::support::client::Open>) -> Vec<Reply> {
    let mut replies = Vec::new();
    for mut open in waiting {
        patiently("an answer", open.rest()).await;
        replies.push(open.reply(false));
    }
    replies
}

mod fresh {
    use super::*;

    #[tokio::test]
    async fn within_its_time_an_answer_is_repeated_and_after_it_one_head_asks_again() {
        let cases = [
            (Setup::default().tag_ttl(HOUR), [2, 1, 0], 1),
            (Setup::default().permission_from_the_gateway(), [2, 1, 0], 1),
            (Setup::default().permission_from_the_gateway().tag_ttl(NO_TIME), [0, 1, 2], 3),
        ];
        for (setup, expected, heads) in cases {
            let (upstream, image) = Upstream::with_app().await;
            let gateway = setup.before(&upstream).await;
            for _ in 0..3 {
                let got = gateway.get(&Client::docker_17(), TAGGED).await;
                assert_eq!((got.digest(), got.header("age")), (image.schema2().digest.as_str(), None));
            }
            assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), heads, "{:?}", upstream.lines());
            assert!(upstream.requests_to("GET", TAGGED).is_empty(), "{:?}", upstream.lines());
            assert_eq!(["hit", "miss", "revalidated"].map(|result| gateway.metric(&cache(result))), expected);
        }
    }

    #[tokio::test]
    async fn without_a_time_the_upstream_is_asked_each_time() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Gateway::before(&upstream).await;
        for _ in 0..3 {
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.status, 200);
        }
        assert_eq!((upstream.requests_to("HEAD", TAGGED).len(), gateway.metric(&cache("bypass"))), (3, 3));
    }

    #[tokio::test]
    async fn a_moved_tag_is_seen_when_its_time_is_over_or_a_client_insists() {
        for directive in ["no-cache", "max-age=0"] {
            let (upstream, image) = Upstream::with_app().await;
            let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
            let next = Image::small("next");
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.digest(), image.oci().digest);
            upstream.put_image("app", "latest", &next, &next.oci());
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.digest(), image.oci().digest);
            let call = Client::curl().get(TAGGED).header("Cache-Control", directive);
            assert_eq!(gateway.send(&call).await.digest(), next.oci().digest);
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.digest(), next.oci().digest, "it is remembered");
            let counted = ["hit", "miss", "revalidated"].map(|result| gateway.metric(&cache(result)));
            assert_eq!(counted, [2, 1, 1], "{directive}");
        }
    }

    #[tokio::test]
    async fn rules_by_tag_decide_before_the_rest() {
        let (upstream, image) = Upstream::with_app().await;
        for tag in ["v1", "v1-RC1"] {
            upstream.put("app", tag, &image.oci());
        }
        let rule = |tags: &str, ttl| schemabridge::gateway::TagRule {
            tags: schemabridge::negotiate::Glob::of_tags(tags).unwrap(),
            ttl,
        };
        let rules = vec![rule("*-RC*", Duration::ZERO), rule("v*", HOUR)];
        let gateway = Setup::default().tags(|tags| tags.rules = rules).before(&upstream).await;
        for (tag, heads) in [("v1", 1), ("v1-RC1", 3), ("latest", 3)] {
            let target = format!("/v2/app/manifests/{tag}");
            for _ in 0..3 {
                assert_eq!(gateway.get(&Client::curl(), &target).await.status, 200);
            }
            assert_eq!(upstream.requests_to("HEAD", &target).len(), heads, "{tag}");
        }
    }

    /// Nothing of one client's goes to an upstream that all share, and what one was told holds for all.
    #[tokio::test]
    async fn where_permission_comes_from_the_gateway_one_answer_serves_all() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
        let derived = format!("/v2/app/manifests/{}", image.schema2().digest);
        for caller in [Some(basic("ann", "1")), None, Some(basic("bob", "2"))] {
            for target in [TAGGED, &derived] {
                let call = Client::docker_17().get(target);
                let call = caller.iter().fold(call, |call, caller| call.header("Authorization", caller));
                assert_eq!(gateway.send(&call).await.status, 200);
            }
        }
        assert_eq!(upstream.requests_to("HEAD", "*").len(), 1, "{:?}", upstream.lines());
        assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
    }
}

mod together {
    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_question() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Setup::default().permission_from_the_gateway().tag_ttl(NO_TIME).before(&upstream).await;
        let gate = upstream.when("HEAD", TAGGED).times(1).hold();
        let waiting = crowd(&gateway, 50, &Client::docker_17().get(TAGGED)).await;
        gate.reached(1).await;
        gate.open();
        assert!(replies(waiting).await.iter().all(|reply| reply.status == 200));
        assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), 1, "{:?}", upstream.lines());
        assert_eq!((gateway.metric(&cache("miss")), gateway.metric(&cache("coalesced"))), (1, 49));
    }

    #[tokio::test]
    async fn a_leader_that_leaves_does_not_stop_it() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Setup::default().tag_ttl(HOUR).before(&upstream).await;
        let gate = upstream.when("HEAD", TAGGED).hold();
        let leader = Client::docker_17().get(TAGGED).open(gateway.address()).await;
        gate.reached(1).await;
        let waiting = crowd(&gateway, 1, &Client::docker_17().get(TAGGED)).await;
        drop(leader);
        assert_eq!(gateway.send(&Call::new("GET", "/v1/_ping")).await.status, 404);
        gate.open();
        assert_eq!(replies(waiting).await[0].status, 200);
        assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), 1, "{:?}", upstream.lines());
    }

    #[tokio::test]
    async fn nothing_is_shared_between_callers_whom_the_upstream_tells_apart() {
        let (upstream, _) = Upstream::with_app().await;
        let (ann, bob) = (basic("ann", "1"), basic("bob", "2"));
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&bob, "app");
        upstream.contents().admit(&ann, "other");
        let gateway = Setup::default().tag_ttl(HOUR).before(&upstream).await;
        let gate = upstream.when("HEAD", TAGGED).hold();
        let ask = |caller: &str| Client::docker_17().get(TAGGED).header("Authorization", caller);
        let mut waiting = crowd(&gateway, 1, &ask(&ann)).await;
        gate.reached(1).await;
        waiting.extend(crowd(&gateway, 1, &ask(&bob)).await);
        gate.reached(2).await;
        gate.open();
        let statuses: Vec<_> = replies(waiting).await.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [403, 200]);
    }

    /// Who asks after a push must not hear what was true before it.
    #[tokio::test]
    async fn a_question_from_before_a_push_answers_nobody_after_it() {
        let (upstream, image) = Upstream::with_app().await;
        let next = Image::small("next");
        for blob in next.blobs() {
            upstream.contents().put_blob("app", blob);
        }
        let gateway = Setup::default().permission_from_the_gateway().push().before(&upstream).await;
        let gate = upstream.when("HEAD", TAGGED).times(1).hold();
        let old = image.oci().digest.clone();
        upstream.when("HEAD", TAGGED).times(1).with("docker-content-digest", &old);
        let waiting = crowd(&gateway, 1, &Client::curl().get(TAGGED)).await;
        gate.reached(1).await;
        let put = Call::new("PUT", TAGGED).header("Content-Type", images::OCI).body(next.oci().bytes.to_vec());
        assert_eq!(gateway.send(&put).await.status, 201);
        assert_eq!(gateway.get(&Client::curl(), TAGGED).await.digest(), next.oci().digest);
        gate.open();
        assert_eq!(replies(waiting).await[0].digest(), old);
        assert_eq!(gateway.get(&Client::curl(), TAGGED).await.digest(), next.oci().digest);
    }
}

mod absent {
    use super::*;

    const MISSING: &str = "/v2/app/manifests/missing";

    fn setup() -> Setup {
        Setup::default().tags(|tags| tags.negative_ttl = HOUR)
    }

    #[tokio::test]
    async fn a_404_is_remembered_for_the_caller_who_got_it() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = setup().before(&upstream).await;
        for _ in 0..3 {
            gateway.manifest(&Client::docker_17(), MISSING).await.error();
        }
        assert_eq!(upstream.requests_to("*", MISSING).len(), 1, "{:?}", upstream.lines());
        let negative = "schemabridge_cache_requests_total{cache=\"negative\",result=\"hit\"}";
        assert_eq!(gateway.metric(negative), 5);
        upstream.put("app", "missing", &image.oci());
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 404);
        let other = Client::curl().get(MISSING).header("Authorization", &basic("ann", "1"));
        assert_eq!(gateway.send(&other).await.status, 200, "another caller is asked for");
        assert_eq!(gateway.send(&insisting(&Client::curl(), MISSING)).await.status, 200);
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 200, "the better answer replaces it");
    }

    #[tokio::test]
    async fn a_push_through_the_gateway_ends_it() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = setup().push().before(&upstream).await;
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 404);
        let put = Call::new("PUT", MISSING).header("Content-Type", images::OCI).body(image.oci().bytes.to_vec());
        assert_eq!(gateway.send(&put).await.status, 201);
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 200);
    }

    #[tokio::test]
    async fn a_404_from_before_a_push_is_not_remembered_after_it() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = setup().push().before(&upstream).await;
        upstream.when("HEAD", MISSING).times(1).answer(Answer::new(404));
        let gate = upstream.when("HEAD", MISSING).times(1).hold();
        let waiting = crowd(&gateway, 1, &Client::curl().get(MISSING)).await;
        gate.reached(1).await;
        let put = Call::new("PUT", MISSING).header("Content-Type", images::OCI).body(image.oci().bytes.to_vec());
        assert_eq!(gateway.send(&put).await.status, 201);
        gate.open();
        assert_eq!(replies(waiting).await[0].status, 404);
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 200);
    }

    #[tokio::test]
    async fn it_can_be_switched_off() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = Setup::default().tags(|tags| tags.negative_ttl = Duration::ZERO).before(&upstream).await;
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 404);
        upstream.put("app", "missing", &image.oci());
        assert_eq!(gateway.get(&Client::curl(), MISSING).await.status, 200);
    }
}

mod outage {
    use super::*;

    /// What makes an upstream one that cannot be asked, and what a client hears of it where nothing is remembered.
    const OUTAGES: [(Trouble, u16); 7] = [
        (Trouble::Gone, 502),
        (Trouble::Silent, 504),
        (Trouble::Answers(500), 500),
        (Trouble::Answers(502), 502),
        (Trouble::Answers(503), 503),
        (Trouble::Answers(504), 504),
        (Trouble::Answers(429), 429),
    ];

    #[derive(Clone, Copy, Debug)]
    enum Trouble {
        Gone,
        Silent,
        Answers(u16),
    }

    impl Trouble {
        /// Some registry that is left, or none.
        fn befall(self, upstream: Upstream) -> Option<Upstream> {
            match self {
                Self::Gone => return None,
                Self::Silent => drop(upstream.when("*", "*").hold()),
                Self::Answers(status) => {
                    upstream.when("*", "*").answer(Answer::new(status).header("retry-after", "7"));
                }
            }
            upstream.forget();
            Some(upstream)
        }
    }

    /// A gateway that does not wait long, before an image that three clients pulled and that has changed hands since.
    async fn pulled(setup: Setup) -> (Upstream, Gateway, Vec<(Client, String, Reply)>) {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = setup.answer_timeout(Duration::from_secs(2)).limits(|limits| limits.breaker = None);
        let gateway = gateway.before(&upstream).await;
        let mut seen = Vec::new();
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::containerd_1_6()] {
            let by_tag = gateway.get(&client, TAGGED).await;
            let target = format!("/v2/app/manifests/{}", by_tag.digest());
            let by_digest = gateway.get(&client, &target).await;
            assert_eq!((by_tag.status, by_digest.status), (200, 200), "{}", by_digest.text());
            seen.extend([(client.clone(), TAGGED.to_owned(), by_tag), (client, target, by_digest)]);
        }
        assert!(seen.iter().any(|(_, target, _)| target.ends_with(&image.schema2().digest)));
        (upstream, gateway, seen)
    }

    #[tokio::test]
    async fn what_the_gateway_may_see_is_served_while_the_upstream_is_away() {
        for (trouble, _) in OUTAGES {
            let (upstream, gateway, seen) = pulled(Setup::default().permission_from_the_gateway()).await;
            let left = trouble.befall(upstream);
            for (client, target, before) in &seen {
                let got = gateway.send(&insisting(client, target)).await;
                assert_eq!((got.status, &got.body), (200, &before.body), "{trouble:?} {target}: {}", got.text());
                assert_eq!(got.digest(), before.digest());
                assert!(got.all("warning").contains(&STALE), "{trouble:?} {target}: {:?}", got.headers);
                assert!(got.header("age").unwrap().parse::<u64>().is_ok());
                assert!(before.header("age").is_none() && !before.all("warning").contains(&STALE));
            }
            assert_eq!(gateway.metric(&cache("stale")), seen.len() as u64, "{trouble:?}");
            let gets = left.map(|upstream| upstream.requests_to("GET", TAGGED).len());
            assert_eq!(gets.unwrap_or_default(), 0, "a HEAD that fails is not followed by a GET");
        }
    }

    #[tokio::test]
    async fn where_the_upstream_gives_permission_it_is_an_error_whatever_is_known() {
        for (trouble, status) in OUTAGES {
            let (upstream, gateway, seen) = pulled(Setup::default().tag_ttl(HOUR)).await;
            let _left = trouble.befall(upstream);
            for (client, target, _) in &seen {
                let got = gateway.send(&insisting(client, target)).await;
                assert_eq!(got.status, status, "{trouble:?} {target}: {}", got.text());
                got.error();
            }
            assert_eq!(gateway.metric(&cache("stale")), 0);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_no_outage_and_ends_what_was_allowed() {
        // That the gateway is not let in is no question to the client.
        for (status, told) in [(401, 403), (403, 403), (404, 404)] {
            let (upstream, gateway, _) = pulled(Setup::default().permission_from_the_gateway()).await;
            upstream.when("HEAD", TAGGED).times(1).answer(Answer::new(status));
            let got = gateway.send(&insisting(&Client::docker_17(), TAGGED)).await;
            assert_eq!((got.status, got.header("warning")), (told, None));
            upstream.when("HEAD", TAGGED).answer(Answer::new(503));
            let got = gateway.send(&insisting(&Client::docker_17(), TAGGED)).await;
            assert_eq!(got.status, 503, "after {status} nothing is left to repeat");
        }
    }

    #[tokio::test]
    async fn a_tag_that_is_gone_is_repeated_if_the_operator_says_so() {
        let setup = Setup::default().permission_from_the_gateway();
        let setup = setup.tags(|tags| tags.on_404 = schemabridge::gateway::OnMissing::Stale);
        let (upstream, gateway, _) = pulled(setup).await;
        for (status, expected) in [(404, 200), (503, 200), (404, 200), (403, 403), (404, 404)] {
            upstream.behave();
            upstream.when("HEAD", TAGGED).answer(Answer::new(status));
            let got = gateway.send(&insisting(&Client::docker_17(), TAGGED)).await;
            assert_eq!((got.status, got.all("warning").contains(&STALE)), (expected, expected == 200), "{status}");
        }
    }

    #[tokio::test]
    async fn what_is_too_old_is_not_repeated() {
        let setup = Setup::default().permission_from_the_gateway().tags(|tags| tags.stale_if_error = NO_TIME);
        let (upstream, gateway, _) = pulled(setup).await;
        upstream.when("HEAD", TAGGED).answer(Answer::new(503));
        assert_eq!(gateway.send(&insisting(&Client::docker_17(), TAGGED)).await.status, 503);
    }

    #[tokio::test]
    async fn what_is_not_at_hand_is_not_made_up() {
        let (upstream, gateway, _) = pulled(Setup::default().permission_from_the_gateway()).await;
        upstream.put("app", "other", &Image::small("other").oci());
        drop(upstream);
        for target in ["/v2/app/manifests/other", "/v2/other/manifests/latest"] {
            let got = gateway.get(&Client::docker_17(), target).await;
            assert_eq!((got.status, got.header("age")), (502, None));
            got.error();
        }
    }

    /// An upstream that is not there does not stop the start, fails fast, and is found again without a restart.
    #[tokio::test]
    async fn an_upstream_that_comes_up_later_is_found() {
        let absent = Absent::new();
        let gateway = Setup::default().before_url(&absent.url()).await;
        for target in [TAGGED, "/v2/"] {
            let got = gateway.get(&Client::docker_17(), target).await;
            assert_eq!(got.status, 502, "{}", got.text());
            got.error();
        }
        let upstream = absent.come_up();
        let image = Image::classic("app");
        upstream.put_image("app", "latest", &image, &image.oci());
        assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 200);
    }
}

mod enough {
    use super::*;

    fn enough(seconds: &str) -> Answer {
        Answer::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", seconds)
    }

    #[tokio::test]
    async fn two_hundred_clients_cost_one_question() {
        for known in [false, true] {
            let (upstream, _) = Upstream::with_app().await;
            let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
            if known {
                assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 200);
            }
            upstream.forget();
            upstream.when("*", "*").answer(enough("30"));
            let gate = upstream.when("HEAD", TAGGED).hold();
            let waiting = crowd(&gateway, 200, &insisting(&Client::docker_17(), TAGGED)).await;
            gate.reached(1).await;
            gate.open();
            for reply in replies(waiting).await {
                assert_eq!(reply.status, if known { 200 } else { 429 }, "{}", reply.text());
                assert_eq!(reply.all("warning").contains(&STALE), known);
                let wait = reply.header("retry-after").map(|wait| wait.parse::<u64>().unwrap());
                assert!(if known { wait.is_none() } else { wait.is_some_and(|wait| (1..=30).contains(&wait)) });
            }
            // Nor does whoever comes later, for that tag or another.
            for target in [TAGGED, "/v2/app/manifests/other"] {
                gateway.send(&insisting(&Client::docker_17(), target)).await;
            }
            assert_eq!(upstream.lines(), [format!("HEAD {TAGGED}")]);
        }
    }

    #[tokio::test]
    async fn it_is_over_when_its_time_is_and_holds_for_what_was_refused_only() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
        upstream.when("HEAD", TAGGED).times(1).answer(enough("0"));
        assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 429);
        assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 200);
        upstream.when("HEAD", TAGGED).times(1).answer(enough("3600"));
        assert_eq!(gateway.send(&insisting(&Client::docker_17(), TAGGED)).await.status, 200, "stale");
        let blob = format!("/v2/app/blobs/{}", image.layers[0].digest);
        assert_eq!(gateway.get(&Client::docker_17(), &blob).await.status, 200);
        let other = gateway.get(&Client::docker_17(), "/v2/app/manifests/other").await;
        assert_eq!((other.status, other.header("retry-after")), (429, Some("300")), "five minutes at most");
    }

    #[tokio::test]
    async fn under_the_callers_own_credentials_each_is_asked_for() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Gateway::before(&upstream).await;
        upstream.when("HEAD", TAGGED).answer(enough("30"));
        for caller in ["ann", "bob", "ann"] {
            let call = Client::docker_17().get(TAGGED).header("Authorization", &basic(caller, "1"));
            let got = gateway.send(&call).await;
            assert_eq!((got.status, got.header("retry-after")), (429, Some("30")));
        }
        assert_eq!(upstream.lines(), vec![format!("HEAD {TAGGED}"); 3]);
    }

    #[tokio::test]
    async fn the_upstreams_own_count_is_shown_and_kept_above_the_floor() {
        let (upstream, image) = Upstream::with_app().await;
        let count = |upstream: &Upstream, remaining: &str| {
            upstream.behave();
            upstream.when("*", "*").with("ratelimit-remaining", remaining);
            upstream.when("*", "*").with("ratelimit-limit", "100;w=21600");
        };
        upstream.put("app", "other", &image.oci());
        for (setup, spared) in [
            (Setup::default().permission_from_the_gateway().tag_ttl(NO_TIME), true),
            (Setup::default().tag_ttl(NO_TIME), false),
        ] {
            let gateway = setup.limits(|limits| limits.rate_limit_floor = Some(10)).before(&upstream).await;
            count(&upstream, "10;w=21600");
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.header("warning"), None);
            count(&upstream, "9;w=21600");
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.header("warning"), None, "at the floor it is asked");
            upstream.forget();
            let got = gateway.get(&Client::curl(), TAGGED).await;
            assert_eq!((got.status, got.header("warning")), (200, spared.then_some(STALE)));
            assert_eq!(upstream.lines().is_empty(), spared, "{:?}", upstream.lines());
            assert_eq!(gateway.get(&Client::curl(), "/v2/app/manifests/other").await.status, 200, "it is not known");
            assert_eq!(gateway.send(&insisting(&Client::curl(), TAGGED)).await.header("warning"), None);
            assert_eq!(gateway.metric("schemabridge_upstream_rate_limit_remaining{upstream=\"default\"}"), 9);
            assert_eq!(gateway.metric("schemabridge_upstream_rate_limit_limit{upstream=\"default\"}"), 100);
        }
    }
}
