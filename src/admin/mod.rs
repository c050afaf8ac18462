//! Floor 6: the operator's listener.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;

use crate::server::serve_with;

/// Answers `/livez` and `/readyz` until `shutdown` completes. The process is alive while it answers, and ready as long as
/// it listens: an upstream or a store that is down is answered request by request and heals without a restart.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()>) {
    serve_with(listener, shutdown, |request, _| std::future::ready(answer(&request))).await;
}

fn answer<Body>(request: &Request<Body>) -> Response<Full<Bytes>> {
    let is_read_only = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, text) = match request.uri().path() {
        "/livez" | "/readyz" if is_read_only => (StatusCode::OK, "ok\n"),
        "/livez" | "/readyz" => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n"),
        _ => (StatusCode::NOT_FOUND, "there is /livez and /readyz\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
