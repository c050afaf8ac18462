//! OCI manifest → Docker schema 2.

use std::collections::BTreeMap;

use super::{Derived, Source, Untranslatable, layer_fault};
use crate::image::descriptor::Descriptor;
use crate::image::digest::Digest;
use crate::image::layer::LayerKind;
use crate::image::media_type::{self, Format};
use crate::image::oci::ImageManifest;
use crate::image::schema2;

/// Says every descriptor in Docker's media types. The config's bytes stay, and with them the image ID; annotations,
/// which Docker's types cannot carry, go. zstd has a Docker type that no engine before 23.0 reads, so it is never
/// written. A schema 2 with an OCI config or OCI layers is made a proper one.
pub(super) fn oci_to_schema2(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    let image = source.image()?;
    source.require_image_config(&image)?;
    let docker = ImageManifest {
        config: in_docker_type(&image.config, media_type::DOCKER_CONFIG),
        layers: image.layers.iter().enumerate().map(docker_layer).collect::<Result<_, _>>()?,
        annotations: BTreeMap::new(),
    };
    let document = schema2::write(&docker);
    let digest = Digest::sha256(document.as_bytes());
    Derived::new(document, digest, Format::Schema2)
}

fn docker_layer((index, layer): (usize, &Descriptor)) -> Result<Descriptor, Untranslatable> {
    let kind = LayerKind::of(&layer.media_type);
    let Some(media_type) = kind.docker_media_type().filter(|_| !kind.is_zstd()) else {
        let fault = layer_fault(kind, &layer.media_type, Format::Schema2);
        return Err(Untranslatable::Layer { position: index + 1, fault });
    };
    Ok(in_docker_type(layer, media_type))
}

/// What a Docker descriptor can say.
fn in_docker_type(descriptor: &Descriptor, media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: descriptor.digest.clone(),
        size: descriptor.size,
        urls: descriptor.urls.clone(),
        annotations: BTreeMap::new(),
        platform: None,
        artifact_type: None,
    }
}
