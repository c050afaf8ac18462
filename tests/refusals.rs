//! Who cannot be served is told why, in the one form that every engine shows and none chokes on.

use std::time::Duration;

use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/team/app/manifests/latest";
const V1: &str = "/v1/repositories/team/app/images";

async fn with(document: &Document) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    upstream.put("team/app", "latest", document);
    // Every refusal is the upstream's of this moment.
    let gateway = Setup::default().tags(|tags| tags.negative_ttl = Duration::ZERO).before(&upstream).await;
    (upstream, gateway)
}

/// The message of the 406 that this client gets for this stored document.
async fn refused(document: &Document, image: Option<&Image>, client: &Client) -> String {
    let (upstream, gateway) = with(document).await;
    if let Some(image) = image {
        upstream.put_image("team/app", "latest", image, document);
    }
    let reply = gateway.manifest(client, TAGGED).await;
    let (code, message) = reply.error();
    assert_eq!((reply.status, code.as_str()), (406, "UNSUPPORTED"), "{message}");
    assert_eq!((reply.header("cache-control"), reply.header("vary")), (Some("no-store"), Some("Accept, User-Agent")));
    message
}

#[tokio::test]
async fn an_artifact_is_refused_to_a_client_that_cannot_read_it() {
    for document in [images::artifact("sbom"), images::helm_chart(), images::plugin()] {
        let message = refused(&document, None, &Client::docker_1_9_1()).await;
        assert!(message.contains("schema 1"), "{message}");
    }
    let withdrawn = Document::new(
        images::ARTIFACT,
        format!(r#"{{"mediaType":"{}","artifactType":"x/y","blobs":[]}}"#, images::ARTIFACT),
    );
    refused(&withdrawn, None, &Client::docker_17()).await;
}

#[tokio::test]
async fn what_schema_1_cannot_say_is_refused_with_the_reason() {
    for (kind, word) in
        [(Kind::Zstd, "zstd"), (Kind::Foreign, "foreign"), (Kind::Encrypted, "encrypted"), (Kind::InToto, "in-toto")]
    {
        let image = Image::buildkit("app", "amd64", kind, 2);
        let message = refused(&image.oci(), Some(&image), &Client::docker_1_9_1()).await;
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn what_schema_2_cannot_say_is_refused_with_the_reason() {
    for (kind, word) in [(Kind::Zstd, "zstd"), (Kind::Encrypted, "encrypted"), (Kind::InToto, "in-toto")] {
        let image = Image::buildkit("app", "amd64", kind, 2);
        let message = refused(&image.oci(), Some(&image), &Client::docker_17()).await;
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn a_missing_platform_is_refused_with_those_that_are_there() {
    let arm = Image::buildkit("app", "arm64", Kind::Gzip, 1);
    let power = Image::buildkit("app", "ppc64le", Kind::Gzip, 1);
    let list = images::list(&[(&arm.schema2(), "linux/arm64/v8"), (&power.schema2(), "linux/ppc64le")]);
    let message = refused(&list, None, &Client::docker_1_9_1()).await;
    for platform in ["linux/amd64", "linux/arm64", "linux/ppc64le"] {
        assert!(message.contains(platform), "{message}");
    }
}

#[tokio::test]
async fn a_refusal_names_what_is_stored_what_is_read_and_what_to_do() {
    let message = refused(&images::schema1_signed("single-layer"), None, &Client::oci_only()).await;
    assert!(message.contains("schema 1") && message.contains("OCI"), "{message}");
    assert!(!message.is_empty() && !message.contains('\n'), "{message}");
}

/// These engines show nothing of the answer under `/v2/`, but print the body of this path.
#[tokio::test]
async fn docker_1_6_and_1_7_are_told_again_under_v1() {
    for version in ["1.6.2", "1.7.1"] {
        let client = Client::docker_early(version);
        let (_upstream, gateway) = with(&images::artifact("sbom")).await;
        let before = gateway.get(&client, V1).await;
        assert_eq!(before.status, 404);
        let message = gateway.get(&client, TAGGED).await.error().1;
        let after = gateway.get(&client, V1).await;
        assert_eq!(after.status, 406);
        assert!(after.content_type().starts_with("text/plain"), "{}", after.content_type());
        assert!(after.text().contains(&message), "{}", after.text());
        assert_eq!(after.header("content-length"), Some(after.body.len().to_string().as_str()));
        assert_eq!(gateway.get(&client, "/v1/repositories/team/other/images").await.status, 404);
    }
}

#[tokio::test]
async fn only_format_refusals_of_those_engines_are_repeated_under_v1() {
    let (upstream, gateway) = with(&images::artifact("sbom")).await;
    gateway.get(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!(gateway.get(&Client::docker_1_6_2(), V1).await.status, 404);
    upstream.when("*", TAGGED).answer(Answer::error(403, "DENIED", "no"));
    gateway.get(&Client::docker_1_6_2(), TAGGED).await;
    assert_eq!(gateway.get(&Client::docker_1_6_2(), V1).await.status, 404);
}

/// Nobody is asked who he is under `/v1/`, so it must not tell what only a caller with rights was told.
#[tokio::test]
async fn under_v1_formats_and_the_repository_are_named_and_nothing_of_the_document() {
    let image = Image::classic("app");
    let twice = image.oci().rewritten(|text| {
        text.replacen("{\"schemaVersion\"", "{\"private-key\":1,\"private-key\":2,\"schemaVersion\"", 1)
    });
    let private = image.oci_of_config_type("application/vnd.private-key+json");
    let index = images::index(&[(&Image::small("x").oci(), "private-os/private-key")]);
    for document in [image.oci(), twice, private, index] {
        let (_upstream, gateway) = with(&document).await;
        assert_eq!(gateway.get(&Client::docker_1_6_2(), TAGGED).await.status, 406);
        let told = gateway.get(&Client::docker_1_6_2(), V1).await.text();
        assert!(!told.contains("sha256:") && !told.contains("private-key"), "{told}");
    }
}

#[tokio::test]
async fn everything_else_under_v1_is_404_and_nothing_goes_upstream() {
    let (upstream, gateway) = with(&images::artifact("sbom")).await;
    for path in ["/v1/_ping", "/v1/", "/v1/search?q=x", "/v1/repositories/team/app/tags", "/v1/images/x/json", V1] {
        let got = gateway.get(&Client::docker_1_6_2(), path).await;
        assert_eq!(got.status, 404, "{path}");
        assert!(!got.body.is_empty());
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.lines());
}

/// `{}` and an empty list crash the request handler of Docker up to 1.9.
#[tokio::test]
async fn an_upstreams_error_without_a_usable_body_is_given_one() {
    let (upstream, gateway) = with(&Image::small("app").oci()).await;
    let bodies = [
        "",
        "{}",
        r#"{"errors":[]}"#,
        r#"{"errors":null}"#,
        r#"{"errors":[{}]}"#,
        "<html>503</html>",
        "[1]",
        "\u{feff}{",
    ];
    let statuses = [
        (400, ""),
        (401, "UNAUTHORIZED"),
        (403, "DENIED"),
        (404, "MANIFEST_UNKNOWN"),
        (429, "TOOMANYREQUESTS"),
        (500, ""),
        (503, ""),
    ];
    for body in bodies {
        for (status, code) in statuses {
            upstream.behave();
            let answer =
                Answer::new(status).header("content-type", "text/html").header("x-github-request-id", "7").body(body);
            upstream.when("*", "/v2/team/*").answer(answer);
            let manifest = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
            assert_eq!((manifest.status, manifest.header("x-github-request-id")), (status, Some("7")), "{body}");
            assert!(code.is_empty() || manifest.error().0 == code, "{status} {}", manifest.text());
            for target in [
                "/v2/team/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "/v2/team/app/tags/list",
            ] {
                let got = gateway.get(&Client::docker_1_9_1(), target).await;
                assert_eq!(got.status, status, "{body}");
                got.error();
            }
        }
    }
}

#[tokio::test]
async fn an_answer_to_head_has_the_words_that_the_upstream_could_not_say() {
    let (upstream, gateway) = with(&Image::small("app").oci()).await;
    for (status, code) in [(401, "UNAUTHORIZED"), (403, "DENIED"), (404, "MANIFEST_UNKNOWN"), (429, "TOOMANYREQUESTS")]
    {
        upstream.behave();
        let refusal = Answer::new(status)
            .header("www-authenticate", "Bearer realm=\"https://auth.example.com/token\",service=\"x\"")
            .header("retry-after", "11")
            .header("ratelimit-limit", "100;w=21600");
        upstream.when("*", TAGGED).answer(refusal);
        let got = gateway.manifest(&Client::docker_20_10(), TAGGED).await;
        let (found, message) = got.error();
        assert_eq!((got.status, found.as_str(), got.header("retry-after")), (status, code, Some("11")));
        assert_eq!(got.header("ratelimit-limit"), Some("100;w=21600"));
        assert!(got.header("www-authenticate").is_some());
        assert!(message.contains(&upstream.address().to_string()), "{message}");
    }
}

#[tokio::test]
async fn what_is_not_an_api_path_is_404_with_words() {
    let (upstream, gateway) = with(&Image::small("app").oci()).await;
    for path in ["/", "/index.html", "/v3/", "/metrics", "/v2x", "/favicon.ico"] {
        let got = gateway.send(&Call::new("GET", path)).await;
        assert_eq!(got.status, 404, "{path}");
        got.error();
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.lines());
}
