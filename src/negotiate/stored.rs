//! The few facts about a stored document that decide what a client gets.

use crate::image::media_type::Format;

use super::client::Client;
use super::clients::Quirk;
use super::formats::Formats;

/// A stored document, as far as negotiation looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is, by its bytes.
    pub format: Format,
    /// What it has in it.
    pub content: StoredContent,
}

/// What a stored document has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredContent {
    /// A schema 2 or an OCI manifest.
    Image {
        /// The number of layers.
        layers: usize,
        /// Whether a layer is compressed with zstd.
        zstd: bool,
        /// Whether the config has a type that Docker 1.13 takes for its own.
        docker_config: bool,
    },
    /// A list or an index.
    Entries {
        /// Whether every entry is labelled as schema 1 or schema 2, or not labelled at all.
        docker_children: bool,
    },
    /// An artifact in a schema 2 document, such as a Docker plugin: who reads schema 2 asked for it by that type.
    Schema2Artifact,
    /// A schema 1 or any other artifact: nothing in it matters.
    Opaque,
}

impl Stored {
    /// Whether `formats` has the one that the document is answered in as it is.
    pub(super) fn is_in(&self, formats: Formats) -> bool {
        let clothed = self.content == StoredContent::Schema2Artifact && formats.contains(Format::Schema2);
        formats.contains(self.format) || clothed
    }

    /// The format that the document counts as for `client`, which is the row of the table that its translation starts
    /// from: a Docker document with OCI parts breaks Docker 1.10 to 18.05, so for them a list with such children counts
    /// as an index and a schema 2 with such a config as an OCI manifest. For everybody else it is what it is.
    pub fn counts_as(&self, client: &Client) -> Format {
        let broken = client.has(Quirk::DockerPartsOnly);
        match (self.format, self.content) {
            (Format::List, StoredContent::Entries { docker_children: false }) if broken => Format::Index,
            (Format::Schema2, StoredContent::Image { docker_config: false, .. }) if broken => Format::Oci,
            (format, _) => format,
        }
    }
}
