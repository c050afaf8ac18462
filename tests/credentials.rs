//! Each caller's credentials go to the upstream and nowhere else, and the upstream's word on them comes back.

use crate::support::basic;
use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

fn bearer(upstream: &Upstream) -> String {
    format!("Bearer realm=\"{}/token\",service=\"registry\",scope=\"repository:app:pull\"", upstream.url())
}

mod pass_through {
    use super::*;

    #[tokio::test]
    async fn the_clients_authorization_goes_upstream_with_everything_asked_for_it() {
        let (upstream, image) = Upstream::with_app().await;
        let ann = basic("ann", "pw");
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&ann, "app");
        let gateway = Gateway::before(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        for target in ["/v2/", TAGGED, &blob, "/v2/app/tags/list"] {
            let got = gateway.send(&Client::docker_1_9_1().get(target).header("Authorization", &ann)).await;
            assert_eq!(got.status, 200, "{target}: {}", got.text());
        }
        for request in upstream.requests() {
            assert_eq!(request.header("authorization"), Some(ann.as_str()), "{}", request.line());
        }
    }

    /// Docker 1.6 and 1.7 send empty credentials when there are none, and registries refuse them.
    #[tokio::test]
    async fn empty_basic_credentials_are_none() {
        let (upstream, image) = Upstream::with_app().await;
        let gateway = Gateway::before(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        for target in ["/v2/", TAGGED, &blob, "/v2/app/tags/list", "/token"] {
            for empty in ["Basic Og==", "basic Og==", "Basic  Og=="] {
                gateway.send(&Client::docker_1_6_2().get(target).header("Authorization", empty)).await;
            }
        }
        assert!(!upstream.requests().is_empty());
        for request in upstream.requests() {
            assert_eq!(request.header("authorization"), None, "{}", request.line());
        }
    }

    #[tokio::test]
    async fn one_callers_answer_is_no_other_callers() {
        let (upstream, image) = Upstream::with_app().await;
        let (ann, bob) = (basic("ann", "1"), "Bearer for-another-repository".to_owned());
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&ann, "app");
        upstream.contents().admit(&bob, "other");
        for ttl in [0, 3600] {
            let gateway = Setup::default().tag_ttl(std::time::Duration::from_secs(ttl)).before(&upstream).await;
            let config = format!("/v2/app/blobs/{}", image.config_digest());
            let stored = format!("/v2/app/manifests/{}", image.oci().digest);
            let derived = format!("/v2/app/manifests/{}", image.schema2().digest);
            for target in [TAGGED, &stored, &derived, &config, "/v2/app/tags/list"] {
                let ask = async |caller: Option<&str>| {
                    let call = Client::docker_17().get(target);
                    let call = caller.into_iter().fold(call, |call, caller| call.header("Authorization", caller));
                    gateway.send(&call).await.status
                };
                assert_eq!(ask(Some(&ann)).await, 200, "{target}");
                assert_eq!(ask(Some(&bob)).await, 403, "{target}");
                assert_eq!(ask(None).await, 401, "{target}");
                assert_eq!(ask(Some(&ann)).await, 200, "{target}");
            }
        }
    }

