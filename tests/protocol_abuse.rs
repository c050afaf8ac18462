//! What a client must not do with the form of its requests, written byte by byte.

use std::time::Duration;

use schemabridge::server::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::raw;
use crate::support::gateway::{Gateway, Setup};
use crate::support::patiently;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const HIDDEN: &str = "GET /v2/hidden/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";

async fn stage() -> (Upstream, Gateway) {
    let (upstream, _) = Upstream::with_app().await;
    // A connection that stays open after its answer ends soon.
    let limits = Limits { keep_alive_timeout: Duration::from_millis(500), ..Limits::default() };
    let gateway = Setup::default().push().within(limits).before(&upstream).await;
    (upstream, gateway)
}

/// Sends this and reads all that comes back until the end of the connection.
async fn answers(gateway: &Gateway, request: &str) -> String {
    String::from_utf8_lossy(&raw(gateway.address(), request.as_bytes()).await).into_owned()
}

/// Each is refused, or read in the one way that RFC 9112 names (6.3: chunks go before a length) and written anew; and the
/// connection ends before what is hidden behind it can be taken for a request.
#[tokio::test]
async fn what_could_be_read_in_two_ways_is_400_or_read_in_one_and_the_end() {
    let (upstream, gateway) = stage().await;
    let chunked = "0\r\n\r\n";
    for (form, head, body) in [
        ("a length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunked),
        ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunked),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        ("a list of lengths", "Content-Length: 5, 6\r\n", "hello"),
        ("a sign", "Content-Length: +5\r\n", "hello"),
        ("a negative length", "Content-Length: -5\r\n", ""),
        ("a length in hexadecimal", "Content-Length: 0x5\r\n", "hello"),
        ("no length", "Content-Length: \r\n", ""),
        ("a length beyond numbers", "Content-Length: 99999999999999999999999\r\n", ""),
        ("a coding that is none", "Transfer-Encoding: xchunked\r\n", chunked),
        ("chunked twice over", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked),
        ("chunked not last", "Transfer-Encoding: chunked, gzip\r\n", chunked),
        ("a name with a space", "Transfer-Encoding : chunked\r\n", chunked),
        ("a name behind a tab", "Transfer-Encoding\t: chunked\r\n", chunked),
        ("a folded line", "X-Folded: a\r\n b\r\n", ""),
        ("a folded coding", "Transfer-Encoding:\r\n chunked\r\n", chunked),
        ("a bare carriage return", "X-Split: a\rTransfer-Encoding: chunked\r\n", chunked),
        ("a nul", "X-Nul: a\0b\r\n", ""),
    ] {
        for method in ["GET", "PATCH"] {
            upstream.forget();
            let target = "/v2/app/blobs/uploads/1";
            let got =
                answers(&gateway, &format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{head}\r\n{body}{HIDDEN}")).await;
            let is_read = head.contains("Content-Length") && head.contains("Transfer-Encoding");
            assert!(is_read || got.starts_with("HTTP/1.1 400"), "{form}, {method}: {got}");
            assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{form}, {method}: {got}");
            assert!(upstream.requests_to("*", "/v2/hidden/*").is_empty(), "{form}, {method}: {:?}", upstream.lines());
            for request in upstream.requests() {
                let framings = ["content-length", "transfer-encoding"].map(|name| request.header(name).is_some());
                assert!(is_read && framings != [true, true] && request.body.is_empty(), "{form}: {}", request.line());
            }
        }
    }
}

#[tokio::test]
async fn old_http_with_chunks_is_400_and_the_end() {
    let (upstream, gateway) = stage().await;
    let got =
        answers(&gateway, &format!("PATCH /v2/app/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"))
            .await;
    assert!(got.contains(" 400 ") && got.matches("HTTP/1.").count() == 1, "{got}");
    assert!(upstream.requests().is_empty(), "{:?}", upstream.lines());
}

/// The parser takes a line that ends without a carriage return (RFC 9112, section 2.2, lets it), but what goes on is
/// written anew: nobody behind the gateway can read it in another way.
#[tokio::test]
async fn bare_line_feeds_are_read_in_one_way() {
    let (upstream, gateway) = stage().await;
    let got = answers(&gateway, "GET /v2/app/tags/list HTTP/1.1\nHost: x\nX-One: 1\nConnection: close\n\n").await;
    assert!(got.starts_with("HTTP/1.1 200") || got.starts_with("HTTP/1.1 400"), "{got}");
    for chunk in
        ["5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5;\n\r\nhello\r\n0\r\n\r\n", "-5\r\n", "5x\r\nhello\r\n"]
    {
        upstream.forget();
        let head = "PATCH /v2/app/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let got = answers(&gateway, &format!("{head}{chunk}{HIDDEN}")).await;
        assert!(got.matches("HTTP/1.1 ").count() <= 1, "{chunk:?}: {got}");
        assert!(upstream.requests_to("*", "/v2/hidden/*").is_empty(), "{chunk:?}: {:?}", upstream.lines());
    }
}

/// Whether the answer needs the upstream or not, a body that nobody reads is never the next request.
#[tokio::test]
async fn the_body_of_a_read_is_never_a_request() {
    let (upstream, gateway) = stage().await;
    let long = format!("{HIDDEN}{}", "x".repeat(1 << 20));
    for body in [HIDDEN, &long] {
        for target in ["/v2/", "/v2/app/manifests/latest", "/v2/app/tags/list", "/nothing"] {
            for method in ["GET", "HEAD"] {
                let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
                let chunks = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
                for framed in [length, chunks] {
                    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{framed}");
                    let got = answers(&gateway, &request).await;
                    assert!(got.matches("HTTP/1.1 ").count() <= 1, "{method} {target}: {got}");
                }
            }
        }
    }
    assert!(upstream.requests_to("*", "/v2/hidden/*").is_empty(), "{:?}", upstream.lines());
    assert!(upstream.requests().iter().all(|request| request.body.is_empty()));
}

/// What a client writes does not begin a line of the log.
#[tokio::test]
async fn a_log_line_cannot_be_written_by_a_client() {
    let (upstream, _) = Upstream::with_app().await;
    let process = Process::serve(&["--upstream", &upstream.url(), "--store", "memory:"], &[]).await;
    let forged = "{\"level\":\"ERROR\",\"message\":\"forged\"}";
    for line in [
        format!("GET /v2/app/manifests/x%0A{forged} HTTP/1.1\r\n"),
        "GET /v2/app%0d%0aforged/tags/list HTTP/1.1\r\n".to_owned(),
        format!("GET /v2/app/manifests/latest HTTP/1.1\r\nUser-Agent: x\u{85}{forged}\u{2028}{forged}\x1b[2J\r\n"),
        format!("GET /v2/app/manifests/latest?ns={forged} HTTP/1.1\r\n"),
    ] {
        raw(process.address, format!("{line}Host: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
    }
    process.lines_logged("request").await;
    for line in process.log().lines() {
        let said: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_ne!(said["message"], "forged", "{line}");
        assert!(said["timestamp"].is_string(), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
    process.kill().await;
}

/// Who sends requests without reading answers is held up, and nobody else.
#[tokio::test]
async fn many_requests_at_once_hold_up_only_their_sender() {
    let (_upstream, gateway) = stage().await;
    let mut flooding = TcpStream::connect(gateway.address()).await.unwrap();
    let many = "GET /v2/app/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    flooding.write_all(many.as_bytes()).await.unwrap();
    let other = answers(&gateway, "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    let mut first = [0; 12];
    patiently("the first answer", flooding.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
}
