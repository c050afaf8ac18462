//! Traces of requests, at a collector in the test process: each request is a span, each request to the upstream on its behalf
//! one below it, and a collector that is away is nobody's concern but the log's.
#![cfg(test)]

#[allow(dead_code, unused_imports, reason = "the other tests need all of it")]
#[path = "../support/mod.rs"]
mod support;

mod protobuf;

use std::collections::BTreeSet;

use protobuf::{Span, spans};
use support::client::{Call, Client};
use support::fault::Answer;
use support::images::Image;
use support::process::Process;
use support::upstream::{Absent, Upstream};

const TAGGED: &str = "/v2/app/manifests/latest";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

struct Stage {
    upstream: Upstream,
    image: Image,
    collector: Upstream,
    process: Process,
}

async fn stage(arguments: &[&str]) -> Stage {
    let collector = Upstream::start().await;
    collector.when("POST", "/v1/traces").answer(Answer::new(200));
    let (upstream, image) = Upstream::with_app().await;
    let process = gateway(&upstream, &collector.url(), arguments).await;
    Stage { upstream, image, collector, process }
}

async fn gateway(upstream: &Upstream, collector: &str, arguments: &[&str]) -> Process {
    let url = upstream.url();
    let ours = ["--upstream", &url, "--store", "memory:", "--otlp-endpoint", collector];
    Process::serve(&[&ours, arguments].concat(), &[]).await
}

impl Stage {
    /// Stops the gateway, which hands over what it has, and reads all that it handed over.
    async fn collected(&mut self) -> Vec<Span> {
        self.process.terminate();
        assert!(self.process.ended().await.success(), "{}", self.process.log());
        let requests = self.collector.requests();
        for request in &requests {
            assert_eq!((request.line().as_str(), request.header("content-type")), ("POST /v1/traces", Some(PROTOBUF)));
        }
        requests.iter().flat_map(|request| spans(&request.body)).collect()
    }
}

const PROTOBUF: &str = "application/x-protobuf";

fn of_kind(spans: &[Span], kind: u64) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

fn within_a_trace(target: &str, flags: &str) -> Call {
    Client::docker_1_9_1().get(target).header("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}"))
}

#[tokio::test]
async fn a_pull_is_a_span_with_one_for_each_request_to_the_upstream() {
    let mut stage = stage(&[]).await;
    let call = within_a_trace(&format!("{TAGGED}?token=hidden"), "01").header("X-Request-Id", "abc-123");
    let reply = call.header("Authorization", "Bearer concealed").send(stage.process.address).await;
    assert_eq!(reply.status, 200);
    let spans = stage.collected().await;
    let [server] = of_kind(&spans, 2)[..] else { panic!("{spans:#?}") };
    assert_eq!((server.name.as_str(), &*server.trace, &*server.parent), ("GET manifest_tag", TRACE, PARENT));
    assert_eq!((server.status, server.resource["service.name"].as_str()), (0, "schemabridge"));
    for (name, expected) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "manifest_tag"),
        ("url.path", TAGGED),
        ("url.scheme", "http"),
        ("schemabridge.upstream", "default"),
        ("schemabridge.stored", "oci"),
        ("schemabridge.served", "schema1"),
        ("schemabridge.cache", "miss"),
        ("schemabridge.digest", reply.digest()),
        ("schemabridge.request_id", "abc-123"),
        ("http.response.body.size", &reply.body.len().to_string()),
    ] {
        assert_eq!(server.attributes.get(name).map(String::as_str), Some(expected), "{name} in {server:#?}");
    }
    assert!(server.attributes.contains_key("schemabridge.why"), "{server:#?}");

    let children = of_kind(&spans, 3);
    let (asked, config) = (stage.upstream.requests(), stage.image.config_digest());
    assert!(asked.len() >= 3 && children.len() == asked.len(), "{children:#?}");
    for request in asked {
        let named = request.header("traceparent").unwrap();
        let child = children.iter().find(|child| named == format!("00-{TRACE}-{}-01", child.id));
        let child = child.unwrap_or_else(|| panic!("nothing is known of {named} in {children:#?}"));
        assert_eq!((&child.trace, &child.parent), (&server.trace, &server.id));
        assert_eq!(
            (&child.attributes["http.request.method"], &child.attributes["url.path"]),
            (&request.method, &request.path)
        );
        assert_eq!(child.attributes["server.port"], stage.upstream.address().port().to_string());
        assert_eq!(child.attributes["http.response.status_code"], "200");
        assert!(server.started <= child.started && child.started <= child.ended && child.ended <= server.ended);
        let name = match (request.method.as_str(), request.path.contains(&config)) {
            ("HEAD", _) => "head_manifest",
            (_, true) => "blob",
            _ => "get_manifest",
        };
        assert_eq!(child.name, name);
    }
    for request in stage.collector.requests() {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!body.contains("hidden") && !body.contains("concealed"), "{body}");
    }
}

