//! What the lines of an Accept header mean, over a socket, and that no two meanings share an answer.

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, INDEX, Image, LIST, OCI, SCHEMA1, SCHEMA1_SIGNED, SCHEMA2};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

async fn with(document: &Document, image: &Image) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", image, document);
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway)
}

/// Accept lines of an unknown client, and the type that it is given of an image stored as schema 2.
fn meanings() -> Vec<(Vec<String>, &'static str)> {
    let cases: [(&[&str], &str); 22] = [
        (&[], SCHEMA2),
        (&["*/*"], SCHEMA2),
        (&["*"], SCHEMA2),
        (&["application/*"], SCHEMA2),
        (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], SCHEMA2),
        (&["application/json"], SCHEMA2),
        (&["application/octet-stream"], SCHEMA2),
        (&["application/vnd.oci.image.layer.v1.tar+gzip"], SCHEMA2),
        (&[OCI], OCI),
        (&[OCI, INDEX], OCI),
        (&[SCHEMA1], SCHEMA1_SIGNED),
        (&[SCHEMA1_SIGNED], SCHEMA1_SIGNED),
        (&[OCI, "*/*"], SCHEMA2),
        (&[OCI, SCHEMA2], SCHEMA2),
        (&["SCHEMA2;q=0", OCI], OCI),
        (&["SCHEMA2;q=0.000", "*/*"], OCI),
        (&["SCHEMA2;q=0.1", "OCI;q=1"], SCHEMA2),
        (&["SCHEMA1;q=0.9", "OCI;q=0.8"], SCHEMA1_SIGNED),
        (&["SCHEMA1;q=.8", "OCI;q=.9"], OCI),
        (&["OCI;charset=utf-8;q=1.000"], OCI),
        (&[LIST], SCHEMA2),
        (&["SCHEMA2;q=nonsense"], SCHEMA2),
    ];
    let written = |line: &&str| line.replace("SCHEMA2", SCHEMA2).replace("SCHEMA1", SCHEMA1_SIGNED).replace("OCI", OCI);
    cases.iter().map(|(lines, given)| (lines.iter().map(written).collect(), *given)).collect()
}

#[tokio::test]
async fn each_meaning_has_its_answer_whichever_was_asked_for_first() {
    let image = Image::classic("app");
    let (_upstream, gateway) = with(&image.schema2(), &image).await;
    let mut meanings = meanings();
    for _ in 0..2 {
        for (accept, given) in &meanings {
            let client = Client { user_agent: None, accept: accept.clone() };
            let got = gateway.manifest(&client, TAGGED).await;
            assert_eq!((got.status, got.content_type()), (200, *given), "{accept:?}");
        }
        meanings.reverse();
    }
}

#[tokio::test]
async fn the_user_agent_only_narrows() {
    let image = Image::classic("app");
    let (_upstream, gateway) = with(&image.schema2(), &image).await;
    let agents = [
        ("docker/dev go/go1.4", vec![OCI], OCI),
        ("docker/library-import", vec![OCI], OCI),
        ("Mozilla/5.0 Gecko/20100101", vec![OCI], OCI),
        ("my-docker/1.9.1", vec![OCI], OCI),
        ("docker/1.9.1 go/go1.4", vec![OCI], SCHEMA1_SIGNED),
        ("docker/17.03.2-ce go/go1.7", vec![SCHEMA1_SIGNED, SCHEMA2, LIST], SCHEMA2),
        ("containerd/v2.1.4", vec![SCHEMA1_SIGNED, OCI], OCI),
        ("", vec![OCI], OCI),
    ];
    for (agent, accept, given) in agents {
        let got = gateway.manifest(&Client::new(agent, &accept), TAGGED).await;
        assert_eq!((got.status, got.content_type()), (200, given), "{agent}");
    }
}

/// A header that is not text must not end a connection.
#[tokio::test]
async fn bytes_that_are_no_text_are_no_type() {
    let image = Image::classic("app");
    let (_upstream, gateway) = with(&image.schema2(), &image).await;
    let address = gateway.address();
    for line in [
        &b"Accept: \xff\xfe"[..],
        b"Accept: ",
        b"Accept: ,,;q",
        b"User-Agent: docker/\xff",
        b"User-Agent: docker/99999999999999999999.1",
    ] {
        let request =
            [b"GET /v2/app/manifests/latest HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", line, b"\r\n\r\n"].concat();
        let answer = crate::support::client::raw(address, &request).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_stored_form_that_is_accepted_is_never_translated() {
    let image = Image::classic("app");
    let every = [OCI, INDEX, SCHEMA2, LIST, SCHEMA1_SIGNED, SCHEMA1];
    for document in [
        image.oci(),
        image.oci_annotated(),
        image.schema2(),
        image.hybrid(),
        images::artifact("sbom"),
        images::plugin(),
    ] {
        let (_upstream, gateway) = with(&document, &image).await;
        for client in [Client::new("", &every), Client::new("skopeo/1.9.3", &every), Client::containerd_1_6()] {
            let got = gateway.manifest(&client, TAGGED).await;
            assert_eq!((got.status, &got.body[..]), (200, &document.bytes[..]));
        }
    }
}
