//! The tables of the file, and the upstreams that they make.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};
use url::Url;

use crate::gateway::{
    Callers, Catalog, ChallengeMode, OnMissing, Options, Pushes, RepositoryRules, SingleNames, TagPolicy, TagRule,
};
use crate::negotiate::{Glob, PlatformRule};
use crate::store::blobs::BlobCacheOptions;
use crate::upstream::route::RouteNames;
use crate::upstream::{
    self, Authentication, BreakerPolicy, ClientCertificate, Limits, Permission, Proxies, ProxyUse, Tls, Verification,
};

use super::auth::{AnonymousAs, AuthMode};
use super::clients::ClientTable;
use super::file::in_one_line;
use super::{Challenge, RedirectsForm, Unusable, Variant, keys, values};

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

    /// With nothing left open.
    pub(super) fn in_force(&self) -> Table {
        let BlobCacheOptions { directory, bytes_max, fills_max, fill_bytes_max } = self.options();
        let fills = i64::try_from(fills_max).unwrap_or(i64::MAX);
        let mut table = Table::new();
        insert(&mut table, "directory", Some(shown_path(&directory)));
        insert(&mut table, "max_size", Some(format!("{bytes_max}B")));
        insert(&mut table, "fills", Some(fills));
        insert(&mut table, "fill_size", Some(format!("{fill_bytes_max}B")));
        table
    }
}

/// A number of bytes with a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        values::byte_size(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
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

/// The URL of a proxy. It may hold credentials, so it does not print.
#[derive(Clone, PartialEq)]
struct ProxyUrl(Url);

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.origin().ascii_serialization())
    }
}

impl<'de> Deserialize<'de> for ProxyUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let url = Url::parse(&String::deserialize(deserializer)?).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.map(Self).ok_or_else(|| D::Error::custom("expected the http or https URL of a proxy"))
    }
}

/// A pattern of tags.
#[derive(Clone, Debug, PartialEq)]
struct TagGlob(Glob);