    #[tokio::test]
    async fn a_revoked_right_is_gone_at_once() {
        let (upstream, _) = Upstream::with_app().await;
        let ann = basic("ann", "1");
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&ann, "app");
        let gateway = Gateway::before(&upstream).await;
        let ask = async |client: Client| gateway.send(&client.get(TAGGED).header("Authorization", &ann)).await.status;
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::curl()] {
            assert_eq!(ask(client).await, 200);
        }
        upstream.contents().revoke(&ann, "app");
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::curl()] {
            assert_eq!(ask(client).await, 403);
        }
    }

    #[tokio::test]
    async fn a_remembered_consent_spares_the_upstream_one_callers_question() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Setup::default().tag_ttl(std::time::Duration::from_secs(3600)).before(&upstream).await;
        for _ in 0..3 {
            assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
        }
        assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), 1, "{:?}", upstream.lines());
        let named = Client::docker_1_9_1().get(TAGGED).header("Authorization", "Bearer other");
        assert_eq!(gateway.send(&named).await.status, 200);
        assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), 2, "another caller is asked for");
    }

    /// A token that says when it ends, as a JWT does, ends what was remembered for it.
    #[tokio::test]
    async fn consent_is_not_remembered_longer_than_the_token_lives() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Setup::default().tag_ttl(std::time::Duration::from_secs(3600)).before(&upstream).await;
        let part = |json: &str| data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
        let token = |claims: &str| format!("Bearer {}.{}.c2ln", part("{\"alg\":\"ES256\"}"), part(claims));
        let cases = [
            ("{\"exp\":1}", 3),
            ("{\"exp\":0}", 3),
            ("{\"exp\":-1}", 3),
            ("{\"exp\":1000000000.5}", 3),
            ("{\"exp\":99999999999}", 1),
            ("{\"exp\":1e12}", 1),
            ("{\"exp\":1e300}", 1),
            ("{\"exp\":\"x\"}", 1),
            ("{}", 1),
            ("no json", 1),
        ];
        for (claims, questions) in cases {
            upstream.forget();
            for _ in 0..3 {
                let call = Client::curl().get(TAGGED).header("Authorization", &token(claims));
                assert_eq!(gateway.send(&call).await.status, 200);
            }
            assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), questions, "{claims}");
        }
    }

    /// But for a 404, which is remembered for a short while.
    #[tokio::test]
    async fn a_refusal_is_never_remembered() {
        let (upstream, _) = Upstream::with_app().await;
        for status in [400, 401, 403, 410, 429, 500, 503] {
            let gateway = Setup::default().tag_ttl(std::time::Duration::from_secs(3600)).before(&upstream).await;
            upstream.when("HEAD", TAGGED).times(1).answer(Answer::new(status));
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.status, status);
            assert_eq!(gateway.get(&Client::curl(), TAGGED).await.status, 200, "after {status}");
        }
    }
}

mod challenge {
    use super::*;

    async fn challenged(gateway: &Gateway, call: Call) -> Vec<String> {
        let reply = gateway.send(&call).await;
        assert_eq!(reply.status, 401);
        reply.all("www-authenticate").into_iter().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn it_passes_as_it_is() {
        let (upstream, image) = Upstream::with_app().await;
        let challenge = "Bearer realm=\"https://auth.example.com/token\",service=\"registry.example.com\",scope=\"repository:app:pull\"";
        upstream.contents().close(challenge);
        let gateway = Gateway::before(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        for target in ["/v2/", TAGGED, &blob, "/v2/app/tags/list"] {
            for method in ["GET", "HEAD"] {
                let call = Client::docker_1_9_1().call(method, target);
                assert_eq!(challenged(&gateway, call).await, [challenge], "{method} {target}");
            }
        }
    }

    #[tokio::test]
    async fn the_base_answers_as_the_upstream_does() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Gateway::before(&upstream).await;
        for path in ["/v2/", "/v2"] {
            assert_eq!(gateway.get(&Client::docker_1_9_1(), path).await.status, 200);
        }
        let (closed, _) = Upstream::with_app().await;
        closed.contents().close("Basic realm=\"registry\"");
        let gateway = Gateway::before(&closed).await;
        for path in ["/v2/", "/v2"] {
            let got = gateway.get(&Client::docker_1_9_1(), path).await;
            assert_eq!((got.status, got.header("www-authenticate")), (401, Some("Basic realm=\"registry\"")));
            got.error();
        }
    }

    async fn rewritten(setup: Setup, call: Call) -> Vec<String> {
        let (upstream, _) = Upstream::with_app().await;
        upstream.contents().close(&bearer(&upstream));
        let gateway = setup.rewrite_challenges().before(&upstream).await;
        challenged(&gateway, call).await
    }

    #[tokio::test]
    async fn a_rewritten_one_names_the_gateways_own_token_service() {
        for target in ["/v2/", TAGGED, "/v2/app/tags/list"] {
            let call = Client::docker_1_9_1().get(target).host("registry.internal:5000");
            let lines = rewritten(Setup::default(), call).await;
            assert_eq!(
                lines,
                [
                    "Bearer realm=\"http://registry.internal:5000/token\",service=\"registry\",scope=\"repository:app:pull\""
                ]
            );
        }
    }

    #[tokio::test]
    async fn the_scheme_is_believed_only_from_trusted_proxies() {
        let call = || Client::docker_17().get("/v2/").host("r.internal").header("X-Forwarded-Proto", "https");
        let untrusted = rewritten(Setup::default(), call()).await;
        assert!(untrusted[0].contains("realm=\"http://r.internal/token\""), "{untrusted:?}");
        let other = rewritten(Setup::default().trust_proxies("10.0.0.0/8"), call()).await;
        assert!(other[0].contains("realm=\"http://r.internal/token\""), "{other:?}");
        let trusted = rewritten(Setup::default().trust_proxies("127.0.0.0/8"), call()).await;
        assert!(trusted[0].contains("realm=\"https://r.internal/token\""), "{trusted:?}");
    }

    #[tokio::test]
    async fn a_fixed_external_url_wins() {
        let call = Client::docker_17().get("/v2/").host("whatever.internal");
        let lines = rewritten(Setup::default().external_url("https://registry.example.com"), call).await;
        assert!(lines[0].contains("realm=\"https://registry.example.com/token\""), "{lines:?}");
    }

    #[tokio::test]
    async fn a_host_that_is_none_gets_into_no_challenge() {
        for host in ["evil\"x", "user@host", "host/path", "host?x", "a b", "host#x"] {
            let (upstream, _) = Upstream::with_app().await;
            upstream.contents().close(&bearer(&upstream));
            let gateway = Setup::default().rewrite_challenges().before(&upstream).await;
            let reply = gateway.send(&Client::docker_17().get("/v2/").host(host)).await;
            for line in reply.all("www-authenticate") {
                assert!(!line.contains(host), "{host}: {line}");
            }
        }
    }

    #[tokio::test]
    async fn a_basic_challenge_stays_as_it_is() {
        let (upstream, _) = Upstream::with_app().await;
        upstream.contents().close("Basic realm=\"Registry Realm\"");
        let gateway = Setup::default().rewrite_challenges().before(&upstream).await;
        assert_eq!(challenged(&gateway, Client::docker_17().get("/v2/")).await, ["Basic realm=\"Registry Realm\""]);
    }
}

mod token {
    use super::*;

