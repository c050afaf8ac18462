//! A manifest in a content coding that nobody asked for. Some servers before registries compress whatever they pass on;
//! what a digest names is what was compressed.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::Failure;

/// How the bytes on the wire are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are.
    Identity,
    /// Decompressed.
    Gzip,
}

impl Coding {
    /// The coding that these headers name. Any other than gzip, or more than one, is refused.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut named = headers.get_all(CONTENT_ENCODING).iter().map(http::HeaderValue::as_bytes);
        match (named.next(), named.next()) {
            (None, _) | (Some(b"identity"), None) => Ok(Self::Identity),
            (Some(b"gzip" | b"x-gzip"), None) => Ok(Self::Gzip),
            (Some(coding), _) => Err(Failure::Coded { coding: String::from_utf8_lossy(coding).into_owned() }),
        }
    }
}

/// What was compressed, refused as soon as it is larger than `bytes_max`. `what` names the document in the error.
pub(super) fn gunzipped(compressed: &[u8], bytes_max: usize, what: &'static str) -> Result<Bytes, Failure> {
    let mut plain = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = MultiGzDecoder::new(compressed).take(limit).read_to_end(&mut plain);
    read.map_err(|_| Failure::Coded { coding: "gzip".to_owned() })?;
    if plain.len() > bytes_max { Err(Failure::TooLarge { what, bytes_max }) } else { Ok(plain.into()) }
}
