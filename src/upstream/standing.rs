//! How an upstream stands, for a person who looks.

use std::time::{Instant, SystemTime};

use http::StatusCode;

use super::Failure;
use super::breaker::Position;
use super::rate_limit::Reading;

/// How much of a failure's text is kept, in characters.
const WORDS_CHARACTERS_MAX: usize = 200;

/// How an upstream stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Whether it is asked at all: `closed`, `half-open`, `open`; `None` where it always is.
    pub breaker: Option<&'static str>,
    /// When it last answered otherwise than that it cannot.
    pub last_answer: Option<SystemTime>,
    /// When it last did not, and what went wrong.
    pub last_failure: Option<(SystemTime, String)>,
    /// How many requests it last said that it allows in all, and still, and how many seconds ago.
    pub rate_limit: Option<RateLimit>,
}

/// What an upstream said of how often it may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// In all.
    pub limit: Option<u64>,
    /// Still.
    pub remaining: Option<u64>,
    /// How many seconds ago it said so.
    pub age_seconds: u64,
}

/// The last answer and the last failure.
#[derive(Debug, Default)]
pub(super) struct Last {
    answer: Option<SystemTime>,
    failure: Option<(SystemTime, String)>,
}

impl Last {
    pub(super) fn answered(&mut self, status: StatusCode) {
        let now = SystemTime::now();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            self.failure = Some((now, format!("it answered {status}")));
        } else {
            self.answer = Some(now);
        }
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        let words = failure.to_string().chars().take(WORDS_CHARACTERS_MAX).collect();
        self.failure = Some((SystemTime::now(), words));
    }

    pub(super) fn standing(&self, breaker: Option<Position>, reading: Option<&(Instant, Reading)>) -> Standing {
        let rate_limit = |(when, reading): &(Instant, Reading)| RateLimit {
            limit: reading.limit,
            remaining: reading.remaining,
            age_seconds: when.elapsed().as_secs(),
        };
        Standing {
            breaker: breaker.map(Position::word),
            last_answer: self.answer,
            last_failure: self.failure.clone(),
            rate_limit: reading.map(rate_limit),
        }
    }
}
