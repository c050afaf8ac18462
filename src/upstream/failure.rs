//! What can go wrong with the upstream, as values that can be shared between the waiters of one fetch.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::image::digest::Digest;

use super::Trouble;

/// How much of the body of a refusal is kept, in bytes.
pub const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Why there is no answer from the upstream that can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The upstream answered, and not with what was asked for.
    #[error("the upstream answered {}", .0.status)]
    Refused(Box<Refusal>),
    /// The upstream answered with a status that is neither what was asked for nor a refusal.
    #[error("the upstream answered {status} where it should not")]
    Unexpected {
        /// The status.
        status: StatusCode,
    },
    /// No connection, or it broke.
    #[error("the upstream cannot be reached: {reason}")]
    Unreachable {
        /// What went wrong.
        trouble: Trouble,
        /// What the connection said; holds no URL and so no secret.
        reason: String,
    },
    /// The upstream did not answer, or its body stood still, for too long.
    #[error("the upstream did not answer whole within {seconds} s")]
    TimedOut {
        /// The limit that passed, in seconds.
        seconds: u64,
    },
    /// The upstream sends a layer, and far too slowly.
    #[error("the upstream sent {bytes} bytes of a layer in {seconds} s, where at least {bytes_min} are expected")]
    TooSlow {
        /// How many bytes came in that time.
        bytes: u64,
        /// How many must.
        bytes_min: u64,
        /// The time, in seconds.
        seconds: u64,
    },
    /// A client sends nothing more of its upload.
    #[error("nothing more of the upload came for {seconds} s")]
    UploadStalled {
        /// The limit that passed, in seconds.
        seconds: u64,
    },
    /// A client sends more than it may.
    #[error("the upload is larger than the limit of {bytes_max} bytes")]
    UploadTooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// As much is asked of the upstream as it may be, and this request waited long enough for its turn.
    #[error("too many requests to the upstream were waiting")]
    Overloaded {
        /// When to come back, in seconds.
        seconds: u64,
    },
    /// The upstream did not answer the last requests, and is not asked for a while.
    #[error("the upstream did not answer the last requests and is asked again in {seconds} s")]
    BreakerOpen {
        /// When it is asked again, in seconds.
        seconds: u64,
    },
    /// The upstream's bytes are not those that the digest names.
    #[error("the upstream answered {expected} with other bytes, whose digest is {found}")]
    WrongBytes {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came, or the digest that the upstream named.
        found: Digest,
    },
    /// A body does not have the length that was announced for it.
    #[error("the upstream's body does not have the {expected} bytes that were announced")]
    WrongLength {
        /// What was announced, in bytes.
        expected: u64,
    },
    /// A document comes in a content coding that nobody asked for.
    #[error("the upstream sent a manifest in the content coding `{coding}`")]
    Coded {
        /// The coding.
        coding: String,
    },
    /// A document is not in the form that it should have.
    #[error("the upstream's {what} cannot be read")]
    Unreadable {
        /// `catalogue`.
        what: &'static str,
    },
    /// A document is larger than the gateway reads.
    #[error("the upstream's {what} is larger than the limit of {bytes_max} bytes")]
    TooLarge {
        /// `manifest`, `blob`, `error`, `token`.
        what: &'static str,
        /// The limit.
        bytes_max: usize,
    },
    /// The upstream redirects to where the gateway does not go.
    #[error("the upstream's redirect was not followed: {reason}")]
    RedirectRefused {
        /// What is wrong with the target.
        reason: String,
    },
    /// The upstream's bearer realm is not a place where the gateway sends credentials.
    #[error("the upstream's token realm was not asked: {reason}")]
    RealmRefused {
        /// What is wrong with the realm, and which setting would allow it.
        reason: String,
    },
    /// The upstream, or its token service, does not take the credentials that the gateway holds.
    #[error("{by} answered {status} to {shown}; look at the authentication of this upstream")]
    Denied {
        /// Who refuses, by host and port.
        by: String,
        /// How it answered.
        status: StatusCode,
        /// Which credentials it was shown, in words that hold no secret.
        shown: String,
    },
    /// The credentials that the gateway should hold cannot be had.
    #[error("{source_of} cannot be had: {reason}; look at the authentication of this upstream")]
    NoCredentials {
        /// Where they should come from, in words that hold no secret.
        source_of: String,
        /// What is wrong there.
        reason: String,
    },
    /// The upstream leads to an address that is more private than its own.
    #[error("the upstream leads to where the gateway does not go: {reason}")]
    TooPrivate {
        /// Which address that is.
        reason: String,
    },
    /// The query cannot be passed on without changing its bytes.
    #[error("the query holds characters that a URL must escape")]
    UnforwardableQuery,
}

