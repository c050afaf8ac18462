//! What a translation must know of layers before it begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, StatusCode};

use crate::image::config::Config;
use crate::image::digest::Digest;
use crate::image::layer::{Compression, GzipLayer, LayerFacts};
use crate::image::manifest::Content;
use crate::image::media_type::Format;
use crate::image::oci::ImageManifest;
use crate::translate::{BadSignature, LayerPolicy, Learnt, layers_read, needs_repacking, verify};
use crate::upstream::ForwardRequest;

use crate::gateway::Gateway;
use crate::gateway::derive::{Obstacle, Order};

use super::Purpose;
use super::work::{Kind, Work};

/// How many layers of one image are in work or wait for a turn.
const LAYERS_OF_AN_IMAGE_AT_ONCE: usize = 8;
/// How long the work waits to know how much there is to do. It is told to whoever watches, and no more.
const LENGTHS_TIMEOUT: Duration = Duration::from_secs(5);

impl Gateway {
    /// What the translation that this order asks for must know of the layers; `config` is the config's bytes, where layers
    /// are held against it.
    pub(in crate::gateway) async fn learn(&self, order: &Order, config: Option<&Bytes>) -> Result<Learnt, Obstacle> {
        match order.stored.content() {
            Content::Schema1(_) if order.target != Format::Schema1 => self.learn_of_schema1(order).await,
            Content::Image(image) if order.layers == LayerPolicy::Gzip => {
                self.learn_of_image(order, image, config).await
            }
            _ => Ok(Learnt::default()),
        }
    }

    async fn learn_of_schema1(&self, order: &Order) -> Result<Learnt, Obstacle> {
        let layers = layers_read(&order.stored).map_err(|reason| Obstacle::Untranslatable(reason.to_string()))?;
        note_bad_signature(order).await;
        let unread = self.unread(&layers.iter().cloned().collect::<Vec<_>>()).await?;
        unread.iter().try_for_each(|layer| self.known_good(Purpose::Facts, layer, None))?;
        let image = (&order.repository, &order.source);
        let bytes = self.length_of_all(order, &unread).await;
        let work = Work::new(Kind::Upgrade, &self.options.upstream_name, image, (unread.len(), bytes));
        let facts_of = |layer: Digest| {
            let work = &work;
            async move {
                let facts = self.facts_of(&order.caller, &order.repository, &layer, work).await?;
                work.note_layer();
                Ok::<_, Obstacle>((layer, facts))
            }
            .boxed()
        };
        let read = all(unread.iter().cloned().map(facts_of).collect());
        if unread.is_empty() {
            read.await?;
        } else {
            self.shared.layers.works.during(&work, read).await?;
        }
        let facts: BTreeMap<Digest, LayerFacts> =
            all(layers.into_iter().map(facts_of).collect()).await?.into_iter().collect();
        let zstd = facts.iter().filter(|(_, facts)| facts.compression == Compression::Zstd);
        let zstd: Vec<Wanted> = if order.layers == LayerPolicy::Gzip {
            zstd.map(|(layer, facts)| (layer.clone(), facts.size, Some(facts.diff_id.clone()))).collect()
        } else {
            Vec::new()
        };
        let gzip = self.gzip_of_all(order, zstd).await?;
        Ok(Learnt { facts, gzip })
    }

    /// How many bytes these layers have together, where the upstream says: schema 1 does not. Only whoever waits is told, so
    /// nothing is refused for it.
    async fn length_of_all(&self, order: &Order, layers: &[Digest]) -> Option<u64> {
        let length_of = |layer: Digest| {
            let path = format!("/v2/{}/blobs/{layer}", order.repository);
            let (method, headers) = (Method::HEAD, HeaderMap::new());
            let request = ForwardRequest { method, path, query: None, headers, body: None };
            async move {
                let answer = self.upstream.forward(&order.caller, request).await.ok()?;
                let length = answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
                length.filter(|_| answer.status() == StatusCode::OK)
            }
            .boxed()
        };
        let lengths: Vec<BoxFuture<'_, Option<u64>>> = layers.iter().cloned().map(length_of).collect();
        let lengths = stream::iter(lengths).buffered(LAYERS_OF_AN_IMAGE_AT_ONCE).collect::<Vec<_>>();
        let lengths = tokio::time::timeout(LENGTHS_TIMEOUT, lengths).await.ok()?;
        lengths.into_iter().try_fold(0, |all: u64, length| all.checked_add(length?))
    }

