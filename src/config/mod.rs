//! Floor 6: what the operator says, from flags and their `SCHEMABRIDGE_…` twins. Nothing else reads the environment.

pub mod clients;
pub(crate) mod values;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};
use ipnet::IpNet;
use url::Url;

use crate::gateway::{ChallengeMode, IndexLimits, Options, Pushes};
use crate::negotiate::{PlatformRule, Policy, WithoutAccept};
use crate::store::sweep::Bounds;
use crate::store::{Bucket, Location};
use crate::translate::sign::SigningKey;
use crate::upstream;

/// The prefix of every environment variable that is ours.
const PREFIX: &str = "SCHEMABRIDGE_";

/// The flags of `serve`. Each has an environment twin, which the flag goes before.
#[derive(Args, Clone, Debug)]
pub struct ServeArguments {
    /// Where clients connect: an address and a port; repeatable
    #[arg(long, env = "SCHEMABRIDGE_LISTEN", value_name = "ADDRESS", value_delimiter = ',', default_value = "127.0.0.1:5000", value_parser = values::address)]
    pub listen: Vec<SocketAddr>,

    /// Where the operator connects: /livez, /readyz and /metrics
    #[arg(long, env = "SCHEMABRIDGE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:5001", value_parser = values::address)]
    pub admin_listen: SocketAddr,

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

    /// Test builds only: the process stops here, to be killed
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "POINT")]
    pub fault_point: Option<crate::store::fault_point::Arming>,
}

/// The flags that decide how requests are answered.
#[derive(Args, Clone, Debug)]
pub struct GatewayArguments {
    /// The registry behind the gateway, such as `https://registry.example`
    #[arg(long, env = "SCHEMABRIDGE_UPSTREAM", value_name = "URL", value_parser = values::registry_url)]
    pub upstream: Option<Url>,

    /// Where derived documents last
    #[command(flatten)]
    pub store: StoreArguments,

    /// How much memory documents may take
    #[arg(long, env = "SCHEMABRIDGE_CACHE_SIZE", value_name = "SIZE", default_value = "256MiB", value_parser = values::byte_size)]
    pub cache_size: u64,

    /// How long the upstream's consent to one caller is remembered; 0s asks each time
    #[arg(long, env = "SCHEMABRIDGE_TAG_TTL", value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub tag_ttl: Duration,

    /// What becomes of the realm in the upstream's bearer challenge
    #[arg(long, env = "SCHEMABRIDGE_CHALLENGE", value_name = "MODE", default_value = "pass")]
    pub challenge: Challenge,

    /// The gateway's own URL as clients know it [default: built from each request's Host]
    #[arg(long, env = "SCHEMABRIDGE_EXTERNAL_URL", value_name = "URL", value_parser = values::plain_url)]
    pub external_url: Option<Url>,

    /// Networks of proxies whose X-Forwarded-Proto and X-Forwarded-For are believed; repeatable
    #[arg(long, env = "SCHEMABRIDGE_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',', value_parser = values::network)]
    pub trusted_proxies: Vec<IpNet>,

    /// A token service beyond the upstream's own host that its challenges may name
    #[arg(long, env = "SCHEMABRIDGE_TOKEN_REALM", value_name = "URL", value_parser = values::plain_url)]
    pub token_realm: Option<Url>,

    /// Let pushes through to the upstream
    #[arg(long, env = "SCHEMABRIDGE_PUSH", value_parser = clap::builder::BoolishValueParser::new())]
    pub push: bool,

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

    /// The key that signs schema 1: a P-256 private key in PEM [default: made once and kept in the store]
    #[arg(long, env = "SCHEMABRIDGE_SIGNING_KEY", value_name = "FILE")]
    pub signing_key: Option<PathBuf>,

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

/// The flags that say where the store is.
#[derive(Args, Clone, Debug)]
pub struct StoreArguments {
    /// Where derived documents last: `memory:`, `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`; credentials of a bucket come from the platform's usual places [default: a state directory]
    #[arg(long, env = "SCHEMABRIDGE_STORE", value_name = "URL")]
    pub store: Option<Location>,

    /// The URL of the service that keeps the bucket, where it is not the cloud's own
    #[arg(long, env = "SCHEMABRIDGE_STORE_ENDPOINT", value_name = "URL", value_parser = values::plain_url)]
    pub store_endpoint: Option<Url>,
}

impl StoreArguments {
    /// A store that is forgotten at the end.
    pub const fn memory() -> Self {
        Self { store: Some(Location::Memory), store_endpoint: None }
    }

    /// The store that these name, or the state directory; a bucket with what the platform's variables say.
    pub fn location(&self) -> Result<Location, Unusable> {
        let location = match &self.store {
            Some(location) => location.clone(),
            None => Location::Directory(state_directory().ok_or(Unusable::NoStateDirectory)?),
        };
        Ok(match location {
            Location::Bucket(bucket) => {
                let settings = platform_settings(bucket.service.variables());
                Location::Bucket(Bucket { endpoint: self.store_endpoint.clone(), settings, ..bucket })
            }
            _ if self.store_endpoint.is_some() => return Err(Unusable::EndpointWithoutBucket),
            location => location,
        })
    }
}

/// The flags that bound a store.
#[derive(Args, Clone, Debug)]
pub struct BoundsArguments {
    /// How many bytes of derived documents a directory may hold; the least lately used go first and are made again when asked for
    #[arg(long, env = "SCHEMABRIDGE_STORE_MAX_SIZE", value_name = "SIZE", default_value = "10GiB", value_parser = values::byte_size)]
    pub store_max_size: u64,

