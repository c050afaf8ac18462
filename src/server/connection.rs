//! A connection to a client: HTTP spoken on it until either side has had enough.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::store::fault_point::{self, FaultPoint};

use super::idle::{Requests, Watch};
use super::limits::{Limits, Place, Places};

/// A connection to a client.
pub(super) struct Connection<Answer> {
    pub(super) peer: SocketAddr,
    pub(super) answer: Answer,
    pub(super) watcher: Watcher,
    pub(super) places: Places,
    /// Taken until its end.
    pub(super) _place: Place,
}

impl<Answer> Connection<Answer> {
    /// Answers requests until either side has had enough. Each is given these extensions.
    pub(super) async fn serve<Answered, Body>(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        extensions: Extensions,
    ) where
        Answer: Fn(Request<Incoming>, SocketAddr) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { peer, answer, watcher, places, _place } = self;
        let watch = Watch::new(*places.limits(), Requests::InTurn);
        let (stream, requests) = (watch.over(stream), watch.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().extend(extensions.clone());
            let (underway, answered) = (requests.begin(), answer(request, peer));
            async move { Ok::<_, Infallible>(underway.answered(answered.await)) }
        });
        let served = watcher.watch(http(places.limits()).serve_connection(TokioIo::new(stream), service));
        match watch.until_overdue(served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection ended early"),
            Err(overdue) => {
                places.metrics().cut(overdue);
                tracing::debug!(%peer, reason = overdue.words(), "a connection was cut");
            }
        }
        fault_point::reach(FaultPoint::AnswerSent).await;
    }
}

fn http(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The library's own time for a head runs while a connection is idle too, so it could be no shorter than that.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes);
    builder
}
