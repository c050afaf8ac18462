//! Layers compressed with zstd, said in the gzip layers that stand for them: for clients and formats that know no zstd.

use std::borrow::Cow;

use super::{Derived, Learnt, Source, Untranslatable};
use crate::image::config::Config;
use crate::image::descriptor::Descriptor;
use crate::image::digest::Digest;
use crate::image::layer::{Compression, GzipLayer, LayerKind};
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::image::oci::{self, ImageManifest};
use crate::image::schema2;

/// How the annotations begin that say where things are in a blob: of zstd:chunked, by both of its makers, and eStargz.
const ABOUT_THE_BLOB: [&str; 4] = [
    "io.github.containers.zstd-chunked.",
    "io.containers.zstd-chunked.",
    "io.containers.estargz.",
    "containerd.io/snapshot/stargz/",
];

/// The layers of an image for which a gzip one must stand, each once, before a client without zstd can read it.
pub fn needs_repacking(manifest: &Manifest) -> Vec<&Descriptor> {
    let Content::Image(image) = manifest.content() else { return Vec::new() };
    let mut found: Vec<&Descriptor> = Vec::new();
    for layer in &image.layers {
        let is_zstd = LayerKind::of(&layer.media_type) == LayerKind::Archive(Compression::Zstd);
        if is_zstd && found.iter().all(|known| known.digest != layer.digest) {
            found.push(layer);
        }
    }
    found
}

/// The stored image in its own format, with gzip layers in the place of those that they stand for: a client may read the
/// format and not the layers. The config's bytes stay; they must be given, because the archives are held against them.
pub fn repacked(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    let image = source.image()?;
    let format = source.manifest.format();
    let document = if format == Format::Schema2 { schema2::write(&image) } else { oci::write(&image) };
    let digest = Digest::sha256(document.as_bytes());
    Derived::new(document, digest, format)
}

impl<'a> Source<'a> {
    /// This image with gzip layers in the place of those that they stand for.
    pub(super) fn with_gzip_layers(&self, image: &'a ImageManifest) -> Result<Cow<'a, ImageManifest>, Untranslatable> {
        if self.gzip_layers(image).is_none() {
            return Ok(Cow::Borrowed(image));
        }
        self.with_gzip_layers_of(image, self.config_bytes(image)?)
    }

    /// The same for an image whose config is known to be this one.
    pub(super) fn with_gzip_layers_of<'image>(
        &self,
        image: &'image ImageManifest,
        config: &[u8],
    ) -> Result<Cow<'image, ImageManifest>, Untranslatable> {
        let Some(learnt) = self.gzip_layers(image) else { return Ok(Cow::Borrowed(image)) };
        let rootfs = Config::parse(config)?.rootfs.ok_or(Untranslatable::NoRootfs)?;
        let (diff_ids, count) = (rootfs.diff_ids.len(), image.layers.len());
        if diff_ids != count {
            return Err(Untranslatable::DiffIds { diff_ids, layers: count });
        }
        let mut image = image.clone();
        for (index, (layer, diff_id)) in image.layers.iter_mut().zip(rootfs.diff_ids).enumerate() {
            let Some(gzip) = stands_for(learnt, layer) else { continue };
            if gzip.diff_id.as_str() != diff_id {
                let found = gzip.diff_id.clone();
                return Err(Untranslatable::DiffId { position: index + 1, expected: diff_id, found });
            }
            put_in_its_place(layer, gzip);
        }
        Ok(Cow::Owned(image))
    }

    fn gzip_layers(&self, image: &ImageManifest) -> Option<&'a Learnt> {
        self.learnt.filter(|learnt| image.layers.iter().any(|layer| stands_for(learnt, layer).is_some()))
    }
}

/// The gzip layer that stands for this one, if it is of zstd. Layers that may only be fetched from elsewhere stay.
fn stands_for<'a>(learnt: &'a Learnt, layer: &Descriptor) -> Option<&'a GzipLayer> {
    let is_zstd = LayerKind::of(&layer.media_type) == LayerKind::Archive(Compression::Zstd);
    learnt.gzip.get(&layer.digest).filter(|_| is_zstd)
}

/// The type stays in its family; annotations that are about the bytes of the blob go with them.
fn put_in_its_place(layer: &mut Descriptor, gzip: &GzipLayer) {
    let kind = LayerKind::Archive(Compression::Gzip);
    let is_docker = LayerKind::Archive(Compression::Zstd).docker_media_type() == Some(layer.media_type.as_str());
    let media_type = if is_docker { kind.docker_media_type() } else { kind.oci_media_type() };
    media_type.unwrap_or_default().clone_into(&mut layer.media_type);
    layer.digest = gzip.digest.clone();
    layer.size = gzip.size;
    layer.annotations.retain(|key, _| !ABOUT_THE_BLOB.iter().any(|prefix| key.starts_with(prefix)));
}
