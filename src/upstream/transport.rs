//! The HTTP clients and what every request of ours carries.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Method, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::oneshot;
use url::Url;

use super::body::{innermost, unreachable};
use super::limits::{Traffic, Travel};
use super::{Caller, Failure, Options, ProxyUse};

const OWN_USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("schemabridge/", env!("CARGO_PKG_VERSION")));
/// Connections that are kept for the next request, per host.
const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// How much of a body one read takes. A stream whose reader is slow holds two reads: the one that is being written and
/// the next. The HTTP library's own choice is 408 KiB, of which 64 such streams hold 51 MiB.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long the upstream may take to answer once an upload is complete: registries hash and move a whole layer then.
const UPLOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Two clients: manifests may share one HTTP/2 connection, blobs each have their own HTTP/1.1 connection, so that no
/// blob's flow control holds up another's. What streams down goes past the second one where there is no proxy on the way,
/// because its reads cannot be limited.
pub(super) struct Transport {
    documents: reqwest::Client,
    streams: reqwest::Client,
    downloads: Option<Downloads>,
    answer_timeout: Duration,
    pub(super) traffic: Traffic,
}

impl Transport {
    pub(super) fn new(options: &Options, traffic: Traffic) -> Result<Self, String> {
        let build = |protocols: &[&[u8]], http1_only: Http1| {
            let mut builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls_config(protocols)?)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(options.connect_timeout)
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .pool_idle_timeout(IDLE_CONNECTION_LIFE)
                .tcp_nodelay(true);
            if let ProxyUse::Direct = options.proxy {
                builder = builder.no_proxy();
            }
            if let Http1::Only = http1_only {
                builder = builder.http1_only();
            }
            builder.build().map_err(|error| error.without_url().to_string())
        };
        Ok(Self {
            documents: build(&[b"h2", b"http/1.1"], Http1::Preferred)?,
            streams: build(&[b"http/1.1"], Http1::Only)?,
            downloads: is_direct(options).then(|| Downloads::new(options)).transpose()?,
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

/// The client of what streams down, straight to the upstream.
struct Downloads(legacy::Client<HttpsConnector<HttpConnector>, reqwest::Body>);

impl Downloads {
    fn new(options: &Options) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        // The connector names the protocol to TLS by itself.
        let tls = tls_config(&[])?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_LIFE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(READ_BYTES_MAX)
            .build(connector);
        Ok(Self(client))
    }

    async fn send(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        let mut request = http::Request::<reqwest::Body>::try_from(request).map_err(unreachable)?;
        // What the other clients say where the caller says nothing.
        request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        match self.0.request(request).await {
            Ok(answer) => final_answer(answer.map(reqwest::Body::wrap)),
            Err(error) => Err(Failure::Unreachable { reason: innermost(&error) }),
        }
    }
}

/// No proxy that the environment names stands before the upstream. Streams go nowhere else.
fn is_direct(options: &Options) -> bool {
    match options.proxy {
        ProxyUse::Direct => true,
        ProxyUse::Environment => {
            let upstream = options.url.as_str().parse();
            upstream.is_ok_and(|upstream| Matcher::from_env().intercept(&upstream).is_none())
        }
    }
}

/// An answer that is one: an upstream that switches to another protocol, which nobody asked for, has answered nothing.
fn final_answer(answer: Response<reqwest::Body>) -> Result<Response<reqwest::Body>, Failure> {
    if answer.status().is_informational() {
        let reason = format!("it answered {} to a request that asked for no such thing", answer.status());
        return Err(Failure::Unreachable { reason });
    }
    Ok(answer)
}

enum Http1 {
    Preferred,
    Only,
}

/// What the machine trusts, and the compiled-in roots where the machine names none.
static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Arc::new(roots)
});

fn tls_config(protocols: &[&[u8]]) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::clone(&ROOTS))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
