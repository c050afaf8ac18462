//! Where the word of an upstream may lead: to no more private a place than the upstream's own.
//!
//! A realm, a redirect's target and whatever they redirect to are named by somebody else. Their names are looked up here
//! and nowhere else, for the connection itself, so what was checked is what is dialled.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;
use url::{Host, Url};

use super::Failure;
use super::address::Class;

/// The addresses of a name.
type Tell = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// Who says which addresses a name has.
#[derive(Clone, Default)]
pub enum Names {
    /// The system's resolver.
    #[default]
    System,
    /// This function: for tests of where names may lead.
    Told(Arc<Tell>),
}

/// Two tellers are the same only if they are one.
impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, Self::System) => true,
            (Self::Told(own), Self::Told(others)) => Arc::ptr_eq(own, others),
            _ => false,
        }
    }
}

impl Eq for Names {}

impl Names {
    async fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()),
            Self::Told(tell) => Ok(tell(name)),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::System => "System",
            Self::Told(_) => "Told",
        })
    }
}

/// The addresses that one upstream's word may lead to.
#[derive(Clone)]
pub(super) struct Guard {
    own: Option<Host<String>>,
    names: Names,
}

/// Why an address is not dialled.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{host} is at {address}, an address that is {class}, and its own is {own}")]
pub(super) struct TooPrivate {
    host: String,
    address: IpAddr,
    class: Class,
    own: Class,
}

impl From<TooPrivate> for Failure {
    fn from(refusal: TooPrivate) -> Self {
        Self::TooPrivate { reason: refusal.to_string() }
    }
}

impl Guard {
    /// For the upstream at this URL.
    pub(super) fn new(upstream: &Url, names: Names) -> Self {
        Self { own: upstream.host().map(|host| host.to_owned()), names }
    }

    /// Refuses a URL whose host is an address that this upstream may not lead to. A name is looked up when it is dialled.
    pub(super) async fn check_literal(&self, url: &Url) -> Result<(), TooPrivate> {
        let Some(address) = literal(url) else { return Ok(()) };
        check(&address.to_string(), address, self.own_class().await)
    }

    /// The addresses of a name that may be dialled: all but those that are too private, and at least one.
    async fn admitted(&self, name: &str) -> Result<Vec<IpAddr>, Refused> {
        let own = self.own_class().await;
        let mut refusal = None;
        let mut admitted = Vec::new();
        for address in self.names.addresses(name).await? {
            match check(name, address, own) {
                Ok(()) => admitted.push(address),
                Err(refused) => refusal = Some(refused),
            }
        }
        match refusal {
            Some(refusal) if admitted.is_empty() => Err(refusal.into()),
            _ => Ok(admitted),
        }
    }

    /// The class of the upstream's own address at this moment: of several, the most public one. Public where nobody
    /// knows, which allows the least.
    async fn own_class(&self) -> Class {
        let addresses = match &self.own {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(*address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(*address)],
            Some(Host::Domain(name)) => self.names.addresses(name).await.unwrap_or_default(),
            None => Vec::new(),
        };
        addresses.into_iter().map(Class::of).min().unwrap_or(Class::Public)
    }
}

/// Refuses a URL whose host is an address that no upstream may lead to, wherever it is itself: for whoever cannot know
/// where a proxy dials.
pub(super) fn check_forbidden(url: &Url) -> Result<(), TooPrivate> {
    literal(url).map_or(Ok(()), |address| check(&address.to_string(), address, Class::Loopback))
}

/// The address that a URL has for a host, in whichever way it was written.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

fn check(host: &str, address: IpAddr, own: Class) -> Result<(), TooPrivate> {
    let class = Class::of(address);
    if own.may_lead_to(class) {
        return Ok(());
    }
    Err(TooPrivate { host: host.to_owned(), address, class, own })
}

/// Why a name is not dialled: nobody knows it, or it leads to where the gateway does not go.
type Refused = Box<dyn std::error::Error + Send + Sync>;

/// As the resolver of a connection: its addresses are those that are dialled.
impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let admitted = guard.admitted(name.as_str()).await?;
            Ok(admitted.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}

