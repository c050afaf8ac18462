//! The credentials that the gateway holds for one upstream: where they come from, and for how long they are good.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::HeaderValue;
use moka::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::authentication::Authentication;
use super::ecr::Ecr;
use super::lease::{Lease, Term};
use super::transport::Transport;
use super::{Failure, docker_config, program};

/// How long what is in a file is believed before it is read again.
const FILE_LIFE: Duration = Duration::from_secs(1);
/// How long what a credential helper said is believed before it is asked again: it does not say itself.
const HELPER_LIFE: Duration = Duration::from_secs(300);
/// How many credential helpers one file may name over time.
const HELPERS_MAX: u64 = 16;
/// What a helper prints when it has nothing for a registry.
const NOTHING_FOUND: &[u8] = b"credentials not found in native keychain";
/// The user name that says that the secret is an identity token.
const IDENTITY_USER: &str = "<token>";

/// What logs in to a registry. Never prints.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// Nothing.
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// An identity token, which a token service takes in the place of a password.
    Identity(String),
    /// A bearer token for the registry itself.
    Bearer(String),
}

impl Credential {
    /// Of a user name and what goes with it.
    pub(super) fn named(username: String, secret: String) -> Self {
        if username == IDENTITY_USER { Self::Identity(secret) } else { Self::Basic { username, password: secret } }
    }

    /// The value of an `Authorization` header that shows these credentials themselves, if there is one.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Anonymous | Self::Identity(_) => None,
            Self::Basic { username, password } => basic(username, password),
            Self::Bearer(token) => HeaderValue::try_from(format!("Bearer {token}")).ok(),
        }
    }

    /// Tells credentials apart without holding them.
    pub(super) fn identity(&self) -> [u8; 32] {
        let (kind, parts): (u8, [&str; 2]) = match self {
            Self::Anonymous => (0, ["", ""]),
            Self::Basic { username, password } => (1, [username, password]),
            Self::Identity(token) => (2, [token, ""]),
            Self::Bearer(token) => (3, [token, ""]),
        };
        let mut hash = Sha256::new();
        hash.update([kind]);
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

/// `Basic` with these.
pub(super) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let pair = BASE64.encode(format!("{username}:{password}").as_bytes());
    HeaderValue::try_from(format!("Basic {pair}")).ok()
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Anonymous => "Credential(anonymous)",
            _ => "Credential([redacted])",
        })
    }
}

/// The credentials for one upstream, as they are at the moment.
pub(super) struct Credentials {
    authentication: Authentication,
    /// The upstream's host and port, by which files and helpers know it.
    registry: String,
    timeout: Duration,
    ecr: Option<Ecr>,
    current: Lease<Credential>,
    /// What the helpers said that docker's configuration names; `None` where they have nothing.
    helpers: Cache<(String, String), Arc<Lease<Option<Credential>>>>,
}

impl Credentials {
    /// Nothing is read or run yet.
    pub(super) fn new(authentication: Authentication, registry: String, timeout: Duration) -> Result<Self, String> {
        let ecr = match &authentication {
            Authentication::Ecr { region, endpoint, settings } => Some(Ecr::new(region, endpoint.as_ref(), settings)?),
            _ => None,
        };
        let helpers = Cache::new(HELPERS_MAX);
        Ok(Self { authentication, registry, timeout, ecr, current: Lease::default(), helpers })
    }

    /// Where they come from, in words.
    pub(super) fn words(&self) -> String {
        self.authentication.to_string()
    }

    /// The credentials.
    pub(super) async fn current(&self, transport: &Transport) -> Result<Credential, Failure> {
        self.current.get(self.load(transport, None)).await
    }

    /// Other credentials than these, which were refused; the same where there are no others.
    pub(super) async fn another_than(
        &self,
        refused: &Credential,
        transport: &Transport,
    ) -> Result<Credential, Failure> {
        self.current.another_than(refused, self.load(transport, Some(refused))).await
    }

    async fn load(&self, transport: &Transport, refused: Option<&Credential>) -> Result<Term<Credential>, Failure> {
        let loaded = tokio::time::timeout(self.timeout, self.ask_source(transport, refused)).await;
        let term = loaded
            .unwrap_or_else(|_| Err(format!("it took longer than {} s", self.timeout.as_secs_f32())))
            .map_err(|reason| Failure::NoCredentials { source_of: self.words(), reason })?;
        if let Some(life) = term.ends_after {
            transport.traffic.meter().holds_credentials(life);
        }
        Ok(term)
    }

