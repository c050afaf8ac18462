//! Who may use the gateway itself: passwords, tokens and client certificates, whatever the registries behind it say.
//!
//! A client's `Authorization` is for the door or for the upstream, never for both: a door that looks at it takes it away.

mod attempts;
mod certificate;
mod htpasswd;
mod rules;
mod tokens;
mod watched;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use http::Method;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;

use super::fault::Fault;
use super::{StartError, random_bytes};

use attempts::Attempts;
pub use certificate::{ClientCertificate, InvalidNamePattern, NamePattern, SubjectName};
use htpasswd::{Passwords, Verdict};
pub use rules::{Anyone, Credentials, Entrance, Plan, UnsafePlan, check};
use tokens::Tokens;
use watched::Watched;
pub use watched::{Reason, UnusableFile};

/// How clients are told to log in. The one challenge that the door has: `docker login` sends a token as a password.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"schemabridge\"");

/// What a door lets in. Any of the three ways is enough; at least one must be there.
#[derive(Clone, Debug, Default)]
pub struct DoorOptions {
    /// A file of names and bcrypt hashes, one pair a line, as `htpasswd -B` writes it. Default none.
    pub htpasswd: Option<PathBuf>,
    /// A file of tokens, one a line, with at least 32 characters each. Default none.
    pub tokens: Option<PathBuf>,
    /// The names of which a client certificate must have one. Default none: certificates open nothing.
    pub certificates: Vec<NamePattern>,
    /// What becomes of a client that shows nothing. Default refused.
    pub anonymous: Anonymous,
}

/// What becomes of a client that shows nothing. One that shows what is wrong is refused in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// It is asked to log in.
    #[default]
    Refused,
    /// It may read, as nobody.
    MayPull,
}

/// Whom the door let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Somebody who showed nothing.
    Anonymous,
    /// Somebody by this name: a user, a name in a certificate, or the line of a token.
    Known {
        /// The name.
        name: Arc<str>,
    },
}

impl Admission {
    /// The name, where there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Known { name } => Some(name),
        }
    }
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum UnusableDoor {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] UnusableFile),
    /// There is no way in.
    #[error("expected a file of passwords, a file of tokens or the names in client certificates: nobody could come in")]
    NoWayIn,
    /// The machine gives no randomness.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The gateway's own door.
pub struct Door {
    passwords: Option<Passwords>,
    tokens: Option<Watched<Tokens>>,
    certificates: Vec<NamePattern>,
    anonymous: Anonymous,
    attempts: Attempts,
}

impl Door {
    /// Reads the files. What is wrong with one is told with its line, never with what stands there.
    pub fn open(options: &DoorOptions) -> Result<Self, UnusableDoor> {
        let DoorOptions { htpasswd, tokens, certificates, anonymous } = options;
        if htpasswd.is_none() && tokens.is_none() && certificates.is_empty() {
            return Err(UnusableDoor::NoWayIn);
        }
        let process_key = random_bytes()?;
        let passwords = htpasswd.as_deref().map(|file| Passwords::open(file, process_key)).transpose()?;
        let read = |file: &Path| Watched::open(file, move |text: &str| Tokens::parse(text, process_key));
        Ok(Self {
            passwords,
            tokens: tokens.as_deref().map(read).transpose()?,
            certificates: certificates.clone(),
            anonymous: *anonymous,
            attempts: Attempts::default(),
        })
    }

    /// Whether the `Authorization` of clients is the door's. It must then go nowhere else.
    pub const fn takes_authorization(&self) -> bool {
        self.passwords.is_some() || self.tokens.is_some()
    }

    /// What kind of door it is, for [`check`].
    pub const fn entrance(&self) -> Entrance {
        if self.takes_authorization() { Entrance::Authorization } else { Entrance::Certificate }
    }

