//! How much is asked of an upstream at once, and what becomes of whoever has to wait.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use schemabridge::upstream::{Authentication, BreakerPolicy, Limits, Redirects, Secret};

use crate::support::client::{Call, Client, raw};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;
use crate::support::{basic, patiently};

const TAGGED: &str = "/v2/app/manifests/latest";
const TAGS: &str = "/v2/app/tags/list";
const HOUR: Duration = Duration::from_secs(3600);

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    blob: String,
}

async fn stage(setup: Setup) -> Stage {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = setup.before(&upstream).await;
    Stage { upstream, gateway, blob: format!("/v2/app/blobs/{}", image.layers[0].digest) }
}

impl Stage {
    async fn status(&self, target: &str) -> u16 {
        self.gateway.get(&Client::curl(), target).await.status
    }

    fn metric(&self, name: &str, labels: &str) -> u64 {
        self.gateway.metric(&format!("schemabridge_upstream_{name}{{upstream=\"default\"{labels}}}"))
    }

    fn errors(&self, kind: &str) -> u64 {
        self.metric("errors_total", &format!(",type=\"{kind}\""))
    }

    fn breaker(&self) -> u64 {
        self.metric("breaker_state", "")
    }
}

mod at_once {
    use super::*;

    fn one(limit: fn(&mut Limits) -> &mut Option<NonZeroUsize>, queue_timeout: Duration) -> Setup {
        Setup::default().limits(move |limits| {
            *limit(limits) = NonZeroUsize::new(1);
            limits.queue_timeout = queue_timeout;
        })
    }

    #[tokio::test]
    async fn a_streamed_blob_is_in_flight_until_its_end_and_who_waits_too_long_is_told_to_come_back() {
        let stage = stage(one(|limits| &mut limits.in_flight, Duration::ZERO)).await;
        let gate = stage.upstream.when("GET", &stage.blob).times(1).hold_body(3);
        let mut reading = Client::docker_17().get(&stage.blob).open(stage.gateway.address()).await;
        gate.reached(1).await;
        for target in [TAGGED, TAGS, &stage.blob] {
            let got = stage.gateway.get(&Client::docker_17(), target).await;
            let (code, message) = got.error();
            assert_eq!((got.status, code.as_str(), got.header("retry-after")), (503, "UNAVAILABLE", Some("1")));
            assert!(message.contains(&stage.upstream.address().to_string()), "{message}");
        }
        assert_eq!(stage.upstream.requests().len(), 1, "{:?}", stage.upstream.lines());
        gate.open();
        reading.rest().await;
        assert!(reading.reply(false).is_whole);
        assert_eq!(stage.status(TAGGED).await, 200);
        assert_eq!(stage.errors("overloaded"), 3);
    }

    #[tokio::test]
    async fn who_waits_gets_his_turn_when_the_body_before_him_ends_or_is_given_up() {
        for given_up in [false, true] {
            let stage = stage(one(|limits| &mut limits.in_flight, HOUR)).await;
            let gate = stage.upstream.when("GET", &stage.blob).times(1).hold_body(3);
            let mut reading = Client::docker_17().get(&stage.blob).open(stage.gateway.address()).await;
            gate.reached(1).await;
            let mut waiting = Client::curl().get(TAGS).open(stage.gateway.address()).await;
            assert_eq!(stage.status("/v1/_ping").await, 404, "the one who waits is in the gateway's hands");
            assert!(stage.upstream.requests_to("GET", TAGS).is_empty());
            if given_up {
                drop(reading);
            } else {
                gate.open();
                reading.rest().await;
            }
            patiently("a turn", waiting.rest()).await;
            assert_eq!(waiting.reply(false).status, 200);
        }
    }

    /// The upstream's own token service, and its own redirects, are asked under the same limit as what needs them.
    #[tokio::test]
    async fn a_request_never_waits_for_itself() {
        let limited = || one(|limits| &mut limits.in_flight, Duration::ZERO);
        let gate = Authentication::Basic { username: "gate".to_owned(), password: Secret::new("pw".to_owned()) };
        let stage = stage(limited().authentication(gate).redirects(Redirects::Follow)).await;
        let challenge = format!("Bearer realm=\"{}/token\",service=\"registry\"", stage.upstream.url());
        stage.upstream.contents().close(&challenge);
        stage.upstream.contents().mint_for(&basic("gate", "pw"));
        assert_eq!((stage.status(TAGS).await, stage.status(TAGGED).await), (200, 200), "{:?}", stage.upstream.lines());
        stage.upstream.contents().revoke_minted();
        assert_eq!(stage.status(TAGS).await, 200, "{:?}", stage.upstream.lines());

        let stage = self::stage(limited().redirects(Redirects::Follow)).await;
        let elsewhere = stage.blob.replace("app", "other");
        let redirect = Answer::new(307).header("Location", &elsewhere).body("moved");
        stage.upstream.when("GET", &stage.blob).answer(redirect);
        let bytes = Image::classic("app").layers[0].bytes.clone().unwrap();
        stage.upstream.contents().put_blob("other", bytes);
        assert_eq!(stage.status(&stage.blob).await, 200, "{:?}", stage.upstream.lines());
    }

