//! The HTTP clients and what every request of ours carries.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Method, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::oneshot;
use tower_service::Service;
use url::Url;

use super::body::{innermost, unreachable};
use super::guard::{self, Guard};
use super::limits::{self, Traffic, Travel};
use super::proxy::Rules;
use super::tls::Trust;
use super::{Caller, Failure, Options, Trouble};

const OWN_USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("schemabridge/", env!("CARGO_PKG_VERSION")));
/// Connections that are kept for the next request, per host.
const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// How much of a body one read takes. A stream whose reader is slow holds two reads: the one that is being written and
/// the next. The HTTP library's own choice is 408 KiB, of which 64 such streams hold 51 MiB.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long the upstream may take to answer once an upload is complete: registries hash and move a whole layer then.
const UPLOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Two clients to the upstream's own origin: manifests may share one HTTP/2 connection, blobs each have their own
/// HTTP/1.1 connection, so that no blob's flow control holds up another's. What streams down goes past the second one
/// where there is no proxy on the way, because its reads cannot be limited. And a client for everywhere else.
pub(super) struct Transport {
    documents: reqwest::Client,
    streams: reqwest::Client,
    downloads: Option<Direct<GaiResolver>>,
    abroad: Abroad,
    answer_timeout: Duration,
    pub(super) traffic: Traffic,
}

impl Transport {
    pub(super) fn new(options: &Options, traffic: Traffic) -> Result<Self, String> {
        let trust = Trust::new(&options.tls, &options.url)?;
        let is_direct = !options.proxy.rules().name_a_proxy_for(&options.url);
        let downloads = || Direct::new(options, GaiResolver::new(), trust.own(&[]));
        Ok(Self {
            documents: client(options, trust.own(&[b"h2", b"http/1.1"]), Http1::Preferred)?,
            streams: client(options, trust.own(&[b"http/1.1"]), Http1::Only)?,
            downloads: is_direct.then(downloads),
            abroad: Abroad::new(options, &trust)?,
            answer_timeout: options.answer_timeout,
            traffic,
        })
    }

    /// A request of the gateway's own, as this caller.
    pub(super) fn request(method: Method, url: Url, caller: &Caller) -> reqwest::Request {
        let mut request = reqwest::Request::new(method, url);
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, OWN_USER_AGENT);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = caller.authorization() {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Sends a request for a document and waits for the head of the answer.
    pub(super) async fn send(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        self.traffic.carry(Travel::Document, request, |request| self.execute(&self.documents, request)).await
    }

    /// Sends a request whose bodies stream.
    pub(super) async fn send_streaming(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        self.traffic.carry(Travel::Download, request, |request| self.download(request)).await
    }

    async fn download(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        let Some(downloads) = &self.downloads else { return self.execute(&self.streams, request).await };
        let answer = tokio::time::timeout(self.answer_timeout, downloads.send(request)).await;
        answer.unwrap_or_else(|_| Err(self.too_late()))
    }

    /// Sends a request to where somebody else's word leads, which may be no more private a place than the upstream's own.
    pub(super) async fn send_abroad(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        let send = async |request| {
            let answer = tokio::time::timeout(self.answer_timeout, self.abroad.send(request)).await;
            answer.unwrap_or_else(|_| Err(self.too_late()))
        };
        limits::abroad(request, send).await
    }

    /// Refuses a URL that names a more private address than the upstream's own. What a name stands for is another's
    /// business, or found out when it is dialled.
    pub(super) async fn check_target(&self, url: &Url) -> Result<(), Failure> {
        self.abroad.check(url).await
    }

    /// Sends an upload, which takes as long as the client needs to send it; the time for the answer begins when it ended.
    pub(super) async fn send_upload(
        &self,
        request: reqwest::Request,
        ended: oneshot::Receiver<()>,
    ) -> Result<Response<reqwest::Body>, Failure> {
        self.traffic.carry(Travel::Upload, request, |request| self.upload(request, ended)).await
    }

    async fn upload(
        &self,
        request: reqwest::Request,
        ended: oneshot::Receiver<()>,
    ) -> Result<Response<reqwest::Body>, Failure> {
        let mut answer = pin!(execute(&self.streams, request));
        tokio::select! {
            early = &mut answer => return early,
            _ = ended => {}
        }
        match tokio::time::timeout(UPLOAD_ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::TimedOut { seconds: UPLOAD_ANSWER_TIMEOUT.as_secs() }),
        }
    }

