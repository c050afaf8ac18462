//! A layer's archive, out of whatever compression it has.

use std::io::{self, BufRead, Read};

use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;

use super::bounds::Bounds;
use super::source::Source;
use super::{Fault, PIECE_BYTES};
use crate::image::layer::Compression;

/// One record of tar.
const RECORD_BYTES: usize = 512;

/// The archive of a layer, read piece by piece.
pub(super) struct Archive<'a> {
    reader: Reader<'a>,
    pub(super) compression: Compression,
    bounds: Bounds,
    bytes: u64,
}

enum Reader<'a> {
    Plain(Prefixed<'a>),
    /// Members that follow each other are one archive, and what follows them and is no member is damage, as Go has it.
    Gzip(Box<MultiGzDecoder<Prefixed<'a>>>),
    /// Frames that follow each other are one archive; frames to skip, as zstd:chunked has them, are skipped.
    Zstd(Box<zstd::stream::read::Decoder<'static, Prefixed<'a>>>),
}

/// A source whose first bytes were looked at.
type Prefixed<'a> = io::Chain<io::Cursor<Bytes>, &'a mut Source>;

impl<'a> Archive<'a> {
    /// Looks at the first bytes.
    pub(super) fn open(source: &'a mut Source, bounds: Bounds) -> Result<Self, Fault> {
        let first = first_bytes(source)?;
        let compression = Compression::of_bytes(&first);
        if compression == Compression::None {
            refuse_what_is_no_archive(&first)?;
        }
        let source = io::Cursor::new(first).chain(source);
        let reader = match compression {
            Compression::None => Reader::Plain(source),
            Compression::Gzip => Reader::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let internal = |_| Fault::Internal;
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(internal)?;
                decoder.window_log_max(bounds.zstd_window_log_max).map_err(internal)?;
                Reader::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { reader, compression, bounds, bytes: 0 })
    }

    /// The next bytes of the archive: as many as a piece has, fewer only at its end, none behind it.
    pub(super) fn next_piece(&mut self) -> Result<Bytes, Fault> {
        let mut piece = BytesMut::zeroed(PIECE_BYTES);
        let mut filled = 0;
        while let Some(room) = piece.get_mut(filled..).filter(|room| !room.is_empty()) {
            let read = match &mut self.reader {
                Reader::Plain(reader) => reader.read(room),
                Reader::Gzip(reader) => reader.read(room),
                Reader::Zstd(reader) => reader.read(room),
            };
            match read {
                Ok(0) => break,
                Ok(amount) => {
                    filled += amount;
                    self.bytes += amount as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.source().fault(&error)),
            }
            let blob_bytes = self.source().bytes;
            self.bounds.check(self.bytes, blob_bytes)?;
        }
        piece.truncate(filled);
        Ok(piece.freeze())
    }

    /// How many bytes the blob has, once its archive is read to the end. What a decoder left unread behind the last frame
    /// is damage.
    pub(super) fn finish(mut self) -> Result<u64, Fault> {
        let rest = match &mut self.reader {
            Reader::Plain(reader) => reader.fill_buf(),
            Reader::Gzip(reader) => reader.get_mut().fill_buf(),
            Reader::Zstd(reader) => reader.get_mut().fill_buf(),
        };
        let rest = rest.map(<[u8]>::len);
        match rest {
            Ok(0) => Ok(self.source().bytes),
            Ok(_) => Err(Fault::Damaged("something follows its end".to_owned())),
            Err(error) => Err(self.source().fault(&error)),
        }
    }

    fn source(&mut self) -> &mut Source {
        let prefixed = match &mut self.reader {
            Reader::Plain(reader) => reader,
            Reader::Gzip(reader) => reader.get_mut(),
            Reader::Zstd(reader) => reader.get_mut(),
        };
        prefixed.get_mut().1
    }
}

/// As many bytes as the first record of an archive has, fewer only where the layer has fewer.
fn first_bytes(source: &mut Source) -> Result<Bytes, Fault> {
    let mut first = Vec::with_capacity(RECORD_BYTES);
    match source.by_ref().take(RECORD_BYTES as u64).read_to_end(&mut first) {
        Ok(_) => Ok(first.into()),
        Err(error) => Err(source.fault(&error)),
    }
}

/// A plain layer begins with a header of tar, or with nothing but zeros, or is empty.
fn refuse_what_is_no_archive(first: &[u8]) -> Result<(), Fault> {
    match first {
        [b'B', b'Z', b'h', ..] => return Err(Fault::OtherCompression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(Fault::OtherCompression("xz")),
        _ => {}
    }
    let is_empty = first.iter().all(|byte| *byte == 0);
    if is_empty || is_tar_header(first) { Ok(()) } else { Err(Fault::NoArchive) }
}

/// The header's checksum holds (POSIX `ustar`, and tar before it): the sum of its bytes, blanks in the checksum's place.
fn is_tar_header(record: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(written) = record.get(CHECKSUM).filter(|_| record.len() == RECORD_BYTES) else { return false };
    let digits = written.iter().copied().skip_while(|byte| *byte == b' ').take_while(u8::is_ascii_digit);
    let written = digits.fold(0_u32, |sum, digit| sum.wrapping_mul(8).wrapping_add(u32::from(digit - b'0')));
    let summed = record.iter().enumerate().map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
    summed.map(u32::from).sum::<u32>() == written
}
