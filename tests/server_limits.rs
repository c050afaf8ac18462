//! How much clients may have of the process: each limit is reached, by name.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemabridge::gateway::ManifestLimits;
use schemabridge::server::limits::Limits;
use schemabridge::upstream::UploadLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Call, Client, raw};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::patiently;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const PING: &[u8] = b"HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

/// Every time-out so long that only the one under test can be reached.
fn endless() -> Limits {
    Limits { header_timeout: HOUR, keep_alive_timeout: HOUR, body_idle_timeout: HOUR, ..Limits::default() }
}

async fn stage(limits: Limits) -> (Upstream, Gateway) {
    let (upstream, _) = Upstream::with_app().await;
    let gateway = Setup::default().within(limits).before(&upstream).await;
    (upstream, gateway)
}

async fn connected(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.address()).await.unwrap()
}

/// Sends a request on a connection that stays and reads the answer, which has no body.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(PING).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(patiently("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
}

/// Reads on until the other side ends it.
async fn ended(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _reset_is_an_end_too = patiently("the end of the connection", stream.read_to_end(&mut rest)).await;
    rest
}

mod connections {
    use super::*;

    #[tokio::test]
    async fn one_more_than_may_be_waits_until_another_ends() {
        let (_upstream, gateway) = stage(Limits { connections: 2, ..endless() }).await;
        let (mut first, mut second) = (connected(&gateway).await, connected(&gateway).await);
        ask(&mut first).await;
        ask(&mut second).await;
        let mut third = connected(&gateway).await;
        third.write_all(PING).await.unwrap();
        while gateway.metric("schemabridge_connections_waited_total") == 0 {
            tokio::task::yield_now().await;
        }
        let nothing_yet = third.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(nothing_yet.kind(), std::io::ErrorKind::WouldBlock);
        drop(first);
        let mut answer = [0; 15];
        patiently("the third's turn", third.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        ask(&mut second).await;
    }

    #[tokio::test]
    async fn an_address_that_has_as_many_as_it_may_gets_no_more() {
        let (_upstream, gateway) = stage(Limits { connections_per_address: Some(2), ..endless() }).await;
        let (mut first, mut second) = (connected(&gateway).await, connected(&gateway).await);
        ask(&mut first).await;
        ask(&mut second).await;
        assert!(ended(&mut connected(&gateway).await).await.is_empty());
        assert_eq!(gateway.metric("schemabridge_connections_refused_total{reason=\"address\"}"), 1);
        assert_eq!(gateway.metric("schemabridge_connections_open"), 2);
        drop(second);
        while gateway.metric("schemabridge_connections_open") > 1 {
            tokio::task::yield_now().await;
        }
        ask(&mut connected(&gateway).await).await;
        ask(&mut first).await;
    }

    /// Which the end of serving must not wait for.
    #[tokio::test]
    async fn one_that_waits_does_not_hold_up_the_end() {
        let (_upstream, gateway) = stage(Limits { connections: 1, ..endless() }).await;
        let mut first = connected(&gateway).await;
        ask(&mut first).await;
        let _second = connected(&gateway).await;
        while gateway.metric("schemabridge_connections_waited_total") == 0 {
            tokio::task::yield_now().await;
        }
        gateway.stop().await;
    }
}

mod time {
    use super::*;

    #[tokio::test]
    async fn who_does_not_begin_or_does_not_finish_a_head_is_cut() {
        let (_upstream, gateway) = stage(Limits { header_timeout: SHORT, ..endless() }).await;
        for begun in ["", "G", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut stream = connected(&gateway).await;
            stream.write_all(begun.as_bytes()).await.unwrap();
            assert!(ended(&mut stream).await.is_empty(), "{begun}");
        }
        // A connection is over a moment before that is counted.
        let all = async {
            while gateway.metric("schemabridge_connections_cut_total{reason=\"head\"}") < 3 {
                tokio::task::yield_now().await;
            }
        };
        patiently("all three to be counted", all).await;
    }

