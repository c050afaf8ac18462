//! Floor 3: the registry behind the gateway. Nothing else in the program sends a request to it.
//!
//! Three verbs: [`Upstream::resolve`] asks what a reference names (and thereby whether this caller may see it),
//! [`Upstream::fetch_manifest`] and [`Upstream::fetch_blob`] collect small documents, capped and checked against their
//! digest, and [`Upstream::forward`] streams anything else.

pub mod address;
pub mod authentication;
pub mod body;
mod breaker;
mod cache_requests;
pub mod caller;
pub mod challenge;
mod coding;
mod credentials;
mod docker_config;
mod ecr;
mod errand;
pub mod failure;
mod guard;
pub mod headers;
mod lease;
mod limits;
mod login;
mod manifests;
mod metrics;
mod options;
mod pace;
pub(crate) mod pem;
mod program;
mod proxy;
mod rate_limit;
mod redirect;
pub mod route;
mod scope;
mod standing;
mod tls;
pub mod token;
pub mod trace;
mod transport;
mod trouble;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

use crate::image::digest::Digest;
use crate::image::reference::Repository;

pub use authentication::{Authentication, Secret};
use body::UploadBody;
pub use body::{StreamedBody, UploadLimits};
pub use breaker::BreakerPolicy;
pub use cache_requests::{Asked, CacheRequests, Remembered};
pub use caller::{Caller, NOBODYS_TOKEN};
pub use errand::{Errand, TRACEPARENT, X_REQUEST_ID, continued};
pub use failure::{Failure, Refusal};
pub use guard::Names;
use limits::Traffic;
pub use limits::{Limits, Permission};
pub use manifests::{Resolved, verified};
pub use metrics::{HEAD_SECONDS, Metrics, RedirectAction, Slots, USUAL_STATUSES, UntilHead, code, usual};
pub use options::Options;
pub use proxy::{Proxies, ProxyUse};
use redirect::{Freight, Journey};
pub use redirect::{Reach, Redirects, is_redirect};
use scope::Scope;
pub use standing::{RateLimit, Standing};
pub use tls::{ClientCertificate, Tls, Verification};
pub use token::{DOCKER_HUB_HOSTS, is_docker_hub};
#[cfg(feature = "otel")]
pub use transport::collector_client;
pub use trouble::Trouble;

/// The header in which a registry names the digest of a manifest.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How long the base endpoint may take. Docker 1.6 gives its ping ten seconds in all.
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// One registry.
pub struct Upstream {
    options: Options,
    tls_files: tls::Files,
    transport: transport::Transport,
    realm: token::RealmMemory,
    login: login::Login,
}

/// Why an [`Upstream`] cannot be made: the TLS settings of this machine, or those of its credentials, are unusable.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare the connection to {url}: {reason}")]
pub struct UnusableUpstream {
    url: String,
    reason: String,
}

/// A request that goes upstream as it came, but for its credentials and hop-by-hop headers.
pub struct ForwardRequest {
    /// The method as the client sent it.
    pub method: Method,
    /// The path from `/v2/` on, in the bytes that the gateway's router classified.
    pub path: String,
    /// The query, byte for byte.
    pub query: Option<String>,
    /// End-to-end headers of the request; see [`headers::end_to_end`].
    pub headers: HeaderMap,
    /// The body of a push.
    pub body: Option<RequestBody>,
}

/// The body of a request that goes upstream.
pub enum RequestBody {
    /// All of it is here.
    Whole(Bytes),
    /// It arrives from the client while it is sent on.
    Streamed(reqwest::Body),
}

impl Upstream {
    /// A client for this registry, counted by nobody. Nothing is dialled until the first request.
    pub fn new(options: Options) -> Result<Self, UnusableUpstream> {
        Self::named("default", options, &Metrics::default())
    }

    /// A client for this registry, counted under this name.
    pub fn named(name: &str, options: Options, metrics: &Metrics) -> Result<Self, UnusableUpstream> {
        let unusable = |reason| UnusableUpstream { url: options.url.to_string(), reason };
        // Before they are used: what changes meanwhile is seen later.
        let tls_files = options.tls.files();
        let transport = transport::Transport::new(&options, Traffic::new(&options, name, metrics)).map_err(unusable)?;
        let login = login::Login::new(&options).map_err(unusable)?;
        if options.tls.verification == Verification::Insecure {
            let upstream = authority_of(&options.url);
            tracing::warn!(
                upstream,
                "its certificate is not checked: whoever is on the way can read and change everything"
            );
        }
        Ok(Self { options, tls_files, transport, realm: token::RealmMemory::default(), login })
    }

