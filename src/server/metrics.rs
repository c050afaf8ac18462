//! What is counted of connections.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted of connections; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    open: Gauge,
    refused: Family<RefusedFor, Counter>,
    waited: Counter,
    cut: Family<CutFor, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedFor {
    reason: Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CutFor {
    reason: Overdue,
}

/// Why a connection was closed as soon as it was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refused {
    /// Its address has as many as it may.
    Address,
}

/// What a client let wait for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Overdue {
    /// The head of a request.
    Head,
    /// Any request.
    Idle,
    /// An answer that it does not take.
    Answer,
}

impl EncodeLabelValue for Refused {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        let Self::Address = self;
        "address".encode(encoder)
    }
}

impl EncodeLabelValue for Overdue {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Answer => "answer",
        }
        .encode(encoder)
    }
}

impl Overdue {
    /// What happened, for the log.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Head => "the head of a request did not arrive in time",
            Self::Idle => "no request came for too long",
            Self::Answer => "the client takes no more of its answer",
        }
    }
}

impl Metrics {
    /// Shows them in this registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections_open", "Connections of clients", self.open.clone());
        registry.register("connections_refused", "Connections closed at once", self.refused.clone());
        registry.register("connections_waited", "Connections that waited for another to end", self.waited.clone());
        registry.register("connections_cut", "Connections of clients that let the gateway wait", self.cut.clone());
        drop(self.refused.get_or_create(&RefusedFor { reason: Refused::Address }));
        for reason in [Overdue::Head, Overdue::Idle, Overdue::Answer] {
            drop(self.cut.get_or_create(&CutFor { reason }));
        }
    }

    pub(super) fn opened(&self) {
        self.open.inc();
    }

    pub(super) fn closed(&self) {
        self.open.dec();
    }

    pub(super) fn waited(&self) {
        self.waited.inc();
    }

    pub(super) fn refused(&self, reason: Refused) {
        self.refused.get_or_create(&RefusedFor { reason }).inc();
    }

    pub(super) fn cut(&self, reason: Overdue) {
        self.cut.get_or_create(&CutFor { reason }).inc();
    }
}
