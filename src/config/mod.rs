//! Floor 6: what the operator says, from flags, their `SCHEMABRIDGE_…` twins and a file. Nothing else reads the
//! environment.

pub mod admin;
mod auth;
pub mod clients;
mod door;
mod environment;
pub mod file;
mod forms;
mod keys;
pub mod layers;
pub mod lifecycle;
pub mod limits;
mod listen;
mod mistake;
mod store;
pub mod systemd;
pub mod tables;
pub mod telemetry;
pub mod tls;
mod unusable;
pub(crate) mod values;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};
use url::Url;

use crate::gateway::service::{ServiceOptions, Site};
use crate::gateway::{IndexLimits, Options, Pushes, SharedOptions, TrustedProxy};
use crate::negotiate::{ClientRule, Glob, PlatformRule, Policy, WithoutAccept};
use crate::translate::sign::SigningKey;
use crate::upstream::{self, Tls};

use admin::AdminArguments;
use auth::{AuthArguments, Binding};
use clients::{ClientTable, UnusableClient};
use door::DoorArguments;
pub use environment::{docker_config, unknown_variables};
use environment::{platform_settings, registry_proxy};
use file::File;
pub use forms::{Challenge, LogFormat, PushAsForm, RedirectsForm, Variant, WithoutAcceptForm};
pub use keys::{documentation, flags_in_force};
use layers::LayerArguments;
use lifecycle::LifecycleArguments;
use limits::{LimitArguments, RequestArguments};
pub use listen::{InvalidListenAddress, ListenAddress};
pub use mistake::one_line;
pub use store::{BoundsArguments, StoreArguments};
use tables::{BlobCacheTable, UpstreamTable};
use telemetry::TelemetryArguments;
use tls::TlsArguments;
pub use unusable::Unusable;

/// The flags of `serve`. Each has an environment twin, which the flag goes before.
#[derive(Args, Clone, Debug)]
pub struct ServeArguments {
    /// A file that says what no flag says, and more: see docs/configuration.md
    #[arg(long, env = "SCHEMABRIDGE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where clients connect: an address and a port, or `unix:` and the path of a socket, which speaks plain HTTP; repeatable.
    /// Sockets that systemd passes stand in place of these
    #[arg(
        long,
        env = "SCHEMABRIDGE_LISTEN",
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:5000"
    )]
    pub listen: Vec<ListenAddress>,

    /// How the process begins and ends.
    #[command(flatten)]
    pub lifecycle: LifecycleArguments,

    /// How clients connect, and what they show.
    #[command(flatten)]
    pub tls: TlsArguments,

    /// Who may come in.
    #[command(flatten)]
    pub door: DoorArguments,

    /// How much clients may have.
    #[command(flatten)]
    pub limits: LimitArguments,

    /// Where the operator connects, written likewise: the page, /api/clients, /api/status, /livez, /readyz, /startupz,
    /// /metrics and /refresh. The socket that systemd passes as `admin` stands in its place
    #[arg(long, env = "SCHEMABRIDGE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:5001")]
    pub admin_listen: ListenAddress,

    /// Who the operator is.
    #[command(flatten)]
    pub admin: AdminArguments,

    /// The settings of the gateway itself.
    #[command(flatten)]
    pub gateway: GatewayArguments,

    /// How much the store may hold.
    #[command(flatten)]
    pub bounds: BoundsArguments,

    /// How the log is written
    #[arg(long, env = "SCHEMABRIDGE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, env = "SCHEMABRIDGE_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = values::log_level)]
    pub log_level: tracing::Level,

    /// What is told of requests.
    #[command(flatten)]
    pub telemetry: TelemetryArguments,

    /// Test builds only: the process stops here, to be killed
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "POINT")]
    pub fault_point: Option<crate::store::fault_point::Arming>,
}

impl ServeArguments {
    /// All that the gateway does, as these and the file say.
    pub fn options(&self, file: &File) -> Result<ServiceOptions, Unusable> {
        let options = self.gateway.options(file)?;
        Ok(ServiceOptions { site: self.with_door(options.site)?, ..options })
    }

    /// What may change while it runs, as these and the file say; clients connect to these addresses until it ends.
    pub fn site(&self, file: &File, listened: &[SocketAddr]) -> Result<Site, Unusable> {
        let site = self.with_door(self.gateway.site(file)?)?;
        self.door.check(site.door.as_deref(), listened, &site.upstreams)?;
        Ok(site)
    }

    fn with_door(&self, site: Site) -> Result<Site, Unusable> {
        if self.listen.is_empty() {
            return Err(Unusable::NoListener);
        }
        let door = self.door.door(self.tls.client_names()?)?;
        let networks: Vec<SocketAddr> = self.listen.iter().filter_map(ListenAddress::network).collect();
        self.door.check(door.as_deref(), &networks, &site.upstreams)?;
        Ok(Site { door, ..site })
    }