/// An answer of the upstream that is not what was asked for.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, all of them.
    pub headers: HeaderMap,
    /// The start of its body, at most [`REFUSAL_BYTES_MAX`] bytes; empty for an answer to HEAD.
    pub body: Bytes,
}

impl Failure {
    /// The failure in a sentence that names the upstream by its host and port.
    pub fn words(&self, authority: &str) -> String {
        match self {
            Self::Refused(refusal) => format!("the registry {authority} answered {}", refusal.status),
            Self::Unexpected { status } => format!("the registry {authority} answered {status} where it should not"),
            Self::Unreachable { reason, .. } => format!("the registry {authority} cannot be reached: {reason}"),
            Self::TimedOut { seconds } => format!("the registry {authority} did not answer whole within {seconds} s"),
            Self::TooSlow { bytes, bytes_min, seconds } => format!(
                "the registry {authority} sent {bytes} bytes of a layer in {seconds} s, where at least {bytes_min} are \
                 expected; pull again when it is faster"
            ),
            Self::Overloaded { .. } => {
                format!("the gateway has too many requests to the registry {authority} waiting; try again")
            }
            Self::BreakerOpen { seconds } => format!(
                "the registry {authority} did not answer the last requests; the gateway asks it again in {seconds} s"
            ),
            Self::WrongBytes { expected, found } => {
                format!("the registry {authority} answered {expected} with other bytes, whose digest is {found}")
            }
            Self::WrongLength { expected } => {
                format!("a body of the registry {authority} does not have the {expected} bytes that were announced")
            }
            Self::Coded { coding } => {
                format!("the registry {authority} sent a manifest in the content coding `{coding}`, asked for none")
            }
            Self::Unreadable { what } => format!("the {what} of the registry {authority} cannot be read"),
            Self::TooLarge { what, bytes_max } => {
                format!("the {what} of the registry {authority} is larger than the limit of {bytes_max} bytes")
            }
            Self::RedirectRefused { reason } => {
                format!("a redirect of the registry {authority} was not followed: {reason}")
            }
            Self::RealmRefused { reason } => {
                format!("the token realm of the registry {authority} was not asked: {reason}")
            }
            Self::TooPrivate { reason } => {
                format!("the registry {authority} leads to where the gateway does not go: {reason}")
            }
            Self::NoCredentials { .. } => format!("the gateway cannot log in to the registry {authority}: {self}"),
            Self::Denied { .. }
            | Self::UnforwardableQuery
            | Self::UploadStalled { .. }
            | Self::UploadTooLarge { .. } => self.to_string(),
        }
    }

    /// The failure in one word, by which failures are counted.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { trouble, .. } => trouble.as_str(),
            Self::TimedOut { .. } | Self::TooSlow { .. } => "timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Refused(_) => "cool_down",
            Self::UploadStalled { .. } | Self::UploadTooLarge { .. } => "upload",
            Self::WrongBytes { .. } => "digest_mismatch",
            Self::WrongLength { .. } => "truncated",
            Self::TooLarge { .. } => "too_large",
            Self::Coded { .. } | Self::Unreadable { .. } => "unreadable",
            Self::RedirectRefused { .. } => "redirect_refused",
            Self::RealmRefused { .. } => "realm_refused",
            Self::TooPrivate { .. } => "private_address",
            Self::Denied { .. } | Self::NoCredentials { .. } => "auth",
            Self::Unexpected { .. } | Self::UnforwardableQuery => "other",
        }
    }

    /// The status of the upstream's refusal, if it answered at all. Where it wants other credentials of the gateway,
    /// that is a denial: no client can do anything about it.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            Self::Denied { .. } => Some(StatusCode::FORBIDDEN),
            _ => None,
        }
    }

    /// When it may be worth asking again, in seconds, where the gateway itself did not ask.
    pub const fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Overloaded { seconds } | Self::BreakerOpen { seconds } => Some(*seconds),
            _ => None,
        }
    }

    /// The upstream is out of reach, broken or has had enough: what it said before may be better than nothing.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::BreakerOpen { .. } => true,
            failure => failure.status().is_some_and(|status| matches!(status.as_u16(), 429 | 500 | 502..=504)),
        }
    }

    /// The upstream says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// The upstream may not have what was asked for: it says so, or refuses to say. Not where it wants a login first, nor
    /// where it is busy or broken.
    pub fn may_be_absence(&self) -> bool {
        self.status().is_some_and(|status| {
            status.is_client_error() && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS)
        })
    }

    /// The upstream is busy, broken or out of reach: whatever is asked next will not fare better.
    pub fn is_trouble(&self) -> bool {
        self.status().is_none_or(|status| status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error())
    }

    /// The upstream refuses this caller; another caller may fare better.
    pub fn is_about_the_caller(&self) -> bool {
        matches!(
            self.status(),
            Some(
                StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
                    | StatusCode::TOO_MANY_REQUESTS
            )
        )
    }
}
