//! HEAD requests, as many as there can be in so many seconds: `heads socket|client ADDRESS PATH CONNECTIONS SECONDS
//! USER-AGENT` prints their number and the seconds that they took.
//!
//! `socket` writes them to bare sockets: a load that costs little, because `wrk` cannot read the answer to a HEAD.
//! `client` sends them through the HTTP client that the gateway has, set up as the gateway's is, and nothing else: what
//! it uses beside what the whole gateway uses is the HTTP client's share.

use std::error::Error;
use std::io::Write as _;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Failed = Box<dyn Error + Send + Sync>;

const USAGE: &str = "expected socket|client ADDRESS PATH CONNECTIONS SECONDS USER-AGENT";
/// More than the head of any answer here.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone)]
struct Target {
    address: String,
    path: String,
    user_agent: String,
    until: Instant,
}

fn main() -> Result<(), Failed> {
    // `cargo bench` runs every bench without a target.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [mode, address, path, connections, seconds, user_agent] = arguments.as_slice() else {
        return if arguments.is_empty() { Ok(()) } else { Err(USAGE.into()) };
    };
    let (connections, seconds) = (connections.parse()?, Duration::from_secs(seconds.parse()?));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let started = Instant::now();
    let until = started + seconds;
    let target = Target { address: address.clone(), path: path.clone(), user_agent: user_agent.clone(), until };
    let count = match mode.as_str() {
        "socket" => runtime.block_on(sum(connections, || through_a_socket(target.clone())))?,
        "client" => {
            let client = client()?;
            runtime.block_on(sum(connections, || through_the_client(client.clone(), target.clone())))?
        }
        _ => return Err(USAGE.into()),
    };
    writeln!(std::io::stdout(), "{count} {}", started.elapsed().as_secs_f64())?;
    Ok(())
}

async fn sum<Sent>(connections: usize, send: impl Fn() -> Sent) -> Result<u64, Failed>
where
    Sent: Future<Output = Result<u64, Failed>> + Send + 'static,
{
    let mut senders: JoinSet<_> = (0..connections).map(|_| send()).collect();
    let mut count = 0;
    while let Some(sent) = senders.join_next().await {
        count += sent??;
    }
    Ok(count)
}

async fn through_a_socket(target: Target) -> Result<u64, Failed> {
    let mut socket = TcpStream::connect(&target.address).await?;
    socket.set_nodelay(true)?;
    let Target { address, path, user_agent, until } = target;
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {user_agent}\r\n\r\n");
    let mut answer = vec![0; HEAD_BYTES_MAX];
    let mut count = 0;
    while Instant::now() < until {
        socket.write_all(request.as_bytes()).await?;
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\n") {
            match socket.read(&mut answer[length..]).await? {
                0 => return Err("the connection was closed".into()),
                read => length += read,
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err(String::from_utf8_lossy(&answer[..length]).into());
        }
        count += 1;
    }
    Ok(count)
}

fn client() -> Result<reqwest::Client, Failed> {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let roots = rustls::RootCertStore::empty();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(64)
        .tcp_nodelay(true)
        .no_proxy();
    Ok(client.build()?)
}

async fn through_the_client(client: reqwest::Client, target: Target) -> Result<u64, Failed> {
    let Target { address, path, user_agent, until } = target;
    let url: url::Url = format!("http://{address}{path}").parse()?;
    let mut count = 0;
    while Instant::now() < until {
        let mut request = reqwest::Request::new(http::Method::HEAD, url.clone());
        let headers = request.headers_mut();
        headers.insert(http::header::USER_AGENT, user_agent.parse()?);
        headers.insert(
            http::header::ACCEPT,
            http::HeaderValue::from_static("application/vnd.oci.image.manifest.v1+json, */*"),
        );
        client.execute(request).await?.error_for_status()?;
        count += 1;
    }
    Ok(count)
}
