//! How the gateway stands at this moment, for a person who looks.

use crate::store::State;
use crate::upstream;

use super::layers::Shown;
use super::{Callers, Gateway, Service};

/// How the gateway stands.
pub struct Standing {
    /// Each upstream, in the order of the configuration.
    pub upstreams: Vec<OfUpstream>,
    /// Where the store is.
    pub store: String,
    /// What it holds outlives the process.
    pub store_is_durable: bool,
    /// Whether it answered when it was last asked.
    pub store_state: State,
    /// What is kept in memory.
    pub memory: Fill,
    /// What the cache of blobs keeps, where there is one.
    pub blob_cache: Option<Fill>,
    /// Work on the layers of images that is under way, the oldest first.
    pub work: Vec<Shown>,
}

/// How one upstream stands.
pub struct OfUpstream {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Whose credentials it is shown, in a sentence.
    pub credentials: String,
    /// How it stands.
    pub standing: upstream::Standing,
}

/// How full something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// How many things are in it.
    pub entries: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// How many they may take.
    pub bytes_max: u64,
}

impl Service {
    /// How it stands at this moment. Nobody is asked for it.
    pub fn standing(&self) -> Standing {
        let shared = self.shared();
        let (entries, bytes) = shared.memory.fill();
        let blobs = shared.blob_cache.as_ref().map(|cache| {
            let (blobs, bytes, bytes_max) = cache.fill();
            Fill { entries: blobs, bytes, bytes_max }
        });
        Standing {
            upstreams: self.table().gateways.iter().map(|gateway| gateway.standing()).collect(),
            store: shared.store.location().to_string(),
            store_is_durable: shared.store.is_durable(),
            store_state: shared.store.state(),
            memory: Fill { entries, bytes, bytes_max: shared.cache_bytes },
            blob_cache: blobs,
            work: shared.layers.shown(),
        }
    }
}

impl Gateway {
    fn standing(&self) -> OfUpstream {
        let options = &self.options;
        let own = &options.upstream.authentication;
        let credentials = match options.callers {
            Callers::Themselves => "the caller's own credentials".to_owned(),
            Callers::TheGateway => own.to_string(),
            Callers::ThemselvesOrTheGateway => format!("the caller's own credentials, or else {own}"),
        };
        OfUpstream {
            name: options.upstream_name.clone(),
            url: self.upstream.url().to_string(),
            credentials,
            standing: self.upstream.standing(),
        }
    }
}
