//! The gzip layer that stands for a zstd one: made once, and kept.

use std::time::Instant;

use crate::image::digest::Digest;
use crate::image::layer::GzipLayer;
use crate::image::reference::Repository;
use crate::store::{Maker, Standing, StoreFailure, Transcoding, Upload};
use crate::transcode::{COMPRESSOR, Fault, ToGzip};
use crate::translate::LayerPolicy;
use crate::upstream::Caller;

use crate::gateway::Gateway;
use crate::gateway::derive::Obstacle;
use crate::gateway::metrics::LayerRead;

use super::refused::obstacle;
use super::{Layers, Purpose, Work};

/// What this version makes gzip layers with.
pub(super) fn maker() -> Maker {
    Maker::new(LayerPolicy::Gzip, COMPRESSOR)
}

impl Gateway {
    /// The gzip layer that stands for a layer of zstd whose archive the config names: out of the store, or else made, as a
    /// caller who was let see a document that names it. Its bytes may have been evicted since: who asks for them gets them.
    pub(in crate::gateway) async fn gzip_of(
        &self,
        caller: &Caller,
        repository: &Repository,
        (layer, diff_id): (&Digest, Option<Digest>),
        work: &Work,
    ) -> Result<GzipLayer, Obstacle> {
        if let Some(known) = self.transcoded(layer).await? {
            return Ok(known);
        }
        let _alone = self.shared.layers.alone_at(Purpose::Gzip, layer).await;
        if let Some(known) = self.transcoded(layer).await? {
            return Ok(known);
        }
        self.known_good(Purpose::Gzip, layer, diff_id.as_ref())?;
        self.transcode(caller, repository, (layer, diff_id), None, work).await.map(|made| made.gzip)
    }

    pub(super) async fn transcoded(&self, layer: &Digest) -> Result<Option<GzipLayer>, StoreFailure> {
        match self.shared.store.transcoding(layer, &maker()).await? {
            Standing::Unmade => Ok(None),
            Standing::Evicted(decided) | Standing::There(decided) => {
                self.shared.metrics.count_layer(LayerRead::Known);
                Ok(Some(decided.gzip))
            }
        }
    }

    /// Makes the gzip bytes of a transcoding that were evicted again, once however many ask.
    pub(super) async fn transcode_again(
        &self,
        caller: &Caller,
        repository: &Repository,
        before: Transcoding,
        work: &Work,
    ) -> Result<Transcoding, Obstacle> {
        let layer = before.layer.clone();
        let _alone = self.shared.layers.alone_at(Purpose::Gzip, &layer).await;
        match self.shared.store.transcoding(&layer, &maker()).await? {
            Standing::There(again) => Ok(again),
            Standing::Unmade | Standing::Evicted(_) => {
                let diff_id = Some(before.gzip.diff_id.clone());
                self.transcode(caller, repository, (&layer, diff_id), Some(before), work).await
            }
        }
    }

    async fn transcode(
        &self,
        caller: &Caller,
        repository: &Repository,
        (layer, diff_id): (&Digest, Option<Digest>),
        before: Option<Transcoding>,
        work: &Work,
    ) -> Result<Transcoding, Obstacle> {
        let (Layers { workers, refusals, .. }, metrics) = (&*self.shared.layers, &self.shared.metrics);
        let turn = workers.turn().await.map_err(|fault| obstacle(layer, fault))?;
        let _shown = metrics.layer_in_work();
        let started = Instant::now();
        let made = async {
            let pieces = self.open_layer(caller, repository, layer, work).await?;
            let mut upload = self.shared.store.begin_upload(layer, &maker(), before).await?;
            let making = workers.to_gzip(turn, layer.clone(), diff_id.clone(), pieces);
            match drained(making, &mut upload).await {
                Ok(Ok(gzip)) => Ok(upload.finish(gzip).await?),
                Ok(Err(fault)) => {
                    upload.abort().await;
                    Err(refusals.note(Purpose::Gzip, (layer, diff_id.as_ref()), fault))
                }
                Err(failure) => {
                    upload.abort().await;
                    Err(failure.into())
                }
            }
        };
        let made = made.await;
        metrics.count_layer(LayerRead::of(&made));
        if let Ok(made) = &made {
            metrics.count_transcoded(made.gzip.size, started.elapsed());
        }
        made
    }
}

/// Writes all of it, and says what it is.
async fn drained(mut making: ToGzip, upload: &mut Upload) -> Result<Result<GzipLayer, Fault>, StoreFailure> {
    while let Some(piece) = making.next().await {
        upload.write(piece).await?;
    }
    Ok(making.finish().await)
}
