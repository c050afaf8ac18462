//! Which upstream a request is for.
//!
//! A closed world: only what the operator named is ever reached, and what cannot be told is nobody's. Pure.
//!
//! A client names an upstream in one of four ways: `?ns=` (containerd), the host that it connects to, a prefix of the path
//! (`/v2/<prefix>/…` or `/<prefix>/v2/…`), or not at all. `ns` goes before the host, the host before a prefix, and a
//! prefix before the default. A prefix is taken off the path where it leads to the upstream that was chosen; where `ns` or
//! the host chose another, `/v2/<prefix>/…` may be one of that upstream's own names and stays.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// What clients may call one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteNames {
    /// Registries that `?ns=` may name, such as `docker.io`: host, and port where it is not 443.
    pub aliases: Vec<String>,
    /// Hosts that clients connect to, such as `docker.gateway.example`; without a port they hold for each.
    pub hosts: Vec<String>,
    /// What a path may begin with, such as `dockerhub` or `mirrors/hub`.
    pub prefix: Option<String>,
}

/// Every upstream by the names that clients may call it.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    aliases: BTreeMap<String, usize>,
    hosts: BTreeMap<String, usize>,
    prefixes: BTreeMap<String, usize>,
    default: Option<usize>,
}

/// Why the names of upstreams do not make a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmbiguousNames {
    /// Two upstreams have one name of a kind.
    #[error("{kind} `{name}` is used twice: expected each to name one upstream")]
    Twice {
        /// `alias`, `host` or `prefix`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Not a name of its kind.
    #[error("{kind} `{name}` is not one: expected {expected}")]
    Malformed {
        /// `alias`, `host` or `prefix`.
        kind: &'static str,
        /// The name.
        name: String,
        /// What would be accepted.
        expected: &'static str,
    },
}

/// How the client wrote the prefix, so that a path which it is sent to has it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// It did not.
    #[default]
    None,
    /// `/v2/<prefix>/…`.
    BehindVersion(String),
    /// `/<prefix>/v2/…`.
    BeforeVersion(String),
}

/// The upstream of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'path> {
    /// Its place in the list that the table was made of.
    pub upstream: usize,
    /// The path as the upstream is to see it, from `/v2/` on.
    pub path: Cow<'path, str>,
    /// What was taken off.
    pub prefix: Prefix,
}

/// Nobody is called that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownUpstream {
    /// `ns` names none, or more than one.
    #[error("`ns` does not name a registry that this gateway stands in front of")]
    Namespace,
    /// There is no default, and nothing else says which.
    #[error("nothing in the request names a registry that this gateway stands in front of")]
    Unnamed,
}

impl RouteTable {
    /// The table of these upstreams; `default` is the place of the one that is meant where nothing says otherwise.
    pub fn new(upstreams: &[RouteNames], default: Option<usize>) -> Result<Self, AmbiguousNames> {
        let mut table = Self { default, ..Self::default() };
        for (place, names) in upstreams.iter().enumerate() {
            for alias in &names.aliases {
                let known = authority(alias).ok_or_else(|| malformed("alias", alias, "a host, such as `docker.io`"))?;
                insert(&mut table.aliases, "alias", known, place)?;
            }
            for host in &names.hosts {
                let known = authority(host).ok_or_else(|| malformed("host", host, "a host, such as `hub.example`"))?;
                insert(&mut table.hosts, "host", known, place)?;
            }
            if let Some(prefix) = &names.prefix {
                if !is_prefix(prefix) {
                    let expected =
                        "path segments as in the name of a repository, the first of which is not `v1`, `v2` or `token`";
                    return Err(malformed("prefix", prefix, expected));
                }
                insert(&mut table.prefixes, "prefix", prefix.clone(), place)?;
            }
        }
        Ok(table)
    }

    /// The upstream that is meant where nothing says otherwise.
    pub const fn default_upstream(&self) -> Option<usize> {
        self.default
    }

    /// The upstream that clients reach at this host: the one that has it as its own, or else the default.
    pub fn bound_to(&self, host: Option<&str>) -> Option<usize> {
        host.and_then(|host| self.by_host(host)).or(self.default)
    }

