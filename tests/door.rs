//! The gateway's own door: who comes in, what becomes of everybody else, and that what opens it goes nowhere else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use schemabridge::gateway::door::{Anonymous, ClientCertificate, Door, DoorOptions, SubjectName};
use schemabridge::gateway::service::ServiceOptions;
use schemabridge::gateway::{Body, Options, Service};
use tempfile::TempDir;

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::Setup;
use crate::support::images::Image;
use crate::support::upstream::Upstream;
use crate::support::{basic, patiently};

const TAGGED: &str = "/v2/app/manifests/latest";

// Made by the C library's `crypt` of these passwords.
pub const ALICE: &str = "alice:$2y$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu\n";
pub const ALICES: &str = "wonderland";
const BOB: &str = "bob:$2b$05$KwdfDTi5HR6XY43D3e59sufzXrqDlYRT8lvJH0dwB/IF4ie5xsSXm\n";
const BOBS: &str = "builder";
const TOKEN: &str = "c2VjcmV0LXRva2VuLW9mLXRoZS1jaS1ydW5uZXI";

/// The files of a door.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    fn passwords(&self, text: &str) -> DoorOptions {
        DoorOptions { htpasswd: Some(self.write("htpasswd", text)), ..DoorOptions::default() }
    }

    fn tokens(&self) -> DoorOptions {
        let tokens = Some(self.write("tokens", &format!("# the ci runner\n{TOKEN}\n")));
        DoorOptions { tokens, ..DoorOptions::default() }
    }
}

fn image() -> Image {
    Image::golden("html-escape")
}

async fn upstream() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", &image(), &image().oci());
    upstream
}

fn showing(client: &Client, target: &str, authorization: &str) -> Call {
    client.get(target).header("Authorization", authorization)
}

