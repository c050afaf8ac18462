//! A client of HTTP/2 that sends exactly the headers it is given and keeps exactly what came back.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

use super::client::{Call, Connection, Reply};
use super::patiently;

/// A connection on which HTTP/2 is spoken. Ends when dropped.
pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    running: JoinHandle<hyper::Result<()>>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Http2 {
    pub async fn over(stream: impl Connection + 'static) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = patiently("the start of HTTP/2", handshake).await.unwrap();
        Self { sender, running: tokio::spawn(connection) }
    }

    /// Sends a request as it is and waits for the head of the answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let mut sender = self.sender.clone();
        patiently("room for a request", sender.ready()).await?;
        patiently("the head of an answer", sender.send_request(request)).await
    }

    /// Sends the call to what is called so, and reads the whole answer.
    pub async fn ask(&self, authority: &str, call: &Call) -> Reply {
        read(self.send(call.as_http2(authority)).await.unwrap()).await
    }

    /// Waits for the end of the connection.
    pub async fn ended(mut self) -> hyper::Result<()> {
        patiently("the end of the connection", &mut self.running).await.unwrap()
    }
}

/// The whole answer; it is not whole where its body was broken off.
pub async fn read(response: Response<Incoming>) -> Reply {
    let (head, mut body) = response.into_parts();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut reply = Reply { status: head.status.as_u16(), headers, body: Vec::new(), is_whole: true };
    while let Some(frame) = patiently("the rest of the answer", body.frame()).await {
        let Ok(frame) = frame else {
            reply.is_whole = false;
            break;
        };
        reply.body.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    reply
}
