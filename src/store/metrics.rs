//! What is counted of the store.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::StoreFailure;
use super::memory::Memory;
use super::sweep::Swept;

/// The counters of one store.
#[derive(Debug, Default)]
pub struct Metrics {
    operations: Family<Operation, Counter>,
    pub(super) damaged: Counter,
    removed: Family<Removal, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Removal {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
    result: &'static str,
}

impl Metrics {
    /// Makes the counters known to whoever shows them.
    pub fn register(&self, registry: &mut Registry) {
        let operations = self.operations.clone();
        registry.register("store_operations", "Operations of the store, by how they ended", operations);
        registry.register(
            "store_damaged_objects",
            "Objects of the store that were found damaged",
            self.damaged.clone(),
        );
        // Shown from the start, so that an alert on the first removal has something to rise from.
        self.note_swept(&Swept::default());
        let removed = self.removed.clone();
        registry.register("store_removed_objects", "Objects that the background sweep removed, by kind", removed);
    }

    pub(super) fn note_swept(&self, swept: &Swept) {
        let own = swept.documents - swept.documents_of_older_editions;
        let kinds = [
            ("recipe", swept.recipes),
            ("document", own),
            ("document_of_older_edition", swept.documents_of_older_editions),
            ("layer", swept.layers),
            ("leftover", swept.leftovers),
        ];
        for (kind, number) in kinds {
            self.removed.get_or_create(&Removal { kind }).inc_by(number);
        }
    }

    pub(super) fn count<Output>(&self, operation: &'static str, result: &Result<Output, StoreFailure>) {
        let result = if result.is_ok() { "ok" } else { "failed" };
        self.operations.get_or_create(&Operation { operation, result }).inc();
    }
}

/// What left the memory to make room, by part. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Evictions(Family<Cached, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cached {
    cache: &'static str,
}

impl Evictions {
    /// What counts those of this part.
    pub(super) fn of(&self, cache: &'static str) -> Counter {
        self.0.get_or_create_owned(&Cached { cache })
    }
}

/// What a part of the memory holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling {
    pub(super) cache: &'static str,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// In bytes.
    pub(super) capacity: u64,
}

/// Shows what the memory holds whenever somebody looks.
pub struct MemoryCollector(Memory);

impl MemoryCollector {
    /// Of this memory.
    pub fn new(memory: &Memory) -> Self {
        Self(memory.clone())
    }
}

impl fmt::Debug for MemoryCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryCollector").finish_non_exhaustive()
    }
}

/// A figure of a part, by its name and in words.
type Figure = (&'static str, &'static str, fn(&Filling) -> u64);

const FIGURES: [Figure; 3] = [
    ("cache_entries", "Documents in memory, about", |filling| filling.entries),
    ("cache_bytes", "What the documents in memory take, about", |filling| filling.bytes),
    ("cache_capacity_bytes", "What the documents in memory may take", |filling| filling.capacity),
];

impl Collector for MemoryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let fillings = self.0.fillings();
        for (name, help, figure) in FIGURES {
            let shown: Family<Cached, Gauge<u64, AtomicU64>> = Family::default();
            for filling in &fillings {
                shown.get_or_create(&Cached { cache: filling.cache }).set(figure(filling));
            }
            shown.encode(encoder.encode_descriptor(name, help, None, shown.metric_type())?)?;
        }
        let evictions = &self.0.evictions().0;
        let help = "Documents that left the memory to make room";
        evictions.encode(encoder.encode_descriptor("cache_evictions", help, None, evictions.metric_type())?)
    }
}
