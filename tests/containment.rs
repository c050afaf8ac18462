//! What an upstream says of other places is somebody's word: nothing that belongs to a caller goes there, and the gateway
//! goes nowhere that is more private than the upstream itself. The attacker is a registry of its own, on record.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemabridge::upstream::Redirects;

use crate::support::basic;
use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const PUBLIC: &str = "93.184.216.34";
const PRIVATE: &str = "10.1.2.3";
const LOOPBACK: &str = "127.0.0.1";
const METADATA: &str = "169.254.169.254";

/// A registry with one image, and an attacker who was given a say in its answers.
struct Stage {
    upstream: Upstream,
    attacker: Upstream,
    image: Image,
    config: String,
    layer: String,
}

async fn stage() -> Stage {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let attacker = Upstream::start().await;
    attacker.contents().place("/config", image.config.clone());
    attacker.contents().place("/layer", image.layers[0].bytes.clone().unwrap());
    let config = format!("/v2/app/blobs/{}", image.config_digest());
    let layer = format!("/v2/app/blobs/{}", image.layers[0].digest);
    Stage { upstream, attacker, image, config, layer }
}

impl Stage {
    /// A gateway that knows the upstream by a name, which it is told to take for one of this address.
    async fn gateway(&self, setup: Setup, own: &'static str) -> Gateway {
        self.gateway_where(setup, move |name| if name == "localhost" { own } else { LOOPBACK }).await
    }

    async fn gateway_where(
        &self,
        setup: Setup,
        tell: impl Fn(&str) -> &'static str + Send + Sync + 'static,
    ) -> Gateway {
        let tell = move |name: &str| vec![tell(name).parse::<IpAddr>().unwrap()];
        setup.names(tell).before_url(&format!("http://localhost:{}", self.upstream.address().port())).await
    }

    /// A URL of the attacker by this host.
    fn attack(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.attacker.address().port())
    }

    /// Closes the upstream; its challenge names this realm.
    fn close(&self, realm: &str) {
        self.upstream.contents().close(&format!("Bearer realm=\"{realm}\",service=\"registry\""));
        self.upstream.contents().admit(&secret(), "app");
        self.attacker.contents().issue(&secret(), "the-token");
        self.attacker.contents().issue("", "anonymous-token");
    }
}

fn secret() -> String {
    basic("ann", "secret")
}

/// A request with everything that must not leave.
fn loaded(call: Call) -> Call {
    call.header("Authorization", &secret())
        .header("Cookie", "session=secret")
        .header("Proxy-Authorization", "Basic c2VjcmV0")
        .header("X-Private", "secret")
        .header("X-Forwarded-For", "10.0.0.1")
}

/// The attacker learned nothing of the caller.
fn assert_nothing_left(attacker: &Upstream) {
    for request in attacker.requests() {
        for (name, value) in &request.headers {
            let is_private = name.starts_with("x-")
                || matches!(name.as_str(), "authorization" | "cookie" | "proxy-authorization" | "forwarded" | "via");
            assert!(!is_private && !value.contains("secret"), "{name}: {value}");
        }
    }
}

fn assert_led_nowhere(reply: &Reply, what: &str) {
    let words = reply.error().1;
    assert_eq!(reply.status, 502, "{what}: {words}");
    assert!(words.contains("leads to where the gateway does not go"), "{what}: {words}");
}

fn token() -> Call {
    Call::new("GET", "/token?service=registry")
}

/// The ways to write an address that a filter of texts misses.
const LOOPBACK_SPELLINGS: [&str; 9] = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
];
const METADATA_SPELLINGS: [&str; 7] = [
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
    "[fe80::1]",
];

mod realms {
    use super::*;

    #[tokio::test]
    async fn one_elsewhere_gets_neither_credentials_nor_an_anonymous_question() {
        let stage = stage().await;
        stage.close(&stage.attack("attacker.example", "/token"));
        let gateway = stage.gateway(Setup::default().rewrite_challenges(), LOOPBACK).await;
        for call in [token(), loaded(token())] {
            let reply = gateway.send(&call).await;
            assert_eq!(reply.status, 502);
            assert!(reply.error().1.contains("token realm"), "{}", reply.text());
        }
        assert_eq!(stage.attacker.connections(), 0);

        let named = Setup::default().rewrite_challenges().token_realm(&stage.attack("attacker.example", "/"));
        let gateway = stage.gateway(named, LOOPBACK).await;
        assert_eq!(gateway.send(&loaded(token())).await.json()["token"], "the-token");
        assert_eq!(stage.attacker.requests()[0].header("authorization"), Some(secret().as_str()));
        assert_eq!(stage.attacker.requests()[0].header("cookie"), None);
    }

