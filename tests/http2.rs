//! HTTP/2 within TLS: one request is answered as over HTTP/1.1, whatever else is under way on its connection.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use rustls::version::{TLS12, TLS13};
use schemabridge::server::http2::STREAMS_MAX;
use schemabridge::server::tls::TlsOptions;

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::{Answer, Delivery};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http2::{Http2, read};
use crate::support::images::Image;
use crate::support::secure::{Authority, Files};
use crate::support::secure_client::Secure;
use crate::support::upstream::Upstream;
use crate::support::{patiently, sha256};

const HOST: &str = "gateway.test";
const TAGGED: &str = "/v2/team/app/manifests/latest";

/// A gateway within TLS before an upstream with an image and a blob.
struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    authority: Authority,
    blob: String,
    bytes: Vec<u8>,
}

async fn stage(length: usize) -> Stage {
    stage_with(Setup::default(), length).await
}

async fn stage_with(setup: Setup, length: usize) -> Stage {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    upstream.put_image("team/app", "latest", &image, &image.oci());
    let bytes: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let digest = upstream.contents().put_blob("team/app", bytes.clone().into());
    let authority = Authority::new();
    let gateway = setup.tls_to_clients(&tls(&authority)).before(&upstream).await;
    Stage { upstream, gateway, authority, blob: format!("/v2/team/app/blobs/{digest}"), bytes }
}

fn tls(authority: &Authority) -> TlsOptions {
    let Files { chain, key } = authority.issue(&[HOST]);
    TlsOptions::showing(chain, key)
}

impl Stage {
    fn client(&self) -> Secure {
        Secure::new(&self.authority.file(), &TLS13, None)
    }

    async fn http2(&self) -> Http2 {
        self.client().http2(self.gateway.address()).await
    }
}

/// What both say, save the date and what only one of the protocols has.
fn said(reply: &Reply) -> (u16, Vec<(String, String)>, &[u8]) {
    let mut headers: Vec<(String, String)> =
        reply.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    headers.retain(|(name, _)| !matches!(name.as_str(), "date" | "connection" | "x-request-id"));
    headers.sort();
    (reply.status, headers, &reply.body)
}

#[tokio::test]
async fn every_answer_is_the_one_of_http1() {
    let stage = stage(300_000).await;
    let derived = stage.client().reply(&stage.gateway, &Client::docker_17().get(TAGGED)).await;
    let by_digest = format!("/v2/team/app/manifests/{}", derived.digest());
    let http2 = stage.http2().await;
    for call in [
        Client::docker_17().get("/v2/"),
        Client::docker_17().get(TAGGED),
        Client::docker_1_9_1().get(TAGGED),
        Client::containerd_1_6().get(TAGGED),
        Client::docker_17().get(&by_digest),
        Client::curl().get(&stage.blob),
        Client::curl().get(&stage.blob).header("Range", "bytes=10-19"),
        Client::curl().get(&stage.blob).header("Range", "bytes=299990-"),
        Client::curl().get(&stage.blob).header("Range", "bytes=999999-"),
        Client::curl().get("/v2/team/app/tags/list"),
        Client::curl().get("/v2/team/app/manifests/missing"),
        Client::curl().get("/v2/team/%2e%2e/manifests/x"),
        Client::curl().get("/elsewhere"),
        Call::new("PUT", TAGGED).body("x"),
    ] {
        let over_http1 = stage.client().reply(&stage.gateway, &call).await;
        let over_http2 = http2.ask(HOST, &call).await;
        assert!(over_http1.is_whole && over_http2.is_whole, "{call:?}");
        assert_eq!(said(&over_http2), said(&over_http1), "{call:?}");
    }
}