    /// What holds from the start to the end, whatever the file says meanwhile.
    pub fn start_only(&self, file: &File) -> impl PartialEq + use<> {
        let (gateway, bounds) = (&self.gateway, self.bounds.bounds());
        let store = (gateway.store.store.clone(), gateway.store.store_endpoint.clone(), bounds);
        let memory = (gateway.cache_size, gateway.signing_key.clone(), file.tables.blob_cache.clone());
        let connections = (self.listen.clone(), self.tls.files().ok(), self.lifecycle.clone());
        let operator = (self.admin_listen.clone(), self.admin.clone());
        let log = (self.log_format, self.log_level, self.telemetry.clone());
        let limits = (self.limits.clone(), gateway.requests.start_only(), gateway.layers.limits());
        (connections, operator, limits, store, memory, log)
    }
}

/// The flags that decide how requests are answered.
#[derive(Args, Clone, Debug)]
pub struct GatewayArguments {
    /// The registry behind the gateway, such as `https://registry.example`; with a name, which is its prefix and its `ns`,
    /// repeatable. Goes before the upstreams of the file
    #[arg(long, env = "SCHEMABRIDGE_UPSTREAM", value_name = "[NAME=]URL", value_delimiter = ',', value_parser = values::upstream)]
    pub upstream: Vec<UpstreamTable>,

    /// The name of the upstream that is meant where a request does not say which; `none` for no such upstream [default: the
    /// first]
    #[arg(long, env = "SCHEMABRIDGE_DEFAULT_UPSTREAM", value_name = "NAME")]
    pub default_upstream: Option<String>,

    /// Where derived documents last
    #[command(flatten)]
    pub store: StoreArguments,

    /// How much memory documents may take
    #[arg(long, env = "SCHEMABRIDGE_CACHE_SIZE", value_name = "SIZE", default_value = "256MiB", value_parser = values::byte_size)]
    pub cache_size: u64,

    /// How long the upstream's answer to one caller is remembered; 0s asks each time [default: 0s, or 60s where the
    /// credentials are the gateway's own]
    #[arg(long, env = "SCHEMABRIDGE_TAG_TTL", value_name = "DURATION", value_parser = values::duration)]
    pub tag_ttl: Option<Duration>,

    /// What becomes of the realm in the upstream's bearer challenge
    #[arg(long, env = "SCHEMABRIDGE_CHALLENGE", value_name = "MODE", default_value = "pass")]
    pub challenge: Challenge,

    /// The gateway's own URL as clients know it [default: built from each request's Host]
    #[arg(long, env = "SCHEMABRIDGE_EXTERNAL_URL", value_name = "URL", value_parser = values::plain_url)]
    pub external_url: Option<Url>,

    /// Networks of proxies whose X-Forwarded-Proto and X-Forwarded-For are believed, and `unix` for whoever connects to a
    /// socket in the file system; repeatable
    #[arg(long, env = "SCHEMABRIDGE_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxies: Vec<TrustedProxy>,

    /// A token service beyond the upstream's own host that its challenges may name; repeatable
    #[arg(long, env = "SCHEMABRIDGE_TOKEN_REALM", value_name = "URL", value_delimiter = ',', value_parser = values::plain_url)]
    pub token_realm: Vec<Url>,

    /// Whose credentials the upstream is shown.
    #[command(flatten)]
    pub auth: AuthArguments,

    /// Whether clients follow redirects of blobs or the gateway does; auto: it does for Docker before 1.13 and where the
    /// target is not one of the redirect hosts
    #[arg(long, env = "SCHEMABRIDGE_REDIRECTS", value_name = "MODE", default_value = "auto")]
    pub redirects: RedirectsForm,

    /// Hosts to which redirects let clients go; repeatable
    #[arg(long, env = "SCHEMABRIDGE_REDIRECT_HOSTS", value_name = "GLOB", value_delimiter = ',', default_value = "*")]
    pub redirect_hosts: Vec<Glob>,

    /// Authorities in PEM that are trusted for the upstream beside the machine's
    #[arg(long, env = "SCHEMABRIDGE_UPSTREAM_CA", value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,

    /// Let pushes through to the upstream
    #[arg(long, env = "SCHEMABRIDGE_PUSH", value_name = "true|false", value_parser = clap::builder::BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub push: bool,

    /// What is stored in the place of a pushed schema 1 that the upstream does not take
    #[arg(long, env = "SCHEMABRIDGE_PUSH_AS", value_name = "FORMAT", default_value = "schema2")]
    pub push_as: PushAsForm,

