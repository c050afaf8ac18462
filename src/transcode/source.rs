//! A layer on its way from an asynchronous stream to a thread that reads it.

use std::error::Error;
use std::io::{self, BufRead, Read};
use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::{Fault, PIECES_QUEUED_MAX};
use crate::image::digest::Digest;

/// Behind a fault as many bytes are read on as before it, and at least so many, to learn whether they are the layer's own.
const READ_ON_BYTES_MIN: u64 = 64 << 20;

/// Why a layer broke off, as whoever sent it says.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceFailure(pub Arc<dyn Error + Send + Sync>);

enum Message {
    Piece(Bytes),
    End,
    Broken(SourceFailure),
}

type Watch = dyn FnMut(&Bytes) -> Result<(), Fault> + Send;

/// The end that is fed.
pub(super) struct Feed(mpsc::Sender<Message>);

/// The end that a thread reads. Its bytes end only where the sender said that they do.
pub(super) struct Source {
    messages: mpsc::Receiver<Message>,
    piece: Bytes,
    is_at_end: bool,
    /// All bytes that came so far.
    pub(super) bytes: u64,
    /// Is told every piece before it is read.
    watch: Box<Watch>,
    /// Why reading failed, where it was not the layer's fault.
    failure: Option<Fault>,
}

pub(super) fn pipe(watch: impl FnMut(&Bytes) -> Result<(), Fault> + Send + 'static) -> (Feed, Source) {
    let (sender, messages) = mpsc::channel(PIECES_QUEUED_MAX);
    let (piece, watch) = (Bytes::new(), Box::new(watch));
    (Feed(sender), Source { messages, piece, is_at_end: false, bytes: 0, watch, failure: None })
}

impl Feed {
    /// Sends all of a stream. Whoever reads may stop before its end.
    pub(super) async fn send_all<Failure: Error + Send + Sync + 'static>(
        self,
        pieces: impl Stream<Item = Result<Bytes, Failure>>,
    ) {
        let mut pieces = pin!(pieces);
        loop {
            let message = match pieces.next().await {
                Some(Ok(piece)) => Message::Piece(piece),
                Some(Err(error)) => Message::Broken(SourceFailure(Arc::new(error))),
                None => Message::End,
            };
            let is_last = !matches!(message, Message::Piece(_));
            if self.0.send(message).await.is_err() || is_last {
                return;
            }
        }
    }
}

impl Source {
    /// What an error of a reader above this means.
    pub(super) fn fault(&mut self, error: &io::Error) -> Fault {
        match self.failure.take() {
            Some(fault) => fault,
            None if error.kind() == io::ErrorKind::UnexpectedEof => Fault::Damaged("it is cut short".to_owned()),
            None => Fault::Damaged(error.to_string()),
        }
    }

    fn fail(&mut self, fault: Fault) -> io::Error {
        let error = io::Error::other(fault.to_string());
        self.failure = Some(fault);
        error
    }
}

/// What came of reading a layer.
pub(super) struct Reading<Output> {
    outcome: Result<Output, Fault>,
    /// Whether all its bytes came.
    reach: Reach,
}

enum Reach {
    Whole,
    Short,
}

impl<Output> Reading<Output> {
    /// Reads a layer, and a bad one to its end, as long as that is not much more: what its sender mangled or cut off is
    /// bad too, and only the digest of all bytes tells it from a layer that is.
    pub(super) fn of(mut source: Source, read: impl FnOnce(&mut Source) -> Result<Output, Fault>) -> Self {
        let outcome = read(&mut source);
        let reach = match &outcome {
            Ok(_) => Reach::Whole,
            Err(fault) if fault.is_of_the_bytes() => source.read_on(),
            Err(_) => Reach::Short,
        };
        Self { outcome, reach }
    }

    /// What was read, if the bytes have the digest that they were asked for by.
    pub(super) fn held_against(self, blob: &Digest, found: Digest) -> Result<Output, Fault> {
        match (self.outcome, self.reach) {
            (_, Reach::Whole) if found != *blob => Err(Fault::WrongDigest { expected: blob.clone(), found }),
            (Err(fault), Reach::Short) if fault.is_of_the_bytes() => Err(Fault::Unproven(Box::new(fault))),
            (outcome, _) => outcome,
        }
    }
}

impl Source {
    fn read_on(&mut self) -> Reach {
        let bytes_max = self.bytes.saturating_add(self.bytes.max(READ_ON_BYTES_MIN));
        while self.bytes <= bytes_max {
            match self.fill_buf().map(<[u8]>::len) {
                Ok(0) => return Reach::Whole,
                Ok(amount) => self.consume(amount),
                Err(_) => break,
            }
        }
        Reach::Short
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.is_at_end {
            match self.messages.blocking_recv() {
                Some(Message::Piece(piece)) => {
                    self.bytes += piece.len() as u64;
                    if let Err(fault) = (self.watch)(&piece) {
                        return Err(self.fail(fault));
                    }
                    self.piece = piece;
                }
                Some(Message::End) => self.is_at_end = true,
                Some(Message::Broken(failure)) => return Err(self.fail(failure.into())),
                None => return Err(self.fail(Fault::Abandoned)),
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}
