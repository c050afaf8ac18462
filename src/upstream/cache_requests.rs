//! What is counted of questions that something remembered can answer. The lowest floor that remembers anything has it, and
//! those above count by it too.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::metrics::Slots;

/// The questions. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct CacheRequests {
    family: Family<Label, Counter>,
    found: Arc<Slots<Counter, { REMEMBERED * ASKED }>>,
}

/// What was remembered, or would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// What a reference names.
    Tag,
    /// That it names nothing.
    Negative,
    /// A stored document.
    Manifest,
    /// A derived document.
    Derived,
    /// A token of the upstream's for the gateway itself.
    Token,
}

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// From what was remembered.
    Hit,
    /// By whoever knows, and nothing was remembered.
    Miss,
    /// By whoever knows, although something was remembered.
    Revalidated,
    /// By whoever knows, to somebody else who asked the same at that moment.
    Coalesced,
    /// From what was remembered, because the upstream could not be asked.
    Stale,
    /// By the upstream, where nothing is ever remembered.
    Bypass,
}

const REMEMBERED: usize = Remembered::Token as usize + 1;
const ASKED: usize = Asked::Bypass as usize + 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    cache: &'static str,
    result: &'static str,
}

impl CacheRequests {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "cache_requests",
            "Questions that something remembered can answer, by how they were answered",
            self.family.clone(),
        );
    }

    /// Counts a question.
    pub fn count(&self, remembered: Remembered, asked: Asked) {
        let find = || self.family.get_or_create_owned(&Label { cache: remembered.as_str(), result: asked.as_str() });
        self.found.with(remembered as usize * ASKED + asked as usize, find, Counter::inc);
    }
}

impl Remembered {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Negative => "negative",
            Self::Manifest => "manifest",
            Self::Derived => "derived",
            Self::Token => "token",
        }
    }
}

impl Asked {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}
