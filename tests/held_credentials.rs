//! Where the gateway holds the credentials, clients need none: it logs in to the upstream by itself, asks for no more
//! than it needs, and shows what it holds to nobody else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemabridge::upstream::{Authentication, Redirects, Secret};
use serde_json::json;

use crate::secrets::{Log, disguises, holds, secret};
use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::{Recorded, Upstream};
use crate::support::{basic, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";

/// An upstream whose own token service knows the gateway.
async fn with_token_service() -> (Upstream, Image) {
    let (upstream, image) = Upstream::with_app().await;
    let challenge = bearer(&upstream);
    upstream.contents().close(&challenge);
    upstream.contents().mint_for(&basic("gate", "pw"));
    (upstream, image)
}

fn bearer(upstream: &Upstream) -> String {
    format!("Bearer realm=\"{}/token\",service=\"registry\",scope=\"repository:app:pull,push\"", upstream.url())
}

fn known_as(username: &str, password: &str) -> Authentication {
    Authentication::Basic { username: username.to_owned(), password: Secret::new(password.to_owned()) }
}

async fn gateway(upstream: &Upstream) -> Gateway {
    Setup::default().authentication(known_as("gate", "pw")).push().before(upstream).await
}

async fn pull(gateway: &Gateway) -> Reply {
    gateway.get(&Client::docker_17(), TAGGED).await
}

fn shown(requests: &[Recorded]) -> Vec<Option<String>> {
    requests.iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
}

fn scopes(upstream: &Upstream) -> Vec<String> {
    let asked = upstream.requests_to("GET", "/token");
    let scopes = |request: &Recorded| {
        let pairs = url::form_urlencoded::parse(request.query.as_bytes()).into_owned();
        pairs.filter(|(name, _)| name == "scope").map(|(_, scope)| scope).collect::<Vec<_>>().join(" ")
    };
    asked.iter().map(scopes).collect()
}

mod door {
    use super::*;

    #[tokio::test]
    async fn the_base_is_the_gateways_own_and_waits_for_nobody() {
        let (upstream, _) = with_token_service().await;
        upstream.when("*", "*").reset();
        let gateway = Setup::default().authentication(Authentication::Anonymous).rewrite_challenges();
        let gateway = gateway.before(&upstream).await;
        for path in ["/v2/", "/v2"] {
            let got = gateway.get(&Client::docker_1_9_1(), path).await;
            assert_eq!((got.status, got.header("www-authenticate")), (200, None));
        }
        let token = gateway.send(&Call::new("GET", "/token").header("Authorization", &basic("ann", "pw"))).await;
        assert_eq!(token.status, 404);
        assert!(upstream.requests().is_empty(), "{:?}", upstream.lines());
    }

    #[tokio::test]
    async fn what_the_client_sends_stays_behind() {
        for authentication in [known_as("gate", "pw"), Authentication::Anonymous] {
            let (upstream, image) = Upstream::with_app().await;
            let gateway = Setup::default().authentication(authentication).push().before(&upstream).await;
            let clients_own = basic("ann", "clients-own");
            let blob = format!("/v2/app/blobs/{}", image.config_digest());
            for (method, target) in
                [("GET", TAGGED), ("HEAD", TAGGED), ("GET", &blob), ("GET", "/v2/app/tags/list"), ("PUT", "/v2/app/x")]
            {
                let call = Client::docker_17().call(method, target).header("Authorization", &clients_own);
                gateway.send(&call.header("Proxy-Authorization", &clients_own)).await;
            }
            assert!(upstream.requests().len() >= 5, "{:?}", upstream.lines());
            for request in upstream.requests() {
                let text = format!("{:?}", request.headers);
                assert!(!text.contains(&clients_own), "{}: {text}", request.line());
            }
        }
    }

    /// The upstream's consent is the gateway's own, whoever asks.
    #[tokio::test]
    async fn a_remembered_consent_is_everybodys() {
        let (upstream, _) = with_token_service().await;
        let setup = Setup::default().authentication(known_as("gate", "pw")).tag_ttl(Duration::from_secs(3600));
        let gateway = setup.before(&upstream).await;
        for caller in ["Basic YTpi", "Bearer x"] {
            let call = Client::docker_1_9_1().get(TAGGED).header("Authorization", caller);
            assert_eq!(gateway.send(&call).await.status, 200);
        }
        let asked = upstream.requests_to("HEAD", TAGGED);
        assert_eq!(asked.len(), 2, "one without a token and one with it: {:?}", upstream.lines());
    }

    /// A client would take the upstream's challenge for the gateway's own, and log in there.
    #[tokio::test]
    async fn no_challenge_of_the_upstream_reaches_a_client() {
        let (upstream, _) = with_token_service().await;
        let gateway = Setup::default().authentication(known_as("gate", "wrong")).before(&upstream).await;
        let targets = [TAGGED, "/v2/app/tags/list", "/v2/app/blobs/sha256:0"];
        let mut words = Vec::new();
        for target in targets.map(|target| target.replace("sha256:0", &sha256(b""))) {
            let refused = gateway.get(&Client::docker_17(), &target).await;
            assert_eq!((refused.status, refused.header("www-authenticate")), (403, None), "{target}");
            words.push(refused.error());
        }
        assert_eq!(upstream.requests_to("*", "/token").len(), 1, "a wrong password is not tried again and again");
        for (code, text) in words {
            assert_eq!(code, "DENIED");
            assert!(text.contains("token service") && text.contains("user name and password"), "{text}");
        }
        let gateway = self::gateway(&upstream).await;
        assert_eq!(pull(&gateway).await.status, 200);
        let denial = Answer::error(403, "DENIED", "no").header("www-authenticate", &bearer(&upstream));
        upstream.when("*", "/v2/*").answer(denial);
        let refused = gateway.get(&Client::docker_17(), "/v2/app/tags/list").await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (403, None));
    }
}

