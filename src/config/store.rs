//! The flags of the store.

use std::time::Duration;

use clap::Args;
use url::Url;

use crate::store::sweep::Bounds;
use crate::store::{Bucket, Location};

use super::environment::{platform_settings, state_directory};
use super::{Unusable, values};

/// The flags that say where the store is.
#[derive(Args, Clone, Debug)]
pub struct StoreArguments {
    /// Where derived documents last: `memory:`, `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`; credentials of a bucket come from the platform's usual places [default: a state directory]
    #[arg(long, env = "SCHEMABRIDGE_STORE", value_name = "URL")]
    pub store: Option<Location>,

    /// The URL of the service that keeps the bucket, where it is not the cloud's own
    #[arg(long, env = "SCHEMABRIDGE_STORE_ENDPOINT", value_name = "URL", value_parser = values::plain_url)]
    pub store_endpoint: Option<Url>,
}

impl StoreArguments {
    /// A store that is forgotten at the end.
    pub const fn memory() -> Self {
        Self { store: Some(Location::Memory), store_endpoint: None }
    }

    /// The store that these name, or the state directory; a bucket with what the platform's variables say.
    pub fn location(&self) -> Result<Location, Unusable> {
        let location = match &self.store {
            Some(location) => location.clone(),
            None => Location::Directory(state_directory().ok_or(Unusable::NoStateDirectory)?),
        };
        Ok(match location {
            Location::Bucket(bucket) => {
                let settings = platform_settings(bucket.service.variables());
                Location::Bucket(Bucket { endpoint: self.store_endpoint.clone(), settings, ..bucket })
            }
            _ if self.store_endpoint.is_some() => return Err(Unusable::EndpointWithoutBucket),
            location => location,
        })
    }
}

/// The flags that bound a store.
#[derive(Args, Clone, Debug)]
pub struct BoundsArguments {
    /// How many bytes of derived documents a directory may hold; the least lately used go first and are made again when asked for
    #[arg(long, env = "SCHEMABRIDGE_STORE_MAX_SIZE", value_name = "SIZE", default_value = "10GiB", value_parser = values::byte_size)]
    pub store_max_size: u64,

    /// How many bytes of gzip layers that stand for others a directory may hold; the least lately used go first and are made
    /// again when asked for
    #[arg(long, env = "SCHEMABRIDGE_STORE_MAX_LAYERS", value_name = "SIZE", default_value = "50GiB", value_parser = values::byte_size)]
    pub store_max_layers: u64,

    /// How many recipes a directory may hold; the least lately used go first, and their digests with them
    #[arg(long, env = "SCHEMABRIDGE_STORE_MAX_RECIPES", value_name = "NUMBER", default_value = "1000000")]
    pub store_max_recipes: usize,

    /// How long after its last use a recipe is kept in a directory
    #[arg(long, env = "SCHEMABRIDGE_RECIPE_MAX_AGE", value_name = "DURATION", default_value = "400d", value_parser = values::duration)]
    pub recipe_max_age: Duration,
}

impl BoundsArguments {
    /// The bounds that these say.
    pub const fn bounds(&self) -> Bounds {
        Bounds {
            layers_bytes_max: Some(self.store_max_layers),
            documents_bytes_max: Some(self.store_max_size),
            recipes_max: self.store_max_recipes,
            recipe_age_max: self.recipe_max_age,
        }
    }
}