    async fn relaying() -> (Upstream, Gateway) {
        let (upstream, _) = Upstream::with_app().await;
        upstream.contents().close(&bearer(&upstream));
        upstream.contents().issue(&basic("ann", "p:w d"), "the-token");
        upstream.contents().issue("ann:p:w d", "the-token");
        upstream.contents().issue("", "anonymous-token");
        upstream.contents().issue("long-lived", "the-token");
        upstream.contents().admit("Bearer the-token", "app");
        let gateway = Setup::default().rewrite_challenges().before(&upstream).await;
        (upstream, gateway)
    }

    fn both_fields(reply: &Reply, token: &str) {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.json();
        assert_eq!((answer["token"].as_str(), answer["access_token"].as_str()), (Some(token), Some(token)), "{answer}");
        assert!(answer["expires_in"].as_u64().is_some_and(|seconds| seconds >= 60), "{answer}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }

    #[tokio::test]
    async fn a_whole_login_goes_through_the_gateway() {
        let (_upstream, gateway) = relaying().await;
        let challenge = gateway.get(&Client::docker_1_9_1(), "/v2/").await;
        let line = challenge.header("www-authenticate").unwrap().to_owned();
        assert!(line.contains(&format!("realm=\"http://{}/token\"", gateway.address())), "{line}");
        let ask = Call::new("GET", "/token?account=ann&scope=repository%3Aapp%3Apull&service=registry");
        let reply = gateway.send(&ask.header("Authorization", &basic("ann", "p:w d"))).await;
        both_fields(&reply, "the-token");
        let pull = Client::docker_1_9_1().get(TAGGED).header("Authorization", "Bearer the-token");
        assert_eq!(gateway.send(&pull).await.status, 200);
    }

    #[tokio::test]
    async fn get_and_post_carry_both_names_of_the_token() {
        let (_upstream, gateway) = relaying().await;
        both_fields(&gateway.send(&Call::new("GET", "/token?service=registry")).await, "anonymous-token");
        let forms = [
            "grant_type=password&username=ann&password=p%3Aw+d&service=registry&client_id=docker",
            "grant_type=refresh_token&refresh_token=long-lived&service=registry&client_id=docker",
        ];
        for form in forms {
            let call =
                Call::new("POST", "/token").header("Content-Type", "application/x-www-form-urlencoded").body(form);
            both_fields(&gateway.send(&call).await, "the-token");
        }
    }

    #[tokio::test]
    async fn parameters_reach_the_realm_written_anew() {
        let (upstream, gateway) = relaying().await;
        let query = "scope=repository:a/b:pull,push&scope=repository%3Ac%3Apull&service=x%26y%3Dz&account=a%2Bb";
        gateway.send(&Call::new("GET", &format!("/token?{query}"))).await;
        let asked = upstream.requests_to("GET", "/token");
        let pairs = |query: &str| -> Vec<(String, String)> {
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
        };
        assert_eq!(pairs(&asked[0].query), pairs(query));
    }

    #[tokio::test]
    async fn a_refusal_is_relayed() {
        let (_upstream, gateway) = relaying().await;
        let reply =
            gateway.send(&Call::new("GET", "/token?service=x").header("Authorization", &basic("ann", "wrong"))).await;
        assert_eq!((reply.status, reply.error().0.as_str()), (401, "UNAUTHORIZED"));
    }

    /// The realm is the upstream's word, never the request's.
    #[tokio::test]
    async fn the_realm_is_not_read_from_the_request() {
        let (_upstream, gateway) = relaying().await;
        let attacker = Upstream::start().await;
        let realm = format!("{}/token", attacker.url());
        for target in [format!("/token?realm={realm}"), format!("/token?service=x&realm={realm}&next={realm}")] {
            gateway.send(&Call::new("GET", &target).header("Authorization", &basic("ann", "p:w d"))).await;
        }
        let absolute = Call::new("GET", &realm).header("Authorization", &basic("ann", "p:w d"));
        gateway.send(&absolute).await;
        assert_eq!(attacker.connections(), 0);
    }

    /// `localhost` is another host than `127.0.0.1`, where the upstream is.
    async fn with_realm_elsewhere(setup: Setup, elsewhere: &Upstream) -> (Upstream, Gateway) {
        let (upstream, _) = Upstream::with_app().await;
        let realm = format!("http://localhost:{}/token", elsewhere.address().port());
        upstream.contents().close(&format!("Bearer realm=\"{realm}\",service=\"registry\""));
        elsewhere.contents().issue(&basic("ann", "pw"), "the-token");
        let gateway = setup.rewrite_challenges().before(&upstream).await;
        (upstream, gateway)
    }

    #[tokio::test]
    async fn a_realm_at_another_host_gets_no_credentials() {
        let attacker = Upstream::start().await;
        let (_upstream, gateway) = with_realm_elsewhere(Setup::default(), &attacker).await;
        let call = Call::new("GET", "/token?service=registry").header("Authorization", &basic("ann", "pw"));
        let reply = gateway.send(&call).await;
        assert!(reply.status >= 500, "{}", reply.status);
        reply.error();
        assert_eq!(attacker.connections(), 0);
    }

    #[tokio::test]
    async fn a_realm_that_the_operator_named_is_asked() {
        let elsewhere = Upstream::start().await;
        let named = format!("http://localhost:{}/", elsewhere.address().port());
        let (_upstream, gateway) = with_realm_elsewhere(Setup::default().token_realm(&named), &elsewhere).await;
        let call = Call::new("GET", "/token?service=registry").header("Authorization", &basic("ann", "pw"));
        both_fields(&gateway.send(&call).await, "the-token");
    }

    #[tokio::test]
    async fn a_token_services_redirect_is_not_followed() {
        let (upstream, gateway) = relaying().await;
        let attacker = Upstream::start().await;
        for status in [301, 302, 303, 307, 308] {
            upstream.when("*", "/token").times(2).redirect(status, &format!("{}/token", attacker.url()));
            for call in [Call::new("GET", "/token?service=x"), Call::new("POST", "/token").body("grant_type=password")]
            {
                let reply = gateway.send(&call.header("Authorization", &basic("ann", "p:w d"))).await;
                assert!(reply.status >= 400, "{}", reply.status);
                reply.error();
            }
        }
        assert_eq!(attacker.connections(), 0);
    }

    #[tokio::test]
    async fn form_and_answer_are_capped() {
        let (upstream, gateway) = relaying().await;
        let form = format!("grant_type=password&username=ann&password={}", "x".repeat(100_000));
        let reply = gateway.send(&Call::new("POST", "/token").body(form)).await;
        assert!((400..500).contains(&reply.status), "{}", reply.status);
        reply.error();
        assert!(upstream.requests_to("POST", "/token").is_empty());
        upstream.when("GET", "/token").with_body(format!("{{\"token\":\"{}\"}}", "x".repeat(100_000)));
        let reply = gateway.send(&Call::new("GET", "/token")).await;
        assert_eq!(reply.status, 502);
        reply.error();
    }

    #[tokio::test]
    async fn an_answer_that_is_no_token_is_made_none() {
        let (upstream, gateway) = relaying().await;
        for body in ["", "{}", "<html>", "[]"] {
            upstream.behave();
            upstream.when("GET", "/token").with_body(body);
            let reply = gateway.send(&Call::new("GET", "/token")).await;
            assert!(reply.status == 502 || reply.text() == body, "{body}: {} {}", reply.status, reply.text());
        }
    }

    /// A gateway that has just started has seen no challenge yet.
    #[tokio::test]
    async fn the_first_request_of_all_may_be_for_a_token() {
        let (upstream, gateway) = relaying().await;
        both_fields(&gateway.send(&Call::new("GET", "/token?service=registry")).await, "anonymous-token");
        assert_eq!(upstream.lines(), ["GET /v2/", "GET /token"]);
        both_fields(&gateway.send(&Call::new("GET", "/token?service=registry")).await, "anonymous-token");
        assert_eq!(upstream.lines(), ["GET /v2/", "GET /token", "GET /token"]);
    }

    #[tokio::test]
    async fn an_upstream_without_a_token_service_has_none_here() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Setup::default().rewrite_challenges().before(&upstream).await;
        let reply = gateway.send(&Call::new("GET", "/token")).await;
        assert_eq!(reply.status, 404);
        reply.error();
    }
}

mod redirects {
    use super::*;

