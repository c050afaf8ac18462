//! Who asks: what one request's headers say, and what is known about their sender.

use std::fmt;

use crate::image::media_type::Format;
use crate::image::platform::Platform;
use crate::image::reference::Repository;

use super::accept::{Accept, Presence};
use super::clients::{Mode, Quirk, Recognised, recognise};
use super::formats::Formats;
use super::platform::{PlatformRule, WantedPlatform};
use super::user_agent::{UserAgent, Version};

/// What the operator decides about negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What an unknown client without an `Accept` header gets.
    pub without_accept: WithoutAccept,
    /// The platforms that the operator fixed, whatever a client says of its own; the first whose pattern matches counts.
    pub platforms: Vec<PlatformRule>,
    /// The platform picked for a client that does not say its own, where no rule matches.
    pub platform: Platform,
    /// The order in which variants are tried for an `arm` client, none of which says its variant: the one that runs
    /// everywhere first. `None` is an entry without a variant.
    pub arm_variants: Vec<Option<String>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            without_accept: WithoutAccept::Stored,
            platforms: Vec::new(),
            platform: Platform::linux_amd64(),
            arm_variants: vec![Some("v6".into()), Some("v5".into()), None, Some("v7".into())],
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

/// What one request's headers say about who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    accept: Accept,
    recognised: Option<Recognised>,
    docker_version: Option<Version>,
    platform: WantedPlatform,
    without_accept: WithoutAccept,
}

impl Client {
    /// Reads all `Accept` lines and the `User-Agent`, as raw header bytes. Never fails.
    pub fn from_headers<'a>(
        accept: impl IntoIterator<Item = &'a [u8]>,
        user_agent: Option<&'a [u8]>,
        policy: &Policy,
    ) -> Self {
        let user_agent = UserAgent::parse(user_agent.unwrap_or_default());
        let platform = match user_agent.platform() {
            Some((os, architecture)) => Platform::new(os, architecture),
            None => policy.platform.clone(),
        };
        let platform = WantedPlatform::new(platform, &policy.arm_variants).on_windows_build(user_agent.windows_build());
        Self {
            accept: Accept::parse(accept),
            recognised: recognise(&user_agent),
            docker_version: user_agent.product("docker").and_then(|docker| Version::parse(docker.version)),
            platform,
            without_accept: policy.without_accept,
        }
    }

    /// The class of the client in the table, such as `docker<1.10`; `unknown` where no line matches.
    pub fn class(&self) -> &'static str {
        self.recognised.map_or("unknown", |recognised| recognised.rule.class)
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
            Some(rule) => WantedPlatform::new(rule.platform.clone(), &policy.arm_variants)
                .on_windows_build(self.platform.windows_build()),
            None => self.platform.clone(),
        }
    }

    /// What the `Accept` lines say.
    pub fn accept(&self) -> &Accept {
        &self.accept
    }

    /// Whether a line of the table is about this client.
    pub fn is_known(&self) -> bool {
        self.recognised.is_some()
    }

    /// Whether the client has `quirk`.
    pub fn has(&self, quirk: Quirk) -> bool {
        self.recognised.is_some_and(|recognised| recognised.rule.quirks.contains(&quirk))
    }

    /// How the client's `Accept` counts.
    pub fn mode(&self) -> Mode {
        self.recognised.map_or(Mode::Plain, |recognised| recognised.rule.mode)
    }

    /// The formats that the client claims to read; of a strict one, those that it does read.
    pub fn covered(&self) -> Formats {
        match self.recognised {
            Some(Recognised { rule, .. }) if rule.mode == Mode::Strict => rule.reads,
            // Docker 19.03.0 to 19.03.4 lists OCI's types and cannot read them: an artifact would end in "missing
            // signature key", so there our words are the better ones
            Some(Recognised { rule, .. }) if !rule.reads.contains(Format::Oci) => {
                self.accept.covered().without(Format::Artifact)
            }
            _ => self.accept.covered(),
        }
    }

    /// The formats that the client can use: what it claims, narrowed by what it is known to read.
    pub fn usable(&self) -> Formats {
        match self.recognised {
            Some(Recognised { rule, .. }) => match rule.mode {
                Mode::Strict => rule.reads,
                Mode::Probe => Formats::ALL,
                Mode::Plain => rule.reads.intersection(self.accept.covered()),
            },
            None => match (self.accept.presence(), self.without_accept) {
                (Presence::Absent, WithoutAccept::Schema1) => Formats::of(&[Format::Schema1]),
                _ => self.accept.covered(),
            },
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
