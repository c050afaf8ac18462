//! Following the upstream's redirects, for the gateway's own fetches and for blobs that stream through.
//!
//! Docker Hub, GHCR and ECR answer config blobs with a redirect to another origin. The target is the upstream's word,
//! so nothing that belongs to the upstream travels with it.

use http::header::{AUTHORIZATION, HeaderMap, LOCATION};
use http::{Method, Response, StatusCode};
use url::Url;

use crate::negotiate::Glob;

use super::metrics::RedirectAction;
use super::transport::Transport;
use super::{Caller, Failure, headers};

/// How many redirects one fetch follows.
const HOPS_MAX: usize = 5;

/// What becomes of the upstream's redirect of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Redirects {
    /// It goes to the client, which fetches the blob past the gateway.
    Pass,
    /// The gateway follows it, and the blob streams through.
    Follow,
    /// The gateway follows it for Docker before 1.13, which loses its headers on the way and may be too old for the TLS of
    /// a content network, and where the target's host is none of [`super::Options::redirect_hosts`]. Others get it.
    #[default]
    Auto,
}

impl Redirects {
    /// Whether the gateway follows a redirect to this host.
    pub(super) fn are_followed(&self, reach: Reach, host: &str, passed: &[Glob]) -> bool {
        match self {
            Self::Pass => false,
            Self::Follow => true,
            Self::Auto => reach == Reach::OfTheGateway || !passed.iter().any(|glob| glob.matches(host)),
        }
    }
}

/// How far a client gets by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Wherever a redirect leads.
    Anywhere,
    /// To the gateway, and no further.
    OfTheGateway,
}

/// A request whose redirects are followed.
pub(super) struct Journey<'a> {
    /// GET or HEAD.
    pub(super) method: Method,
    /// Where it goes first.
    pub(super) url: Url,
    /// On whose behalf.
    pub(super) caller: &'a Caller,
    /// What else it says, wherever it goes.
    pub(super) headers: HeaderMap,
}

impl Journey<'_> {
    /// The same on behalf of another.
    pub(super) fn with_caller<'a>(&self, caller: &'a Caller) -> Journey<'a> {
        Journey { method: self.method.clone(), url: self.url.clone(), caller, headers: self.headers.clone() }
    }
}

/// What is carried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freight {
    /// One that is collected.
    Document,
    /// One that streams, or a part of one.
    Blob,
}

/// Sends a request for a document and follows the redirects of its answer.
pub(super) async fn follow(transport: &Transport, journey: Journey<'_>) -> Result<Response<reqwest::Body>, Failure> {
    let answer = transport.send(journey.hop(journey.url.clone())).await?;
    if !is_redirect(answer.status()) {
        return Ok(answer);
    }
    let first = next_hop(&journey.url, answer.headers());
    // What is unread of it would hold up the next request where few may be in flight.
    drop(answer);
    match first {
        Ok(first) => Box::pin(travel(transport, &journey, first, Freight::Document)).await,
        Err(refusal) => {
            transport.traffic.note_redirect(RedirectAction::Refused);
            Err(refusal)
        }
    }
}

/// Follows redirects from the first one's target on. Credentials stay with the origin (scheme, host and port) that they
/// were given for, and a fetch that began under TLS never leaves it.
pub(super) async fn travel(
    transport: &Transport,
    journey: &Journey<'_>,
    first: Url,
    freight: Freight,
) -> Result<Response<reqwest::Body>, Failure> {
    let travelled = hop_by_hop(transport, journey, first, freight).await;
    let is_refused = matches!(travelled, Err(Failure::RedirectRefused { .. } | Failure::TooPrivate { .. }));
    transport.traffic.note_redirect(if is_refused { RedirectAction::Refused } else { RedirectAction::Followed });
    travelled
}

async fn hop_by_hop(
    transport: &Transport,
    journey: &Journey<'_>,
    first: Url,
    freight: Freight,
) -> Result<Response<reqwest::Body>, Failure> {
    let mut url = first;
    let mut is_at_home = true;
    for _ in 0..HOPS_MAX {
        // What left once does not come back: the foreign origin chose this URL.
        is_at_home &= url.origin() == journey.url.origin();
        let mut hop = journey.hop(url.clone());
        let answer = if !is_at_home {
            hop.headers_mut().remove(AUTHORIZATION);
            transport.send_abroad(hop).await?
        } else if freight == Freight::Blob {
            transport.send_streaming(hop).await?
        } else {
            transport.send(hop).await?
        };
        if !is_redirect(answer.status()) {
            return if is_at_home { Ok(answer) } else { from_abroad(answer, freight) };
        }
        url = next_hop(&url, answer.headers())?;
    }
    Err(Failure::RedirectRefused { reason: format!("more than {HOPS_MAX} redirects in a row") })
}

impl Journey<'_> {
    fn hop(&self, url: Url) -> reqwest::Request {
        let mut hop = Transport::request(self.method.clone(), url, self.caller);
        hop.headers_mut().extend(self.headers.clone());
        hop
    }
}

/// A refusal by another origin is no answer of the upstream: its status and its challenge say nothing to the caller. Of an
/// answer, the body and what describes it.
fn from_abroad(mut answer: Response<reqwest::Body>, freight: Freight) -> Result<Response<reqwest::Body>, Failure> {
    let is_answer = match answer.status() {
        StatusCode::OK => true,
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE => {
            freight == Freight::Blob
        }
        _ => false,
    };
    if !is_answer {
        let reason = format!("its target at another origin answered {}", answer.status());
        return Err(Failure::RedirectRefused { reason });
    }
    *answer.headers_mut() = headers::of_content(answer.headers());
    Ok(answer)
}

/// The status is that of a redirect.
pub fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer to a request for `url` redirects to, if that is a place that anybody may be led to.
pub(super) fn next_hop(url: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let refuse = |reason: &str| Failure::RedirectRefused { reason: reason.to_owned() };
    let location = headers.get(LOCATION).ok_or_else(|| refuse("it has no Location"))?;
    let location = location.to_str().map_err(|_| refuse("its Location is not a URL"))?;
    let next = url.join(location).map_err(|_| refuse("its Location is not a URL"))?;
    match (url.scheme(), next.scheme()) {
        ("https", "http") => Err(refuse("it leads from https to http")),
        (_, "http" | "https") => Ok(next),
        _ => Err(refuse("its Location is neither http nor https")),
    }
}
