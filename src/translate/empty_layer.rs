//! The layer that stands in schema 1 for every step that made none: a tar archive of nothing, compressed by Go 1.3's
//! gzip, which every registry and engine knows by its digest.

use std::sync::LazyLock;

use crate::image::digest::Digest;
use crate::image::layer::{Compression, LayerFacts};

/// The blob. Inflates to 1,024 zero bytes, the end-of-archive mark of tar.
pub const BYTES: [u8; 32] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x09, 0x6e, 0x88, 0x00, 0xff, 0x62, 0x18, 0x05, 0xa3, 0x60, 0x14, //
    0x8c, 0x58, 0x00, 0x08, 0x00, 0x00, 0xff, 0xff, 0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00,
];

/// The blob's digest, as text.
pub const DIGEST: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";

/// The digest of the archive without its compression, as text.
pub const DIFF_ID: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// The length of the archive without its compression.
const ARCHIVE_BYTES: usize = 1024;

static TYPED: LazyLock<Digest> = LazyLock::new(|| Digest::sha256(&BYTES));
static TYPED_DIFF_ID: LazyLock<Digest> = LazyLock::new(|| Digest::sha256(&[0; ARCHIVE_BYTES]));

/// The blob's digest.
pub fn digest() -> &'static Digest {
    &TYPED
}

/// What its bytes tell.
pub fn facts() -> LayerFacts {
    LayerFacts { diff_id: TYPED_DIFF_ID.clone(), size: BYTES.len() as u64, compression: Compression::Gzip }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_have_the_digest_that_the_world_knows() {
        assert_eq!(digest().as_str(), DIGEST);
        assert_eq!(facts().diff_id.as_str(), DIFF_ID);
    }
}
