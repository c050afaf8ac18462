//! Docker schema 1 → Docker schema 2: beyond the table, for those who opt in.
//!
//! The config is rebuilt as Docker 1.12 to 25 do when they pull schema 1 (moby `distribution/pull_v2.go`,
//! `fixManifestLayers`), so the image ID is the one that they show. Layers stay as they are: they are named by digest, size
//! and the type that their first bytes have.

use std::collections::{BTreeMap, BTreeSet};

use super::v1_image::{V1Fault, V1Image};
use super::{Derived, DerivedBlob, Source, Untranslatable, empty_layer, layer_fault};
use crate::image::descriptor::Descriptor;
use crate::image::digest::Digest;
use crate::image::layer::{Compression, LayerFacts, LayerKind};
use crate::image::manifest::{CONFIG_BYTES_MAX, Content, Manifest};
use crate::image::media_type::{self, Format};
use crate::image::oci::ImageManifest;
use crate::image::schema1::Schema1;
use crate::image::schema2;

/// Makes a schema 2 with a config of its own.
pub(super) fn schema1_to_schema2(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    let Upgraded { image, config } = upgraded(source, media_type::DOCKER_CONFIG, LayerKind::docker_media_type)?;
    refuse_zstd(&image)?;
    let document = schema2::write(&image);
    let digest = Digest::sha256(document.as_bytes());
    Ok(Derived { blobs: vec![config], ..Derived::new(document, digest, Format::Schema2)? })
}

/// zstd has a Docker type that no engine before 23.0 reads, so it is never written.
fn refuse_zstd(image: &ImageManifest) -> Result<(), Untranslatable> {
    match image.layers.iter().position(|layer| LayerKind::of(&layer.media_type).is_zstd()) {
        Some(index) => {
            let kind = LayerKind::Archive(Compression::Zstd);
            Err(Untranslatable::Layer { position: index + 1, fault: layer_fault(kind, "", Format::Schema2) })
        }
        None => Ok(()),
    }
}

/// The layers of which an upgrade of this document needs the facts: each once, without the one that everybody knows.
/// Whatever keeps the document from being upgraded is found here, before any layer is read.
pub fn layers_read(manifest: &Manifest) -> Result<BTreeSet<Digest>, Untranslatable> {
    let steps = steps(schema1(manifest)?)?;
    let layers = steps.iter().filter(|step| !step.image.is_throwaway).map(|step| step.blob);
    Ok(layers.filter(|blob| *blob != empty_layer::digest()).cloned().collect())
}

/// An image of the new kind with the config that was made for it.
pub(super) struct Upgraded {
    pub(super) image: ImageManifest,
    pub(super) config: DerivedBlob,
}

/// One entry of schema 1, read.
struct Step<'a> {
    blob: &'a Digest,
    image: V1Image<'a>,
}

/// The image of either family: the types differ, the config's bytes do not.
pub(super) fn upgraded(
    source: &Source<'_>,
    config_type: &str,
    layer_type: impl Fn(LayerKind) -> Option<&'static str>,
) -> Result<Upgraded, Untranslatable> {
    let steps = steps(schema1(source.manifest)?)?;
    let made_layers: Vec<&Digest> =
        steps.iter().rev().filter(|step| !step.image.is_throwaway).map(|step| step.blob).collect();
    let facts = made_layers.iter().map(|blob| facts_of(source, blob)).collect::<Result<Vec<_>, _>>()?;
    let config = config(&steps, &facts)?;
    let layers = made_layers.into_iter().zip(facts).map(|(blob, facts)| {
        let kind = LayerKind::Archive(facts.compression);
        descriptor(layer_type(kind).unwrap_or_default(), blob.clone(), facts.size)
    });
    let config_descriptor = descriptor(config_type, config.digest.clone(), config.bytes.len() as u64);
    let image = ImageManifest { config: config_descriptor, layers: layers.collect(), annotations: BTreeMap::new() };
    let image = source.with_gzip_layers_of(&image, &config.bytes)?.into_owned();
    Ok(Upgraded { image, config })
}