    async fn execute(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
    ) -> Result<Response<reqwest::Body>, Failure> {
        let answer = tokio::time::timeout(self.answer_timeout, execute(client, request)).await;
        answer.unwrap_or_else(|_| Err(self.too_late()))
    }

    fn too_late(&self) -> Failure {
        Failure::TimedOut { seconds: self.answer_timeout.as_secs() }
    }
}

async fn execute(client: &reqwest::Client, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
    final_answer(client.execute(request).await.map_err(unreachable)?.into())
}

fn client(options: &Options, tls: ClientConfig, http1: Http1) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_CONNECTION_LIFE)
        .tcp_nodelay(true);
    let builder = match http1 {
        Http1::Only => builder.http1_only(),
        Http1::Preferred => builder,
    };
    options.proxy.applied_to(builder)?.build().map_err(|error| error.without_url().to_string())
}

/// A client for the collector of traces, whose certificate is to be one that the machine trusts.
#[cfg(feature = "otel")]
pub fn collector_client(collector: &Url, timeout: Duration) -> Result<reqwest::Client, String> {
    let trust = Trust::new(&super::Tls::default(), collector)?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(trust.abroad(&[]))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout);
    builder.build().map_err(|error| error.without_url().to_string())
}

/// The client for wherever the upstream's word leads. Behind a proxy, who may be asked is all that is known of a name:
/// the proxy dials.
struct Abroad {
    guard: Guard,
    proxies: Rules,
    direct: Direct<Guard>,
    proxied: reqwest::Client,
}

impl Abroad {
    fn new(options: &Options, trust: &Trust) -> Result<Self, String> {
        let guard = Guard::new(&options.url, options.names.clone());
        Ok(Self {
            direct: Direct::new(options, guard.clone(), trust.abroad(&[])),
            proxied: client(options, trust.abroad(&[b"http/1.1"]), Http1::Only)?,
            proxies: options.proxy.rules(),
            guard,
        })
    }

    async fn send(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        self.check(request.url()).await?;
        if self.proxies.name_a_proxy_for(request.url()) {
            execute(&self.proxied, request).await
        } else {
            self.direct.send(request).await
        }
    }

    async fn check(&self, url: &Url) -> Result<(), Failure> {
        let checked = if self.proxies.name_a_proxy_for(url) {
            guard::check_forbidden(url)
        } else {
            self.guard.check_literal(url).await
        };
        Ok(checked?)
    }
}

/// A client that dials by itself, with reads that are limited and a resolver of one's choice.
struct Direct<Resolver>(legacy::Client<HttpsConnector<HttpConnector<Resolver>>, reqwest::Body>);

impl<Resolver> Direct<Resolver>
where
    Resolver: Service<Name, Response: Iterator<Item = SocketAddr>, Error: Into<Box<dyn Error + Send + Sync>>>,
    Resolver: Clone + Send + Sync + 'static,
    Resolver::Future: Send,
{
    fn new(options: &Options, resolver: Resolver, tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        // The connector names the protocol to TLS by itself.
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_LIFE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(READ_BYTES_MAX)
            .build(connector);
        Self(client)
    }

    async fn send(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        let mut request = http::Request::<reqwest::Body>::try_from(request).map_err(unreachable)?;
        // What the other clients say where the caller says nothing.
        request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        match self.0.request(request).await {
            Ok(answer) => final_answer(answer.map(reqwest::Body::wrap)),
            Err(error) => Err(match guard::refusal_in(&error) {
                Some(refusal) => refusal.clone().into(),
                None => Failure::Unreachable { trouble: Trouble::of(&error), reason: innermost(&error) },
            }),
        }
    }
}

/// An answer that is one: an upstream that switches to another protocol, which nobody asked for, has answered nothing.
fn final_answer(answer: Response<reqwest::Body>) -> Result<Response<reqwest::Body>, Failure> {
    if answer.status().is_informational() {
        let reason = format!("it answered {} to a request that asked for no such thing", answer.status());
        return Err(Failure::Unreachable { trouble: Trouble::Other, reason });
    }
    Ok(answer)
}

#[derive(Clone, Copy)]
enum Http1 {
    Preferred,
    Only,
}
