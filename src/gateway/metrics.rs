//! What is counted of requests.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::upstream;

use super::{Gateway, Shared};

/// The counters of one gateway.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    derived_digest_requests: Family<DerivedDigestRequest, Counter>,
    cache_requests: Family<CacheRequest, Counter>,
    pub(super) upstream: upstream::Metrics,
}

/// How the question what a reference names was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// From what was remembered.
    Hit,
    /// By the upstream, and nothing was remembered.
    Miss,
    /// By the upstream, although something was remembered.
    Revalidated,
    /// By the upstream, to somebody else who asked the same at that moment.
    Coalesced,
    /// From what was remembered, because the upstream could not be asked.
    Stale,
    /// By the upstream, where nothing is ever remembered.
    Bypass,
}

/// What was remembered, or would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remembered {
    /// What a reference names.
    Tag,
    /// That it names nothing.
    Negative,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheRequest {
    cache: &'static str,
    result: &'static str,
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

impl Shared {
    /// Makes the counters of the gateway and its store known to whoever shows them.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "derived_digest_requests",
            "Requests for a derived digest by callers who may see its source, by how they ended",
            self.metrics.derived_digest_requests.clone(),
        );
        registry.register(
            "cache_requests",
            "Questions that something remembered can answer, by how they were answered",
            self.metrics.cache_requests.clone(),
        );
        self.metrics.upstream.register(registry);
        self.store.metrics().register(registry);
        if let Some(cache) = &self.blob_cache {
            cache.metrics().register(registry);
        }
    }
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
        self.shared.metrics.derived_digest_requests.get_or_create(&label).inc();
    }

    pub(super) fn count_asked(&self, remembered: Remembered, asked: Asked) {
        let cache = match remembered {
            Remembered::Tag => "tag",
            Remembered::Negative => "negative",
        };
        self.shared.metrics.cache_requests.get_or_create(&CacheRequest { cache, result: asked.as_str() }).inc();
    }

    /// Counters that are shown from the start, so that an alert on the first loss has something to rise from.
    pub(super) fn show_metrics(&self) {
        for result in [DerivedDigest::Hit, DerivedDigest::Rederived, DerivedDigest::Lost] {
            let label = DerivedDigestRequest { upstream: self.options.upstream_name.clone(), result: result.as_str() };
            drop(self.shared.metrics.derived_digest_requests.get_or_create(&label));
        }
    }
}
