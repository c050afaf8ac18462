//! Floor 2, pure: who gets what.
//!
//! One request's `Accept` lines, `User-Agent` and address become a [`Client`], a few facts about the stored document become a
//! [`Stored`], and [`choose()`] says what the client gets. All of this is for a pull by tag: bytes asked for by digest are
//! the bytes answered, and nothing here is consulted.

pub mod accept;
pub mod choose;
mod client;
pub mod clients;
mod formats;
pub mod glob;
pub mod platform;
#[cfg(test)]
mod properties;
mod refusal;
mod rules;
mod stored;
pub mod user_agent;

pub use choose::{Candidate, Choice, Scope, Why, choose};
pub use client::{Client, LayerWork, Policy, Transcode, Upgrade, WithoutAccept};
pub use formats::Formats;
pub use glob::Glob;
pub use platform::{NoPlatform, PlatformRule, WantedPlatform};
pub use refusal::{Refusal, TRANSCODING_WOULD_HELP, UPGRADE_WOULD_HELP};
pub use rules::{
    Asks, ClientRule, InvalidClientRule, InvalidUserAgentGlob, Schema1, Senders, Treatment, UserAgentGlob,
};
pub use stored::{Stored, StoredContent};
pub use user_agent::Version;