    #[tokio::test]
    async fn bodies_that_stream_leave_room_for_manifests() {
        let stage = stage(one(|limits| &mut limits.connections, Duration::ZERO)).await;
        let gate = stage.upstream.when("GET", &stage.blob).times(1).hold_body(3);
        let _reading = Client::docker_17().get(&stage.blob).open(stage.gateway.address()).await;
        gate.reached(1).await;
        assert_eq!((stage.status(TAGGED).await, stage.status(&stage.blob).await), (200, 503));
        gate.open();
    }

    #[tokio::test]
    async fn no_more_are_sent_each_second_than_allowed() {
        let setup = Setup::default().limits(|limits| {
            limits.requests_per_second = NonZeroU32::new(1);
            limits.queue_timeout = Duration::ZERO;
        });
        let stage = stage(setup).await;
        let (client, call) = (stage.gateway.address(), Client::curl().get(TAGS));
        let replies = futures_util::future::join_all((0..50).map(|_| call.send(client))).await;
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
        assert!(!refused.is_empty(), "50 requests take less than 50 seconds");
        assert!(refused.iter().all(|reply| reply.header("retry-after") == Some("1")), "{refused:?}");
        assert_eq!(stage.upstream.requests().len(), 50 - refused.len());
    }
}

mod breaker {
    use super::*;

    fn breaker(first_pause: Duration) -> Setup {
        let policy = BreakerPolicy { failures: NonZeroU32::new(2).unwrap(), first_pause, longest_pause: HOUR };
        Setup::default().limits(move |limits| limits.breaker = Some(policy))
    }

    fn at_the_first_failure() -> Setup {
        let policy = BreakerPolicy { failures: NonZeroU32::MIN, first_pause: HOUR, longest_pause: HOUR };
        Setup::default().limits(move |limits| limits.breaker = Some(policy))
    }

    #[tokio::test]
    async fn an_upstream_that_does_not_answer_is_left_alone() {
        let stage = stage(breaker(HOUR)).await;
        stage.upstream.when("*", "*").reset();
        for _ in 0..2 {
            assert_eq!((stage.breaker(), stage.status(TAGS).await), (0, 502));
        }
        let sent = stage.upstream.requests().len();
        for target in [TAGGED, TAGS, &stage.blob, "/v2/"] {
            let got = stage.gateway.get(&Client::docker_17(), target).await;
            let (code, message) = got.error();
            assert_eq!((got.status, code.as_str(), got.header("retry-after")), (502, "UNAVAILABLE", Some("3600")));
            assert!(message.contains("asks it again in 3600 s"), "{message}");
        }
        assert_eq!(stage.upstream.requests().len(), sent, "nothing is sent");
        assert_eq!((stage.breaker(), stage.errors("reset"), stage.errors("breaker_open")), (2, 2, 4));
    }

    #[tokio::test]
    async fn a_probe_that_is_answered_closes_it() {
        let stage = stage(breaker(Duration::ZERO)).await;
        stage.upstream.when("*", "*").answer(Answer::new(503));
        for _ in 0..4 {
            assert_eq!(stage.status(TAGS).await, 503, "each is a probe, and fails");
        }
        assert_eq!((stage.breaker(), stage.errors("5xx")), (2, 4));
        stage.upstream.behave();
        let gate = stage.upstream.when("GET", TAGS).hold();
        let mut probe = Client::curl().get(TAGS).open(stage.gateway.address()).await;
        gate.reached(1).await;
        assert_eq!(stage.breaker(), 1);
        gate.open();
        probe.rest().await;
        assert_eq!((probe.reply(false).status, stage.breaker()), (200, 0));
    }

