//! What all bytes of a layer tell.

use std::error::Error;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use futures_util::Stream;

use super::bounds::Bounds;
use super::layer::Archive;
use super::source::{self, Reading, Source};
use super::{Fault, PIECES_QUEUED_MAX, Turn, Workers, thread};
use crate::image::digest::{Algorithm, Digest, Verifier};
use crate::image::layer::{Compression, LayerFacts};

/// What one thread reads and the other hashes. The two take about the same time.
enum Piece {
    OfBlob(Bytes),
    OfArchive(Bytes),
}

impl Workers {
    /// Reads a layer to its end, holds it against its digest, and says what it is.
    pub async fn measure<Failure: Error + Send + Sync + 'static>(
        &self,
        turn: Turn,
        blob: &Digest,
        pieces: impl Stream<Item = Result<Bytes, Failure>> + Send,
    ) -> Result<LayerFacts, Fault> {
        let (read, found, diff_id) = self.read(turn, blob.algorithm(), pieces).await?;
        let (compression, size) = read.held_against(blob, found)?;
        Ok(LayerFacts { diff_id, size, compression })
    }

    /// The same of a layer whose digest nobody has said yet: says which it is too.
    pub async fn measure_unnamed<Failure: Error + Send + Sync + 'static>(
        &self,
        turn: Turn,
        algorithm: Algorithm,
        pieces: impl Stream<Item = Result<Bytes, Failure>> + Send,
    ) -> Result<(Digest, LayerFacts), Fault> {
        let (read, found, diff_id) = self.read(turn, algorithm, pieces).await?;
        let (compression, size) = read.held_against(&found, found.clone())?;
        Ok((found, LayerFacts { diff_id, size, compression }))
    }

    /// What was read, and the digests of the blob and of its archive.
    async fn read<Failure: Error + Send + Sync + 'static>(
        &self,
        turn: Turn,
        algorithm: Algorithm,
        pieces: impl Stream<Item = Result<Bytes, Failure>> + Send,
    ) -> Result<(Reading<(Compression, u64)>, Digest, Digest), Fault> {
        let (sender, receiver) = sync_channel(PIECES_QUEUED_MAX);
        let to_hash = sender.clone();
        let (feed, source) = source::pipe(move |piece| send(&to_hash, Piece::OfBlob(piece.clone())));
        let bounds = self.bounds;
        let reading = thread::run(move || {
            let _turn = turn;
            Ok(Reading::of(source, |source| read(source, bounds, &sender)))
        });
        let hashing = thread::run(move || Ok(hash(&receiver, algorithm)));
        let ((), read, hashed) = futures_util::join!(feed.send_all(pieces), reading, hashing);
        let (found, diff_id) = hashed?;
        Ok((read?, found, diff_id))
    }
}

fn read(source: &mut Source, bounds: Bounds, to_hash: &SyncSender<Piece>) -> Result<(Compression, u64), Fault> {
    let mut archive = Archive::open(source, bounds)?;
    let compression = archive.compression;
    loop {
        let piece = archive.next_piece()?;
        if piece.is_empty() {
            return Ok((compression, archive.finish()?));
        }
        send(to_hash, Piece::OfArchive(piece))?;
    }
}

fn hash(pieces: &Receiver<Piece>, algorithm: Algorithm) -> (Digest, Digest) {
    let (mut blob, mut archive) = (Verifier::new(algorithm), Verifier::new(Algorithm::Sha256));
    for piece in pieces {
        match piece {
            Piece::OfBlob(piece) => blob.update(&piece),
            Piece::OfArchive(piece) => archive.update(&piece),
        }
    }
    (blob.finish(), archive.finish())
}

fn send(to_hash: &SyncSender<Piece>, piece: Piece) -> Result<(), Fault> {
    to_hash.send(piece).map_err(|_| Fault::Internal)
}