    /// One byte now and then keeps nothing open.
    #[tokio::test]
    async fn a_head_that_drips_is_cut() {
        let (_upstream, gateway) = stage(Limits { header_timeout: SHORT, ..endless() }).await;
        let (mut reading, mut writing) = connected(&gateway).await.into_split();
        let dripping = tokio::spawn(async move {
            while writing.write_all(b"X").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let mut rest = Vec::new();
        let _reset = patiently("the end", reading.read_to_end(&mut rest)).await;
        patiently("the end of dripping", dripping).await.unwrap();
        assert_eq!(gateway.metric("schemabridge_connections_cut_total{reason=\"head\"}"), 1);
    }

    #[tokio::test]
    async fn the_second_head_has_its_own_time() {
        let (_upstream, gateway) = stage(Limits { header_timeout: SHORT, ..endless() }).await;
        let mut stream = connected(&gateway).await;
        ask(&mut stream).await;
        // Between two requests only the time of an idle connection runs.
        tokio::time::sleep(SHORT * 2).await;
        stream.write_all(PING).await.unwrap();
        stream.write_all(b"GET /v2/ HT").await.unwrap();
        let answers = ended(&mut stream).await;
        assert!(String::from_utf8_lossy(&answers).contains("HTTP/1.1 200 OK"), "the second request was answered");
        // The head that never ends, and neither of those before it.
        assert_eq!(gateway.metric("schemabridge_connections_cut_total{reason=\"head\"}"), 1);
    }

    #[tokio::test]
    async fn a_connection_without_requests_is_closed() {
        let (_upstream, gateway) = stage(Limits { keep_alive_timeout: SHORT, ..endless() }).await;
        let mut stream = connected(&gateway).await;
        ask(&mut stream).await;
        ended(&mut stream).await;
        assert_eq!(gateway.metric("schemabridge_connections_cut_total{reason=\"idle\"}"), 1);
    }

    /// While an upstream takes its time, no time of the client's runs.
    #[tokio::test]
    async fn who_waits_for_a_slow_upstream_is_not_cut() {
        let short =
            Limits { header_timeout: SHORT, keep_alive_timeout: SHORT, body_idle_timeout: SHORT, ..Limits::default() };
        let (upstream, gateway) = stage(short).await;
        let blob = upstream.contents().put_blob("app", vec![7; 1 << 20].into());
        let target = format!("/v2/app/blobs/{blob}");
        for held in [0, 1000] {
            let when = upstream.when("GET", &target);
            let gate = if held == 0 { when.hold() } else { when.hold_body(held) };
            let mut open = Client::curl().get(&target).open(gateway.address()).await;
            patiently("the upstream", gate.reached(1)).await;
            tokio::time::sleep(SHORT * 4).await;
            gate.open();
            patiently("the blob", open.rest()).await;
            let reply = open.reply(false);
            assert!(reply.is_whole && reply.body.len() == 1 << 20);
            upstream.behave();
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_cut_and_who_takes_little_is_not() {
        let (upstream, gateway) = stage(Limits { body_idle_timeout: SHORT * 2, ..endless() }).await;
        // More than what sockets hold.
        let blob = upstream.contents().put_blob("app", vec![7; 32 << 20].into());
        let call = Client::curl().get(&format!("/v2/app/blobs/{blob}"));
        let _takes_nothing = call.open(gateway.address()).await;
        let mut takes_little = call.open(gateway.address()).await;
        let mut wanted = 0;
        while gateway.metric("schemabridge_connections_cut_total{reason=\"answer\"}") == 0 {
            wanted += 4 << 20;
            takes_little.at_least(wanted.min(24 << 20)).await;
            tokio::time::sleep(SHORT / 10).await;
        }
        patiently("the rest", takes_little.rest()).await;
        assert!(takes_little.reply(false).is_whole);
    }
}

mod sizes {
    use super::*;

    #[tokio::test]
    async fn a_head_has_so_many_bytes_and_headers() {
        let (upstream, gateway) = stage(Limits { head_bytes: 8 * 1024, headers: 10, ..endless() }).await;
        let with = |lines: String| format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        for (lines, status) in [
            (format!("X-Long: {}\r\n", "y".repeat(6000)), 200),
            (format!("X-Long: {}\r\n", "y".repeat(9000)), 431),
            ("X-Many: y\r\n".repeat(8), 200),
            ("X-Many: y\r\n".repeat(9), 431),
        ] {
            let answer = raw(gateway.address(), with(lines).as_bytes()).await;
            let line = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
            assert_eq!(line, format!("HTTP/1.1 {status}"));
        }
        assert!(upstream.requests_to("*", "*x-long*").is_empty());
    }
}

mod uploads {
    use super::*;

    const UPLOAD: &str = "/v2/app/blobs/uploads/1?_state=x";

    async fn pushing(limits: UploadLimits) -> (Upstream, Gateway) {
        let (upstream, _) = Upstream::with_app().await;
        let gateway = Setup::default().push().uploads(limits).before(&upstream).await;
        (upstream, gateway)
    }

    #[tokio::test]
    async fn one_that_stands_still_is_408() {
        let (_upstream, gateway) = pushing(UploadLimits { idle_timeout: SHORT, ..UploadLimits::default() }).await;
        let mut stream = connected(&gateway).await;
        let head = format!("PATCH {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = ended(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn one_that_is_too_large_is_413_whether_it_says_so_or_not() {
        let (upstream, gateway) = pushing(UploadLimits { bytes_max: Some(1000), ..UploadLimits::default() }).await;
        let call = |length: usize| Call::new("PATCH", UPLOAD).body(vec![b'x'; length]);
        let announced = gateway.send(&call(1001)).await;
        assert_eq!((announced.status, announced.error().0.as_str()), (413, "SIZE_INVALID"));
        assert!(upstream.requests_to("PATCH", "*").is_empty());
        let chunk = format!("{:x}\r\n{}\r\n", 600, "x".repeat(600));
        let head = format!(
            "PATCH {UPLOAD} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
        );
        let answer = raw(gateway.address(), head.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
        assert_ne!(gateway.send(&call(1000)).await.status, 413);
        assert_eq!(upstream.requests_to("PATCH", "*").last().map(|request| request.body.len()), Some(1000));
    }
}

mod manifests {
    use super::*;

    async fn one_at_a_time(queue_timeout: Duration) -> (Upstream, Gateway) {
        let (upstream, _) = Upstream::with_app().await;
        let other = Image::classic("other");
        upstream.put_image("other", "latest", &other, &other.oci());
        let limits = ManifestLimits { in_flight: NonZeroUsize::MIN, queue_timeout };
        let gateway = Setup::default().manifests(limits).before(&upstream).await;
        (upstream, gateway)
    }

    #[tokio::test]
    async fn one_more_waits_and_is_told_to_come_back() {
        let (upstream, gateway) = one_at_a_time(SHORT).await;
        // What is remembered needs no turn.
        assert_eq!(gateway.manifest(&Client::docker_17(), "/v2/other/manifests/latest").await.status, 200);
        let gate = upstream.when("GET", "/v2/app/manifests/*").hold();
        let mut open = Client::docker_17().get(TAGGED).open(gateway.address()).await;
        patiently("the first's document", gate.reached(1)).await;
        assert_eq!(gateway.manifest(&Client::docker_17(), "/v2/other/manifests/latest").await.status, 200);
        let third = Image::small("third");
        upstream.put_image("third", "latest", &third, &third.oci());
        let got = gateway.get(&Client::docker_17(), "/v2/third/manifests/latest").await;
        assert_eq!((got.status, got.header("retry-after"), got.error().0.as_str()), (503, Some("1"), "UNAVAILABLE"));
        gate.open();
        patiently("the first's answer", open.rest()).await;
        assert_eq!(open.reply(false).status, 200);
        assert_eq!(gateway.get(&Client::docker_17(), "/v2/third/manifests/latest").await.status, 200);
    }

    /// The children of an index come under its own turn.
    #[tokio::test]
    async fn an_index_does_not_wait_for_itself() {
        let (upstream, gateway) = one_at_a_time(HOUR).await;
        let image = Image::classic("many");
        let index = crate::support::images::index(&[(&image.oci(), "linux/amd64")]);
        upstream.put_image("many", "child", &image, &image.oci());
        upstream.put("many", "latest", &index);
        for client in [Client::docker_17(), Client::docker_1_9_1()] {
            let got = patiently("an index", gateway.get(&client, "/v2/many/manifests/latest")).await;
            assert_eq!(got.status, 200, "{}", got.text());
        }
    }

    #[tokio::test]
    async fn the_upstreams_refusal_gives_the_turn_back() {
        let (upstream, gateway) = one_at_a_time(SHORT).await;
        upstream.when("GET", "/v2/app/manifests/*").answer(Answer::error(500, "UNKNOWN", "no"));
        for _ in 0..3 {
            assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 500);
        }
        upstream.behave();
        assert_eq!(gateway.get(&Client::docker_17(), TAGGED).await.status, 200);
    }
}
