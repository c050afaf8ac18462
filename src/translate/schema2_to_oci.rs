//! Docker schema 2 → OCI manifest.

use super::{Derived, Source, Untranslatable, layer_fault};
use crate::image::descriptor::Descriptor;
use crate::image::digest::Digest;
use crate::image::layer::LayerKind;
use crate::image::media_type::{self, Format};
use crate::image::oci::{self, ImageManifest};

/// Says every descriptor in the OCI's media types; the config's bytes stay, and with them the image ID. Types that are
/// the OCI's already pass, and so does a layer of a type that nobody knows, as it would have passed in the schema 2.
pub(super) fn schema2_to_oci(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    let image = source.image()?;
    source.require_image_config(&image)?;
    let oci = ImageManifest {
        config: Descriptor { media_type: media_type::OCI_CONFIG.to_owned(), ..image.config.clone() },
        layers: image.layers.iter().enumerate().map(oci_layer).collect::<Result<_, _>>()?,
        annotations: image.annotations.clone(),
    };
    let document = oci::write(&oci);
    let digest = Digest::sha256(document.as_bytes());
    Derived::new(document, digest, Format::Oci)
}

fn oci_layer((index, layer): (usize, &Descriptor)) -> Result<Descriptor, Untranslatable> {
    let kind = LayerKind::of(&layer.media_type);
    match (kind, kind.oci_media_type()) {
        (_, Some(media_type)) => Ok(Descriptor { media_type: media_type.to_owned(), ..layer.clone() }),
        (LayerKind::Encrypted | LayerKind::InToto, None) => {
            let fault = layer_fault(kind, &layer.media_type, Format::Oci);
            Err(Untranslatable::Layer { position: index + 1, fault })
        }
        (_, None) => Ok(layer.clone()),
    }
}
