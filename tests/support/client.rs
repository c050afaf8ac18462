//! An HTTP/1.1 client that sends exactly the header lines it is given and keeps exactly what came back.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::patiently;

/// One request, line by line.
#[derive(Clone, Debug)]
pub struct Call {
    method: String,
    target: String,
    host: Option<String>,
    lines: Vec<(String, String)>,
    body: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// In the order and the spelling of the wire.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body came to the end that the head promised.
    pub is_whole: bool,
}

/// Who asks: a User-Agent and Accept lines.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub user_agent: Option<String>,
    pub accept: Vec<String>,
}

impl Client {
    pub fn new(user_agent: &str, accept: &[&str]) -> Self {
        Self {
            user_agent: (!user_agent.is_empty()).then(|| user_agent.to_owned()),
            accept: accept.iter().map(|&line| line.to_owned()).collect(),
        }
    }

    /// A Docker engine of this version without an Accept header, as engines before 1.10 are.
    pub fn docker_early(version: &str) -> Self {
        Self::new(
            &format!("docker/{version} go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0-4-amd64 os/linux arch/amd64"),
            &[],
        )
    }

    pub fn docker_1_6_2() -> Self {
        Self::docker_early("1.6.2")
    }

    pub fn docker_1_9_1() -> Self {
        Self::docker_early("1.9.1")
    }

    /// Reads schema 1, schema 2 and lists.
    pub fn docker_17() -> Self {
        Self::new(
            "docker/17.05.0-ce go/go1.7.5 git-commit/89658be kernel/4.9.0-amd64 os/linux arch/amd64 UpstreamClient(Docker-Client/17.05.0-ce \\(linux\\))",
            &[
                "application/json",
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.distribution.manifest.list.v2+json",
            ],
        )
    }

    /// Reads everything but zstd layers.
    pub fn docker_20_10() -> Self {
        let mut client = Self::docker_17();
        client.user_agent = Some("docker/20.10.24+dfsg1 go/go1.19.8 git-commit/5d6db84 kernel/6.1.0-amd64 os/linux arch/amd64 UpstreamClient(Docker-Client/20.10.24+dfsg1 \\(linux\\))".to_owned());
        client.accept.push("application/vnd.oci.image.index.v1+json".to_owned());
        client.accept.push("application/vnd.oci.image.manifest.v1+json".to_owned());
        client
    }

    /// Reads everything.
    pub fn containerd_1_6() -> Self {
        Self::new(
            "containerd/1.6.20~ds1",
            &[
                "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*",
            ],
        )
    }

    /// Asks for whatever is stored.
    pub fn curl() -> Self {
        Self::new("curl/8.5.0", &["*/*"])
    }

    /// A script that lists only OCI types.
    pub fn oci_only() -> Self {
        Self::new("", &["application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"])
    }

    /// A script that lists only this type.
    pub fn only(content_type: &str) -> Self {
        Self::new("", &[content_type])
    }

    /// The request of this client.
    pub fn call(&self, method: &str, target: &str) -> Call {
        let mut call = Call::new(method, target);
        if let Some(user_agent) = &self.user_agent {
            call = call.header("User-Agent", user_agent);
        }
        self.accept.iter().fold(call, |call, line| call.header("Accept", line))
    }

    pub fn get(&self, target: &str) -> Call {
        self.call("GET", target)
    }

    pub fn head(&self, target: &str) -> Call {
        self.call("HEAD", target)
    }
}

