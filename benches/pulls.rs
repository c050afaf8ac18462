//! Pulls of mixed clients at a steady rate: `pulls PLAN` reads a plan (see `benches/service.py`), pulls by it, compares every
//! answer with what that client is to be given, and prints what it saw as one line of JSON.
//!
//! Open loop: a pull begins when its time has come, however late the one before it is, so a gateway that cannot keep up
//! is seen to fall behind.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

type Failed = Box<dyn Error + Send + Sync>;

/// How many pulls may be under way: a gateway that is this far behind has failed the figure anyhow.
const PULLS_MAX: usize = 4096;
/// How many wrong answers are told in words.
const TOLD_MAX: usize = 5;

#[derive(Deserialize)]
struct Plan {
    address: String,
    pulls_per_second: u64,
    seconds: u64,
    clients: Vec<Client>,
}

#[derive(Deserialize)]
struct Client {
    user_agent: String,
    accept: Vec<String>,
    requests: Vec<Expected>,
}

/// A request, and what its answer has to be.
#[derive(Deserialize)]
struct Expected {
    method: String,
    path: String,
    /// `None`: of a blob nobody reads it.
    content_type: Option<String>,
    digest: String,
    /// Whether the digest is that of the payload below the signatures, as it is for schema 1.
    signed: bool,
}

#[derive(Default)]
struct Seen {
    answers: AtomicUsize,
    wrong: AtomicUsize,
    late: AtomicUsize,
}

fn main() -> Result<(), Failed> {
    // `cargo bench` runs every bench without a plan.
    let Some(file) = std::env::args().skip(1).find(|argument| argument != "--bench") else { return Ok(()) };
    let plan: Plan = serde_json::from_slice(&std::fs::read(file)?)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(plan))
}

async fn run(plan: Plan) -> Result<(), Failed> {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(256).tcp_nodelay(true);
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls =
        rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let client = client.tls_backend_preconfigured(tls).build()?;
    let (plan, seen) = (Arc::new(plan), Arc::new(Seen::default()));
    let pulls = plan.pulls_per_second * plan.seconds;
    let (started, mut running, mut times) = (Instant::now(), JoinSet::new(), Vec::new());
    for number in 0..pulls {
        let due = started + Duration::from_nanos(number * 1_000_000_000 / plan.pulls_per_second);
        tokio::time::sleep_until(due.into()).await;
        while let Some(pulled) = running.try_join_next() {
            times.push(pulled?);
        }
        if running.len() >= PULLS_MAX {
            seen.late.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (client, plan, seen) = (client.clone(), Arc::clone(&plan), Arc::clone(&seen));
        running.spawn(async move {
            pull(&client, &plan, usize::try_from(number).unwrap_or_default(), &seen).await;
            due.elapsed()
        });
    }
    while let Some(pulled) = running.join_next().await {
        times.push(pulled?);
    }
    let took = started.elapsed();
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = ((times.len() as f64 - 1.0) * share) as usize;
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let said = serde_json::json!({
        "pulls": times.len(), "answers": seen.answers.load(Ordering::Relaxed), "wrong": seen.wrong.load(Ordering::Relaxed),
        "left_out": seen.late.load(Ordering::Relaxed), "seconds": took.as_secs_f64(),
        "median_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
    });
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}

/// All the requests of one client's pull, one after the other.
async fn pull(client: &reqwest::Client, plan: &Plan, number: usize, seen: &Seen) {
    let from = &plan.clients[number % plan.clients.len()];
    for expected in &from.requests {
        seen.answers.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = ask(client, &plan.address, from, expected).await {
            if seen.wrong.fetch_add(1, Ordering::Relaxed) < TOLD_MAX {
                let said = format!("{} {} for {}: {error}\n", expected.method, expected.path, from.user_agent);
                drop(std::io::stderr().write_all(said.as_bytes()));
            }
            return;
        }
    }
}

async fn ask(client: &reqwest::Client, address: &str, from: &Client, expected: &Expected) -> Result<(), Failed> {
    let mut request = reqwest::Request::new(
        Method::from_bytes(expected.method.as_bytes())?,
        format!("http://{address}{}", expected.path).parse()?,
    );
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_str(&from.user_agent)?);
    for accept in &from.accept {
        headers.append(ACCEPT, HeaderValue::from_str(accept)?);
    }
    let response = client.execute(request).await?;
    if response.status() != 200 {
        return Err(format!("status {}", response.status()).into());
    }
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(content_type) = &expected.content_type {
        compare("content type", header(CONTENT_TYPE.as_str()).as_deref(), content_type)?;
        compare("digest in the header", header("docker-content-digest").as_deref(), &expected.digest)?;
    }
    if expected.method == "HEAD" {
        return Ok(());
    }
    let body = response.bytes().await?;
    let hashed = if expected.signed { payload(&body)? } else { body.to_vec() };
    let digest = format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(hashed)));
    compare("digest of the body", Some(&digest), &expected.digest)
}

fn compare(what: &str, found: Option<&str>, expected: &str) -> Result<(), Failed> {
    if found == Some(expected) { Ok(()) } else { Err(format!("{what} {found:?} instead of {expected}").into()) }
}

/// What the signatures of a schema 1 document are over.
fn payload(signed: &[u8]) -> Result<Vec<u8>, Failed> {
    #[derive(Deserialize)]
    struct Signed {
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        protected: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Protected {
        format_length: usize,
        format_tail: String,
    }
    let document: Signed = serde_json::from_slice(signed)?;
    let signature = document.signatures.first().ok_or("no signature")?;
    let protected: Protected = serde_json::from_slice(&BASE64URL_NOPAD.decode(signature.protected.as_bytes())?)?;
    let mut payload = signed.get(..protected.format_length).ok_or("a format length beyond the document")?.to_vec();
    payload.extend(BASE64URL_NOPAD.decode(protected.format_tail.as_bytes())?);
    Ok(payload)
}