/// A refusal by the door, in the form that every client understands.
fn assert_login_wanted(reply: &Reply) {
    assert_eq!(reply.status, 401, "{}", reply.text());
    assert_eq!(reply.error().0, "UNAUTHORIZED");
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"schemabridge\""));
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn every_path_wants_a_login_and_nobody_behind_the_door_hears_of_it() {
    let (files, upstream) = (Files::new(), upstream().await);
    let setup =
        Setup::default().door(&files.passwords(ALICE)).rewrite_challenges().push().trust_proxies("127.0.0.1/32");
    let gateway = setup.before(&upstream).await;
    let manifest = format!("/v2/app/manifests/{}", image().oci().digest);
    let blob = format!("/v2/app/blobs/{}", image().config_digest());
    let paths = [
        "/v2/",
        "/v2",
        TAGGED,
        &manifest,
        &blob,
        "/v2/app/tags/list",
        "/v2/_catalog",
        "/token",
        "/v1/_ping",
        "/v1/repositories/app/images",
        "/v2/a%2Fb/manifests/x",
        "/",
    ];
    let wrong = [basic("alice", BOBS), basic("mallory", ALICES), basic("", ""), "Bearer alice".into(), "Basic".into()];
    let mut neighbours = 0;
    for path in paths {
        assert_login_wanted(&gateway.get(&Client::docker_1_6_2(), path).await);
        for authorization in &wrong {
            // Each from an address of its own, so that none has been wrong too often.
            neighbours += 1;
            let call = showing(&Client::curl(), path, authorization);
            let call = call.header("X-Forwarded-For", &format!("192.0.2.{neighbours}"));
            assert_login_wanted(&gateway.send(&call).await);
        }
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_login_wanted(&gateway.send(&Call::new(method, "/v2/app/blobs/uploads/")).await);
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn who_logs_in_as_docker_does_pulls_and_the_login_stays_at_the_door() {
    let (files, upstream) = (Files::new(), upstream().await);
    let gateway = Setup::default().door(&files.passwords(&format!("{ALICE}{BOB}"))).push().before(&upstream).await;
    for (user, password) in [("alice", ALICES), ("bob", BOBS)] {
        for client in [Client::docker_1_6_2(), Client::docker_17(), Client::docker_20_10(), Client::containerd_1_6()] {
            let login = basic(user, password);
            assert_login_wanted(&gateway.get(&client, "/v2/").await);
            let welcome = gateway.send(&showing(&client, "/v2/", &login)).await;
            assert_eq!((welcome.status, welcome.text().as_str()), (200, "{}"));
            let blob = format!("/v2/app/blobs/{}", image().config_digest());
            for target in [TAGGED, &blob, "/v2/app/tags/list"] {
                assert_eq!(gateway.send(&showing(&client, target, &login)).await.status, 200, "{target}");
            }
        }
    }
    let push = Call::new("POST", "/v2/app/blobs/uploads/").header("Authorization", &basic("bob", BOBS)).body("");
    gateway.send(&push).await;
    let asked = upstream.requests();
    assert!(asked.iter().any(|request| request.line().starts_with("POST")), "{:?}", upstream.lines());
    for request in &asked {
        assert_eq!(request.header("authorization"), None, "{}", request.line());
    }
    assert!(upstream.requests_to("*", "/v2/").is_empty());
}

#[tokio::test]
async fn the_base_endpoint_never_waits_for_an_upstream() {
    let (files, upstream) = (Files::new(), upstream().await);
    upstream.when("*", "*").reset();
    let gateway = Setup::default().door(&files.passwords(ALICE)).before(&upstream).await;
    assert_eq!(gateway.send(&showing(&Client::docker_17(), "/v2/", &basic("alice", ALICES))).await.status, 200);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_token_comes_as_a_bearer_or_as_the_password_of_docker_login() {
    let (files, upstream) = (Files::new(), upstream().await);
    let both = DoorOptions { htpasswd: files.passwords(ALICE).htpasswd, ..files.tokens() };
    for door in [files.tokens(), both] {
        let gateway = Setup::default().door(&door).before(&upstream).await;
        for right in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}"), basic("anyone", TOKEN), basic("", TOKEN)] {
            let reply = gateway.send(&showing(&Client::docker_17(), TAGGED, &right)).await;
            assert_eq!(reply.status, 200, "{right}: {}", reply.text());
        }
        for wrong in [format!("Bearer {}", &TOKEN[1..]), format!("Bearer {TOKEN}="), basic(TOKEN, ""), "Bearer ".into()]
        {
            assert_login_wanted(&gateway.send(&showing(&Client::docker_17(), TAGGED, &wrong)).await);
        }
        let twice =
            showing(&Client::docker_17(), TAGGED, "Bearer x").header("Authorization", &format!("Bearer {TOKEN}"));
        assert_login_wanted(&gateway.send(&twice).await);
    }
    assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn who_shows_nothing_may_pull_where_the_operator_says_so_and_who_shows_what_is_wrong_may_not() {
    let (files, upstream) = (Files::new(), upstream().await);
    let door = DoorOptions { anonymous: Anonymous::MayPull, ..files.passwords(ALICE) };
    let gateway = Setup::default().door(&door).push().before(&upstream).await;
    for target in ["/v2/", TAGGED] {
        assert_eq!(gateway.get(&Client::docker_17(), target).await.status, 200);
        let early = showing(&Client::docker_1_6_2(), target, &basic("", ""));
        assert_eq!(gateway.send(&early).await.status, 200);
        assert_login_wanted(&gateway.send(&showing(&Client::docker_17(), target, &basic("alice", "x"))).await);
    }
    assert_login_wanted(&gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/")).await);
}

#[tokio::test]
async fn an_address_that_was_wrong_too_often_waits_and_nobody_else_does() {
    let (files, upstream) = (Files::new(), upstream().await);
    let both = DoorOptions { tokens: files.tokens().tokens, ..files.passwords(&format!("{ALICE}{BOB}")) };
    let gateway = Setup::default().door(&both).trust_proxies("127.0.0.1/32").before(&upstream).await;
    let from = async |address: &str, authorization: &str| {
        let call = showing(&Client::docker_17(), TAGGED, authorization).header("X-Forwarded-For", address);
        gateway.send(&call).await
    };
    assert_eq!(from("192.0.2.1", &basic("alice", ALICES)).await.status, 200);
    let mut wrong = 0;
    let limited = loop {
        let reply = from("192.0.2.1", &basic("alice", &format!("guess {wrong}"))).await;
        if reply.status != 401 {
            break reply;
        }
        wrong += 1;
        assert!(wrong < 100, "there is no limit");
    };
    assert_eq!((limited.status, limited.error().0.as_str(), wrong), (429, "TOOMANYREQUESTS", 10));
    assert_eq!(limited.header("retry-after"), Some("60"));
    assert_eq!(limited.header("www-authenticate"), None);
    // a guess that would be right tells nothing any more, and who was right before goes on
    assert_eq!(from("192.0.2.1", &basic("bob", BOBS)).await.status, 429);
    assert_eq!(from("192.0.2.1", &format!("Bearer {TOKEN}x")).await.status, 429);
    assert_eq!(from("192.0.2.1", &basic("alice", ALICES)).await.status, 200);
    assert_eq!(from("192.0.2.1", &format!("Bearer {TOKEN}")).await.status, 200);
    assert_eq!(from("192.0.2.2", &basic("alice", "x")).await.status, 401);
    assert_eq!(from("192.0.2.2", &basic("bob", BOBS)).await.status, 200);
}

#[tokio::test]
async fn a_changed_file_counts_for_the_next_requests_even_of_who_was_right_before() {
    let (files, upstream) = (Files::new(), upstream().await);
    let gateway = Setup::default().door(&files.passwords(ALICE)).before(&upstream).await;
    let status = async |user, password| {
        gateway.send(&showing(&Client::docker_17(), TAGGED, &basic(user, password))).await.status
    };
    assert_eq!(status("alice", ALICES).await, 200);
    files.write("htpasswd", BOB);
    let gone = async { while status("alice", ALICES).await == 200 {} };
    patiently("the file to be read again", gone).await;
    assert_eq!((status("alice", ALICES).await, status("bob", BOBS).await), (401, 200));
}

#[tokio::test]
async fn an_upstreams_challenge_does_not_reach_who_would_follow_it_with_the_login_of_the_door() {
    let (files, upstream) = (Files::new(), upstream().await);
    let gateway = Setup::default().door(&files.passwords(ALICE)).rewrite_challenges().before(&upstream).await;
    let challenge = format!("Bearer realm=\"{}/token\",service=\"x\"", upstream.url());
    let refusal = Answer::error(401, "UNAUTHORIZED", "no").header("WWW-Authenticate", &challenge);
    upstream.when("*", "*").answer(refusal);
    let refused = gateway.send(&showing(&Client::docker_17(), TAGGED, &basic("alice", ALICES))).await;
    assert!(refused.status >= 400 && refused.all("www-authenticate").is_empty(), "{:?}", refused.headers);
}

async fn with_certificate(gateway: &Arc<Service>, names: &[SubjectName], authorization: &str) -> Response<Body> {
    let request = Request::get(TAGGED).header("Host", "gateway.test").header("Authorization", authorization);
    let mut request = request.body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(ClientCertificate { names: names.to_vec() });
    Box::pin(gateway.answer(request, SocketAddr::from(([192, 0, 2, 1], 40_000)))).await
}

#[tokio::test]
async fn a_door_for_certificates_goes_by_their_names_and_leaves_the_login_to_the_upstream() {
    let upstream = upstream().await;
    let certificates = vec!["*.ci.example".parse().unwrap(), "spiffe://example/ns/build/*".parse().unwrap()];
    let door = Door::open(&DoorOptions { certificates, ..DoorOptions::default() }).unwrap();
    let options = Options::for_upstream(upstream.url().parse().unwrap());
    let mut options = ServiceOptions::alone(options);
    options.site.door = Some(Arc::new(door));
    let gateway = Service::start(options).unwrap();
    let dns = |name: &str| SubjectName::Dns(name.to_owned());
    let uri = |name: &str| SubjectName::Uri(name.to_owned());
    let right = [vec![dns("seven.ci.example")], vec![dns("other.test"), uri("spiffe://example/ns/build/x")]];
    for names in right {
        assert_eq!(with_certificate(&gateway, &names, &basic("u", "p")).await.status(), 200, "{names:?}");
    }
    assert!(
        upstream.requests().iter().all(|request| request.header("authorization") == Some(basic("u", "p").as_str()))
    );
    upstream.forget();
    let wrong = [vec![], vec![dns("ci.example")], vec![dns("seven.ci.example.test")], vec![uri("seven.ci.example")]];
    for names in wrong {
        let refused = with_certificate(&gateway, &names, &basic("u", "p")).await;
        assert_eq!(refused.status(), 403, "{names:?}");
        assert!(!refused.headers().contains_key("www-authenticate"));
    }
    let without = Request::get(TAGGED).header("Host", "gateway.test").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(gateway.answer(without, SocketAddr::from(([192, 0, 2, 1], 40_000))).await.status(), 403);
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_door_that_cannot_be_opened_says_why_and_no_secret() {
    let files = Files::new();
    let error = |options: &DoorOptions| Door::open(options).err().unwrap().to_string();
    let plain = error(&files.passwords(&format!("{ALICE}bob:builder\n")));
    assert!(plain.contains("htpasswd: line 2: expected a bcrypt hash") && !plain.contains("builder"), "{plain}");
    let tokens = Some(files.write("tokens", "too-short"));
    let short = error(&DoorOptions { tokens, ..DoorOptions::default() });
    assert!(short.contains("tokens: line 1: expected a token") && !short.contains("too-short"), "{short}");
    assert!(error(&DoorOptions::default()).contains("nobody could come in"));
    let missing = DoorOptions { htpasswd: Some(files.0.path().join("missing")), ..DoorOptions::default() };
    assert!(error(&missing).contains("cannot be read"));
}