    /// The upstream of a request: its Host, its path and its query, as they came.
    pub fn choose<'path>(
        &self,
        host: Option<&str>,
        path: &'path str,
        query: Option<&str>,
    ) -> Result<Chosen<'path>, UnknownUpstream> {
        let (by_prefix, taken) = match self.by_prefix(path) {
            Some((upstream, path, prefix)) => (Some(upstream), Some((path, prefix))),
            None => (None, None),
        };
        let namespace = self.by_namespace(query)?;
        let by_name = namespace.or_else(|| host.and_then(|host| self.by_host(host)));
        let upstream = by_name.or(by_prefix).or(self.default).ok_or(UnknownUpstream::Unnamed)?;
        // The Host names an upstream of its own, whose repositories may begin like another's prefix; only `ns`, which
        // clients add to a path that has the prefix already, leaves it in doubt.
        let is_taken_off = by_prefix == Some(upstream)
            && (namespace.is_some() || by_name.is_none() || matches!(taken, Some((_, Prefix::BeforeVersion(_)))));
        Ok(match taken {
            Some((path, prefix)) if is_taken_off => Chosen { upstream, path, prefix },
            _ => Chosen { upstream, path: Cow::Borrowed(path), prefix: Prefix::None },
        })
    }

    fn by_namespace(&self, query: Option<&str>) -> Result<Option<usize>, UnknownUpstream> {
        let named = |pair: &&str| pair.split_once('=').map_or(*pair, |(key, _)| key) == "ns";
        let mut pairs = query.unwrap_or_default().split('&').filter(named);
        let Some(pair) = pairs.next() else { return Ok(None) };
        if pairs.next().is_some() {
            return Err(UnknownUpstream::Namespace);
        }
        let name = pair.split_once('=').map_or("", |(_, value)| value).replace("%3A", ":").replace("%3a", ":");
        let known = authority(&name).and_then(|name| self.aliases.get(&name).copied());
        known.map(Some).ok_or(UnknownUpstream::Namespace)
    }

    fn by_host(&self, host: &str) -> Option<usize> {
        // Every request comes by here, and most gateways have no upstream with a host of its own.
        if self.hosts.is_empty() {
            return None;
        }
        let host = authority(host)?;
        let without_port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        self.hosts.get(&host).or_else(|| self.hosts.get(without_port?.0)).copied()
    }

    /// The longest prefix that ends where a segment of the path does.
    fn by_prefix<'path>(&self, path: &'path str) -> Option<(usize, Cow<'path, str>, Prefix)> {
        if let Some(rest) = path.strip_prefix("/v2/") {
            let (prefix, upstream) = self.longest(rest, |rest| rest.starts_with('/') && rest.len() > 1)?;
            let rest = rest.strip_prefix(prefix)?;
            return Some((upstream, Cow::Owned(format!("/v2{rest}")), Prefix::BehindVersion(prefix.to_owned())));
        }
        let within = |rest: &str| rest == "/v2" || rest.starts_with("/v2/");
        let (prefix, upstream) = self.longest(path.strip_prefix('/')?, within)?;
        let rest = path.strip_prefix('/')?.strip_prefix(prefix)?;
        Some((upstream, Cow::Borrowed(rest), Prefix::BeforeVersion(prefix.to_owned())))
    }

    fn longest(&self, path: &str, is_end: impl Fn(&str) -> bool) -> Option<(&str, usize)> {
        let fitting =
            self.prefixes.iter().filter(|(prefix, _)| path.strip_prefix(prefix.as_str()).is_some_and(&is_end));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(prefix, upstream)| (prefix.as_str(), *upstream))
    }
}

impl Prefix {
    /// A path of the upstream, from `/v2` on, as the client has to ask for it.
    pub fn put_back(&self, path: &str) -> String {
        match (self, path.strip_prefix("/v2/")) {
            (Self::BehindVersion(prefix), Some(rest)) => format!("/v2/{prefix}/{rest}"),
            (Self::BeforeVersion(prefix), _) => format!("/{prefix}{path}"),
            (Self::None | Self::BehindVersion(_), _) => path.to_owned(),
        }
    }
}

/// A host and, where it is not 443, a port, in one spelling; `None` for anything else, so that no credentials, paths or
/// schemes get in.
fn authority(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    let is_address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if !is_name(host) && !is_address {
        return None;
    }
    let host = host.to_ascii_lowercase();
    match port {
        None | Some("443") => Some(host),
        Some(port) => port.parse::<u16>().ok().map(|port| format!("{host}:{port}")),
    }
}

/// Segments that could be those of a repository's name, and that no endpoint begins with.
fn is_prefix(text: &str) -> bool {
    let is_reserved = matches!(text.split('/').next(), Some("v1" | "v2" | "token"));
    !is_reserved && text.parse::<crate::image::reference::Repository>().is_ok()
}

fn insert(
    names: &mut BTreeMap<String, usize>,
    kind: &'static str,
    name: String,
    place: usize,
) -> Result<(), AmbiguousNames> {
    match names.insert(name.clone(), place) {
        Some(other) if other != place => Err(AmbiguousNames::Twice { kind, name }),
        _ => Ok(()),
    }
}

