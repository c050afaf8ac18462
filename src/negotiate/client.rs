//! Who asks: what one request's headers say, and what is known about their sender.

use core::net::IpAddr;
use std::fmt;

use crate::image::media_type::Format;
use crate::image::platform::Platform;
use crate::image::reference::Repository;

use super::accept::{Accept, Presence};
use super::clients::{Mode, Quirk, Recognised, recognise};
use super::formats::Formats;
use super::platform::{PlatformRule, WantedPlatform};
use super::rules::{Asks, ClientRule, Schema1, Treatment};
use super::user_agent::{UserAgent, Version};

/// What the operator decides about negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What an unknown client without an `Accept` header gets.
    pub without_accept: WithoutAccept,
    /// What the operator says about clients, before the table; the first rule that matches counts.
    pub clients: Vec<ClientRule>,
    /// The platforms that the operator fixed, whatever a client says of its own; the first whose pattern matches counts.
    pub platforms: Vec<PlatformRule>,
    /// The platform picked for a client that does not say its own, where no rule matches.
    pub platform: Platform,
    /// The order in which variants are tried for an `arm` client, none of which says its variant: the one that runs
    /// everywhere first. `None` is an entry without a variant.
    pub arm_variants: Vec<Option<String>>,
    /// Whether layers are read for clients that cannot use an image otherwise.
    pub layers: LayerWork,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            without_accept: WithoutAccept::Stored,
            clients: Vec::new(),
            platforms: Vec::new(),
            platform: Platform::linux_amd64(),
            arm_variants: vec![Some("v6".into()), Some("v5".into()), None, Some("v7".into())],
            layers: LayerWork::default(),
        }
    }
}

/// What an unknown client without an `Accept` header gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutAccept {
    /// The stored form: curl and scripts.
    #[default]
    Stored,
    /// Schema 1, as CNCF distribution 2 answers: for clients from before 2016 that are not Docker.
    Schema1,
}

/// What the operator opts in to that reads layers. Default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerWork {
    /// For clients that cannot read schema 1.
    pub upgrade: Upgrade,
    /// For clients and formats that cannot read layers as they are compressed.
    pub transcode: Transcode,
}

/// What is upgraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing.
    #[default]
    Nothing,
    /// Stored schema 1.
    Schema1,
}

/// What is transcoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transcode {
    /// Nothing.
    #[default]
    Nothing,
    /// Layers compressed with zstd, to gzip.
    Zstd,
}

impl LayerWork {
    /// Whether any layer is ever read.
    pub fn are_read(self) -> bool {
        self != Self::default()
    }
}

/// What one request's headers say about who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    accept: Accept,
    recognised: Option<Recognised>,
    reads: Option<Formats>,
    mode: Mode,
    schema1: Schema1,
    docker_version: Option<Version>,
    platform: WantedPlatform,
    platform_source: PlatformSource,
    without_accept: WithoutAccept,
    layers: LayerWork,
}

/// Who said what a client's platform is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlatformSource {
    /// The operator, about this client: no rule about repositories is asked.
    Rule,
    /// The client, or the default.
    Client,
}

/// What a client accepts that asks in the place of an engine: the engine's line of the table says what it reads.
const ANYTHING: &[u8] = b"*/*";