mod login {
    use super::*;

    #[tokio::test]
    async fn a_basic_challenge_is_answered_and_remembered() {
        let (upstream, image) = Upstream::with_app().await;
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&basic("gate", "pw"), "app");
        let gateway = gateway(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        for target in [TAGGED, &blob, "/v2/app/tags/list"] {
            let got = gateway.get(&Client::docker_17(), target).await;
            assert_eq!(got.status, 200, "{target}: {}", got.text());
        }
        let shown = shown(&upstream.requests());
        assert_eq!(shown[0], None);
        assert!(shown[1..].iter().all(|shown| *shown == Some(basic("gate", "pw"))), "{shown:?}");
    }

    #[tokio::test]
    async fn a_bearer_challenge_is_answered_with_a_token() {
        let (upstream, image) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        for target in [TAGGED, &blob, "/v2/app/tags/list"] {
            assert_eq!(gateway.get(&Client::docker_1_9_1(), target).await.status, 200, "{target}");
        }
        let asked = upstream.requests_to("*", "/token");
        assert_eq!(asked.len(), 1, "{:?}", upstream.lines());
        assert_eq!(asked[0].header("authorization"), Some(basic("gate", "pw").as_str()));
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(asked[0].query.as_bytes()).into_owned().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(query, [pair("service", "registry"), pair("scope", "repository:app:pull")]);
        let shown = shown(&upstream.requests_to("*", "/v2/*"));
        assert_eq!(shown[0], None);
        assert!(shown[1..].iter().all(|shown| shown.as_deref() == Some("Bearer minted-1")), "{shown:?}");
    }

    #[tokio::test]
    async fn an_anonymous_token_is_fetched_where_there_is_one() {
        let (upstream, _) = with_token_service().await;
        upstream.contents().mint_for("");
        let gateway = Setup::default().authentication(Authentication::Anonymous).before(&upstream).await;
        assert_eq!(pull(&gateway).await.status, 200);
        let asked = upstream.requests_to("GET", "/token");
        assert_eq!((asked.len(), asked[0].header("authorization")), (1, None));
    }

    #[tokio::test]
    async fn odd_challenges_are_understood() {
        let forms: [&[&str]; 5] = [
            &["Bearer realm=\"/token\",service=\"a, b\""],
            &["bearer Realm=/token, service=x"],
            &["Basic realm=\"with, comma\", Bearer realm=\"/token\""],
            &["Negotiate", "Basic realm=\"x\"", "BEARER realm=\"/token\""],
            &["Bearer scope=\"repository:app:pull\",realm=\"/token\",error=\"invalid_token\""],
        ];
        for lines in forms {
            let (upstream, _) = with_token_service().await;
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            upstream.when("*", "/v2/*").alter(move |_, answer| {
                if answer.headers.remove("www-authenticate").is_some() {
                    for line in &lines {
                        answer.headers.append("www-authenticate", line.parse().unwrap());
                    }
                }
            });
            assert_eq!(pull(&gateway(&upstream).await).await.status, 200, "{:?}", upstream.lines());
        }
    }

