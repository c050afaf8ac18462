//! Egress proxies: which one stands before a URL.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

/// Where connections go first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyUse {
    /// Through the proxies that the process environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, but for
    /// `NO_PROXY`), if it names any.
    #[default]
    Environment,
    /// Straight to the upstream.
    Direct,
    /// Through these, whatever the environment says.
    Named(Proxies),
}

/// The proxies of one upstream. A user and a password in a URL are sent to the proxy as Basic credentials; they do not
/// print.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Before `https` URLs: an `http` or `https` URL of the proxy.
    pub https: Option<Url>,
    /// Before `http` URLs.
    pub http: Option<Url>,
    /// What is reached without them, as in `NO_PROXY`: hosts with their subdomains, addresses, networks, `*`.
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = |url: &Option<Url>| url.as_ref().map(|url| url.origin().ascii_serialization());
        formatter
            .debug_struct("Proxies")
            .field("https", &origin(&self.https))
            .field("http", &origin(&self.http))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl ProxyUse {
    /// What tells which URLs have a proxy before them.
    pub(super) fn rules(&self) -> Rules {
        Rules(match self {
            Self::Direct => None,
            Self::Environment => Some(Matcher::from_env()),
            Self::Named(Proxies { https, http, no_proxy }) => {
                let text = |url: &Option<Url>| url.as_ref().map(Url::to_string).unwrap_or_default();
                Some(Matcher::builder().https(text(https)).http(text(http)).no(no_proxy.join(",")).build())
            }
        })
    }

    /// The client that goes this way.
    pub(super) fn applied_to(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, String> {
        match self {
            Self::Environment => Ok(builder),
            Self::Direct => Ok(builder.no_proxy()),
            Self::Named(Proxies { https, http, no_proxy }) => {
                let except = reqwest::NoProxy::from_string(&no_proxy.join(","));
                let proxies = [
                    https.as_ref().map(|url| reqwest::Proxy::https(url.as_str())),
                    http.as_ref().map(|url| reqwest::Proxy::http(url.as_str())),
                ];
                proxies.into_iter().flatten().try_fold(builder.no_proxy(), |builder, proxy| {
                    let proxy = proxy.map_err(|error| error.without_url().to_string())?;
                    Ok(builder.proxy(proxy.no_proxy(except.clone())))
                })
            }
        }
    }
}

/// Which URLs have a proxy before them.
pub(super) struct Rules(Option<Matcher>);

impl Rules {
    /// A proxy stands before this URL.
    pub(super) fn name_a_proxy_for(&self, url: &Url) -> bool {
        let Some(matcher) = &self.0 else { return false };
        url.as_str().parse().is_ok_and(|url| matcher.intercept(&url).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(https: &str) -> ProxyUse {
        let proxies = Proxies {
            https: Some(https.parse().unwrap()),
            http: None,
            no_proxy: vec![".internal.example".into(), "10.0.0.0/8".into()],
        };
        ProxyUse::Named(proxies)
    }

    #[test]
    fn a_named_proxy_stands_before_what_it_is_for() {
        let proxy = named("http://egress.example:3128");
        for (url, stands) in [
            ("https://registry.example/", true),
            ("http://registry.example/", false),
            ("https://r.internal.example/", false),
            ("https://10.1.2.3:5000/", false),
            ("https://11.1.2.3/", true),
        ] {
            assert_eq!(proxy.rules().name_a_proxy_for(&url.parse().unwrap()), stands, "{url}");
            assert!(!ProxyUse::Direct.rules().name_a_proxy_for(&url.parse().unwrap()));
        }
    }

    #[test]
    fn the_proxys_password_does_not_print() {
        let text = format!("{:?}", named("http://user:hunter2@egress.example:3128"));
        assert!(!text.contains("hunter2") && !text.contains("user") && text.contains("egress.example"), "{text}");
    }
}
