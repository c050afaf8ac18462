//! The only channel to a user of Docker 1.6 and 1.7: when a pull fails, they ask `/v1/repositories/<name>/images` and
//! print the body of that answer. So the words of the last refusal are repeated there, for a minute, to the same
//! address. They name formats and the repository only, because `/v1/` is not authorised.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use moka::sync::Cache;

use crate::image::reference::Repository;

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::route::Route;

/// How many refusals are remembered.
const REFUSALS_MAX: u64 = 1024;
/// How long a refusal is remembered.
const REFUSAL_LIFE: Duration = Duration::from_secs(60);

/// The last format refusal of each address and repository.
pub(super) struct Refusals(Cache<(IpAddr, Repository), Arc<str>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REFUSALS_MAX).time_to_live(REFUSAL_LIFE).build())
    }
}

/// Notes a format refusal given to Docker 1.6 or 1.7, in words that tell no more of the document than its format.
pub(super) fn remember(refusals: &Refusals, exchange: &Exchange, fault: &Fault) {
    let is_legacy =
        exchange.client.docker_version().is_some_and(|version| version.major == 1 && matches!(version.minor, 6 | 7));
    let words = match fault {
        Fault::Refused(refusal) if is_legacy => refusal.formats_only(),
        Fault::Malformed(_) if is_legacy => "this image is stored as a document that cannot be read".to_owned(),
        _ => return,
    };
    if let Ok(Route::Manifest { repository, .. }) = Route::of(&exchange.asked_path()) {
        refusals.0.insert((exchange.client_address(), repository), words.into());
    }
}

/// Repeats them.
pub(super) fn answer(
    refusals: &Refusals,
    exchange: &Exchange,
    repository: &Repository,
) -> Result<Response<Body>, Fault> {
    match refusals.0.get(&(exchange.client_address(), repository.clone())) {
        Some(words) => Err(Fault::LegacyRefusal(words.to_string())),
        None => Err(Fault::NotFound),
    }
}