    /// Each is a place that the operator allowed by its text, so that nothing but its address speaks against it.
    #[tokio::test]
    async fn one_at_a_more_private_address_is_not_asked_however_it_is_written() {
        let loopback = LOOPBACK_SPELLINGS.map(|host| (host, [PUBLIC, PRIVATE].as_slice()));
        let metadata = METADATA_SPELLINGS.map(|host| (host, [PUBLIC, PRIVATE, LOOPBACK].as_slice()));
        let private = ["10.9.8.7", "100.64.0.1", "[fd12::1]"].map(|host| (host, [PUBLIC].as_slice()));
        for (host, upstreams) in loopback.into_iter().chain(metadata).chain(private) {
            for own in upstreams {
                let stage = stage().await;
                stage.close(&stage.attack(host, "/token"));
                let allowed = Setup::default().rewrite_challenges().token_realm(&stage.attack(host, "/"));
                let gateway = stage.gateway(allowed, own).await;
                assert_led_nowhere(&gateway.send(&loaded(token())).await, &format!("{own} to {host}"));
                assert_eq!(stage.attacker.connections(), 0, "{own} to {host}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_there_is_not_asked() {
        for (own, target) in [(PUBLIC, LOOPBACK), (PRIVATE, LOOPBACK), (PUBLIC, PRIVATE), (LOOPBACK, METADATA)] {
            let stage = stage().await;
            stage.close(&stage.attack("auth.example", "/token"));
            let allowed = Setup::default().rewrite_challenges().token_realm(&stage.attack("auth.example", "/"));
            let gateway =
                stage.gateway_where(allowed, move |name| if name == "localhost" { own } else { target }).await;
            assert_led_nowhere(&gateway.send(&loaded(token())).await, &format!("{own} to {target}"));
            assert_eq!(stage.attacker.connections(), 0);
        }
    }

    /// A name is looked up once for each connection, and what was looked at is what is dialled: one that looked and then
    /// had the connection look again would ask the wrong one.
    #[tokio::test]
    async fn a_name_that_turns_private_is_refused_when_it_is_dialled() {
        let stage = stage().await;
        stage.close(&stage.attack("auth.example", "/token"));
        stage.attacker.when("*", "/token").with("connection", "close");
        let looked_up = Arc::new(AtomicUsize::new(0));
        let count = looked_up.clone();
        let tell = move |name: &str| match name {
            "auth.example" if count.fetch_add(1, Ordering::SeqCst) > 0 => METADATA,
            _ => LOOPBACK,
        };
        let allowed = Setup::default().rewrite_challenges().token_realm(&stage.attack("auth.example", "/"));
        let gateway = stage.gateway_where(allowed, tell).await;
        assert_eq!(gateway.send(&token()).await.json()["token"], "anonymous-token");
        assert_eq!(looked_up.load(Ordering::SeqCst), 1);
        assert_led_nowhere(&gateway.send(&loaded(token())).await, "the second time");
        assert_eq!(stage.attacker.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_token_services_redirect_leads_nowhere() {
        for target in ["http://attacker.example", "http://169.254.169.254", "http://127.0.0.1", "file:///etc/passwd"] {
            let stage = stage().await;
            stage.close("/token");
            let target = match target.strip_prefix("http://") {
                Some(host) => stage.attack(host, "/token"),
                None => target.to_owned(),
            };
            stage.upstream.when("*", "/token").redirect(302, &target);
            let gateway = stage.gateway(Setup::default().rewrite_challenges(), LOOPBACK).await;
            for call in [token(), Call::new("POST", "/token").body("grant_type=password&username=ann&password=secret")]
            {
                let reply = gateway.send(&loaded(call)).await;
                assert_eq!(reply.status, 502, "{target}");
                reply.error();
            }
            assert_eq!(stage.attacker.connections(), 0, "{target}");
        }
    }
}

mod redirects {
    use super::*;

    /// Who has redirects followed, of a blob that streams and of a config that the gateway reads.
    async fn through(gateway: &Gateway, stage: &Stage, target: &str) -> [Reply; 2] {
        stage.upstream.when("GET", &stage.layer).redirect(307, &target.replace("/config", "/layer"));
        stage.upstream.when("GET", &stage.config).redirect(307, target);
        [
            gateway.send(&loaded(Client::docker_1_9_1().get(&stage.layer))).await,
            gateway.send(&loaded(Client::docker_1_9_1().get(TAGGED))).await,
        ]
    }

    #[tokio::test]
    async fn nothing_of_the_callers_crosses_to_another_origin() {
        // Another name, and the same host at another port.
        for host in ["attacker.example", "localhost"] {
            let stage = stage().await;
            let gateway = stage.gateway(Setup::default(), LOOPBACK).await;
            stage.attacker.when("*", "*").with("set-cookie", "track=1");
            stage.attacker.when("*", "*").with("x-amz-request-id", "1");
            for reply in through(&gateway, &stage, &stage.attack(host, "/config")).await {
                assert_eq!(reply.status, 200, "{}", reply.text());
                assert_eq!((reply.header("set-cookie"), reply.header("x-amz-request-id")), (None, None));
            }
            assert_eq!(stage.attacker.lines(), ["GET /layer", "GET /config"]);
            assert_nothing_left(&stage.attacker);
        }
    }

    #[tokio::test]
    async fn at_the_upstreams_own_origin_the_caller_is_known() {
        let stage = stage().await;
        let gateway = stage.gateway(Setup::default(), PUBLIC).await;
        let layer = stage.image.layers[0].bytes.clone().unwrap();
        stage.upstream.contents().place("/layer", layer.clone());
        stage.upstream.when("GET", &stage.layer).redirect(307, "/layer");
        let got = gateway.send(&loaded(Client::docker_1_9_1().get(&stage.layer))).await;
        assert_eq!((got.status, got.body.as_slice()), (200, layer.as_ref()));
        assert_eq!(stage.upstream.requests_to("GET", "/layer")[0].header("authorization"), Some(secret().as_str()));
    }

    #[tokio::test]
    async fn what_left_once_does_not_come_back_with_credentials() {
        let stage = stage().await;
        let gateway = stage.gateway(Setup::default(), LOOPBACK).await;
        let back = format!("http://localhost:{}/layer", stage.upstream.address().port());
        stage.upstream.contents().place("/layer", stage.image.layers[0].bytes.clone().unwrap());
        stage.attacker.when("GET", "/layer").redirect(307, &back);
        stage.upstream.when("GET", &stage.layer).redirect(307, &stage.attack("attacker.example", "/layer"));
        let got = gateway.send(&loaded(Client::docker_1_9_1().get(&stage.layer))).await;
        assert_eq!(got.status, 200);
        assert_nothing_left(&stage.attacker);
        assert_eq!(stage.upstream.requests_to("GET", "/layer")[0].header("authorization"), None);
    }

    #[tokio::test]
    async fn a_challenge_from_elsewhere_teaches_nothing() {
        let stage = stage().await;
        stage.upstream.contents().issue(&secret(), "the-token");
        stage.close("/token");
        let gateway = stage.gateway(Setup::default().rewrite_challenges(), LOOPBACK).await;
        assert_eq!(gateway.send(&loaded(token())).await.json()["token"], "the-token");
        let challenge = format!("Bearer realm=\"{}\"", stage.attack("localhost", "/token"));
        stage.attacker.when("*", "*").answer(Answer::new(401).header("www-authenticate", &challenge));
        for reply in through(&gateway, &stage, &stage.attack("attacker.example", "/config")).await {
            assert_eq!((reply.status, reply.header("www-authenticate")), (502, None));
            reply.error();
        }
        assert_eq!(stage.attacker.requests().len(), 2);
        assert_eq!(gateway.send(&loaded(token())).await.json()["token"], "the-token");
        assert_eq!(stage.attacker.requests().len(), 2, "the realm is still the upstream's");
        assert_nothing_left(&stage.attacker);
    }

    #[tokio::test]
    async fn no_more_private_an_address_is_fetched_from() {
        let spellings = LOOPBACK_SPELLINGS.map(|host| (host, PUBLIC)).into_iter();
        let metadata = METADATA_SPELLINGS.map(|host| (host, LOOPBACK));
        for (host, own) in spellings.chain(metadata).chain([("cdn.example", PUBLIC), ("cdn.example", PRIVATE)]) {
            let stage = stage().await;
            let gateway = stage.gateway(Setup::default(), own).await;
            for reply in through(&gateway, &stage, &stage.attack(host, "/config")).await {
                assert_led_nowhere(&reply, &format!("{own} to {host}"));
            }
            assert_eq!(stage.attacker.connections(), 0, "{own} to {host}");
        }
    }

    /// The second hop is as little trusted as the first.
    #[tokio::test]
    async fn nor_by_a_detour() {
        let stage = stage().await;
        let gateway = stage.gateway(Setup::default(), LOOPBACK).await;
        for path in ["/config", "/layer"] {
            stage.attacker.when("GET", path).redirect(302, &format!("http://{METADATA}/latest/meta-data"));
        }
        for reply in through(&gateway, &stage, &stage.attack("cdn.example", "/config")).await {
            assert_led_nowhere(&reply, "a detour");
        }
        assert_eq!(stage.attacker.requests().len(), 2);
    }

    #[tokio::test]
    async fn a_loop_ends_and_so_do_eleven_hops() {
        let stage = stage().await;
        let gateway = stage.gateway(Setup::default(), LOOPBACK).await;
        stage.attacker.when("GET", "/loop").redirect(307, "/loop");
        for hop in 1..=11 {
            stage.attacker.when("GET", &format!("/hop/{hop}")).redirect(307, &format!("/hop/{}", hop - 1));
        }
        stage.attacker.contents().place("/hop/0", stage.image.layers[0].bytes.clone().unwrap());
        for (path, status) in [("/loop", 502), ("/hop/11", 502), ("/hop/4", 200)] {
            stage.upstream.behave();
            stage.attacker.forget();
            stage.upstream.when("GET", &stage.layer).redirect(307, &stage.attack("cdn.example", path));
            let got = gateway.send(&Client::docker_1_9_1().get(&stage.layer)).await;
            assert_eq!(got.status, status, "{path}: {}", got.text());
            assert!(stage.attacker.requests().len() <= 5, "{path}: {:?}", stage.attacker.lines());
        }
    }

    #[tokio::test]
    async fn nobody_is_led_to_what_is_not_http() {
        let stage = stage().await;
        for redirects in [Redirects::Pass, Redirects::Follow] {
            let gateway = stage.gateway(Setup::default().redirects(redirects), LOOPBACK).await;
            for location in ["file:///etc/passwd", "gopher://127.0.0.1/x", "javascript:1", "http://", "//"] {
                stage.upstream.behave();
                stage.upstream.when("*", "/v2/app/*").redirect(302, location);
                for target in [&stage.layer, "/v2/app/tags/list"] {
                    let got = gateway.send(&Client::containerd_1_6().get(target)).await;
                    assert_eq!((got.status, got.header("location")), (502, None), "{location}");
                    got.error();
                }
            }
        }
    }

    #[tokio::test]
    async fn a_client_is_not_sent_to_a_more_private_address_either() {
        for (own, host, sent) in [
            (PUBLIC, "10.1.1.1", false),
            (PUBLIC, "2130706433", false),
            (PUBLIC, "93.184.216.34", true),
            (PRIVATE, "10.1.1.1", true),
            (PRIVATE, "127.0.0.1", false),
            (LOOPBACK, "127.0.0.1", true),
            (LOOPBACK, "169.254.169.254", false),
            (LOOPBACK, "[fd00:ec2::254]", false),
        ] {
            let stage = stage().await;
            let gateway = stage.gateway(Setup::default().redirects(Redirects::Pass), own).await;
            stage.upstream.when("*", "/v2/app/*").redirect(307, &format!("http://{host}/x"));
            for target in [&stage.layer, "/v2/app/tags/list"] {
                let got = gateway.send(&Client::containerd_1_6().get(target)).await;
                assert_eq!(got.status, if sent { 307 } else { 502 }, "{own} to {host}");
                assert_eq!(got.header("location").is_some(), sent);
            }
        }
    }
}

mod ways {
    use super::*;

    const ELSEWHERE: &str = "storage.example";

    async fn asked(setup: Setup, client: &Client, method: &str) -> (Stage, Reply) {
        let stage = stage().await;
        let gateway = stage.gateway(setup, LOOPBACK).await;
        stage.upstream.when("*", &stage.layer).redirect(308, &stage.attack(ELSEWHERE, "/layer?sig=a%2Fb"));
        let reply = gateway.send(&client.call(method, &stage.layer)).await;
        (stage, reply)
    }

    async fn is_followed(setup: Setup, client: &Client) -> bool {
        let (stage, reply) = asked(setup, client, "GET").await;
        if reply.status == 200 {
            assert_eq!(reply.body, stage.image.layers[0].bytes.clone().unwrap());
            assert_eq!(stage.attacker.requests()[0].query, "sig=a%2Fb");
            return true;
        }
        let target = stage.attack(ELSEWHERE, "/layer?sig=a%2Fb");
        assert_eq!((reply.status, reply.header("location")), (307, Some(target.as_str())));
        assert_eq!(stage.attacker.connections(), 0);
        false
    }

    /// Docker before 1.13 gets the blob, whoever is younger the redirect.
    #[tokio::test]
    async fn without_a_word_old_engines_need_not_leave_the_gateway() {
        for (client, followed) in [
            (Client::docker_1_6_2(), true),
            (Client::docker_early("1.12.6"), true),
            (Client::docker_early("1.13.0"), false),
            (Client::docker_17(), false),
            (Client::containerd_1_6(), false),
            (Client::curl(), false),
        ] {
            assert_eq!(is_followed(Setup::default(), &client).await, followed, "{client:?}");
        }
    }

    #[tokio::test]
    async fn only_to_hosts_that_are_named_is_anybody_sent() {
        let setup = || Setup::default().redirect_hosts(&["*.cdn.example", "storage.example"]);
        assert!(!is_followed(setup(), &Client::docker_17()).await);
        assert!(is_followed(setup(), &Client::docker_1_9_1()).await);
        let others = || Setup::default().redirect_hosts(&["*.storage.example"]);
        assert!(is_followed(others(), &Client::docker_17()).await);
        assert!(is_followed(Setup::default().redirect_hosts(&[]), &Client::docker_17()).await);
    }

    #[tokio::test]
    async fn pass_and_follow_hold_for_everybody() {
        for client in [Client::docker_1_6_2(), Client::docker_17(), Client::curl()] {
            let named = |redirects| Setup::default().redirects(redirects).redirect_hosts(&["*"]);
            assert!(!is_followed(named(Redirects::Pass), &client).await);
            assert!(is_followed(named(Redirects::Follow), &client).await);
        }
    }

    #[tokio::test]
    async fn a_head_is_followed_as_a_head() {
        let setup = Setup::default().redirects(Redirects::Follow);
        let (stage, reply) = asked(setup, &Client::curl(), "HEAD").await;
        let length = stage.image.layers[0].size.to_string();
        assert_eq!((reply.status, reply.header("content-length")), (200, Some(length.as_str())));
        assert_eq!(stage.attacker.lines(), ["HEAD /layer"]);
    }

    #[tokio::test]
    async fn a_part_is_asked_for_where_the_blob_is() {
        let stage = stage().await;
        let gateway = stage.gateway(Setup::default().redirects(Redirects::Follow), LOOPBACK).await;
        stage.upstream.when("*", &stage.layer).redirect(307, &stage.attack(ELSEWHERE, "/layer"));
        let layer = stage.image.layers[0].bytes.clone().unwrap();
        let part = gateway.send(&Call::new("GET", &stage.layer).header("Range", "bytes=2-5")).await;
        assert_eq!((part.status, part.body.as_slice()), (206, &layer[2..6]));
        assert_eq!(part.header("content-range"), Some(format!("bytes 2-5/{}", layer.len()).as_str()));
        let beyond = gateway.send(&Call::new("GET", &stage.layer).header("Range", "bytes=9999-")).await;
        assert_eq!(beyond.status, 416);
        stage.attacker.when("GET", "/layer").cut(3);
        let cut = gateway.send(&Call::new("GET", &stage.layer)).await;
        assert!(!cut.is_whole, "what is cut off does not look whole");
    }
}

mod other_words {
    use super::*;

    #[tokio::test]
    async fn an_upload_goes_on_at_the_gateway_or_not_at_all() {
        let stage = stage().await;
        let gateway = Setup::default().push().before(&stage.upstream).await;
        let begin = || loaded(Call::new("POST", "/v2/app/blobs/uploads/").body(""));
        let own = gateway.send(&begin()).await;
        assert_eq!(own.status, 202);
        let location = own.header("location").unwrap();
        assert!(location.starts_with(&format!("http://{}/v2/app/blobs/uploads/", gateway.address())), "{location}");
        for host in ["attacker.example", "localhost", METADATA, "10.0.0.1"] {
            let elsewhere = stage.attack(host, "/v2/app/blobs/uploads/1?_state=x");
            stage.upstream.behave();
            stage.upstream.when("POST", "*").with("location", &elsewhere);
            let reply = gateway.send(&begin()).await;
            assert_eq!((reply.status, reply.header("location")), (502, None), "{host}");
            reply.error();
            // The one upload that the gateway does by itself.
            let empty = Image::classic("app").schema2().changed(|manifest| {
                manifest["layers"][0]["digest"] = crate::support::images::EMPTY_LAYER.into();
                manifest["layers"][0]["size"] = 32.into();
            });
            let put = Call::new("PUT", TAGGED).header("Content-Type", &empty.content_type).body(empty.bytes.to_vec());
            let reply = gateway.send(&loaded(put)).await;
            assert_eq!(reply.status, 502, "{host}: {}", reply.text());
        }
        assert_eq!(stage.attacker.connections(), 0);
    }

    #[tokio::test]
    async fn the_urls_of_a_layer_are_not_asked() {
        let stage = stage().await;
        let url = stage.attack("127.0.0.1", "/layer");
        let foreign = |document: crate::support::images::Document, layer_type: &str| {
            document.changed(|manifest| {
                manifest["layers"][0]["urls"] = serde_json::json!([url]);
                manifest["layers"][0]["mediaType"] = layer_type.into();
            })
        };
        let oci = foreign(stage.image.oci(), "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        let schema2 = foreign(stage.image.schema2(), "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        stage.upstream.put("app", "oci", &oci);
        stage.upstream.put("app", "schema2", &schema2);
        let gateway = stage.gateway(Setup::default().redirects(Redirects::Follow), LOOPBACK).await;
        for client in [Client::docker_1_6_2(), Client::docker_1_9_1(), Client::docker_17(), Client::containerd_1_6()] {
            for tag in ["oci", "schema2"] {
                for method in ["HEAD", "GET"] {
                    let target = format!("/v2/app/manifests/{tag}");
                    gateway.send(&loaded(client.call(method, &target))).await;
                }
            }
            gateway.send(&loaded(client.get(&stage.layer))).await;
        }
        assert!(!stage.upstream.requests().is_empty());
        assert_eq!(stage.attacker.connections(), 0);
    }

    #[tokio::test]
    async fn a_link_to_another_host_is_left_out() {
        let stage = stage().await;
        let gateway = stage.gateway(Setup::default(), LOOPBACK).await;
        let next = "/v2/app/tags/list?last=a&n=1";
        let own = format!("http://localhost:{}{next}", stage.upstream.address().port());
        for (written, relayed) in [
            (stage.attack("attacker.example", next), None),
            (stage.attack("localhost", next), None),
            (format!("http://{METADATA}/"), None),
            ("//attacker.example/v2/app/tags/list".to_owned(), None),
            ("file:///etc/passwd".to_owned(), None),
            (own, Some(next)),
            (next.to_owned(), Some(next)),
        ] {
            stage.upstream.behave();
            stage.upstream.when("GET", "*").with("link", &format!("<{written}>; rel=\"next\""));
            for target in ["/v2/app/tags/list", &format!("/v2/app/referrers/{}", stage.image.oci().digest)] {
                let reply = gateway.send(&loaded(Client::curl().get(target))).await;
                let expected = relayed.map(|next| format!("<{next}>; rel=\"next\""));
                if target.ends_with("list") || relayed.is_none() {
                    assert_eq!(reply.header("link"), expected.as_deref(), "{target}: {written}");
                }
            }
        }
        assert_eq!(stage.attacker.connections(), 0);
    }
}