    #[tokio::test]
    async fn what_is_remembered_is_served_meanwhile() {
        let stage = stage(breaker(HOUR).permission_from_the_gateway()).await;
        assert_eq!(stage.status(TAGGED).await, 200);
        stage.upstream.when("*", "*").reset();
        let insisting = Client::curl().get(TAGGED).header("Cache-Control", "no-cache");
        for _ in 0..4 {
            let got = stage.gateway.send(&insisting).await;
            assert_eq!((got.status, got.header("warning")), (200, Some("110 - \"Response is Stale\"")));
        }
        assert_eq!((stage.breaker(), stage.upstream.requests_to("HEAD", TAGGED).len()), (2, 3));
    }

    /// A refusal, or one caller's 500, is no reason to lock the others out; under common credentials a 500 is everybody's.
    #[tokio::test]
    async fn only_what_concerns_everybody_opens_it() {
        let cases = [
            (400, [0, 0]),
            (401, [0, 0]),
            (403, [0, 0]),
            (404, [0, 0]),
            (429, [0, 0]),
            (500, [0, 2]),
            (501, [0, 0]),
            (502, [2, 2]),
            (503, [2, 2]),
            (504, [2, 2]),
        ];
        for (status, expected) in cases {
            for (setup, expected) in
                [breaker(HOUR), breaker(HOUR).permission_from_the_gateway()].into_iter().zip(expected)
            {
                let stage = stage(setup).await;
                stage.upstream.when("*", "*").answer(Answer::new(status));
                for _ in 0..3 {
                    stage.status(TAGS).await;
                }
                assert_eq!(stage.breaker(), expected, "{status}");
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_its_upload_does_not_open_it() {
        let stage = stage(at_the_first_failure().push()).await;
        let head = "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n";
        raw(stage.gateway.address(), format!("{head}3\r\nabc\r\nno chunk\r\n").as_bytes()).await;
        assert_eq!((stage.errors("unreachable"), stage.errors("truncated"), stage.breaker()), (0, 0, 0));
    }

    /// What another origin does with a redirect is not the upstream's doing.
    #[tokio::test]
    async fn another_origin_does_not_open_it() {
        let stage = stage(at_the_first_failure()).await;
        let elsewhere = Upstream::start().await;
        elsewhere.when("*", "*").reset();
        stage.upstream.when("GET", "/v2/app/blobs/*").redirect(307, &format!("{}/config", elsewhere.url()));
        for _ in 0..3 {
            assert_eq!(stage.gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 502);
        }
        assert_eq!((stage.breaker(), elsewhere.requests().len() >= 3), (0, true));
    }
}

mod counted {
    use super::*;

    #[tokio::test]
    async fn every_answer_of_the_upstream_by_what_was_asked() {
        let stage = stage(Setup::default()).await;
        stage.upstream.when("GET", "/v2/odd/*").answer(Answer::new(299));
        for target in [TAGGED, TAGS, &stage.blob, "/v2/", "/v2/app/tags/other", "/v2/odd/tags/list"] {
            stage.status(target).await;
        }
        stage.gateway.send(&Call::new("HEAD", "/v2/app/manifests/missing")).await;
        let cases = [
            ("head_manifest", "200", 1),
            ("head_manifest", "404", 1),
            ("get_manifest", "200", 1),
            ("blob", "200", 1),
            ("tags", "200", 1),
            ("tags", "404", 1),
            ("tags", "other", 1),
            ("other", "200", 1),
        ];
        for (operation, code, expected) in cases {
            let labels = format!(",operation=\"{operation}\",code=\"{code}\"");
            assert_eq!(stage.metric("requests_total", &labels), expected, "{labels}");
        }
    }

    #[tokio::test]
    async fn every_failure_by_its_kind() {
        let stage = stage(
            Setup::default()
                .permission_from_the_gateway()
                .answer_timeout(Duration::from_secs(2))
                .limits(|limits| limits.breaker = None),
        )
        .await;
        stage.upstream.when("GET", TAGS).times(1).answer(Answer::new(500));
        assert_eq!((stage.status(TAGS).await, stage.errors("5xx")), (500, 1));
        let _never = stage.upstream.when("GET", TAGS).times(1).hold();
        assert_eq!((stage.status(TAGS).await, stage.errors("timeout")), (504, 1));
        stage.upstream.when("GET", TAGS).times(1).answer(Answer::new(429).header("retry-after", "60"));
        assert_eq!((stage.status(TAGS).await, stage.errors("rate_limited")), (429, 1));
        assert_eq!((stage.status(TAGS).await, stage.errors("cool_down")), (429, 1));
        stage.upstream.when("GET", "*").reset();
        assert_eq!((stage.status(&stage.blob).await, stage.errors("reset")), (502, 1));
    }
}
