//! The rule: what a client gets for a tag.
//!
//! The stored form, if the client reads it; else the nearest form that it reads; else the stored form again, where the
//! client's own words about it are better than ours or nobody knows what it reads; else a refusal. A stored form that is
//! acceptable always wins: a translation changes the digest, and with it breaks signatures and pins, for no gain.

use std::cmp::Reverse;
use std::fmt;

use crate::image::media_type::Format;

use super::accept::Presence;
use super::client::Client;
use super::clients::{Mode, Quirk};
use super::refusal::Refusal;
use super::stored::{Stored, StoredContent};

/// What a client gets for a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The stored bytes, untouched.
    AsStored {
        /// Why, for the access log.
        why: Why,
    },
    /// The first of the candidates that there is a cell for and whose cell succeeds. Never empty.
    Derive {
        /// What to try, in this order. The cell starts from [`Stored::counts_as`].
        candidates: Vec<Candidate>,
        /// Why, for the access log.
        why: Why,
    },
    /// Nothing: a 406.
    Refuse(Refusal),
}

/// A form that the client reads and that the stored document may be translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The format to answer in.
    pub target: Format,
    /// How much of the stored document.
    pub scope: Scope,
}

/// How much of the stored document a candidate takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it: an image, or a list or index with its children.
    Whole,
    /// One platform's child of a list or index, translated where it is not in the target format already.
    PlatformChild,
}

/// Why a client gets what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The stored form is one that the client reads.
    Reads,
    /// The client compares digests, so only the stored one will do.
    Probe,
    /// There is no `Accept` header and the client is not known.
    NoAccept,
    /// The client accepts anything.
    Anything,
    /// The stored form is one that the client claims and then refuses, in words better than ours.
    OwnRefusal,
    /// The client is not known and does not list the stored form, for which there is no translation.
    Unlisted,
    /// The client lists no type that is known here.
    NothingKnown,
    /// The client does not read the stored form.
    CannotRead,
    /// The client reads the stored form, but not with these parts in it.
    ForeignParts,
}

impl Why {
    /// A few plain words for the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "the client reads it",
            Self::Probe => "digest probe",
            Self::NoAccept => "no Accept header",
            Self::Anything => "the client accepts anything",
            Self::OwnRefusal => "client refuses it with its own message",
            Self::Unlisted => "lenient: not in Accept, and nothing it lists can be made of it",
            Self::NothingKnown => "lenient: no known type in Accept",
            Self::CannotRead => "the client does not read the stored format",
            Self::ForeignParts => "the client does not read the stored format with OCI parts in it",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What `client` gets when it asks for a tag under which `stored` is.
pub fn choose(stored: &Stored, client: &Client) -> Choice {
    if client.mode() == Mode::Probe {
        return Choice::AsStored { why: Why::Probe };
    }
    if let Some(refusal) = zero_layers(stored, client) {
        return Choice::Refuse(refusal);
    }
    let format = stored.counts_as(client);
    if client.usable().contains(format) {
        return match zstd(stored, client) {
            Some(refusal) => Choice::Refuse(refusal),
            None => Choice::AsStored { why: why_readable(client) },
        };
    }
    let candidates = candidates(format, client);
    if candidates.is_empty() {
        return otherwise(stored, client);
    }
    let why = if format == stored.format { Why::CannotRead } else { Why::ForeignParts };
    Choice::Derive { candidates, why }
}

/// What `client` gets where no candidate is left because no cell makes any of them. Not for candidates that were tried
/// and failed: those are refused with the first one's reason ([`Refusal::untranslatable`]).
pub fn otherwise(stored: &Stored, client: &Client) -> Choice {
    let covered = client.covered().contains(stored.format);
    match (covered, client.is_known()) {
        (true, true) => Choice::AsStored { why: Why::OwnRefusal },
        (true, false) => Choice::AsStored { why: why_readable(client) },
        (false, false) if stored.format == Format::Schema1 && client.accept().names_only_oci() => {
            Choice::Refuse(Refusal::only_oci(stored.format, client))
        }
        (false, false) => Choice::AsStored { why: Why::Unlisted },
        (false, true) => Choice::Refuse(Refusal::unreadable(stored.format, client)),
    }
}

/// What keeps `client` from using a single image in its stored form, though it reads the format. [`choose`] asks this
/// itself; whoever answers one platform's child as it is stored asks it about the child.
pub fn objection(image: &Stored, client: &Client) -> Option<Refusal> {
    zero_layers(image, client).or_else(|| zstd(image, client))
}

fn zero_layers(image: &Stored, client: &Client) -> Option<Refusal> {
    let empty = matches!(image.content, StoredContent::Image { layers: 0, .. });
    (empty && client.has(Quirk::ZeroLayersPanic)).then(|| Refusal::zero_layers(image.format, client))
}

fn zstd(image: &Stored, client: &Client) -> Option<Refusal> {
    let zstd = matches!(image.content, StoredContent::Image { zstd: true, .. });
    (zstd && client.has(Quirk::NoZstd)).then(|| Refusal::zstd(image.format, client))
}

fn why_readable(client: &Client) -> Why {
    match (client.accept().presence(), client.is_known()) {
        (Presence::Absent, false) => Why::NoAccept,
        (Presence::Unknown, false) => Why::NothingKnown,
        (Presence::Wildcard, false) => Why::Anything,
        _ => Why::Reads,
    }
}

/// The candidates for a document of `format` that `client` can use, the nearest first: the one with the fewest changes.
/// Real lists of qualities are inverted nonsense, so they order only what an unknown client gets.
fn candidates(format: Format, client: &Client) -> Vec<Candidate> {
    let usable = client.usable();
    let mut candidates: Vec<Candidate> =
        nearest(format).iter().copied().filter(|candidate| usable.contains(candidate.target)).collect();
    if !client.is_known() {
        candidates.sort_by_key(|candidate| Reverse(client.accept().quality(candidate.target)));
    }
    candidates
}

/// What a document of `format` can be turned into, the nearest first.
const fn nearest(format: Format) -> &'static [Candidate] {
    const fn whole(target: Format) -> Candidate {
        Candidate { target, scope: Scope::Whole }
    }
    const fn child(target: Format) -> Candidate {
        Candidate { target, scope: Scope::PlatformChild }
    }
    match format {
        Format::Schema2 => const { &[whole(Format::Oci), whole(Format::Schema1)] },
        Format::Oci => const { &[whole(Format::Schema2), whole(Format::Schema1)] },
        Format::List => {
            const { &[whole(Format::Index), child(Format::Schema2), child(Format::Oci), child(Format::Schema1)] }
        }
        Format::Index => {
            const { &[whole(Format::List), child(Format::Oci), child(Format::Schema2), child(Format::Schema1)] }
        }
        Format::Schema1 | Format::Artifact => &[],
    }
}
