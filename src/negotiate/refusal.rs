//! The words for a client that nothing can be given.

use std::fmt;

use crate::image::media_type::Format;

use super::client::{Client, LayerWork, Transcode, Upgrade};
use super::formats::Formats;
use super::platform::NoPlatform;

/// What an operator who has not opted in to upgrades could do. Ends a sentence.
pub const UPGRADE_WOULD_HELP: &str = "; the operator of this gateway can have it translated with `--upgrade-schema1`";
/// What an operator who has not opted in to transcoding could do. Ends a sentence.
pub const TRANSCODING_WOULD_HELP: &str =
    "; the operator of this gateway can have gzip layers made for it with `--transcode zstd`";

/// Why a client gets nothing. `Display` is the text of the 406, which Docker prints as it is: what is stored, what the
/// client reads, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    client: String,
    stored: Format,
    reads: Formats,
    reason: Reason,
    /// What the operator opted in to.
    layers: LayerWork,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Unreadable,
    OnlyOci,
    ZeroLayers,
    Zstd,
    Schema1Denied,
    Untranslatable(String),
    NoPlatform(NoPlatform),
}

impl Refusal {
    /// The client reads no form that the stored one is in or can be translated to.
    pub(super) fn unreadable(stored: Format, client: &Client) -> Self {
        Self::new(stored, client, Reason::Unreadable)
    }

    /// The client asks for OCI types only, and schema 1 is stored.
    pub(super) fn only_oci(stored: Format, client: &Client) -> Self {
        Self::new(stored, client, Reason::OnlyOci)
    }

    /// The image has no layers, which panics the client.
    pub(super) fn zero_layers(stored: Format, client: &Client) -> Self {
        Self::new(stored, client, Reason::ZeroLayers)
    }

    /// A layer is compressed with zstd, which the client cannot unpack.
    pub(super) fn zstd(stored: Format, client: &Client) -> Self {
        Self::new(stored, client, Reason::Zstd)
    }

    /// Only schema 1 would do, and the operator denies it to the client.
    pub(super) fn schema1_denied(stored: Format, client: &Client) -> Self {
        Self { reads: client.readable(), ..Self::new(stored, client, Reason::Schema1Denied) }
    }

    /// Every candidate was tried and failed; `reason` is the first one's, a clause in plain words.
    pub fn untranslatable(stored: Format, client: &Client, reason: impl fmt::Display) -> Self {
        Self::new(stored, client, Reason::Untranslatable(reason.to_string()))
    }

    /// One platform's image was to be picked, and there is none.
    pub fn no_platform(stored: Format, client: &Client, found: NoPlatform) -> Self {
        Self::new(stored, client, Reason::NoPlatform(found))
    }

    /// The refusal in words that tell no more of the stored document than its format.
    pub fn formats_only(&self) -> String {
        match &self.reason {
            Reason::Unreadable | Reason::OnlyOci | Reason::ZeroLayers | Reason::Zstd | Reason::Schema1Denied => {
                self.to_string()
            }
            Reason::Untranslatable(_) | Reason::NoPlatform(_) => {
                let Self { client, stored, reads, .. } = self;
                let stored = stored.name();
                format!("this image is stored as {stored}, {client} reads only {reads}, and it cannot be translated")
            }
        }
    }

    fn new(stored: Format, client: &Client, reason: Reason) -> Self {
        Self { client: client.to_string(), stored, reads: client.usable(), reason, layers: client.layers() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, stored, reads, reason, layers } = self;
        let reads_newer = reads.contains(Format::Schema2) || reads.contains(Format::Oci);
        let upgrade = match (stored, layers.upgrade) {
            (Format::Schema1, Upgrade::Nothing) if reads_newer => UPGRADE_WOULD_HELP,
            _ => "",
        };
        let transcoding = if layers.transcode == Transcode::Nothing { TRANSCODING_WOULD_HELP } else { "" };
        let stored_name = stored.name();
        match reason {
            Reason::Unreadable if *stored == Format::Artifact => write!(
                formatter,
                "this is not a container image but {stored_name}, and {client} reads only {reads}; \
                 fetch it with the tool that made it, such as oras or helm"
            ),
            Reason::Unreadable => write!(
                formatter,
                "this image is stored as {stored_name}, and {client} reads only {reads}; \
                 pull it with a client that reads the stored format, or push it again in a newer format{upgrade}"
            ),
            Reason::OnlyOci => write!(
                formatter,
                "this image is stored as {stored_name}, from which there is no translation, and {client} accepts only \
                 OCI types; build it again with a current tool, or copy it with `skopeo copy --format oci`{upgrade}"
            ),
            Reason::ZeroLayers => write!(
                formatter,
                "this image has no layers, and {client} crashes on such an image; \
                 add a layer to it, or pull it with Docker 1.11 or newer"
            ),
            Reason::Zstd => write!(
                formatter,
                "this image has layers compressed with zstd, which {client} cannot unpack; \
                 push it again with gzip layers, or pull it with a newer client (Docker 23, containerd 1.5){transcoding}"
            ),
            Reason::Schema1Denied if *stored == Format::Schema1 => write!(
                formatter,
                "this image is stored as {stored_name}, and the operator of this gateway keeps that old format from \
                 {client}; build the image again with a current tool and push it{upgrade}"
            ),
            Reason::Schema1Denied => write!(
                formatter,
                "{client} could be given this image only as Docker schema 1, and the operator of this gateway keeps that \
                 old format from it; pull with Docker 1.10 or newer"
            ),
            Reason::Untranslatable(reason) => write!(
                formatter,
                "this image is stored as {stored_name}, {client} reads only {reads}, and it cannot be translated: {reason}"
            ),
            Reason::NoPlatform(found) => write!(
                formatter,
                "{found}; {client} does not read {stored_name}, so it can only be given the image for its own \
                 platform: push one"
            ),
        }
    }
}