#[tokio::test]
async fn a_blob_comes_byte_for_byte_and_head_says_its_length() {
    let stage = stage(3_000_000).await;
    for version in [&TLS12, &TLS13] {
        let client = Secure::new(&stage.authority.file(), version, None);
        let http2 = client.http2(stage.gateway.address()).await;
        let got = http2.ask(HOST, &Client::docker_20_10().get(&stage.blob)).await;
        assert_eq!((got.status, got.is_whole, got.body == stage.bytes), (200, true, true));
        assert_eq!((got.header("content-length"), got.digest()), (Some("3000000"), sha256(&stage.bytes).as_str()));
        for target in [&stage.blob, TAGGED] {
            let head = http2.ask(HOST, &Client::docker_20_10().head(target)).await;
            let got = http2.ask(HOST, &Client::docker_20_10().get(target)).await;
            assert!(head.body.is_empty() && head.is_whole, "{target}");
            assert_eq!(head.header("content-length"), Some(got.body.len().to_string().as_str()), "{target}");
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_offer_it_gets_http1() {
    let stage = stage(10).await;
    for offered in [&["http/1.1"][..], &[]] {
        let client = stage.client().offering(offered);
        let reply = client.reply(&stage.gateway, &Client::docker_17().get(TAGGED)).await;
        assert_eq!((reply.status, reply.is_whole), (200, true), "{offered:?}");
    }
    // one that offers neither is refused, as RFC 7301 wants it
    assert!(stage.client().offering(&["spdy/3"]).connect(stage.gateway.address()).await.is_err());
}

#[tokio::test]
async fn what_upstreams_say_of_their_own_connections_stays_behind() {
    let stage = stage(10).await;
    let answer = Answer::new(200).body("{\"tags\":[]}").header("Content-Type", "application/json");
    let answer = answer.header("Keep-Alive", "timeout=5").header("Proxy-Connection", "keep-alive");
    stage.upstream.when("GET", "/v2/team/app/tags/list").answer(answer.header("Upgrade", "h2c"));
    let got = stage.http2().await.ask(HOST, &Client::curl().get("/v2/team/app/tags/list")).await;
    assert_eq!((got.status, got.text().as_str()), (200, "{\"tags\":[]}"));
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert_eq!(got.header(name), None);
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_no_whole_answer() {
    let stage = stage(2_000_000).await;
    let http2 = stage.http2().await;
    for is_measured in [true, false] {
        stage.upstream.when("*", &stage.blob).alter(move |_, answer| {
            if !is_measured {
                answer.headers.remove("content-length");
            }
            answer.delivery = Delivery::Cut { after: 1_000_000 };
        });
        let broken = http2.ask(HOST, &Client::docker_20_10().get(&stage.blob)).await;
        assert_eq!((broken.status, broken.header("content-length").is_some()), (200, is_measured));
        assert!(!broken.is_whole && broken.body.len() <= 1_000_000);
        stage.upstream.behave();
    }
    // only the one request ends
    let whole = http2.ask(HOST, &Client::docker_20_10().get(&stage.blob)).await;
    assert!(whole.is_whole && whole.body == stage.bytes);
}

#[tokio::test]
async fn a_client_that_takes_its_request_back_ends_the_read_from_the_upstream() {
    let stage = stage(4_000_000).await;
    let http2 = stage.http2().await;
    let gate = stage.upstream.when("GET", &stage.blob).times(1).hold_body(1_000_000);
    let response = http2.send(Client::docker_20_10().get(&stage.blob).as_http2(HOST)).await.unwrap();
    gate.reached(1).await;
    drop(response);
    patiently("the end of the upstream's answer", gate.abandoned(1)).await;
    let again = http2.ask(HOST, &Client::docker_20_10().get(&stage.blob)).await;
    assert!(again.is_whole && again.body == stage.bytes);
}

#[tokio::test]
async fn requests_of_one_connection_do_not_wait_for_each_other() {
    let stage = stage(2_000_000).await;
    let http2 = stage.http2().await;
    let gate = stage.upstream.when("GET", &stage.blob).times(1).hold_body(100_000);
    let held = http2.send(Client::docker_20_10().get(&stage.blob).as_http2(HOST)).await.unwrap();
    gate.reached(1).await;
    let calls: Vec<Call> = (0..STREAMS_MAX * 2).map(|_| Client::docker_17().get(TAGGED)).collect();
    let replies = join_all(calls.iter().map(|call| http2.ask(HOST, call))).await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.is_whole));
    gate.open();
    let whole = read(held).await;
    assert!(whole.is_whole && whole.body == stage.bytes);
}

#[tokio::test]
async fn what_clients_are_told_to_ask_next_has_the_name_they_used() {
    let stage = stage_with(Setup::default().rewrite_challenges().push(), 10).await;
    let http2 = stage.http2().await;
    let upload = Call::new("POST", "/v2/team/app/blobs/uploads/").body("");
    let begun = http2.ask("gateway.test:5000", &upload).await;
    let next = begun.header("location").unwrap_or_default();
    assert!(begun.status == 202 && (next.starts_with("https://gateway.test:5000/") || next.starts_with('/')), "{next}");
    let challenge = format!("Bearer realm=\"{}/token\",service=\"registry\"", stage.upstream.url());
    let refusal = Answer::error(401, "UNAUTHORIZED", "no").header("WWW-Authenticate", &challenge);
    stage.upstream.when("GET", "/v2/").answer(refusal);
    let refused = http2.ask("gateway.test:5000", &Client::docker_17().get("/v2/")).await;
    let challenge = refused.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains("realm=\"https://gateway.test:5000/token\""), "{challenge}");
}

#[tokio::test]
async fn the_authority_chooses_the_upstream_and_must_not_differ_from_the_host() {
    let other = Upstream::start().await;
    let image = Image::small("other");
    other.put_image("team/app", "latest", &image, &image.oci());
    let stage = stage_with(Setup::default().beside("other", &other, "other.example", "other.test"), 10).await;
    let http2 = stage.http2().await;
    let call = Client::containerd_1_6().get(TAGGED);
    let digest = async |authority: &str| http2.ask(authority, &call).await.digest().to_owned();
    assert_eq!(digest("other.test").await, image.oci().digest);
    assert_eq!(digest("OTHER.test:443").await, image.oci().digest);
    assert_ne!(digest(HOST).await, image.oci().digest);
    for (authority, host, status) in
        [("other.test", "other.test", 200), ("other.test", "Other.Test", 200), ("other.test", HOST, 400)]
    {
        let (forgotten, asked) = (other.forget(), call.clone().header("Host", host));
        let reply = http2.ask(authority, &asked).await;
        assert_eq!((reply.status, forgotten), (status, ()), "{authority} {host}");
        assert_eq!(other.requests().is_empty(), status == 400, "{authority} {host}");
    }
    // HTTP/1.1 may name the host in the target
    let absolute =
        |target: &str, host: &str| Client::containerd_1_6().get(&format!("https://{target}{TAGGED}")).host(host);
    let whole_url = stage.client().reply(&stage.gateway, &absolute("other.test", "other.test")).await;
    assert_eq!((whole_url.status, whole_url.digest()), (200, image.oci().digest.as_str()));
    assert_eq!(stage.client().reply(&stage.gateway, &absolute("other.test", HOST)).await.status, 400);
}

#[tokio::test]
async fn a_blob_is_pushed() {
    let stage = stage_with(Setup::default().push(), 10).await;
    let http2 = stage.http2().await;
    let begun = http2.ask(HOST, &Call::new("POST", "/v2/team/app/blobs/uploads/").body("")).await;
    let location = begun.header("location").unwrap();
    let target = location.strip_prefix("https://gateway.test").unwrap_or(location);
    let content = vec![9_u8; 3_000_000];
    let mark = if target.contains('?') { '&' } else { '?' };
    let put = Call::new("PUT", &format!("{target}{mark}digest={}", sha256(&content))).body(content.clone());
    assert_eq!(http2.ask(HOST, &put).await.status, 201);
    let got = http2.ask(HOST, &Client::curl().get(&format!("/v2/team/app/blobs/{}", sha256(&content)))).await;
    assert!(got.status == 200 && got.body == content);
}

#[tokio::test]
async fn a_head_that_is_too_large_ends_its_request_only() {
    let stage = stage(10).await;
    let http2 = stage.http2().await;
    let large = Client::docker_17().get(TAGGED).header("X-Large", &"x".repeat(70_000));
    let refused = http2.send(large.as_http2(HOST)).await.map(|response| response.status().as_u16());
    assert!(matches!(refused, Ok(431) | Err(_)), "{refused:?}");
    assert_eq!(http2.ask(HOST, &Client::docker_17().get(TAGGED)).await.status, 200);
}

#[tokio::test]
async fn a_tunnel_is_no_request_for_anything() {
    let stage = stage(10).await;
    let http2 = stage.http2().await;
    let connect = Request::builder().method("CONNECT").uri("registry.example:443");
    let refused = http2.send(connect.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert!(refused.status().is_client_error(), "{refused:?}");
    assert!(stage.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_stop_lets_answers_finish_and_says_goodbye() {
    let stage = stage(2_000_000).await;
    let (http2, idle) = (stage.http2().await, stage.http2().await);
    assert_eq!(idle.ask(HOST, &Client::docker_17().get(TAGGED)).await.status, 200);
    let gate = stage.upstream.when("GET", &stage.blob).hold_body(1_000_000);
    let mut response = http2.send(Client::docker_20_10().get(&stage.blob).as_http2(HOST)).await.unwrap();
    gate.reached(1).await;
    let first = patiently("the first bytes", response.body_mut().frame()).await.unwrap().unwrap();
    let stopping = tokio::spawn(stage.gateway.stop());
    // the connection on which nothing is under way ends well
    idle.ended().await.unwrap();
    assert!(!stopping.is_finished());
    gate.open();
    let rest = read(response).await;
    let received = [first.into_data().unwrap().to_vec(), rest.body].concat();
    assert_eq!((rest.is_whole, received.len(), received == stage.bytes), (true, 2_000_000, true));
    http2.ended().await.unwrap();
    patiently("the end", stopping).await.unwrap();
}
