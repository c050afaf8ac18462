//! What is counted of requests.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Gateway;

/// The counters of one gateway.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    derived_digest_requests: Family<DerivedDigestRequest, Counter>,
}

/// How a request for a derived digest ended, for a caller who may see its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DerivedDigest {
    /// Its bytes were in memory or in the store.
    Hit,
    /// They were made again.
    Rederived,
    /// They are gone, and another translator made them: a promise that is broken.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DerivedDigestRequest {
    upstream: String,
    result: &'static str,
}

impl DerivedDigest {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Rederived => "rederived",
            Self::Lost => "lost",
        }
    }
}

impl Gateway {
    pub(super) fn count(&self, result: DerivedDigest) {
        let label = DerivedDigestRequest { upstream: self.options.upstream_name.clone(), result: result.as_str() };
        self.metrics.derived_digest_requests.get_or_create(&label).inc();
    }

    /// Makes the counters of this gateway and its store known to whoever shows them.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "derived_digest_requests",
            "Requests for a derived digest by callers who may see its source, by how they ended",
            self.metrics.derived_digest_requests.clone(),
        );
        self.store.metrics().register(registry);
        if let Some(cache) = &self.blob_cache {
            cache.metrics().register(registry);
        }
        // Shown from the start, so that an alert on the first loss has something to rise from.
        for result in [DerivedDigest::Hit, DerivedDigest::Rederived, DerivedDigest::Lost] {
            let label = DerivedDigestRequest { upstream: self.options.upstream_name.clone(), result: result.as_str() };
            drop(self.metrics.derived_digest_requests.get_or_create(&label));
        }
    }
}
