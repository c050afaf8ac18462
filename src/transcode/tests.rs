//! Blobs are made here by the crates that also read them; those of other programs are in the crate's integration tests.

use std::convert::Infallible;
use std::io::Write;

use bytes::Bytes;
use futures_util::stream;

use super::*;
use crate::image::digest::Algorithm;
use crate::image::layer::{Compression, GzipLayer, LayerFacts};

/// An archive of one file with these bytes, as `tar` lays it out.
fn archive(content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[257..263].copy_from_slice(b"ustar\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; content.len().next_multiple_of(512) - content.len() + 1024];
    [&header[..], content, &padding].concat()
}

/// Bytes that pack to about half.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + u8::try_from(state >> 28).unwrap()
    })
    .take(length)
    .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

/// A frame that readers skip, as zstd:chunked has them.
fn skippable() -> Vec<u8> {
    [&b"\x5e\x2a\x4d\x18\x03\0\0\0"[..], b"abc"].concat()
}

fn workers(bounds: Bounds) -> Workers {
    Workers::new(NonZeroUsize::MIN, bounds)
}

fn pieces(bytes: &[u8], length: usize) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    stream::iter(bytes.chunks(length.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>())
}

async fn measure_with(blob: &[u8], bounds: Bounds) -> Result<LayerFacts, Fault> {
    let workers = workers(bounds);
    let turn = workers.turn().await.unwrap();
    workers.measure(turn, &Digest::sha256(blob), pieces(blob, 10_000)).await
}

async fn measure(blob: &[u8]) -> Result<LayerFacts, Fault> {
    measure_with(blob, Bounds::default()).await
}

async fn to_gzip(blob: &[u8], length: usize) -> (Vec<u8>, Result<GzipLayer, Fault>) {
    let workers = workers(Bounds::default());
    let turn = workers.turn().await.unwrap();
    let mut making = workers.to_gzip(turn, Digest::sha256(blob), None, pieces(blob, length));
    let mut made = Vec::new();
    while let Some(piece) = making.next().await {
        made.extend_from_slice(&piece);
    }
    (made, making.finish().await)
}

#[tokio::test]
async fn facts_are_those_of_the_archive_however_it_is_packed() {
    let archive = archive(&content(700_000));
    let (front, back) = archive.split_at(300_001);
    let diff_id = Digest::sha256(&archive);
    for (blob, compression) in [
        (archive.clone(), Compression::None),
        (gzip(&archive), Compression::Gzip),
        ([gzip(front), gzip(back)].concat(), Compression::Gzip),
        (zstd(&archive), Compression::Zstd),
        ([skippable(), zstd(front), skippable(), zstd(back), skippable()].concat(), Compression::Zstd),
    ] {
        let facts = LayerFacts { diff_id: diff_id.clone(), size: blob.len() as u64, compression };
        assert_eq!(measure(&blob).await.unwrap(), facts);
    }
}

#[tokio::test]
async fn an_archive_of_nothing_is_an_archive() {
    for archive in [vec![0; 1024], Vec::new()] {
        assert_eq!(measure(&archive).await.unwrap().diff_id, Digest::sha256(&archive));
    }
    let empty = crate::translate::empty_layer::BYTES;
    assert_eq!(measure(&empty).await.unwrap(), crate::translate::empty_layer::facts());
}

#[tokio::test]
async fn what_is_damaged_or_no_layer_is_refused() {
    let archive = archive(&content(50_000));
    let mut flipped = gzip(&archive);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    assert!(matches!(measure(&flipped).await, Err(Fault::Damaged(_))), "gzip has a checksum");
    for packed in [gzip(&archive), zstd(&archive)] {
        let cut = packed[..packed.len() - 5].to_vec();
        let trailed = [packed.clone(), b"garbage".to_vec()].concat();
        let padded = [packed.clone(), vec![0; 512]].concat();
        for damaged in [cut, trailed, padded] {
            let fault = measure(&damaged).await.unwrap_err();
            assert!(matches!(fault, Fault::Damaged(_)), "{fault}");
        }
    }
    for (blob, words) in
        [(&b"BZh91AY&SY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz"), (b"<html>not found</html>", "no tar archive")]
    {
        let fault = measure(blob).await.unwrap_err().to_string();
        assert!(fault.contains(words), "{fault}");
    }
}

#[tokio::test]
async fn other_bytes_than_the_digest_names_are_refused() {
    let blob = gzip(&archive(b"x"));
    let workers = workers(Bounds::default());
    let turn = workers.turn().await.unwrap();
    let fault = workers.measure(turn, &Digest::sha256(b"other"), pieces(&blob, 7)).await.unwrap_err();
    assert!(matches!(fault, Fault::WrongDigest { .. }), "{fault}");
}

#[tokio::test]
async fn a_layer_that_nobody_named_is_named() {
    let archive = archive(&content(100_000));
    let blob = gzip(&archive);
    let workers = workers(Bounds::default());
    let turn = workers.free_turn().unwrap();
    assert!(workers.free_turn().is_none(), "there was one");
    let (named, facts) = workers.measure_unnamed(turn, Algorithm::Sha256, pieces(&blob, 999)).await.unwrap();
    assert_eq!((named, facts.diff_id), (Digest::sha256(&blob), Digest::sha256(&archive)));
    let turn = workers.turn().await.unwrap();
    let cut = workers.measure_unnamed(turn, Algorithm::Sha256, pieces(&blob[..blob.len() - 1], 999)).await;
    assert!(matches!(cut, Err(Fault::Damaged(_))), "{cut:?}");
}

