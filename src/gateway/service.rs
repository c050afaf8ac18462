//! Every upstream behind one address: which one a request is for, and changing them while requests are under way.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};

use crate::upstream::route::{RouteNames, RouteTable};

use super::body::Body;
use super::challenge::welcome;
use super::door::{self, Admission, Door};
use super::exchange::{Neighbour, client_address};
use super::fault::Fault;
use super::metrics::Metrics;
use super::passage::Passage;
use super::peer::{Peer, TrustedProxy};
use super::record::Record;
use super::route::{Route, is_base};
use super::shared::StartError;
use super::{Credentials, Gateway, Options, Routed, Shared, SharedOptions, finished, is_read_only};

/// How a whole gateway behaves.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// What all upstreams share.
    pub shared: SharedOptions,
    /// The upstreams, and where requests for them come from.
    pub site: Site,
}

/// What can be changed while requests are under way.
#[derive(Clone, Debug)]
pub struct Site {
    /// Each upstream, and what clients may call it.
    pub upstreams: Vec<(Options, RouteNames)>,
    /// The place in `upstreams` of the one that is meant where a request does not say which.
    pub default: Option<usize>,
    /// Who may come in at all; everybody where there is none.
    pub door: Option<Arc<Door>>,
    /// Neighbours whose `X-Forwarded-Proto` and `X-Forwarded-For` are believed. Default none.
    pub trusted_proxies: Vec<TrustedProxy>,
}

impl Site {
    /// What stands against it: all is made ready as for a start, beside a store in memory, and nobody is asked.
    pub fn check(&self) -> Result<(), StartError> {
        let shared = Shared::start(&SharedOptions::default())?;
        Table::new(self.clone(), &shared, None).map(drop)
    }
}

impl ServiceOptions {
    /// A gateway in front of one upstream, which is meant whatever a request says.
    pub fn alone(options: Options) -> Self {
        let upstreams = vec![(options, RouteNames::default())];
        let site = Site { upstreams, default: Some(0), door: None, trusted_proxies: Vec::new() };
        Self { shared: SharedOptions::default(), site }
    }
}

/// A whole gateway.
pub struct Service {
    shared: Shared,
    table: RwLock<Arc<Table>>,
}

/// The upstreams at one moment.
pub(super) struct Table {
    pub(super) routes: RouteTable,
    pub(super) gateways: Vec<Arc<Gateway>>,
    door: Option<Arc<Door>>,
    trusted_proxies: Vec<TrustedProxy>,
}

impl Service {
    /// A gateway that is ready to answer. No upstream is asked: one that is down does not stop the start.
    pub fn start(options: ServiceOptions) -> Result<Arc<Self>, StartError> {
        let shared = Shared::start(&options.shared)?;
        let table = Table::new(options.site, &shared, None)?;
        Ok(Arc::new(Self { shared, table: RwLock::new(Arc::new(table)) }))
    }

    /// What all upstreams share.
    pub const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Goes on with these upstreams. Requests under way end with those that they began with; where the new ones cannot be
    /// made, the old ones stay.
    pub fn change(&self, site: Site) -> Result<(), StartError> {
        let before = self.table();
        let table = Table::new(site, &self.shared, Some(&before))?;
        let (old, new) = (before.names(), table.names());
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        for name in old.difference(&new) {
            self.shared.metrics.upstream.forget(name);
        }
        Ok(())
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers one request from a client at `peer`. Never fails: whatever breaks is an answer too.
    pub async fn answer<B>(&self, request: Request<B>, peer: impl Into<Peer>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let table = self.table();
        let (mut head, body) = request.into_parts();
        let named = name_host_once(&mut head);
        let neighbour = table.neighbour(peer.into(), &head);
        let metrics = &self.shared.metrics;
        let passage = Box::new(Passage::begin(&head, neighbour, &self.shared));
        if let Err(fault) = named {
            return self.refused(fault, &head, passage);
        }
        let admission = match table.admit(&mut head, neighbour, metrics).await {
            Ok(admission) => admission,
            Err(fault) => return self.refused(fault, &head, passage),
        };
        let mut response = match table.route(&head) {
            Ok(Destination::Upstream { gateway, path, mut routed }) => {
                routed.admission = admission;
                if let Some(path) = path {
                    head.uri = Uri::from(path);
                }
                gateway.answer(Request::from_parts(head, body), neighbour, routed, passage).await
            }
            Ok(Destination::Gateway) => passage.answer(finished(welcome(), &head.method), None, Record::of(admission)),
            Err(fault) => return self.refused(fault, &head, passage),
        };
        if table.door_takes_authorization() {
            door::keep_own_challenge(response.headers_mut());
        }
        response
    }

    /// The answer to a request that reaches no upstream.
    fn refused(&self, fault: Fault, head: &Parts, passage: Box<Passage>) -> Response<Body> {
        let mut record = Record::default();
        record.fault(&fault);
        self.shared.seen.note_refused(&fault, head);
        passage.answer(finished(fault.into_response("this gateway"), &head.method), None, record)
    }
}

/// Who answers a request.
enum Destination<'table> {
    Upstream {
        gateway: &'table Arc<Gateway>,
        /// The path as the upstream is to see it, where that is another than the client's.
        path: Option<PathAndQuery>,
        routed: Routed,
    },
    /// The base endpoint, where no upstream is meant.
    Gateway,
}

