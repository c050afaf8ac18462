//! A connection to a client: HTTP spoken on it until either side has had enough.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::gateway::Peer;
use crate::store::fault_point::{self, FaultPoint};

use super::{HEAD_BYTES_MAX, HEADER_TIMEOUT, HEADERS_MAX};

/// A connection to a client.
pub(super) struct Connection<Answer> {
    pub(super) peer: Peer,
    pub(super) answer: Answer,
    pub(super) watcher: Watcher,
}

impl<Answer> Connection<Answer> {
    /// Answers requests until either side has had enough. Each is given these extensions.
    pub(super) async fn serve<Answered, Body>(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        extensions: Extensions,
    ) where
        Answer: Fn(Request<Incoming>, Peer) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { peer, answer, watcher } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().extend(extensions.clone());
            let answered = answer(request, peer);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        if let Err(error) = watcher.watch(http().serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
        fault_point::reach(FaultPoint::AnswerSent).await;
    }
}

fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}