    #[tokio::test]
    async fn a_foreign_realm_gets_nothing() {
        for authentication in [known_as("gate", "pw"), Authentication::Anonymous] {
            let ((upstream, _), attacker) = (with_token_service().await, Upstream::start().await);
            attacker.contents().mint_for(&basic("gate", "pw"));
            let realm = attacker.url().replace("127.0.0.1", "localhost");
            upstream.contents().close(&format!("Bearer realm=\"{realm}/token\",service=\"registry\""));
            let gateway = Setup::default().authentication(authentication).before(&upstream).await;
            let refused = pull(&gateway).await;
            assert_eq!(refused.status, 502);
            let (_, words) = refused.error();
            assert!(words.contains("localhost") && words.contains("--token-realm"), "{words}");
            assert_eq!(attacker.connections(), 0);
            assert!(shown(&upstream.requests()).iter().all(Option::is_none));
        }
    }

    /// Credentials are for the upstream: where it redirects to gets none, and its challenge is nobody's.
    #[tokio::test]
    async fn a_redirects_target_gets_nothing_and_its_challenge_is_not_answered() {
        let ((upstream, image), attacker) = (with_token_service().await, Upstream::start().await);
        let config = format!("/v2/app/blobs/{}", image.config_digest());
        upstream.when("GET", &config).redirect(307, &format!("{}/stolen", attacker.url()));
        attacker.contents().mint_for(&basic("gate", "pw"));
        let challenge = format!("Bearer realm=\"{}/token\"", attacker.url());
        attacker.when("*", "/stolen").answer(Answer::new(401).header("www-authenticate", &challenge));
        let gateway = gateway(&upstream).await;
        assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 502);
        assert_eq!(attacker.lines(), ["GET /stolen"]);
        assert_eq!(shown(&attacker.requests()), [None]);
        upstream.behave();
        assert_eq!(gateway.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
        assert_eq!(upstream.requests_to("*", "/token").len(), 1, "the token is as good as before");
    }

    /// At its own origin the upstream wants them again, wherever it sends the blob to.
    #[tokio::test]
    async fn a_blob_is_followed_within_the_upstream_with_them() {
        let (upstream, image) = with_token_service().await;
        let config = format!("/v2/app/blobs/{}", image.config_digest());
        upstream.when("GET", &config).redirect(307, "/v2/app/manifests/latest");
        let setup = Setup::default().authentication(known_as("gate", "pw")).redirects(Redirects::Follow);
        let gateway = setup.before(&upstream).await;
        assert_eq!(gateway.get(&Client::curl(), &config).await.status, 200);
        upstream.when("GET", TAGGED).answer(Answer::new(401).header("www-authenticate", &bearer(&upstream)));
        let refused = gateway.get(&Client::curl(), &config).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (403, None));
    }

    #[tokio::test]
    async fn a_busy_token_service_is_not_taken_for_a_refusal() {
        let (upstream, _) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let busy = Answer::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", "7");
        upstream.when("*", "/token").times(1).answer(busy);
        let got = pull(&gateway).await;
        assert_eq!((got.status, got.header("retry-after")), (429, Some("7")));
        assert_eq!(pull(&gateway).await.status, 429, "it is left alone for as long as it said");
        assert_eq!(upstream.requests_to("*", "/token").len(), 1);
    }
}

mod scope {
    use super::*;

    #[tokio::test]
    async fn reading_asks_for_pull_and_writing_for_push() {
        let (upstream, image) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        for (method, target) in [("GET", TAGGED), ("HEAD", TAGGED), ("GET", &blob), ("GET", "/v2/app/tags/list")] {
            assert_eq!(gateway.send(&Client::docker_17().call(method, target)).await.status, 200, "{target}");
        }
        assert_eq!(scopes(&upstream), ["repository:app:pull"]);
        let begun = gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/").body("")).await;
        assert_eq!(begun.status, 202, "{}", begun.text());
        assert_eq!(scopes(&upstream), ["repository:app:pull", "repository:app:pull,push"]);
    }

    #[tokio::test]
    async fn a_mount_asks_for_both_repositories() {
        let (upstream, image) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let target = format!("/v2/team/app/blobs/uploads/?mount={}&from=app", image.config_digest());
        let mounted = gateway.send(&Call::new("POST", &target).body("")).await;
        assert_eq!(mounted.status, 201, "{}", mounted.text());
        assert_eq!(scopes(&upstream), ["repository:team/app:pull,push repository:app:pull"]);
    }

