//! Down and up again: what old clients were given as schema 1, and pushed or kept as that, comes back as the image that it was.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Kind, Layer, OCI, SCHEMA1_SIGNED, SCHEMA2};
use crate::support::layers::{archive, gzip};
use crate::support::sha256;
use crate::support::upstream::Upstream;
use crate::translation_properties::{Image, classic_image};

const TAGGED: &str = "/v2/app/manifests/latest";

/// The image with an archive for each of its blobs. Docker leaves a list of no diff IDs out.
fn with_archives(image: &Image) -> images::Image {
    let archive = |blob: u8| archive(&format!("of/{blob}"), &[blob; 100]);
    let config = image.blobs().fold(image.config.replace(r#","diff_ids":[]"#, ""), |config, blob| {
        config.replace(&format!("sha256:{blob:064x}"), &sha256(&archive(blob)))
    });
    let layers = image.blobs().map(|blob| Layer::new(Kind::Gzip, gzip(&archive(blob))));
    images::Image { config: config.into(), layers: layers.collect() }
}

async fn comes_back(upstream: &Upstream, gateway: &Gateway, image: &images::Image, stored: &Document) {
    upstream.put_image("app", "latest", image, stored);
    let schema1 = gateway.manifest(&Client::docker_1_9_1(), TAGGED).await;
    assert_eq!((schema1.status, schema1.content_type()), (200, SCHEMA1_SIGNED), "{}", schema1.text());
    upstream.put("app", "latest", &Document::new(SCHEMA1_SIGNED, schema1.body));
    for media_type in [SCHEMA2, OCI] {
        let client = Client::only(media_type);
        let reply = gateway.manifest(&client, TAGGED).await;
        assert_eq!((reply.status, reply.content_type()), (200, media_type), "{}", reply.text());
        let manifest = reply.json();
        let digests = |layers: &serde_json::Value| -> Vec<String> {
            layers.as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
        };
        let layers: Vec<String> = image.layers.iter().map(|layer| layer.digest.clone()).collect();
        assert_eq!(digests(&manifest["layers"]), layers);
        let digest = manifest["config"]["digest"].as_str().unwrap();
        let config = gateway.get(&client, &format!("/v2/app/blobs/{digest}")).await;
        assert_eq!(config.text(), String::from_utf8_lossy(&image.config));
        assert_eq!(digest, image.config_digest());
    }
}

#[test]
fn a_classic_image_comes_back_from_schema_1_with_its_config_and_its_layers() {
    let runtime = Runtime::new().unwrap();
    let (upstream, gateway) = runtime.block_on(async {
        let upstream = Upstream::start().await;
        let gateway = Setup::default().upgrade_schema1().before(&upstream).await;
        (upstream, gateway)
    });
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
    let outcome = runner.run(&classic_image(), |image| {
        let image = with_archives(&image);
        for stored in [image.schema2(), image.oci()] {
            runtime.block_on(comes_back(&upstream, &gateway, &image, &stored));
        }
        Ok(())
    });
    outcome.unwrap();
}