impl Call {
    /// A request with a `Host` line and nothing else.
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), host: None, lines: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Sends this body with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.method, self.target);
        for (name, value) in &self.lines {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }

    /// The same request of HTTP/2, to what is called so.
    pub fn as_http2(&self, authority: &str) -> http::Request<Full<Bytes>> {
        let target = format!("https://{authority}{}", self.target);
        let mut request = http::Request::builder().method(self.method.as_str()).uri(target);
        for (name, value) in &self.lines {
            request = request.header(name, value);
        }
        request.body(Full::from(self.body.clone())).unwrap()
    }

    /// Sends it and reads the whole answer.
    pub async fn send(&self, address: SocketAddr) -> Reply {
        let mut open = self.open(address).await;
        let complete = open.rest();
        patiently(&format!("the answer to {} {}", self.method, self.target), complete).await;
        open.reply(self.method == "HEAD")
    }

    /// Sends it and leaves the reading to the caller.
    pub async fn open(&self, address: SocketAddr) -> Open {
        self.open_over(TcpStream::connect(address).await.unwrap(), address).await
    }

    /// The same over a connection that is there already.
    pub async fn open_over(&self, stream: impl Connection + 'static, address: SocketAddr) -> Open {
        let mut stream: Box<dyn Connection> = Box::new(stream);
        // A server may answer and close before it has read everything.
        let _early_answer = stream.write_all(&self.bytes(address)).await;
        let _early_end = stream.flush().await;
        Open { stream, received: Vec::new(), is_clean: false }
    }
}

/// What carries requests and answers, within TLS or not.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<Stream: AsyncRead + AsyncWrite + Send + Unpin> Connection for Stream {}

/// An answer that is still coming. Dropping it is a client that goes away.
pub struct Open {
    stream: Box<dyn Connection>,
    received: Vec<u8>,
    is_clean: bool,
}

impl Open {
    /// Reads on until so many bytes of head and body have come, or the end.
    pub async fn at_least(&mut self, bytes: usize) {
        while self.received.len() < bytes && self.more().await {}
    }

    /// Reads on to the end.
    pub async fn rest(&mut self) {
        while self.more().await {}
    }

    async fn more(&mut self) -> bool {
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) => {
                self.is_clean = true;
                false
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// The bytes so far.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// What has come so far, taken for an answer.
    pub fn reply(&self, is_head: bool) -> Reply {
        let received = self.received.as_slice();
        let end = received.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer's head in {:?}", String::from_utf8_lossy(received)));
        let head = std::str::from_utf8(&received[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: received[end + 4..].to_vec(), is_whole: self.is_clean };
        if is_head || matches!(status, 204 | 304) {
            reply.is_whole &= reply.body.is_empty();
        } else if reply.header("transfer-encoding") == Some("chunked") {
            (reply.body, reply.is_whole) = dechunked(&reply.body);
        } else if let Some(length) = reply.header("content-length") {
            reply.is_whole = length.parse() == Ok(reply.body.len());
        }
        reply
    }
}

/// The chunks' content, and whether the last chunk came.
fn dechunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        let there = size.min(rest.len());
        body.extend_from_slice(&rest[..there]);
        rest = &rest[(size + 2).min(rest.len())..];
    }
    (body, false)
}

impl Reply {
    /// The only value of this header; a second one is a failure, because clients differ in which they read.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} more than once: {values:?}");
        values.first().copied()
    }

    /// All values of this header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let is_named = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.headers.iter().filter(is_named).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn digest(&self) -> &str {
        self.header("docker-content-digest").unwrap_or_default()
    }

    pub fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or_default()
    }

    /// Code and message of the first error, after a look at the form that no client chokes on: a status of 4xx or 5xx,
    /// `application/json`, at least one entry, no empty message.
    pub fn error(&self) -> (String, String) {
        assert!(self.status >= 400, "not an error: {} {}", self.status, self.text());
        assert!(self.content_type().starts_with("application/json"), "an error as {}", self.content_type());
        let error = &self.json()["errors"][0];
        let (code, message) =
            (error["code"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default());
        assert!(!code.is_empty() && !message.is_empty(), "{} says nothing: {}", self.status, self.text());
        (code.to_owned(), message.to_owned())
    }
}

/// Sends these bytes as they are and returns everything that comes back until the server closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _early_answer = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let _reset = patiently("the end of the connection", stream.read_to_end(&mut received)).await;
    received
}
