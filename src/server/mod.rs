//! Floor 6: accepting connections for the gateway.
//!
//! Who binds and who stops is the caller's business: [`serve`] takes a listener and a future that says when to stop.

pub mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::gateway::Service;
use crate::store::fault_point::{self, FaultPoint};

use tls::Tls;

/// How long the head of a request may take to arrive.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many headers a request may have.
pub const HEADERS_MAX: usize = 128;
/// How many bytes the head of a request may have.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long answers under way may take to finish after the stop was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system refused a connection, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients connect. One that is made of a [`TcpListener`] speaks plain HTTP.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
}

impl Listener {
    /// One that speaks TLS, if there is any.
    pub const fn new(socket: TcpListener, tls: Option<Tls>) -> Self {
        Self { socket, tls }
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self::new(socket, None)
    }
}

/// Answers clients until `shutdown` completes, then lets answers under way finish, for at most [`DRAIN_TIMEOUT`].
pub async fn serve(listener: impl Into<Listener>, service: Arc<Service>, shutdown: impl Future<Output = ()>) {
    serve_with(listener, shutdown, move |request, peer| {
        let service = Arc::clone(&service);
        async move { service.answer(request, peer).await }
    })
    .await;
}

/// The same for any answer: the admin listener is served alike.
pub async fn serve_with<Answer, Answered, Body>(
    listener: impl Into<Listener>,
    shutdown: impl Future<Output = ()>,
    answer: Answer,
) where
    Answer: Fn(Request<Incoming>, SocketAddr) -> Answered + Clone + Send + 'static,
    Answered: Future<Output = Response<Body>> + Send + 'static,
    Body: http_body::Body<Data = Bytes> + Send + 'static,
    Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Listener { socket, tls } = listener.into();
    let (connections, handshakes) = (GracefulShutdown::new(), CancellationToken::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = Connection { peer, answer: answer.clone(), watcher: connections.watcher() };
        let (stream, handshakes) = (prepared(stream), handshakes.clone());
        let Some(tls) = tls.clone() else {
            tokio::spawn(connection.serve(stream, Extensions::new()));
            continue;
        };
        tokio::spawn(async move {
            // Whoever has not even shaken hands when the stop is asked for has no answer under way.
            match handshakes.run_until_cancelled(tls.accept(stream)).await {
                Some(Ok((stream, extensions))) => connection.serve(stream, extensions).await,
                Some(Err(error)) => tracing::debug!(%peer, %error, "a TLS connection did not come about"),
                None => {}
            }
        });
    }
    drop(socket);
    handshakes.cancel();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
        tracing::warn!(seconds = DRAIN_TIMEOUT.as_secs(), "answers that were under way did not finish in time");
    }
}

/// A connection to a client.
struct Connection<Answer> {
    peer: SocketAddr,
    answer: Answer,
    watcher: Watcher,
}

impl<Answer> Connection<Answer> {
    /// Answers requests until either side has had enough. Each is given these extensions.
    async fn serve<Answered, Body>(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        extensions: Extensions,
    ) where
        Answer: Fn(Request<Incoming>, SocketAddr) -> Answered + Send + 'static,
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

fn prepared(stream: TcpStream) -> TcpStream {
    // An answer's head and the end of its body are small writes that should not wait for each other. A socket that
    // refuses the option is only slower.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    stream
}