impl<'de> Deserialize<'de> for TagGlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Glob::of_tags(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
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

    /// The same with nothing left open, where this holds of credentials. Secrets are not in it.
    pub(super) fn in_force(&self, auth: &AuthTable, options: &Options, names: &RouteNames) -> Table {
        let texts = |texts: &[String]| Value::from(texts.to_vec());
        let shown = |values: &mut dyn Iterator<Item = String>| Value::from(values.collect::<Vec<_>>());
        let time = |time: std::time::Duration| Value::from(values::in_words(time));
        let upstream = &options.upstream;
        let mut table = Table::from_iter([
            ("name".to_owned(), Value::from(self.name())),
            ("url".to_owned(), Value::from(self.url.as_str())),
            ("aliases".to_owned(), texts(&names.aliases)),
            ("hosts".to_owned(), texts(&names.hosts)),
            ("library".to_owned(), Value::from(options.single_names == SingleNames::InLibrary)),
            ("challenge".to_owned(), Value::from(options.challenge.word())),
            ("token_realms".to_owned(), shown(&mut upstream.token_realms.iter().map(Url::to_string))),
            ("push".to_owned(), Value::from(options.pushes == Pushes::Forwarded)),
            ("connect_timeout".to_owned(), time(upstream.connect_timeout)),
            ("answer_timeout".to_owned(), time(upstream.answer_timeout)),
            ("idle_timeout".to_owned(), time(upstream.idle_timeout)),
            ("document_timeout".to_owned(), time(upstream.document_timeout)),
        ]);
        if let Some(prefix) = &names.prefix {
            table.insert("prefix".to_owned(), Value::from(prefix.as_str()));
        }
        let tags = tags_in_force(&options.tags);
        let globs = |globs: &[Glob]| shown(&mut globs.iter().map(ToString::to_string));
        let repositories = Table::from_iter([
            ("allow".to_owned(), globs(&options.repositories.allow)),
            ("deny".to_owned(), globs(&options.repositories.deny)),
        ]);
        let variant = |variant: &Option<String>| variant.clone().unwrap_or_else(|| "none".to_owned());
        let translate = Table::from_iter([
            ("platform".to_owned(), shown(&mut options.policy.platforms.iter().map(ToString::to_string))),
            ("arm_variants".to_owned(), shown(&mut options.policy.arm_variants.iter().map(variant))),
        ]);
        table.insert("redirects".to_owned(), Value::from(RedirectsForm::from(&upstream.redirects).word()));
        table.insert("redirect_hosts".to_owned(), globs(&upstream.redirect_hosts));
        table.insert("catalog".to_owned(), Value::from(options.catalog == Catalog::Filtered));
        let auth = auth.in_force(options);
        let (tls, proxy, limits) =
            (tls_in_force(&upstream.tls), self.proxy.in_force(), limits_in_force(&upstream.limits));
        for (name, below) in [
            ("auth", auth),
            ("tls", tls),
            ("proxy", proxy),
            ("limits", limits),
            ("tags", tags),
            ("repositories", repositories),
            ("translate", translate),
        ] {
            table.insert(name.to_owned(), Value::Table(below));
        }
        table
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

/// What an upstream is called in metrics, logs and the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub(super) String);

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = text.starts_with(|char: char| char.is_ascii_lowercase() || char.is_ascii_digit())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("the name `{text}` is not one: expected lower-case letters, digits, `-`, `_` and `.`"))
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A duration with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duration(std::time::Duration);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        values::duration(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// A value that is written as the flag of the same kind is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text<Value>(pub(super) Value);

impl<'de, Value: values::Written> Deserialize<'de> for Text<Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::read(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

fn registry_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    values::registry_url(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn insert(table: &mut Table, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        table.insert(name.to_owned(), value.into());
    }
}

fn shown_path(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn tags_in_force(policy: &TagPolicy) -> Table {
    let rules = policy.rules.iter().map(|rule| {
        let words = [("match", rule.tags.to_string()), ("ttl", values::in_words(rule.ttl))];
        Value::Table(words.into_iter().map(|(name, word)| (name.to_owned(), Value::from(word))).collect())
    });
    let rules = Value::Array(rules.collect());
    let mut table = Table::from_iter([("rules".to_owned(), rules)]);
    for (name, time) in
        [("ttl", policy.ttl), ("negative_ttl", policy.negative_ttl), ("stale_if_error", policy.stale_if_error)]
    {
        insert(&mut table, name, Some(values::in_words(time)));
    }
    let on_404 = if policy.on_404 == OnMissing::Stale { "stale" } else { "pass" };
    insert(&mut table, "on_404", Some(on_404));
    table
}

fn tls_in_force(tls: &Tls) -> Table {
    let mut table = Table::new();
    insert(&mut table, "ca", tls.authorities.as_deref().map(shown_path));
    insert(&mut table, "client_certificate", tls.certificate.as_ref().map(|own| shown_path(&own.chain)));
    insert(&mut table, "client_key", tls.certificate.as_ref().map(|own| shown_path(&own.key)));
    insert(&mut table, "insecure", Some(tls.verification == Verification::Insecure));
    table
}

fn limits_in_force(limits: &Limits) -> Table {
    let mut table = Table::new();
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    insert(&mut table, "in_flight", limits.in_flight.map(|limit| number(limit.get())));
    insert(&mut table, "connections", limits.connections.map(|limit| number(limit.get())));
    insert(&mut table, "requests_per_second", limits.requests_per_second.map(|limit| i64::from(limit.get())));
    insert(&mut table, "queue_timeout", Some(values::in_words(limits.queue_timeout)));
    let floor = limits.rate_limit_floor.map(|floor| i64::try_from(floor).unwrap_or(i64::MAX));
    insert(&mut table, "rate_limit_floor", floor);
    insert(&mut table, "breaker_failures", Some(limits.breaker.map_or(0, |policy| i64::from(policy.failures.get()))));
    table
}

impl AuthTable {
    /// Where the credentials come from; never what they are.
    fn in_force(&self, options: &Options) -> Table {
        let mut table = Table::new();
        let mode = match (options.callers, &options.upstream.authentication) {
            (Callers::Themselves | Callers::ThemselvesOrTheGateway, _) => AuthMode::Passthrough,
            (Callers::TheGateway, authentication) => AuthMode::of(authentication),
        };
        insert(&mut table, "mode", Some(mode.word()));
        if options.callers == Callers::ThemselvesOrTheGateway {
            insert(&mut table, "anonymous_as", Some("gateway"));
        }
        insert(&mut table, "username", self.username.as_deref());
        insert(&mut table, "password_file", self.password_file.as_deref().map(shown_path));
        insert(&mut table, "password_variable", self.password_variable.as_deref());
        insert(&mut table, "helper", self.helper.as_deref());
        insert(&mut table, "command", self.command.as_deref().map(without_arguments));
        insert(&mut table, "lifetime", self.lifetime().map(values::in_words));
        insert(&mut table, "endpoint", self.endpoint.as_ref().map(|Text(url)| url.to_string()));
        match &options.upstream.authentication {
            Authentication::DockerConfig { file, .. } => insert(&mut table, "file", Some(shown_path(file))),
            Authentication::Ecr { region, .. } => insert(&mut table, "region", Some(region.as_str())),
            _ => {}
        }
        table
    }
}

/// A command whose arguments may hold secrets.
fn without_arguments(command: &[String]) -> Vec<String> {
    let arguments = command.iter().skip(1).map(|_| "[redacted]".to_owned());
    command.first().cloned().into_iter().chain(arguments).collect()
}

impl ProxyTable {
    /// Without credentials, which stand in the URL of a proxy.
    fn in_force(&self) -> Table {
        let mut table = Table::from_iter([("direct".to_owned(), Value::from(self.direct))]);
        let origin = |url: &ProxyUrl| url.0.origin().ascii_serialization();
        insert(&mut table, "https", self.https.as_ref().map(origin));
        insert(&mut table, "http", self.http.as_ref().map(origin));
        insert(&mut table, "no_proxy", Some(self.no_proxy.clone()));
        table
    }
}
