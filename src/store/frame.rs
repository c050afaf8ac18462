//! The line before every object: which version of the frame it is, and the SHA-256 of what follows.

use bytes::{BufMut, Bytes, BytesMut};

use crate::image::digest::Digest;

const MARK: &[u8] = b"schemabridge 1 ";

/// The content behind its line.
pub(super) fn wrap(content: &[u8]) -> Bytes {
    let digest = Digest::sha256(content);
    let mut framed = BytesMut::with_capacity(MARK.len() + digest.as_str().len() + 1 + content.len());
    framed.put_slice(MARK);
    framed.put_slice(digest.as_str().as_bytes());
    framed.put_u8(b'\n');
    framed.put_slice(content);
    framed.freeze()
}

/// The content of an object, if its line is there and true.
pub(super) fn unwrap(framed: &Bytes) -> Option<Bytes> {
    let line_length = framed.iter().position(|byte| *byte == b'\n')?;
    let line = framed.get(..line_length)?.strip_prefix(MARK)?;
    let digest: Digest = std::str::from_utf8(line).ok()?.parse().ok()?;
    let content = framed.slice(line_length + 1..);
    digest.matches(&content).then_some(content)
}
