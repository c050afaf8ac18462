//! The headers of an answer say exactly what clients and caches rely on.

use crate::support::client::{Call, Client};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Image};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

async fn with_an_oci_image() -> (Upstream, Gateway, Image) {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway, image)
}

#[tokio::test]
async fn by_tag_nothing_is_kept_and_by_digest_everything_is() {
    let (_upstream, gateway, _) = with_an_oci_image().await;
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::curl()] {
        let by_tag = gateway.manifest(&client, TAGGED).await;
        assert_eq!(by_tag.header("cache-control"), Some("private, no-cache"));
        assert_eq!(by_tag.header("vary"), Some("Accept, User-Agent"));
        let by_digest = gateway.manifest(&client, &format!("/v2/app/manifests/{}", by_tag.digest())).await;
        assert_eq!(by_digest.header("cache-control"), Some("private, max-age=31536000, immutable"));
    }
    let missing = gateway.manifest(&Client::curl(), "/v2/app/manifests/missing").await;
    assert_eq!(missing.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn what_a_client_already_has_is_not_sent_again() {
    let (_upstream, gateway, _) = with_an_oci_image().await;
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::curl()] {
        let first = gateway.manifest(&client, TAGGED).await;
        for target in [TAGGED.to_owned(), format!("/v2/app/manifests/{}", first.digest())] {
            for known in
                [format!("\"{}\"", first.digest()), format!("W/\"x\", W/\"{}\"", first.digest()), "*".to_owned()]
            {
                for method in ["GET", "HEAD"] {
                    let again = gateway.send(&client.call(method, &target).header("If-None-Match", &known)).await;
                    assert_eq!(again.status, 304, "{method} {target} {known}");
                    assert!(again.body.is_empty());
                    assert_eq!(again.header("etag"), Some(format!("\"{}\"", first.digest()).as_str()));
                    assert_eq!(again.header("vary"), Some("Accept, User-Agent"));
                }
            }
            let other = gateway.send(&client.get(&target).header("If-None-Match", "\"sha256:other\"")).await;
            assert_eq!((other.status, other.body), (200, first.body.clone()));
        }
    }
}

/// The stored document's digest must not stand for the derived one, nor the other way round.
#[tokio::test]
async fn a_client_that_has_another_form_gets_its_own() {
    let (_upstream, gateway, image) = with_an_oci_image().await;
    let call = Client::docker_17().get(TAGGED).header("If-None-Match", &format!("\"{}\"", image.oci().digest));
    let got = gateway.send(&call).await;
    assert_eq!((got.status, got.digest()), (200, image.schema2().digest.as_str()));
    let call = Client::curl().get(TAGGED).header("If-None-Match", &format!("\"{}\"", image.schema2().digest));
    assert_eq!(gateway.send(&call).await.status, 200);
}

#[tokio::test]
async fn nothing_is_compressed_and_no_charset_is_added() {
    let (upstream, gateway, image) = with_an_oci_image().await;
    upstream
        .when("*", "/v2/app/manifests/*")
        .with("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
    for client in [Client::docker_1_9_1(), Client::docker_17(), Client::curl()] {
        let call = client.get(TAGGED).header("Accept-Encoding", "zstd, gzip, br, *");
        let got = gateway.send(&call).await;
        assert_eq!((got.status, got.header("content-encoding")), (200, None));
        assert!(!got.content_type().contains(';'), "{}", got.content_type());
    }
    let blob =
        Call::new("GET", &format!("/v2/app/blobs/{}", image.config_digest())).header("Accept-Encoding", "zstd, gzip");
    let got = gateway.send(&blob).await;
    assert_eq!((got.header("content-encoding"), &got.body[..]), (None, &image.config[..]));
}

#[tokio::test]
async fn the_content_type_is_the_documents_own_whatever_the_upstream_says() {
    let (upstream, gateway, image) = with_an_oci_image().await;
    for wrong in
        ["application/json", "text/plain; charset=utf-8", images::SCHEMA2, images::INDEX, images::SCHEMA1_SIGNED]
    {
        upstream.behave();
        upstream.when("*", "/v2/app/manifests/*").with("content-type", wrong);
        let got = gateway.manifest(&Client::curl(), TAGGED).await;
        assert_eq!(
            (got.status, got.content_type(), &got.body[..]),
            (200, images::OCI, &image.oci().bytes[..]),
            "{wrong}"
        );
        let derived = gateway.manifest(&Client::docker_17(), TAGGED).await;
        assert_eq!(derived.digest(), image.schema2().digest);
    }
}

#[tokio::test]
async fn the_api_version_is_on_every_answer() {
    let (upstream, gateway, image) = with_an_oci_image().await;
    upstream.when("*", "/v2/*").without("docker-distribution-api-version");
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    for target in ["/v2/", "/v2", TAGGED, "/v2/app/manifests/missing", &blob, "/v2/app/tags/list", "/v2/app/nothing"] {
        for method in ["GET", "HEAD"] {
            let got = gateway.send(&Client::docker_1_9_1().call(method, target)).await;
            assert_eq!(got.all("docker-distribution-api-version"), ["registry/2.0"], "{method} {target}");
        }
    }
}

#[tokio::test]
async fn a_translated_answer_warns_and_names_its_source() {
    let (_upstream, gateway, image) = with_an_oci_image().await;
    let got = gateway.manifest(&Client::docker_17(), TAGGED).await;
    assert!(got.header("warning").is_some_and(|warning| warning.starts_with("299 - \"")), "{:?}", got.headers);
    assert_eq!(got.header("schemabridge-source-digest"), Some(image.oci().digest.as_str()));
    assert_eq!(got.header("schemabridge-source-type"), Some(images::OCI));
    assert_eq!(got.header("schemabridge-translation"), Some("oci -> schema2"));
}

#[tokio::test]
async fn hop_by_hop_headers_and_those_that_connection_names_stop_at_the_gateway() {
    let (upstream, gateway, image) = with_an_oci_image().await;
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    upstream.when("*", "/v2/app/blobs/*").with("keep-alive", "timeout=5");
    for target in [TAGGED, "/v2/app/tags/list", &blob] {
        let call = Call::new("GET", target)
            .header("Connection", "X-Secret-Hop, upgrade")
            .header("X-Secret-Hop", "1")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAMAAABkAAQAAP__")
            .header("Proxy-Authorization", "Basic eDp5")
            .header("TE", "trailers")
            .header("Keep-Alive", "timeout=1");
        let got = gateway.send(&call).await;
        assert_eq!((got.status, got.header("keep-alive"), got.header("upgrade")), (200, None, None), "{target}");
    }
    for request in upstream.requests() {
        for hop in ["x-secret-hop", "upgrade", "http2-settings", "proxy-authorization", "te", "keep-alive"] {
            assert_eq!(request.header(hop), None, "{}: {hop}", request.line());
        }
    }
}

/// Some clients from before 2016 send no Accept header and read only schema 1; an operator who has them says so.
#[tokio::test]
async fn a_client_without_an_accept_header_gets_what_the_operator_chose() {
    let (upstream, gateway, image) = with_an_oci_image().await;
    let script = Client::new("python-urllib/2.7", &[]);
    assert_eq!(gateway.manifest(&script, TAGGED).await.digest(), image.oci().digest);
    let gateway = Setup::default().schema1_without_accept().before(&upstream).await;
    assert_eq!(gateway.manifest(&script, TAGGED).await.content_type(), images::SCHEMA1_SIGNED);
    assert_eq!(gateway.manifest(&Client::curl(), TAGGED).await.digest(), image.oci().digest);
}
