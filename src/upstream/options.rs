//! How the upstream is reached.

use std::time::Duration;

use url::Url;

use crate::negotiate::Glob;

use super::authentication::Authentication;
use super::body::UploadLimits;
use super::guard::Names;
use super::limits::{Limits, Permission};
use super::proxy::ProxyUse;
use super::redirect::Redirects;
use super::tls::Tls;

/// How the upstream is reached. [`Options::new`] has every default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The registry, without `/v2`; a path is kept as a prefix.
    pub url: Url,
    /// How long a connection may take to be made. Default 10 s.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take. Default 30 s.
    pub answer_timeout: Duration,
    /// How long a body may stand still while the gateway waits for it. Default 60 s.
    pub idle_timeout: Duration,
    /// How long a whole document (a manifest, a config, a token, an error) may take to arrive. Default 60 s.
    pub document_timeout: Duration,
    /// How uploads arrive from clients.
    pub uploads: UploadLimits,
    /// Token services beyond the upstream's own host that bearer challenges may name.
    pub token_realms: Vec<Url>,
    /// What becomes of the redirects of blobs. Default [`Redirects::Auto`].
    pub redirects: Redirects,
    /// The hosts to which [`Redirects::Auto`] lets clients go by themselves. Default `*`, which is all.
    pub redirect_hosts: Vec<Glob>,
    /// How the upstream's certificate is checked, and which one the gateway shows.
    pub tls: Tls,
    /// The proxies on the way. Default those that the environment names.
    pub proxy: ProxyUse,
    /// Who says which addresses the upstream's name has, and those of the places it leads to. Default the system.
    pub names: Names,
    /// Whose credentials the upstream is shown. Default those of each caller.
    pub authentication: Authentication,
    /// How long the gateway's own credentials may take to be had: a file, a program, a cloud. Default 20 s.
    pub credentials_timeout: Duration,
    /// Where permission comes from. Default: the upstream, asked with each caller's own credentials.
    pub permission: Permission,
    /// How much is asked of it at once.
    pub limits: Limits,
}

impl Options {
    /// Every setting but the URL at its default.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            document_timeout: Duration::from_secs(60),
            uploads: UploadLimits::default(),
            token_realms: Vec::new(),
            authentication: Authentication::Passthrough,
            credentials_timeout: Duration::from_secs(20),
            redirects: Redirects::default(),
            redirect_hosts: vec![Glob::anything()],
            tls: Tls::default(),
            proxy: ProxyUse::default(),
            names: Names::default(),
            permission: Permission::Upstream,
            limits: Limits::default(),
        }
    }
}
