//! How much a layer may unpack to. Whoever may push can make a few kilobytes that unpack to terabytes.

use super::Fault;

/// How much is read of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of an archive without compression. Default 64 GiB.
    pub bytes_max: u64,
    /// How many times its compressed bytes an archive may have. Default 200: a file system of nothing but text has 10.
    pub ratio_max: u64,
    /// Up to this many bytes of an archive no ratio is looked at, because a file of zeros is not rare. Default 1 GiB.
    pub ratio_counts_from: u64,
    /// The largest window of a zstd frame, as a power of two bytes: so much memory is held for each layer in work. Default
    /// 27, which is 128 MiB, as for every decoder that streams.
    pub zstd_window_log_max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes_max: 64 << 30, ratio_max: 200, ratio_counts_from: 1 << 30, zstd_window_log_max: 27 }
    }
}

impl Bounds {
    /// Refuses an archive of which so many bytes came out of so many.
    pub(super) fn check(&self, archive_bytes: u64, blob_bytes: u64) -> Result<(), Fault> {
        let Self { bytes_max, ratio_max, ratio_counts_from, .. } = *self;
        if archive_bytes > bytes_max {
            return Err(Fault::TooLarge { bytes_max });
        }
        if archive_bytes > ratio_counts_from && archive_bytes > blob_bytes.saturating_mul(ratio_max) {
            return Err(Fault::Bomb { ratio_max });
        }
        Ok(())
    }
}
