//! One parser decides what a path means, and only what it understood is sent on.

use proptest::prelude::{ProptestConfig, prop_assert_eq};
use proptest::test_runner::TestRunner;

use crate::support::client::{Call, Client, raw};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;

async fn stage() -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway)
}

#[tokio::test]
async fn what_is_no_name_is_refused_and_nothing_is_dialled() {
    let (upstream, gateway) = stage().await;
    let long = "a".repeat(256);
    let names = [
        "a%2Fb", "%2e%2e", "..", "a/../b", ".", "a/./b", "a//b", "a;b", "a%00b", "%c0%ae", "a\\b", "A", "a_", "_a",
        "a___b", "a%0d%0aX", "a%20b", "%61pp", &long,
    ];
    for name in names {
        for rest in [
            "manifests/latest",
            "tags/list",
            "blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            let got = gateway.send(&Call::new("GET", &format!("/v2/{name}/{rest}"))).await;
            assert!(matches!(got.status, 400 | 404), "{name}/{rest}: {}", got.status);
            got.error();
        }
    }
    assert_eq!(upstream.connections(), 0, "{:?}", upstream.lines());
}

#[tokio::test]
async fn what_is_no_reference_is_refused_with_its_code() {
    let (upstream, gateway) = stage().await;
    let tag = "t".repeat(129);
    let upper = "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    let cases = [
        ("manifests", tag.as_str()),
        ("manifests", ".x"),
        ("manifests", "-x"),
        ("manifests", "a%2Fb"),
        ("manifests", "sha256:abc"),
        ("manifests", upper),
        ("manifests", "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("manifests", "sha256:../../x"),
        ("manifests", ""),
        ("blobs", "sha256:abc"),
        ("blobs", upper),
        ("blobs", "latest"),
        ("blobs", "sha256:%2e%2e"),
        ("blobs", ""),
    ];
    for (kind, reference) in cases {
        let got = gateway.send(&Call::new("GET", &format!("/v2/app/{kind}/{reference}"))).await;
        assert!(matches!(got.status, 400 | 404), "{kind}/{reference}: {}", got.status);
        got.error();
    }
    let digest = gateway.send(&Call::new("GET", "/v2/app/blobs/sha256:abc")).await;
    assert_eq!((digest.status, digest.error().0.as_str()), (400, "DIGEST_INVALID"));
    let name = gateway.send(&Call::new("GET", "/v2/APP/manifests/latest")).await;
    assert_eq!((name.status, name.error().0.as_str()), (400, "NAME_INVALID"));
    assert_eq!(upstream.connections(), 0, "{:?}", upstream.lines());
}

#[tokio::test]
async fn names_that_look_like_endpoints_are_names() {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    let names = [
        "manifests",
        "blobs",
        "a/manifests",
        "a/blobs",
        "a/tags/list",
        "tags",
        "uploads",
        "a/blobs/uploads",
        "v2",
        "token",
        "a/manifests/blobs",
    ];
    for name in names {
        upstream.put_image(name, "latest", &image, &image.oci());
    }
    let gateway = Gateway::before(&upstream).await;
    for name in names {
        let manifest = gateway.manifest(&Client::docker_17(), &format!("/v2/{name}/manifests/latest")).await;
        assert_eq!((manifest.status, manifest.digest()), (200, image.schema2().digest.as_str()), "{name}");
        let blob = gateway.send(&Call::new("GET", &format!("/v2/{name}/blobs/{}", image.config_digest()))).await;
        assert_eq!(blob.status, 200, "{name}");
        let tags = gateway.send(&Call::new("GET", &format!("/v2/{name}/tags/list"))).await;
        assert_eq!(tags.json()["name"], name);
    }
    let tagged = Image::small("tagged manifests");
    upstream.put_image("a", "manifests", &tagged, &tagged.oci());
    assert_eq!(
        gateway.manifest(&Client::docker_17(), "/v2/a/manifests/manifests").await.digest(),
        tagged.schema2().digest
    );
}

