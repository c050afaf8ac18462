//! Clients that abuse HTTP/2 lose their connection; nobody else notices, and the memory of the process stays as it is.

use std::time::Duration;

use rustls::version::TLS13;
use schemabridge::server::http2::STREAMS_MAX;
use schemabridge::server::limits::Limits;
use schemabridge::server::tls::TlsOptions;

use crate::support::client::Client;
use crate::support::fault::Gate;
use crate::support::frames::{
    END_HEADERS, END_STREAM, Frames, INITIAL_WINDOW_SIZE, Said, frame, head, indexed_again, kind, request,
};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http2::{Http2, read};
use crate::support::patiently;
use crate::support::process::Process;
use crate::support::secure::{Authority, Files};
use crate::support::secure_client::Secure;
use crate::support::upstream::Upstream;

const HOST: &str = "gateway.test";
const TAGGED: &str = "/v2/app/manifests/latest";
const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);
/// The reasons of RFC 9113 for which a connection may end here: all is well, and too much was asked.
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;
/// How many connections do the same at once.
const ABUSERS: usize = 4;
/// By how much the process may grow, whatever is done to it: a flood that is kept would be many times as large.
const GROWTH_MAX: f64 = 64e6;

/// A gateway of its own process within TLS, and a blob that its upstream holds back.
struct Stage {
    process: Process,
    authority: Authority,
    held: String,
    _gate: Gate,
    _upstream: Upstream,
}

impl Stage {
    async fn with(arguments: &[&str]) -> Self {
        let (upstream, _) = Upstream::with_app().await;
        let digest = upstream.contents().put_blob("app", vec![7; 1000].into());
        let held = format!("/v2/app/blobs/{digest}");
        let gate = upstream.when("GET", &held).hold();
        let authority = Authority::new();
        let Files { chain, key } = authority.issue(&[HOST]);
        let (url, chain, key) = (upstream.url(), chain.display().to_string(), key.display().to_string());
        let own = ["--upstream", &url, "--store", "memory:", "--tls-cert", &chain, "--tls-key", &key];
        let process = Process::serve(&[&own, arguments].concat(), &[]).await;
        Self { process, authority, held, _gate: gate, _upstream: upstream }
    }

    async fn frames(&self) -> Frames {
        frames(&self.authority, self.process.address).await
    }

    async fn http2(&self) -> Http2 {
        Secure::new(&self.authority.file(), &TLS13, None).http2(self.process.address).await
    }

    async fn resident_bytes(&self) -> f64 {
        let metrics = self.process.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        value.unwrap().parse().unwrap()
    }

    /// Does this on some connections until each has ended, while somebody else is served on another.
    async fn abused(&self, name: &str, turn: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static) -> Vec<Said> {
        let other = self.http2().await;
        assert_eq!(other.ask(HOST, &Client::docker_17().get(TAGGED)).await.status, 200);
        let before = self.resident_bytes().await;
        let mut floods = tokio::task::JoinSet::new();
        for _ in 0..ABUSERS {
            let (mut frames, turn) = (self.frames().await, turn.clone());
            frames.begin(&[]).await;
            floods.spawn(async move { frames.flood(turn).await });
        }
        let (mut ended, mut most) = (Vec::new(), 0.0_f64);
        while !floods.is_empty() {
            assert_eq!(other.ask(HOST, &Client::docker_17().get(TAGGED)).await.status, 200, "{name}");
            most = most.max(self.resident_bytes().await);
            while let Some(said) = floods.try_join_next() {
                ended.push(said.unwrap());
            }
        }
        assert!(most < before + GROWTH_MAX, "{name}: {before} bytes before, {most} meanwhile");
        ended
    }
}

async fn frames(authority: &Authority, address: std::net::SocketAddr) -> Frames {
    let client = Secure::new(&authority.file(), &TLS13, None).offering(&["h2"]);
    Frames::over(client.connect(address).await.unwrap())
}

/// The streams of a turn, many in one write: a server sees them before it has answered the first.
fn streams(turn: u32) -> impl Iterator<Item = u32> {
    (turn * 100..turn * 100 + 100).map(|number| number * 2 + 1)
}

