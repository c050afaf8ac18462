//! Each request has one line in the log, written when its answer has ended, which says what became of it; and nothing that a
//! client sends can make two lines of one, or put a secret there.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::blob_cache::until;
use crate::support::client::{Call, Client};
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

struct Stage {
    upstream: Upstream,
    image: Image,
    process: Process,
}

async fn stage(arguments: &[&str]) -> Stage {
    let (upstream, image) = Upstream::with_app().await;
    let url = upstream.url();
    let arguments = [&["--upstream", &url, "--store", "memory:"], arguments].concat();
    Stage { process: Process::serve(&arguments, &[]).await, upstream, image }
}

impl Stage {
    /// The lines of requests so far.
    fn lines(&self) -> Vec<Value> {
        let log = self.process.log();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == "request").collect()
    }

    /// The line of the one request that this path was asked for by.
    async fn line(&self, path: &str) -> Value {
        let found = || {
            let escaped = format!("{path:?}");
            self.lines().into_iter().filter(move |line| line["path"] == escaped.as_str()).collect::<Vec<_>>()
        };
        until(path, async || !found().is_empty()).await;
        let mut found = found();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

#[tokio::test]
async fn a_line_says_what_became_of_a_translated_manifest() {
    let stage = stage(&["--trusted-proxies", "127.0.0.1/32"]).await;
    let call = Client::docker_1_9_1().get(&format!("{TAGGED}?token=hidden"));
    let call =
        call.header("X-Request-Id", "abc-123").header("X-Forwarded-For", "192.0.2.7").header("traceparent", PARENT);
    let reply = call.send(stage.process.address).await;
    assert_eq!(reply.status, 200);
    let line = stage.line(TAGGED).await;
    for (field, expected) in [
        ("method", "GET"),
        ("upstream", "default"),
        ("route", "manifest_tag"),
        ("stored", "oci"),
        ("served", "schema1"),
        ("cache", "miss"),
        ("source", &stage.image.oci().digest),
        ("digest", reply.digest()),
        ("request_id", "abc-123"),
        ("trace_id", TRACE),
        ("peer", "192.0.2.7"),
        ("protocol", "http/1.1"),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert_eq!((&line["status"], &line["upstream_status"], &line["tls"]), (&200.into(), &200.into(), &false.into()));
    assert_eq!(line["bytes"], reply.body.len());
    assert!(line["user_agent"].as_str().unwrap().starts_with("docker/1.9.1"));
    assert!(line["why"].is_string() && line["client"].is_string() && line.get("aborted_by").is_none());
    let time = |field: &str| line[field].as_f64().unwrap();
    assert!(0.0 < time("upstream_ms") && time("upstream_ms") <= time("ttfb_ms"), "{line}");
    assert!(time("ttfb_ms") <= time("duration_ms"));
    assert_eq!(reply.header("x-request-id"), Some("abc-123"));
    // Whoever the upstream was asked by for this request, it was in its trace and under its name.
    let traced = stage.upstream.requests();
    assert!(traced.len() >= 3);
    for request in traced {
        assert!(request.header("traceparent").unwrap().contains(TRACE), "{}", request.line());
        assert_eq!(request.header("x-request-id"), Some("abc-123"), "{}", request.line());
    }
    assert!(!stage.process.log().contains("hidden"));
}

/// Whoever asks without a name, or under one that cannot be repeated, is told the one that the log has.
#[tokio::test]
async fn a_request_without_a_name_is_given_one() {
    let stage = stage(&[]).await;
    let mut names = BTreeSet::new();
    for (path, named) in
        [(TAGGED, ""), ("/v2/app/manifests/nowhere", "with blanks in it"), ("/v2/", "\"quoted\""), ("/", "ümlaut")]
    {
        let seen = stage.upstream.requests().len();
        let reply = Client::curl().get(path).header("X-Request-Id", named).send(stage.process.address).await;
        let name = reply.header("x-request-id").unwrap().to_owned();
        assert!(name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_eq!(stage.line(path).await["request_id"], name.as_str());
        let mut asked = stage.upstream.requests().into_iter().skip(seen);
        assert!(asked.all(|request| request.header("x-request-id") == Some(name.as_str())), "{path}");
        names.insert(name);
    }
    assert_eq!(names.len(), 4);
}

/// The place that a redirect leads to, whose log is another's, is not told it.
#[tokio::test]
async fn the_name_of_a_request_stays_with_the_upstream() {
    let stage = stage(&["--redirects", "follow"]).await;
    let storage = Upstream::start().await;
    let digest = storage.contents().put_blob("app", vec![7; 1000].into());
    let blob = format!("/v2/app/blobs/{digest}");
    stage.upstream.when("GET", &blob).redirect(307, &format!("{}{blob}", storage.url()));
    let call = Client::docker_17().get(&blob).header("X-Request-Id", "abc").header("traceparent", PARENT);
    assert_eq!(call.send(stage.process.address).await.status, 200);
    let told = storage.requests();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].header("x-request-id"), told[0].header("traceparent")), (None, None));
}