impl Table {
    fn new(site: Site, shared: &Shared, previous: Option<&Self>) -> Result<Self, StartError> {
        let (options, names): (Vec<_>, Vec<_>) = site.upstreams.into_iter().unzip();
        let routes = RouteTable::new(&names, site.default)?;
        let gateways = options.into_iter().map(|options| {
            // One that did not change keeps its connections, tokens and what it remembers.
            let is_same = |gateway: &&Arc<Gateway>| *gateway.options() == options && gateway.is_up_to_date();
            let same = previous.and_then(|table| table.gateways.iter().find(is_same));
            same.map_or_else(|| Gateway::new(options, shared).map(Arc::new), |gateway| Ok(Arc::clone(gateway)))
        });
        let gateways = gateways.collect::<Result<_, StartError>>()?;
        Ok(Self { gateways, routes, door: site.door, trusted_proxies: site.trusted_proxies })
    }

    fn names(&self) -> BTreeSet<String> {
        self.gateways.iter().map(|gateway| gateway.options().upstream_name.clone()).collect()
    }

    fn neighbour(&self, peer: Peer, head: &Parts) -> Neighbour {
        let address = peer.address();
        let trusted = self.trusted_proxies.iter().any(|proxy| proxy.is(peer));
        let transport = head.extensions.get().copied().unwrap_or_default();
        Neighbour { address, trusted, transport }
    }

    fn door_takes_authorization(&self) -> bool {
        self.door.as_ref().is_some_and(|door| door.takes_authorization())
    }

    /// As whom the client comes in. What it showed a door of passwords or tokens is that door's and goes nowhere else.
    async fn admit(
        &self,
        head: &mut Parts,
        neighbour: Neighbour,
        metrics: &Metrics,
    ) -> Result<Option<Admission>, Fault> {
        let Some(door) = &self.door else { return Ok(None) };
        let address = client_address(&head.headers, neighbour);
        let admission = door.admit(head, address).await;
        metrics.count_at_door(door.entrance(), &admission);
        let admission = admission?;
        if door.takes_authorization() {
            head.headers.remove(AUTHORIZATION);
        }
        Ok(Some(admission))
    }

    fn route(&self, head: &Parts) -> Result<Destination<'_>, Fault> {
        let host = host_of(head);
        let (path, query) = (head.uri.path(), head.uri.query());
        if is_base(path) && is_read_only(&head.method) && self.door_takes_authorization() {
            return Ok(Destination::Gateway);
        }
        let chosen = match self.routes.choose(host, path, query) {
            Ok(chosen) => chosen,
            Err(_) if is_base(path) => return Ok(Destination::Gateway),
            // What is nobody's whatever the upstream, such as `/`, is not found rather than nobody's name.
            Err(unknown) => {
                return Err(Route::of(path).map_or_else(|fault| fault, |_| Fault::UnknownUpstream(unknown)));
            }
        };
        let gateway = self.gateways.get(chosen.upstream).ok_or(Fault::Internal)?;
        let is_bound = self.routes.bound_to(host) == Some(chosen.upstream);
        let credentials = if is_bound { Credentials::Upstreams } else { Credentials::Others };
        let path = match &chosen.path {
            changed if changed.as_ref() == path => None,
            changed => Some(path_and_query(changed, query)?),
        };
        Ok(Destination::Upstream {
            gateway,
            path,
            routed: Routed { prefix: chosen.prefix, credentials, admission: None },
        })
    }
}

/// Puts the host that a request names into its Host header, and leaves the path and the query for its target, however it
/// came: HTTP/2 has an authority in place of the header, and a target may be a whole URL. A request that names two hosts
/// could be routed by either.
fn name_host_once(head: &mut Parts) -> Result<(), Fault> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (header, authority) = (hosts.next(), head.uri.authority());
    let agree = match (header, authority) {
        (Some(header), Some(authority)) => header.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => true,
    };
    if !agree || hosts.next().is_some() {
        return Err(Fault::BadRequest("the request names two hosts".to_owned()));
    }
    if let Some(authority) = authority {
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Fault::BadRequest("the host that the request names cannot be read".to_owned()))?;
        head.headers.insert(HOST, host);
        head.uri = head.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

/// The host that a request names, where it can be read.
fn host_of(head: &Parts) -> Option<&str> {
    head.headers.get(HOST)?.to_str().ok()
}

fn path_and_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, Fault> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    text.parse().map_err(|_| Fault::NotFound)
}