mod ended_at_once {
    use super::*;

    /// A gateway that waits forever for everything: nothing but the abuse ends a connection.
    async fn patient() -> Stage {
        Stage::with(&["--header-timeout", "1h", "--keep-alive-timeout", "1h", "--body-idle-timeout", "1h"]).await
    }

    async fn asked_too_much(stage: &Stage, name: &str, turn: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static) {
        for said in stage.abused(name, turn).await {
            // Who writes on may lose what was said last.
            assert!(matches!(said.goodbye, None | Some(ENHANCE_YOUR_CALM)), "{name}: {:?}", said.goodbye);
        }
    }

    #[tokio::test]
    async fn requests_that_are_taken_back_by_either_side() {
        let stage = patient().await;
        let taken_back = |turn| streams(turn).flat_map(|stream| [request(stream, TAGGED), reset(stream)].concat());
        asked_too_much(&stage, "rapid reset", move |turn| taken_back(turn).collect()).await;
        // A window that overflows is the client's fault, and the server has to take the request back.
        let provoked = |stream| [request(stream, TAGGED), window(stream, (1 << 31) - 1)].concat();
        asked_too_much(&stage, "provoked resets", move |turn| streams(turn).flat_map(provoked).collect()).await;
    }

    #[tokio::test]
    async fn heads_without_an_end_or_a_bound() {
        let stage = patient().await;
        let endless = |turn| match turn {
            0 => frame(kind::HEADERS, END_STREAM, 1, &head("GET", TAGGED)),
            _ => frame(kind::CONTINUATION, 0, 1, &[]).repeat(100),
        };
        asked_too_much(&stage, "continuations", endless).await;
        let bomb = |turn| {
            let lines = [head("GET", TAGGED), indexed_again(3900, 12_000)].concat();
            frame(kind::HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, &lines)
        };
        asked_too_much(&stage, "a head of 47 MB in 16 KB", bomb).await;
    }

    #[tokio::test]
    async fn more_requests_than_may_be_under_way() {
        let stage = patient().await;
        let held = stage.held.clone();
        asked_too_much(&stage, "10,000 streams", move |turn| match turn {
            0..100 => streams(turn).flat_map(|stream| request(stream, &held)).collect(),
            _ => ping(),
        })
        .await;
    }

    fn reset(stream: u32) -> Vec<u8> {
        const CANCEL: u32 = 8;
        frame(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
    }

    fn window(stream: u32, bytes: u32) -> Vec<u8> {
        frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }
}

fn ping() -> Vec<u8> {
    frame(kind::PING, 0, 0, &[7; 8])
}

/// What asks for nothing costs little, but keeps no connection open.
#[tokio::test]
async fn frames_that_are_no_requests_do_not_keep_a_connection() {
    let stage = Stage::with(&["--header-timeout", "2s", "--keep-alive-timeout", "2s"]).await;
    stage.abused("pings", |_| ping().repeat(100)).await;
    let setting = |_| frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100);
    stage.abused("settings", setting).await;
    let empty = |turn| match turn {
        0 => frame(kind::HEADERS, END_HEADERS, 1, &head("POST", "/v2/app/blobs/uploads/")),
        _ => frame(kind::DATA, 0, 1, &[]).repeat(100),
    };
    stage.abused("empty data", empty).await;
}

/// A gateway in this process, before an upstream with a blob.
struct Within {
    gateway: Gateway,
    authority: Authority,
    blob: String,
    _upstream: Upstream,
}

/// Every time-out so long that only the one under test can be reached.
fn endless() -> Limits {
    Limits { header_timeout: HOUR, keep_alive_timeout: HOUR, body_idle_timeout: HOUR, ..Limits::default() }
}

impl Within {
    async fn limits(limits: Limits) -> Self {
        let (upstream, _) = Upstream::with_app().await;
        let digest = upstream.contents().put_blob("app", vec![7; 4 << 20].into());
        let authority = Authority::new();
        let Files { chain, key } = authority.issue(&[HOST]);
        let setup = Setup::default().within(limits).tls_to_clients(&TlsOptions::showing(chain, key));
        let gateway = setup.before(&upstream).await;
        Self { gateway, authority, blob: format!("/v2/app/blobs/{digest}"), _upstream: upstream }
    }

