//! A connection to a client: HTTP spoken on it until either side has had enough.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::gateway::Peer;
use crate::store::fault_point::{self, FaultPoint};

use super::listener::Accepted;
use super::opening::{self, Opening};
use super::stop::Stop;
use super::tls::Tls;
use super::{HEAD_BYTES_MAX, HEADER_TIMEOUT, HEADERS_MAX, http2};

/// A connection to a client.
pub(super) struct Connection<Answer> {
    pub(super) peer: Peer,
    pub(super) answer: Answer,
    pub(super) watcher: Watcher,
}

/// The HTTP that is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
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
        Body: http_body::Body<Data = Bytes> + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let peer = self.peer;
        match (accepted, tls) {
            (Accepted::Unix(stream), _) => {
                self.serve(Ready { stream, protocol: Protocol::Http1, extensions: Extensions::new() }).await;
            }
            (Accepted::Network(stream), None) => match stop.until_closing(plain(stream)).await {
                Some(Ok(Some(ready))) => self.serve(ready).await,
                Some(Err(error)) => tracing::debug!(%peer, %error, "a connection ended before a request"),
                Some(Ok(None)) | None => {}
            },
            (Accepted::Network(stream), Some(tls)) => match stop.until_closing(secure(stream, &tls)).await {
                Some(Ok(ready)) => self.serve(ready).await,
                Some(Err(error)) => tracing::debug!(%peer, %error, "a TLS connection did not come about"),
                None => {}
            },
        }
    }

    /// Answers requests until either side has had enough.
    async fn serve<Stream, Answered, Body>(self, ready: Ready<Stream>)
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        Answer: Fn(Request<Incoming>, Peer) -> Answered + Send + 'static,
        Answered: Future<Output = Response<Body>> + Send + 'static,
        Body: http_body::Body<Data = Bytes> + Send + 'static,
        Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { peer, answer, watcher } = self;
        let Ready { stream, protocol, extensions } = ready;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().extend(extensions.clone());
            let answered = answer(request, peer);
            // HTTP/1 keeps room for one of these on every connection, idle or not, and they are large.
            Box::pin(async move { Ok::<_, Infallible>(answered.await) })
        });
        let stream = TokioIo::new(stream);
        let ended = match protocol {
            Protocol::Http1 => watcher.watch(http1().serve_connection(stream, service)).await,
            Protocol::Http2 => {
                let builder = http2::Settings::DEFAULT.builder();
                watcher.watch(builder.serve_connection(stream, service)).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
        fault_point::reach(FaultPoint::AnswerSent).await;
    }
}

/// A client of plain HTTP, when it has begun. One that begins TLS is told so.
async fn plain(stream: TcpStream) -> io::Result<Option<Ready<TcpStream>>> {
    let opening = tokio::time::timeout(HEADER_TIMEOUT, Opening::of(&stream)).await??;
    if opening == Opening::Tls {
        opening::turn_away(stream, opening::PLAIN_HTTP_ONLY).await?;
        return Ok(None);
    }
    Ok(Some(Ready { stream, protocol: Protocol::Http1, extensions: Extensions::new() }))
}

/// A client of TLS, when hands are shaken. One that begins with a request is told so.
async fn secure(stream: TcpStream, tls: &Tls) -> io::Result<Ready<impl AsyncRead + AsyncWrite + Unpin + Send + use<>>> {
    tokio::time::timeout(tls.handshake_timeout(), shaken(stream, tls))
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
    Ok(Ready { stream, protocol, extensions })
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}
