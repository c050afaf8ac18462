//! What is counted of requests.

pub(super) mod http;
mod labels;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::image::media_type::Format;
use crate::negotiate::Client;
use crate::store::memory::MemoryCollector;
use crate::upstream::{self, Asked, Remembered, Slots};

use super::derive::Obstacle;
use super::door::Entrance;
use super::fault::Fault;
use super::{Gateway, Shared};

use http::{Counters, Families};
pub(super) use labels::{MethodLabel, RouteLabel};

/// Bounds of the time that it takes to make a document, in seconds: from a translation of a small manifest to a list of
/// many images whose configs are far away, with two to a decade.
const MAKING_SECONDS: [f64; 11] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The counters of a whole gateway.
#[derive(Debug)]
pub(super) struct Metrics {
    derived_digest_requests: Family<DerivedDigestRequest, Counter>,
    making: Family<Making, Histogram, WhileMaking>,
    capabilities: Family<Capable, Counter>,
    capable: Slots<Counter, { Capability::Oci as usize + 1 }>,
    flights: Family<Flying, Gauge>,
    followers: Family<Following, Counter>,
    door: Family<Decided, Counter>,
    layer_reads: Family<LayerReading, Counter>,
    layers_in_work: Gauge,
    transcode_bytes: Family<Transcoding, Counter>,
    transcode_seconds: Counter<f64, AtomicU64>,
    families: Families,
    /// The counters of requests that reach no upstream.
    pub(super) nobodys: Arc<Counters>,
    pub(super) upstream: upstream::Metrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let families = Families::default();
        Self {
            derived_digest_requests: Family::default(),
            making: Family::new_with_constructor(WhileMaking),
            capabilities: Family::default(),
            capable: Slots::default(),
            flights: Family::default(),
            followers: Family::default(),
            door: Family::default(),
            layer_reads: Family::default(),
            layers_in_work: Gauge::default(),
            transcode_bytes: Family::default(),
            transcode_seconds: Counter::default(),
            nobodys: Arc::new(Counters::new("none", &families)),
            families,
            upstream: upstream::Metrics::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct WhileMaking;

impl MetricConstructor<Histogram> for WhileMaking {
    fn new_metric(&self) -> Histogram {
        Histogram::new(MAKING_SECONDS)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Making {
    from: &'static str,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Capable {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Flying {
    cache: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Following {
    cache: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    mode: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LayerReading {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transcoding {
    from: &'static str,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DerivedDigestRequest {
    upstream: String,
    result: &'static str,
}

/// The newest kind of document that a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capability {
    Nothing,
    Schema1Only,
    Schema2,
    List,
    Oci,
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

/// How it ended that a layer was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LayerRead {
    /// It was read before.
    Known,
    /// It was read to its end.
    Read,
    /// It was learnt while it was uploaded, before anybody wanted it.
    Uploaded,
    /// Its bytes are bad, or not there.
    Refused,
    /// The upstream, or the store, failed on the way.
    Failed,
}

/// What became of one who waited for what somebody else asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// The answer was good for both.
    Served,
    /// The other failed in a way of his own.
    LeaderFailed,
}

impl Shared {
    /// Makes the counters of the gateway and its store known to whoever shows them.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let metrics = &self.metrics;
        metrics.families.register(registry);
        registry.register(
            "derived_digest_requests",
            "Requests for a derived digest by callers who may see its source, by how they ended",
            metrics.derived_digest_requests.clone(),
        );
        registry.register(
            "translation_duration_seconds",
            "How long documents took to be made, with what was fetched for them",
            metrics.making.clone(),
        );
        registry.register(
            "client_capability",
            "Requests for manifests, by the newest kind of document that the client reads",
            metrics.capabilities.clone(),
        );
        registry.register(
            "singleflight_inflight",
            "Questions that are being answered for whoever asks them",
            metrics.flights.clone(),
        );
        registry.register(
            "singleflight_followers",
            "Those who waited for what somebody else asked, by whether that served them",
            metrics.followers.clone(),
        );
        registry.register(
            "auth_decisions",
            "Requests at the gateway's own door, by what it goes by and what became of them",
            metrics.door.clone(),
        );
        metrics.register_layers(registry);
        metrics.upstream.register(registry);
        self.store.metrics().register(registry);
        registry.register_collector(Box::new(MemoryCollector::new(&self.memory)));
        if let Some(cache) = &self.blob_cache {
            cache.metrics().register(registry);
        }
    }
}

impl Metrics {
    fn register_layers(&self, registry: &mut Registry) {
        registry.register(
            "layer_reads",
            "Layers that were wanted for a translation, by how that ended, and those learnt while they were uploaded",
            self.layer_reads.clone(),
        );
        registry.register("layers_in_work", "Layers that are being read at this moment", self.layers_in_work.clone());
        registry.register(
            "transcode_bytes",
            "Bytes of layers that were made in the place of others, by what those were and what these are",
            self.transcode_bytes.clone(),
        );
        registry.register(
            "transcode_seconds",
            "How long layers took to be made in the place of others, together",
            self.transcode_seconds.clone(),
        );
    }

    /// Counts a layer that was wanted.
    pub(super) fn count_layer(&self, result: LayerRead) {
        self.layer_reads.get_or_create(&LayerReading { result: result.as_str() }).inc();
    }

    /// Counts a gzip layer that was made.
    pub(super) fn count_transcoded(&self, bytes: u64, time: Duration) {
        self.transcode_bytes.get_or_create(&Transcoding { from: "zstd", to: "gzip" }).inc_by(bytes);
        self.transcode_seconds.inc_by(time.as_secs_f64());
    }

    /// Shows a layer as being read as long as what it gives lives.
    pub(super) fn layer_in_work(&self) -> InFlight {
        InFlight::of(self.layers_in_work.clone())
    }

    /// The counters of the upstream of this name.
    pub(super) fn counters_of(&self, upstream: &str) -> Counters {
        Counters::new(upstream, &self.families)
    }

    /// Counts a client that asks for a manifest.
    pub(super) fn count_client(&self, client: &Client) {
        let capability = Capability::of(client);
        let find = || self.capabilities.get_or_create_owned(&Capable { class: capability.as_str() });
        self.capable.with(capability as usize, find, Counter::inc);
    }

    /// Counts one who waited for somebody else.
    pub(super) fn count_follower(&self, cache: Remembered, outcome: Followed) {
        let outcome = match outcome {
            Followed::Served => "served",
            Followed::LeaderFailed => "leader_failed",
        };
        self.followers.get_or_create(&Following { cache: cache.as_str(), outcome }).inc();
    }

    /// Shows a question as being answered as long as what it gives lives.
    pub(super) fn flight(&self, cache: Remembered) -> InFlight {
        InFlight::of(self.flights.get_or_create_owned(&Flying { cache: cache.as_str() }))
    }

    /// Counts what the door said.
    pub(super) fn count_at_door<Admission>(&self, mode: Entrance, decision: &Result<Admission, Fault>) {
        let mode = match mode {
            Entrance::Authorization => "authorization",
            Entrance::Certificate => "certificate",
            Entrance::Open => "open",
        };
        let decision = match decision {
            Ok(_) => "admitted",
            Err(Fault::TooManyLogins(_) | Fault::LoginsBusy) => "throttled",
            Err(_) => "refused",
        };
        self.door.get_or_create(&Decided { mode, decision }).inc();
    }
}

/// Something that is under way as long as this lives.
#[derive(Debug)]
pub(super) struct InFlight(Gauge);

impl InFlight {
    pub(super) fn of(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Capability {
    fn of(client: &Client) -> Self {
        let reads = client.usable();
        if reads.contains(Format::Oci) || reads.contains(Format::Index) {
            Self::Oci
        } else if reads.contains(Format::List) {
            Self::List
        } else if reads.contains(Format::Schema2) {
            Self::Schema2
        } else if reads.contains(Format::Schema1) {
            Self::Schema1Only
        } else {
            Self::Nothing
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Schema1Only => "schema1_only",
            Self::Schema2 => "schema2",
            Self::List => "list",
            Self::Oci => "oci",
        }
    }
}

impl LayerRead {
    /// How reading one ended.
    pub(super) fn of<Output>(read: &Result<Output, Obstacle>) -> Self {
        match read {
            Ok(_) => Self::Read,
            Err(Obstacle::Layer(_) | Obstacle::Untranslatable(_)) => Self::Refused,
            Err(_) => Self::Failed,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Read => "read",
            Self::Uploaded => "uploaded",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
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
        self.shared.metrics.upstream.caches.count(remembered, asked);
    }

    /// Notes how long a document took to be made.
    pub(super) fn note_made(&self, from: Format, to: Format, seconds: f64) {
        let label = Making { from: from.word(), to: to.word() };
        self.shared.metrics.making.get_or_create(&label).observe(seconds);
    }

    /// Counters that are shown from the start, so that an alert on the first loss has something to rise from.
    pub(super) fn show_metrics(&self) {
        for result in [DerivedDigest::Hit, DerivedDigest::Rederived, DerivedDigest::Lost] {
            let label = DerivedDigestRequest { upstream: self.options.upstream_name.clone(), result: result.as_str() };
            drop(self.shared.metrics.derived_digest_requests.get_or_create(&label));
        }
    }
}