    struct Stage {
        upstream: Upstream,
        store: Upstream,
        gateway: Gateway,
        image: Image,
        config: String,
    }

    /// A registry that keeps config blobs at a second origin, as Docker Hub, GHCR and ECR do.
    async fn stage() -> Stage {
        let (upstream, image) = Upstream::with_app().await;
        let store = Upstream::start().await;
        store.contents().place("/store/config", image.config.clone());
        let gateway = Gateway::before(&upstream).await;
        let config = format!("/v2/app/blobs/{}", image.config_digest());
        Stage { upstream, store, gateway, image, config }
    }

    fn call() -> Call {
        Client::docker_1_9_1()
            .get(TAGGED)
            .header("Authorization", &basic("ann", "secret"))
            .header("Cookie", "session=secret")
            .header("X-Private", "secret")
            .header("Proxy-Authorization", "Basic c2VjcmV0")
    }

    #[tokio::test]
    async fn a_config_at_another_origin_is_fetched_without_the_callers_credentials() {
        for status in [301, 302, 303, 307, 308] {
            let stage = stage().await;
            let target = format!("{}/store/config?X-Signature=a%2Fb;c~", stage.store.url());
            stage.upstream.when("GET", &stage.config).redirect(status, &target);
            let got = stage.gateway.send(&call()).await;
            assert_eq!(got.status, 200, "{status}: {}", got.text());
            let seen = stage.store.requests();
            assert_eq!((seen.len(), seen[0].query.as_str()), (1, "X-Signature=a%2Fb;c~"));
            for (name, value) in &seen[0].headers {
                assert!(
                    !matches!(name.as_str(), "authorization" | "cookie" | "proxy-authorization" | "x-private"),
                    "{name}"
                );
                assert!(!value.contains("secret"), "{name}: {value}");
            }
            let asked = stage.upstream.requests_to("GET", &stage.config);
            assert_eq!(asked[0].header("authorization"), Some(basic("ann", "secret").as_str()));
        }
    }

