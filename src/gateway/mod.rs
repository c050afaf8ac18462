//! Floor 5: one request.
//!
//! [`Service`] finds the upstream that a request is for; the answer of its [`Gateway`] is the whole path: route, then the one
//! thing the route asks for, and whatever broke on the way becomes an answer in [`fault`], once.

mod blob;
mod body;
mod by_digest;
mod by_tag;
mod catalog;
mod challenge;
mod derive;
pub mod door;
mod exchange;
pub mod fault;
mod freshness;
mod held;
mod index;
mod kept_blob;
pub mod layers;
mod legacy;
mod metrics;
mod passage;
mod peer;
mod push;
mod record;
mod referrers;
pub mod refresh;
mod resolve;
mod respond;
pub mod route;
mod rules;
pub mod seen;
pub mod service;
mod shared;
pub mod standing;
mod together;
mod token;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use url::Url;

use crate::image::media_type::Format;
use crate::negotiate::Policy;
use crate::store::Memory;
use crate::upstream::route::Prefix;
use crate::upstream::{self, Permission, RequestBody, Upstream};

pub use body::Body;
use body::Received;
use door::Admission;
pub use exchange::Transport;
use exchange::{Exchange, Neighbour};
use fault::Fault;
pub use freshness::{OnMissing, TagPolicy, TagRule};
pub use index::IndexLimits;
pub use layers::{LayerLimits, LayerPace, Shown};
use metrics::RouteLabel;
use metrics::http::Counters;
use passage::Passage;
pub use peer::{InvalidTrustedProxy, Peer, TrustedProxy};
pub use record::Outcome;
use route::Route;
pub use rules::{RepositoryRules, SingleNames};
pub use service::Service;
pub(crate) use shared::random_bytes;
pub use shared::{Shared, SharedOptions, StartError};
pub use turns::ManifestLimits;

/// Every answer says that this is a registry of the second protocol version: Docker 1.6 to 1.9 go by it.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));

/// The list of all repositories.
const CATALOG: &str = "/v2/_catalog";

/// How a gateway behaves. [`Options::for_upstream`] has every default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The name of the upstream, which is part of what recipes are kept under. Default `default`.
    pub upstream_name: String,
    /// The registry behind the gateway.
    pub upstream: upstream::Options,
    /// How long the gateway goes by what the upstream said before. Default: the upstream is asked each time.
    pub tags: TagPolicy,
    /// Whose credentials the upstream is shown. Default: each caller's own.
    pub callers: Callers,
    /// Whether the list of all repositories is answered where callers do not log in themselves. Default: not.
    pub catalog: Catalog,
    /// What becomes of the realm in the upstream's bearer challenge.
    pub challenge: ChallengeMode,
    /// The gateway's own URL as clients know it; without it, it is built from each request.
    pub external_url: Option<Url>,
    /// Whether pushes are forwarded.
    pub pushes: Pushes,
    /// What is stored in the place of a pushed schema 1 that the upstream does not take. Default schema 2.
    pub push_as: PushAs,
    /// What the operator decides about negotiation.
    pub policy: Policy,
    /// How much of a list or index is taken apart.
    pub index: IndexLimits,
    /// Whether a repository without a `/` is one of `library/`, as at Docker Hub. Default: only there.
    pub single_names: SingleNames,
    /// Which repositories are served.
    pub repositories: RepositoryRules,
}

/// Who speaks to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Each caller, with credentials of his own or none.
    Themselves,
    /// The gateway, with those that it holds, or none.
    TheGateway,
    /// Who has credentials speaks for himself, and the gateway for the others.
    ThemselvesOrTheGateway,
}

/// Whether `/v2/_catalog` is answered where the gateway speaks to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catalog {
    /// It is not.
    Refused,
    /// It is, without the repositories that are not served.
    Filtered,
}

/// How a request came to its upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Routed {
    /// What was taken off its path.
    prefix: Prefix,
    /// Whose the client's credentials are.
    credentials: Credentials,
    /// As whom the client came in at the door.
    admission: Option<Admission>,
}

/// Whose credentials a client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Credentials {
    /// The upstream's: it is the one that clients log in to at this host.
    #[default]
    Upstreams,
    /// Somebody else's: they are dropped.
    Others,
}

/// What becomes of the realm in the upstream's bearer challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeMode {
    /// It goes to the client as it is; the client asks the token service itself.
    Pass,
    /// It is replaced by the gateway's own `/token`, for clients that reach nothing but the gateway.
    Rewrite,
}

/// Whether requests that write are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushes {
    /// They are answered with 405.
    Refused,
    /// They go to the upstream.
    Forwarded,
}

/// The format that is stored in the place of a pushed schema 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushAs {
    /// Docker's schema 2, which old registries take too.
    Schema2,
    /// The OCI manifest.
    Oci,
}

impl PushAs {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Schema2 => "schema2",
            Self::Oci => "oci",
        }
    }

    const fn format(self) -> Format {
        match self {
            Self::Schema2 => Format::Schema2,
            Self::Oci => Format::Oci,
        }
    }
}

impl ChallengeMode {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Rewrite => "rewrite",
        }
    }
}

impl Options {
    /// A gateway in front of this registry, every other setting at its default.
    pub fn for_upstream(url: Url) -> Self {
        let single_names = if upstream::is_docker_hub(&url) { SingleNames::InLibrary } else { SingleNames::AsTheyAre };
        Self {
            upstream_name: "default".to_owned(),
            upstream: upstream::Options::new(url),
            tags: TagPolicy::under(Permission::Upstream),
            callers: Callers::Themselves,
            catalog: Catalog::Refused,
            challenge: ChallengeMode::Pass,
            external_url: None,
            pushes: Pushes::Refused,
            push_as: PushAs::Schema2,
            policy: Policy::default(),
            index: IndexLimits::default(),
            single_names,
            repositories: RepositoryRules::default(),
        }
    }
}

