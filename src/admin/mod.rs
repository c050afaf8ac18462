//! Floor 6: the operator's listener.
//!
//! Health and metrics name nobody's images and are open to whoever reaches the listener. All the rest shows what is pulled
//! and by whom, so it is the operator's alone: see [`access`].

pub mod access;
mod api;
mod exposition;
mod health;
mod page;
mod refresh;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus_client::registry::Registry;

use crate::gateway::{Peer, Service};

use access::Access;
pub use health::Health;
pub use refresh::IMAGES_MAX;

const TEXT: &str = "text/plain; charset=utf-8";

const NOWHERE: &str = "there is /, /api/clients, /api/status, /livez, /readyz, /startupz, /metrics and /refresh\n";

/// What the operator sees and does.
pub struct Admin {
    registry: Registry,
    service: Arc<Service>,
    access: Access,
    health: Health,
}

/// What is answered, before the headers that every answer has.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    text: Bytes,
    headers: HeaderMap,
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self { status, content_type, text: text.into(), headers: HeaderMap::new() }
    }

    fn words(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, TEXT, text)
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl Admin {
    /// Shows this gateway and these metrics to whoever may see them.
    pub fn new(registry: Registry, service: Arc<Service>, access: Access) -> Self {
        Self { registry, service, access, health: Health::default() }
    }

    /// How the gateway is, for whoever starts and stops it to say.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Answers one request.
    pub async fn answer<Body>(&self, request: Request<Body>, peer: Peer) -> Response<Full<Bytes>>
    where
        Body: http_body::Body<Data = Bytes>,
        Body::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let answer = match self.open_to_all(&request) {
            Some(answer) => answer,
            None => self.for_the_operator(request, peer).await,
        };
        let Answer { status, content_type, text, headers } = answer;
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        page::protect(response.headers_mut());
        response
    }

    /// Health and metrics.
    fn open_to_all<Body>(&self, request: &Request<Body>) -> Option<Answer> {
        let path = request.uri().path();
        Some(match (self.health.of(path), path) {
            (Some(_), _) | (None, "/metrics") if !is_read_only(request.method()) => read_only(),
            (Some((status, word)), _) => Answer::words(status, format!("{word}\n")),
            (None, "/metrics") => match exposition::metrics(&self.registry, request.headers()) {
                Ok((content_type, text)) => Answer::new(StatusCode::OK, content_type, text),
                Err(error) => Answer::words(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the metrics cannot be written: {error}\n"),
                ),
            },
            (None, _) => return None,
        })
    }

    /// What names repositories and clients.
    async fn for_the_operator<Body>(&self, request: Request<Body>, peer: Peer) -> Answer
    where
        Body: http_body::Body<Data = Bytes>,
        Body::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        if let Err(refusal) = self.access.admit(&head, peer).await {
            return refusal.into_answer();
        }
        let path = head.uri.path();
        if path == "/refresh" {
            let request = Request::from_parts(head, body);
            let (status, text) = refresh::refresh(request, &self.service).await.unwrap_or_else(|refusal| refusal);
            return Answer::words(status, text);
        }
        if !is_read_only(&head.method) {
            return read_only();
        }
        match (path, page::file(path)) {
            ("/api/clients", _) => json(&api::clients(&self.service)),
            ("/api/status", _) => json(&api::status(&self.service)),
            (_, Some((content_type, text))) => Answer::new(StatusCode::OK, content_type, text),
            (_, None) => Answer::words(StatusCode::NOT_FOUND, NOWHERE),
        }
    }
}

fn is_read_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn read_only() -> Answer {
    Answer::words(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n")
}

fn json(value: &serde_json::Value) -> Answer {
    Answer::new(StatusCode::OK, "application/json", format!("{value}\n"))
}
