//! Docker image manifest version 2, schema 2, in the canonical form of Docker's own registry code.

use super::descriptor::Descriptor;
use super::json::{self, ObjectWriter};
use super::media_type;
use super::oci::{ImageManifest, with_strings};
use super::platform::Platform;

/// Config types that Docker 1.13 to 18.03 accept beside its own, because some tools push them
/// (moby `distribution/registry.go`, v17.03). They do not say that the config is an image's.
pub const LOOSE_CONFIG_TYPES: [&str; 4] = ["application/octet-stream", "application/json", "text/html", ""];

/// Writes a schema 2 manifest as `docker push` does: three spaces, `size` before `digest`, no newline at the end.
/// Annotations, platforms and the like are left out, because Docker's types have no place for them.
pub fn write(image: &ImageManifest) -> String {
    let compact = ObjectWriter::new()
        .json("schemaVersion", "2")
        .string("mediaType", media_type::SCHEMA2)
        .json("config", &write_descriptor(&image.config))
        .json("layers", &json::array(image.layers.iter().map(write_descriptor)))
        .finish();
    json::indented(&compact, "", "   ")
}

/// Writes a manifest list as `docker manifest push` does, in the same form.
pub fn write_list(entries: &[Descriptor]) -> String {
    let compact = ObjectWriter::new()
        .json("schemaVersion", "2")
        .string("mediaType", media_type::MANIFEST_LIST)
        .json("manifests", &json::array(entries.iter().map(write_entry)))
        .finish();
    json::indented(&compact, "", "   ")
}

fn write_entry(entry: &Descriptor) -> String {
    let text = ObjectWriter::new()
        .string("mediaType", &entry.media_type)
        .json("size", &entry.size.to_string())
        .string("digest", entry.digest.as_str());
    match &entry.platform {
        Some(platform) => text.json("platform", &write_platform(platform)).finish(),
        None => text.finish(),
    }
}

/// All that Docker's list can say of a platform (distribution 2.8, `manifest/manifestlist`).
fn write_platform(platform: &Platform) -> String {
    let text = ObjectWriter::new()
        .string("architecture", &platform.architecture)
        .string("os", &platform.os)
        .string_unless_empty("os.version", platform.os_version.as_deref().unwrap_or_default());
    let text = with_strings(text, "os.features", &platform.os_features)
        .string_unless_empty("variant", platform.variant.as_deref().unwrap_or_default());
    with_strings(text, "features", &platform.features).finish()
}

fn write_descriptor(descriptor: &Descriptor) -> String {
    let mut text = ObjectWriter::new()
        .string("mediaType", &descriptor.media_type)
        .json("size", &descriptor.size.to_string())
        .string("digest", descriptor.digest.as_str());
    if !descriptor.urls.is_empty() {
        text = text.json("urls", &json::array(descriptor.urls.iter().map(|url| json::string(url))));
    }
    text.finish()
}