    /// Whether the files of its TLS settings are still what they were when it was made.
    pub fn is_up_to_date(&self) -> bool {
        self.options.tls.files() == self.tls_files
    }

    /// The registry's URL.
    pub const fn url(&self) -> &Url {
        &self.options.url
    }

    /// Where permission to see what it has comes from.
    pub const fn permission(&self) -> Permission {
        self.options.permission
    }

    /// By its own count, it lets fewer requests through than the operator wants to keep.
    pub fn is_near_rate_limit(&self) -> bool {
        self.transport.traffic.is_near_rate_limit()
    }

    /// How it stands at this moment.
    pub fn standing(&self) -> Standing {
        self.transport.traffic.standing()
    }

    /// The registry's host and port, for a sentence that a person reads.
    pub fn authority(&self) -> String {
        authority_of(&self.options.url)
    }

    /// The blob with this digest, of at most `bytes_max` bytes, following redirects without credentials.
    pub async fn fetch_blob(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
        bytes_max: usize,
    ) -> Result<Bytes, Failure> {
        let url = self.endpoint(&format!("/v2/{repository}/blobs/{digest}"), None);
        let journey = Journey { method: Method::GET, url, caller, headers: HeaderMap::new() };
        let answer = self.ask(journey, Scope::pull(repository)).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        let bytes = self.collect(self.streamed(answer.into_body()), bytes_max, "blob").await?;
        if !digest.matches(&bytes) {
            return Err(Failure::WrongBytes { expected: digest.clone(), found: Digest::sha256(&bytes) });
        }
        Ok(bytes)
    }

    /// Asks the base endpoint `/v2/` as `caller`: the head of the answer, whatever its status. Its 401 carries the
    /// challenge by which clients learn how to log in.
    pub async fn ping(&self, caller: &Caller) -> Result<http::response::Parts, Failure> {
        let url = self.endpoint("/v2/", None);
        let journey = Journey { method: Method::GET, url, caller, headers: HeaderMap::new() };
        let asked = tokio::time::timeout(PING_TIMEOUT, self.ask(journey, Scope::none())).await;
        let answer = asked.unwrap_or(Err(Failure::TimedOut { seconds: PING_TIMEOUT.as_secs() }))?;
        let (head, _) = answer.into_parts();
        self.realm.learn(head.status, &head.headers);
        Ok(head)
    }

    /// Sends a request as it came and hands back the answer unread, whatever its status.
    pub async fn forward(
        &self,
        caller: &Caller,
        request: ForwardRequest,
    ) -> Result<http::Response<StreamedBody>, Failure> {
        let answer = if caller.is_gateway() {
            Box::pin(self.forward_logged_in(request)).await?
        } else {
            self.send_on(caller, request).await?
        };
        self.realm.learn(answer.status(), answer.headers());
        Ok(answer.map(|inner| self.streamed(inner)))
    }

