//! Floor 4: layers in motion, read once from end to end and never held whole.
//!
//! [`Workers::measure`] learns what the bytes of a layer tell; [`Workers::to_gzip`] makes the gzip layer that stands for a
//! zstd one. Both hold the blob against its digest; [`Workers::measure_unnamed`] is for one that has none yet. The work is
//! done on threads of its own, as many at a time as there are turns and behind whoever answers requests (`thread.rs`);
//! between threads run short queues of pieces, so a layer of
//! any size takes the same memory.

mod bounds;
mod gzip;
mod layer;
mod measure;
mod source;
mod thread;

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::image::digest::Digest;

pub use bounds::Bounds;
pub use gzip::{COMPRESSOR, GZIP_LEVEL, ToGzip};
pub use source::SourceFailure;

/// How many bytes of an archive are worked on at a time. The gzip bytes do not depend on how a layer arrives, only on
/// this: it is part of [`COMPRESSOR`].
const PIECE_BYTES: usize = 128 << 10;
/// How many pieces wait between two threads.
const PIECES_QUEUED_MAX: usize = 8;

/// Why a layer cannot be read to its end. Reads after "the layer ".
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// Whoever sent it broke off.
    #[error("broke off: {0}")]
    Source(#[from] SourceFailure),
    /// Other bytes than its digest names.
    #[error("does not have the digest {expected}: its bytes have {found}")]
    WrongDigest {
        /// What it was asked for as.
        expected: Digest,
        /// What its bytes have.
        found: Digest,
    },
    /// Not what its first bytes say, or cut short, or with something behind its end.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// Compressed in a way that no media type says.
    #[error("is compressed with {0}, which no media type of a layer says: expected gzip, zstd or a tar archive")]
    OtherCompression(&'static str),
    /// Neither compressed nor an archive.
    #[error("is no tar archive, and is not compressed with gzip or zstd")]
    NoArchive,
    /// It is not of the compression that was to be changed.
    #[error("is not compressed with zstd")]
    NotZstd,
    /// It unpacks to more than is ever read.
    #[error("unpacks to more than the {bytes_max} bytes that are read of a layer")]
    TooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// It unpacks to many times its size.
    #[error("unpacks to more than {ratio_max} times its size, as no layer does that means well")]
    Bomb {
        /// The bound.
        ratio_max: u64,
    },
    /// Its archive is not the one that the config names.
    #[error("holds an archive with the digest {found}, but the config names {expected}")]
    WrongDiffId {
        /// What the config names.
        expected: Digest,
        /// What it holds.
        found: Digest,
    },
    /// The same as in the box, of bytes of which it was not seen whether they are the layer's own.
    #[error("{0}")]
    Unproven(Box<Self>),
    /// Nobody waited for the result any more.
    #[error("was given up, because nobody waited for it")]
    Abandoned,
    /// A thread of this process failed.
    #[error("could not be read: a thread failed")]
    Internal,
}

impl Fault {
    /// It is about the bytes that came, and will be there each time they are read within the same bounds.
    pub const fn is_of_the_bytes(&self) -> bool {
        match self {
            Self::Damaged(_)
            | Self::OtherCompression(_)
            | Self::NoArchive
            | Self::NotZstd
            | Self::TooLarge { .. }
            | Self::Bomb { .. }
            | Self::WrongDiffId { .. } => true,
            Self::Source(_) | Self::WrongDigest { .. } | Self::Unproven(_) | Self::Abandoned | Self::Internal => false,
        }
    }
}

/// Those who work on layers, so many at a time.
#[derive(Clone, Debug)]
pub struct Workers {
    turns: Arc<Semaphore>,
    bounds: Bounds,
}

/// A turn at working on one layer. Taken before the layer is asked for, so that no connection waits open meanwhile.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Workers {
    /// As many as may work at a time.
    pub fn new(at_once: NonZeroUsize, bounds: Bounds) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once.get())), bounds }
    }

    /// How many work at a time where nothing else is said: one fewer than there are processors, and at least one.
    pub fn default_at_once() -> NonZeroUsize {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(processors - 1).unwrap_or(NonZeroUsize::MIN)
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Fault::Internal`] never happens as long as anybody holds this.
    pub async fn turn(&self) -> Result<Turn, Fault> {
        Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map(|permit| Turn { _permit: permit })
            .map_err(|_| Fault::Internal)
    }

    /// A turn, where one is free.
    pub fn free_turn(&self) -> Option<Turn> {
        Arc::clone(&self.turns).try_acquire_owned().ok().map(|permit| Turn { _permit: permit })
    }
}

#[cfg(test)]
mod tests;
