//! Docker schema 2 → Docker schema 1, byte for byte as CNCF distribution 2.8 does it
//! (`manifest/schema1/config_builder.go`), and so as Docker Hub did it. Where distribution loses layers or panics, this
//! refuses or completes; where a config carries keys that break engines, they are left out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256, Sha384};

use super::{Derived, Source, Untranslatable, empty_layer, layer_fault, refuse_length, sign};
use crate::image::config::{Config, History, Rootfs};
use crate::image::digest::Digest;
use crate::image::json::{self, ObjectWriter, Raw};
use crate::image::layer::{Compression, LayerKind};
use crate::image::media_type::Format;
use crate::image::oci::ImageManifest;
use crate::image::schema1::Payload;
use crate::image::timestamp::Timestamp;

/// Fewer bytes than any step takes in schema 1: two digests and the words around them. A config of a few megabytes can
/// tell of enough steps to fill gigabytes, so they are counted before they are written.
const STEP_BYTES_MIN: usize = 256;

/// Makes a signed schema 1 whose digest depends on the config, the layers' digests, the repository and the tag.
pub(super) fn schema2_to_schema1(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    compose(source, source.image()?.as_ref())
}

/// The schema 1 of an image of either family.
pub(super) fn compose(source: &Source<'_>, image: &ImageManifest) -> Result<Derived, Untranslatable> {
    refuse_layers(image)?;
    let bytes = source.config_bytes(image)?;
    let config = Config::parse(bytes)?;
    let rootfs = config.rootfs.as_ref().ok_or(Untranslatable::NoRootfs)?;
    let steps = steps(&config, rootfs, image)?;
    let entries = entries(&config, bytes, rootfs, &steps);
    refuse_length(entries.iter().map(|(_, entry)| entry.len()).sum())?;
    let payload = Payload {
        name: source.repository.as_str(),
        tag: source.tag.as_str(),
        architecture: &config.architecture,
        entries: &entries,
    }
    .write();
    let time = Timestamp::utc_seconds_or_epoch(config.created.as_ref());
    let digest = Digest::sha256(payload.as_bytes());
    let key = source.signing_key.ok_or(Untranslatable::SigningKeyMissing)?;
    Derived::new(sign::pretty(&payload, &time, key), digest, Format::Schema1)
}

/// Schema 1 names a layer by its digest alone: it must come from the registry, as a tar archive that is not compressed
/// or compressed with gzip, which Docker tells apart by their first bytes.
fn refuse_layers(image: &ImageManifest) -> Result<(), Untranslatable> {
    for (index, layer) in image.layers.iter().enumerate() {
        let kind = LayerKind::of(&layer.media_type);
        if !matches!(kind, LayerKind::Archive(Compression::None | Compression::Gzip)) {
            let fault = layer_fault(kind, &layer.media_type, Format::Schema1);
            return Err(Untranslatable::Layer { position: index + 1, fault });
        }
    }
    Ok(())
}

/// One entry of schema 1's two lists before it is written.
struct Step<'a> {
    blob: &'a Digest,
    history: Cow<'a, History>,
}

/// The history with the layer that each step made, the oldest first. Every layer has a step: where the history tells of
/// too few, it tells of the oldest ones, and each one left over gets a step that says nothing but when the image was
/// made. An image of nothing at all is one step that made no layer.
fn steps<'a>(
    config: &'a Config<'_>,
    rootfs: &Rootfs,
    image: &'a ImageManifest,
) -> Result<Vec<Step<'a>>, Untranslatable> {
    let layers = image.layers.len();
    if rootfs.diff_ids.len() != layers {
        return Err(Untranslatable::DiffIds { diff_ids: rootfs.diff_ids.len(), layers });
    }
    refuse_length(config.history.len().max(layers).saturating_mul(STEP_BYTES_MIN))?;
    let told = config.history.iter().filter(|history| !history.empty_layer).count();
    let mut blobs = image.layers.iter().map(|layer| &layer.digest);
    let mut steps = Vec::with_capacity(config.history.len().max(layers));
    for history in &config.history {
        let blob = if history.empty_layer { Some(empty_layer::digest()) } else { blobs.next() };
        let blob = blob.ok_or(Untranslatable::History { steps: told, layers })?;
        steps.push(Step { blob, history: Cow::Borrowed(history) });
    }
    let untold = || History { created: config.created.clone(), ..History::default() };
    steps.extend(blobs.map(|blob| Step { blob, history: Cow::Owned(untold()) }));
    if steps.is_empty() {
        let history = History { empty_layer: true, ..untold() };
        steps.push(Step { blob: empty_layer::digest(), history: Cow::Owned(history) });
    }
    Ok(steps)
}

