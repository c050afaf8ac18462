//! Asking the upstream what a reference names, and remembering one caller's answer where the operator allows it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use moka::Expiry;
use moka::future::Cache;

use crate::image::reference::{Reference, Repository};
use crate::upstream::{Caller, Failure, Resolved};

use super::Gateway;

/// How many answers are remembered.
const RESOLUTIONS_MAX: u64 = 100_000;

type Fingerprint = [u8; 32];

/// The upstream's consents. A refusal is never remembered.
pub(super) struct Resolutions {
    /// Zero: nothing is remembered.
    ttl: Duration,
    process_key: [u8; 32],
    answers: Cache<(Repository, Reference, Fingerprint), Remembered>,
}

#[derive(Clone)]
struct Remembered {
    resolved: Arc<Resolved>,
    life: Duration,
}

struct OwnLife;

impl<Key> Expiry<Key, Remembered> for OwnLife {
    fn expire_after_create(&self, _: &Key, value: &Remembered, _: Instant) -> Option<Duration> {
        Some(value.life)
    }

    fn expire_after_update(&self, _: &Key, value: &Remembered, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(value.life)
    }
}

impl Resolutions {
    pub(super) fn new(ttl: Duration, process_key: [u8; 32]) -> Self {
        let answers = Cache::builder().max_capacity(RESOLUTIONS_MAX).expire_after(OwnLife).build();
        Self { ttl, process_key, answers }
    }

    /// Forgets everything: something was pushed.
    pub(super) fn forget(&self) {
        self.answers.invalidate_all();
    }
}

impl Gateway {
    /// What a reference names for this caller: the upstream's answer now, or one to this same caller that is younger
    /// than `tag_ttl` and not older than the caller's token may be.
    pub(super) async fn resolve(
        &self,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Arc<Resolved>, Failure> {
        if self.resolutions.ttl.is_zero() {
            return self.upstream.resolve(caller, repository, reference).await.map(Arc::new);
        }
        let key = (repository.clone(), reference.clone(), caller.fingerprint(&self.resolutions.process_key));
        if let Some(remembered) = self.resolutions.answers.get(&key).await {
            return Ok(remembered.resolved);
        }
        let resolved = self.upstream.resolve(caller, repository, reference).await?;
        let life = caller
            .remaining_life(SystemTime::now())
            .map_or(self.resolutions.ttl, |life| life.min(self.resolutions.ttl));
        // The bytes, where they had to be read, go to the memory of documents; here they would be weighed by nobody.
        let resolved = Arc::new(resolved);
        let remembered = Resolved { bytes: None, ..(*resolved).clone() };
        self.resolutions.answers.insert(key, Remembered { resolved: Arc::new(remembered), life }).await;
        Ok(resolved)
    }
}