    /// A body that streams cannot be sent twice, so the gateway asks the base endpoint what is wanted before.
    #[tokio::test]
    async fn an_upload_logs_in_ahead() {
        let (upstream, _) = with_token_service().await;
        let first = gateway(&upstream).await;
        let begun = first.send(&Call::new("POST", "/v2/app/blobs/uploads/").body("")).await;
        let location = begun.header("location").unwrap();
        let target = location.strip_prefix(&format!("http://{}", first.address())).unwrap();
        upstream.forget();
        let fresh = gateway(&upstream).await;
        let sent = fresh.send(&Call::new("PATCH", target).body(vec![7; 200_000])).await;
        assert_eq!(sent.status, 202, "{}", sent.text());
        let lines: Vec<String> = upstream.lines();
        assert_eq!(lines[..2], ["GET /v2/", "GET /token"]);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(upstream.requests()[2].body.len(), 200_000);
    }

    #[tokio::test]
    async fn an_open_door_is_looked_at_once() {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = gateway(&upstream).await;
        for _ in 0..3 {
            let begun = gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/").body("")).await;
            assert_eq!(begun.status, 202, "{}", begun.text());
        }
        assert_eq!(upstream.requests_to("GET", "/v2/").len(), 1, "{:?}", upstream.lines());
    }

    /// The same realm, service and scope, and still another upstream, or other credentials.
    #[tokio::test]
    async fn no_token_is_used_for_another_upstream_or_repository() {
        let ((one, image), (other, _)) = (with_token_service().await, with_token_service().await);
        one.put_image("second", "latest", &image, &image.oci());
        other.contents().close(&bearer(&one));
        let first = gateway(&one).await;
        let setup = Setup::default().authentication(known_as("gate", "pw")).token_realm(&one.url());
        let second = setup.before(&other).await;
        assert_eq!(pull(&first).await.status, 200);
        assert_eq!(first.get(&Client::docker_17(), "/v2/second/manifests/latest").await.status, 200);
        assert_eq!(pull(&second).await.status, 403, "a token of the one is none of the other");
        let shown = |upstream: &Upstream, pattern: &str| -> Vec<String> {
            let mut shown: Vec<String> = shown(&upstream.requests_to("*", pattern)).into_iter().flatten().collect();
            shown.dedup();
            shown
        };
        assert_eq!(shown(&one, "/v2/app/*"), ["Bearer minted-1"]);
        assert_eq!(shown(&one, "/v2/second/*"), ["Bearer minted-2"]);
        assert_eq!(shown(&other, "/v2/*"), ["Bearer minted-3"]);
    }
}

mod renewal {
    use super::*;

    #[tokio::test]
    async fn a_token_that_is_over_is_renewed_behind_the_clients_back() {
        let (upstream, _) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        assert_eq!(pull(&gateway).await.status, 200);
        upstream.contents().revoke_minted();
        upstream.forget();
        assert_eq!(pull(&gateway).await.status, 200);
        assert_eq!(upstream.requests_to("HEAD", TAGGED).len(), 2, "{:?}", upstream.lines());
        assert_eq!(upstream.requests_to("*", "/token").len(), 1, "{:?}", upstream.lines());
    }

    #[tokio::test]
    async fn a_refusal_is_tried_once_more_and_then_final() {
        let expired = "Your authorization token has expired. Reauthenticate and try again.";
        for (status, target) in [(401, TAGGED), (403, TAGGED), (401, "/v2/app/tags/list"), (403, "/v2/app/tags/list")] {
            let (upstream, _) = with_token_service().await;
            let gateway = gateway(&upstream).await;
            assert_eq!(gateway.get(&Client::docker_1_9_1(), target).await.status, 200);
            upstream.forget();
            upstream.when("*", target).answer(Answer::error(status, "DENIED", expired));
            for _ in 0..3 {
                assert_eq!(gateway.get(&Client::docker_1_9_1(), target).await.status, 403, "{target}");
            }
            let (asked, tokens) = (upstream.requests_to("*", target), upstream.requests_to("*", "/token"));
            assert_eq!((asked.len(), tokens.len()), (4, 1), "{target}: {:?}", upstream.lines());
        }
    }

    #[tokio::test]
    async fn a_forward_is_repaired_too() {
        let (upstream, image) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let blob = format!("/v2/app/blobs/{}", image.config_digest());
        assert_eq!(gateway.get(&Client::docker_17(), &blob).await.status, 200);
        upstream.contents().revoke_minted();
        let got = gateway.get(&Client::docker_17(), &blob).await;
        assert_eq!((got.status, got.body.as_slice()), (200, &image.config[..]));
    }

    #[tokio::test]
    async fn a_write_without_a_body_is_repaired_too() {
        let (upstream, _) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let begin = Call::new("POST", "/v2/app/blobs/uploads/").body("");
        assert_eq!(gateway.send(&begin).await.status, 202);
        upstream.contents().revoke_minted();
        assert_eq!(gateway.send(&begin).await.status, 202, "{:?}", upstream.lines());
    }