impl Client {
    /// Reads all `Accept` lines and the `User-Agent`, as raw header bytes. Never fails.
    pub fn from_headers<'a>(
        accept: impl IntoIterator<Item = &'a [u8]>,
        user_agent: Option<&'a [u8]>,
        address: IpAddr,
        policy: &Policy,
    ) -> Self {
        let user_agent = UserAgent::parse(user_agent.unwrap_or_default());
        let rule = policy.clients.iter().find(|rule| rule.is_about(&user_agent, address)).map(ClientRule::treatment);
        match rule {
            Some(Treatment { asks: Asks::ForEngine(engine), .. }) => {
                Self::new(Accept::parse([ANYTHING]), &UserAgent::parse(engine.as_bytes()), rule, policy)
            }
            _ => Self::new(Accept::parse(accept), &user_agent, rule, policy),
        }
    }

    fn new(accept: Accept, user_agent: &UserAgent<'_>, rule: Option<&Treatment>, policy: &Policy) -> Self {
        let recognised = recognise(user_agent);
        let (platform, platform_source) = match (rule.and_then(|rule| rule.platform.as_ref()), user_agent.platform()) {
            (Some(fixed), _) => (fixed.clone(), PlatformSource::Rule),
            (None, Some((os, architecture))) => (Platform::new(os, architecture), PlatformSource::Client),
            (None, None) => (policy.platform.clone(), PlatformSource::Client),
        };
        let mode = recognised.map_or(Mode::Plain, |recognised| recognised.rule.mode);
        let is_probe = rule.is_some_and(|rule| rule.asks == Asks::ForStored);
        Self {
            accept,
            recognised,
            reads: rule.and_then(|rule| rule.reads).or(recognised.map(|recognised| recognised.rule.reads)),
            mode: if is_probe { Mode::Probe } else { mode },
            schema1: rule.map_or(Schema1::Allowed, |rule| rule.schema1),
            docker_version: user_agent.product("docker").and_then(|docker| Version::parse(docker.version)),
            platform: WantedPlatform::new(platform, &policy.arm_variants).on_windows_build(user_agent.windows_build()),
            platform_source,
            without_accept: policy.without_accept,
            layers: policy.layers,
        }
    }

    /// The class of the client in the table, such as `docker<1.10`; `unknown` where no line matches.
    pub fn class(&self) -> &'static str {
        self.recognised.map_or("unknown", |recognised| recognised.rule.class)
    }

    /// Whether a line of the table is about this client.
    pub fn is_recognised(&self) -> bool {
        self.recognised.is_some()
    }

    /// The version of the Docker engine, if it is one that says its version.
    pub fn docker_version(&self) -> Option<Version> {
        self.docker_version
    }

    /// The platform whose image is picked out of a list or index.
    pub fn platform(&self) -> &WantedPlatform {
        &self.platform
    }

    /// The same for one repository, for which the operator may have fixed another.
    pub fn platform_for(&self, repository: &Repository, policy: &Policy) -> WantedPlatform {
        match policy.platforms.iter().find(|rule| rule.repositories.matches(repository.as_str())) {
            Some(rule) if self.platform_source == PlatformSource::Client => {
                WantedPlatform::new(rule.platform.clone(), &policy.arm_variants)
                    .on_windows_build(self.platform.windows_build())
            }
            _ => self.platform.clone(),
        }
    }

    /// What the `Accept` lines say.
    pub fn accept(&self) -> &Accept {
        &self.accept
    }

    /// Whether a line of the table, or a rule of the operator's, says what this client reads.
    pub fn is_known(&self) -> bool {
        self.reads.is_some()
    }

    /// Whether the client may get schema 1.
    pub fn schema1(&self) -> Schema1 {
        self.schema1
    }

    /// Whether the client has `quirk`.
    pub fn has(&self, quirk: Quirk) -> bool {
        self.recognised.is_some_and(|recognised| recognised.rule.quirks.contains(&quirk))
    }

    /// What layers are read for, for this client as for any other.
    pub fn layers(&self) -> LayerWork {
        self.layers
    }

    /// How the client's `Accept` counts.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The formats that the client claims to read; of a strict one, those that it does read. Never one that the operator
    /// denies it.
    pub fn covered(&self) -> Formats {
        self.allowed(match (self.reads, self.mode) {
            (Some(reads), Mode::Strict) => reads,
            // Docker 19.03.0 to 19.03.4 lists OCI's types and cannot read them: an artifact would end in "missing
            // signature key", so there our words are the better ones
            (Some(reads), _) if !reads.contains(Format::Oci) => self.accept.covered().without(Format::Artifact),
            _ => self.accept.covered(),
        })
    }

    /// The formats that the client can use: what it claims, narrowed by what it is known to read and may get.
    pub fn usable(&self) -> Formats {
        self.allowed(self.readable())
    }

    /// The same, whatever the operator denies it.
    pub(super) fn readable(&self) -> Formats {
        match (self.reads, self.mode) {
            (_, Mode::Probe) => Formats::ALL,
            (Some(reads), Mode::Strict) => reads,
            (Some(reads), Mode::Plain) => reads.intersection(self.accept.covered()),
            (None, _) => match (self.accept.presence(), self.without_accept) {
                (Presence::Absent, WithoutAccept::Schema1) => Formats::of(&[Format::Schema1]),
                _ => self.accept.covered(),
            },
        }
    }

    fn allowed(&self, formats: Formats) -> Formats {
        match self.schema1 {
            Schema1::Allowed => formats,
            Schema1::Denied => formats.without(Format::Schema1),
        }
    }
}

/// The client's name in a sentence: `Docker 1.9.1`, `this client`.
impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.recognised {
            None => formatter.write_str("this client"),
            Some(recognised) => recognised.fmt(formatter),
        }
    }
}