/// A trace begins at the gateway where nobody before it began one.
#[tokio::test]
async fn a_request_of_no_trace_begins_one_that_the_log_names() {
    let mut stage = stage(&[]).await;
    for target in [TAGGED, "/v2/app/manifests/nowhere"] {
        stage.process.get(&Client::curl(), target).await;
    }
    let spans = stage.collected().await;
    let servers = of_kind(&spans, 2);
    let traces: BTreeSet<&str> = servers.iter().map(|span| span.trace.as_str()).collect();
    assert_eq!((servers.len(), traces.len()), (2, 2), "{servers:#?}");
    for server in servers {
        assert!(server.parent.is_empty() && server.trace.len() == 32 && server.id.len() == 16);
        assert!(stage.process.log().contains(&format!("\"trace_id\":\"{}\"", server.trace)));
    }
    let missing = of_kind(&spans, 3).into_iter().find(|span| span.attributes["http.response.status_code"] == "404");
    assert_eq!(missing.unwrap().status, 2);
}

/// Who names a trace that nobody keeps gets no spans in it, and it goes on as it came.
#[tokio::test]
async fn a_trace_that_is_not_sampled_passes_as_it_is() {
    let mut stage = stage(&[]).await;
    assert_eq!(within_a_trace(TAGGED, "00").send(stage.process.address).await.status, 200);
    assert!(stage.collected().await.is_empty());
    for request in stage.upstream.requests() {
        assert_eq!(request.header("traceparent"), Some(format!("00-{TRACE}-{PARENT}-00").as_str()));
    }
}

/// What leaves the upstream's origin is a span, and nothing is said of it there.
#[tokio::test]
async fn what_goes_elsewhere_and_what_fails_are_spans_too() {
    let mut stage = stage(&["--redirects", "follow"]).await;
    let storage = Upstream::start().await;
    let digest = storage.contents().put_blob("app", vec![7; 1000].into());
    let blob = format!("/v2/app/blobs/{digest}");
    let signed = format!("{}{blob}?signature=hidden", storage.url());
    stage.upstream.when("GET", &blob).redirect(307, &signed);
    assert_eq!(within_a_trace(&blob, "01").send(stage.process.address).await.status, 200);
    stage.upstream.when("*", "*/broken").reset();
    assert_eq!(within_a_trace("/v2/app/manifests/broken", "01").send(stage.process.address).await.status, 502);
    assert_eq!(storage.requests()[0].header("traceparent"), None);
    let spans = stage.collected().await;
    let abroad = spans.iter().find(|span| span.name == "abroad").unwrap();
    assert_eq!(abroad.attributes["server.port"], storage.address().port().to_string());
    assert_eq!((abroad.attributes["url.path"].as_str(), abroad.trace.as_str()), (blob.as_str(), TRACE));
    assert!(!format!("{spans:?}").contains("hidden"));
    let failed: Vec<_> = spans.iter().filter(|span| span.status == 2).collect();
    assert!(failed.iter().any(|span| span.kind == 3 && span.attributes.contains_key("error.type")), "{failed:#?}");
    assert!(failed.iter().any(|span| span.kind == 2 && span.attributes["http.response.status_code"] == "502"));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (upstream, _) = Upstream::with_app().await;
    let absent = Absent::new();
    let mut process = gateway(&upstream, &absent.url(), &[]).await;
    for _ in 0..3 {
        assert_eq!(process.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    }
    process.logged("the collector of traces takes no spans").await;
    assert_eq!(process.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    process.terminate();
    assert!(process.ended().await.success());
    let log = process.log();
    assert_eq!(log.matches("takes no spans").count(), 1, "{log}");
    assert!(log.contains("spans were lost"), "{log}");
}

/// One that takes a request and never answers holds up neither requests nor the end.
#[tokio::test]
async fn a_collector_that_hangs_holds_up_nobody() {
    let mut stage = stage(&[]).await;
    stage.collector.behave();
    let gate = stage.collector.when("POST", "*").hold();
    assert_eq!(stage.process.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    gate.reached(1).await;
    assert_eq!(stage.process.get(&Client::docker_1_9_1(), TAGGED).await.status, 200);
    stage.process.terminate();
    assert!(stage.process.ended().await.success());
    assert!(stage.process.log().contains("did not take the last spans in time"), "{}", stage.process.log());
}

#[tokio::test]
async fn the_log_says_when_the_collector_is_back() {
    let stage = stage(&[]).await;
    stage.collector.behave();
    stage.collector.when("POST", "*").answer(Answer::new(400));
    stage.process.get(&Client::curl(), "/v2/").await;
    stage.process.logged("the collector of traces takes no spans").await;
    stage.collector.behave();
    stage.collector.when("POST", "*").answer(Answer::new(200));
    stage.process.get(&Client::curl(), "/v2/").await;
    stage.process.logged("the collector of traces takes spans again").await;
}