#[tokio::test]
async fn other_registry_paths_pass_with_their_query() {
    let (upstream, gateway) = stage().await;
    let image = Image::small("app");
    let sbom = crate::support::images::artifact("sbom").changed(|manifest| {
        manifest["subject"] = serde_json::json!({"mediaType": "x", "digest": image.oci().digest, "size": 1});
    });
    upstream.put("app", "other", &sbom);
    let tags = gateway.send(&Call::new("GET", "/v2/app/tags/list?n=1")).await;
    assert_eq!(tags.json()["tags"], serde_json::json!(["latest"]));
    let referrers =
        gateway.send(&Call::new("GET", &format!("/v2/app/referrers/{}?artifactType=a%2Fb", image.oci().digest))).await;
    assert_eq!(referrers.json()["manifests"][0]["digest"], sbom.digest);
    assert_eq!(referrers.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(upstream.requests_to("GET", "/v2/app/referrers/*")[0].query, "artifactType=a%2Fb");
    assert_eq!(gateway.send(&Call::new("GET", "/v2/_catalog")).await.status, 200);
}

#[tokio::test]
async fn a_page_link_leads_back_to_the_gateway() {
    let (upstream, gateway) = stage().await;
    upstream.put("app", "second", &Image::small("second").oci());
    for written in
        ["/v2/app/tags/list?last=latest&n=1".to_owned(), format!("{}/v2/app/tags/list?last=latest&n=1", upstream.url())]
    {
        upstream.behave();
        upstream.when("GET", "/v2/app/tags/list").times(1).with("link", &format!("<{written}>; rel=\"next\""));
        let first = gateway.send(&Call::new("GET", "/v2/app/tags/list?n=1")).await;
        let link = first.header("link").unwrap();
        let target = link.strip_prefix('<').unwrap().split('>').next().unwrap();
        let target = target.strip_prefix(&format!("http://{}", gateway.address())).unwrap_or(target);
        assert!(target.starts_with("/v2/app/tags/list?"), "{link}");
        assert_eq!(gateway.send(&Call::new("GET", target)).await.json()["tags"], serde_json::json!(["second"]));
    }
}

#[tokio::test]
async fn a_namespace_that_nobody_has_is_nobodys_and_nothing_is_dialled() {
    let (upstream, _) = stage().await;
    let gateway = Setup::default().known_as("docker.io").before(&upstream).await;
    upstream.forget();
    let connections = upstream.connections();
    for query in ["ns=quay.io", "ns=http://169.254.169.254", "ns=docker.io&ns=docker.io", "ns=", "ns=user:pw@docker.io"]
    {
        let got = gateway.manifest(&Client::containerd_1_6(), &format!("/v2/app/manifests/latest?{query}")).await;
        assert_eq!((got.status, got.error().0.as_str()), (404, "NAME_UNKNOWN"), "{query}");
    }
    assert_eq!((upstream.lines(), upstream.connections()), (Vec::new(), connections));
    for query in ["ns=docker.io", "ns=DOCKER.IO:443", "NS=x"] {
        let got = gateway.manifest(&Client::containerd_1_6(), &format!("/v2/app/manifests/latest?{query}")).await;
        assert_eq!(got.status, 200, "{query}");
    }
    assert!(upstream.requests().iter().all(|request| !request.query.contains("ns=docker")));
}

#[tokio::test]
async fn a_body_on_a_read_never_goes_upstream() {
    let (upstream, gateway) = stage().await;
    for method in ["GET", "HEAD"] {
        for target in ["/v2/", "/v2/app/manifests/latest", "/v2/app/tags/list"] {
            gateway.send(&Call::new(method, target).body("GET /v2/evil HTTP/1.1\r\n\r\n")).await;
        }
    }
    for request in upstream.requests() {
        assert!(
            request.body.is_empty() && request.header("content-length").is_none_or(|length| length == "0"),
            "{}",
            request.line()
        );
        assert!(!request.path.contains("evil"));
    }
}

/// The body of a read must not be taken for the next request on the same connection.
#[tokio::test]
async fn an_unread_body_is_not_the_next_request() {
    let (upstream, gateway) = stage().await;
    let hidden = "GET /v2/hidden/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = format!(
        "GET /v2/app/tags/list HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{hidden}GET /v2/app/manifests/latest HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        hidden.len()
    );
    raw(gateway.address(), request.as_bytes()).await;
    assert!(upstream.requests_to("*", "/v2/hidden/*").is_empty(), "{:?}", upstream.lines());
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let (upstream, gateway) = stage().await;
    let cases = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: -5\r\n\r\n",
        "X-Folded: a\r\n b\r\n\r\n",
        "X Space: a\r\n\r\n",
    ];
    for case in cases {
        let request = format!("GET /v2/app/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{case}");
        let answer = raw(gateway.address(), request.as_bytes()).await;
        let line = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        let is_harmless = line == "HTTP/1.1 400"
            || upstream
                .requests()
                .iter()
                .all(|seen| seen.header("transfer-encoding").is_none() && seen.body.is_empty());
        assert!(is_harmless, "{case}: {line}");
    }
    let old = raw(gateway.address(), b"GET /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert!(
        old.starts_with(b"HTTP/1.0 400") || old.starts_with(b"HTTP/1.1 400") || old.is_empty(),
        "{}",
        String::from_utf8_lossy(&old)
    );
}

#[tokio::test]
async fn old_http_without_a_host_is_answered() {
    let (_upstream, gateway) = stage().await;
    let answer = raw(gateway.address(), b"GET /v2/ HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
}

/// Whatever the path, either it goes upstream in the very bytes that came, or it does not go.
#[test]
fn a_path_goes_upstream_as_it_came_or_not_at_all() {
    const SEGMENT: &str = "(%2[ef]|%00|\\.\\.?|;|[a-z]{1,3}|manifests|blobs|tags|list|latest|uploads|%[0-9a-f]{2}|)";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (upstream, gateway) = runtime.block_on(stage());
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) });
    let outcome = runner.run(&proptest::collection::vec(SEGMENT, 1..7), |segments| {
        let path = format!("/v2/{}", segments.join("/"));
        upstream.forget();
        runtime.block_on(gateway.send(&Call::new("GET", &path)));
        for request in upstream.requests() {
            prop_assert_eq!(&request.path, &path);
        }
        Ok(())
    });
    outcome.unwrap();
}
