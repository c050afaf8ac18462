//! Manifest list ↔ OCI index: the table one level up, from children that are translated already.
//!
//! Who fetches and translates the children is not this floor's business: it is handed an [`Entry`] for each, in the stored
//! order, and says what the parent is. The same entries give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Derived, Untranslatable};
use crate::image::descriptor::{ATTESTED, Descriptor, Role};
use crate::image::digest::Digest;
use crate::image::manifest::Manifest;
use crate::image::media_type::Format;
use crate::image::oci::{self, Index};
use crate::image::platform::Platform;
use crate::image::schema2;

/// How a parent is to look, beside its format. Part of its recipe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// The stored document without the images whose layers are compressed with zstd, all other bytes of its entries kept.
    Pruned,
    /// A document of its own.
    Rebuilt {
        /// The formats of children that stay as they are stored, because the client reads them; sorted.
        kept: Vec<Format>,
        /// How entries of one operating system and architecture stand.
        order: Order,
        /// Which layers the client can unpack.
        layers: Layers,
    },
}

/// How entries of one operating system and architecture stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As stored.
    Stored,
    /// Together, where the first of them stands, the variant that runs on most machines first: Docker before 18.06 takes
    /// the first entry of its architecture and looks at no variant. The variants of arm stand in this order.
    Grouped(Vec<Option<String>>),
}

/// Which layers the client can unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layers {
    /// Any.
    Any,
    /// Not those that are compressed with zstd.
    WithoutZstd,
}

/// One entry of a stored list or index, nested ones taken apart, and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it is listed.
    pub listed: Descriptor,
    /// Its platform: the listed one, else its config's.
    pub platform: Option<Platform>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of an entry.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It stays as it is stored, under the media type that its bytes have.
    Kept {
        /// The media type.
        media_type: String,
        /// Its length in bytes: what the list says of it may be wrong.
        size: u64,
        /// How its layers are packed.
        packing: Packing,
    },
    /// It was translated.
    Derived {
        /// To this format.
        format: Format,
        /// Under this digest.
        digest: Digest,
        /// With this many bytes.
        size: u64,
    },
    /// It has no place in the parent.
    LeftOut(Omission),
}

/// How the layers of an image are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One of them with zstd, which fewer clients unpack.
    Zstd,
    /// None of them so.
    Other,
}

/// Why an entry has no place in the parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Omission {
    /// It is a statement about another entry, not to be run.
    Attestation,
    /// It is not an image.
    Artifact,
    /// The registry lists it and does not have it.
    Missing,
    /// It cannot be said in the target format.
    Untranslatable(String),
    /// It is stored as schema 1, and its layers may not be read for an upgrade.
    Schema1,
    /// Its layers are compressed with zstd, and no gzip ones may be made of them.
    Zstd,
    /// Another entry is for the same platform.
    SamePlatform,
}

impl fmt::Display for Omission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attestation => formatter.write_str("is an attestation"),
            Self::Artifact => formatter.write_str("is not an image"),
            Self::Missing => formatter.write_str("is not in the registry"),
            Self::Untranslatable(reason) => write!(formatter, "cannot be translated: {reason}"),
            Self::Schema1 => formatter
                .write_str("cannot be translated: it is stored as schema 1, from which there is no translation"),
            Self::Zstd => formatter.write_str(
                "cannot be translated: its layers are compressed with zstd, which this client cannot unpack",
            ),
            Self::SamePlatform => formatter.write_str("is for the platform of another entry"),
        }
    }
}

/// How many omissions a refusal names.
const NAMED_MAX: usize = 8;

