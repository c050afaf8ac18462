//! Floor 6: the operator's listener.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus_client::registry::Registry;

/// The type of the text that Prometheus reads.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers `/livez`, `/readyz` and `/metrics`. The process is alive while it answers, and ready as long as it listens: an
/// upstream or a store that is down is answered request by request and heals without a restart.
pub fn answer<Body>(request: &Request<Body>, registry: &Registry) -> Response<Full<Bytes>> {
    let is_read_only = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, content_type, text) = match request.uri().path() {
        "/livez" | "/readyz" | "/metrics" if !is_read_only => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned())
        }
        "/livez" | "/readyz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/metrics" => match metrics(registry) {
            Ok(text) => (StatusCode::OK, METRICS, text),
            Err(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("the metrics cannot be written: {error}\n"))
            }
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "there is /livez, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn metrics(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}
