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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::json;
    use crate::image::layer::LayerFacts;
    use crate::image::media_type;
    use crate::translate::{SigningKey, cell_for, upgrade_for};

    const OCI: &str = "application/vnd.oci.image.layer.v1.tar+";
    const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.";

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn config() -> String {
        let diff_ids = ["archive 1", "archive 2", "archive 1"].map(|archive| json::string(digest(archive).as_str()));
        format!(r#"{{"architecture":"amd64","rootfs":{{"type":"layers","diff_ids":{}}}}}"#, json::array(diff_ids))
    }

    fn layer(media_type: &str, blob: &str, size: u64, more: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{size}{more}}}"#, digest(blob))
    }

    fn manifest(format: Format, layers: &[String]) -> Manifest {
        let docker = format == Format::Schema2;
        let config_type = if docker { media_type::DOCKER_CONFIG } else { media_type::OCI_CONFIG };
        let config = layer(config_type, &config(), config().len() as u64, "");
        let (media_type, layers) = (format.media_type(), json::array(layers));
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":{layers},"annotations":{{"a":"b"}}}}"#
        );
        Manifest::parse(text.into()).unwrap()
    }

    /// A zstd layer with what both makers of zstd:chunked write beside it, a gzip one, and the first again.
    fn zstd() -> Manifest {
        let chunked = r#","annotations":{"io.github.containers.zstd-chunked.manifest-checksum":"x","io.containers.zstd-chunked.manifest-position":"y","containerd.io/snapshot/stargz/toc.digest":"z","kept":"1"}"#;
        let first = layer(&format!("{OCI}zstd"), "zstd", 9, chunked);
        let gzip = layer(
            &format!("{OCI}gzip"),
            "gzip 2",
            8,
            r#","annotations":{"containerd.io/snapshot/stargz/toc.digest":"z"}"#,
        );
        manifest(Format::Oci, &[first.clone(), gzip, first])
    }

    /// The same image as if it had been pushed with gzip.
    fn twin() -> Manifest {
        let first = layer(&format!("{OCI}gzip"), "gzip 1", 7, r#","annotations":{"kept":"1"}"#);
        let gzip = layer(
            &format!("{OCI}gzip"),
            "gzip 2",
            8,
            r#","annotations":{"containerd.io/snapshot/stargz/toc.digest":"z"}"#,
        );
        manifest(Format::Oci, &[first.clone(), gzip, first])
    }

    fn learnt(archive: &str) -> Learnt {
        let gzip = GzipLayer { digest: digest("gzip 1"), size: 7, diff_id: digest(archive) };
        Learnt { gzip: [(digest("zstd"), gzip)].into(), ..Learnt::default() }
    }

    fn with_source<Output>(
        manifest: &Manifest,
        config: Option<&[u8]>,
        learnt: &Learnt,
        work: impl Fn(&Source<'_>) -> Output,
    ) -> Output {
        work(&Source {
            manifest,
            config,
            repository: &"a/b".parse().unwrap(),
            tag: &"t".parse().unwrap(),
            signing_key: Some(&SigningKey::generate([7; 32]).unwrap()),
            learnt: Some(learnt),
        })
    }

    #[test]
    fn the_repacked_image_is_the_one_that_was_pushed_with_gzip() {
        let (stored, twin, config) = (zstd(), twin(), config());
        let needed: Vec<&Digest> = needs_repacking(&stored).into_iter().map(|layer| &layer.digest).collect();
        assert_eq!(needed, [&digest("zstd")]);
        assert!(needs_repacking(&twin).is_empty());
        let config = Some(config.as_bytes());
        let derived = with_source(&stored, config, &learnt("archive 1"), repacked).unwrap();
        assert_eq!((derived.bytes, derived.format), (twin.bytes().clone(), Format::Oci));
        for target in [Format::Schema1, Format::Schema2] {
            let cell = cell_for(&stored, target).unwrap();
            let derived = with_source(&stored, config, &learnt("archive 1"), cell).unwrap();
            assert_eq!(derived, with_source(&twin, config, &Learnt::default(), cell).unwrap(), "{target}");
        }
    }

    #[test]
    fn dockers_zstd_type_becomes_dockers_gzip_type() {
        let gzip = layer(&format!("{DOCKER}gzip"), "gzip 2", 8, "");
        let first = layer(&format!("{DOCKER}zstd"), "zstd", 9, "");
        let stored = manifest(Format::Schema2, &[first.clone(), gzip, first]);
        let derived = with_source(&stored, Some(config().as_bytes()), &learnt("archive 1"), repacked).unwrap();
        let Content::Image(image) = Manifest::parse(derived.bytes).unwrap().content().clone() else { panic!() };
        let found: Vec<(String, u64)> =
            image.layers.iter().map(|layer| (layer.digest.to_string(), layer.size)).collect();
        let [one, two] = ["gzip 1", "gzip 2"].map(|blob| digest(blob).to_string());
        assert_eq!(found, [(one.clone(), 7), (two, 8), (one, 7)]);
        assert!(image.layers.iter().all(|layer| layer.media_type == format!("{DOCKER}gzip")));
    }

    #[test]
    fn another_archive_than_the_config_names_is_refused() {
        let (stored, config) = (zstd(), config());
        let refusal = with_source(&stored, Some(config.as_bytes()), &learnt("other"), repacked).unwrap_err();
        assert!(matches!(refusal, Untranslatable::DiffId { position: 1, .. }), "{refusal}");
        let refusal = with_source(&stored, None, &learnt("archive 1"), repacked).unwrap_err();
        assert_eq!(refusal, Untranslatable::ConfigMissing);
        let refusal = with_source(&stored, Some(b"{}"), &learnt("archive 1"), repacked).unwrap_err();
        assert!(matches!(refusal, Untranslatable::ConfigMismatch { .. }), "{refusal}");
    }

    #[test]
    fn a_zstd_layer_of_schema_1_is_upgraded_with_what_stands_for_it() {
        let entry = json::string(&format!(r#"{{"id":"{}","os":"linux"}}"#, "ab".repeat(32)));
        let text = format!(
            r#"{{"schemaVersion":1,"name":"n","tag":"t","architecture":"amd64","fsLayers":[{{"blobSum":"{}"}}],"history":[{{"v1Compatibility":{entry}}}]}}"#,
            digest("zstd")
        );
        let stored = Manifest::parse(text.into()).unwrap();
        let facts = LayerFacts { diff_id: digest("archive 1"), size: 9, compression: Compression::Zstd };
        let learnt = Learnt { facts: [(digest("zstd"), facts)].into(), ..learnt("archive 1") };
        let derived = with_source(&stored, None, &learnt, upgrade_for(&stored, Format::Schema2).unwrap()).unwrap();
        let Content::Image(image) = Manifest::parse(derived.bytes).unwrap().content().clone() else { panic!() };
        assert_eq!((&image.layers[0].digest, image.layers[0].size), (&digest("gzip 1"), 7));
    }
}
