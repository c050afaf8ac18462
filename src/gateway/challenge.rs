//! The base endpoint, by which clients learn how to log in, and the challenge that teaches them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::upstream::challenge::Challenge;
use crate::upstream::{Caller, Failure, Refusal};

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::{Callers, ChallengeMode, Gateway};

/// How long the upstream's answer to a ping without credentials is repeated. Docker 1.6 pings two or three times a pull
/// and gives each ping ten seconds.
const PING_LIFE: Duration = Duration::from_secs(30);

/// The upstream's last answer to a ping without credentials.
#[derive(Default)]
pub(super) struct Pings(RwLock<Option<(Instant, Ping)>>);

#[derive(Clone)]
struct Ping {
    status: StatusCode,
    headers: HeaderMap,
}

impl Pings {
    fn recent(&self) -> Option<Ping> {
        let last = self.0.read().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(when, _)| when.elapsed() < PING_LIFE).map(|(_, ping)| ping.clone())
    }

    fn remember(&self, ping: &Ping) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), ping.clone()));
    }
}

impl Gateway {
    /// `/v2/`: the upstream's 200 or 401. Every other answer of the upstream is a fault, relayed like any. Where the
    /// gateway alone speaks to the upstream, the answer is its own. Where it speaks for those who show nothing, they hear
    /// the upstream's challenge all the same: clients that were never challenged never log in.
    pub(super) async fn answer_base(self: &Arc<Self>, exchange: &Exchange) -> Result<Response<Body>, Fault> {
        if self.options.callers == Callers::TheGateway {
            return Ok(welcome());
        }
        let is_anonymous = exchange.caller.authorization().is_none();
        let recent = if is_anonymous { self.pings.recent() } else { None };
        let ping = if let Some(ping) = recent {
            ping
        } else {
            let caller = if is_anonymous { &Caller::default() } else { &exchange.caller };
            let head = self.upstream.ping(caller).await?;
            let ping = Ping { status: head.status, headers: head.headers };
            if is_anonymous && matches!(ping.status, StatusCode::OK | StatusCode::UNAUTHORIZED) {
                self.pings.remember(&ping);
            }
            ping
        };
        if ping.status == StatusCode::OK {
            return Ok(welcome());
        }
        if !ping.status.is_client_error() && !ping.status.is_server_error() {
            return Err(Failure::Unexpected { status: ping.status }.into());
        }
        let refusal = Refusal { status: ping.status, headers: ping.headers, body: bytes::Bytes::new() };
        Err(Failure::Refused(Box::new(refusal)).into())
    }
}

/// The base endpoint of whoever knows that this client may come in.
pub(super) fn welcome() -> Response<Body> {
    const BODY: &str = "{}";
    let mut response = Response::new(Body::whole(BODY));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(BODY.len()));
    response
}

/// Points the bearer challenge of an answer at the gateway's own `/token`, if that is the operator's wish: for clients
/// that cannot reach the upstream's token service. One challenge a line, bearer first, as Docker 1.6 wants it.
///
/// Where the client's credentials are another upstream's there is no challenge at all: the client would take them to this
/// one's token service.
pub(super) fn rewrite(mode: ChallengeMode, exchange: &Exchange, response: &mut Response<Body>) {
    if exchange.has_others_credentials() {
        response.headers_mut().remove(WWW_AUTHENTICATE);
    }
    if mode == ChallengeMode::Pass || !response.headers().contains_key(WWW_AUTHENTICATE) {
        return;
    }
    let headers = response.headers_mut();
    let Ok(url) = exchange.external_url() else {
        // Better no challenge than one that sends the client where the operator does not want it.
        headers.remove(WWW_AUTHENTICATE);
        return;
    };
    let realm = format!("{url}/token");
    let mut challenges: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(Challenge::parse_line)
        .map(|challenge| if challenge.is_bearer() { challenge.with_realm(&realm) } else { challenge })
        .collect();
    challenges.sort_by_key(|challenge| !challenge.is_bearer());
    headers.remove(WWW_AUTHENTICATE);
    for challenge in challenges {
        if let Ok(line) = HeaderValue::try_from(challenge.to_string()) {
            headers.append(WWW_AUTHENTICATE, line);
        }
    }
}
