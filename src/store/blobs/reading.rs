//! The bytes of a blob on their way to one client, at that client's pace.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::image::digest::{Digest, Verifier};

use super::fill::{Broken, Fill, Hold, Progress, Rest, Seat};

/// How much of a file one read takes.
const PIECE_BYTES: u64 = 64 * 1024;

/// Bytes of a blob, read as they are asked for. Ends with an error where they are not all there or not right.
pub struct BlobBody {
    pieces: BoxStream<'static, Result<Bytes, Broken>>,
    left: u64,
}

impl BlobBody {
    /// No bytes, where some were promised.
    pub(super) fn lost() -> Self {
        let lost = Broken::Disk(Arc::new(io::Error::other("its task failed")));
        Self { pieces: stream::once(std::future::ready(Err(lost))).boxed(), left: 1 }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let piece = ready!(self.pieces.poll_next_unpin(context));
        if let Some(Ok(piece)) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A kept blob that is open.
#[derive(Debug)]
pub struct Kept {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) digest: Digest,
    /// Closes the file's account; after the file, because fields are dropped in this order.
    pub(super) hold: Hold,
}

impl Kept {
    /// How many bytes it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What names it.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// These of its bytes. Where they are all of them they are held against the digest, and the last of them come only if
    /// it holds.
    pub fn read(self, range: Range<u64>) -> BlobBody {
        let left = range.end.saturating_sub(range.start);
        let check = (left == self.size).then(|| Verifier::new(self.digest.algorithm()));
        let reading = KeptReading { position: range.start, end: range.end, check, kept: Arc::new(self) };
        let pieces = stream::try_unfold(Some(reading), |reading| async move {
            match reading.filter(|reading| reading.position < reading.end) {
                Some(reading) => reading.next().await.map(Some),
                None => Ok(None),
            }
        });
        BlobBody { pieces: pieces.boxed(), left }
    }
}

struct KeptReading {
    kept: Arc<Kept>,
    position: u64,
    end: u64,
    check: Option<Verifier>,
}

impl KeptReading {
    async fn next(mut self) -> Result<(Bytes, Option<Self>), Broken> {
        let kept = Arc::clone(&self.kept);
        let reading = tokio::task::spawn_blocking(move || {
            let piece = read(&self.kept.file, self.position, self.end)?;
            self.position += piece.len() as u64;
            if let Some(verifier) = &mut self.check {
                verifier.update(&piece);
            }
            let is_right = self.position < self.end
                || self.check.take().is_none_or(|verifier| verifier.finish() == self.kept.digest);
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, "its bytes have another digest");
            if is_right { Ok((piece, Some(self))) } else { Err(wrong()) }
        });
        match reading.await {
            Ok(Ok(next)) => Ok(next),
            Ok(Err(error)) => {
                kept.hold.is_damaged(&error);
                Err(Broken::Damaged)
            }
            Err(error) => Err(Broken::Disk(Arc::new(io::Error::other(error)))),
        }
    }
}

/// All bytes of a fill, as they come.
pub(super) fn follow(fill: Arc<Fill>, seat: Seat) -> BlobBody {
    let left = fill.length;
    let from = From::File(FillReading { fill, position: 0, seat });
    let pieces = stream::try_unfold(from, |from| async move {
        match from {
            From::File(reading) => reading.next().await,
            From::Upstream(rest, seat) => go_on(rest, seat).await,
        }
    });
    BlobBody { pieces: pieces.boxed(), left }
}

enum From {
    File(FillReading),
    /// The directory failed, and this reader took over what the upstream still has.
    Upstream(Box<Rest>, Seat),
}

struct FillReading {
    fill: Arc<Fill>,
    position: u64,
    seat: Seat,
}

impl FillReading {
    async fn next(self) -> Result<Option<(Bytes, From)>, Broken> {
        if self.position == self.fill.length {
            return Ok(None);
        }
        let mut progress = self.fill.progress.subscribe();
        let position = self.position;
        let is_news = |progress: &Progress| !matches!(progress, Progress::Readable(at) if *at <= position);
        let Ok(progress) = progress.wait_for(is_news).await.map(|progress| progress.clone()) else {
            return Err(Broken::Yielded);
        };
        let (readable, broken) = match progress {
            Progress::Readable(at) => (at, None),
            Progress::Whole => (self.fill.length, None),
            Progress::Broken { at, why } => (at, Some(why)),
        };
        match broken {
            None => self.read(readable).await.map(Some),
            Some(Broken::Disk(error)) if position < readable => {
                self.read(readable).await.map(Some).map_err(|_| Broken::Disk(error))
            }
            Some(why) => match self.fill.take_rest() {
                Some(rest) => {
                    let next = rest.next.clone();
                    Ok(Some((next, From::Upstream(Box::new(rest), self.seat))))
                }
                None => Err(why),
            },
        }
    }

    async fn read(mut self, end: u64) -> Result<(Bytes, From), Broken> {
        let reading = tokio::task::spawn_blocking(move || {
            let piece = read(&self.fill.file, self.position, end)?;
            self.position += piece.len() as u64;
            Ok((piece, From::File(self)))
        });
        match reading.await {
            Ok(read) => read.map_err(|error: io::Error| Broken::Disk(Arc::new(error))),
            Err(error) => Err(Broken::Disk(Arc::new(io::Error::other(error)))),
        }
    }
}

async fn go_on(mut rest: Box<Rest>, seat: Seat) -> Result<Option<(Bytes, From)>, Broken> {
    while let Some(frame) = rest.body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            return Ok(Some((piece, From::Upstream(rest, seat))));
        }
    }
    Ok(None)
}

/// The next piece of a file, not beyond `end`.
fn read(file: &File, position: u64, end: u64) -> io::Result<Bytes> {
    let length = usize::try_from(PIECE_BYTES.min(end - position)).map_err(io::Error::other)?;
    let mut piece = vec![0; length];
    file.read_exact_at(&mut piece, position)?;
    Ok(piece.into())
}
