//! One request, and what the floors below need to know of it.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderMap, HeaderName, USER_AGENT};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::negotiate::Client;
use crate::upstream::route::Prefix;
use crate::upstream::{Caller, RequestBody};

use super::freshness::{mark_stale, wants_revalidation};
use super::record::Record;
use super::{Callers, Credentials, Fault, Options, Routed};

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
    pub(super) transport: Transport,
}

/// How a request came to the gateway. Whoever accepts the connection puts it among the extensions of each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Readable on the way.
    #[default]
    Plain,
    /// Within TLS.
    Tls,
}

/// One request and what is noted about it.
pub(super) struct Exchange {
    pub(super) head: Parts,
    /// The body of a request that writes.
    pub(super) body: Option<RequestBody>,
    /// Who asks the upstream: the gateway where it holds the credentials, whatever the client sent.
    pub(super) caller: Caller,
    pub(super) client: Client,
    pub(super) record: Record,
    neighbour: Neighbour,
    prefix: Prefix,
    /// Whose the client's credentials are.
    credentials: Credentials,
    /// The path before it was made one of `library/`.
    named_path: Option<String>,
    external_url: Option<String>,
    /// How old what the answer rests on is, where the upstream could not be asked.
    stale: Mutex<Option<Duration>>,
}

impl Exchange {
    pub(super) fn new(
        head: Parts,
        body: Option<RequestBody>,
        neighbour: Neighbour,
        routed: Routed,
        options: &Options,
    ) -> Self {
        let accept = head.headers.get_all(ACCEPT).iter().map(http::HeaderValue::as_bytes);
        let user_agent = head.headers.get(USER_AGENT).map(http::HeaderValue::as_bytes);
        let client =
            Client::from_headers(accept, user_agent, client_address(&head.headers, neighbour), &options.policy);
        let external_url = options.external_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        let own = match routed.credentials {
            Credentials::Upstreams => Caller::from_headers(&head.headers),
            Credentials::Others => Caller::default(),
        };
        let caller = match options.callers {
            // What goes upstream for everybody alike holds nothing of one client's.
            Callers::TheGateway => Caller::gateway(),
            Callers::ThemselvesOrTheGateway if own.authorization().is_none() => Caller::gateway(),
            Callers::Themselves | Callers::ThemselvesOrTheGateway => own,
        };
        let Routed { prefix, credentials, admission } = routed;
        let (record, named_path, stale) = (Record::of(admission), None, Mutex::default());
        Self { head, body, caller, client, record, neighbour, prefix, credentials, named_path, external_url, stale }
    }

    /// Asks for another path from here on.
    pub(super) fn ask_for(&mut self, path: &str) -> Result<(), Fault> {
        let text = self.head.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let asked: PathAndQuery = text.parse().map_err(|_| Fault::NotFound)?;
        self.named_path.get_or_insert_with(|| self.head.uri.path().to_owned());
        self.head.uri = Uri::from(asked);
        Ok(())
    }

    /// The path that the client asked for.
    pub(super) fn asked_path(&self) -> String {
        self.prefix.put_back(self.named_path.as_deref().unwrap_or(self.head.uri.path()))
    }

    /// A path of the upstream as the client has to ask for it, with the `ns` that it named the upstream by.
    pub(super) fn path_for_client(&self, path: &str) -> String {
        let path = self.prefix.put_back(path);
        let query = self.head.uri.query().unwrap_or_default();
        let Some(namespace) = query.split('&').find(|pair| pair.starts_with("ns=")) else { return path };
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}{namespace}")
    }

    /// What the client would log in with belongs to another upstream.
    pub(super) fn has_others_credentials(&self) -> bool {
        self.credentials == Credentials::Others
    }

    /// The client wants to hear what the upstream says now.
    pub(super) fn wants_revalidation(&self) -> bool {
        wants_revalidation(&self.head.headers)
    }

    /// The answer rests on something so old.
    pub(super) fn note_stale(&self, age: Duration) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        *stale = Some(stale.map_or(age, |known| known.max(age)));
    }

    /// Says on an answer, and in the log, how old what it rests on is, if the upstream was not asked.
    pub(super) fn mark(&mut self, answer: &mut HeaderMap) {
        if let Some(age) = *self.stale.get_mut().unwrap_or_else(PoisonError::into_inner) {
            mark_stale(answer, age);
            self.record.outcome.cache = Some("stale");
        }
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
    /// trusted proxy names, or else the connection's own, with the client's own Host. Docker and go-containerregistry refuse a realm at an address
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
        let transport = match named.map(|value| value.as_bytes().eq_ignore_ascii_case(b"https")) {
            Some(true) => Transport::Tls,
            Some(false) => Transport::Plain,
            None => self.neighbour.transport,
        };
        match transport {
            Transport::Tls => "https",
            Transport::Plain => "http",
        }
    }

    fn authority(&self) -> Result<Authority, Fault> {
        let malformed = || Fault::BadRequest("the Host header is missing or not `host` or `host:port`".to_owned());
        let host = self.head.headers.get(HOST).ok_or_else(malformed)?.to_str().map_err(|_| malformed())?;
        let authority: Authority = host.parse().map_err(|_| malformed())?;
        if authority.as_str().contains('@') { Err(malformed()) } else { Ok(authority) }
    }
}

/// Where a client is: the neighbour, or the last address that a trusted neighbour names.
pub(super) fn client_address(headers: &HeaderMap, neighbour: Neighbour) -> IpAddr {
    let forwarded = || {
        let line = headers.get_all(X_FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
        line.rsplit(',').next()?.trim().parse().ok()
    };
    if neighbour.trusted { forwarded().unwrap_or(neighbour.address) } else { neighbour.address }
}
