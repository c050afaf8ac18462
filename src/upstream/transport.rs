//! The HTTP clients and what every request of ours carries.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Method, Response};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::oneshot;
use url::Url;

use super::body::unreachable;
use super::{Caller, Failure, Options, ProxyUse};

const OWN_USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("schemabridge/", env!("CARGO_PKG_VERSION")));
/// Connections that are kept for the next request, per host.
const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// How long the upstream may take to answer once an upload is complete: registries hash and move a whole layer then.
const UPLOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Two clients: manifests may share one HTTP/2 connection, blobs each have their own HTTP/1.1 connection, so that no
/// blob's flow control holds up another's.
pub(super) struct Transport {
    documents: reqwest::Client,
    streams: reqwest::Client,
    answer_timeout: Duration,
}

impl Transport {
    pub(super) fn new(options: &Options) -> Result<Self, String> {
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
            answer_timeout: options.answer_timeout,
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
        self.execute(&self.documents, request).await
    }

    /// Sends a request whose bodies stream.
    pub(super) async fn send_streaming(&self, request: reqwest::Request) -> Result<Response<reqwest::Body>, Failure> {
        self.execute(&self.streams, request).await
    }

    /// Sends an upload, which takes as long as the client needs to send it; the time for the answer begins when it ended.
    pub(super) async fn send_upload(
        &self,
        request: reqwest::Request,
        ended: oneshot::Receiver<()>,
    ) -> Result<Response<reqwest::Body>, Failure> {
        let mut answer = pin!(self.streams.execute(request));
        tokio::select! {
            early = &mut answer => return final_answer(early),
            _ = ended => {}
        }
        match tokio::time::timeout(UPLOAD_ANSWER_TIMEOUT, answer).await {
            Ok(answer) => final_answer(answer),
            Err(_) => Err(Failure::TimedOut { seconds: UPLOAD_ANSWER_TIMEOUT.as_secs() }),
        }
    }

    async fn execute(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
    ) -> Result<Response<reqwest::Body>, Failure> {
        match tokio::time::timeout(self.answer_timeout, client.execute(request)).await {
            Ok(answer) => final_answer(answer),
            Err(_) => Err(Failure::TimedOut { seconds: self.answer_timeout.as_secs() }),
        }
    }
}

/// An answer that is one: an upstream that switches to another protocol, which nobody asked for, has answered nothing.
fn final_answer(answer: reqwest::Result<reqwest::Response>) -> Result<Response<reqwest::Body>, Failure> {
    let answer = answer.map_err(unreachable)?;
    if answer.status().is_informational() {
        let reason = format!("it answered {} to a request that asked for no such thing", answer.status());
        return Err(Failure::Unreachable { reason });
    }
    Ok(answer.into())
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
