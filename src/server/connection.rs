//! A connection to a client: HTTP spoken on it until either side has had enough.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::gateway::Peer;
use crate::store::fault_point::{self, FaultPoint};

use super::http2;
use super::idle::{Requests, Watch};
use super::limits::{Limits, Place, Places};
use super::listener::Accepted;
use super::metrics::Overdue;
use super::opening::{self, Opening};
use super::stop::Stop;
use super::tls::Tls;

/// A connection to a client.
pub(super) struct Connection<Answer> {
    pub(super) peer: Peer,
    pub(super) answer: Answer,
    pub(super) places: Places,
    /// Taken until its end.
    pub(super) _place: Place,
}

/// The HTTP that is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// How requests share a connection.
    const fn requests(self) -> Requests {
        match self {
            Self::Http1 => Requests::InTurn,
            Self::Http2 => Requests::Together,
        }
    }
}

/// A connection on which requests may come.
struct Ready<Stream> {
    stream: Stream,
    protocol: Protocol,
    /// For each request on it.
    extensions: Extensions,
}

impl<Answer> Connection<Answer> {
    /// Waits until the client has begun and shaken hands, then answers. Who has not come that far when no connection is taken
    /// any more has no answer under way.
    pub(super) async fn begin<Answered, Body>(self, accepted: Accepted, tls: Option<Tls>, stop: &Stop)
    where
        Answer: Fn(Request<Incoming>, Peer) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Thousands may wait here: each stage has its room only while it lasts, and none keeps room for all the others.
        match (accepted, tls) {
            (Accepted::Unix(stream), _) => {
                let ready = Ready { stream, protocol: Protocol::Http1, extensions: Extensions::new() };
                Box::pin(self.serve(ready, stop)).await;
            }
            (Accepted::Network(stream), None) => Box::pin(self.begin_plain(stream, stop)).await,
            (Accepted::Network(stream), Some(tls)) => Box::pin(self.begin_secure(stream, tls, stop)).await,
        }
    }

    async fn begin_plain<Answered, Body>(self, stream: TcpStream, stop: &Stop)
    where
        Answer: Fn(Request<Incoming>, Peer) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let opening = Box::pin(plain(stream, self.places.limits().header_timeout));
        match stop.until_closing(opening).await {
            Some(Ok(Some(ready))) => Box::pin(self.serve(ready, stop)).await,
            Some(Err(error)) => not_begun(&self.places, self.peer, &error),
            Some(Ok(None)) | None => {}
        }
    }

    async fn begin_secure<Answered, Body>(self, stream: TcpStream, tls: Tls, stop: &Stop)
    where
        Answer: Fn(Request<Incoming>, Peer) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match stop.until_closing(Box::pin(secure(stream, tls))).await {
            Some(Ok(ready)) => Box::pin(self.serve(ready, stop)).await,
            Some(Err(error)) => not_begun(&self.places, self.peer, &error),
            None => {}
        }
    }

    /// Answers requests until either side has had enough.
    async fn serve<Stream, Answered, Body>(self, ready: Ready<Stream>, stop: &Stop)
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        Answer: Fn(Request<Incoming>, Peer) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { peer, answer, places, _place } = self;
        let Ready { stream, protocol, extensions } = ready;
        let watch = Watch::new(*places.limits(), protocol.requests());
        let (stream, requests) = (TokioIo::new(watch.over(stream)), watch.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().extend(extensions.clone());
            let (underway, answered) = (requests.begin(), answer(request, peer));
            // HTTP/1 keeps room for one of these on every connection, idle or not, and they are large.
            Box::pin(async move { Ok::<_, Infallible>(underway.answered(answered.await)) })
        });
        let ended = match protocol {
            Protocol::Http1 => {
                let served = http1(places.limits()).serve_connection(stream, service);
                Box::pin(watch.until_overdue(served, stop.closing())).await
            }
            Protocol::Http2 => {
                let served = http2::Settings::within(places.limits()).builder().serve_connection(stream, service);
                Box::pin(watch.until_overdue(served, stop.closing())).await
            }
        };
        match ended {
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

/// Notes a client that did not come as far as a request.
fn not_begun(places: &Places, peer: Peer, error: &io::Error) {
    if error.kind() == io::ErrorKind::TimedOut {
        places.metrics().cut(Overdue::Head);
    }
    tracing::debug!(%peer, %error, "a connection ended before a request");
}

/// A client of plain HTTP, when it has begun. One that begins TLS is told so.
async fn plain(stream: TcpStream, header_timeout: Duration) -> io::Result<Option<Ready<TcpStream>>> {
    let opening = tokio::time::timeout(header_timeout, Opening::of(&stream)).await??;
    if opening == Opening::Tls {
        opening::turn_away(stream, opening::PLAIN_HTTP_ONLY).await?;
        return Ok(None);
    }
    Ok(Some(Ready { stream, protocol: Protocol::Http1, extensions: Extensions::new() }))
}

/// A client of TLS, when hands are shaken. One that begins with a request is told so.
async fn secure(stream: TcpStream, tls: Tls) -> io::Result<Ready<impl AsyncRead + AsyncWrite + Unpin + Send + use<>>> {
    tokio::time::timeout(tls.handshake_timeout(), shaken(stream, &tls))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))?
}

async fn shaken(stream: TcpStream, tls: &Tls) -> io::Result<Ready<impl AsyncRead + AsyncWrite + Unpin + Send + use<>>> {
    if Opening::of(&stream).await? == Opening::Http {
        opening::turn_away(stream, opening::TLS_ONLY).await?;
        return Err(io::Error::other("the client sent plain HTTP"));
    }
    let (stream, extensions) = tls.accept(stream).await?;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(name) if name == super::tls::HTTP2 => Protocol::Http2,
        // A client that says nothing knows no other.
        _ => Protocol::Http1,
    };
    Ok(Ready { stream: Box::new(stream), protocol, extensions })
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The library's own time for a head runs while a connection is idle too, so it could be no shorter than that.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes);
    builder
}