    async fn frames(&self) -> Frames {
        frames(&self.authority, self.gateway.address()).await
    }

    async fn http2(&self) -> Http2 {
        Secure::new(&self.authority.file(), &TLS13, None).http2(self.gateway.address()).await
    }

    fn cut(&self, reason: &str) -> u64 {
        self.gateway.metric(&format!("schemabridge_connections_cut_total{{reason=\"{reason}\"}}"))
    }

    /// The count comes a moment after the end.
    async fn counted(&self, reason: &str, count: u64) {
        patiently("the count", async {
            while self.cut(reason) != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn who_lets_nothing_of_an_answer_out_is_cut_and_who_lets_out_a_little_is_not() {
    let stage = Within::limits(Limits { body_idle_timeout: SHORT * 2, ..endless() }).await;
    for window in [0, 100_000] {
        let before = stage.cut("answer");
        let mut stuck = stage.frames().await;
        stuck.begin(&[(INITIAL_WINDOW_SIZE, window)]).await;
        let asked: Vec<u8> = (0..STREAMS_MAX).flat_map(|number| request(number * 2 + 1, &stage.blob)).collect();
        stuck.send(&asked).await;
        stuck.ended().await;
        stage.counted("answer", before + 1).await;
    }
    let http2 = stage.http2().await;
    let mut slow = http2.send(Client::curl().get(&stage.blob).as_http2(HOST)).await.unwrap();
    let mut length = 0;
    for _ in 0..10 {
        let piece = patiently("a piece", http_body_util::BodyExt::frame(slow.body_mut())).await.unwrap().unwrap();
        length += piece.into_data().unwrap().len();
        tokio::time::sleep(SHORT / 3).await;
    }
    let rest = read(slow).await;
    assert!(rest.is_whole && length + rest.body.len() == 4 << 20);
    assert_eq!(stage.cut("answer"), 2);
}

#[tokio::test]
async fn who_does_not_begin_is_cut() {
    let stage = Within::limits(Limits { header_timeout: SHORT, ..endless() }).await;
    stage.frames().await.ended().await;
    let mut asks_nothing = stage.frames().await;
    asks_nothing.begin(&[]).await;
    asks_nothing.ended().await;
    let mut half = stage.frames().await;
    half.begin(&[]).await;
    half.send(&frame(kind::HEADERS, END_STREAM, 1, &head("GET", TAGGED))).await;
    half.ended().await;
    stage.counted("head", 3).await;
}

#[tokio::test]
async fn a_connection_without_requests_ends_with_a_goodbye() {
    let stage = Within::limits(Limits { keep_alive_timeout: SHORT, ..endless() }).await;
    let http2 = stage.http2().await;
    assert_eq!(http2.ask(HOST, &Client::docker_17().get(TAGGED)).await.status, 200);
    http2.ended().await.unwrap();
    stage.counted("idle", 1).await;
    // One that does not answer the goodbye is cut.
    let mut silent = stage.frames().await;
    silent.begin(&[]).await;
    silent.send(&request(1, TAGGED)).await;
    assert_eq!(silent.ended().await.goodbye, Some(NO_ERROR));
    stage.counted("idle", 2).await;
}

/// Between two requests of one connection no time runs that would cut the second.
#[tokio::test]
async fn a_request_under_way_keeps_its_connection() {
    let stage = Within::limits(Limits { header_timeout: SHORT, keep_alive_timeout: SHORT, ..endless() }).await;
    let gate = stage._upstream.when("GET", &stage.blob).hold();
    let http2 = stage.http2().await;
    let (reply, ()) = tokio::join!(
        async { read(http2.send(Client::curl().get(&stage.blob).as_http2(HOST)).await.unwrap()).await },
        async {
            gate.reached(1).await;
            tokio::time::sleep(SHORT * 3).await;
            gate.open();
        }
    );
    assert!(reply.is_whole && reply.body.len() == 4 << 20);
}
