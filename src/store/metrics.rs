//! What is counted of the store.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::StoreFailure;
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