/// The parent of these entries in the target format, [`Format::List`] or [`Format::Index`].
///
/// # Errors
/// [`Untranslatable::NothingLeft`] if no image is left, with what was left out and why.
pub fn parent(
    stored: &Index,
    mut entries: Vec<Entry>,
    target: Format,
    order: &Order,
) -> Result<Derived, Untranslatable> {
    if target == Format::List {
        leave_out_same_platforms(&mut entries);
    }
    let new_digests: BTreeMap<String, String> = entries.iter().filter_map(new_digest).collect();
    let gone: BTreeSet<&str> = entries.iter().filter_map(gone).collect();
    let mut written: Vec<Descriptor> = entries
        .iter()
        .filter_map(|entry| descriptor(entry, target))
        .filter(|entry| !entry.annotations.get(ATTESTED).is_some_and(|about| gone.contains(about.as_str())))
        .map(|entry| about_new_digests(entry, &new_digests))
        .collect();
    if !entries.iter().any(is_runnable) {
        return Err(Untranslatable::NothingLeft { omissions: named(&entries) });
    }
    if let Order::Grouped(arm_variants) = order {
        written = grouped(written, arm_variants);
    }
    let document = match target {
        Format::List => schema2::write_list(&written),
        _ => oci::write_index(&Index { manifests: written, annotations: stored.annotations.clone() }),
    };
    let digest = Digest::sha256(document.as_bytes());
    Derived::new(document, digest, target)
}

/// The same list or index without the entries at these positions, for a client that cannot unpack them.
///
/// # Errors
/// [`Untranslatable::NotAnImage`] if the document has no entries.
pub fn without(stored: &Manifest, dropped: &BTreeSet<usize>) -> Result<Derived, Untranslatable> {
    let refuse = || Untranslatable::NotAnImage { format: stored.format() };
    let text = std::str::from_utf8(stored.bytes()).map_err(|_| refuse())?;
    let document = oci::without_entries(text, dropped).ok_or_else(refuse)?;
    let digest = Digest::sha256(document.as_bytes());
    Derived::new(document, digest, stored.format())
}

/// Docker takes the first entry for a platform, and so does the list, but for one with zstd layers: a sibling without
/// them goes before it, wherever it stands.
fn leave_out_same_platforms(entries: &mut [Entry]) {
    let mut seen: Vec<Platform> = Vec::new();
    for round in [Packing::Other, Packing::Zstd] {
        for entry in entries.iter_mut().filter(|entry| is_runnable(entry) && packing(entry) == round) {
            let Some(platform) = entry.platform.as_ref().map(normalised) else { continue };
            if seen.contains(&platform) {
                entry.fate = Fate::LeftOut(Omission::SamePlatform);
            } else {
                seen.push(platform);
            }
        }
    }
}

/// What is translated has no zstd layers: no cell writes them.
fn packing(entry: &Entry) -> Packing {
    match entry.fate {
        Fate::Kept { packing, .. } => packing,
        Fate::Derived { .. } | Fate::LeftOut(_) => Packing::Other,
    }
}

/// `arm64` is `arm64/v8`.
fn normalised(platform: &Platform) -> Platform {
    let mut platform = platform.clone();
    if platform.architecture == "arm64" && platform.variant.as_deref() == Some("v8") {
        platform.variant = None;
    }
    platform
}

/// The entry is an image in the parent, or leads to some. An attestation or an artifact that stays is none.
fn is_runnable(entry: &Entry) -> bool {
    !matches!(entry.fate, Fate::LeftOut(_)) && matches!(entry.listed.role(), Role::Image | Role::Nested)
}

fn new_digest(entry: &Entry) -> Option<(String, String)> {
    match &entry.fate {
        Fate::Derived { digest, .. } => Some((entry.listed.digest.to_string(), digest.to_string())),
        Fate::Kept { .. } | Fate::LeftOut(_) => None,
    }
}

fn gone(entry: &Entry) -> Option<&str> {
    matches!(entry.fate, Fate::LeftOut(_)).then(|| entry.listed.digest.as_str())
}

fn descriptor(entry: &Entry, target: Format) -> Option<Descriptor> {
    let (media_type, digest, size) = match &entry.fate {
        Fate::Kept { media_type, size, .. } => (media_type.clone(), entry.listed.digest.clone(), *size),
        Fate::Derived { format, digest, size } => (format.media_type().to_owned(), digest.clone(), *size),
        Fate::LeftOut(_) => return None,
    };
    let platform = entry.platform.clone();
    let stored = &entry.listed;
    Some(match target {
        // Docker's list says no more.
        Format::List => Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform,
            artifact_type: None,
        },
        _ => Descriptor { media_type, digest, size, platform, ..stored.clone() },
    })
}

