//! TLS to clients: a word to who comes to the wrong port.

use schemabridge::server::tls::{HANDSHAKE_TIMEOUT, TlsOptions};

use crate::support::client::raw;
use crate::support::gateway::{Gateway, Setup};
use crate::support::secure::{Authority, Files};
use crate::support::upstream::Upstream;

/// The start of what `openssl s_client` sends.
const CLIENT_HELLO: [u8; 11] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

#[tokio::test]
async fn tls_on_a_plain_port_is_answered_with_a_bad_request_in_words() {
    let gateway = Gateway::before(&Upstream::start().await).await;
    let whole = [&CLIENT_HELLO[..], &[7; 2000]].concat();
    for hello in [&CLIENT_HELLO[..], &[0x16], &whole] {
        let answer = String::from_utf8(raw(gateway.address(), hello).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("speaks plain HTTP"), "{answer}");
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_with_a_bad_request_in_words() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let Files { chain, key } = authority.issue(&["gateway.test"]);
    let tls = TlsOptions { chain, key, client_authorities: None, handshake_timeout: HANDSHAKE_TIMEOUT };
    let gateway = Setup::default().tls_to_clients(&tls).before(&upstream).await;
    let request = "GET /v2/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    for request in [request, "G", &format!("POST / HTTP/1.1\r\nX-Long: {}", "x".repeat(20_000))] {
        let answer = String::from_utf8(raw(gateway.address(), request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("speaks TLS") && answer.contains("https://"), "{answer}");
    }
    assert!(upstream.requests().is_empty());
}
