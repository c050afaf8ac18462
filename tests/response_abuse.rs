//! What an upstream must not do to a client, or to the gateway, with the form of its answers: written byte by byte, because
//! no library would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::client::{Call, Client};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::sha256;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const BLOB: &str = "/v2/app/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

/// An upstream that answers each request with these very bytes and closes.
struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<u8>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Scripted {
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let record = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, record) = (Arc::clone(&answer), Arc::clone(&record));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                            return;
                        }
                    }
                    record.lock().unwrap().extend_from_slice(&head);
                    let _gone = stream.write_all(&answer).await;
                });
            }
        });
        Self { address, asked, accepting }
    }

    async fn gateway(&self) -> Gateway {
        Setup::default().before_url(&format!("http://{}", self.address)).await
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_head_beyond_bounds_is_502() {
    let long = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X-Many: y\r\n".repeat(10_000));
    for head in [long, many] {
        let upstream = Scripted::answering(head).await;
        let gateway = upstream.gateway().await;
        for target in [TAGGED, BLOB, "/v2/app/tags/list"] {
            let got = gateway.get(&Client::curl(), target).await;
            assert_eq!(got.status, 502, "{target}");
            got.error();
        }
    }
}

/// What comes before the answer is not the answer.
#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
    let upstream =
        Scripted::answering(format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nfoo"))
            .await;
    let gateway = upstream.gateway().await;
    let got = gateway.get(&Client::curl(), BLOB).await;
    assert_eq!((got.status, &got.body[..], got.header("link")), (200, &b"foo"[..], None));
}

/// A client that reads on would take the body for the next answer.
#[tokio::test]
async fn a_body_where_none_may_be_goes_to_nobody() {
    for status in ["204 No Content", "304 Not Modified"] {
        let hidden = "HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil";
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len());
        let upstream = Scripted::answering(answer).await;
        let gateway = upstream.gateway().await;
        for target in [BLOB, TAGGED, "/v2/app/tags/list"] {
            let mut open = Call::new("GET", target).open(gateway.address()).await;
            crate::support::patiently("the answer", open.rest()).await;
            let text = String::from_utf8_lossy(open.received()).into_owned();
            assert!(!text.contains("evil") && !text.contains("X-Evil"), "{status} {target}: {text}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{status} {target}: {text}");
        }
    }
}

