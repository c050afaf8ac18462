//! What is counted of the blob cache.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters of one blob cache.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    fills: Family<Labels, Counter>,
    pub(super) bytes: Gauge,
    pub(super) evictions: Counter,
    pub(super) damaged: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// How a request for a blob fared with the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// It was there.
    Hit,
    /// It was on its way there for somebody else.
    Shared,
    /// It was not.
    Miss,
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FillEnd {
    /// The blob is in the cache.
    Kept,
    /// The upstream broke off, or sent other bytes.
    UpstreamFailed,
    /// The directory did not take it.
    DiskFailed,
    /// Nobody waited for it any more, and another was wanted.
    Yielded,
    /// It did not begin: there was no room.
    NoRoom,
}

impl Metrics {
    /// Makes the counters known to whoever shows them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "blob_cache_requests",
            "Whole blobs that were asked for, by whether the blob cache had them",
            self.requests.clone(),
        );
        registry.register("blob_cache_fills", "Fills of the blob cache, by how they ended", self.fills.clone());
        registry.register("blob_cache_bytes", "Bytes of the blob cache, fills included", self.bytes.clone());
        registry.register(
            "blob_cache_evictions",
            "Blobs that left the blob cache to make room",
            self.evictions.clone(),
        );
        registry.register("blob_cache_damaged", "Blobs of the cache that were found damaged", self.damaged.clone());
    }

    pub(super) fn looked(&self, result: Looked) {
        let result = match result {
            Looked::Hit => "hit",
            Looked::Shared => "shared",
            Looked::Miss => "miss",
        };
        self.requests.get_or_create(&Labels { result }).inc();
    }

    pub(super) fn filled(&self, end: FillEnd) {
        let result = match end {
            FillEnd::Kept => "kept",
            FillEnd::UpstreamFailed => "upstream_failed",
            FillEnd::DiskFailed => "disk_failed",
            FillEnd::Yielded => "yielded",
            FillEnd::NoRoom => "no_room",
        };
        self.fills.get_or_create(&Labels { result }).inc();
    }
}
