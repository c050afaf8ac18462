//! A server in this process: real HTTP over a loopback socket, contents in memory, every request on record. What it
//! answers is its contents' business: a registry, or the bucket of a store.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::fault::{Act, Answer, Delivery, Rule, When, glob};

/// What answers when no fault is scripted.
pub trait Honest: Send + 'static {
    fn answer(&mut self, request: &Recorded) -> Answer;
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    /// The path as written, without the query.
    pub path: String,
    /// The query as written, without its question mark; empty if there is none.
    pub query: String,
    /// In the order of the wire, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Recorded {
    /// The first value of this header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `METHOD path`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

struct Shared<Contents> {
    contents: Mutex<Contents>,
    rules: Mutex<Vec<Rule>>,
    record: Mutex<Vec<Recorded>>,
    recorded: watch::Sender<usize>,
    connections: watch::Sender<usize>,
}

/// Anything that answers on a socket: a registry, a token server, a bucket. Ends when dropped.
pub struct Server<Contents> {
    shared: Arc<Shared<Contents>>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
    /// Keeps the port while nobody listens on it.
    reserved: Option<TcpSocket>,
}

impl<Contents> Drop for Server<Contents> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl<Contents: Honest> Server<Contents> {
    /// A server on a free port, its contents made for that address.
    pub async fn start_with(contents: impl FnOnce(SocketAddr) -> Contents) -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), contents)
    }

    /// A server on this listener.
    pub fn on(listener: TcpListener, contents: impl FnOnce(SocketAddr) -> Contents) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            contents: Mutex::new(contents(address)),
            rules: Mutex::default(),
            record: Mutex::default(),
            recorded: watch::Sender::new(0),
            connections: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { shared, address, accepting, reserved: None }
    }

    /// Ends every connection and refuses new ones.
    pub async fn go_down(&mut self) {
        self.accepting.abort();
        let _aborted = (&mut self.accepting).await;
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(self.address).unwrap();
        self.reserved = Some(reserved);
    }

    /// Listens again after [`Self::go_down`].
    pub fn come_back(&mut self) {
        let listener = self.reserved.take().expect("it is down").listen(1024).unwrap();
        self.accepting = tokio::spawn(accept(listener, self.shared.clone()));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it holds and how it behaves; kept locked only as long as the statement.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.shared.contents.lock().unwrap()
    }

    /// Scripts a fault for requests of this method (`*` for any) whose path matches (`*` for anything).
    pub fn when(&self, method: &str, pattern: &str) -> When<'_> {
        When::new(&self.shared.rules, method, pattern)
    }

    /// Ends all scripted faults.
    pub fn behave(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.record.lock().unwrap().clone()
    }

    /// The requests so far of this method (`*` for any) whose path matches.
    pub fn requests_to(&self, method: &str, pattern: &str) -> Vec<Recorded> {
        let is_wanted =
            |request: &Recorded| (method == "*" || request.method == method) && glob(pattern, &request.path);
        self.requests().into_iter().filter(is_wanted).collect()
    }

    /// `METHOD path` of every request so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Recorded::line).collect()
    }

    /// Forgets the record.
    pub fn forget(&self) {
        self.shared.record.lock().unwrap().clear();
    }

    /// How many connections were ever opened to it.
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until `count` requests of this kind have arrived.
    pub async fn arrived(&self, count: usize, method: &str, pattern: &str) {
        let mut recorded = self.shared.recorded.subscribe();
        let enough = recorded.wait_for(|_| self.requests_to(method, pattern).len() >= count);
        super::patiently(&format!("{count} times {method} {pattern}"), enough).await.unwrap();
    }
}

async fn accept<Contents: Honest>(listener: TcpListener, shared: Arc<Shared<Contents>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.send_modify(|connections| *connections += 1);
        let shared = shared.clone();
        connections.spawn(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let socket = TokioIo::new(Socket { stream, reset: reset.clone() });
            let service = service_fn(|request| respond(shared.clone(), reset.clone(), request));
            // A client that went away and a reset of our own are what tests are about, not failures.
            let _ended = hyper::server::conn::http1::Builder::new().serve_connection(socket, service).await;
        });
    }
}

/// How hyper is told to end the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("reset as scripted")]
struct Reset;

async fn respond<Contents: Honest>(
    shared: Arc<Shared<Contents>>,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Reset>>, Reset> {
    let request = record(&shared, request).await;
    let acts: Vec<Act> = shared.rules.lock().unwrap().iter_mut().filter_map(|rule| rule.claim(&request)).collect();
    for act in &acts {
        match act {
            Act::Hold(gate) => gate.pass().await,
            Act::Reset => {
                reset.store(true, Ordering::SeqCst);
                return Err(Reset);
            }
            Act::Alter(_) => {}
        }
    }
    let mut answer = shared.contents.lock().unwrap().answer(&request);
    for act in &acts {
        if let Act::Alter(change) = act {
            change(&request, &mut answer);
        }
    }
    let mut response = Response::new(StreamBody::new(frames(answer.body, answer.delivery)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

async fn record<Contents>(shared: &Shared<Contents>, request: Request<Incoming>) -> Recorded {
    let (head, body) = request.into_parts();
    // What was sent before a caller broke off is not a request that anyone asserts about.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let request = Recorded {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body,
    };
    shared.record.lock().unwrap().push(request.clone());
    shared.recorded.send_modify(|recorded| *recorded += 1);
    request
}

/// The body in pieces, as its delivery says.
fn frames(body: Bytes, delivery: Delivery) -> impl Stream<Item = Result<Frame<Bytes>, Reset>> {
    const PIECE: usize = 64 * 1024;
    stream::unfold((body, delivery, 0), |(mut rest, mut delivery, sent)| async move {
        let mut limit = PIECE;
        match &delivery {
            Delivery::Cut { after } if *after <= sent => {
                // Lets hyper flush what it has, which it would throw away on an error.
                tokio::task::yield_now().await;
                return Some((Err(Reset), (Bytes::new(), Delivery::Whole, sent)));
            }
            Delivery::Held { after, gate } if *after <= sent => {
                gate.pass().await;
                delivery = Delivery::Whole;
            }
            Delivery::Cut { after } | Delivery::Held { after, .. } => limit = limit.min(after - sent),
            Delivery::Whole => {}
        }
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(limit.min(rest.len()));
        let sent = sent + piece.len();
        Some((Ok(Frame::data(piece)), (rest, delivery, sent)))
    })
}

/// A stream whose end is a reset when the script says so.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            let _already_gone = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
