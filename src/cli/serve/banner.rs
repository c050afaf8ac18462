//! What `serve` says to a person at a terminal: where it listens, what it stands in front of, where its state is and where
//! its page is. Where nobody looks, the log says it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::ListenAddress;
use crate::gateway::service::Site;
use crate::store::Location;
use crate::upstream::route::RouteNames;

/// What there is to say.
pub(super) struct Banner<'a> {
    pub(super) listening: &'a [ListenAddress],
    pub(super) admin: &'a ListenAddress,
    pub(super) spoken: Spoken,
    pub(super) site: &'a Site,
    pub(super) store: &'a Location,
}

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Plain,
    Tls,
}

/// Says it where a person looks, if one does.
pub(super) fn show(banner: impl FnOnce() -> String) {
    let (output, errors) = (std::io::stdout(), std::io::stderr());
    // Nobody is left to tell when the terminal is gone.
    let _gone = if output.is_terminal() {
        output.lock().write_all(banner().as_bytes())
    } else if errors.is_terminal() {
        errors.lock().write_all(banner().as_bytes())
    } else {
        Ok(())
    };
}

impl Banner<'_> {
    /// A few lines.
    pub(super) fn text(&self) -> String {
        let mut text = format!("schemabridge {}\n", env!("CARGO_PKG_VERSION"));
        let listening = self.listening.iter().map(|address| url(address, self.spoken)).collect();
        let upstreams = self.site.upstreams.iter().map(|(options, names)| {
            let called = self.called(names);
            let place = origin(&options.upstream.url);
            if called.is_empty() { place } else { format!("{place}  {}: {called}", options.upstream_name) }
        });
        let state = match self.store {
            Location::Memory => "memory only: derived digests are forgotten at the end".to_owned(),
            store => store.to_string(),
        };
        let lines: [(&str, Vec<String>); 5] = [
            ("listens on", listening),
            ("in front of", upstreams.collect()),
            ("state in", vec![state]),
            ("page at", vec![url(self.admin, Spoken::Plain)]),
            ("try", Vec::from_iter(self.pull())),
        ];
        for (what, values) in &lines {
            for (place, value) in values.iter().enumerate() {
                let what = if place == 0 { what } else { "" };
                let _ = writeln!(text, "  {what:<12} {value}");
            }
        }
        text
    }

    /// How clients say that they mean an upstream, where there are several.
    fn called(&self, names: &RouteNames) -> String {
        if self.site.upstreams.len() < 2 {
            return String::new();
        }
        let hosts = names.hosts.iter().map(|host| format!("{host}/…"));
        let prefix = names.prefix.iter().map(|prefix| format!("{prefix}/…"));
        let aliases = names.aliases.iter().map(|alias| format!("?ns={alias}"));
        hosts.chain(prefix).chain(aliases).collect::<Vec<_>>().join(", ")
    }

    /// A pull that goes through the gateway, where an engine of this machine can make it without further ado.
    fn pull(&self) -> Option<String> {
        let local = self.listening.iter().filter_map(ListenAddress::network).map(here);
        let address = local.into_iter().find(|address| address.ip().to_canonical().is_loopback())?;
        let prefix = match self.site.default {
            Some(_) => String::new(),
            None => self.site.upstreams.iter().find_map(|(_, names)| Some(format!("{}/", names.prefix.as_ref()?)))?,
        };
        (self.spoken == Spoken::Plain).then(|| format!("docker pull {address}/{prefix}REPOSITORY:TAG"))
    }
}

fn url(address: &ListenAddress, spoken: Spoken) -> String {
    match (address, spoken) {
        (ListenAddress::Network(address), Spoken::Plain) => format!("http://{address}/"),
        (ListenAddress::Network(address), Spoken::Tls) => format!("https://{address}/"),
        (ListenAddress::UnixSocket(_), _) => address.to_string(),
    }
}

/// An upstream without what a URL could say of users.
fn origin(url: &url::Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/'))
}

/// Where this machine reaches a listener.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