    async fn learn_of_image(
        &self,
        order: &Order,
        image: &ImageManifest,
        config: Option<&Bytes>,
    ) -> Result<Learnt, Obstacle> {
        let config = config.and_then(|config| Config::parse(config).ok());
        let diff_ids = config.and_then(|config| config.rootfs).map(|rootfs| rootfs.diff_ids).unwrap_or_default();
        let diff_id_of = |layer: &Digest| {
            let position = image.layers.iter().position(|known| known.digest == *layer)?;
            diff_ids.get(position)?.parse().ok()
        };
        let layers = needs_repacking(&order.stored).into_iter();
        let wanted = layers.map(|layer| (layer.digest.clone(), layer.size, diff_id_of(&layer.digest)));
        let gzip = self.gzip_of_all(order, wanted.collect()).await?;
        Ok(Learnt { gzip, ..Learnt::default() })
    }

    /// The gzip layers that stand for these: those that the recipe names, those that are in the store, and the rest made.
    async fn gzip_of_all(&self, order: &Order, wanted: Vec<Wanted>) -> Result<BTreeMap<Digest, GzipLayer>, Obstacle> {
        let mut gzip = BTreeMap::new();
        let mut unmade = Vec::new();
        for (layer, size, diff_id) in wanted {
            let known = match order.known.gzip.get(&layer) {
                Some(known) => Some(known.clone()),
                None => self.transcoded(&layer).await?,
            };
            match known {
                Some(known) => drop(gzip.insert(layer, known)),
                None => unmade.push((layer, size, diff_id)),
            }
        }
        if unmade.is_empty() {
            return Ok(gzip);
        }
        for (layer, _, diff_id) in &unmade {
            self.known_good(Purpose::Gzip, layer, diff_id.as_ref())?;
        }
        let bytes = unmade.iter().fold(0, |all: u64, (_, size, _)| all.saturating_add(*size));
        let image = (&order.repository, &order.source);
        let work = Work::new(Kind::Transcode, &self.options.upstream_name, image, (unmade.len(), Some(bytes)));
        let made = unmade.into_iter().map(|(layer, _, diff_id)| {
            let work = &work;
            async move {
                let made = self.gzip_of(&order.caller, &order.repository, (&layer, diff_id), work).await?;
                work.note_layer();
                Ok::<_, Obstacle>((layer, made))
            }
            .boxed()
        });
        gzip.extend(self.shared.layers.works.during(&work, all(made.collect())).await?);
        Ok(gzip)
    }

    async fn unread(&self, layers: &[Digest]) -> Result<Vec<Digest>, Obstacle> {
        let looked_up = layers.iter().map(|layer| {
            async move { Ok::<_, Obstacle>((layer.clone(), self.shared.store.facts(layer).await?.is_none())) }.boxed()
        });
        let found = all(looked_up.collect()).await?;
        Ok(found.into_iter().filter(|(_, is_unread)| *is_unread).map(|(layer, _)| layer).collect())
    }
}

/// Nobody who pulls depends on a signature: registries sign anew what they store. So one that does not fit is only said.
async fn note_bad_signature(order: &Order) {
    let stored = Arc::clone(&order.stored);
    // Not on a thread that others wait for.
    let verified = tokio::task::spawn_blocking(move || verify(&stored)).await;
    if let Ok(Err(error)) = verified
        && error != BadSignature::None
    {
        let (repository, source) = (order.repository.as_str(), order.source.as_str());
        tracing::warn!(%error, repository, source, "the signature of a stored schema 1 does not hold");
    }
}

/// A layer for which a gzip one must stand, its size, and the digest of its archive where the config names it.
type Wanted = (Digest, u64, Option<Digest>);

async fn all<Output: Send>(work: Vec<BoxFuture<'_, Result<Output, Obstacle>>>) -> Result<Vec<Output>, Obstacle> {
    stream::iter(work).buffered(LAYERS_OF_AN_IMAGE_AT_ONCE).try_collect().await
}