    #[tokio::test]
    async fn many_who_need_a_token_wait_for_one() {
        let (upstream, _) = with_token_service().await;
        let gateway = gateway(&upstream).await;
        let gate = upstream.when("*", "/token").hold();
        let call = Client::curl().get("/v2/app/tags/list");
        let pulls = (0..20).map(|_| gateway.send(&call));
        let pulls = futures_util::future::join_all(pulls);
        let release = async {
            upstream.arrived(20, "GET", "/v2/app/tags/list").await;
            gate.reached(1).await;
            gate.open();
        };
        let (replies, ()) = tokio::join!(pulls, release);
        assert!(replies.iter().all(|reply| reply.status == 200));
        assert_eq!(upstream.requests_to("*", "/token").len(), 1);
    }

    #[tokio::test]
    async fn a_token_is_used_as_long_as_is_said() {
        let cases = [
            (json!(0), 3),
            (json!(-1), 3),
            (json!(null), 1),
            (json!(300), 1),
            (json!("300"), 1),
            (json!(1e12), 1),
            (json!("soon"), 1),
        ];
        for (expires_in, tokens) in cases {
            let (upstream, _) = with_token_service().await;
            upstream.contents().tokens_expire_in(expires_in.clone());
            let gateway = gateway(&upstream).await;
            for _ in 0..3 {
                assert_eq!(gateway.get(&Client::curl(), "/v2/app/tags/list").await.status, 200, "{expires_in}");
            }
            assert_eq!(upstream.requests_to("*", "/token").len(), tokens, "{expires_in}");
        }
    }

    #[tokio::test]
    async fn a_password_file_that_changes_is_read_again() {
        let (upstream, _) = Upstream::with_app().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "old\n").unwrap();
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&basic("gate", "old"), "app");
        let password = Secret::from_file(file.clone());
        let authentication = Authentication::Basic { username: "gate".to_owned(), password };
        let gateway = Setup::default().authentication(authentication).before(&upstream).await;
        assert_eq!(pull(&gateway).await.status, 200);
        std::fs::write(&file, "new\n").unwrap();
        upstream.contents().change_the_locks();
        upstream.contents().admit(&basic("gate", "new"), "app");
        assert_eq!(pull(&gateway).await.status, 200);
    }
}

mod programs {
    use super::*;

    /// A credential helper in a directory of its own, and a word of what it was asked.
    struct Helper(tempfile::TempDir);

    impl Helper {
        fn new(script: &str) -> Self {
            let helper = Self(tempfile::tempdir().unwrap());
            helper.write(script);
            helper
        }

        /// Written beside and moved over: a program that runs cannot be written to.
        fn write(&self, script: &str) {
            let beside = self.0.path().join("new");
            let asked = self.0.path().join("asked");
            let text = format!("#!/bin/sh\nkey=$(cat)\necho \"$1 $key\" >>{}\n{script}\n", asked.display());
            std::fs::write(&beside, text).unwrap();
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&beside, self.program()).unwrap();
        }

        fn program(&self) -> PathBuf {
            self.0.path().join("docker-credential-ours")
        }

        fn asked(&self) -> Vec<String> {
            let asked = std::fs::read_to_string(self.0.path().join("asked")).unwrap_or_default();
            asked.lines().map(str::to_owned).collect()
        }

