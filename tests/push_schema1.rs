//! A schema 1 that the upstream does not take is stored as schema 2; whoever pushed it sees the digest that it computed, and
//! can pull by it.

use std::time::Duration;

use bytes::Bytes;
use schemabridge::gateway::{LayerLimits, PushAs};
use schemabridge::image::manifest::Manifest;
use schemabridge::translate::{BadSignature, SigningKey, signed, verify};
use serde_json::Value;

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{
    DOCKER_CONFIG, Document, EMPTY_LAYER, EMPTY_LAYER_BYTES, OCI, OCI_CONFIG, SCHEMA1_SIGNED, SCHEMA2, payload,
};
use crate::support::layers::{archive, gzip, noise, schema1, zstd};
use crate::support::upstream::Upstream;
use crate::support::{basic, patiently, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";
const DOCKER_1_9: &str = "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0 os/linux arch/amd64";

/// What distribution 3.1 and distribution 2.8 with schema 1 switched off answer, and what others do.
const REFUSALS: [(u16, &str); 3] = [(400, "MANIFEST_INVALID"), (500, "UNKNOWN"), (415, "UNSUPPORTED")];

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    archives: [Vec<u8>; 2],
    /// The layers are in the repository already.
    layers: [String; 2],
    pushed: Bytes,
}

impl Stage {
    async fn new(refusal: (u16, &'static str)) -> Self {
        let upstream = Upstream::start().await;
        upstream.contents().refuses_schema1 = Some(refusal);
        let archives = [archive("etc/one", &noise(1, 300_000)), archive("etc/two", b"two")];
        let layers = archives.each_ref().map(|archive| upstream.contents().put_blob("app", gzip(archive)));
        let document = schema1(&[&layers[0], &layers[1]]);
        let pushed = sign(document);
        let gateway = Setup::default().push().before(&upstream).await;
        Self { upstream, gateway, archives, layers, pushed }
    }

    async fn push(&self, document: &[u8]) -> Reply {
        let call = Call::new("PUT", TAGGED).header("Content-Type", SCHEMA1_SIGNED).header("User-Agent", DOCKER_1_9);
        self.gateway.send(&call.body(document.to_vec())).await
    }

    /// The digest that the client computes.
    fn digest(&self) -> String {
        sha256(&payload(&self.pushed))
    }

    fn assert_nothing_is_stored(&self) {
        assert!(self.upstream.contents().manifest("app", "latest").is_none());
        let puts = self.upstream.requests_to("PUT", "*");
        assert!(puts.iter().all(|put| put.path == TAGGED), "{:?}", self.upstream.lines());
    }
}

#[tokio::test]
async fn it_is_stored_as_schema_2_and_pulled_by_everybody() {
    for refusal in REFUSALS {
        let stage = Stage::new(refusal).await;
        let put = stage.push(&stage.pushed).await;
        assert_eq!((put.status, put.digest()), (201, stage.digest().as_str()), "{refusal:?} {}", put.text());
        let location = format!("http://{}/v2/app/manifests/{}", stage.gateway.address(), stage.digest());
        assert_eq!(put.header("location"), Some(location.as_str()));

        let stored = stage.upstream.contents().manifest("app", "latest").unwrap().clone();
        assert_eq!(stored.content_type, SCHEMA2);
        let manifest = stored.json();
        for (position, layer) in stage.layers.iter().enumerate() {
            assert_eq!(manifest["layers"][position]["digest"], layer.as_str());
        }
        let config = stage.upstream.contents().blob("app", manifest["config"]["digest"].as_str().unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let diff_ids = stage.archives.each_ref().map(|archive| sha256(archive));
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["/bin/sh"]));

        let old = Client::new(DOCKER_1_9, &[]);
        for target in [TAGGED.to_owned(), format!("/v2/app/manifests/{}", stage.digest())] {
            let pulled = stage.gateway.manifest(&old, &target).await;
            assert_eq!((pulled.status, pulled.digest()), (200, stage.digest().as_str()), "{target} {}", pulled.text());
            assert_eq!(pulled.body, stage.pushed, "{target}");
        }
        let pulled = stage.gateway.manifest(&Client::only(SCHEMA2), TAGGED).await;
        assert_eq!((pulled.status, pulled.digest()), (200, stored.digest.as_str()));
        let pulled = stage.gateway.manifest(&Client::only(OCI), TAGGED).await;
        assert_eq!((pulled.status, pulled.content_type()), (200, OCI), "{}", pulled.text());
    }
}