    #[tokio::test]
    async fn at_the_same_origin_the_credentials_stay() {
        let stage = stage().await;
        stage.upstream.contents().place("/elsewhere", stage.image.config.clone());
        for location in
            ["/elsewhere".to_owned(), "../../../elsewhere".to_owned(), format!("{}/elsewhere", stage.upstream.url())]
        {
            let gateway = Gateway::before(&stage.upstream).await;
            stage.upstream.behave();
            stage.upstream.forget();
            stage.upstream.when("GET", &stage.config).redirect(307, &location);
            assert_eq!(gateway.send(&call()).await.status, 200, "{location}");
            let seen = stage.upstream.requests_to("GET", "/elsewhere");
            assert_eq!(seen[0].header("authorization"), Some(basic("ann", "secret").as_str()));
        }
    }

    /// A store of blobs must not be able to have the registry asked for something else in the caller's name.
    #[tokio::test]
    async fn credentials_that_were_dropped_do_not_come_back() {
        let stage = stage().await;
        stage.upstream.contents().place("/back", stage.image.config.clone());
        stage.upstream.when("GET", &stage.config).redirect(307, &format!("{}/hop", stage.store.url()));
        stage.store.when("GET", "/hop").redirect(307, &format!("{}/back", stage.upstream.url()));
        stage.gateway.send(&call()).await;
        for request in stage.upstream.requests_to("GET", "/back") {
            assert_eq!(request.header("authorization"), None);
        }
    }

