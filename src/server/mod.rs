//! Floor 6: accepting connections for the gateway.
//!
//! Who binds and who stops is the caller's business: [`serve`] takes a listener and a future that says when to stop.

mod connection;
mod idle;
pub mod limits;
mod listener;
mod metrics;
pub mod tls;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::gateway::Service;

use connection::Connection;
pub use listener::Listener;
pub use metrics::Metrics;

/// How long answers under way may take to finish after the stop was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system refused a connection, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Listener { socket, tls, places } = listener.into();
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
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = places.take(Some(peer.ip())) => place,
        };
        let Some(place) = place else { continue };
        let connection = Connection {
            peer,
            answer: answer.clone(),
            watcher: connections.watcher(),
            places: places.clone(),
            _place: place,
        };
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

fn prepared(stream: TcpStream) -> TcpStream {
    // An answer's head and the end of its body are small writes that should not wait for each other. A socket that
    // refuses the option is only slower.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    stream
}