    async fn ask_source(
        &self,
        transport: &Transport,
        refused: Option<&Credential>,
    ) -> Result<Term<Credential>, String> {
        match &self.authentication {
            Authentication::Passthrough | Authentication::Anonymous => Ok(Term::endless(Credential::Anonymous)),
            Authentication::Basic { username, password } => {
                let credential = Credential::Basic { username: username.clone(), password: password.read().await? };
                let renew_after = if password.may_change() { FILE_LIFE } else { Duration::MAX };
                Ok(Term { renew_after, ..Term::endless(credential) })
            }
            Authentication::DockerConfig { file, search_path } => {
                let entry = docker_config::read(file, &self.registry).await?;
                let helped = match entry.helper {
                    Some((name, key)) => self.helped(&name, &key, search_path.as_deref(), refused).await?,
                    None => None,
                };
                let credential = helped.or(entry.credential).unwrap_or(Credential::Anonymous);
                Ok(Term { renew_after: FILE_LIFE, ..Term::endless(credential) })
            }
            Authentication::Helper { name, search_path } => {
                let found = ask_helper(name, &self.registry, search_path.as_deref()).await?;
                let credential = found.ok_or_else(|| format!("it has nothing for {}", self.registry))?;
                Ok(Term { renew_after: HELPER_LIFE, ..Term::endless(credential) })
            }
            Authentication::Exec { command, arguments, lifetime } => {
                let printed = program::run(command, arguments, &self.registry).await.map_err(|e| e.to_string())?;
                if !printed.succeeded {
                    return Err("it ended with an error".to_owned());
                }
                Ok(Term::lasting(said(&printed.output)?, *lifetime))
            }
            Authentication::Ecr { .. } => match &self.ecr {
                Some(ecr) => ecr.token(transport).await,
                None => Ok(Term::endless(Credential::Anonymous)),
            },
        }
    }

    /// What a helper that docker's configuration names says, now or lately.
    async fn helped(
        &self,
        name: &str,
        key: &str,
        search_path: Option<&std::ffi::OsStr>,
        refused: Option<&Credential>,
    ) -> Result<Option<Credential>, String> {
        let lease = self.helpers.get_with((name.to_owned(), key.to_owned()), Arc::default);
        let ask = async {
            let found = ask_helper(name, key, search_path).await;
            let reason = |reason| Failure::NoCredentials { source_of: helper_program(name), reason };
            found.map(|found| Term { renew_after: HELPER_LIFE, ..Term::endless(found) }).map_err(reason)
        };
        let answer = match refused {
            Some(refused) => lease.another_than(&Some(refused.clone()), ask).await,
            None => lease.get(ask).await,
        };
        answer.map_err(|failure| failure.to_string())
    }
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "Username", alias = "username", default)]
    username: String,
    #[serde(rename = "Secret", alias = "secret", default)]
    secret: String,
    #[serde(rename = "Token", alias = "token", default)]
    token: String,
}

/// What a program printed. The parser's own words could quote it.
fn said(printed: &[u8]) -> Result<Credential, String> {
    match serde_json::from_slice(printed) {
        Ok(Said { token, .. }) if !token.is_empty() => Ok(Credential::Bearer(token)),
        Ok(Said { username, secret, .. }) if !username.is_empty() => Ok(Credential::named(username, secret)),
        _ => Err("it did not print JSON with Username and Secret".to_owned()),
    }
}

fn helper_program(name: &str) -> String {
    format!("docker-credential-{name}")
}

async fn ask_helper(
    name: &str,
    key: &str,
    search_path: Option<&std::ffi::OsStr>,
) -> Result<Option<Credential>, String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !is_plain {
        return Err(format!("`{name}` is not the name of a credential helper"));
    }
    let program = program::find(&helper_program(name), search_path);
    let printed =
        program::run(Path::new(&program), &["get".to_owned()], key).await.map_err(|error| error.to_string())?;
    if printed.succeeded {
        return said(&printed.output).map(Some);
    }
    if printed.output.trim_ascii() == NOTHING_FOUND { Ok(None) } else { Err("it ended with an error".to_owned()) }
}
