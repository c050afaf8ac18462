//! The tables of the file, and the upstreams that they make.

mod forms;
mod in_force;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};
use url::Url;

use crate::gateway::{
    Catalog, ChallengeMode, OnMissing, Options, Pushes, RepositoryRules, SingleNames, TagPolicy, TagRule,
};
use crate::negotiate::{Glob, PlatformRule};
use crate::store::blobs::BlobCacheOptions;
use crate::upstream::route::RouteNames;
use crate::upstream::{
    self, BreakerPolicy, ClientCertificate, Limits, Permission, Proxies, ProxyUse, Tls, Verification,
};

pub use forms::Name;
pub(super) use forms::{Duration, Text};
use forms::{ProxyUrl, Size, TagGlob};

use super::auth::{AnonymousAs, AuthMode};
use super::clients::ClientTable;
use super::file::in_one_line;
use super::layers::{self, TranscodeForm};
use super::{Challenge, PushAsForm, RedirectsForm, Unusable, Variant, keys, values};

/// Every table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// The upstreams.
    pub upstreams: Vec<UpstreamTable>,
    /// What is said of clients; the first that is about one holds.
    pub clients: Vec<ClientTable>,
    /// Where blobs are kept.
    pub blob_cache: Option<BlobCacheTable>,
}

/// `[blob_cache]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobCacheTable {
    directory: PathBuf,
    max_size: Size,
    fills: Option<NonZeroUsize>,
    fill_size: Option<Size>,
}

impl BlobCacheTable {
    /// What it says.
    pub(super) fn options(&self) -> BlobCacheOptions {
        let mut options = BlobCacheOptions::new(self.directory.clone(), self.max_size.0);
        if let Some(fills) = self.fills {
            options.fills_max = fills.get();
        }
        if let Some(Size(bytes)) = self.fill_size {
            options.fill_bytes_max = bytes;
        }
        options
    }
}