/// An attestation speaks of the entry by its new digest.
fn about_new_digests(mut entry: Descriptor, new_digests: &BTreeMap<String, String>) -> Descriptor {
    if let Some(about) = entry.annotations.get_mut(ATTESTED)
        && let Some(new) = new_digests.get(about)
    {
        about.clone_from(new);
    }
    entry
}

/// Entries of one operating system and architecture together, where the first of them stands; the lowest variant first.
fn grouped(entries: Vec<Descriptor>, arm_variants: &[Option<String>]) -> Vec<Descriptor> {
    let mut groups: Vec<Vec<Descriptor>> = Vec::new();
    for entry in entries {
        let words = |entry: &Descriptor| entry.platform.as_ref().map(|it| (it.os.clone(), it.architecture.clone()));
        match groups.iter_mut().find(|group| group.first().map(words) == Some(words(&entry))) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    for group in &mut groups {
        group.sort_by_key(|entry| entry.platform.as_ref().map(|platform| variant_rank(platform, arm_variants)));
    }
    groups.into_iter().flatten().collect()
}

/// The lower, the more machines run it: by number, none first; for arm the operator's order.
fn variant_rank(platform: &Platform, arm_variants: &[Option<String>]) -> usize {
    let variant = platform.variant.as_deref();
    if platform.architecture == "arm" {
        let named = arm_variants.iter().position(|known| known.as_deref() == variant);
        return named.unwrap_or(arm_variants.len());
    }
    let number = variant.and_then(|variant| variant.strip_prefix('v')?.parse().ok());
    if variant.is_none() { 0 } else { number.unwrap_or(usize::MAX) }
}

/// What was left out and why, for a person.
fn named(entries: &[Entry]) -> String {
    let omissions = entries.iter().filter_map(|entry| match &entry.fate {
        Fate::LeftOut(omission) => Some((entry, omission)),
        Fate::Kept { .. } | Fate::Derived { .. } => None,
    });
    let mut words: Vec<String> = omissions
        .map(|(entry, omission)| match &entry.platform {
            Some(platform) if !platform.is_unknown() => format!("{platform} {omission}"),
            _ => format!("{} {omission}", entry.listed.digest),
        })
        .collect();
    let more = words.len().saturating_sub(NAMED_MAX);
    words.truncate(NAMED_MAX);
    if words.is_empty() {
        return "it has no entries".to_owned();
    }
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("{}{more}", words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(seed: &[u8], packing: Packing) -> Entry {
        let listed = Descriptor {
            media_type: Format::Schema2.media_type().to_owned(),
            digest: Digest::sha256(seed),
            size: 1,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: Some(Platform::linux_amd64()),
            artifact_type: None,
        };
        let fate = Fate::Kept { media_type: listed.media_type.clone(), size: 1, packing };
        Entry { platform: listed.platform.clone(), listed, fate }
    }

    #[test]
    fn a_sibling_without_zstd_is_the_one_of_its_platform_wherever_it_stands() {
        let stored = Index { manifests: Vec::new(), annotations: BTreeMap::new() };
        let (zstd, gzip) = (kept(b"zstd", Packing::Zstd), kept(b"gzip", Packing::Other));
        for entries in [vec![zstd.clone(), gzip.clone()], vec![gzip.clone(), zstd.clone()]] {
            let made = parent(&stored, entries, Format::List, &Order::Stored).unwrap();
            let text = String::from_utf8(made.bytes.to_vec()).unwrap();
            assert!(
                text.contains(gzip.listed.digest.as_str()) && !text.contains(zstd.listed.digest.as_str()),
                "{text}"
            );
        }
        let alone = parent(&stored, vec![zstd.clone()], Format::List, &Order::Stored).unwrap();
        assert!(String::from_utf8(alone.bytes.to_vec()).unwrap().contains(zstd.listed.digest.as_str()));
    }
}