fn schema1(manifest: &Manifest) -> Result<&Schema1, Untranslatable> {
    match manifest.content() {
        Content::Schema1(schema1) => Ok(schema1),
        Content::Image(_) | Content::Index(_) | Content::Artifact(_) => {
            Err(Untranslatable::NotAnImage { format: manifest.format() })
        }
    }
}

/// The entries, the topmost first. Each must be the child of the next; of neighbours with one ID only the lowest counts,
/// and otherwise no ID may come twice. The lowest has no parent, except on Windows, whose base layers are not in the
/// manifest.
fn steps(schema1: &Schema1) -> Result<Vec<Step<'_>>, Untranslatable> {
    let (layers, entries) = (schema1.fs_layers.len(), schema1.history.len());
    if layers != entries || layers == 0 {
        return Err(Untranslatable::Entries { layers, entries });
    }
    let images =
        schema1.history.iter().enumerate().map(|(index, text)| {
            V1Image::parse(text).map_err(|fault| Untranslatable::V1 { position: index + 1, fault })
        });
    let images = images.collect::<Result<Vec<_>, _>>()?;
    refuse_lying_ids(&images)?;
    let next_ids: Vec<Option<String>> =
        images.iter().skip(1).map(|image| Some(image.id.clone())).chain([None]).collect();
    let steps = schema1.fs_layers.iter().zip(images).map(|(blob, image)| Step { blob, image });
    let kept = steps.zip(next_ids).filter(|(step, next)| next.as_ref() != Some(&step.image.id));
    Ok(kept.map(|(step, _)| step).collect())
}

fn refuse_lying_ids(images: &[V1Image<'_>]) -> Result<(), Untranslatable> {
    let is_windows = images.first().is_some_and(|top| top.os == "windows");
    let mut seen = BTreeSet::new();
    for (index, image) in images.iter().enumerate() {
        let lower = images.get(index + 1);
        let upper = index.checked_sub(1).and_then(|upper| images.get(upper));
        let refuse = |fault| Err(Untranslatable::V1 { position: index + 1, fault });
        if !seen.insert(image.id.as_str()) && upper.is_some_and(|upper| upper.id != image.id) {
            return refuse(V1Fault::RepeatedId { id: image.id.clone() });
        }
        match lower {
            Some(lower) if lower.id == image.id || lower.id == image.parent => {}
            None if image.parent.is_empty() || is_windows => {}
            Some(lower) => return refuse(V1Fault::Parent { expected: lower.id.clone(), found: image.parent.clone() }),
            None => return refuse(V1Fault::BaseParent { found: image.parent.clone() }),
        }
    }
    Ok(())
}

/// What is known of a layer. Everybody knows the empty one.
fn facts_of(source: &Source<'_>, blob: &Digest) -> Result<LayerFacts, Untranslatable> {
    let learnt = source.learnt.and_then(|learnt| learnt.facts.get(blob));
    if let Some(facts) = learnt {
        return Ok(facts.clone());
    }
    if blob == empty_layer::digest() {
        return Ok(empty_layer::facts());
    }
    Err(Untranslatable::LayerUnread { digest: blob.clone() })
}

fn config(steps: &[Step<'_>], facts: &[LayerFacts]) -> Result<DerivedBlob, Untranslatable> {
    let entries = steps.iter().rev().map(|step| step.image.history());
    let diff_ids: Vec<&Digest> = facts.iter().map(|facts| &facts.diff_id).collect();
    let top = steps.first().ok_or(Untranslatable::Entries { layers: 0, entries: 0 })?;
    let bytes = top.image.config(&diff_ids, entries);
    let bytes = bytes.map_err(|fault| Untranslatable::V1 { position: 1, fault })?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(Untranslatable::ConfigTooLarge { bytes: bytes.len() });
    }
    Ok(DerivedBlob { digest: Digest::sha256(&bytes), bytes: bytes.into() })
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        platform: None,
        artifact_type: None,
    }
}