fn malformed(kind: &'static str, name: &str, expected: &'static str) -> AmbiguousNames {
    AmbiguousNames::Malformed { kind, name: name.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HUB: usize = 0;
    const CORP: usize = 1;
    const NESTED: usize = 2;

    fn names(aliases: &[&str], hosts: &[&str], prefix: &str) -> RouteNames {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        RouteNames { aliases: owned(aliases), hosts: owned(hosts), prefix: Some(prefix.to_owned()) }
    }

    fn upstreams() -> [RouteNames; 3] {
        [
            names(&["docker.io", "index.docker.io"], &["hub.gateway.example"], "hub"),
            names(&["corp.example:8443"], &["corp.gateway.example:5000"], "corp"),
            names(&["nested.example"], &[], "hub/nested"),
        ]
    }

    fn table(default: Option<usize>) -> RouteTable {
        RouteTable::new(&upstreams(), default).unwrap()
    }

    fn chosen(host: &str, path: &str, query: &str) -> Result<(usize, String), UnknownUpstream> {
        let query = (!query.is_empty()).then_some(query);
        table(Some(CORP)).choose(Some(host), path, query).map(|chosen| (chosen.upstream, chosen.path.into_owned()))
    }

    #[test]
    fn each_way_to_name_an_upstream() {
        let elsewhere = "127.0.0.1:5000";
        for (host, path, query, upstream, seen) in [
            (elsewhere, "/v2/a/manifests/x", "", CORP, "/v2/a/manifests/x"),
            (elsewhere, "/v2/", "", CORP, "/v2/"),
            (elsewhere, "/v2/a/manifests/x", "ns=docker.io", HUB, "/v2/a/manifests/x"),
            (elsewhere, "/v2/a/manifests/x", "ns=DOCKER.IO:443", HUB, "/v2/a/manifests/x"),
            (elsewhere, "/v2/a/manifests/x", "n=5&ns=corp.example%3A8443", CORP, "/v2/a/manifests/x"),
            (elsewhere, "/v2/hub/a/manifests/x", "", HUB, "/v2/a/manifests/x"),
            (elsewhere, "/hub/v2/a/manifests/x", "", HUB, "/v2/a/manifests/x"),
            (elsewhere, "/hub/v2/", "", HUB, "/v2/"),
            (elsewhere, "/hub/v2", "", HUB, "/v2"),
            // Prefix and `ns` together, as containerd sends them with `override_path`.
            (elsewhere, "/v2/hub/a/manifests/x", "ns=docker.io", HUB, "/v2/a/manifests/x"),
            (elsewhere, "/v2/hub/a/manifests/x", "ns=corp.example:8443", CORP, "/v2/hub/a/manifests/x"),
            // On the boundary of a segment, and the longest.
            (elsewhere, "/v2/hub_b/a/manifests/x", "", CORP, "/v2/hub_b/a/manifests/x"),
            (elsewhere, "/v2/hub/nested/a/manifests/x", "", NESTED, "/v2/a/manifests/x"),
            (elsewhere, "/v2/hub", "", CORP, "/v2/hub"),
            // The host.
            ("hub.gateway.example", "/v2/a/manifests/x", "", HUB, "/v2/a/manifests/x"),
            ("HUB.gateway.example.:5000", "/v2/a/manifests/x", "", HUB, "/v2/a/manifests/x"),
            ("corp.gateway.example:5000", "/v2/hub/a/manifests/x", "", CORP, "/v2/hub/a/manifests/x"),
            ("hub.gateway.example", "/v2/hub/a/manifests/x", "", HUB, "/v2/hub/a/manifests/x"),
            ("hub.gateway.example", "/hub/v2/a/manifests/x", "", HUB, "/v2/a/manifests/x"),
            ("hub.gateway.example", "/v2/a/manifests/x", "ns=nested.example", NESTED, "/v2/a/manifests/x"),
            // Not a parameter that anybody sends.
            (elsewhere, "/v2/a/manifests/x", "NS=docker.io", CORP, "/v2/a/manifests/x"),
            (elsewhere, "/v2/a/manifests/x", "nsx=docker.io", CORP, "/v2/a/manifests/x"),
        ] {
            assert_eq!(chosen(host, path, query), Ok((upstream, seen.to_owned())), "{host} {path} {query}");
        }
    }

    #[test]
    fn what_nobody_is_called_is_nobody() {
        for query in [
            "ns=",
            "ns",
            "ns=other.example",
            "ns=http://169.254.169.254",
            "ns=user:pw@docker.io",
            "ns=docker.io/..",
            "ns=docker.io:80",
            "ns=docker.io&ns=docker.io",
            "ns=docker%2Eio",
            "ns=169.254.169.254",
        ] {
            assert_eq!(chosen("x", "/v2/a/manifests/x", query), Err(UnknownUpstream::Namespace), "{query}");
        }
        let unnamed = table(None).choose(Some("127.0.0.1"), "/v2/a/manifests/x", None);
        assert_eq!(unnamed, Err(UnknownUpstream::Unnamed));
        assert_eq!(table(None).choose(None, "/v2/corp/a/manifests/x", None).unwrap().upstream, CORP);
    }

    #[test]
    fn names_that_do_not_make_a_table() {
        let twice = [names(&["a.example"], &[], "a"), names(&["A.example:443"], &[], "b")];
        assert!(matches!(RouteTable::new(&twice, None), Err(AmbiguousNames::Twice { kind: "alias", .. })));
        for prefix in ["", "v2", "v2/a", "token", "A", "a//b", "/a", "a/"] {
            let malformed = RouteTable::new(&[names(&[], &[], prefix)], None);
            assert!(matches!(malformed, Err(AmbiguousNames::Malformed { kind: "prefix", .. })), "{prefix}");
        }
        for host in ["", "https://a.example", "a.example/b", "u@a.example", "a b"] {
            assert!(RouteTable::new(&[names(&[host], &[], "a")], None).is_err(), "{host}");
            assert!(RouteTable::new(&[names(&[], &[host], "a")], None).is_err(), "{host}");
        }
    }

    #[test]
    fn a_prefix_can_be_put_back() {
        for (path, seen) in [
            ("/v2/hub/a/manifests/x", "/v2/a/blobs/uploads/1"),
            ("/hub/v2/a/manifests/x", "/v2/a/blobs/uploads/1"),
            ("/v2/a/manifests/x", "/v2/a/blobs/uploads/1"),
        ] {
            let table = table(Some(CORP));
            let chosen = table.choose(None, path, None).unwrap();
            let back = chosen.prefix.put_back(seen);
            let again = table.choose(None, &back, None).unwrap();
            assert_eq!((again.upstream, again.path.as_ref()), (chosen.upstream, seen));
        }
    }

    fn segment() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "hub", "corp", "nested", "v2", "manifests", "x", "hub_b", ".."])
            .prop_map(str::to_owned)
    }

    proptest! {
        /// The rule, said again: `ns`, the host, the longest prefix, the default.
        #[test]
        fn the_order_of_names(
            namespace in prop::option::of(prop::sample::select(vec!["docker.io", "corp.example:8443", "nested.example", "other.example", ""])),
            host in prop::option::of(prop::sample::select(vec!["hub.gateway.example", "corp.gateway.example:5000", "127.0.0.1:5000"])),
            segments in prop::collection::vec(segment(), 0..6),
            default in prop::option::of(0..3_usize),
        ) {
            let path = format!("/{}", segments.join("/"));
            let query = namespace.map(|name| format!("ns={name}"));
            let table = table(default);
            let got = table.choose(host, &path, query.as_deref());
            let by_namespace = namespace.map(|name| match name {
                "docker.io" => Some(HUB), "corp.example:8443" => Some(CORP), "nested.example" => Some(NESTED), _ => None,
            });
            let by_host = host.and_then(|host| match host {
                "hub.gateway.example" => Some(HUB), "corp.gateway.example:5000" => Some(CORP), _ => None,
            });
            let texts: Vec<&str> = segments.iter().map(String::as_str).collect();
            let by_prefix = match texts.as_slice() {
                ["v2", "hub", "nested", _, ..] | ["hub", "nested", "v2", ..] => Some(NESTED),
                ["v2", "hub", _, ..] | ["hub", "v2", ..] => Some(HUB),
                ["v2", "corp", _, ..] | ["corp", "v2", ..] => Some(CORP),
                _ => None,
            };
            let expected = match by_namespace {
                Some(None) => None,
                Some(known) => known,
                None => by_host.or(by_prefix).or(default),
            };
            prop_assert_eq!(got.as_ref().ok().map(|chosen| chosen.upstream), expected);
            if let Ok(chosen) = got {
                prop_assert_eq!(chosen.prefix.put_back(&chosen.path), path.as_str(), "nothing is lost");
                if chosen.prefix != Prefix::None {
                    prop_assert_eq!(by_prefix, Some(chosen.upstream));
                }
            }
        }

        #[test]
        fn no_request_panics(host in "\\PC{0,20}", path in "/\\PC{0,40}", query in "\\PC{0,40}") {
            let _ = table(None).choose(Some(&host), &path, Some(&query));
        }
    }
}
