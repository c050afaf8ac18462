//! Following the upstream's redirects for the gateway's own fetches.
//!
//! Docker Hub, GHCR and ECR answer config blobs with a redirect to another origin. The target is the upstream's word,
//! so nothing that belongs to the upstream travels with it.

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
use url::Url;

use super::transport::Transport;
use super::{Caller, Failure};

/// How many redirects one fetch follows.
const HOPS_MAX: usize = 5;

/// A request of the gateway's own.
pub(super) struct OwnRequest<'a> {
    /// GET or HEAD.
    pub(super) method: Method,
    /// Where it goes first.
    pub(super) url: Url,
    /// On whose behalf.
    pub(super) caller: &'a Caller,
    /// What it accepts; nothing in particular if absent.
    pub(super) accept: Option<HeaderValue>,
}

impl OwnRequest<'_> {
    /// The same request on behalf of another.
    pub(super) fn with_caller<'a>(&self, caller: &'a Caller) -> OwnRequest<'a> {
        OwnRequest { method: self.method.clone(), url: self.url.clone(), caller, accept: self.accept.clone() }
    }
}

/// Sends a request and follows the redirects of its answer. Credentials stay with the origin (scheme, host and port)
/// that they were given for, and a fetch that began under TLS never leaves it.
pub(super) async fn follow(transport: &Transport, request: OwnRequest<'_>) -> Result<Response<reqwest::Body>, Failure> {
    let origin = request.url.origin();
    let mut url = request.url;
    let mut is_at_home = true;
    for _ in 0..=HOPS_MAX {
        let mut hop = Transport::request(request.method.clone(), url.clone(), request.caller);
        if let Some(accept) = &request.accept {
            hop.headers_mut().insert(ACCEPT, accept.clone());
        }
        // What left once does not come back: the foreign origin chose this URL.
        is_at_home &= url.origin() == origin;
        if !is_at_home {
            hop.headers_mut().remove(AUTHORIZATION);
        }
        let answer = transport.send(hop).await?;
        if !is_redirect(&answer) {
            return if is_at_home { Ok(answer) } else { from_abroad(answer) };
        }
        url = next_hop(&url, &answer)?;
    }
    Err(Failure::RedirectRefused { reason: format!("more than {HOPS_MAX} redirects in a row") })
}

/// A refusal by another origin is no answer of the upstream: its status and its challenge say nothing to the caller.
fn from_abroad(answer: Response<reqwest::Body>) -> Result<Response<reqwest::Body>, Failure> {
    if answer.status() == StatusCode::OK {
        return Ok(answer);
    }
    Err(Failure::RedirectRefused { reason: format!("its target at another origin answered {}", answer.status()) })
}

fn is_redirect<Body>(answer: &Response<Body>) -> bool {
    matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn next_hop<Body>(url: &Url, answer: &Response<Body>) -> Result<Url, Failure> {
    let refuse = |reason: &str| Failure::RedirectRefused { reason: reason.to_owned() };
    let location = answer.headers().get(LOCATION).ok_or_else(|| refuse("it has no Location"))?;
    let location = location.to_str().map_err(|_| refuse("its Location is not a URL"))?;
    let next = url.join(location).map_err(|_| refuse("its Location is not a URL"))?;
    match (url.scheme(), next.scheme()) {
        ("https", "http") => Err(refuse("it leads from https to http")),
        (_, "http" | "https") => Ok(next),
        _ => Err(refuse("its Location is neither http nor https")),
    }
}
