//! Whose credentials an upstream is shown, out of what flags, file and environment say.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::gateway::{Callers, Options};
use crate::upstream::authentication::ecr_region;
use crate::upstream::{Authentication, Permission, Secret};

use super::tables::{AuthTable, Text, UpstreamTable};
use super::{Unusable, docker_config, platform_settings};

/// How long what a command prints is good where nothing is said.
const EXEC_LIFETIME: Duration = Duration::from_secs(300);
/// The variable that holds the password where the flags name a user and no file.
pub(super) const PASSWORD_VARIABLE: &str = "SCHEMABRIDGE_PASSWORD";

/// Whose credentials an upstream is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMode {
    /// Each caller's own.
    Passthrough,
    /// Nobody's.
    Anonymous,
    /// A user and a password.
    Basic,
    /// Those of docker's `config.json`.
    DockerConfig,
    /// Those that a credential helper gives.
    Helper,
    /// Those that a command prints.
    Exec,
    /// Those that Amazon gives for its registry.
    Ecr,
}

/// What a request without credentials is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AnonymousAs {
    /// An anonymous caller of the upstream.
    Themselves,
    /// The gateway.
    Gateway,
}

/// The flags that say whose credentials upstreams are shown of which the file says nothing of the kind.
#[derive(Args, Clone, Debug)]
pub struct AuthArguments {
    /// Whose credentials the upstream is shown [default: each caller's own, or nobody's where callers cannot log in to it]
    #[arg(long, env = "SCHEMABRIDGE_AUTH", value_name = "MODE")]
    auth: Option<AuthMode>,

    /// The user of `basic`; the password is in a file, or in the variable `SCHEMABRIDGE_PASSWORD`
    #[arg(long, env = "SCHEMABRIDGE_USERNAME", value_name = "NAME")]
    username: Option<String>,

    /// A file with the password of `basic`, read again when it changes
    #[arg(long, env = "SCHEMABRIDGE_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// The file of `docker-config` [default: that of `REGISTRY_AUTH_FILE`, or else docker's own]
    #[arg(long, env = "SCHEMABRIDGE_DOCKER_CONFIG", value_name = "FILE")]
    docker_config: Option<PathBuf>,

    /// The program of `helper` is docker-credential-NAME
    #[arg(long, env = "SCHEMABRIDGE_CREDENTIAL_HELPER", value_name = "NAME")]
    credential_helper: Option<String>,
}

/// Whether callers can log in to an upstream at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// At a host of its own, or because it is the default.
    Bound,
    /// It is reached by prefix or `ns` only, where their credentials are another's.
    Unbound,
}

impl AuthMode {
    /// The word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Anonymous => "anonymous",
            Self::Basic => "basic",
            Self::DockerConfig => "docker-config",
            Self::Helper => "helper",
            Self::Exec => "exec",
            Self::Ecr => "ecr",
        }
    }

    /// The mode that this came of.
    pub(super) const fn of(authentication: &Authentication) -> Self {
        match authentication {
            Authentication::Passthrough => Self::Passthrough,
            Authentication::Anonymous => Self::Anonymous,
            Authentication::Basic { .. } => Self::Basic,
            Authentication::DockerConfig { .. } => Self::DockerConfig,
            Authentication::Helper { .. } => Self::Helper,
            Authentication::Exec { .. } => Self::Exec,
            Authentication::Ecr { .. } => Self::Ecr,
        }
    }
}

impl AuthArguments {
    /// What holds for this upstream: its own word, or else the flags'.
    pub(super) fn said_of(&self, upstream: &UpstreamTable) -> AuthTable {
        if *upstream.auth() == AuthTable::default() { self.table() } else { upstream.auth().clone() }
    }

    /// What the file would say.
    fn table(&self) -> AuthTable {
        let has_password_in_environment = self.username.is_some() && self.password_file.is_none();
        AuthTable {
            mode: self.auth,
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            password_variable: has_password_in_environment.then(|| PASSWORD_VARIABLE.to_owned()),
            file: self.docker_config.clone(),
            helper: self.credential_helper.clone(),
            ..AuthTable::default()
        }
    }
}