/// The refusal at the bottom of a connection's error, if that is what it is.
pub(super) fn refusal_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TooPrivate> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref() {
            return Some(refusal);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const PUBLIC: &str = "93.184.216.34";
    const PRIVATE: &str = "10.1.2.3";
    const LOOPBACK: &str = "127.0.0.1";
    const METADATA: &str = "169.254.169.254";

    /// A guard for `registry.example` at these addresses, where every other name has the next of `answers`.
    fn guard(own: &[&str], answers: &[&[&str]]) -> Guard {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let own = parsed(own);
        let answers = Mutex::new(answers.iter().map(|answer| parsed(answer)).collect::<Vec<_>>().into_iter());
        let tell = move |name: &str| match name {
            "registry.example" => own.clone(),
            _ => answers.lock().unwrap().next().unwrap(),
        };
        Guard::new(&"https://registry.example".parse().unwrap(), Names::Told(Arc::new(tell)))
    }

    async fn dialled(guard: &Guard) -> Result<Vec<String>, String> {
        let mut resolver = guard.clone();
        let addresses = resolver.call("cdn.example".parse().unwrap()).await.map_err(|error| error.to_string())?;
        Ok(addresses.map(|address| address.ip().to_string()).collect())
    }

    #[tokio::test]
    async fn a_name_leads_to_nothing_more_private_than_the_registry() {
        for (own, target, allowed) in [
            (PUBLIC, PUBLIC, true),
            (PUBLIC, PRIVATE, false),
            (PUBLIC, LOOPBACK, false),
            (PUBLIC, METADATA, false),
            (PRIVATE, PUBLIC, true),
            (PRIVATE, "192.168.7.7", true),
            (PRIVATE, LOOPBACK, false),
            (PRIVATE, METADATA, false),
            (LOOPBACK, "::1", true),
            (LOOPBACK, METADATA, false),
            (METADATA, METADATA, false),
            (METADATA, PRIVATE, true),
        ] {
            let outcome = dialled(&guard(&[own], &[&[target]])).await;
            assert_eq!(outcome.is_ok(), allowed, "{own} to {target}: {outcome:?}");
            let url = Url::parse(&format!("https://{}/", target.replace("::1", "[::1]"))).unwrap();
            assert_eq!(guard(&[own], &[]).check_literal(&url).await.is_ok(), allowed, "{own} to {url}");
        }
    }

    #[tokio::test]
    async fn of_several_addresses_the_private_ones_are_left_out() {
        let mixed = guard(&[PUBLIC], &[&[LOOPBACK, PUBLIC, "::ffff:10.0.0.1", METADATA, "2606:4700::1111"]]);
        assert_eq!(dialled(&mixed).await.unwrap(), [PUBLIC, "2606:4700::1111"]);
    }

    /// What a name has at the connection counts, whatever it had before: a name is looked up once for each.
    #[tokio::test]
    async fn a_name_that_changes_is_refused_when_it_is_dialled() {
        let rebinding = guard(&[PUBLIC], &[&[PUBLIC], &[LOOPBACK], &[METADATA]]);
        assert_eq!(dialled(&rebinding).await.unwrap(), [PUBLIC]);
        for _ in 0..2 {
            let words = dialled(&rebinding).await.unwrap_err();
            assert!(words.contains("cdn.example") && words.contains("its own is public"), "{words}");
        }
    }

    #[tokio::test]
    async fn the_most_public_of_the_registrys_own_addresses_counts() {
        assert!(dialled(&guard(&[LOOPBACK, PUBLIC], &[&[PRIVATE]])).await.is_err());
        assert!(dialled(&guard(&[], &[&[PRIVATE]])).await.is_err(), "nobody knows where the registry is");
        assert!(dialled(&guard(&[LOOPBACK, PRIVATE], &[&[PRIVATE]])).await.is_ok());
    }

    #[test]
    fn behind_a_proxy_only_what_is_always_forbidden_is() {
        for (host, allowed) in [(PRIVATE, true), (LOOPBACK, true), (METADATA, false), ("[fd00:ec2::254]", false)] {
            let url = format!("https://{host}/").parse().unwrap();
            assert_eq!(check_forbidden(&url).is_ok(), allowed, "{host}");
        }
    }
}
