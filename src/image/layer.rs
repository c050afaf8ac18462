//! Layer media types (OCI image-spec `layer.md`; Docker image manifest v2, schema 2) and what they say about the bytes.

use super::digest::Digest;

/// What a layer's media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// A file system change set that comes from the registry.
    Archive(Compression),
    /// A file system change set that may only be fetched from the `urls` of its descriptor (Windows base layers).
    Foreign(Compression),
    /// Encrypted (ocicrypt's `+encrypted`): nobody but the holder of the key can read it.
    Encrypted,
    /// An in-toto statement: the manifest is an attestation, not an image, though its config says otherwise.
    InToto,
    /// Anything else.
    Unknown,
}

/// How a layer's tar archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Docker's type, the OCI's type, and what both mean. Docker Engine never had a foreign zstd type.
const TYPES: [(Option<&str>, Option<&str>, LayerKind); 6] = [
    (
        Some("application/vnd.docker.image.rootfs.diff.tar.gzip"),
        Some("application/vnd.oci.image.layer.v1.tar+gzip"),
        LayerKind::Archive(Compression::Gzip),
    ),
    (
        Some("application/vnd.docker.image.rootfs.diff.tar"),
        Some("application/vnd.oci.image.layer.v1.tar"),
        LayerKind::Archive(Compression::None),
    ),
    (
        Some("application/vnd.docker.image.rootfs.diff.tar.zstd"),
        Some("application/vnd.oci.image.layer.v1.tar+zstd"),
        LayerKind::Archive(Compression::Zstd),
    ),
    (
        Some("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        Some("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        LayerKind::Foreign(Compression::Gzip),
    ),
    (
        Some("application/vnd.docker.image.rootfs.foreign.diff.tar"),
        Some("application/vnd.oci.image.layer.nondistributable.v1.tar"),
        LayerKind::Foreign(Compression::None),
    ),
    (None, Some("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"), LayerKind::Foreign(Compression::Zstd)),
];

/// What all bytes of a layer tell. It never changes, because they have a digest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerFacts {
    /// The digest of its archive without compression.
    pub diff_id: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// How it is compressed, by its bytes.
    pub compression: Compression,
}

/// A gzip layer that stands for another blob with the same archive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct GzipLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of the archive.
    pub diff_id: Digest,
}

impl Compression {
    /// How many bytes of a blob [`Compression::of_bytes`] looks at.
    pub const MAGIC_BYTES: usize = 4;

    /// How the blob that begins with these bytes is compressed, as engines tell it: what is neither gzip nor zstd is an
    /// archive, or not a layer at all, which its reader will find. A zstd blob may begin with a frame to skip.
    pub const fn of_bytes(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl LayerKind {
    /// What this media type, of either family, says.
    pub fn of(media_type: &str) -> Self {
        let is_named = |name: Option<&str>| name == Some(media_type);
        if let Some((.., kind)) = TYPES.iter().find(|(docker, oci, _)| is_named(*docker) || is_named(*oci)) {
            return *kind;
        }
        if media_type.ends_with("+encrypted") {
            Self::Encrypted
        } else if media_type.starts_with("application/vnd.in-toto") {
            Self::InToto
        } else {
            Self::Unknown
        }
    }

    /// Docker's media type of such a layer, where there is one.
    pub fn docker_media_type(self) -> Option<&'static str> {
        TYPES.iter().find(|(.., kind)| *kind == self).and_then(|(docker, ..)| *docker)
    }

    /// The OCI's media type of such a layer, where there is one.
    pub fn oci_media_type(self) -> Option<&'static str> {
        TYPES.iter().find(|(.., kind)| *kind == self).and_then(|(_, oci, _)| *oci)
    }

    /// Its archive is compressed with zstd, which Docker before 23.0 cannot read.
    pub fn is_zstd(self) -> bool {
        matches!(self, Self::Archive(Compression::Zstd) | Self::Foreign(Compression::Zstd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_map_onto_each_other() {
        for (docker, oci, kind) in TYPES {
            for media_type in [docker, oci].into_iter().flatten() {
                assert_eq!(LayerKind::of(media_type), kind, "{media_type}");
            }
            assert_eq!((kind.docker_media_type(), kind.oci_media_type()), (docker, oci));
        }
    }

    /// The first bytes are those that RFC 1952, RFC 8878 and POSIX write.
    #[test]
    fn the_first_bytes_tell_the_compression() {
        for (first, compression) in [
            (&b"\x1f\x8b\x08\x00"[..], Compression::Gzip),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x5e\x2a\x4d\x18", Compression::Zstd),
            (b"bin/", Compression::None),
            (b"\x1f", Compression::None),
            (b"", Compression::None),
        ] {
            assert_eq!(Compression::of_bytes(first), compression, "{first:?}");
        }
    }

    #[test]
    fn what_is_no_layer_has_no_type_to_map_to() {
        let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
        assert_eq!(LayerKind::of(encrypted), LayerKind::Encrypted);
        assert_eq!(LayerKind::of("application/vnd.in-toto+json"), LayerKind::InToto);
        for other in ["", "application/vnd.wasm.content.layer.v1+wasm", "application/octet-stream"] {
            assert_eq!(LayerKind::of(other), LayerKind::Unknown, "{other}");
        }
        assert_eq!(LayerKind::Unknown.docker_media_type().or(LayerKind::Encrypted.oci_media_type()), None);
    }
}
