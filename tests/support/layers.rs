//! Layers with real archives in them, and images of them.

use std::io::Write;

use bytes::Bytes;
use flate2::GzBuilder;
use serde_json::{Value, json};

use super::images::{Document, Image, Kind, Layer, SCHEMA1};
use super::sha256;

/// A tar archive (POSIX ustar) with one file.
pub fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = [&header[..], content].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// Bytes that no compressor makes much smaller.
pub fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

pub fn gzip(archive: &[u8]) -> Bytes {
    let mut encoder = GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    encoder.write_all(archive).unwrap();
    encoder.finish().unwrap().into()
}

pub fn zstd(archive: &[u8]) -> Bytes {
    zstd::encode_all(archive, 3).unwrap().into()
}

/// What gzip bytes unpack to.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut archive).unwrap();
    archive
}

/// An image of these archives, each packed as its kind says.
pub fn image(architecture: &str, layers: &[(Kind, &[u8])]) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|(_, archive)| sha256(archive)).collect();
    let steps: Vec<Value> = layers.iter().map(|_| json!({"created_by": "COPY"})).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": steps,
    });
    let layers = layers
        .iter()
        .map(|(kind, archive)| Layer::new(*kind, if *kind == Kind::Zstd { zstd(archive) } else { gzip(archive) }));
    Image { config: config.to_string().into(), layers: layers.collect() }
}

/// A schema 1 without signatures over these layers, the lowest first.
pub fn schema1(layers: &[&str]) -> Document {
    let id = |position: usize| format!("{:064x}", position + 1);
    let entry = |(position, _): (usize, &&str)| {
        let mut entry = json!({
            "id": id(position), "created": "2015-06-07T08:09:10Z", "docker_version": "1.9.1", "os": "linux",
            "architecture": "amd64", "container_config": {"Cmd": ["/bin/sh", "-c", format!("step {position}")]},
            "config": {"Cmd": ["/bin/sh"]},
        });
        if position > 0 {
            entry["parent"] = id(position - 1).into();
        }
        json!({"v1Compatibility": entry.to_string()})
    };
    let mut history: Vec<Value> = layers.iter().enumerate().map(entry).collect();
    history.reverse();
    let fs_layers: Vec<Value> = layers.iter().rev().map(|layer| json!({"blobSum": layer})).collect();
    let document = json!({
        "schemaVersion": 1, "name": "app", "tag": "latest", "architecture": "amd64", "fsLayers": fs_layers, "history": history,
    });
    Document::new(SCHEMA1, document.to_string())
}
