//! Floor 5: one request.
//!
//! [`Gateway::answer`] is the whole path: route, then the one thing the route asks for, and whatever broke on the way
//! becomes an answer in [`fault`], once.

mod blob;
mod body;
mod by_digest;
mod by_tag;
mod challenge;
mod derive;
mod exchange;
pub mod fault;
mod held;
mod index;
mod kept_blob;
mod legacy;
mod metrics;
mod push;
mod record;
mod referrers;
mod resolve;
mod respond;
pub mod route;
mod token;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use ipnet::IpNet;
use tokio::sync::OnceCell;
use url::Url;

use crate::negotiate::Policy;
use crate::store::blobs::{BlobCache, BlobCacheOptions, UnusableBlobCache};
use crate::store::sweep::Bounds;
use crate::store::{Location, Memory, Store};
use crate::translate::EDITION;
use crate::translate::sign::SigningKey;
use crate::upstream::{self, RequestBody, Upstream};

pub use body::Body;
use exchange::Exchange;
use fault::Fault;
pub use index::IndexLimits;
pub use kept_blob::Consent;
pub use record::Outcome;
use record::Unanswered;
use route::Route;

/// Every answer says that this is a registry of the second protocol version: Docker 1.6 to 1.9 go by it.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));

/// How a gateway behaves. [`Options::for_upstream`] has every default.
#[derive(Clone, Debug)]
pub struct Options {
    /// The edition of the translator, under which documents are kept. Default [`EDITION`]; another is for whoever wants to
    /// see what becomes of the digests of one edition in the hands of the next.
    pub edition: u32,
    /// The name of the upstream, which is part of what recipes are kept under. Default `default`.
    pub upstream_name: String,
    /// The registry behind the gateway.
    pub upstream: upstream::Options,
    /// Where derived documents last.
    pub store: Location,
    /// How many bytes of documents the process keeps in memory. Default 256 MiB.
    pub cache_bytes: u64,
    /// Where blobs are kept. Default nowhere.
    pub blob_cache: Option<BlobCacheOptions>,
    /// Who decides whether a caller may see a blob that is kept. Default the upstream.
    pub blob_consent: Consent,
    /// How long the upstream's consent to one caller is remembered. Default 0: it is asked each time.
    pub tag_ttl: Duration,
    /// What becomes of the realm in the upstream's bearer challenge.
    pub challenge: ChallengeMode,
    /// The gateway's own URL as clients know it; without it, it is built from each request.
    pub external_url: Option<Url>,
    /// Neighbours whose `X-Forwarded-Proto` and `X-Forwarded-For` are believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether pushes are forwarded.
    pub pushes: Pushes,
    /// What the operator decides about negotiation.
    pub policy: Policy,
    /// How much of a list or index is taken apart.
    pub index: IndexLimits,
    /// The key that signs schema 1; without it, the store's.
    pub signing_key: Option<Arc<SigningKey>>,
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

impl Options {
    /// A gateway in front of this registry, every other setting at its default and the store in memory.
    pub fn for_upstream(url: Url) -> Self {
        Self {
            edition: EDITION,
            upstream_name: "default".to_owned(),
            upstream: upstream::Options::new(url),
            store: Location::Memory,
            cache_bytes: 256 << 20,
            blob_cache: None,
            blob_consent: Consent::OfTheUpstream,
            tag_ttl: Duration::ZERO,
            challenge: ChallengeMode::Pass,
            external_url: None,
            trusted_proxies: Vec::new(),
            pushes: Pushes::Refused,
            policy: Policy::default(),
            index: IndexLimits::default(),
            signing_key: None,
        }
    }
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] crate::store::UnusableStore),
    /// The blob cache cannot be used.
    #[error(transparent)]
    BlobCache(#[from] UnusableBlobCache),
    /// The upstream client cannot be made.
    #[error(transparent)]
    Upstream(#[from] upstream::UnusableUpstream),
    /// The machine gives no randomness.
    #[error("the operating system gives no random bytes")]
    Entropy,
}

/// One gateway: everything that its requests share.
pub struct Gateway {
    options: Options,
    upstream: Upstream,
    store: Store,
    memory: Memory,
    resolutions: resolve::Resolutions,
    pings: challenge::Pings,
    sizes: blob::Sizes,
    blob_cache: Option<BlobCache>,
    refusals: legacy::Refusals,
    signing_key: OnceCell<Arc<SigningKey>>,
    metrics: metrics::Metrics,
}

impl Gateway {
    /// A gateway that is ready to answer. The upstream is not asked: one that is down does not stop the start.
    pub fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let store = Store::open(&options.store)?;
        let blob_cache = options.blob_cache.as_ref().map(BlobCache::open).transpose()?;
        let upstream = Upstream::new(options.upstream.clone())?;
        let signing_key = OnceCell::new_with(options.signing_key.clone());
        Ok(Arc::new(Self {
            upstream,
            store,
            memory: Memory::new(options.cache_bytes),
            resolutions: resolve::Resolutions::new(options.tag_ttl, random_bytes()?),
            pings: challenge::Pings::default(),
            sizes: blob::Sizes::default(),
            blob_cache,
            refusals: legacy::Refusals::default(),
            signing_key,
            metrics: metrics::Metrics::default(),
            options,
        }))
    }

    /// Looks whether the store answers, which is a warning if not, and keeps it within its bounds for as long as this is
    /// polled. What a store in memory holds is bounded by the size of the cache too.
    pub async fn tend_store(self: Arc<Self>, mut bounds: Bounds) {
        if let Ok(name) = random_bytes() {
            self.store.check(&data_encoding::HEXLOWER.encode(&name)).await;
        }
        if !self.store.is_durable() {
            let bytes_max = bounds.documents_bytes_max.unwrap_or(u64::MAX);
            bounds.documents_bytes_max = Some(bytes_max.min(self.options.cache_bytes));
        }
        self.store.tend(bounds).await;
    }

    /// Answers one request from a client at `peer`. Never fails: whatever breaks is an answer too.
    pub async fn answer<B>(self: &Arc<Self>, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let body = (!is_read_only(&head.method)).then(|| RequestBody::Streamed(reqwest::Body::wrap(body)));
        let mut exchange = Exchange::new(head, body, self.client_address(peer), &self.options);
        let unanswered = Unanswered::new(&exchange.head);
        let mut response = match self.dispatch(&mut exchange).await {
            Ok(response) => response,
            Err(fault) => {
                legacy::remember(&self.refusals, &exchange, &fault);
                exchange.record.fault(&fault);
                fault.into_response(&self.upstream.authority())
            }
        };
        challenge::rewrite(self.options.challenge, &exchange, &mut response);
        response.headers_mut().insert(API_VERSION.0, API_VERSION.1);
        if exchange.head.method == Method::HEAD {
            response = response.map(|_| Body::empty());
        }
        unanswered.answered();
        exchange.record.log(&exchange.head, exchange.client.class(), response.status(), started.elapsed());
        response.extensions_mut().insert(std::mem::take(&mut exchange.record.outcome));
        response
    }

    async fn dispatch(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        exchange.check_host()?;
        let route = Route::of(exchange.head.uri.path())?;
        if let Route::Token = route {
            return self.answer_token(exchange).await;
        }
        if !is_read_only(&exchange.head.method) {
            return self.push(exchange, route).await;
        }
        match route {
            Route::Base => self.answer_base(exchange).await,
            Route::Manifest { repository, reference } => self.manifest(exchange, repository, reference).await,
            Route::Blob { repository, digest } => self.blob(exchange, repository, digest).await,
            Route::Referrers { repository, digest } => self.referrers(exchange, repository, digest).await,
            Route::Upload | Route::Other => self.forward(exchange).await,
            Route::LegacyImages { repository } => legacy::answer(&self.refusals, exchange, &repository),
            Route::Token => Err(Fault::NotFound),
        }
    }

    /// The client's address: the connection's, or what the nearest trusted proxy says that it is.
    fn client_address(&self, peer: SocketAddr) -> exchange::Neighbour {
        let trusted = self.is_trusted_proxy(peer.ip());
        exchange::Neighbour { address: peer.ip(), trusted }
    }

    fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.options.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

fn is_read_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Randomness for keys that live as long as the process or, as a signing key, as long as the store.
pub(crate) fn random_bytes() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_| StartError::Entropy)?;
    Ok(bytes)
}
