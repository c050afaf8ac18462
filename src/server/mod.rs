//! Floor 6: accepting connections for the gateway.
//!
//! Who binds and who stops is the caller's business: [`serve`] takes a listener and a future that says when to stop,
//! [`serve_with`] one whose end is taken in steps.

mod connection;
pub mod http2;
mod idle;
pub mod limits;
mod listener;
mod metrics;
mod opening;
mod stop;
pub mod tls;
mod unix_socket;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use crate::gateway::{Peer, Service};

use connection::Connection;
pub use listener::{Listener, Socket};
pub use stop::Stop;
pub use unix_socket::{CannotBind, UnixSocket};

pub use metrics::Metrics;

/// How long answers under way may take to finish after the stop was asked for, where nothing else is said.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system refused a connection, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers clients until `shutdown` completes, then lets answers under way finish, for at most [`DRAIN_TIMEOUT`].
pub async fn serve(listener: impl Into<Listener>, service: Arc<Service>, shutdown: impl Future<Output = ()>) {
    let stop = Stop::default();
    let mut serving = pin!(serve_with(listener, stop.clone(), move |request, peer| {
        let service = Arc::clone(&service);
        async move { service.answer(request, peer).await }
    }));
    tokio::select! {
        _ = &mut serving => return,
        () = shutdown => stop.close(),
    }
    if tokio::time::timeout(DRAIN_TIMEOUT, &mut serving).await.is_err() {
        stop.cut();
        serving.await;
    }
}

/// The same for any answer and an end in steps: the admin listener is served alike. Returns when no connection is left, and
/// says how many had to be cut.
pub async fn serve_with<Answer, Answered, Body>(listener: impl Into<Listener>, stop: Stop, answer: Answer) -> usize
where
    Answer: Fn(Request<Incoming>, Peer) -> Answered + Clone + Send + 'static,
    Answered: Future<Output = Response<Body>> + Send + 'static,
    Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Listener { socket, tls, places } = listener.into();
    let ending = stop.clone();
    // Not boxed by itself, large as it is: that cost 4 kB for each idle connection.
    let answer =
        move |request: Request<Incoming>, peer| with_farewell(ending.clone(), request.version(), answer(request, peer));
    let (connections, cut) = (TaskTracker::new(), Arc::<AtomicUsize>::default());
    loop {
        let (accepted, peer) = tokio::select! {
            () = stop.closing() => break,
            accepted = socket.accept(places.limits()) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let place = tokio::select! {
            () = stop.closing() => break,
            place = places.take(peer.network()) => place,
        };
        let Some(place) = place else { continue };
        let connection = Connection { peer, answer: answer.clone(), places: places.clone(), _place: place };
        let (tls, stop, cut) = (tls.clone(), stop.clone(), Arc::clone(&cut));
        connections.spawn(async move {
            if stop.until_cutting(connection.begin(accepted, tls, &stop)).await.is_none() {
                cut.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    drop(socket);
    connections.close();
    connections.wait().await;
    cut.load(Ordering::Relaxed)
}

/// The same answer, which from a certain step on tells a client of HTTP/1 that the connection ends with it. Those of HTTP/2
/// are told by a frame of their own.
async fn with_farewell<Body>(
    stop: Stop,
    version: Version,
    answered: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let mut response = answered.await;
    if stop.is_leaving() && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
