//! What an IP address is, as far as it matters to whoever is led there by somebody else's word.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of address, the most public first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Anybody can reach it.
    Public,
    /// Only the network that it belongs to can.
    Private,
    /// Only this machine can.
    Loopback,
    /// No registry is there: link-local, a cloud's metadata service, multicast, or nobody's.
    Forbidden,
}

impl Class {
    /// The class of an address; where it is a wrapping of an IPv4 address, that of the one that is dialled in the end.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => embedded(address).map_or_else(|| of_v6(address), of_v4),
        }
    }

    /// Whether the word of an upstream at an address of this class may lead to one of `target`: it may not be more
    /// private. To an upstream that is itself at a forbidden address, its neighbours are private ones.
    pub fn may_lead_to(self, target: Self) -> bool {
        let own = if self == Self::Forbidden { Self::Private } else { self };
        target != Self::Forbidden && target <= own
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::Forbidden => "link-local, reserved or a metadata service's",
        })
    }
}

/// Metadata services outside link-local: Alibaba Cloud, Azure's host agent; AWS and Google Cloud by IPv6.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// By the IANA IPv4 special-purpose address registry. Benchmarking (`198.18.0.0/15`) is private: some egress gateways hand
/// out such addresses for every name.
fn of_v4(address: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&address) {
        return Class::Forbidden;
    }
    match address.octets() {
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => Class::Private,
        [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Forbidden,
        _ => Class::Public,
    }
}

/// By the IANA IPv6 special-purpose address registry. Nothing but global unicast (`2000::/3`) is public.
fn of_v6(address: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&address) {
        return Class::Forbidden;
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        // Unique local, and what was site-local before.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Class::Private,
        // Teredo and its neighbours, documentation.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Class::Forbidden,
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Forbidden,
    }
}

/// The IPv4 address that a translator on the way makes of this one: mapped, compatible, translated, NAT64 and 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let wrapped = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => wrapped(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::{Host, Url};

    use super::*;

    /// The class of the address that a URL names, however it writes it.
    fn class(host: &str) -> Class {
        let url: Url = format!("http://{host}/").parse().unwrap();
        match url.host().unwrap() {
            Host::Ipv4(address) => Class::of(address.into()),
            Host::Ipv6(address) => Class::of(address.into()),
            Host::Domain(name) => panic!("{name} is a name"),
        }
    }

    #[test]
    fn every_address_has_the_class_of_its_registry_entry() {
        let rows: [(Class, &[&str]); 4] = [
            (Class::Public, &["8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"]),
            (
                Class::Private,
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "198.18.0.1",
                    "[fc00::1]",
                    "[fdff::1]",
                    "[fec0::1]",
                ],
            ),
            (Class::Loopback, &["127.0.0.1", "127.255.255.254", "[::1]"]),
            (
                Class::Forbidden,
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "169.254.169.254",
                    "169.254.0.1",
                    "192.0.0.192",
                    "192.0.2.1",
                    "198.51.100.7",
                    "203.0.113.9",
                    "100.100.100.200",
                    "168.63.129.16",
                    "224.0.0.1",
                    "240.0.0.1",
                    "255.255.255.255",
                    "[::]",
                    "[fe80::1]",
                    "[febf::1]",
                    "[ff02::1]",
                    "[fd00:ec2::254]",
                    "[fd20:ce::254]",
                    "[2001:db8::1]",
                    "[2001::1]",
                    "[64:ff9b:1::1]",
                    "[100::1]",
                ],
            ),
        ];
        for (expected, hosts) in rows {
            for host in hosts {
                assert_eq!(class(host), expected, "{host}");
            }
        }
        assert_eq!(class("[2606:4700::1111]"), Class::Public);
    }

    #[test]
    fn no_way_of_writing_an_address_hides_it() {
        let loopback = [
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[::ffff:0:7f00:1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
        ];
        for host in loopback {
            assert_eq!(class(host), Class::Loopback, "{host}");
        }
        let metadata = [
            "2852039166",
            "0251.0376.0251.0376",
            "0xa9fea9fe",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
        ];
        for host in metadata {
            assert_eq!(class(host), Class::Forbidden, "{host}");
        }
        assert_eq!(class("[::ffff:8.8.8.8]"), Class::Public);
        assert_eq!(class("[64:ff9b::10.0.0.1]"), Class::Private);
    }

    #[test]
    fn the_way_leads_to_nothing_more_private() {
        use Class::{Forbidden, Loopback, Private, Public};
        let allowed = [
            (Public, Public),
            (Private, Public),
            (Private, Private),
            (Loopback, Public),
            (Loopback, Private),
            (Loopback, Loopback),
            (Forbidden, Public),
            (Forbidden, Private),
        ];
        for own in [Public, Private, Loopback, Forbidden] {
            for target in [Public, Private, Loopback, Forbidden] {
                assert_eq!(own.may_lead_to(target), allowed.contains(&(own, target)), "{own:?} to {target:?}");
            }
        }
    }

    proptest! {
        /// The standard library knows some of the classes too.
        #[test]
        fn what_the_standard_library_calls_private_is_not_public(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let class = Class::of(address.into());
            prop_assert_eq!(class == Class::Loopback, address.is_loopback());
            if address.is_private() {
                prop_assert_eq!(class, Class::Private);
            }
            if address.is_link_local() || address.is_multicast() || address.is_broadcast() || address.is_documentation() {
                prop_assert_eq!(class, Class::Forbidden);
            }
        }

        #[test]
        fn a_wrapped_address_has_the_class_of_what_is_in_it(bits: u32) {
            // As compatible addresses, 0.0.0.0 and 0.0.0.1 are the unspecified and the loopback address.
            prop_assume!(bits > 1);
            let inner = Ipv4Addr::from(bits);
            let [high, low] = [(bits >> 16) as u16, (bits & 0xffff) as u16];
            let wrappings = [
                inner.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ];
            for wrapping in wrappings {
                prop_assert_eq!(Class::of(wrapping.into()), Class::of(inner.into()), "{}", wrapping);
            }
        }

        #[test]
        fn only_global_unicast_is_public(bits: u128) {
            let address = Ipv6Addr::from(bits);
            if embedded(address).is_none() && Class::of(address.into()) == Class::Public {
                prop_assert_eq!(bits >> 125, 1);
            }
        }
    }
}
