//! The few facts about a stored document that decide what a client gets.

use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::{Format, SCHEMA2};

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
    /// The facts about `manifest`.
    pub fn of(manifest: &Manifest) -> Self {
        let content = match manifest.content() {
            Content::Image(image) => StoredContent::Image {
                layers: image.layers.len(),
                zstd: image.has_zstd_layers(),
                docker_config: image.has_docker_config(),
            },
            Content::Index(index) => StoredContent::Entries { docker_children: index.has_only_docker_children() },
            Content::Artifact(_) if manifest.media_type() == SCHEMA2 => StoredContent::Schema2Artifact,
            Content::Artifact(_) | Content::Schema1(_) => StoredContent::Opaque,
        };
        Self { format: manifest.format(), content }
    }

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

    fn descriptor(media_type: &str) -> serde_json::Value {
        let digest = format!("sha256:{}", "a".repeat(64));
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": 7})
    }

    fn of(document: &serde_json::Value) -> Stored {
        Stored::of(&Manifest::parse(Bytes::from(document.to_string())).unwrap())
    }

    fn image(media_type: &str, config: &str, layers: &[&str]) -> Stored {
        let layers: Vec<_> = layers.iter().map(|layer| descriptor(layer)).collect();
        of(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "config": descriptor(config), "layers": layers,
        }))
    }

    fn list(child: &str) -> Stored {
        let media_type = "application/vnd.docker.distribution.manifest.list.v2+json";
        of(&serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [descriptor(child)]}))
    }

    #[test]
    fn the_facts_of_an_image_are_its_layers_and_its_config() {
        let proper = StoredContent::Image { layers: 2, zstd: false, docker_config: true };
        assert_eq!(image(SCHEMA2, DOCKER_CONFIG, &[GZIP, GZIP]), Stored { format: Format::Schema2, content: proper });
        let hybrid = StoredContent::Image { layers: 1, zstd: true, docker_config: false };
        assert_eq!(image(SCHEMA2, OCI_CONFIG, &[ZSTD]), Stored { format: Format::Schema2, content: hybrid });
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let empty = StoredContent::Image { layers: 0, zstd: false, docker_config: false };
        assert_eq!(image(oci, OCI_CONFIG, &[]), Stored { format: Format::Oci, content: empty });
    }

    #[test]
    fn the_fact_of_a_list_is_its_children() {
        let stored =
            |docker_children| Stored { format: Format::List, content: StoredContent::Entries { docker_children } };
        assert_eq!(list(SCHEMA2), stored(true));
        assert_eq!(list("application/vnd.oci.image.manifest.v1+json"), stored(false));
    }

    #[test]
    fn a_plugin_is_an_artifact_in_schema_2() {
        let plugin = image(SCHEMA2, "application/vnd.docker.plugin.v1+json", &[GZIP]);
        assert_eq!(plugin, Stored { format: Format::Artifact, content: StoredContent::Schema2Artifact });
    }
}