/// Whatever the upstream's framing, a body that stops short never ends cleanly.
#[tokio::test]
async fn a_body_that_stops_short_is_not_whole() {
    for framing in [
        "Content-Length: 100\r\n\r\nfoo",
        "Transfer-Encoding: chunked\r\n\r\n64\r\nfoo",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\nfoo\r\n0\r\n\r\n",
    ] {
        let upstream = Scripted::answering(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        let gateway = upstream.gateway().await;
        let mut open = Call::new("GET", BLOB).open(gateway.address()).await;
        crate::support::patiently("the answer", open.rest()).await;
        // A connection that ends without an answer is an error too.
        let is_error = open.received().is_empty() || {
            let got = open.reply(false);
            got.status >= 500 || !got.is_whole
        };
        assert!(is_error, "{framing:?}: {}", String::from_utf8_lossy(open.received()));
    }
}

/// Two lengths, or a length and chunks: a proxy that picks one is how answers are smuggled.
#[tokio::test]
async fn an_answer_that_could_be_read_in_two_ways_brings_nothing_hidden() {
    let hidden = "HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil";
    for framing in [
        format!("Content-Length: 3\r\nContent-Length: {}\r\n\r\nfoo{hidden}", hidden.len() + 3),
        format!("Content-Length: 3, {}\r\n\r\nfoo{hidden}", hidden.len() + 3),
        format!("Content-Length: +3\r\n\r\nfoo{hidden}"),
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\n0\r\n\r\n{hidden}", hidden.len()),
        "X-Split: a\rX-Evil: 1\r\nContent-Length: 3\r\n\r\nfoo".to_owned(),
        "X-Nul: a\0b\r\nContent-Length: 3\r\n\r\nfoo".to_owned(),
    ] {
        let upstream = Scripted::answering(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        let gateway = upstream.gateway().await;
        let mut open = Call::new("GET", BLOB).open(gateway.address()).await;
        crate::support::patiently("the answer", open.rest()).await;
        let text = String::from_utf8_lossy(open.received()).to_lowercase();
        assert!(!text.contains("x-evil") && !text.contains("evil"), "{framing:?}: {text}");
        assert!(text.starts_with("http/1.1 200") || text.starts_with("http/1.1 502"), "{framing:?}: {text}");
    }
}

mod compressed {
    use super::*;

    async fn stage(coded: Vec<u8>) -> (Upstream, Gateway, Image) {
        let (upstream, image) = Upstream::with_app().await;
        upstream.when("GET", "/v2/app/manifests/*").alter(move |_, answer| {
            answer.headers.insert("content-encoding", http::HeaderValue::from_static("gzip"));
            answer.headers.insert("content-length", coded.len().into());
            answer.body = coded.clone().into();
        });
        let gateway = Gateway::before(&upstream).await;
        (upstream, gateway, image)
    }

    /// The digest is that of what was compressed.
    #[tokio::test]
    async fn a_manifest_is_given_out_plain() {
        let image = Image::classic("app");
        let (upstream, gateway, image) = stage(gzipped(&image.oci().bytes)).await;
        upstream.when("HEAD", "/v2/app/manifests/*").with("content-encoding", "gzip");
        for target in [TAGGED.to_owned(), format!("/v2/app/manifests/{}", image.oci().digest)] {
            let got = gateway.manifest(&Client::curl(), &target).await;
            assert_eq!((got.status, &got.body), (200, &image.oci().bytes.to_vec()));
            assert_eq!(got.digest(), sha256(&got.body));
        }
        assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.digest(), image.schema2().digest);
    }

    #[tokio::test]
    async fn a_bomb_is_refused() {
        let (_upstream, gateway, image) = stage(gzipped(&vec![b' '; 256 << 20])).await;
        for target in [TAGGED.to_owned(), format!("/v2/app/manifests/{}", image.oci().digest)] {
            let status = gateway.get(&Client::curl(), &target).await.status;
            assert!(matches!(status, 406 | 502), "{target}: {status}");
        }
    }

    #[tokio::test]
    async fn another_document_is_refused() {
        let other = Image::small("other");
        let (_upstream, gateway, _) = stage(gzipped(&other.oci().bytes)).await;
        assert_eq!(gateway.get(&Client::curl(), TAGGED).await.status, 502);
    }
}

/// A list without end streams through.
#[tokio::test]
async fn a_million_tags_stream_through() {
    let (upstream, _) = Upstream::with_app().await;
    let tags = (0..1_000_000).map(|number| format!("\"tag-{number:07}\"")).collect::<Vec<_>>().join(",");
    let list = format!("{{\"name\":\"app\",\"tags\":[{tags}]}}");
    upstream.when("GET", "/v2/app/tags/list").with_body(list.clone());
    let gateway = Gateway::before(&upstream).await;
    let gate = upstream.when("GET", "/v2/app/tags/list").hold_body(1 << 20);
    let mut open = Client::curl().get("/v2/app/tags/list").open(gateway.address()).await;
    // Its start is here before its end has left.
    crate::support::patiently("the start", open.at_least(1 << 19)).await;
    gate.open();
    crate::support::patiently("the rest", open.rest()).await;
    let got = open.reply(false);
    assert!(got.is_whole && got.body == list.as_bytes());
}

#[tokio::test]
async fn every_form_of_a_range_is_answered_as_the_upstream_does() {
    let (upstream, _) = Upstream::with_app().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let digest = upstream.contents().put_blob("app", bytes.clone().into());
    let target = format!("/v2/app/blobs/{digest}");
    let gateway = Gateway::before(&upstream).await;
    for range in [
        "bytes=0-0",
        "bytes=-1",
        "bytes=255-",
        "bytes=256-",
        "bytes=0-99999999999999999999999999",
        "bytes=18446744073709551615-18446744073709551616",
        "bytes=-0",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "bytes=0-0,0-0,0-0,0-0",
        "bytes=",
        "bytes=a-b",
        "lines=1-2",
    ] {
        for if_range in [None, Some("\"stale\"")] {
            let call = Call::new("GET", &target).header("Range", range);
            let call = if_range.iter().fold(call, |call, value| call.header("If-Range", value));
            let (direct, through) = (call.send(upstream.address()).await, gateway.send(&call).await);
            assert_eq!(through.status, direct.status, "{range} {if_range:?}");
            assert_eq!(through.header("content-range"), direct.header("content-range"), "{range} {if_range:?}");
            if direct.status < 400 {
                assert_eq!(through.body, direct.body, "{range} {if_range:?}");
            }
            // A range without meaning may stay behind; none is changed.
            let sent = upstream.requests_to("GET", &target);
            assert!(sent.last().unwrap().header("range").is_none_or(|sent| sent == range), "{range}");
        }
    }
}

/// What the upstream was asked is one request, whatever the client hid in its own.
#[tokio::test]
async fn what_goes_upstream_is_one_request() {
    let upstream = Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nfoo").await;
    let gateway = upstream.gateway().await;
    let hidden = "GET /v2/evil/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
    gateway.send(&Call::new("GET", BLOB).body(hidden)).await;
    let asked = String::from_utf8(upstream.asked.lock().unwrap().clone()).unwrap();
    assert!(!asked.contains("evil") && asked.matches(" HTTP/1.1\r\n").count() == 1, "{asked}");
    assert!(!asked.to_lowercase().contains("content-length"), "{asked}");
}