    /// Lets a request from `address` in, or says why not.
    pub async fn admit(&self, head: &Parts, address: IpAddr) -> Result<Admission, Fault> {
        if let Some(name) = self.name_in_certificate(head) {
            return Ok(Admission::Known { name });
        }
        if self.takes_authorization()
            && let Some(shown) = Shown::of(&head.headers)?
        {
            let name = self.name_of(&shown, address).await?;
            return Ok(Admission::Known { name });
        }
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        match self.anonymous {
            Anonymous::MayPull if is_read => Ok(Admission::Anonymous),
            _ if self.takes_authorization() => Err(Fault::LoginWanted("log in to this gateway and try again")),
            _ => Err(Fault::CertificateWanted),
        }
    }

    fn name_in_certificate(&self, head: &Parts) -> Option<Arc<str>> {
        let certificate = head.extensions.get::<ClientCertificate>()?;
        certificate.name_among(&self.certificates).map(Arc::from)
    }

    /// The name of whoever shows this. Tokens first: looking among them costs nothing, and no password is one.
    async fn name_of(&self, shown: &Shown, address: IpAddr) -> Result<Arc<str>, Fault> {
        if let Some(tokens) = &self.tokens
            && let Some(name) = tokens.current().await.name_of(shown.secret())
        {
            return Ok(name);
        }
        let verdict = match (shown, &self.passwords) {
            (Shown::Password { user, password }, Some(passwords)) => {
                passwords.verify(user, password, || self.attempts.begin(address)).await
            }
            _ => match self.attempts.begin(address) {
                Some(_counted) => Verdict::Wrong,
                None => Verdict::TooMany,
            },
        };
        match verdict {
            Verdict::Right => Ok(shown.user()),
            Verdict::Wrong => {
                Err(Fault::LoginWanted("this is not a login of this gateway; check the name and the password"))
            }
            Verdict::TooMany => Err(Fault::TooManyLogins(attempts::WINDOW.as_secs())),
            Verdict::Busy => Err(Fault::LoginsBusy),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Door")
            .field("passwords", &self.passwords.is_some())
            .field("tokens", &self.tokens.is_some())
            .field("certificates", &self.certificates)
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}

/// Tells a client how to log in.
pub(super) fn challenge(headers: &mut HeaderMap) {
    headers.insert(WWW_AUTHENTICATE, CHALLENGE);
}

/// Takes every other challenge out of an answer: a client would follow an upstream's with what it has for this door.
pub(super) fn keep_own_challenge(headers: &mut HeaderMap) {
    let is_own = headers.get(WWW_AUTHENTICATE).is_some_and(|value| *value == CHALLENGE);
    headers.remove(WWW_AUTHENTICATE);
    if is_own {
        challenge(headers);
    }
}

/// What a client shows in its `Authorization`. Has no `Debug`.
enum Shown {
    Password { user: Vec<u8>, password: Vec<u8> },
    Token(Vec<u8>),
}

impl Shown {
    /// `None` for a client that shows nothing, as Docker 1.6 and 1.7 do with an empty name and password.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Fault> {
        let malformed = || Fault::LoginWanted("expected one Authorization header, Basic or Bearer");
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let line = match (lines.next(), lines.next()) {
            (None, _) => return Ok(None),
            (Some(line), None) => line.as_bytes(),
            (Some(_), Some(_)) => return Err(malformed()),
        };
        let blank = line.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let (scheme, credentials) = line.split_at(blank);
        let credentials = credentials.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Ok(Some(Self::Token(credentials.to_vec())));
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(malformed());
        }
        let text = BASE64.decode(credentials).map_err(|_| malformed())?;
        let colon = text.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
        let (user, password) = (text.get(..colon).unwrap_or_default(), text.get(colon + 1..).unwrap_or_default());
        if user.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self::Password { user: user.to_vec(), password: password.to_vec() }))
    }

    fn secret(&self) -> &[u8] {
        match self {
            Self::Password { password, .. } => password,
            Self::Token(token) => token,
        }
    }

    fn user(&self) -> Arc<str> {
        match self {
            Self::Password { user, .. } => String::from_utf8_lossy(user).into(),
            Self::Token(_) => "".into(),
        }
    }
}
