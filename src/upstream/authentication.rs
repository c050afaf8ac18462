//! What the operator says of how the gateway logs in to an upstream.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use url::Url;

/// How long a secret in a file may be, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Whose credentials go to the upstream.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Those of each caller, and nobody else's.
    #[default]
    Passthrough,
    /// Nobody's. Where the upstream's token service gives tokens to anybody, as Docker Hub's does, they are fetched.
    Anonymous,
    /// A user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// What docker's `config.json`, or podman's `auth.json`, has for the upstream's host and port: its `credHelpers`,
    /// else its `credsStore`, else its `auths`. A file that is absent or does not name the upstream makes it anonymous.
    DockerConfig {
        /// The file, read again when it changes.
        file: PathBuf,
        /// Where the helpers that it names are; without it, where this process finds its programs.
        search_path: Option<OsString>,
    },
    /// What the program `docker-credential-NAME` says.
    Helper {
        /// The name, without `docker-credential-`.
        name: String,
        /// Where the program is; without it, where this process finds its programs.
        search_path: Option<OsString>,
    },
    /// What a command prints: it gets the upstream's host and port on its input, and prints either
    /// `{"Username": "…", "Secret": "…"}`, as docker's credential helpers do with the argument `get`, or
    /// `{"Token": "…"}`, a bearer token for the registry itself. The user name `<token>` says that the secret is an
    /// identity token.
    Exec {
        /// The program.
        command: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// For how long what it printed is good.
        lifetime: Duration,
    },
    /// A token of Amazon ECR, which holds for twelve hours.
    Ecr {
        /// The region, such as `eu-central-1`; see [`ecr_region`].
        region: String,
        /// The URL of the ECR API, where it is not Amazon's own.
        endpoint: Option<Url>,
        /// What the platform's usual variables (`AWS_…`) say, by their names in lower case. Some are secret. Without
        /// any, the machine's own role is asked for.
        settings: Vec<(String, String)>,
    },
}

impl Authentication {
    /// Whether the gateway logs in itself, so that no caller's credentials go to the upstream.
    pub fn is_held(&self) -> bool {
        *self != Self::Passthrough
    }
}

/// What is sent, in words for an error. Names no secret.
impl fmt::Display for Authentication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passthrough => formatter.write_str("the caller's own credentials"),
            Self::Anonymous => formatter.write_str("a request without credentials"),
            Self::Basic { .. } => formatter.write_str("the gateway's user name and password"),
            Self::DockerConfig { file, .. } => write!(formatter, "what {} has for it", file.display()),
            Self::Helper { name, .. } => write!(formatter, "the credentials of docker-credential-{name}"),
            Self::Exec { command, .. } => write!(formatter, "the credentials that {} prints", command.display()),
            Self::Ecr { region, .. } => write!(formatter, "the gateway's token of Amazon ECR in {region}"),
        }
    }
}

/// Neither settings nor arguments: both may hold secrets.
impl fmt::Debug for Authentication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Authentication({self})")
    }
}

/// The region in the host of a private registry of Amazon ECR: `ACCOUNT.dkr.ecr.REGION.amazonaws.com`.
pub fn ecr_region(registry: &Url) -> Option<&str> {
    let host = registry.host_str()?;
    let host = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let (account, rest) = host.split_once(".dkr.")?;
    let region = rest.strip_prefix("ecr.").or_else(|| rest.strip_prefix("ecr-fips."))?;
    let is_plain = |text: &str| !text.is_empty() && !text.contains('.');
    (is_plain(account) && is_plain(region)).then_some(region)
}

/// A secret, or where it is. Never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Value(String),
    File(PathBuf),
}

impl Secret {
    /// A secret that is known.
    pub const fn new(value: String) -> Self {
        Self(Source::Value(value))
    }

    /// A secret that is the content of a file but for a line's end, read again each time that it is needed anew.
    pub const fn from_file(file: PathBuf) -> Self {
        Self(Source::File(file))
    }

    /// Whether it may be another one later.
    pub(super) const fn may_change(&self) -> bool {
        matches!(self.0, Source::File(_))
    }

    /// The secret as it is now.
    pub(super) async fn read(&self) -> Result<String, String> {
        let file = match &self.0 {
            Source::Value(value) => return Ok(value.clone()),
            Source::File(file) => file,
        };
        let read = async {
            let mut text = String::new();
            tokio::fs::File::open(file).await?.take(SECRET_BYTES_MAX).read_to_string(&mut text).await?;
            std::io::Result::Ok(text)
        };
        let text = read.await.map_err(|error| format!("{}: {error}", file.display()))?;
        match text.trim_end_matches(['\r', '\n']) {
            // A file that is being replaced may be seen before it is written.
            "" => Err(format!("{} is empty", file.display())),
            secret => Ok(secret.to_owned()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Value(_) => formatter.write_str("Secret([redacted])"),
            Source::File(file) => write!(formatter, "Secret(in {})", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_prints() {
        let secret = || "hunter2".to_owned();
        let all = [
            Authentication::Basic { username: "ann".to_owned(), password: Secret::new(secret()) },
            Authentication::Exec {
                command: "/bin/print".into(),
                arguments: vec![format!("--password={}", secret())],
                lifetime: Duration::from_secs(1),
            },
            Authentication::Ecr {
                region: "eu-central-1".to_owned(),
                endpoint: None,
                settings: vec![("aws_secret_access_key".to_owned(), secret())],
            },
        ];
        for authentication in all {
            let text = format!("{authentication:?} {authentication:#?} {authentication}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(!format!("{:?}", Secret::new(secret())).contains("hunter2"));
    }

    #[tokio::test]
    async fn a_file_is_read_anew_and_an_empty_one_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let secret = Secret::from_file(file.clone());
        assert!(secret.read().await.is_err());
        for (written, read) in [("one\n", "one"), ("two\r\n", "two"), (" blank at both ends ", " blank at both ends ")]
        {
            std::fs::write(&file, written).unwrap();
            assert_eq!(secret.read().await.unwrap(), read);
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(secret.read().await.is_err());
    }

    #[test]
    fn the_region_is_in_the_host_and_nowhere_else() {
        let cases = [
            ("https://123456789012.dkr.ecr.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("https://123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://123456789012.dkr.ecr.eu-central-1.amazonaws.com.attacker.example", None),
            ("https://a.dkr.ecr.b.attacker.amazonaws.com", None),
            ("https://dkr.ecr.eu-central-1.amazonaws.com", None),
            ("https://registry.example/.dkr.ecr.eu-central-1.amazonaws.com", None),
        ];
        for (url, region) in cases {
            assert_eq!(ecr_region(&url.parse().unwrap()), region, "{url}");
        }
    }
}
