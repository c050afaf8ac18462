//! A client that reads no list is given one platform's image: its own where it says so, and never another one instead.

use serde_json::json;

use crate::support::client::{Client, Reply};
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document, Image, Kind};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

fn image(platform: &str) -> Image {
    Image::buildkit(platform, platform.split('/').nth(1).unwrap(), Kind::Gzip, 1)
}

/// An index of one image for each platform, in this order.
async fn with_platforms(platforms: &[&str]) -> (Upstream, Gateway) {
    let upstream = Upstream::start().await;
    let documents: Vec<Document> = platforms.iter().map(|platform| image(platform).oci()).collect();
    let children: Vec<(&Document, &str)> = documents.iter().zip(platforms.iter().copied()).collect();
    for (platform, document) in platforms.iter().zip(&documents) {
        upstream.put_image("app", "latest", &image(platform), document);
    }
    upstream.put("app", "latest", &images::index(&children));
    let gateway = Gateway::before(&upstream).await;
    (upstream, gateway)
}

fn docker_on(os: &str, architecture: &str) -> Client {
    Client::new(&format!("docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 os/{os} arch/{architecture}"), &[])
}

/// The layer of the image that was chosen.
fn layer(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let document = reply.json();
    let schema1 = document["fsLayers"][0]["blobSum"].as_str();
    schema1.or(document["layers"][0]["digest"].as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn the_engines_own_platform_is_chosen() {
    let (_upstream, gateway) = with_platforms(&["linux/arm64/v8", "linux/s390x", "linux/amd64", "linux/ppc64le"]).await;
    for (architecture, chosen) in
        [("amd64", "linux/amd64"), ("s390x", "linux/s390x"), ("ppc64le", "linux/ppc64le"), ("arm64", "linux/arm64/v8")]
    {
        let got = gateway.manifest(&docker_on("linux", architecture), TAGGED).await;
        assert_eq!(layer(&got), image(chosen).layers[0].digest, "{architecture}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_on_linux_amd64() {
    let (_upstream, gateway) = with_platforms(&["linux/arm64", "linux/amd64"]).await;
    for reads in [images::SCHEMA1_SIGNED, images::SCHEMA2] {
        let got = gateway.manifest(&Client::only(reads), TAGGED).await;
        assert_eq!((got.content_type(), layer(&got)), (reads, image("linux/amd64").layers[0].digest.clone()));
    }
}

/// No engine says its variant, so it is given the one that runs on all.
#[tokio::test]
async fn arm_without_a_variant_is_given_what_runs_everywhere() {
    let cases: [(&[&str], &str); 4] = [
        (&["linux/arm/v7", "linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        (&["linux/arm/v7", "linux/arm", "linux/arm/v5"], "linux/arm/v5"),
        (&["linux/arm/v7", "linux/arm"], "linux/arm"),
        (&["linux/amd64", "linux/arm/v7"], "linux/arm/v7"),
    ];
    for (platforms, chosen) in cases {
        let (_upstream, gateway) = with_platforms(platforms).await;
        assert_eq!(
            layer(&gateway.manifest(&docker_on("linux", "arm"), TAGGED).await),
            image(chosen).layers[0].digest,
            "{platforms:?}"
        );
    }
}

#[tokio::test]
async fn no_engine_is_given_another_platforms_image() {
    let (_upstream, gateway) = with_platforms(&["linux/amd64", "linux/arm64"]).await;
    for (os, architecture) in [("linux", "arm"), ("linux", "s390x"), ("windows", "amd64")] {
        let refused = gateway.manifest(&docker_on(os, architecture), TAGGED).await;
        assert_eq!((refused.status, refused.error().0.as_str()), (406, "UNSUPPORTED"), "{os}/{architecture}");
    }
}

#[tokio::test]
async fn an_attestation_is_no_image() {
    let app = Image::classic("app");
    let attestation = Image::buildkit("attestation", "unknown", Kind::InToto, 1);
    let index = images::index(&[(&attestation.oci(), "unknown/unknown"), (&app.oci(), "linux/amd64")]).changed(|index| {
        index["manifests"][0]["annotations"] =
            json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": app.oci().digest});
    });
    let disguised =
        images::index(&[(&attestation.oci(), "linux/amd64"), (&app.oci(), "linux/amd64")]).changed(|index| {
            index["manifests"][0]["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        });
    for stored in [index, disguised] {
        let upstream = Upstream::start().await;
        upstream.put_image("app", "latest", &app, &app.oci());
        upstream.put_image("app", "latest", &attestation, &attestation.oci());
        upstream.put("app", "latest", &stored);
        let gateway = Gateway::before(&upstream).await;
        let got = gateway.manifest(&Client::only(images::SCHEMA2), TAGGED).await;
        assert_eq!(got.digest(), app.schema2().digest, "{}", got.text());
    }
}

/// Of two images of one platform the one that can be translated.
#[tokio::test]
async fn a_gzip_image_is_chosen_before_its_zstd_twin() {
    let (zstd, gzip) =
        (Image::buildkit("zstd", "amd64", Kind::Zstd, 1), Image::buildkit("gzip", "amd64", Kind::Gzip, 1));
    let upstream = Upstream::start().await;
    upstream.put_image("app", "latest", &zstd, &zstd.oci());
    upstream.put_image("app", "latest", &gzip, &gzip.oci());
    upstream.put("app", "latest", &images::index(&[(&zstd.oci(), "linux/amd64"), (&gzip.oci(), "linux/amd64")]));
    let gateway = Gateway::before(&upstream).await;
    for client in [Client::docker_1_9_1(), Client::only(images::SCHEMA2)] {
        assert_eq!(layer(&gateway.manifest(&client, TAGGED).await), gzip.layers[0].digest);
    }
}

#[tokio::test]
async fn a_list_goes_out_as_stored_to_who_reads_it_and_its_children_too() {
    let (upstream, gateway) = with_platforms(&["linux/amd64", "linux/arm64"]).await;
    let stored = upstream.contents().manifest("app", "latest").unwrap().clone();
    for client in [Client::docker_20_10(), Client::containerd_1_6(), Client::oci_only()] {
        let got = gateway.manifest(&client, TAGGED).await;
        assert_eq!((got.content_type(), &got.body[..]), (images::INDEX, &stored.bytes[..]));
        for platform in ["linux/amd64", "linux/arm64"] {
            let child = image(platform).oci();
            let got = gateway.manifest(&client, &format!("/v2/app/manifests/{}", child.digest)).await;
            assert_eq!((got.status, &got.body[..]), (200, &child.bytes[..]));
        }
    }
}

/// The digest of a platform's derived image comes back by digest with the index as its source.
#[tokio::test]
async fn a_chosen_image_is_pullable_by_the_digest_it_was_given() {
    let (upstream, gateway) = with_platforms(&["linux/amd64", "linux/arm64"]).await;
    for client in [docker_on("linux", "arm64"), Client::only(images::SCHEMA2)] {
        let by_tag = gateway.manifest(&client, TAGGED).await;
        let by_digest = gateway.manifest(&client, &format!("/v2/app/manifests/{}", by_tag.digest())).await;
        assert_eq!((by_digest.status, by_digest.text()), (200, by_tag.text()));
    }
    upstream.when("*", &format!("/v2/app/manifests/{}", image("linux/arm64").oci().digest)).reset();
    assert_eq!(
        gateway.manifest(&Client::only(images::SCHEMA2), TAGGED).await.status,
        200,
        "the other child is not asked for"
    );
}

#[tokio::test]
async fn a_child_that_is_missing_or_lies_is_no_image() {
    let (upstream, gateway) = with_platforms(&["linux/amd64", "linux/arm64"]).await;
    let child = format!("/v2/app/manifests/{}", image("linux/amd64").oci().digest);
    upstream.when("GET", &child).times(1).with_body("{}");
    assert_eq!(gateway.get(&Client::only(images::SCHEMA2), TAGGED).await.status, 502);
    upstream.contents().remove_manifest("app", &image("linux/amd64").oci().digest);
    let missing = gateway.get(&Client::only(images::SCHEMA2), TAGGED).await;
    assert!(missing.status >= 400, "{}", missing.status);
    missing.error();
}

#[tokio::test]
async fn an_index_that_holds_itself_or_other_indexes_ends() {
    let app = Image::classic("app");
    let inner = images::index(&[(&app.oci(), "linux/amd64")]);
    let outer = images::index(&[(&inner, "linux/amd64")]);
    let many: Vec<(Document, String)> =
        (0..10_000).map(|number| (Image::small("x").oci(), format!("linux/none{number}"))).collect();
    let many: Vec<(&Document, &str)> = many.iter().map(|(document, platform)| (document, platform.as_str())).collect();
    for stored in [outer, images::index(&many)] {
        let upstream = Upstream::start().await;
        upstream.put_image("app", "latest", &app, &app.oci());
        upstream.put("app", None, &inner);
        upstream.put("app", "latest", &stored);
        let gateway = Gateway::before(&upstream).await;
        let got = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
        assert!(matches!(got.status, 200 | 406), "{}", got.status);
        assert!(upstream.requests().len() < 12, "{} requests", upstream.requests().len());
    }
}
