//! The bytes of a gzip layer on their way to one client, at that client's pace.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange};

use crate::image::digest::{Algorithm, Digest, Verifier};
use crate::store::health::Ability;
use crate::store::{Store, StoreFailure};

use super::Transcoding;

/// Bytes of a gzip layer, read as they are asked for.
pub type LayerBytes = BoxStream<'static, Result<Bytes, StoreFailure>>;

impl Store {
    /// These of the bytes of a gzip layer; `None` where they were evicted. Where they are all of them they are held against
    /// the digest, and the last of them come only if it holds.
    pub async fn read_layer(
        &self,
        transcoding: &Transcoding,
        range: Range<u64>,
    ) -> Result<Option<LayerBytes>, StoreFailure> {
        const READ: &str = "read a layer";
        let (path, size) = (transcoding.path(), transcoding.gzip.size);
        let is_whole = range == (0..size);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let opened = async {
            match self.objects.get_opts(&path, options).await {
                Ok(found) => Ok(Some(found)),
                Err(object_store::Error::NotFound { source, .. }) if !crate::store::is_about_the_bucket(&*source) => {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let opened = crate::store::within_time(READ, opened).await;
        let Some(found) = self.noted(Ability::Reading, READ, opened)? else { return Ok(None) };
        if found.meta.size != size {
            self.note_soundness(&path, false);
            return Ok(None);
        }
        if self.is_near() && crate::store::age_of(found.meta.last_modified.into()) >= self.noted_every() {
            // In use: a sweep must not find it old.
            let _ = self.refresh(&path).await;
        }
        let pieces = found.into_stream().map_err(|error| StoreFailure::new(READ, &error)).boxed();
        Ok(Some(if is_whole { self.verified(pieces, transcoding.clone()) } else { pieces }))
    }

    /// Holds the last piece back until the digest is known to hold. Bytes that are wrong are removed, so that they are made
    /// again.
    fn verified(&self, pieces: LayerBytes, transcoding: Transcoding) -> LayerBytes {
        let verifier = Verifier::new(Algorithm::Sha256);
        let state = (self.clone(), pieces, verifier, transcoding, None::<Bytes>);
        let checked = stream::try_unfold(Some(state), |state| async move {
            let Some((store, mut pieces, mut verifier, transcoding, mut held)) = state else { return Ok(None) };
            loop {
                match pieces.try_next().await? {
                    Some(piece) => {
                        verifier.update(&piece);
                        if let Some(before) = held.replace(piece) {
                            return Ok(Some((before, Some((store, pieces, verifier, transcoding, held)))));
                        }
                    }
                    None if verifier.finish() == transcoding.gzip.digest => {
                        return Ok(held.map(|last| (last, None)));
                    }
                    None => return Err(store.found_damaged(&transcoding, &transcoding.gzip.digest).await),
                }
            }
        });
        checked.boxed()
    }

    async fn found_damaged(&self, transcoding: &Transcoding, digest: &Digest) -> StoreFailure {
        let path = transcoding.path();
        self.note_soundness(&path, false);
        let _ = crate::store::timed(object_store::ObjectStoreExt::delete(&self.objects, &path)).await;
        StoreFailure::of("read a layer", &format!("its bytes do not have the digest {digest}; it is made again"))
    }
}