    /// How many recipes a directory may hold; the least lately used go first, and their digests with them
    #[arg(long, env = "SCHEMABRIDGE_STORE_MAX_RECIPES", value_name = "NUMBER", default_value = "1000000")]
    pub store_max_recipes: usize,

    /// How long after its last use a recipe is kept in a directory
    #[arg(long, env = "SCHEMABRIDGE_RECIPE_MAX_AGE", value_name = "DURATION", default_value = "400d", value_parser = values::duration)]
    pub recipe_max_age: Duration,
}

impl BoundsArguments {
    /// The bounds that these say.
    pub const fn bounds(&self) -> Bounds {
        Bounds {
            documents_bytes_max: Some(self.store_max_size),
            recipes_max: self.store_max_recipes,
            recipe_age_max: self.recipe_max_age,
        }
    }
}

/// A variant of an architecture, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant(pub Option<String>);

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// What becomes of the realm in the upstream's bearer challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Challenge {
    /// It goes to the client as it is.
    Pass,
    /// It points at the gateway's own /token.
    Rewrite,
}

/// What an unknown client that sends no Accept header gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WithoutAcceptForm {
    /// The stored form.
    Stored,
    /// Schema 1.
    Schema1,
}

/// Why what the operator says cannot be used. One line: the flag, the value, what would be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is no upstream.
    #[error(
        "--upstream is missing: expected the URL of the registry behind the gateway, such as `--upstream https://registry.example`"
    )]
    NoUpstream,
    /// The signing key cannot be used.
    #[error("--signing-key {}: {reason}; expected a P-256 private key in PEM", .file.display())]
    SigningKey {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An endpoint for a store that has none.
    #[error("--store-endpoint is for a bucket: expected it beside `--store s3://…`, `gs://…` or `az://…`")]
    EndpointWithoutBucket,
    /// There is no place for state.
    #[error(
        "--store is missing and no state directory is known, because neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set: expected `--store file:///directory` or `--store memory:`"
    )]
    NoStateDirectory,
}

impl GatewayArguments {
    /// The options of a gateway that does what these say.
    pub fn options(&self) -> Result<Options, Unusable> {
        let upstream = self.upstream.clone().ok_or(Unusable::NoUpstream)?;
        let mut options = Options::for_upstream(upstream);
        options.upstream = upstream::Options {
            connect_timeout: self.connect_timeout,
            answer_timeout: self.answer_timeout,
            idle_timeout: self.idle_timeout,
            document_timeout: self.document_timeout,
            token_realm: self.token_realm.clone(),
            ..options.upstream
        };
        options.store = self.store.location()?;
        options.cache_bytes = self.cache_size;
        options.tag_ttl = self.tag_ttl;
        options.challenge = match self.challenge {
            Challenge::Pass => ChallengeMode::Pass,
            Challenge::Rewrite => ChallengeMode::Rewrite,
        };
        options.external_url.clone_from(&self.external_url);
        options.trusted_proxies.clone_from(&self.trusted_proxies);
        options.pushes = if self.push { Pushes::Forwarded } else { Pushes::Refused };
        options.policy = Policy {
            without_accept: match self.without_accept {
                WithoutAcceptForm::Stored => WithoutAccept::Stored,
                WithoutAcceptForm::Schema1 => WithoutAccept::Schema1,
            },
            platforms: self.platform.clone(),
            arm_variants: self.arm_variants.iter().map(|Variant(variant)| variant.clone()).collect(),
            ..Policy::default()
        };
        options.index = IndexLimits {
            entries_max: self.index_entries,
            nesting_max: self.index_nesting,
            children_at_once: self.children_at_once.get(),
        };
        options.signing_key = self.signing_key.as_ref().map(|file| signing_key(file).map(Arc::new)).transpose()?;
        Ok(options)
    }
}

/// Reads a signing key.
pub fn signing_key(file: &std::path::Path) -> Result<SigningKey, Unusable> {
    let unusable = |reason: String| Unusable::SigningKey { file: file.to_owned(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    SigningKey::from_pem(&text).map_err(|error| unusable(error.to_string()))
}

/// Where state is kept by convention: the directory that systemd made for the service, or the user's.
fn state_directory() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path("STATE_DIRECTORY")
        .or_else(|| path("XDG_STATE_HOME").map(|state| state.join("schemabridge")))
        .or_else(|| path("HOME").map(|home| home.join(".local/state/schemabridge")))
}

/// The variables that begin in one of these ways, their names in lower case.
fn platform_settings(beginnings: &[&str]) -> Vec<(String, String)> {
    let ours = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables
        .filter(|(name, value)| ours(name) && !value.is_empty())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}

/// Docker's `config.json`, by docker's own rules.
pub fn docker_config() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    path("DOCKER_CONFIG")
        .or_else(|| path("HOME").map(|home| home.join(".docker")))
        .map(|folder| folder.join("config.json"))
}

/// The variables of the environment that begin like ours and are not: most likely a misspelt flag. What Kubernetes
/// injects for a service of our name is left out.
pub fn unknown_variables<Commands: CommandFactory>() -> Vec<String> {
    let command = Commands::command();
    let known: BTreeSet<String> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
        .collect();
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name))
        .filter(|name| !name.starts_with("SCHEMABRIDGE_PORT") && !name.starts_with("SCHEMABRIDGE_SERVICE_"))
        .collect();
    unknown.sort();
    unknown
}
