//! How fast layers are read and packed anew, as ratios to the programs that people would use, measured in one run:
//!
//!     cargo bench --bench layers -- [MIBIBYTES]
//!
//! `measure` against `gzip -dc | sha256sum`, and `to_gzip` against `zstd -dc | gzip -1`, on the same layer in memory, all of
//! them with all processors. Needs `gzip`, `zstd` and `sha256sum`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that cannot go on must say where")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use schemabridge::image::digest::Digest;
use schemabridge::transcode::{Bounds, Workers};

const MEBIBYTE: usize = 1 << 20;
/// How large a piece a connection hands over.
const PIECE_BYTES: usize = 64 << 10;
const ROUNDS: usize = 5;

/// Text as programs and documents have it: words of a small vocabulary, some bytes that do not repeat between them.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut chance = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| chance().to_le_bytes().iter().take(3 + usize::try_from(chance() % 6).unwrap()).copied().collect())
        .collect();
    let mut out = vec![0; 512];
    while out.len() < bytes {
        let number = chance();
        out.extend_from_slice(&words[usize::try_from(number % 4096).unwrap()]);
        if number % 5 == 0 {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out
}

/// Runs a shell command on a file's worth of bytes.
fn packed(command: &str, input: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(input).unwrap();
    let output = Command::new("sh").args(["-c", &format!("{command} < '{}'", file.path().display())]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn timed(mut work: impl FnMut()) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    rounds.min().unwrap()
}

fn shell(command: &str) {
    let status = Command::new("sh").args(["-c", command]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}

fn pieces(blob: &Bytes) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static + use<> {
    let blob = blob.clone();
    let length = blob.len();
    stream::iter((0..length).step_by(PIECE_BYTES).map(move |at| Ok(blob.slice(at..length.min(at + PIECE_BYTES)))))
}

fn main() {
    let mebibytes = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(256_u32);
    let archive = content(usize::try_from(mebibytes).unwrap() * MEBIBYTE);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let workers = Workers::new(Workers::default_at_once(), Bounds::default());
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let speed = |taken: Duration| f64::from(mebibytes) / taken.as_secs_f64();

    let gzip = Bytes::from(packed("gzip -6", &archive));
    let (file, digest) = (write("layer.gz", &gzip), Digest::sha256(&gzip));
    let ours = timed(|| {
        let measured = runtime.block_on(async {
            let turn = workers.turn().await.unwrap();
            workers.measure(turn, &digest, pieces(&gzip)).await
        });
        assert!(measured.is_ok());
    });
    let theirs = timed(|| shell(&format!("gzip -dc '{file}' | sha256sum")));
    report("measure", "gzip -dc | sha256sum", speed(ours), speed(theirs));

    let zstd = Bytes::from(packed("zstd -q -3", &archive));
    let (file, digest) = (write("layer.zst", &zstd), Digest::sha256(&zstd));
    let ours = timed(|| {
        let made = runtime.block_on(async {
            let turn = workers.turn().await.unwrap();
            let mut making = workers.to_gzip(turn, digest.clone(), None, pieces(&zstd));
            while making.next().await.is_some() {}
            making.finish().await
        });
        assert!(made.is_ok());
    });
    let theirs = timed(|| shell(&format!("zstd -q -dc '{file}' | gzip -1")));
    report("to_gzip", "zstd -dc | gzip -1", speed(ours), speed(theirs));
}

fn report(name: &str, other: &str, ours: f64, theirs: f64) {
    println!("{name}: {ours:.0} MiB/s of archive, `{other}`: {theirs:.0} MiB/s, ratio {:.2}", ours / theirs);
}