#[tokio::test]
async fn an_upstream_that_takes_it_has_it_as_it_was_pushed() {
    let stage = Stage::new(REFUSALS[0]).await;
    stage.upstream.contents().refuses_schema1 = None;
    let call = Call::new("PUT", TAGGED).header("Content-Type", SCHEMA1_SIGNED).body(stage.pushed.to_vec());
    let put = stage.gateway.send(&call).await;
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(stage.upstream.requests_to("PUT", "*")[0].body, stage.pushed);
}

#[tokio::test]
async fn what_was_changed_since_it_was_signed_is_refused_and_nothing_is_written() {
    let stage = Stage::new(REFUSALS[0]).await;
    let changed = String::from_utf8(stage.pushed.to_vec()).unwrap().replacen("amd64", "arm64", 1);
    let put = stage.push(changed.as_bytes()).await;
    assert_eq!((put.status, put.error().0.as_str()), (400, "MANIFEST_UNVERIFIED"), "{}", put.text());
    stage.assert_nothing_is_stored();
    let unsigned = stage.push(&payload(&stage.pushed)).await;
    assert_eq!((unsigned.status, unsigned.error().0.as_str()), (400, "MANIFEST_UNVERIFIED"), "{}", unsigned.text());
    stage.assert_nothing_is_stored();
}

/// Not even the blob that everybody knows.
#[tokio::test]
async fn nothing_goes_along_with_what_was_changed_since_it_was_signed() {
    let layers = || [gzip(&archive("etc/one", b"one")), gzip(&archive("etc/two", b"two"))];
    let document = |[lower, upper]: [&str; 2]| schema1(&[lower, EMPTY_LAYER, upper]);
    let stage = Stage::of(layers(), document, Setup::default()).await;
    let changed = String::from_utf8(stage.pushed.to_vec()).unwrap().replacen("amd64", "arm64", 1);
    let put = stage.push(changed.as_bytes()).await;
    assert_eq!((put.status, put.error().0.as_str()), (400, "MANIFEST_UNVERIFIED"), "{}", put.text());
    stage.assert_nothing_is_stored();
    assert!(stage.upstream.contents().blob("app", EMPTY_LAYER).is_none());
}

