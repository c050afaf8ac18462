//! A gateway that is told to stop says so, finishes what it has begun and begins nothing more.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Open, Reply};
use crate::support::fault::Gate;
use crate::support::gateway::Gateway;
use crate::support::patiently;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const STOPPING: &str = "\"message\":\"stopping\"";
const CLOSED: &str = "no connection is taken any more";
const CUT: &str = "connections were cut";
const FINISHED: &str = "all that was under way is finished";

/// How many bytes of the blob the upstream sends before it is told to go on.
const FIRST: usize = 1_000_000;

/// A gateway of its own process, with a blob under way.
struct Stage {
    process: Process,
    reading: Open,
    content: Vec<u8>,
    gate: Gate,
    _upstream: Upstream,
}

impl Stage {
    async fn with(arguments: &[&str]) -> Self {
        let upstream = Upstream::start().await;
        let content = vec![7_u8; 2 * FIRST];
        let digest = upstream.contents().put_blob("app", content.clone().into());
        let url = upstream.url();
        let process = Process::serve(&[&["--store", "memory:", "--upstream", &url], arguments].concat(), &[]).await;
        let blob = format!("/v2/app/blobs/{digest}");
        let gate = upstream.when("GET", &blob).hold_body(FIRST);
        let mut reading = Client::docker_20_10().get(&blob).open(process.address).await;
        reading.at_least(FIRST / 2).await;
        gate.reached(1).await;
        Self { process, reading, content, gate, _upstream: upstream }
    }

    async fn health(&self, path: &str) -> (u16, String) {
        let reply = Client::curl().get(path).send(self.process.admin).await;
        (reply.status, reply.text())
    }

    async fn blob(&mut self) -> Reply {
        patiently("the end of the blob", self.reading.rest()).await;
        self.reading.reply(false)
    }
}

/// A connection that stays open when it was answered.
struct KeptAlive(TcpStream);

impl KeptAlive {
    async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Asks for what needs no upstream and returns the head of the answer.
    async fn ask(&mut self) -> String {
        self.0.write_all(b"HEAD /nothing HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(patiently("the head of an answer", self.0.read_u8()).await.unwrap());
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    async fn has_ended(&mut self) -> bool {
        patiently("the end of the connection", self.0.read_u8()).await.is_err()
    }
}

#[tokio::test]
async fn an_answer_under_way_is_finished_and_no_connection_is_taken() {
    let upstream = Upstream::start().await;
    let content = vec![7_u8; 2_000_000];
    let digest = upstream.contents().put_blob("app", content.clone().into());
    let gateway = Gateway::before(&upstream).await;
    let address = gateway.address();
    let blob = format!("/v2/app/blobs/{digest}");
    let gate = upstream.when("GET", &blob).hold_body(1_000_000);
    let mut reading = Client::docker_20_10().get(&blob).open(address).await;
    reading.at_least(100_000).await;
    gate.reached(1).await;
    let stopping = tokio::spawn(gateway.stop());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    reading.rest().await;
    let reply = reading.reply(false);
    assert!(reply.is_whole && reply.body == content);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_process_finishes_a_blob_while_it_is_alive_but_not_ready() {
    let mut stage = Stage::with(&[]).await;
    let mut idle = KeptAlive::to(stage.process.address).await;
    assert!(!idle.ask().await.contains("connection: close"));
    for path in ["/livez", "/readyz", "/startupz", "/healthz", "/health"] {
        assert_eq!(stage.health(path).await, (200, "ok\n".to_owned()), "{path}");
    }
    stage.process.terminate();
    stage.process.logged(CLOSED).await;
    assert!(idle.has_ended().await);
    assert!(TcpStream::connect(stage.process.address).await.is_err());
    for path in ["/livez", "/startupz"] {
        assert_eq!(stage.health(path).await, (200, "ok\n".to_owned()), "{path}");
    }
    for path in ["/readyz", "/healthz", "/health"] {
        assert_eq!(stage.health(path).await, (503, "stopping\n".to_owned()), "{path}");
    }
    assert!(stage.process.metrics().await.contains("schemabridge_"));
    stage.gate.open();
    let reply = stage.blob().await;
    assert!(reply.is_whole && reply.body == stage.content);
    assert_eq!(stage.process.ended().await.code(), Some(0));
    stage.process.logged(FINISHED).await;
    assert!(!stage.process.log().contains(CUT));
}

#[tokio::test]
async fn connections_are_taken_until_the_delay_is_over_and_end_with_their_answer() {
    let mut stage = Stage::with(&["--drain-delay", "1h"]).await;
    let mut before = KeptAlive::to(stage.process.address).await;
    assert!(!before.ask().await.contains("connection: close"));
    stage.process.signal("INT");
    stage.process.logged(STOPPING).await;
    assert_eq!(stage.health("/readyz").await, (503, "stopping\n".to_owned()));
    for mut connection in [before, KeptAlive::to(stage.process.address).await] {
        assert!(connection.ask().await.contains("\r\nconnection: close\r\n"));
        assert!(connection.has_ended().await);
    }
    assert!(!stage.process.log().contains(CLOSED));
    // Who has no patience ends it at once, whatever is under way.
    stage.process.terminate();
    assert_eq!(stage.process.ended().await.code(), Some(0));
    stage.process.logged(CUT).await;
    let log = stage.process.log();
    let line = log.lines().find(|line| line.contains(CUT)).unwrap();
    assert!(line.contains("\"connections\":1") && line.contains("a second signal came"), "{line}");
    assert!(!stage.blob().await.is_whole);
}

#[tokio::test]
async fn after_the_delay_no_connection_is_taken() {
    let mut stage = Stage::with(&["--drain-delay", "200ms"]).await;
    stage.process.terminate();
    stage.process.logged(CLOSED).await;
    assert!(TcpStream::connect(stage.process.address).await.is_err());
    stage.gate.open();
    assert!(stage.blob().await.is_whole);
    assert_eq!(stage.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_and_counted() {
    let mut stage = Stage::with(&["--drain-timeout", "100ms"]).await;
    stage.process.terminate();
    assert_eq!(stage.process.ended().await.code(), Some(0));
    stage.process.logged(CUT).await;
    let log = stage.process.log();
    let line = log.lines().find(|line| line.contains(CUT)).unwrap();
    assert!(line.contains("\"connections\":1") && line.contains("did not finish in time"), "{line}");
    assert!(line.contains("WARN"), "{line}");
    assert!(!stage.blob().await.is_whole);
}
