//! Lists and indexes made by the gateway, byte for byte against the golden files of `golden/index.py`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::images::{self, Document};
use crate::support::upstream::Upstream;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// A stored document, under the type that it gives itself.
fn document(path: &Path) -> Document {
    let bytes = std::fs::read(path).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    Document::new(value["mediaType"].as_str().unwrap_or(images::INDEX), bytes)
}

async fn check(folder: &Path) {
    let upstream = Upstream::start().await;
    for file in files(folder) {
        match name(&file) {
            "stored" => upstream.put("app", "latest", &document(&file)),
            child if child.starts_with("child-") => upstream.put("app", None, &document(&file)),
            config if config.starts_with("config-") => {
                upstream.contents().put_blob("app", std::fs::read(&file).unwrap().into());
            }
            _ => {}
        }
    }
    let client: Value = serde_json::from_slice(&std::fs::read(folder.join("client.json")).unwrap()).unwrap();
    let accept: Vec<&str> = client["accept"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let client = Client::new(client["user_agent"].as_str().unwrap(), &accept);
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&client, "/v2/app/manifests/latest").await;
    if let Ok(refused) = std::fs::read_to_string(folder.join("refused")) {
        assert_eq!(got.status, 406, "{}: {}", name(folder), got.text());
        let message = got.error().1;
        for words in refused.lines() {
            assert!(message.contains(words), "{}: no `{words}` in {message}", name(folder));
        }
        return;
    }
    let expected = document(&folder.join("expected"));
    assert_eq!(got.text(), expected.text(), "{}", name(folder));
    assert_eq!((got.content_type(), got.digest()), (expected.content_type.as_str(), expected.digest.as_str()));
    for child in expected.json()["manifests"].as_array().unwrap() {
        let digest = child["digest"].as_str().unwrap();
        let got = gateway.manifest(&client, &format!("/v2/app/manifests/{digest}")).await;
        assert_eq!((got.status, got.digest()), (200, digest), "{}: {}", name(folder), got.text());
        assert_eq!(child["size"], got.body.len(), "{}", name(folder));
    }
}

#[tokio::test]
async fn every_rule_of_lists_and_indexes_gives_its_golden_bytes() {
    let folders = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/index"));
    assert!(folders.len() >= 27, "only {} golden folders", folders.len());
    for folder in folders {
        check(&folder).await;
    }
}