/// Sets who speaks to this upstream, and where permission comes from then.
pub(super) fn decide(
    upstream: &UpstreamTable,
    flags: &AuthArguments,
    binding: Binding,
    options: &mut Options,
) -> Result<(), Unusable> {
    let unusable = |words: &str| Unusable::upstream(upstream.name(), words);
    let said = flags.said_of(upstream);
    let given = said.given();
    let mode = said.mode.or(given).unwrap_or(match binding {
        Binding::Bound => AuthMode::Passthrough,
        Binding::Unbound => AuthMode::Anonymous,
    });
    if mode == AuthMode::Passthrough && binding == Binding::Unbound {
        let words = "with `auth.mode = \"passthrough\"` callers must be able to log in to it: expected `hosts` of its own, or \
                     that it is the default; everywhere else they log in to the default";
        return Err(unusable(words));
    }
    (options.callers, options.upstream.authentication) = match (mode, said.anonymous_as) {
        (AuthMode::Passthrough, Some(AnonymousAs::Gateway)) => {
            let words = "`auth.anonymous_as = \"gateway\"` needs credentials of the gateway: expected `username`, `file`, \
                         `helper`, `command` or `region` beside it";
            let held = given.ok_or_else(|| unusable(words))?;
            (Callers::ThemselvesOrTheGateway, said.authentication(held, upstream)?)
        }
        (AuthMode::Passthrough, _) => (Callers::Themselves, Authentication::Passthrough),
        (mode, _) => (Callers::TheGateway, said.authentication(mode, upstream)?),
    };
    options.upstream.permission = match options.callers {
        Callers::TheGateway => Permission::Gateway,
        Callers::Themselves | Callers::ThemselvesOrTheGateway => Permission::Upstream,
    };
    Ok(())
}

impl AuthTable {
    /// The mode whose settings are there.
    fn given(&self) -> Option<AuthMode> {
        let given = [
            (self.username.is_some(), AuthMode::Basic),
            (self.file.is_some(), AuthMode::DockerConfig),
            (self.helper.is_some(), AuthMode::Helper),
            (self.command.is_some(), AuthMode::Exec),
            (self.region.is_some(), AuthMode::Ecr),
        ];
        given.into_iter().find(|(is_there, _)| *is_there).map(|(_, mode)| mode)
    }

    fn authentication(&self, mode: AuthMode, upstream: &UpstreamTable) -> Result<Authentication, Unusable> {
        let missing = |key: &str| {
            let words = format!("`auth.{key}` is missing: expected it with `auth.mode = \"{}\"`", mode.word());
            Unusable::upstream(upstream.name(), &words)
        };
        Ok(match mode {
            AuthMode::Passthrough => Authentication::Passthrough,
            AuthMode::Anonymous => Authentication::Anonymous,
            AuthMode::Basic => Authentication::Basic {
                username: self.username.clone().ok_or_else(|| missing("username"))?,
                password: self.password(upstream.name())?.ok_or_else(|| missing("password_file"))?,
            },
            AuthMode::DockerConfig => {
                let usual = || std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from).or_else(docker_config);
                let file = self.file.clone().or_else(usual).ok_or_else(|| missing("file"))?;
                Authentication::DockerConfig { file, search_path: search_path() }
            }
            AuthMode::Helper => {
                let name = self.helper.clone().ok_or_else(|| missing("helper"))?;
                Authentication::Helper { name, search_path: search_path() }
            }
            AuthMode::Exec => {
                let command = self.command.as_deref().and_then(<[String]>::split_first);
                let (command, arguments) = command.ok_or_else(|| missing("command"))?;
                let lifetime = self.lifetime().unwrap_or(EXEC_LIFETIME);
                Authentication::Exec { command: command.into(), arguments: arguments.to_vec(), lifetime }
            }
            AuthMode::Ecr => {
                let named = || ecr_region(upstream.url()).map(str::to_owned);
                Authentication::Ecr {
                    region: self.region.clone().or_else(named).ok_or_else(|| missing("region"))?,
                    endpoint: self.endpoint.as_ref().map(|Text(url)| url.clone()),
                    settings: platform_settings(&["AWS_"]),
                }
            }
        })
    }

    fn password(&self, upstream: &str) -> Result<Option<Secret>, Unusable> {
        match (&self.password_file, &self.password_variable) {
            (Some(file), _) => Ok(Some(Secret::from_file(file.clone()))),
            (None, Some(name)) => std::env::var(name).map(|password| Some(Secret::new(password))).map_err(|_| {
                Unusable::upstream(upstream, &format!("the variable {name} is not set: expected the password in it"))
            }),
            (None, None) => Ok(None),
        }
    }
}

fn search_path() -> Option<OsString> {
    std::env::var_os("PATH")
}
