//! A schema 1 that the upstream does not take is stored as schema 2; whoever pushed it sees the digest that it computed, and
//! can pull by it.

use bytes::Bytes;
use schemabridge::image::manifest::Manifest;
use schemabridge::translate::{BadSignature, SigningKey, signed, verify};

use crate::support::client::{Call, Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{OCI, SCHEMA1_SIGNED, SCHEMA2, payload};
use crate::support::layers::{archive, gzip, noise, schema1};
use crate::support::sha256;
use crate::support::upstream::Upstream;

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
        let key = SigningKey::generate([7; 32]).unwrap();
        let pushed = signed(&Manifest::parse(document.bytes).unwrap(), &key);
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
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
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
