//! Values that are one of a few words, as flags and the file have them.

use clap::ValueEnum;

use crate::gateway::{ChallengeMode, PushAs};
use crate::upstream::Redirects;

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

/// Who follows redirects of blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedirectsForm {
    /// The client.
    Pass,
    /// The gateway.
    Follow,
    /// Whoever can.
    Auto,
}

impl RedirectsForm {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Follow => "follow",
            Self::Auto => "auto",
        }
    }
}

impl From<RedirectsForm> for Redirects {
    fn from(form: RedirectsForm) -> Self {
        match form {
            RedirectsForm::Pass => Self::Pass,
            RedirectsForm::Follow => Self::Follow,
            RedirectsForm::Auto => Self::Auto,
        }
    }
}

impl From<&Redirects> for RedirectsForm {
    fn from(redirects: &Redirects) -> Self {
        match redirects {
            Redirects::Pass => Self::Pass,
            Redirects::Follow => Self::Follow,
            Redirects::Auto => Self::Auto,
        }
    }
}

/// What becomes of the realm in the upstream's bearer challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Challenge {
    /// It goes to the client as it is.
    Pass,
    /// It points at the gateway's own /token.
    Rewrite,
}

impl From<Challenge> for ChallengeMode {
    fn from(challenge: Challenge) -> Self {
        match challenge {
            Challenge::Pass => Self::Pass,
            Challenge::Rewrite => Self::Rewrite,
        }
    }
}

/// What an unknown client that sends no Accept header gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WithoutAcceptForm {
    /// The stored form.
    Stored,
    /// Schema 1.
    Schema1,
}

/// What is stored in the place of a pushed schema 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushAsForm {
    /// Docker's schema 2.
    Schema2,
    /// The OCI manifest.
    Oci,
}

impl From<PushAsForm> for PushAs {
    fn from(form: PushAsForm) -> Self {
        match form {
            PushAsForm::Schema2 => Self::Schema2,
            PushAsForm::Oci => Self::Oci,
        }
    }
}
