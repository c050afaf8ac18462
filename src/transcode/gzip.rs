//! zstd → gzip. The same archive gives the same gzip bytes, on every machine and however it arrives.

use std::error::Error;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::{Compression as Level, GzBuilder};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bounds::Bounds;
use super::layer::Archive;
use super::source::{self, Reading, Source};
use super::{Fault, PIECE_BYTES, PIECES_QUEUED_MAX, Turn, Workers, thread};
use crate::image::digest::{Algorithm, Digest, Verifier};
use crate::image::layer::{Compression, GzipLayer};

/// How hard gzip tries: its fastest, because a client waits.
pub const GZIP_LEVEL: u32 = 1;
/// What decides the gzip bytes beside the archive: a gzip layer is found by it. A new version of one of these crates, or
/// another level, is another compressor, and what the old one made stays what it is.
pub const COMPRESSOR: &str = "flate2-1.1.11-zlib-rs-0.6.8-level-1-piece-131072";
/// What the header names as the system: unknown.
const SYSTEM_UNKNOWN: u8 = 255;

/// A gzip layer in the making.
pub struct ToGzip {
    pieces: mpsc::Receiver<Bytes>,
    outcome: JoinHandle<Result<GzipLayer, Fault>>,
}

impl ToGzip {
    /// The next bytes of the gzip layer; none behind its end, or where it failed. They are good only once
    /// [`ToGzip::finish`] says so.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }

    /// What was made. Whoever asks before the end gives it up.
    pub async fn finish(self) -> Result<GzipLayer, Fault> {
        drop(self.pieces);
        self.outcome.await.unwrap_or(Err(Fault::Internal))
    }
}

impl Workers {
    /// Makes the gzip layer of a zstd one. Holds the blob against its digest, and its archive against `diff_id` where that
    /// is known.
    pub fn to_gzip<Failure: Error + Send + Sync + 'static>(
        &self,
        turn: Turn,
        blob: Digest,
        diff_id: Option<Digest>,
        pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
    ) -> ToGzip {
        let (out, made) = mpsc::channel(PIECES_QUEUED_MAX);
        let bounds = self.bounds;
        let outcome = tokio::spawn(async move {
            let (sender, receiver) = sync_channel(PIECES_QUEUED_MAX);
            let hash = Arc::new(Mutex::new(Verifier::new(blob.algorithm())));
            let of_blob = Arc::clone(&hash);
            let (feed, source) = source::pipe(move |piece| {
                of_blob.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
                Ok(())
            });
            let reading = thread::run(move || {
                let _turn = turn;
                let reading = Reading::of(source, |source| read(source, bounds, &sender));
                drop(sender);
                let hash = Arc::into_inner(hash).and_then(|hash| hash.into_inner().ok()).ok_or(Fault::Internal)?;
                Ok((hash.finish(), reading))
            });
            let writing = thread::run(move || write(&receiver, out));
            let ((), read, written) = futures_util::join!(feed.send_all(pieces), reading, writing);
            let (found, reading) = read?;
            let (archive, (digest, size)) = match (reading.held_against(&blob, found), written) {
                // Where the writer stopped, the reader only says that nobody listened any more.
                (Err(Fault::Abandoned), Err(fault)) | (Err(fault), _) | (Ok(_), Err(fault)) => return Err(fault),
                (Ok(archive), Ok(written)) => (archive, written),
            };
            match diff_id {
                Some(expected) if expected != archive => Err(Fault::WrongDiffId { expected, found: archive }),
                _ => Ok(GzipLayer { digest, size, diff_id: archive }),
            }
        });
        ToGzip { pieces: made, outcome }
    }
}

/// Unpacks, and hashes what comes out.
fn read(source: &mut Source, bounds: Bounds, to_write: &SyncSender<Bytes>) -> Result<Digest, Fault> {
    let mut diff_id = Verifier::new(Algorithm::Sha256);
    let mut archive = Archive::open(source, bounds)?;
    if archive.compression != Compression::Zstd {
        return Err(Fault::NotZstd);
    }
    loop {
        let piece = archive.next_piece()?;
        if piece.is_empty() {
            archive.finish()?;
            return Ok(diff_id.finish());
        }
        diff_id.update(&piece);
        to_write.send(piece).map_err(|_| Fault::Abandoned)?;
    }
}

/// Packs pieces of one size, which the last alone may fall short of, and hashes what comes out.
fn write(pieces: &Receiver<Bytes>, out: mpsc::Sender<Bytes>) -> Result<(Digest, u64), Fault> {
    let sink = Sink { out, packed: Vec::with_capacity(PIECE_BYTES), digest: Verifier::new(Algorithm::Sha256), size: 0 };
    let header = GzBuilder::new().mtime(0).operating_system(SYSTEM_UNKNOWN);
    let mut encoder = header.write(sink, Level::new(GZIP_LEVEL));
    for piece in pieces {
        encoder.write_all(&piece).map_err(|_| Fault::Abandoned)?;
    }
    let mut sink = encoder.finish().map_err(|_| Fault::Abandoned)?;
    sink.flush().map_err(|_| Fault::Abandoned)?;
    Ok((sink.digest.finish(), sink.size))
}

/// Collects gzip bytes to pieces worth sending.
struct Sink {
    out: mpsc::Sender<Bytes>,
    packed: Vec<u8>,
    digest: Verifier,
    size: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.packed.extend_from_slice(bytes);
        if self.packed.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.packed.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.packed, Vec::with_capacity(PIECE_BYTES));
        self.digest.update(&piece);
        self.size += piece.len() as u64;
        self.out.blocking_send(piece.into()).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))
    }
}