        fn authentication(&self) -> Authentication {
            Authentication::Helper { name: "ours".to_owned(), search_path: Some(self.0.path().into()) }
        }
    }

    const GATE: &str = r#"echo '{"ServerURL":"x","Username":"gate","Secret":"pw"}'"#;

    async fn closed() -> Upstream {
        let (upstream, _) = Upstream::with_app().await;
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&basic("gate", "pw"), "app");
        upstream
    }

    async fn before(upstream: &Upstream, authentication: Authentication) -> Gateway {
        let setup = Setup::default().authentication(authentication).credentials_timeout(Duration::from_secs(5));
        setup.before(upstream).await
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_the_upstream_once() {
        let (upstream, helper) = (closed().await, Helper::new(GATE));
        let gateway = before(&upstream, helper.authentication()).await;
        for _ in 0..3 {
            assert_eq!(pull(&gateway).await.status, 200);
        }
        assert_eq!(helper.asked(), [format!("get {}", upstream.address())]);
    }

    #[tokio::test]
    async fn what_a_command_prints_is_used_in_either_form() {
        let forms = [
            GATE,
            r#"echo '{"username":"gate","secret":"pw"}'"#,
            r#"echo '{"Token":"from-the-command"}'"#,
            r#"echo '{"token":"from-the-command"}'"#,
        ];
        for form in forms {
            let (upstream, helper) = (closed().await, Helper::new(form));
            upstream.contents().admit("Bearer from-the-command", "app");
            let exec = Authentication::Exec {
                command: helper.program(),
                arguments: vec!["say".to_owned()],
                lifetime: Duration::from_secs(60),
            };
            assert_eq!(pull(&before(&upstream, exec).await).await.status, 200, "{form}");
            assert_eq!(helper.asked(), [format!("say {}", upstream.address())]);
        }
    }

    #[tokio::test]
    async fn what_a_command_printed_is_good_for_its_lifetime_only() {
        let (upstream, helper) = (closed().await, Helper::new(GATE));
        let (command, arguments) = (helper.program(), Vec::new());
        let exec = Authentication::Exec { command, arguments, lifetime: Duration::ZERO };
        let gateway = before(&upstream, exec).await;
        assert_eq!(pull(&gateway).await.status, 200);
        helper.write("exit 1");
        let (status, (_, words)) = {
            let got = pull(&gateway).await;
            (got.status, got.error())
        };
        assert_eq!(status, 502);
        assert!(words.contains("docker-credential-ours") && words.contains("ended with an error"), "{words}");
    }

    const BROKEN: [(&str, &str); 5] = [
        ("head -c 10485760 /dev/zero", "printed more than"),
        ("exec sleep 1000", "longer than"),
        ("echo secret-on-stdout; echo secret-on-stderr >&2; exit 1", "ended with an error"),
        ("echo '{\"Username\": \"secret-in-junk'", "did not print JSON"),
        ("exec cat /nonexistent/x", "ended with an error"),
    ];

    #[tokio::test]
    async fn a_broken_helper_is_an_error_in_words() {
        for (script, complaint) in BROKEN {
            let (upstream, helper) = (closed().await, Helper::new(script));
            let setup = Setup::default().authentication(helper.authentication());
            let gateway = setup.credentials_timeout(Duration::from_millis(500)).before(&upstream).await;
            let got = pull(&gateway).await;
            let (_, words) = got.error();
            assert_eq!(got.status, 502, "{script}: {words}");
            assert!(words.contains(complaint) && words.contains("docker-credential-ours"), "{script}: {words}");
            assert!(!words.contains("secret-"), "{words}");
        }
    }

    #[tokio::test]
    async fn the_old_credentials_are_kept_while_a_helper_is_broken() {
        for (script, _) in BROKEN {
            let (upstream, helper) = (closed().await, Helper::new(GATE));
            let setup = Setup::default().authentication(helper.authentication());
            let gateway = setup.credentials_timeout(Duration::from_millis(500)).before(&upstream).await;
            assert_eq!(pull(&gateway).await.status, 200);
            helper.write(script);
            upstream.when("*", "/v2/app/*").times(1).answer(Answer::error(403, "DENIED", "not now"));
            assert_eq!(pull(&gateway).await.status, 403, "{script}");
            assert_eq!(helper.asked().len(), 2, "{script}");
            assert_eq!(pull(&gateway).await.status, 200, "{script}");
        }
    }

    #[tokio::test]
    async fn what_a_helper_says_anew_is_used() {
        let (upstream, helper) = (closed().await, Helper::new(GATE));
        let gateway = before(&upstream, helper.authentication()).await;
        assert_eq!(pull(&gateway).await.status, 200);
        helper.write(&GATE.replace("pw", "rotated"));
        upstream.contents().change_the_locks();
        upstream.contents().admit(&basic("gate", "rotated"), "app");
        assert_eq!(pull(&gateway).await.status, 200);
    }

    fn docker_config(folder: &Path, search_path: &Path, content: &serde_json::Value) -> Authentication {
        let file = folder.join("config.json");
        std::fs::write(&file, content.to_string()).unwrap();
        Authentication::DockerConfig { file, search_path: Some(search_path.into()) }
    }

    #[tokio::test]
    async fn dockers_configuration_is_read_as_docker_reads_it() {
        let helper = Helper::new(GATE);
        let nothing = Helper::new("echo credentials not found in native keychain; exit 1");
        let auth = data_encoding::BASE64.encode(b"gate:pw");
        for (search, names) in [(&helper, "helper"), (&helper, "store"), (&nothing, "auths"), (&nothing, "absent")] {
            let upstream = closed().await;
            let address = upstream.address().to_string();
            let folder = tempfile::tempdir().unwrap();
            let content = match names {
                "helper" => json!({"credHelpers": {&address: "ours"}, "credsStore": "missing"}),
                "store" => json!({"credsStore": "ours", "auths": {&address: {}}}),
                "auths" => json!({"credsStore": "ours", "auths": {&address: {"auth": auth}}}),
                _ => json!({"auths": {"another.example": {"auth": auth}}}),
            };
            let gateway = before(&upstream, docker_config(folder.path(), search.0.path(), &content)).await;
            let expected = if names == "absent" { 403 } else { 200 };
            assert_eq!(pull(&gateway).await.status, expected, "{names}");
        }
    }

    #[tokio::test]
    async fn dockers_configuration_is_read_again_when_it_changes() {
        let (upstream, folder) = (closed().await, tempfile::tempdir().unwrap());
        let auth = |pair: &str| json!({"auths": {upstream.address().to_string(): {"auth": data_encoding::BASE64.encode(pair.as_bytes())}}});
        let gateway = before(&upstream, docker_config(folder.path(), folder.path(), &auth("gate:pw"))).await;
        assert_eq!(pull(&gateway).await.status, 200);
        upstream.contents().change_the_locks();
        upstream.contents().admit(&basic("gate", "rotated"), "app");
        docker_config(folder.path(), folder.path(), &auth("gate:rotated"));
        assert_eq!(pull(&gateway).await.status, 200);
    }

    /// An identity token is sent as `OAuth2` sends a refresh token, and by GET where the service knows no POST.
    #[tokio::test]
    async fn an_identity_token_is_exchanged_by_post_and_else_by_get() {
        for knows_post in [true, false] {
            let (upstream, _) = with_token_service().await;
            upstream.contents().mint_for("long-lived");
            upstream.contents().mint_for(&basic("", "long-lived"));
            if !knows_post {
                upstream.when("POST", "/token").answer(Answer::new(405));
            }
            let folder = tempfile::tempdir().unwrap();
            let content = json!({"auths": {upstream.address().to_string(): {"identitytoken": "long-lived"}}});
            let gateway = before(&upstream, docker_config(folder.path(), folder.path(), &content)).await;
            assert_eq!(pull(&gateway).await.status, 200, "{:?}", upstream.lines());
            let posted = &upstream.requests_to("POST", "/token")[0];
            let form: Vec<(String, String)> = url::form_urlencoded::parse(&posted.body).into_owned().collect();
            let pairs = [
                ("grant_type", "refresh_token"),
                ("refresh_token", "long-lived"),
                ("client_id", "schemabridge"),
                ("service", "registry"),
                ("scope", "repository:app:pull"),
            ];
            assert_eq!(form, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
            assert_eq!(posted.header("authorization"), None);
            assert_eq!(upstream.requests_to("GET", "/token").len(), usize::from(!knows_post));
        }
    }
}

mod amazon {
    use super::*;

    fn ecr(api: &Upstream) -> Authentication {
        let settings =
            [("aws_access_key_id", "AKIAEXAMPLE"), ("aws_secret_access_key", "key"), ("aws_session_token", "s")];
        Authentication::Ecr {
            region: "eu-central-1".to_owned(),
            endpoint: Some(format!("{}/api/", api.url()).parse().unwrap()),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    fn token(password: &str, expires_at: i64) -> String {
        let token = data_encoding::BASE64.encode(format!("AWS:{password}").as_bytes());
        json!({"authorizationData": [{"authorizationToken": token, "expiresAt": expires_at, "proxyEndpoint": "https://x"}]})
            .to_string()
    }

    #[tokio::test]
    async fn a_token_is_asked_for_under_a_signature_and_renewed_when_it_is_refused() {
        let ((upstream, _), api) = (Upstream::with_app().await, Upstream::start().await);
        upstream
            .contents()
            .close("Basic realm=\"https://x.dkr.ecr.eu-central-1.amazonaws.com/\",service=\"ecr.amazonaws.com\"");
        upstream.contents().admit(&basic("AWS", "one"), "app");
        api.contents().place("/api/", token("one", 99_999_999_999).into());
        let gateway = Setup::default().authentication(ecr(&api)).before(&upstream).await;
        for _ in 0..2 {
            assert_eq!(pull(&gateway).await.status, 200);
        }
        let asked = api.requests();
        assert_eq!(api.lines(), ["POST /api/"]);
        let header = |name: &str| asked[0].header(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(header("x-amz-target"), "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
        assert_eq!(header("content-type"), "application/x-amz-json-1.1");
        assert_eq!((header("x-amz-security-token"), &asked[0].body[..]), ("s", &b"{}"[..]));
        let day = &header("x-amz-date")[..8];
        let signature = header("authorization");
        let scope =
            format!("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/{day}/eu-central-1/ecr/aws4_request, SignedHeaders=");
        assert!(signature.starts_with(&scope), "{signature}");
        assert!(signature.contains("host;") && signature.contains("x-amz-target"), "{signature}");

        upstream.contents().change_the_locks();
        upstream.contents().admit(&basic("AWS", "two"), "app");
        api.contents().place("/api/", token("two", 99_999_999_999).into());
        let expired = "Your authorization token has expired. Reauthenticate and try again.";
        upstream.when("HEAD", TAGGED).times(1).answer(Answer::error(403, "DENIED", expired));
        assert_eq!(pull(&gateway).await.status, 200);
        assert_eq!(api.requests().len(), 2);
    }

    #[tokio::test]
    async fn a_token_that_is_over_is_not_used_again() {
        let ((upstream, _), api) = (Upstream::with_app().await, Upstream::start().await);
        upstream.contents().close("Basic realm=\"x\"");
        upstream.contents().admit(&basic("AWS", "one"), "app");
        api.contents().place("/api/", token("one", 1).into());
        let gateway = Setup::default().authentication(ecr(&api)).before(&upstream).await;
        for calls in [1, 2] {
            assert_eq!(gateway.get(&Client::curl(), "/v2/app/tags/list").await.status, 200);
            assert_eq!(api.requests().len(), calls);
        }
    }

    #[tokio::test]
    async fn a_refusal_of_the_api_is_named() {
        let ((upstream, _), api) = (Upstream::with_app().await, Upstream::start().await);
        upstream.contents().close("Basic realm=\"x\"");
        let refusal = Answer::new(400).body(r#"{"__type":"UnrecognizedClientException","message":"secret-echo"}"#);
        api.when("*", "*").answer(refusal);
        let gateway = Setup::default().authentication(ecr(&api)).before(&upstream).await;
        let got = pull(&gateway).await;
        let (_, words) = got.error();
        assert_eq!(got.status, 502);
        assert!(words.contains("UnrecognizedClientException") && words.contains("eu-central-1"), "{words}");
        assert!(!words.contains("secret-echo"), "{words}");
    }
}

/// Nothing that the gateway holds is in an answer, in the log or in what prints.
#[tokio::test]
async fn what_is_held_is_shown_to_nobody() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log.clone());
    // With a single subscriber `tracing` remembers what the thread of another test, which has none, says to a call site.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let (password, issued) = (secret("password"), secret("issued").replace(' ', ""));
    let (upstream, image) = Upstream::with_app().await;
    upstream.contents().close(&bearer(&upstream));
    upstream.contents().issue(&basic("gate", &password), &issued);
    upstream.contents().admit(&format!("Bearer {issued}"), "app");
    let authentication = known_as("gate", &password);
    let printed = format!("{authentication:?} {authentication:#?} {authentication}");
    let gateway = Setup::default().authentication(authentication).push().before(&upstream).await;
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    let mut read = printed.into_bytes();
    let mut statuses = Vec::new();
    for fault in 0..8 {
        upstream.behave();
        match fault {
            0 => {}
            1 => upstream.when("*", "/v2/app/*").answer(Answer::error(401, "UNAUTHORIZED", "no")),
            2 => upstream.when("*", "/v2/app/*").answer(Answer::error(403, "DENIED", "no")),
            3 => upstream.when("*", "*").reset(),
            4 => upstream.when("*", "/v2/app/*").redirect(307, "gopher://127.0.0.1"),
            5 => upstream.when("*", "*").answer(Answer::new(503).body("<html>")),
            6 => upstream.contents().change_the_locks(),
            _ => upstream.when("*", "/token").with_body(format!("not a token: {password}")),
        }
        for (method, target) in [("GET", TAGGED), ("HEAD", TAGGED), ("GET", &blob), ("PUT", TAGGED), ("GET", "/v2/")] {
            let reply = gateway.send(&Client::docker_17().call(method, target)).await;
            statuses.push(reply.status);
            read.extend([format!("{:?}", reply.headers).as_bytes(), &reply.body].concat());
        }
    }
    gateway.stop().await;
    assert!(statuses.contains(&200) && statuses.contains(&403) && statuses.contains(&502), "{statuses:?}");
    let logged = log.0.lock().unwrap().clone();
    assert!(holds(&logged, b"latest"), "nothing was logged: {}", String::from_utf8_lossy(&logged));
    for disguise in [disguises(&password), disguises(&issued)].concat() {
        let shown = String::from_utf8_lossy(&disguise).into_owned();
        assert!(!holds(&logged, &disguise), "`{shown}` is in the log: {}", String::from_utf8_lossy(&logged));
        assert!(!holds(&read, &disguise), "`{shown}` is in an answer: {}", String::from_utf8_lossy(&read));
    }
}