    #[tokio::test]
    async fn a_loop_ends() {
        let stage = stage().await;
        stage.upstream.when("GET", &stage.config).redirect(307, &stage.config);
        let got = stage.gateway.send(&call()).await;
        assert_eq!(got.status, 502, "{}", got.text());
        assert!(stage.upstream.requests_to("GET", &stage.config).len() <= 6, "{:?}", stage.upstream.lines());
    }

    #[tokio::test]
    async fn five_are_followed_and_six_are_not() {
        for (hops, status) in [(5, 200), (6, 502)] {
            let stage = stage().await;
            stage.store.contents().place("/hop/0", stage.image.config.clone());
            stage.upstream.when("GET", &stage.config).redirect(302, &format!("{}/hop/{}", stage.store.url(), hops - 1));
            for hop in 1..hops {
                stage.store.when("GET", &format!("/hop/{hop}")).redirect(302, &format!("/hop/{}", hop - 1));
            }
            assert_eq!(stage.gateway.send(&call()).await.status, status, "{hops} redirects");
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_not_followed() {
        let stage = stage().await;
        for location in ["file:///etc/passwd", "gopher://127.0.0.1/x", "ftp://127.0.0.1/x", "http://", ""] {
            stage.upstream.behave();
            stage.upstream.when("GET", &stage.config).redirect(302, location);
            let got = stage.gateway.send(&call()).await;
            assert_eq!(got.status, 502, "{location}: {}", got.text());
        }
    }

    #[tokio::test]
    async fn what_comes_from_elsewhere_is_checked_and_its_refusal_is_not_the_upstreams() {
        let stage = stage().await;
        stage.upstream.when("GET", &stage.config).redirect(307, &format!("{}/store/config", stage.store.url()));
        stage.store.when("GET", "/store/config").times(1).with_body("{}");
        assert_eq!(stage.gateway.send(&call()).await.status, 502);
        let refusal = Answer::new(401).header("www-authenticate", "Bearer realm=\"http://127.0.0.1:1/token\"");
        stage.store.when("GET", "/store/config").times(1).answer(refusal);
        let refused = stage.gateway.send(&call()).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (502, None));
        assert_eq!(stage.gateway.send(&call()).await.status, 200);
    }

    #[tokio::test]
    async fn a_manifest_at_another_origin_is_fetched_too() {
        let stage = stage().await;
        stage.store.contents().place("/store/manifest", stage.image.oci().bytes);
        let stored = format!("/v2/app/manifests/{}", stage.image.oci().digest);
        stage.upstream.when("GET", &stored).redirect(307, &format!("{}/store/manifest", stage.store.url()));
        assert_eq!(stage.gateway.send(&call()).await.status, 200);
        assert_eq!(stage.store.requests()[0].header("authorization"), None);
    }
}