/// One `[[upstream]]`. What is not said is as the flags say.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTable {
    name: Name,
    #[serde(deserialize_with = "registry_url")]
    url: Url,
    aliases: Option<Vec<String>>,
    #[serde(default)]
    hosts: Vec<String>,
    prefix: Option<String>,
    library: Option<bool>,
    #[serde(default)]
    auth: AuthTable,
    redirects: Option<RedirectsForm>,
    redirect_hosts: Option<Vec<Text<Glob>>>,
    #[serde(default)]
    tls: TlsTable,
    #[serde(default)]
    proxy: ProxyTable,
    #[serde(default)]
    limits: LimitsTable,
    catalog: Option<bool>,
    challenge: Option<Challenge>,
    token_realms: Option<Vec<Text<Url>>>,
    push: Option<bool>,
    push_as: Option<PushAsForm>,
    connect_timeout: Option<Duration>,
    answer_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    document_timeout: Option<Duration>,
    #[serde(default)]
    tags: TagsTable,
    #[serde(default)]
    repositories: RepositoriesTable,
    #[serde(default)]
    translate: TranslateTable,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TagsTable {
    ttl: Option<Duration>,
    rules: Vec<TagRuleTable>,
    negative_ttl: Option<Duration>,
    stale_if_error: Option<Duration>,
    on_404: Option<On404>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TagRuleTable {
    #[serde(rename = "match")]
    tags: TagGlob,
    ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum On404 {
    Pass,
    Stale,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitsTable {
    in_flight: Option<NonZeroUsize>,
    connections: Option<NonZeroUsize>,
    requests_per_second: Option<NonZeroU32>,
    queue_timeout: Option<Duration>,
    rate_limit_floor: Option<u64>,
    breaker_failures: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RepositoriesTable {
    allow: Vec<Text<Glob>>,
    deny: Vec<Text<Glob>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TranslateTable {
    platform: Option<Vec<Text<PlatformRule>>>,
    arm_variants: Option<Vec<Text<Variant>>>,
    upgrade_schema1: Option<bool>,
    transcode: Option<TranscodeForm>,
}

/// Whose credentials an upstream is shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuthTable {
    pub(super) mode: Option<AuthMode>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) password_variable: Option<String>,
    pub(super) file: Option<PathBuf>,
    pub(super) helper: Option<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) lifetime: Option<Duration>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<Text<Url>>,
    pub(super) anonymous_as: Option<AnonymousAs>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsTable {
    ca: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    insecure: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProxyTable {
    https: Option<ProxyUrl>,
    http: Option<ProxyUrl>,
    no_proxy: Vec<String>,
    direct: bool,
}

impl Tables {
    /// The tables in what is left of a file.
    pub(super) fn read(mut file: Table) -> Result<Self, String> {
        Ok(Self {
            upstreams: entries(&mut file, "upstream")?,
            clients: entries(&mut file, "client")?,
            blob_cache: file.remove("blob_cache").map(|value| entry(value, "[blob_cache]")).transpose()?,
        })
    }
}

/// What stands in the tables of this name; an error says in which of them.
fn entries<Entry: DeserializeOwned>(file: &mut Table, name: &str) -> Result<Vec<Entry>, String> {
    let Some(Value::Array(values)) = file.remove(name) else { return Ok(Vec::new()) };
    let read = |(place, value)| {
        let called = keys::called(name, place, &value);
        entry(value, &called)
    };
    values.into_iter().enumerate().map(read).collect()
}

fn entry<Entry: DeserializeOwned>(value: Value, called: &str) -> Result<Entry, String> {
    value.try_into().map_err(|error| format!("{called}: {}", in_one_line(&error)))
}

impl UpstreamTable {
    /// An upstream of which only name and URL are said: `--upstream NAME=URL`.
    pub(super) fn named(name: Name, url: Url) -> Self {
        let prefix = Some(name.0.clone());
        let aliases = Some(vec![name.0.clone()]);
        Self { aliases, prefix, ..Self::of(name, url) }
    }

    /// `--upstream URL`.
    pub(super) fn of(name: Name, url: Url) -> Self {
        Self {
            name,
            url,
            aliases: None,
            hosts: Vec::new(),
            prefix: None,
            library: None,
            auth: AuthTable::default(),
            redirects: None,
            redirect_hosts: None,
            tls: TlsTable::default(),
            proxy: ProxyTable::default(),
            limits: LimitsTable::default(),
            catalog: None,
            challenge: None,
            token_realms: None,
            push: None,
            push_as: None,
            connect_timeout: None,
            answer_timeout: None,
            idle_timeout: None,
            document_timeout: None,
            tags: TagsTable::default(),
            repositories: RepositoriesTable::default(),
            translate: TranslateTable::default(),
        }
    }

    /// Shown this user, whose password is in this variable.
    pub(super) fn with_password_in(mut self, username: String, variable: &str) -> Self {
        self.auth.username = Some(username);
        self.auth.password_variable = Some(variable.to_owned());
        self
    }

    /// Shown nobody's credentials.
    pub(super) fn anonymous(mut self) -> Self {
        self.auth.mode = Some(AuthMode::Anonymous);
        self
    }

    /// What metrics, logs and the store call it.
    pub(super) fn name(&self) -> &str {
        &self.name.0
    }

    /// What clients may call it. Where no alias is said, it has those that its URL gives it.
    pub(super) fn names(&self) -> RouteNames {
        let given = || {
            if upstream::is_docker_hub(&self.url) {
                return upstream::DOCKER_HUB_HOSTS.map(str::to_owned).to_vec();
            }
            let own = self.url.host_str().map(|host| match self.url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            });
            Vec::from_iter(own)
        };
        let aliases = self.aliases.clone().unwrap_or_else(given);
        RouteNames { aliases, hosts: self.hosts.clone(), prefix: self.prefix.clone() }
    }

    /// The registry.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// Its options; `options` are what the flags say of an upstream at its URL.
    pub(super) fn options(&self, mut options: Options) -> Result<Options, Unusable> {
        options.upstream_name.clone_from(&self.name.0);
        if let Some(library) = self.library {
            options.single_names = if library { SingleNames::InLibrary } else { SingleNames::AsTheyAre };
        }
        if let Some(challenge) = self.challenge {
            options.challenge = ChallengeMode::from(challenge);
        }
        if let Some(push) = self.push {
            options.pushes = if push { Pushes::Forwarded } else { Pushes::Refused };
        }
        if let Some(format) = self.push_as {
            options.push_as = format.into();
        }
        options.repositories = RepositoryRules {
            allow: self.repositories.allow.iter().map(|Text(glob)| glob.clone()).collect(),
            deny: self.repositories.deny.iter().map(|Text(glob)| glob.clone()).collect(),
        };
        if let Some(platforms) = &self.translate.platform {
            options.policy.platforms = platforms.iter().map(|Text(rule)| rule.clone()).collect();
        }
        if let Some(variants) = &self.translate.arm_variants {
            options.policy.arm_variants = variants.iter().map(|Text(Variant(variant))| variant.clone()).collect();
        }
        if let Some(schema1) = self.translate.upgrade_schema1 {
            options.policy.layers.upgrade = layers::upgrade(schema1);
        }
        if let Some(form) = self.translate.transcode {
            options.policy.layers.transcode = form.into();
        }
        if let Some(catalog) = self.catalog {
            options.catalog = if catalog { Catalog::Filtered } else { Catalog::Refused };
        }
        self.limits.reach(&mut options.upstream.limits);
        self.reach(&mut options.upstream)?;
        Ok(options)
    }

    /// The variable that it reads a password from.
    pub(super) fn password_variable(&self) -> Option<&str> {
        self.auth.password_variable.as_deref()
    }

    /// What it says of credentials.
    pub(super) const fn auth(&self) -> &AuthTable {
        &self.auth
    }

    /// What it says of tags, where the rest is as it is where permission comes from here.
    pub(super) fn tags(&self, permission: Permission, ttl: Option<std::time::Duration>) -> TagPolicy {
        let mut policy = TagPolicy::under(permission);
        let said = [
            (self.tags.ttl.map(|Duration(ttl)| ttl).or(ttl), &mut policy.ttl),
            (self.tags.negative_ttl.map(|Duration(ttl)| ttl), &mut policy.negative_ttl),
            (self.tags.stale_if_error.map(|Duration(age)| age), &mut policy.stale_if_error),
        ];
        for (said, time) in said {
            if let Some(said) = said {
                *time = said;
            }
        }
        let rules = self.tags.rules.iter();
        policy.rules = rules.map(|rule| TagRule { tags: rule.tags.0.clone(), ttl: rule.ttl.0 }).collect();
        policy.on_404 = match self.tags.on_404 {
            Some(On404::Stale) => OnMissing::Stale,
            Some(On404::Pass) | None => OnMissing::Pass,
        };
        policy
    }

    fn reach(&self, upstream: &mut upstream::Options) -> Result<(), Unusable> {
        if let Some(redirects) = self.redirects {
            upstream.redirects = redirects.into();
        }
        if let Some(hosts) = &self.redirect_hosts {
            upstream.redirect_hosts = hosts.iter().map(|Text(glob)| glob.clone()).collect();
        }
        self.tls.reach(self.name(), &mut upstream.tls)?;
        if let Some(proxy) = self.proxy.of(self.name())? {
            upstream.proxy = proxy;
        }
        if let Some(realms) = &self.token_realms {
            upstream.token_realms = realms.iter().map(|Text(realm)| realm.clone()).collect();
        }
        let times = [
            (self.connect_timeout, &mut upstream.connect_timeout),
            (self.answer_timeout, &mut upstream.answer_timeout),
            (self.idle_timeout, &mut upstream.idle_timeout),
            (self.document_timeout, &mut upstream.document_timeout),
        ];
        for (said, time) in times {
            if let Some(Duration(said)) = said {
                *time = said;
            }
        }
        Ok(())
    }
}

impl LimitsTable {
    fn reach(&self, limits: &mut Limits) {
        limits.in_flight = self.in_flight.or(limits.in_flight);
        limits.connections = self.connections.or(limits.connections);
        limits.requests_per_second = self.requests_per_second.or(limits.requests_per_second);
        limits.rate_limit_floor = self.rate_limit_floor.or(limits.rate_limit_floor);
        if let Some(Duration(timeout)) = self.queue_timeout {
            limits.queue_timeout = timeout;
        }
        if let Some(failures) = self.breaker_failures {
            let policy = limits.breaker.unwrap_or_default();
            limits.breaker = NonZeroU32::new(failures).map(|failures| BreakerPolicy { failures, ..policy });
        }
    }
}

impl AuthTable {
    /// How long what a command prints is good.
    pub(super) fn lifetime(&self) -> Option<std::time::Duration> {
        self.lifetime.map(|Duration(lifetime)| lifetime)
    }
}

impl TlsTable {
    fn reach(&self, upstream: &str, tls: &mut Tls) -> Result<(), Unusable> {
        if self.ca.is_some() {
            tls.authorities.clone_from(&self.ca);
        }
        tls.certificate = match (&self.client_certificate, &self.client_key) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain: chain.clone(), key: key.clone() }),
            (None, None) => None,
            _ => {
                let words = "`tls.client_certificate` and `tls.client_key` are one without the other: expected both";
                return Err(Unusable::upstream(upstream, words));
            }
        };
        if self.insecure {
            tls.verification = Verification::Insecure;
        }
        Ok(())
    }
}

impl ProxyTable {
    fn of(&self, upstream: &str) -> Result<Option<ProxyUse>, Unusable> {
        let url = |url: &Option<ProxyUrl>| url.as_ref().map(|ProxyUrl(url)| url.clone());
        let named = Proxies { https: url(&self.https), http: url(&self.http), no_proxy: self.no_proxy.clone() };
        match (self.direct, named.https.is_some() || named.http.is_some()) {
            (true, true) => {
                Err(Unusable::upstream(upstream, "`proxy` names one and says `direct`: expected one of both"))
            }
            (true, false) => Ok(Some(ProxyUse::Direct)),
            (false, true) => Ok(Some(ProxyUse::Named(named))),
            (false, false) if !named.no_proxy.is_empty() => {
                let words = "`proxy.no_proxy` is an exception to nothing: expected `https` or `http` beside it";
                Err(Unusable::upstream(upstream, words))
            }
            (false, false) => Ok(None),
        }
    }
}

fn registry_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    values::registry_url(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
