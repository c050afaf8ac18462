//! What is counted of each request, whatever it asks for. A request takes no lock and makes no text for it: each upstream
//! keeps the counters that it needed before at hand.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::gateway::fault::Fault;
use crate::gateway::record::Outcome;
use crate::image::media_type::Format;
use crate::upstream::{Slots, USUAL_STATUSES, UntilHead, code, usual};

use super::{InFlight, MethodLabel, RouteLabel};

/// Bounds of the time to the last byte of an answer, in seconds: those to its head, thinned out, and up to a large layer
/// over a slow line.
const WHOLE_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

/// The counters of all requests, of which each upstream has its own.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Families {
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram, UntilWhole>,
    to_head: Family<Asked, Histogram, UntilHead>,
    in_flight: Family<OnRoute, Gauge>,
    response_bytes: Family<At, Counter>,
    request_bytes: Family<At, Counter>,
    aborted: Family<Aborted, Counter>,
    translations: Family<Translation, Counter>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(UntilWhole),
            to_head: Family::new_with_constructor(UntilHead),
            in_flight: Family::default(),
            response_bytes: Family::default(),
            request_bytes: Family::default(),
            aborted: Family::default(),
            translations: Family::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct UntilWhole;

impl MetricConstructor<Histogram> for UntilWhole {
    fn new_metric(&self) -> Histogram {
        Histogram::new(WHOLE_SECONDS)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    upstream: String,
    route: &'static str,
    method: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    upstream: String,
    route: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OnRoute {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    upstream: String,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Aborted {
    upstream: String,
    route: &'static str,
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Translation {
    upstream: String,
    from: &'static str,
    to: &'static str,
    kind: &'static str,
    result: &'static str,
}

/// Who kept an answer from coming to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum AbortedBy {
    /// The client, which went away.
    Client,
    /// Where the bytes came from.
    Source,
}

/// How the attempt to give a client what it reads ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Ok,
    /// Nothing that is stored can be given to it.
    Unsupported,
    /// What is stored contradicts itself.
    Invalid,
    Error,
}

impl Families {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "Requests that were answered, by status", self.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of a request to the last byte of its answer",
            self.durations.clone(),
        );
        registry.register(
            "http_request_ttfb_seconds",
            "Time from the head of a request to the head of its answer",
            self.to_head.clone(),
        );
        registry.register("http_requests_in_flight", "Requests that are under way", self.in_flight.clone());
        registry.register("http_response_bytes", "Bytes of the bodies of answers", self.response_bytes.clone());
        registry.register("http_request_bytes", "Bytes of the bodies of requests", self.request_bytes.clone());
        registry.register(
            "http_requests_aborted",
            "Requests whose answer did not come to its end, by whose doing that was",
            self.aborted.clone(),
        );
        registry.register(
            "translations",
            "Requests for a manifest by tag, by the format that is stored and the one that was served",
            self.translations.clone(),
        );
    }
}

const CODES: usize = USUAL_STATUSES.len();
const FORMATS: usize = Format::ALL.len();
const ENDS: usize = Ended::Error as usize + 1;

/// The counters of one upstream.
#[derive(Debug)]
pub(in crate::gateway) struct Counters {
    upstream: String,
    families: Families,
    requests: Slots<Counter, { RouteLabel::NUMBER * MethodLabel::NUMBER * CODES }>,
    durations: Slots<Histogram, { RouteLabel::NUMBER * MethodLabel::NUMBER }>,
    to_head: Slots<Histogram, { RouteLabel::NUMBER * MethodLabel::NUMBER }>,
    in_flight: Slots<Gauge, { RouteLabel::NUMBER }>,
    response_bytes: Slots<Counter, { RouteLabel::NUMBER }>,
    /// By stored format, by served format or none, by whether it was made, by how it ended.
    translations: Slots<Counter, { FORMATS * (FORMATS + 1) * 2 * ENDS }>,
}

impl Counters {
    pub(super) fn new(upstream: &str, families: &Families) -> Self {
        Self {
            upstream: upstream.to_owned(),
            families: families.clone(),
            requests: Slots::default(),
            durations: Slots::default(),
            to_head: Slots::default(),
            in_flight: Slots::default(),
            response_bytes: Slots::default(),
            translations: Slots::default(),
        }
    }

