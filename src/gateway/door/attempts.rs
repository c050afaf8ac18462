//! How often an address may be wrong.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;

/// How many wrong logins an address has within [`WINDOW`].
pub(super) const FAILURES_MAX: u32 = 10;
/// How long the first of them counts, and with it all that follow.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are remembered.
const ADDRESSES_MAX: u64 = 16 * 1024;

/// The wrong logins of each address.
pub(super) struct Attempts(Cache<IpAddr, Arc<AtomicU32>>);

/// A login that is under way. It counts as wrong until it is known not to be, so that many at once are no way around.
pub(super) struct Attempt(Arc<AtomicU32>);

impl Default for Attempts {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ADDRESSES_MAX).time_to_live(WINDOW).build())
    }
}

impl Attempts {
    /// `None` where the address has had its share.
    pub(super) fn begin(&self, address: IpAddr) -> Option<Attempt> {
        let count = self.0.get_with(neighbourhood(address), Arc::default);
        let within = |before: u32| (before < FAILURES_MAX).then_some(before + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok().map(|_| Attempt(count))
    }
}

impl Attempt {
    /// The login was not wrong.
    pub(super) fn take_back(self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One customer of an IPv6 network has at least a whole /64 to choose addresses from.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_no_other_pays_for_it() {
        let attempts = Attempts::default();
        for _ in 0..FAILURES_MAX {
            assert!(attempts.begin(address("192.0.2.1")).is_some());
        }
        assert!(attempts.begin(address("192.0.2.1")).is_none());
        assert!(attempts.begin(address("::ffff:192.0.2.1")).is_none());
        assert!(attempts.begin(address("192.0.2.2")).is_some());
    }

    #[test]
    fn a_right_login_costs_nothing() {
        let attempts = Attempts::default();
        for _ in 0..3 * FAILURES_MAX {
            attempts.begin(address("192.0.2.1")).unwrap().take_back();
        }
    }

    #[test]
    fn a_network_of_ipv6_shares() {
        let attempts = Attempts::default();
        for host in 0..FAILURES_MAX {
            assert!(attempts.begin(address(&format!("2001:db8::{host}"))).is_some());
        }
        assert!(attempts.begin(address("2001:db8::ffff:1")).is_none());
        assert!(attempts.begin(address("2001:db8:0:1::1")).is_some());
    }
}
