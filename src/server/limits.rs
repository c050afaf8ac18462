//! How much clients may have of the process: connections, and time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::{Metrics, Refused};

/// How many connections all listeners have together, where the system lets the process open enough files.
pub const CONNECTIONS_MAX: usize = 16_384;
/// How many of them one address has.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1024;
/// How many connections the operator's listener has.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take to arrive, the first also to begin.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may have no request on it.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a client may take nothing of an answer that waits for it.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many headers a request may have.
pub const HEADERS_MAX: usize = 128;
/// How many bytes the head of a request may have.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long the log is silent about connections that wait when it has said so once.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Files that are not connections of clients: the store, the log, connections to upstreams that are kept.
const OTHER_FILES: usize = 256;
/// A blob that streams has a connection to its upstream.
const FILES_PER_CONNECTION: usize = 2;

/// How much clients may have. Every default is the constant of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all listeners together. One more waits, unaccepted, until another ends.
    pub connections: usize,
    /// Connections of one address; an IPv6 address counts as its /64. One more is closed at once. `None` for no such
    /// limit; what comes by a unix socket has no address.
    pub connections_per_address: Option<usize>,
    /// How long the head of a request may take; from the start of the connection for the first.
    pub header_timeout: Duration,
    /// How long a connection may have no request on it.
    pub keep_alive_timeout: Duration,
    /// How long a client may take nothing of what waits for it.
    pub body_idle_timeout: Duration,
    /// Bytes of the head of a request.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            connections_per_address: Some(CONNECTIONS_PER_ADDRESS_MAX),
            header_timeout: HEADER_TIMEOUT,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            head_bytes: HEAD_BYTES_MAX,
            headers: HEADERS_MAX,
        }
    }
}

impl Limits {
    /// What the operator's listener has. It is one address or a few, and no flood of clients takes its places.
    pub fn of_admin() -> Self {
        Self { connections: ADMIN_CONNECTIONS_MAX, connections_per_address: None, ..Self::default() }
    }
}

/// How many connections there may be where the system lets the process open so many files: [`CONNECTIONS_MAX`], or as many
/// as leave room for what else it opens.
pub fn connections_within(open_files: usize) -> usize {
    (open_files.saturating_sub(OTHER_FILES) / FILES_PER_CONNECTION).clamp(1, CONNECTIONS_MAX)
}

/// How many files the system lets the process open. `None` where it does not say.
pub fn open_files_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft.split_whitespace().next()?.parse().ok()
}

/// The places for connections, which all listeners with the same of these share.
#[derive(Clone)]
pub struct Places(Arc<Shared>);

struct Shared {
    limits: Limits,
    free: Arc<Semaphore>,
    taken: Mutex<HashMap<Address, usize>>,
    waited: Mutex<Waited>,
    metrics: Metrics,
}

/// Connections that waited and that the log has said nothing of.
#[derive(Debug, Default)]
struct Waited {
    unsaid: u64,
    said_at: Option<Instant>,
}

/// What counts as one address: whoever has one of IPv6 has the 2⁶⁴ beside it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    V4([u8; 4]),
    V6Network(u128),
}

/// A place for one connection, which is free again when this is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

/// A connection that is counted until this is dropped.
struct Counted {
    shared: Arc<Shared>,
    address: Option<Address>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(Limits::default(), Metrics::default())
    }
}

impl Places {
    /// Places within these limits, counted there.
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        let free = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared { limits, free, taken: Mutex::default(), waited: Mutex::default(), metrics }))
    }

    /// The limits that hold.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// A place for a connection from there, as soon as there is one. `None` where its address has as many as it may.
    pub(super) async fn take(&self, address: Option<IpAddr>) -> Option<Place> {
        let limit = self.0.limits.connections_per_address;
        let address = address.filter(|_| limit.is_some()).map(Address::of);
        if let (Some(address), Some(limit)) = (address, limit) {
            let mut taken = self.0.taken();
            let of_address = taken.entry(address).or_default();
            if *of_address >= limit {
                drop(taken);
                self.0.metrics.refused(Refused::Address);
                return None;
            }
            *of_address += 1;
        }
        // Who goes away while it waits gives back what its address took.
        let counted = Counted { shared: Arc::clone(&self.0), address };
        self.0.metrics.opened();
        let free = Arc::clone(&self.0.free);
        if free.available_permits() == 0 {
            self.0.waits();
        }
        Some(Place { _permit: free.acquire_owned().await.ok()?, _counted: counted })
    }
}

impl Shared {
    fn waits(&self) {
        self.metrics.waited();
        let to_say = self.waited.lock().unwrap_or_else(PoisonError::into_inner).another(Instant::now());
        if let Some(waited) = to_say {
            let connections = self.limits.connections;
            tracing::warn!(
                connections,
                waited,
                "as many connections are open as may be: one more waits until one ends"
            );
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Address, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waited {
    /// Counts one more. How many there were since the log last said so, if it may again.
    fn another(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said_at.is_some_and(|said_at| now < said_at + WARNING_INTERVAL) {
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.closed();
        let Some(address) = self.address else { return };
        let mut taken = self.shared.taken();
        if let Some(of_address) = taken.get_mut(&address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.remove(&address);
            }
        }
    }
}

impl Address {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6Network(u128::from(address) >> 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, per_address: Option<usize>) -> Places {
        let limits = Limits { connections, connections_per_address: per_address, ..Limits::default() };
        Places::new(limits, Metrics::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_is_a_64_of_ipv6_and_the_same_within_it() {
        let places = places(100, Some(1));
        let _first = places.take(Some(address("2001:db8::1"))).await.unwrap();
        assert!(places.take(Some(address("2001:db8::ffff:0:1"))).await.is_none());
        let _beside = places.take(Some(address("2001:db8:0:1::1"))).await.unwrap();
        let _four = places.take(Some(address("192.0.2.1"))).await.unwrap();
        assert!(places.take(Some(address("::ffff:192.0.2.1"))).await.is_none());
    }

    #[tokio::test]
    async fn what_has_no_address_counts_only_among_all() {
        let places = places(3, Some(1));
        let _three = [places.take(None).await, places.take(None).await, places.take(None).await];
        assert_eq!(places.0.free.available_permits(), 0);
    }

    #[tokio::test]
    async fn a_place_that_is_given_back_is_free_and_forgotten() {
        let places = places(1, Some(1));
        drop(places.take(Some(address("192.0.2.1"))).await.unwrap());
        assert!(places.0.taken().is_empty());
        let held = places.take(Some(address("192.0.2.1"))).await.unwrap();
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take(Some(address("192.0.2.2"))).await.is_some() }
        });
        drop(held);
        assert!(waiting.await.unwrap());
        assert!(places.0.taken().is_empty());
    }

    #[test]
    fn the_log_says_once_a_minute_how_many_waited() {
        let (mut waited, start) = (Waited::default(), Instant::now());
        let said = [0, 1, 59, 60, 61, 300].map(|second| waited.another(start + Duration::from_secs(second)));
        assert_eq!(said, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[test]
    fn few_files_are_few_connections() {
        for (files, connections) in [(0, 1), (1024, 384), (524_288, CONNECTIONS_MAX)] {
            assert_eq!(connections_within(files), connections, "{files}");
        }
    }
}
