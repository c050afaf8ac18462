//! Reading schema 1 documents with nothing but the form's own description: libtrust's JSON signature, and the chain of ids.

use serde_json::Value;

use crate::{
    http::Answer,
    images::{Blob, digest, hexadecimal},
};

pub const PRETTYJWS: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The gzip of 1,024 NULs that stands for "no change" in every schema 1 image.
pub const EMPTY_LAYER: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";

/// The payload of a signed document: `formatLength` bytes of it, then `formatTail`.
pub fn payload(signed: &[u8]) -> Vec<u8> {
    let document: Value = serde_json::from_slice(signed).expect("schema 1 is JSON");
    let protected = document["signatures"][0]["protected"].as_str().expect("schema 1 is signed");
    let decoded = |text: &str| data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let protected: Value = serde_json::from_slice(&decoded(protected)).unwrap();
    let length = usize::try_from(protected["formatLength"].as_u64().unwrap()).unwrap();
    [&signed[..length], &decoded(protected["formatTail"].as_str().unwrap())].concat()
}

/// The payload of an answer that must be schema 1 with headers that agree with it.
pub fn schema1_of(answer: &Answer, what: &str) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some(PRETTYJWS), "{what}");
    let payload = payload(&answer.body);
    assert_eq!(answer.header("docker-content-digest"), Some(digest(&payload).as_str()), "{what}");
    payload
}

/// One history entry of a schema 1 document next to its blob.
pub struct Entry {
    pub blob: String,
    pub compatibility: Value,
}

impl Entry {
    pub fn text(&self, key: &str) -> &str {
        self.compatibility[key].as_str().unwrap_or_default()
    }

    pub fn throwaway(&self) -> bool {
        self.compatibility["throwaway"] == true
    }
}

/// The entries of a schema 1 payload, oldest first.
pub fn entries(payload: &[u8]) -> Vec<Entry> {
    let document: Value = serde_json::from_slice(payload).unwrap();
    let (blobs, history) = (document["fsLayers"].as_array().unwrap(), document["history"].as_array().unwrap());
    assert_eq!(blobs.len(), history.len(), "one history entry for each fsLayer");
    let entry = |(blob, history): (&Value, &Value)| Entry {
        blob: blob["blobSum"].as_str().unwrap().to_owned(),
        compatibility: serde_json::from_str(history["v1Compatibility"].as_str().unwrap()).unwrap(),
    };
    blobs.iter().zip(history).rev().map(entry).collect()
}

/// Checks the chain: each id is the hash of its blob, its parent and, for the topmost, the config; each parent the id below.
pub fn assert_chain(entries: &[Entry], config: &Blob, what: &str) {
    let mut parent = String::new();
    for (number, entry) in entries.iter().enumerate() {
        let blob = entry.blob.strip_prefix("sha256:").unwrap();
        let mut hashed = format!("{blob} {parent}").into_bytes();
        if number + 1 == entries.len() {
            hashed.push(b' ');
            hashed.extend_from_slice(&config.bytes);
        }
        assert_eq!(entry.text("parent"), parent, "{what}: parent of entry {number}");
        parent = hexadecimal(&hashed);
        assert_eq!(entry.text("id"), parent, "{what}: id of entry {number}");
    }
}
