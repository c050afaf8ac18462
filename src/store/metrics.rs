//! What is counted of the store.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::StoreFailure;

/// The counters of one store.
#[derive(Debug, Default)]
pub struct Metrics {
    operations: Family<Operation, Counter>,
    pub(super) damaged: Counter,
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
    }

    pub(super) fn count<Output>(&self, operation: &'static str, result: &Result<Output, StoreFailure>) {
        let result = if result.is_ok() { "ok" } else { "failed" };
        self.operations.get_or_create(&Operation { operation, result }).inc();
    }
}
