//! The tables of the file, and the upstreams that they make.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};
use url::Url;

use crate::gateway::{ChallengeMode, Options, Pushes, RepositoryRules, SingleNames};
use crate::negotiate::{Glob, PlatformRule};
use crate::upstream::route::RouteNames;

use super::file::in_one_line;
use super::{Challenge, Variant, values};

/// Every table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tables {
    /// The upstreams.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<UpstreamTable>,
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

impl Tables {
    /// The tables in what is left of a file.
    pub(super) fn deserialize(table: Table) -> Result<Self, String> {
        table.try_into().map_err(|error| in_one_line(&error))
    }
}

impl UpstreamTable {
    /// An upstream of which only name and URL are said: `--upstream NAME=URL`.
    pub(super) fn named(name: Name, url: Url) -> Self {
        let prefix = Some(name.0.clone());
        let aliases = Some(vec![name.0.clone()]);
        Self { prefix, aliases, ..Self::of(name, url) }
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

    /// What metrics, logs and the store call it.
    pub(super) fn name(&self) -> &str {
        &self.name.0
    }

    /// What clients may call it. Where no alias is said, it has those that its URL gives it.
    pub(super) fn names(&self) -> RouteNames {
        let given = || {
            let own = self.url.host_str().map(|host| match self.url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            });
            let hub: &[&str] =
                if crate::upstream::is_docker_hub(&self.url) { &crate::upstream::DOCKER_HUB_HOSTS } else { &[] };
            own.into_iter().chain(hub.iter().map(|&host| host.to_owned())).collect()
        };
        let aliases = self.aliases.clone().unwrap_or_else(given);
        RouteNames { aliases, hosts: self.hosts.clone(), prefix: self.prefix.clone() }
    }

    /// The registry.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// Its options; `options` are what the flags say of an upstream at its URL.
    pub(super) fn options(&self, mut options: Options) -> Options {
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
        if let Some(Duration(ttl)) = self.tags.ttl {
            options.tag_ttl = ttl;
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
        self.reach(&mut options.upstream);
        options
    }

    /// The same with nothing left open. Secrets are not in it.
    pub(super) fn in_force(&self, options: &Options, names: &RouteNames) -> Table {
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
        let tags = Table::from_iter([("ttl".to_owned(), time(options.tag_ttl))]);
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
        for (name, below) in [("tags", tags), ("repositories", repositories), ("translate", translate)] {
            table.insert(name.to_owned(), Value::Table(below));
        }
        table
    }

    fn reach(&self, upstream: &mut crate::upstream::Options) {
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
struct Duration(std::time::Duration);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        values::duration(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// A value that is written as the flag of the same kind is.
#[derive(Clone, Debug, PartialEq)]
struct Text<Value>(Value);

impl<'de, Value: values::Written> Deserialize<'de> for Text<Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::read(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

fn registry_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    values::registry_url(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