/// Blob digest and `v1Compatibility` of every step, the topmost first. Each id is the hash of the blob and the parent's
/// id; the topmost is also over the config's bytes.
fn entries(config: &Config<'_>, bytes: &[u8], rootfs: &Rootfs, steps: &[Step<'_>]) -> Vec<(Digest, Vec<u8>)> {
    let Some((top, below)) = steps.split_last() else {
        return Vec::new();
    };
    let mut entries = Vec::with_capacity(steps.len());
    let mut parent = String::new();
    for (index, step) in below.iter().enumerate() {
        let id = v1_id(step.blob, &parent, None);
        if index == 0 && !rootfs.base_layer.is_empty() {
            parent = windows_base_id(&rootfs.base_layer);
        }
        entries.push((step.blob.clone(), lower_entry(&id, &parent, &step.history).into_bytes()));
        parent = id;
    }
    let id = v1_id(top.blob, &parent, Some(bytes));
    entries.push((top.blob.clone(), top_entry(&id, &parent, top.history.empty_layer, config)));
    entries.reverse();
    entries
}

/// The lowest step has no parent, but the space before it is hashed all the same.
fn v1_id(blob: &Digest, parent: &str, config: Option<&[u8]>) -> String {
    let mut hash = Sha256::new();
    hash.update(blob.hex());
    hash.update(" ");
    hash.update(parent);
    if let Some(config) = config {
        hash.update(" ");
        hash.update(config);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// What stands as the parent of the lowest step of an image on a Windows base layer: an id's worth of SHA-384.
fn windows_base_id(base_layer: &str) -> String {
    const ID_BYTES: usize = 32;
    let hash = Sha384::digest(base_layer);
    data_encoding::HEXLOWER.encode(hash.get(..ID_BYTES).unwrap_or_default())
}

/// Every entry but the topmost, from its history. The command stands in a list of one, and is there even if empty.
fn lower_entry(id: &str, parent: &str, history: &History) -> String {
    let created = history.created.as_ref().map_or_else(|| Timestamp::ZERO.to_owned(), Timestamp::to_string);
    let command = ObjectWriter::new().json("Cmd", &json::array([json::string(&history.created_by)]));
    let entry = ObjectWriter::new()
        .string("id", id)
        .string_unless_empty("parent", parent)
        .string_unless_empty("comment", &history.comment)
        .string("created", &created)
        .json("container_config", &command.finish())
        .string_unless_empty("author", &history.author);
    if history.empty_layer { entry.json("throwaway", "true") } else { entry }.finish()
}

/// Keys that schema 1 itself writes into the topmost entry or that engines act on when they find them there, in
/// whatever case, because Go's decoder ignores it: a stray `Parent` or a number as `Id` breaks Docker 1.6 to 1.9, a
/// `Size` of 0 makes containerd take the topmost layer for empty.
const STRAY_KEYS: [&str; 6] = ["id", "parent", "parent_id", "layer_id", "throwaway", "size"];

/// The topmost entry: the config without what schema 1 says elsewhere, its keys sorted. The topmost history is not in
/// it; engines read it back from the config itself.
fn top_entry(id: &str, parent: &str, is_throwaway: bool, config: &Config<'_>) -> Vec<u8> {
    let kept = config.members().iter().filter(|(key, value)| is_kept(key, *value));
    let mut members: BTreeMap<&str, Vec<u8>> =
        kept.map(|(key, value)| (key.as_ref(), json::compacted(*value))).collect();
    members.insert("id", json::string(id).into());
    if !parent.is_empty() {
        members.insert("parent", json::string(parent).into());
    }
    if is_throwaway {
        members.insert("throwaway", b"true".to_vec());
    }
    json::object(members)
}

/// A member of the config that stays in the topmost entry.
fn is_kept(key: &str, value: Raw<'_>) -> bool {
    let is_said_elsewhere = ["rootfs", "history"].contains(&key);
    let is_stray = STRAY_KEYS.iter().any(|stray| json::equal_fold(key, stray));
    let is_unreadable_time = json::equal_fold(key, "created") && !value.is_null() && !is_time(value);
    !is_said_elsewhere && !is_stray && !is_unreadable_time
}

/// Every engine refuses an image whose topmost `created` is not a time, so one that is not is left out.
fn is_time(value: Raw<'_>) -> bool {
    value.string().is_some_and(|text| Timestamp::parse(&text).is_some())
}
