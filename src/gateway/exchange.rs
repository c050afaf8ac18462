//! One request, and what the floors below need to know of it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderName, USER_AGENT};
use http::request::Parts;
use http::uri::Authority;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::negotiate::Client;
use crate::upstream::{Caller, RequestBody};

use super::record::Record;
use super::{Fault, Options};

/// How long a client may take to send a body that the gateway reads whole: a manifest or a token request.
const CLIENT_BODY_TIMEOUT: Duration = Duration::from_secs(60);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub(super) address: IpAddr,
    /// A proxy of the operator's, whose `X-Forwarded-*` headers are believed.
    pub(super) trusted: bool,
}

/// One request and what is noted about it.
pub(super) struct Exchange {
    pub(super) head: Parts,
    /// The body of a request that writes.
    pub(super) body: Option<RequestBody>,
    pub(super) caller: Caller,
    pub(super) client: Client,
    pub(super) record: Record,
    neighbour: Neighbour,
    external_url: Option<String>,
}

impl Exchange {
    pub(super) fn new(head: Parts, body: Option<RequestBody>, neighbour: Neighbour, options: &Options) -> Self {
        let accept = head.headers.get_all(ACCEPT).iter().map(http::HeaderValue::as_bytes);
        let user_agent = head.headers.get(USER_AGENT).map(http::HeaderValue::as_bytes);
        let client =
            Client::from_headers(accept, user_agent, client_address(&head.headers, neighbour), &options.policy);
        let external_url = options.external_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        let caller = Caller::from_headers(&head.headers);
        Self { caller, client, body, record: Record::default(), neighbour, external_url, head }
    }

    /// Takes the client's credentials out of the request: they were the door's and go nowhere else.
    pub(super) fn take_authorization(&mut self) {
        self.head.headers.remove(AUTHORIZATION);
        self.caller = Caller::default();
    }

    /// All of the body, if it has at most `bytes_max` bytes and arrives in time.
    pub(super) async fn whole_body(&mut self, bytes_max: usize) -> Result<Bytes, Fault> {
        let body = match self.body.take() {
            None => return Ok(Bytes::new()),
            Some(RequestBody::Whole(bytes)) => return Ok(bytes),
            Some(RequestBody::Streamed(body)) => body,
        };
        match tokio::time::timeout(CLIENT_BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Fault::BodyTooLarge(bytes_max)),
            Ok(Err(_)) => Err(Fault::BadRequest("the body of the request broke off".to_owned())),
            Err(_) => Err(Fault::BodyTooSlow(CLIENT_BODY_TIMEOUT.as_secs())),
        }
    }

    /// Where the client is: the neighbour, or the last address that a trusted neighbour names.
    pub(super) fn client_address(&self) -> IpAddr {
        client_address(&self.head.headers, self.neighbour)
    }

    /// The gateway's URL as this client knows it, without a final slash: what the operator fixed, or the scheme that a
    /// trusted proxy names with the client's own Host. Docker and go-containerregistry refuse a realm at an address
    /// that is not the one they asked.
    pub(super) fn external_url(&self) -> Result<String, Fault> {
        if let Some(url) = &self.external_url {
            return Ok(url.clone());
        }
        let authority = self.authority()?;
        Ok(format!("{}://{authority}", self.scheme()))
    }

    fn scheme(&self) -> &'static str {
        let named = self.head.headers.get(X_FORWARDED_PROTO).filter(|_| self.neighbour.trusted);
        match named.map(|value| value.as_bytes().eq_ignore_ascii_case(b"https")) {
            Some(true) => "https",
            _ => "http",
        }
    }

    fn authority(&self) -> Result<Authority, Fault> {
        let malformed = || Fault::BadRequest("the Host header is missing or not `host` or `host:port`".to_owned());
        let host = match self.head.headers.get(HOST) {
            Some(value) => value.to_str().map_err(|_| malformed())?,
            None => self.head.uri.authority().map(Authority::as_str).ok_or_else(malformed)?,
        };
        let authority: Authority = host.parse().map_err(|_| malformed())?;
        if authority.as_str().contains('@') { Err(malformed()) } else { Ok(authority) }
    }

    /// A request that names one host in its Host header and another in its target could be routed by either.
    pub(super) fn check_host(&self) -> Result<(), Fault> {
        let hosts: Vec<_> = self.head.headers.get_all(HOST).iter().collect();
        let agrees = match (hosts.as_slice(), self.head.uri.authority()) {
            ([], _) | ([_], None) => true,
            ([host], Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
            _ => false,
        };
        if agrees { Ok(()) } else { Err(Fault::BadRequest("the request names two hosts".to_owned())) }
    }
}

fn client_address(headers: &HeaderMap, neighbour: Neighbour) -> IpAddr {
    let forwarded = || {
        let line = headers.get_all(X_FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
        line.rsplit(',').next()?.trim().parse().ok()
    };
    if neighbour.trusted { forwarded().unwrap_or(neighbour.address) } else { neighbour.address }
}