/// The bytes are those that went out, and the time is that until the last of them.
#[tokio::test]
async fn the_line_of_a_blob_is_written_at_its_end() {
    let stage = stage(&[]).await;
    let content = vec![7_u8; 1_000_000];
    let digest = stage.upstream.contents().put_blob("app", content.into());
    let blob = format!("/v2/app/blobs/{digest}");
    let gate = stage.upstream.when("GET", &blob).hold_body(500_000);
    let mut open = Client::docker_17().get(&blob).open(stage.process.address).await;
    open.at_least(500_000).await;
    stage.process.get(&Client::curl(), "/v2/").await;
    stage.line("/v2/").await;
    assert!(stage.lines().iter().all(|line| line["route"] != "blob"));
    gate.open();
    open.rest().await;
    let line = stage.line(&blob).await;
    assert_eq!((&line["bytes"], &line["status"]), (&1_000_000.into(), &200.into()));
    assert!(line["ttfb_ms"].as_f64() < line["duration_ms"].as_f64());
}

#[tokio::test]
async fn a_client_that_leaves_has_its_line() {
    let stage = stage(&[]).await;
    let digest = stage.upstream.contents().put_blob("app", vec![7_u8; 3_000_000].into());
    let blob = format!("/v2/app/blobs/{digest}");
    let _held = stage.upstream.when("GET", &blob).hold_body(1_000_000);
    let mut open = Client::docker_17().get(&blob).open(stage.process.address).await;
    open.at_least(500_000).await;
    drop(open);
    let line = stage.line(&blob).await;
    assert_eq!((&line["aborted_by"], &line["status"]), (&"client".into(), &200.into()), "{line}");
    assert!(line["bytes"].as_u64().is_some_and(|bytes| (500_000 - 1000..3_000_000).contains(&bytes)), "{line}");

    let gate = stage.upstream.when("*", TAGGED).hold();
    let open = Client::docker_17().get(TAGGED).open(stage.process.address).await;
    gate.reached(1).await;
    drop(open);
    let line = stage.line(TAGGED).await;
    assert_eq!((&line["aborted_by"], line.get("status")), (&"client".into(), None), "{line}");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_told_of_once_as_a_warning() {
    let stage = stage(&["--access-log", "off"]).await;
    let blob = format!("/v2/app/blobs/{}", stage.image.config_digest());
    stage.upstream.when("GET", &blob).cut(10);
    assert!(!stage.process.get(&Client::docker_17(), &blob).await.is_whole);
    let line = stage.line(&blob).await;
    assert_eq!((&line["level"], &line["aborted_by"]), (&"WARN".into(), &"source".into()));
    assert!(line["fault"].as_str().unwrap().contains("upstream"));
}

/// Without an access log, what fails is still told.
#[tokio::test]
async fn the_access_log_can_be_off() {
    let stage = stage(&["--access-log", "off"]).await;
    assert_eq!(stage.process.get(&Client::docker_17(), TAGGED).await.status, 200);
    assert_eq!(stage.process.get(&Client::docker_17(), "/v2/app/manifests/nowhere").await.status, 404);
    stage.upstream.when("*", "*").reset();
    assert_eq!(stage.process.get(&Client::docker_17(), "/v2/app/manifests/broken").await.status, 502);
    assert_eq!(stage.line("/v2/app/manifests/broken").await["level"], "WARN");
    assert_eq!(stage.lines().len(), 1);
}

/// Whatever a client writes is one value of one field.
#[tokio::test]
async fn nothing_that_a_client_sends_makes_another_line_or_field() {
    let stage = stage(&[]).await;
    let injected = "\",\"level\":\"FATAL\"";
    for name in ["User-Agent", "X-Request-Id", "traceparent", "X-Forwarded-For"] {
        for value in [injected, "a\tb", "\u{85}x\u{2028}y", &"x".repeat(10_000)] {
            let call = Call::new("GET", "/v2/app/manifests/nowhere").header(name, value);
            stage.process.get(&Client::curl(), "/v2/").await;
            let reply = call.send(stage.process.address).await;
            assert!(matches!(reply.status, 400 | 404), "{name}: {}", reply.status);
        }
    }
    for path in ["/v2/a%0Ab/manifests/x", "/v2/a%22,%22level%22:/manifests/x", "/v2/app/manifests/%0d%0aGET"] {
        stage.process.get(&Client::curl(), path).await;
        stage.line(path).await;
    }
    for line in stage.lines() {
        assert!(matches!(line["level"].as_str(), Some("INFO" | "WARN")), "{line}");
        assert!(line["request_id"].as_str().is_none_or(|id| !id.contains('"') && id.len() <= 128), "{line}");
        assert!(line.get("trace_id").is_none(), "{line}");
    }
}

/// The same line, for a person.
#[tokio::test]
async fn a_line_of_text_is_one_line() {
    let (upstream, _) = Upstream::with_app().await;
    let log = crate::secrets::Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let gateway = crate::support::gateway::Gateway::before(&upstream).await;
    let call = Call::new("GET", TAGGED).header("User-Agent", "evil\u{85}agent \u{1b}[31m");
    assert!(matches!(gateway.send(&call).await.status, 200 | 400));
    gateway.get(&Client::docker_1_9_1(), "/v2/app/tags/list").await;
    let text = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    until("the line", async || text().contains("/v2/app/tags/list")).await;
    let text = text();
    assert!(text.lines().all(|line| line.contains("schemabridge::")) && !text.contains('\u{1b}'), "{text}");
    tokio::time::timeout(Duration::from_secs(60), gateway.stop()).await.unwrap();
}