    /// What an unknown client that sends no Accept header gets
    #[arg(long, env = "SCHEMABRIDGE_WITHOUT_ACCEPT", value_name = "FORM", default_value = "stored")]
    pub without_accept: WithoutAcceptForm,

    /// The platform whose image is picked out of a list, for all repositories or those that match a pattern; repeatable
    /// [default: the client's own, or linux/amd64 where it does not say]
    #[arg(long, env = "SCHEMABRIDGE_PLATFORM", value_name = "[GLOB=]OS/ARCHITECTURE", value_delimiter = ',', value_parser = values::platform_rule)]
    pub platform: Vec<PlatformRule>,

    /// The order in which variants of arm are tried for a client that does not say its own; `none` is an entry without
    #[arg(long, env = "SCHEMABRIDGE_ARM_VARIANTS", value_name = "VARIANTS", value_delimiter = ',', default_value = "v6,v5,none,v7", value_parser = values::variant)]
    pub arm_variants: Vec<Variant>,

    /// How many entries a list or index may have to be translated
    #[arg(long, env = "SCHEMABRIDGE_INDEX_ENTRIES", value_name = "NUMBER", default_value = "256")]
    pub index_entries: usize,

    /// How deep lists and indexes may be nested in each other
    #[arg(long, env = "SCHEMABRIDGE_INDEX_NESTING", value_name = "NUMBER", default_value = "4")]
    pub index_nesting: usize,

    /// How many children of one list or index are asked for at once
    #[arg(long, env = "SCHEMABRIDGE_CHILDREN_AT_ONCE", value_name = "NUMBER", default_value = "32")]
    pub children_at_once: NonZeroUsize,

    /// What layers are read for.
    #[command(flatten)]
    pub layers: LayerArguments,

    /// The key that signs schema 1: a P-256 private key in PEM [default: made once and kept in the store]
    #[arg(long, env = "SCHEMABRIDGE_SIGNING_KEY", value_name = "FILE")]
    pub signing_key: Option<PathBuf>,

    /// What a request may ask of the gateway.
    #[command(flatten)]
    pub requests: RequestArguments,

    /// How long a connection to the upstream may take to be made
    #[arg(long, env = "SCHEMABRIDGE_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub connect_timeout: Duration,

    /// How long the head of the upstream's answer may take
    #[arg(long, env = "SCHEMABRIDGE_ANSWER_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub answer_timeout: Duration,

    /// How long the upstream may send nothing in the middle of a body
    #[arg(long, env = "SCHEMABRIDGE_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub idle_timeout: Duration,

    /// How long a whole document of the upstream (a manifest, a config, a token) may take
    #[arg(long, env = "SCHEMABRIDGE_DOCUMENT_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub document_timeout: Duration,
}

impl GatewayArguments {
    /// The options of a gateway that does what these and the file say.
    pub fn options(&self, file: &File) -> Result<ServiceOptions, Unusable> {
        let shared = SharedOptions {
            store: self.store.location()?,
            cache_bytes: self.cache_size,
            blob_cache: file.tables.blob_cache.as_ref().map(BlobCacheTable::options),
            manifests: self.requests.manifests(),
            signing_key: self.signing_key.as_ref().map(|file| signing_key(file).map(Arc::new)).transpose()?,
            layers: self.layers.limits(),
            ..SharedOptions::default()
        };
        Ok(ServiceOptions { shared, site: self.site(file)? })
    }

    /// The upstreams as tables: those of the flags, or else of the file, or else of distribution's variables.
    pub fn tables(&self, file: &File) -> Result<Vec<UpstreamTable>, Unusable> {
        let drop_in = Vec::from_iter(registry_proxy().transpose()?);
        let said = [&self.upstream, &file.tables.upstreams, &drop_in];
        let tables = said.into_iter().find(|tables| !tables.is_empty());
        tables.cloned().ok_or(Unusable::NoUpstream)
    }

    /// The upstreams that these and the file say.
    pub fn site(&self, file: &File) -> Result<Site, Unusable> {
        let tables = self.tables(file)?;
        let first = tables.first().ok_or(Unusable::NoUpstream)?;
        let mut names = BTreeSet::new();
        if let Some(twice) = tables.iter().find(|table| !names.insert(table.name())) {
            return Err(Unusable::TwoOfOneName(twice.name().to_owned()));
        }
        let default = match self.default_upstream.as_deref() {
            Some("none") => None,
            name => {
                let name = name.unwrap_or(first.name());
                let place = tables.iter().position(|table| table.name() == name);
                Some(place.ok_or_else(|| Unusable::NoSuchDefault {
                    name: name.to_owned(),
                    known: tables.iter().map(UpstreamTable::name).collect::<Vec<_>>().join("`, `"),
                })?)
            }
        };
        let clients = client_rules(&file.tables.clients)?;
        let upstreams = tables.iter().enumerate().map(|(place, table)| {
            let names = table.names();
            let is_bound = default == Some(place) || !names.hosts.is_empty();
            let binding = if is_bound { Binding::Bound } else { Binding::Unbound };
            Ok((self.upstream_options(table, binding, &clients)?, names))
        });
        let upstreams = upstreams.collect::<Result<_, Unusable>>()?;
        Ok(Site { upstreams, default, door: None, trusted_proxies: self.trusted_proxies.clone() })
    }