    /// Whose they are.
    pub(in crate::gateway) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// A request is under way as long as what this gives lives.
    pub(in crate::gateway) fn begin(&self, route: RouteLabel) -> InFlight {
        let find = || self.families.in_flight.get_or_create_owned(&OnRoute { route: route.as_str() });
        self.in_flight.with(route as usize, find, |gauge| InFlight::of(gauge.clone()))
    }

    /// Counts an answer, when its body has ended.
    pub(in crate::gateway) fn answered(&self, route: RouteLabel, method: MethodLabel, answer: &Measured) {
        let Measured { status, to_head, whole, bytes } = *answer;
        let place = route as usize * MethodLabel::NUMBER + method as usize;
        let asked = || Asked { upstream: self.upstream.clone(), route: route.as_str(), method: method.as_str() };
        let usual = usual(status);
        let by_code = if usual < CODES { place * CODES + usual } else { usize::MAX };
        let find = || {
            let Asked { upstream, route, method } = asked();
            self.families.requests.get_or_create_owned(&Answered { upstream, route, method, code: code(status) })
        };
        self.requests.with(by_code, find, Counter::inc);
        let find = || self.families.durations.get_or_create_owned(&asked());
        self.durations.with(place, find, |durations| durations.observe(whole.as_secs_f64()));
        let find = || self.families.to_head.get_or_create_owned(&asked());
        self.to_head.with(place, find, |durations| durations.observe(to_head.as_secs_f64()));
        let find = || self.families.response_bytes.get_or_create_owned(&self.at(route));
        self.response_bytes.with(route as usize, find, |counter| counter.inc_by(bytes));
    }

    /// What counts the bytes of the bodies of requests.
    pub(in crate::gateway) fn request_bytes(&self, route: RouteLabel) -> Counter {
        self.families.request_bytes.get_or_create_owned(&self.at(route))
    }

    /// Counts an answer that did not come to its end.
    pub(in crate::gateway) fn aborted(&self, route: RouteLabel, by: AbortedBy) {
        let label = Aborted { upstream: self.upstream.clone(), route: route.as_str(), by: by.as_str() };
        self.families.aborted.get_or_create(&label).inc();
    }

    /// Counts what became of a request for a manifest by tag, once it is known what is stored.
    pub(in crate::gateway) fn translated(&self, outcome: &Outcome, fault: Option<&Fault>) {
        let (Some(from), to) = (outcome.stored, outcome.served) else { return };
        let ended = match fault {
            None => Ended::Ok,
            Some(Fault::Refused(_) | Fault::Unacceptable(_)) => Ended::Unsupported,
            Some(Fault::Malformed(_)) => Ended::Invalid,
            Some(_) => Ended::Error,
        };
        let is_made = outcome.digest != outcome.source;
        let to_place = to.map_or(FORMATS, |to| to as usize);
        let place = ((from as usize * (FORMATS + 1) + to_place) * 2 + usize::from(is_made)) * ENDS + ended as usize;
        let find = || {
            let label = Translation {
                upstream: self.upstream.clone(),
                from: from.word(),
                to: to.map_or("none", Format::word),
                kind: to.map_or("none", |to| kind(from, to, is_made)),
                result: ended.as_str(),
            };
            self.families.translations.get_or_create_owned(&label)
        };
        self.translations.with(place, find, Counter::inc);
    }

    fn at(&self, route: RouteLabel) -> At {
        At { upstream: self.upstream.clone(), route: route.as_str() }
    }
}

/// What is measured of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Measured {
    pub(in crate::gateway) status: StatusCode,
    /// Until its head.
    pub(in crate::gateway) to_head: Duration,
    /// Until its last byte.
    pub(in crate::gateway) whole: Duration,
    /// Of its body.
    pub(in crate::gateway) bytes: u64,
}

impl AbortedBy {
    /// The word for it.
    pub(in crate::gateway) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Source => "source",
        }
    }
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Error => "error",
        }
    }
}

/// What was done to a document of one format, so that one of another was served.
fn kind(from: Format, to: Format, is_made: bool) -> &'static str {
    let is_parent = |format| matches!(format, Format::List | Format::Index);
    match (from, to) {
        (from, to) if is_parent(from) && !is_parent(to) => "platform_pick",
        (from, to) if from == to && !is_made => "none",
        (Format::Schema1, Format::Schema1) => "rewrite",
        (Format::Schema1, _) => "upgrade",
        (_, Format::Schema1) => "downgrade",
        _ => "rewrite",
    }
}