/// One upstream: what its requests share, and what all upstreams of the process do.
pub struct Gateway {
    options: Options,
    upstream: Upstream,
    shared: Shared,
    memory: Memory,
    resolutions: resolve::Resolutions,
    pings: challenge::Pings,
    sizes: blob::Sizes,
    uploads: push::Uploads,
    consents: kept_blob::Consents,
    counters: Arc<Counters>,
}

impl Gateway {
    /// A gateway that is ready to answer. The upstream is not asked: one that is down does not stop the start.
    pub fn new(options: Options, shared: &Shared) -> Result<Self, StartError> {
        let gateway = Self {
            upstream: Upstream::named(&options.upstream_name, options.upstream.clone(), &shared.metrics.upstream)?,
            memory: shared.memory.of_upstream(&options.upstream_name),
            shared: shared.clone(),
            resolutions: resolve::Resolutions::new(random_bytes()?),
            pings: challenge::Pings::default(),
            sizes: blob::Sizes::default(),
            uploads: push::Uploads::default(),
            consents: kept_blob::Consents::new(options.tags.stale_if_error.max(options.tags.ttl)),
            counters: Arc::new(shared.metrics.counters_of(&options.upstream_name)),
            options,
        };
        gateway.show_metrics();
        Ok(gateway)
    }

    /// How it behaves.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the files that it was made with are still what they were.
    fn is_up_to_date(&self) -> bool {
        self.upstream.is_up_to_date()
    }

    /// Answers one request from a client behind this neighbour, whose path is the upstream's. Never fails: whatever breaks is an answer
    /// too.
    async fn answer<B>(
        self: &Arc<Self>,
        request: Request<B>,
        neighbour: Neighbour,
        routed: Routed,
        mut passage: Box<Passage>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        passage.reaches(self);
        let (head, body) = request.into_parts();
        let body = (!is_read_only(&head.method)).then(|| {
            let received = self.counters.request_bytes(passage.route());
            RequestBody::Streamed(reqwest::Body::wrap(Received::new(body, received)))
        });
        let mut exchange = Exchange::new(head, body, neighbour, routed, &self.options);
        if passage.route().is_manifest() {
            self.shared.metrics.count_client(&exchange.client);
        }
        let mut response = match passage.errand().run(self.dispatch(&mut exchange)).await {
            Ok(mut response) => {
                exchange.mark(response.headers_mut());
                self.note(&mut exchange, &passage, None);
                response
            }
            Err(fault) => {
                legacy::remember(&self.shared.refusals, &exchange, &fault);
                self.note(&mut exchange, &passage, Some(&fault));
                fault.into_response(&self.upstream.authority())
            }
        };
        challenge::rewrite(self.options.challenge, &exchange, &mut response);
        response = finished(response, &exchange.head.method);
        self.shared.seen.note(&self.options.upstream_name, &exchange, response.status());
        passage.answer(response, Some(exchange.client.class()), exchange.record)
    }

    /// Notes what became of a request, before its answer goes out.
    fn note(&self, exchange: &mut Exchange, passage: &Passage, fault: Option<&Fault>) {
        if passage.route() == RouteLabel::ManifestTag {
            self.counters.translated(&exchange.record.outcome, fault);
        }
        if let Some(fault) = fault {
            if let Fault::Upstream(failure) = fault {
                self.upstream.note_disappointment(failure);
            }
            exchange.record.fault(fault);
        }
    }

    async fn dispatch(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let route = self.route(exchange)?;
        if let Route::Token = route {
            return self.answer_token(exchange).await;
        }
        if !is_read_only(&exchange.head.method) {
            return Box::pin(self.push(exchange, route)).await;
        }
        match route {
            Route::Base => self.answer_base(exchange).await,
            Route::Manifest { repository, reference } => self.manifest(exchange, repository, reference).await,
            Route::Blob { repository, digest } => self.blob(exchange, repository, digest).await,
            Route::Referrers { repository, digest } => self.referrers(exchange, repository, digest).await,
            Route::Other => self.other(exchange).await,
            Route::Upload => self.upload_state(exchange).await,
            Route::LegacyImages { repository } => legacy::answer(&self.shared.refusals, exchange, &repository),
            Route::Token => Err(Fault::NotFound),
        }
    }

    /// What the path asks for, as the upstream names it, if the operator lets it out.
    fn route(&self, exchange: &mut Exchange) -> Result<Route, Fault> {
        let path = exchange.head.uri.path();
        let route = Route::of(path)?;
        let Some(name) = route::repository_in(path).map(str::to_owned) else {
            let is_unknown = matches!(route, Route::Other) && path.strip_suffix('/').unwrap_or(path) != CATALOG;
            // Whose it is, only the upstream could tell.
            let is_denied = is_unknown && !self.options.repositories.are_empty();
            return if is_denied { Err(Fault::NotFound) } else { Ok(route) };
        };
        if self.is_in_library(&name) {
            let path = path.replacen("/v2/", "/v2/library/", 1);
            exchange.ask_for(&path)?;
            return self.route(exchange);
        }
        if self.options.repositories.serve(&name) { Ok(route) } else { Err(Fault::RepositoryDenied(name)) }
    }

    fn is_in_library(&self, name: &str) -> bool {
        self.options.single_names == SingleNames::InLibrary && !name.contains('/')
    }
}

/// What every answer has, and HEAD has not.
fn finished(mut response: Response<Body>, method: &Method) -> Response<Body> {
    response.headers_mut().insert(API_VERSION.0, API_VERSION.1);
    if *method == Method::HEAD { response.map(|_| Body::empty()) } else { response }
}

fn is_read_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