    fn upstream_options(
        &self,
        table: &UpstreamTable,
        binding: Binding,
        clients: &[ClientRule],
    ) -> Result<Options, Unusable> {
        let mut options = table.options(self.defaults(table.url()))?;
        options.policy.clients = clients.to_vec();
        auth::decide(table, &self.auth, binding, &mut options)?;
        options.tags = table.tags(options.upstream.permission, self.tag_ttl);
        Ok(options)
    }

    /// What an upstream is like of which nothing is said but its URL.
    fn defaults(&self, url: &Url) -> Options {
        let mut options = Options::for_upstream(url.clone());
        options.upstream = upstream::Options {
            connect_timeout: self.connect_timeout,
            answer_timeout: self.answer_timeout,
            idle_timeout: self.idle_timeout,
            document_timeout: self.document_timeout,
            uploads: self.requests.uploads(),
            token_realms: self.token_realm.clone(),
            redirects: self.redirects.into(),
            redirect_hosts: self.redirect_hosts.clone(),
            tls: Tls { authorities: self.upstream_ca.clone(), ..Tls::default() },
            ..options.upstream
        };
        options.challenge = self.challenge.into();
        options.external_url.clone_from(&self.external_url);
        options.pushes = if self.push { Pushes::Forwarded } else { Pushes::Refused };
        options.push_as = self.push_as.into();
        options.policy = Policy {
            without_accept: match self.without_accept {
                WithoutAcceptForm::Stored => WithoutAccept::Stored,
                WithoutAcceptForm::Schema1 => WithoutAccept::Schema1,
            },
            platforms: self.platform.clone(),
            arm_variants: self.arm_variants.iter().map(|Variant(variant)| variant.clone()).collect(),
            layers: self.layers.work(),
            ..Policy::default()
        };
        options.index = IndexLimits {
            entries_max: self.index_entries,
            nesting_max: self.index_nesting,
            children_at_once: self.children_at_once.get(),
        };
        options
    }
}

/// Reads a signing key.
pub fn signing_key(file: &std::path::Path) -> Result<SigningKey, Unusable> {
    let unusable = |reason: String| Unusable::SigningKey { file: file.to_owned(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    SigningKey::from_pem(&text).map_err(|error| unusable(error.to_string()))
}

fn client_rules(tables: &[ClientTable]) -> Result<Vec<ClientRule>, Unusable> {
    let numbered = tables.iter().enumerate();
    let rules = numbered.map(|(place, table)| {
        let unusable = |error: UnusableClient| Unusable::Client { number: place + 1, reason: error.to_string() };
        ClientRule::try_from(table.clone()).map_err(unusable)
    });
    rules.collect()
}

/// What is in force, as a file would say it: every flag and every upstream, without secrets.
pub fn in_force(
    flags: &[(String, Vec<String>)],
    gateway: &GatewayArguments,
    file: &File,
    options: &ServiceOptions,
) -> Result<String, Unusable> {
    let value = |values: &[String]| match values {
        [one] => toml::Value::from(one.as_str()),
        several => toml::Value::from(several.to_vec()),
    };
    let mut shown: toml::Table = flags.iter().map(|(key, values)| (key.clone(), value(values))).collect();
    let tables = gateway.tables(file)?;
    let upstreams = tables.iter().zip(&options.site.upstreams).map(|(table, (options, names))| {
        let auth = gateway.auth.said_of(table);
        toml::Value::Table(table.in_force(&auth, options, names))
    });
    shown.insert("upstream".to_owned(), toml::Value::Array(upstreams.collect()));
    if !file.tables.clients.is_empty() {
        let clients = file.tables.clients.iter().map(|client| toml::Value::Table(client.in_force()));
        shown.insert("client".to_owned(), toml::Value::Array(clients.collect()));
    }
    if let Some(cache) = &file.tables.blob_cache {
        shown.insert("blob_cache".to_owned(), toml::Value::Table(cache.in_force()));
    }
    Ok(shown.to_string())
}