#[tokio::test]
async fn a_bomb_is_given_up_long_before_its_end() {
    let bounds = Bounds { bytes_max: 8 << 20, ratio_max: 100, ratio_counts_from: 1 << 18, ..Bounds::default() };
    let zeros = vec![0; 3 << 20];
    for blob in [gzip(&zeros), zstd(&zeros)] {
        assert!(matches!(measure_with(&blob, bounds).await, Err(Fault::Bomb { ratio_max: 100 })));
        let bounds = Bounds { ratio_counts_from: u64::MAX, bytes_max: 1 << 20, ..bounds };
        assert!(matches!(measure_with(&blob, bounds).await, Err(Fault::TooLarge { bytes_max: 1_048_576 })));
    }
}

#[tokio::test]
async fn a_source_that_breaks_off_is_not_an_end() {
    #[derive(Debug, thiserror::Error)]
    #[error("the upstream was cut")]
    struct Cut;
    let archive = archive(&content(5_000));
    let workers = workers(Bounds::default());
    let turn = workers.turn().await.unwrap();
    let broken = stream::iter([Ok(Bytes::from(archive.clone())), Err(Cut)]);
    let fault = workers.measure(turn, &Digest::sha256(&archive), broken).await.unwrap_err();
    assert_eq!(fault.to_string(), "broke off: the upstream was cut");
}

#[tokio::test]
async fn the_gzip_bytes_do_not_depend_on_how_the_layer_arrives_or_was_packed() {
    let archive = archive(&content(1_000_000));
    let one = zstd(&archive);
    let other = [zstd(&archive[..400_000]), skippable(), zstd(&archive[400_000..])].concat();
    let (expected, made) = to_gzip(&one, 1 << 20).await;
    let made = made.unwrap();
    assert_eq!(
        made,
        GzipLayer { digest: Digest::sha256(&expected), size: expected.len() as u64, diff_id: Digest::sha256(&archive) }
    );
    assert_eq!(&expected[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255], "no time, no name, no system");
    for (blob, length) in [(&one, 1_000), (&one, 65_537), (&other, 4_096)] {
        let (bytes, again) = to_gzip(blob, length).await;
        assert!(bytes == expected && again.unwrap() == made, "{length}");
    }
    let facts = measure(&expected).await.unwrap();
    assert_eq!((facts.diff_id, facts.compression), (made.diff_id, Compression::Gzip));
}

#[tokio::test]
async fn a_layer_that_is_not_what_was_said_makes_no_gzip_layer() {
    let archive = archive(&content(300_000));
    let blob = zstd(&archive);
    assert!(matches!(to_gzip(&gzip(&archive), 4_096).await.1, Err(Fault::NotZstd)));
    assert!(matches!(to_gzip(&blob[..blob.len() - 1], 4_096).await.1, Err(Fault::Damaged(_))));

    let workers = workers(Bounds::default());
    let other = Digest::sha256(b"other");
    for (digest, diff_id) in [(other.clone(), None), (Digest::sha256(&blob), Some(other.clone()))] {
        let turn = workers.turn().await.unwrap();
        let mut making = workers.to_gzip(turn, digest.clone(), diff_id, pieces(&blob, 999));
        while making.next().await.is_some() {}
        let fault = making.finish().await.unwrap_err();
        let is_right = match &fault {
            Fault::WrongDigest { expected, .. } => *expected == digest,
            Fault::WrongDiffId { expected, .. } => *expected == other,
            _ => false,
        };
        assert!(is_right, "{fault}");
    }
}

/// Whoever goes away frees the turn, or the next one would wait for ever.
#[tokio::test]
async fn work_that_nobody_waits_for_ends() {
    let blob = zstd(&archive(&content(3 << 20)));
    let workers = workers(Bounds::default());
    for _ in 0..3 {
        let turn = workers.turn().await.unwrap();
        let mut making = workers.to_gzip(turn, Digest::sha256(&blob), None, pieces(&blob, 1 << 16));
        assert!(making.next().await.is_some());
        assert!(matches!(making.finish().await, Err(Fault::Abandoned)));
        let turn = workers.turn().await.unwrap();
        let digest = Digest::sha256(&blob);
        let endless = futures_util::StreamExt::chain(pieces(&blob, 1 << 16), stream::pending());
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, workers.measure(turn, &digest, endless));
        assert!(given_up.await.is_err());
    }
    drop(workers.turn().await.unwrap());
}

/// The name says which crates make the bytes; a new one may make others, and has to be another name.
#[test]
fn the_compressor_is_named_by_what_is_locked() {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &str| {
        let entry = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap().1;
        entry.split_once('"').unwrap().0
    };
    let (flate2, zlib) = (version("flate2"), version("zlib-rs"));
    let name = format!("flate2-{flate2}-zlib-rs-{zlib}-level-{GZIP_LEVEL}-piece-{PIECE_BYTES}");
    assert_eq!(COMPRESSOR, name);
}
