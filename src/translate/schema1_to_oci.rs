//! Docker schema 1 → OCI manifest: beyond the table, for those who opt in.

use super::schema1_to_schema2::{Upgraded, upgraded};
use super::{Derived, Source, Untranslatable};
use crate::image::digest::Digest;
use crate::image::layer::LayerKind;
use crate::image::media_type::{self, Format};
use crate::image::oci;

/// The same config as in the schema 2 of this image, so both families have one image ID.
pub(super) fn schema1_to_oci(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    let Upgraded { image, config } = upgraded(source, media_type::OCI_CONFIG, LayerKind::oci_media_type)?;
    let document = oci::write(&image);
    let digest = Digest::sha256(document.as_bytes());
    Ok(Derived { blobs: vec![config], ..Derived::new(document, digest, Format::Oci)? })
}