    async fn send_on(
        &self,
        caller: &Caller,
        request: ForwardRequest,
    ) -> Result<http::Response<reqwest::Body>, Failure> {
        let url = self.endpoint(&request.path, request.query.as_deref());
        if url.query() != request.query.as_deref() {
            return Err(Failure::UnforwardableQuery);
        }
        let mut outgoing = reqwest::Request::new(request.method, url);
        *outgoing.headers_mut() = request.headers;
        outgoing.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = caller.authorization() {
            outgoing.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        match request.body {
            None => self.transport.send_streaming(outgoing).await,
            Some(RequestBody::Whole(bytes)) => {
                self.transport.traffic.meter().sent().inc_by(bytes.len() as u64);
                *outgoing.body_mut() = Some(bytes.into());
                self.transport.send_streaming(outgoing).await
            }
            Some(RequestBody::Streamed(inner)) => {
                let (upload, ended) =
                    UploadBody::new(inner, self.options.uploads, self.transport.traffic.meter().sent())?;
                *outgoing.body_mut() = Some(reqwest::Body::wrap(upload));
                self.transport.send_upload(outgoing, ended).await
            }
        }
    }

    /// Where the answer to a forwarded request redirects to. Refused where no upstream may lead anybody: from https to
    /// http, to another scheme, to an address that is more private than its own.
    pub async fn redirect_target(&self, path: &str, headers: &HeaderMap) -> Result<Url, Failure> {
        let target = self.checked_target(path, headers).await;
        if target.is_err() {
            self.note_redirect(RedirectAction::Refused);
        }
        target
    }

    async fn checked_target(&self, path: &str, headers: &HeaderMap) -> Result<Url, Failure> {
        let target = redirect::next_hop(&self.endpoint(path, None), headers)?;
        if !self.is_own(&target) {
            self.transport.check_target(&target).await?;
        }
        Ok(target)
    }

    /// Counts what came and was no use. What kept an answer from coming is counted where it was sent for.
    pub fn note_disappointment(&self, failure: &Failure) {
        self.transport.traffic.meter().disappointed(failure);
    }

    /// Counts a redirect that was looked at.
    pub fn note_redirect(&self, action: RedirectAction) {
        self.transport.traffic.note_redirect(action);
    }

    /// Whether the gateway follows a redirect of a blob to there, for a client of this reach, or lets the client do it.
    pub fn follows(&self, target: &Url, reach: Reach) -> bool {
        let host = target.host_str().unwrap_or_default();
        self.options.redirects.are_followed(reach, host, &self.options.redirect_hosts)
    }

    /// Fetches a blob from where the upstream redirects to. Nothing of the client's goes there but which part it wants and
    /// what it has.
    pub async fn fetch_redirected(
        &self,
        caller: &Caller,
        request: ForwardRequest,
        target: Url,
    ) -> Result<http::Response<StreamedBody>, Failure> {
        let url = self.endpoint(&request.path, request.query.as_deref());
        let headers = headers::of_part(&request.headers);
        let scope = Scope::of(&request.method, &request.path, request.query.as_deref());
        let journey = Journey { method: request.method, url, caller, headers };
        let answer = if caller.is_gateway() {
            Box::pin(self.travel_logged_in(&journey, &scope, target)).await?
        } else {
            redirect::travel(&self.transport, &journey, target, Freight::Blob).await?
        };
        Ok(answer.map(|inner| self.streamed(inner)))
    }

    /// The URL is at the upstream's own origin.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.options.url.origin()
    }

    /// All bytes of a document, within its cap and its time: an upstream that drips is one that stands still.
    pub async fn collect(&self, body: StreamedBody, bytes_max: usize, what: &'static str) -> Result<Bytes, Failure> {
        self.in_time(body::collect(body, bytes_max, what)).await
    }

    /// What reads a whole document, within the time that one may take.
    pub async fn in_time<Output>(
        &self,
        reading: impl Future<Output = Result<Output, Failure>>,
    ) -> Result<Output, Failure> {
        let limit = self.options.document_timeout;
        match tokio::time::timeout(limit, reading).await {
            Ok(read) => read,
            Err(_) => Err(Failure::TimedOut { seconds: limit.as_secs() }),
        }
    }

    /// The answer to a refused request as a [`Failure`]: its status, its headers and, where it has one, the start of
    /// its body.
    pub async fn refused(&self, answer: http::Response<impl Into<AnswerBody>>) -> Failure {
        let (head, body) = answer.into_parts();
        if !head.status.is_client_error() && !head.status.is_server_error() {
            return Failure::Unexpected { status: head.status };
        }
        self.realm.learn(head.status, &head.headers);
        let body = match body.into() {
            AnswerBody::Raw(raw) => self.streamed(raw),
            AnswerBody::Streamed(streamed) => *streamed,
        };
        let body = self.collect(body, failure::REFUSAL_BYTES_MAX, "error").await.unwrap_or_default();
        Failure::Refused(Box::new(Refusal { status: head.status, headers: head.headers, body }))
    }

    /// The upstream's URL with this path behind its own. The path is in the grammar of the router, so nothing in it is
    /// rewritten on the way.
    fn endpoint(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.options.url.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url.set_query(query);
        url
    }

    fn streamed(&self, inner: reqwest::Body) -> StreamedBody {
        StreamedBody::new(inner, self.options.idle_timeout).counted_by(self.transport.traffic.meter().received())
    }
}

/// The body of an answer before or after it was wrapped.
pub enum AnswerBody {
    /// As the HTTP client gave it.
    Raw(reqwest::Body),
    /// Already under the idle time-out.
    Streamed(Box<StreamedBody>),
}

impl From<reqwest::Body> for AnswerBody {
    fn from(body: reqwest::Body) -> Self {
        Self::Raw(body)
    }
}

impl From<StreamedBody> for AnswerBody {
    fn from(body: StreamedBody) -> Self {
        Self::Streamed(Box::new(body))
    }
}

fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
