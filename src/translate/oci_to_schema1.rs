//! OCI manifest → Docker schema 1.

use super::schema2_to_schema1::compose;
use super::{Derived, Source, Untranslatable};

/// The schema 1 of the schema 2 that this manifest would be: the config's bytes are the same and layers are named by
/// digest only, so both families of one image give one schema 1 digest.
pub(super) fn oci_to_schema1(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    compose(source, source.image()?.as_ref())
}
