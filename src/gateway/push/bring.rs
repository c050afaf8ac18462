//! Blobs that only the gateway has, for a manifest that names them. The client was told that they are there, and so did not
//! send them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::image::digest::Digest;
use crate::image::layer::{Compression, LayerFacts};
use crate::image::manifest::{Content, Manifest};
use crate::image::reference::Repository;
use crate::translate::empty_layer;
use crate::upstream::{Caller, RequestBody, continued};

use crate::gateway::Gateway;
use crate::gateway::exchange::Exchange;
use crate::gateway::fault::Fault;
use crate::gateway::layers::Made;

use super::whole;

/// How many blobs the store is asked for at a time.
const BLOBS_LOOKED_UP_AT_ONCE: usize = 8;

impl Gateway {
    /// Makes sure that the upstream has what the manifest names, as far as it is the gateway's. Goes on when the client
    /// leaves, and keeps it no longer than Docker up to 1.9 waits: the next push finds what is there by then.
    pub(super) async fn bring_along(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<(), Fault> {
        let made = self.made_of(exchange, repository, named(manifest)).await?;
        if made.is_empty() {
            return Ok(());
        }
        let (gateway, caller, place) = (Arc::clone(self), exchange.caller.clone(), repository.clone());
        let bringing = tokio::spawn(continued(async move {
            for (digest, made) in made {
                gateway.bring(&caller, &place, &digest, made).await?;
            }
            Ok(())
        }));
        let patience = self.shared.layers.derive_timeout;
        let brought = tokio::time::timeout(patience, bringing).await;
        brought.map_err(|_| Fault::PushInWork(patience.as_secs()))?.map_err(|_| Fault::Internal)?
    }

    /// Which of these were made here, of what this caller may see.
    async fn made_of(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        named: BTreeSet<&Digest>,
    ) -> Result<Vec<(Digest, Made)>, Fault> {
        let look_up = |digest| self.look_up_made(exchange, repository, digest).boxed();
        let looked_up: Vec<BoxFuture<'_, _>> = named.into_iter().map(look_up).collect();
        let found: Vec<_> = stream::iter(looked_up).buffered(BLOBS_LOOKED_UP_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn look_up_made(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<(Digest, Made)>, Fault> {
        let made = if digest == empty_layer::digest() {
            Some(Made::Config(Bytes::from_static(&empty_layer::BYTES)))
        } else {
            self.made(exchange, repository, digest).await?
        };
        Ok(made.map(|made| (digest.clone(), made)))
    }

    async fn bring(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
        made: Made,
    ) -> Result<(), Fault> {
        let made = match made {
            Made::Config(bytes) => return self.upload(caller, repository, digest, whole(bytes)).await,
            Made::Layer(made) => made,
        };
        // Before its bytes are looked for: they may have been evicted, and would be made again.
        if self.has_blob(caller, repository, digest).await? {
            return Ok(());
        }
        let size = made.gzip.size;
        let bytes = self.bytes_of_made(caller, repository, &made, 0..size).await?;
        let body = RequestBody::Streamed(reqwest::Body::wrap_stream(bytes));
        self.upload_new(caller, repository, digest, (size, body)).await?;
        // From here on it is a layer like others: nobody need read it to know what it holds.
        let diff_id = made.gzip.diff_id;
        let _ =
            self.shared.store.keep_facts(digest, &LayerFacts { diff_id, size, compression: Compression::Gzip }).await;
        Ok(())
    }
}

/// The blobs that a manifest of an image names.
fn named(manifest: &Manifest) -> BTreeSet<&Digest> {
    match manifest.content() {
        Content::Schema1(schema1) => schema1.fs_layers.iter().collect(),
        Content::Image(image) => {
            std::iter::once(&image.config).chain(&image.layers).map(|descriptor| &descriptor.digest).collect()
        }
        Content::Index(_) | Content::Artifact(_) => BTreeSet::new(),
    }
}