#[tokio::test]
async fn a_layer_that_only_another_repository_has_is_named_and_nothing_is_written() {
    let stage = Stage::new(REFUSALS[0]).await;
    // The gateway knows all about the layers after this.
    assert_eq!(stage.push(&stage.pushed).await.status, 201);
    let elsewhere = Call::new("PUT", "/v2/other/manifests/latest").header("Content-Type", SCHEMA1_SIGNED);
    let put = stage.gateway.send(&elsewhere.body(stage.pushed.to_vec())).await;
    let (code, words) = put.error();
    assert_eq!((put.status, code.as_str()), (404, "BLOB_UNKNOWN"), "{words}");
    assert!(stage.layers.iter().any(|layer| words.contains(layer.as_str())), "{words}");
    assert!(stage.upstream.contents().manifest("other", "latest").is_none());
    assert!(stage.upstream.requests_to("POST", "/v2/other/blobs/uploads/").is_empty());
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_format_is_the_answer() {
    let stage = Stage::new((403, "DENIED")).await;
    let put = stage.push(&stage.pushed).await;
    assert_eq!((put.status, put.error().0.as_str()), (403, "DENIED"), "{}", put.text());
    stage.assert_nothing_is_stored();
}

/// A stage whose layers are these, with a document of its own over them.
impl Stage {
    async fn of(layers: [Bytes; 2], document: impl FnOnce([&str; 2]) -> Document, setup: Setup) -> Self {
        let upstream = Upstream::start().await;
        upstream.contents().refuses_schema1 = Some(REFUSALS[0]);
        let archives = [archive("etc/one", b"one"), archive("etc/two", b"two")];
        let layers = layers.map(|layer| upstream.contents().put_blob("app", layer));
        let pushed = sign(document([&layers[0], &layers[1]]));
        let gateway = setup.push().before(&upstream).await;
        Self { upstream, gateway, archives, layers, pushed }
    }

    /// The manifest under the tag, and its config.
    fn stored(&self) -> (Document, Value) {
        let stored = self.upstream.contents().manifest("app", "latest").unwrap().clone();
        let config = stored.json()["config"]["digest"].as_str().unwrap().to_owned();
        let config = self.upstream.contents().blob("app", &config).unwrap();
        (stored, serde_json::from_slice(&config).unwrap())
    }
}

fn sign(document: Document) -> Bytes {
    let key = SigningKey::generate([7; 32]).unwrap();
    signed(&Manifest::parse(document.bytes).unwrap(), &key)
}

fn layer_types(manifest: &Document) -> Vec<String> {
    let layers = manifest.json()["layers"].as_array().unwrap().clone();
    layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn it_is_stored_as_oci_where_the_operator_wants_that() {
    let layers = || [gzip(&archive("etc/one", b"one")), Bytes::from(archive("etc/two", b"two"))];
    let document = |layers: [&str; 2]| schema1(&layers);
    let schema2 = Stage::of(layers(), document, Setup::default()).await;
    let oci = Stage::of(layers(), document, Setup::default().push_as(PushAs::Oci)).await;
    for stage in [&schema2, &oci] {
        let put = stage.push(&stage.pushed).await;
        assert_eq!((put.status, put.digest()), (201, stage.digest().as_str()), "{}", put.text());
    }
    let ((as_schema2, config), (as_oci, same)) = (schema2.stored(), oci.stored());
    assert_eq!((as_schema2.content_type.as_str(), as_oci.content_type.as_str()), (SCHEMA2, OCI));
    assert_eq!(as_schema2.json()["config"]["mediaType"], DOCKER_CONFIG);
    assert_eq!(as_oci.json()["config"]["mediaType"], OCI_CONFIG);
    assert_eq!(config, same, "one image ID in either family");
    let docker = "application/vnd.docker.image.rootfs.diff.tar";
    assert_eq!(layer_types(&as_schema2), [format!("{docker}.gzip"), docker.to_owned()]);
    let plain = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(layer_types(&as_oci), [format!("{plain}+gzip"), plain.to_owned()]);
    let old = Client::docker_1_9_1();
    let pulled = oci.gateway.manifest(&old, &format!("/v2/app/manifests/{}", oci.digest())).await;
    assert_eq!((pulled.status, pulled.body.as_slice()), (200, &oci.pushed[..]), "{}", pulled.text());
    assert_eq!(oci.gateway.manifest(&old, TAGGED).await.body, oci.pushed);
}

/// schema 2 has no word for zstd that old engines read.
#[tokio::test]
async fn a_zstd_layer_is_stored_in_oci_and_refused_in_schema_2() {
    let layers = || [zstd(&archive("etc/one", b"one")), gzip(&archive("etc/two", b"two"))];
    let document = |layers: [&str; 2]| schema1(&layers);
    let stage = Stage::of(layers(), document, Setup::default().push_as(PushAs::Oci)).await;
    assert_eq!(stage.push(&stage.pushed).await.status, 201);
    assert_eq!(layer_types(&stage.stored().0)[0], "application/vnd.oci.image.layer.v1.tar+zstd");
    let stage = Stage::of(layers(), document, Setup::default()).await;
    let refused = stage.push(&stage.pushed).await;
    let (code, words) = refused.error();
    assert_eq!((refused.status, code.as_str()), (400, "MANIFEST_INVALID"), "{words}");
    assert!(words.contains("zstd") && words.contains("--push-as oci"), "{words}");
    assert!(words.contains("nothing was written"), "{words}");
    stage.assert_nothing_is_stored();
}

/// `CMD` and its like make no layer, and a `RUN true` of old engines an empty one.
#[tokio::test]
async fn steps_without_a_layer_stay_steps_and_the_empty_layer_goes_along() {
    let layers = [gzip(&archive("etc/one", b"one")), gzip(&archive("etc/two", b"two"))];
    let document = |[lower, upper]: [&str; 2]| {
        schema1(&[lower, EMPTY_LAYER, upper, EMPTY_LAYER]).changed(|manifest| {
            let entry = &mut manifest["history"][0]["v1Compatibility"];
            let mut step: Value = serde_json::from_str(entry.as_str().unwrap()).unwrap();
            step["throwaway"] = true.into();
            *entry = step.to_string().into();
        })
    };
    let stage = Stage::of(layers, document, Setup::default()).await;
    let put = stage.push(&stage.pushed).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let (manifest, config) = stage.stored();
    let digests: Vec<Value> =
        manifest.json()["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect();
    assert_eq!(digests, [stage.layers[0].as_str(), EMPTY_LAYER, stage.layers[1].as_str()]);
    let steps: Vec<bool> =
        config["history"].as_array().unwrap().iter().map(|step| step["empty_layer"] == true).collect();
    assert_eq!(steps, [false, false, false, true]);
    // The archive of nothing: 1,024 zeros.
    let diff_ids = [sha256(&stage.archives[0]), sha256(&[0; 1024]), sha256(&stage.archives[1])];
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
    assert_eq!(stage.upstream.contents().blob("app", EMPTY_LAYER).unwrap(), &EMPTY_LAYER_BYTES[..]);
}

#[tokio::test]
async fn a_push_by_digest_is_stored_under_the_digest_of_what_is_stored() {
    let stage = Stage::new(REFUSALS[0]).await;
    let push = |target: String| {
        let call = Call::new("PUT", &target).header("Content-Type", SCHEMA1_SIGNED).header("User-Agent", DOCKER_1_9);
        call.body(stage.pushed.to_vec())
    };
    let put = stage.gateway.send(&push(format!("/v2/app/manifests/{}", stage.digest()))).await;
    assert_eq!((put.status, put.digest()), (201, stage.digest().as_str()), "{}", put.text());
    assert!(stage.upstream.contents().manifest("app", "latest").is_none(), "no tag was asked for");
    let pulled =
        stage.gateway.manifest(&Client::docker_1_9_1(), &format!("/v2/app/manifests/{}", stage.digest())).await;
    assert_eq!(pulled.body, stage.pushed);
    let source = pulled.header("schemabridge-source-digest").unwrap();
    assert_eq!(stage.upstream.contents().manifest("app", source).unwrap().content_type, SCHEMA2);
    let other = stage.gateway.send(&push(format!("/v2/app/manifests/{}", sha256(b"other")))).await;
    assert_eq!(other.status, 400, "{}", other.text());
}

#[tokio::test]
async fn what_was_pushed_is_pulled_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage::new(REFUSALS[0]).await;
    let gateway = Setup::default().push().store_in(directory.path()).before(&stage.upstream).await;
    let call = Call::new("PUT", TAGGED).header("Content-Type", SCHEMA1_SIGNED).header("User-Agent", DOCKER_1_9);
    assert_eq!(gateway.send(&call.body(stage.pushed.to_vec())).await.status, 201);
    gateway.stop().await;
    let gateway = Setup::default().push().store_in(directory.path()).before(&stage.upstream).await;
    let old = Client::docker_1_9_1();
    let pulled = gateway.manifest(&old, &format!("/v2/app/manifests/{}", stage.digest())).await;
    assert_eq!((pulled.status, pulled.body.as_slice()), (200, &stage.pushed[..]), "{}", pulled.text());
    let tagged = gateway.manifest(&old, TAGGED).await;
    assert_eq!(tagged.status, 200, "{}", tagged.text());
    let layers = tagged.json()["fsLayers"].clone();
    assert_eq!(layers, serde_json::json!([{"blobSum": stage.layers[1]}, {"blobSum": stage.layers[0]}]));
}

/// Docker 1.9 waits a minute and does not ask again by itself.
#[tokio::test]
async fn a_push_whose_layers_take_too_long_is_answered_and_the_next_one_finds_them_read() {
    let mut stage = Stage::new(REFUSALS[0]).await;
    let limits = LayerLimits { derive_timeout: Duration::from_millis(50), ..LayerLimits::default() };
    stage.gateway = Setup::default().push().layer_limits(limits).before(&stage.upstream).await;
    let path = format!("/v2/app/blobs/{}", stage.layers[0]);
    let gate = stage.upstream.when("GET", &path).hold_body(1000);
    let waited = stage.push(&stage.pushed).await;
    let (code, words) = waited.error();
    assert_eq!((waited.status, code.as_str(), waited.header("retry-after")), (503, "UNAVAILABLE", Some("10")));
    assert!(words.contains("push it again"), "{words}");
    stage.assert_nothing_is_stored();
    patiently("the layer to be asked for", gate.reached(1)).await;
    gate.open();
    let done = async {
        loop {
            let put = stage.push(&stage.pushed).await;
            if put.status == 201 {
                return put;
            }
            assert_eq!(put.status, 503, "{}", put.text());
        }
    };
    let put = patiently("the layers to be read", done).await;
    assert_eq!(put.digest(), stage.digest());
    assert_eq!(stage.upstream.requests_to("GET", &path).len(), 1, "it was not begun again");
}

#[tokio::test]
async fn an_upstream_that_refuses_the_config_or_the_schema_2_is_the_answer_and_the_tag_stays() {
    let refusals = [
        ("POST", "/v2/app/blobs/uploads/", Answer::error(403, "DENIED", "no more blobs")),
        (
            "PUT",
            "/v2/app/blobs/uploads/*",
            Answer::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", "7"),
        ),
        ("PUT", "/v2/app/blobs/uploads/*", Answer::error(500, "UNKNOWN", "disk full")),
    ];
    for (method, path, answer) in refusals {
        let stage = Stage::new(REFUSALS[0]).await;
        stage.upstream.when(method, path).answer(answer.clone());
        let put = stage.push(&stage.pushed).await;
        assert_eq!(put.status, answer.status.as_u16(), "{}", put.text());
        assert_eq!(put.header("retry-after"), answer.headers.get("retry-after").map(|value| value.to_str().unwrap()));
        assert!(stage.upstream.contents().manifest("app", "latest").is_none());
        assert_eq!(stage.upstream.requests_to("PUT", TAGGED).len(), 1, "the schema 2 was not tried");
        stage.upstream.behave();
        assert_eq!(stage.push(&stage.pushed).await.status, 201);
    }
    let stage = Stage::new(REFUSALS[0]).await;
    // Both are refused: the last word is the one about the schema 2.
    let answer = Answer::error(400, "MANIFEST_INVALID", "nor this one");
    stage.upstream.when("PUT", TAGGED).answer(answer);
    let put = stage.push(&stage.pushed).await;
    assert_eq!((put.status, put.error()), (400, ("MANIFEST_INVALID".to_owned(), "nor this one".to_owned())));
    // The script changes what is said alone.
    let taken = stage.upstream.contents().manifest("app", "latest").unwrap().digest.clone();
    stage.upstream.contents().remove_manifest("app", &taken);
    let old = Client::docker_1_9_1();
    let unseen = stage.gateway.manifest(&old, &format!("/v2/app/manifests/{}", stage.digest())).await;
    assert_eq!(unseen.status, 404, "what is not stored is not shown: {}", unseen.text());
}

/// A mount reads from another repository, which is the upstream's to allow. What the gateway knows of the layer from elsewhere helps
/// nobody who cannot see it.
#[tokio::test]
async fn a_layer_mounted_from_where_the_caller_may_not_look_is_missing() {
    let stage = Stage::new(REFUSALS[0]).await;
    assert_eq!(stage.push(&stage.pushed).await.status, 201, "the gateway knows the layers from here on");
    stage.upstream.contents().close("Basic realm=\"registry\"");
    let bob = basic("bob", "password");
    stage.upstream.contents().admit(&bob, "other");
    let as_bob = |method: &str, target: &str| {
        Call::new(method, target).header("User-Agent", DOCKER_1_9).header("Authorization", &bob)
    };
    for layer in &stage.layers {
        let mount = format!("/v2/other/blobs/uploads/?mount={layer}&from=app");
        assert_eq!(stage.gateway.send(&as_bob("POST", &mount).body("")).await.status, 202);
    }
    let call = as_bob("PUT", "/v2/other/manifests/latest").header("Content-Type", SCHEMA1_SIGNED);
    let put = stage.gateway.send(&call.body(stage.pushed.to_vec())).await;
    let (code, words) = put.error();
    assert_eq!((put.status, code.as_str()), (404, "BLOB_UNKNOWN"), "{words}");
    assert!(stage.upstream.contents().manifest("other", "latest").is_none());
    assert!(stage.layers.iter().all(|layer| stage.upstream.contents().blob("other", layer).is_none()));
    // Nor is the name of a repository that is not served good for a mount.
    let upstream = Upstream::start().await;
    let layer = upstream.contents().put_blob("secret/app", gzip(&archive("etc/one", b"one")));
    let gateway = Setup::default().push().repositories(&["**"], &["secret/**"]).before(&upstream).await;
    let mount = Call::new("POST", &format!("/v2/app/blobs/uploads/?mount={layer}&from=secret/app")).body("");
    assert_eq!(gateway.send(&mount.header("User-Agent", DOCKER_1_9)).await.status, 403);
    assert!(upstream.requests().is_empty());
}

#[test]
fn signatures_of_another_program_fit_and_no_changed_payload_does() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema1");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "signed") {
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(verify(&Manifest::parse(text.clone().into()).unwrap()), Ok(()), "{file:?}");
            let changed = text.replacen("\"schemaVersion\": 1", "\"schemaVersion\":  1", 1).replacen(
                "\"name\": \"",
                "\"name\":\"",
                1,
            );
            assert_ne!(changed, text);
            let changed = Manifest::parse(changed.into()).unwrap();
            assert_eq!(verify(&changed), Err(BadSignature::Unfit), "{file:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}
