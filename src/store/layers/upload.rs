//! A gzip layer on its way into the store, piece by piece. Its bytes get their name only when all of them are there.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};

use crate::image::digest::{Algorithm, Digest, Verifier};
use crate::image::layer::GzipLayer;
use crate::store::directory;
use crate::store::fault_point::{self, FaultPoint};
use crate::store::health::Ability;
use crate::store::layout::{self, source_key};
use crate::store::{Location, Store, StoreFailure};

use super::{Maker, Transcoding, object, read_record};

/// How many bytes a bucket is sent at a time: with the 10,000 parts that S3 allows, 80 GiB in all.
const PART_BYTES: usize = 8 << 20;
/// How many parts are on their way at a time, so that an upload never has more than three in memory.
const PARTS_AT_ONCE: usize = 2;
/// How many bytes a directory is sent at a time.
const WRITE_BYTES: usize = 1 << 20;

/// An upload that is not finished. Dropped, it leaves nothing under a name; what it leaves elsewhere is cleared away with
/// other leftovers.
pub struct Upload {
    store: Store,
    layer: Digest,
    maker: Maker,
    name: String,
    /// What was made before, and has to be made again.
    before: Option<Transcoding>,
    way: Way,
    digest: Verifier,
    size: u64,
}

/// How bytes get into the store.
enum Way {
    /// A file that gets its name at the end, and the bytes that are not in it yet.
    File { file: File, staged: Staged, pending: Vec<u8> },
    /// Parts that become an object at the end.
    Parts(WriteMultipart),
}

/// A file that is removed when this is dropped, unless it got its name.
struct Staged(Option<PathBuf>);

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What stays is cleared away with other leftovers.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Store {
    /// Begins to write the gzip layer that is to stand for a layer. Where it was made `before` it comes to stand where it
    /// stood, and must have the same bytes.
    pub async fn begin_upload(
        &self,
        layer: &Digest,
        maker: &Maker,
        before: Option<Transcoding>,
    ) -> Result<Upload, StoreFailure> {
        let name = before.as_ref().map_or_else(chance, |before| before.upload.clone());
        let way = self.begin_way(&layout::layer(&source_key(layer), maker.as_str(), &name)).await;
        Ok(Upload {
            way: self.noted(Ability::Writing, "begin an upload", way)?,
            store: self.clone(),
            layer: layer.clone(),
            maker: maker.clone(),
            name,
            before,
            digest: Verifier::new(Algorithm::Sha256),
            size: 0,
        })
    }

    async fn begin_way(&self, path: &Path) -> Result<Way, StoreFailure> {
        const BEGIN: &str = "begin an upload";
        let Location::Directory(root) = &self.location else {
            let parts = crate::store::within_time(BEGIN, self.objects.put_multipart(path)).await?;
            return Ok(Way::Parts(WriteMultipart::new_with_chunk_size(parts, PART_BYTES)));
        };
        let root = root.clone();
        let begun = tokio::task::spawn_blocking(move || directory::stage_open(&root)).await;
        let (path, file) = begun
            .map_err(|error| StoreFailure::new(BEGIN, &error))?
            .map_err(|error| StoreFailure::new(BEGIN, &error))?;
        Ok(Way::File { file, staged: Staged(Some(path)), pending: Vec::with_capacity(WRITE_BYTES) })
    }
}

impl Upload {
    /// Writes the next bytes, and waits while the store is behind.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), StoreFailure> {
        self.size += piece.len() as u64;
        self.digest.update(&piece);
        let written = match &mut self.way {
            Way::Parts(parts) => {
                let capacity = parts.wait_for_capacity(PARTS_AT_ONCE).await;
                parts.put(piece);
                capacity.map_err(|error| StoreFailure::new("upload", &error))
            }
            Way::File { file, pending, .. } => {
                pending.extend_from_slice(&piece);
                if pending.len() < WRITE_BYTES { Ok(()) } else { write_out(file, pending).await }
            }
        };
        self.store.noted(Ability::Writing, "upload", written)
    }

    /// Gives the bytes their name, and writes down what they stand for. Where another replica was first, this upload is
    /// removed and that one's gzip layer is handed back.
    ///
    /// # Errors
    /// Where the store fails, or the bytes are not those that `made` says, or not those that were made before. Nothing
    /// has a name then.
    pub async fn finish(self, made: GzipLayer) -> Result<Transcoding, StoreFailure> {
        let Self { store, layer, maker, name, before, way, digest, size } = self;
        let written = GzipLayer { digest: digest.finish(), size, diff_id: made.diff_id.clone() };
        let is_as_before = before.as_ref().is_none_or(|before| before.gzip == made);
        if written != made || !is_as_before {
            give_up(way).await;
            let words = if written == made {
                "it is made of the same layer as before, and has other bytes"
            } else {
                "its bytes are not those that were made"
            };
            return Err(StoreFailure::of("take a layer", words));
        }
        let ours = Transcoding { layer, maker: maker.as_str().to_owned(), gzip: made, upload: name };
        let completed = store.complete(way, &ours.path()).await;
        store.noted(Ability::Writing, "finish an upload", completed)?;
        store.written.note(usize::try_from(size).unwrap_or(usize::MAX));
        fault_point::reach(FaultPoint::LayerUploaded).await;
        match before {
            Some(_) => Ok(ours),
            None => store.decide(ours).await,
        }
    }

    /// Gives up, and clears away what is there of it.
    pub async fn abort(self) {
        give_up(self.way).await;
    }
}

impl Store {
    async fn complete(&self, way: Way, path: &Path) -> Result<(), StoreFailure> {
        let fail = |error: object_store::Error| StoreFailure::new("finish an upload", &error);
        match way {
            Way::Parts(parts) => parts.finish().await.map(drop).map_err(fail),
            Way::File { mut file, mut staged, mut pending } => {
                write_out(&mut file, &mut pending).await?;
                let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
                let synced = synced.map_err(std::io::Error::other).and_then(|synced| synced);
                synced.map_err(|error| StoreFailure::new("finish an upload", &error))?;
                fault_point::reach(FaultPoint::Staged).await;
                let from = staged.0.as_deref().map(directory::staged_object).unwrap_or_default();
                self.objects.rename(&from, path).await.map_err(fail)?;
                staged.0 = None;
                Ok(())
            }
        }
    }

    /// Writes down what stands for a layer, unless that is decided already.
    async fn decide(&self, ours: Transcoding) -> Result<Transcoding, StoreFailure> {
        let (layer, maker) = (source_key(&ours.layer), ours.maker.as_str());
        // The way back first: whoever is shown the gzip layer must find where it comes from.
        let way_back = layout::way_back(&ours.gzip.digest, &layer, maker);
        self.put_if_absent(&way_back, object(&WayBack { layer: &ours.layer, gzip: &ours.gzip.digest })?).await?;
        let same = |object: &Bytes| read_record(object).filter(|found: &Transcoding| found.is_of(&layer, maker));
        let decided = self.create(layout::transcoding(&layer, maker), object(&ours)?, same).await?;
        fault_point::reach(FaultPoint::TranscodingWritten).await;
        let Some(theirs) = decided.filter(|theirs| theirs.upload != ours.upload) else { return Ok(ours) };
        // What cannot be removed now is a leftover: no record names it.
        let _ = crate::store::timed(self.objects.delete(&ours.path())).await;
        Ok(theirs)
    }
}

#[derive(serde::Serialize)]
struct WayBack<'a> {
    layer: &'a Digest,
    gzip: &'a Digest,
}

async fn write_out(file: &mut File, pending: &mut Vec<u8>) -> Result<(), StoreFailure> {
    let fail = |error: std::io::Error| StoreFailure::new("upload", &error);
    let mut own = file.try_clone().map_err(fail)?;
    let bytes = std::mem::replace(pending, Vec::with_capacity(WRITE_BYTES));
    let written = tokio::task::spawn_blocking(move || own.write_all(&bytes)).await;
    written.map_err(std::io::Error::other).and_then(|written| written).map_err(fail)
}

async fn give_up(way: Way) {
    if let Way::Parts(parts) = way {
        // What a bucket keeps of it, its lifecycle rule for uploads that were never finished removes.
        let _ = crate::store::timed(parts.abort()).await;
    }
}

/// 64 hexadecimal digits that nobody else has: the standard library seeds each of these with what the system has of chance.
fn chance() -> String {
    let words = std::iter::repeat_with(|| RandomState::new().build_hasher().finish()).take(4);
    words.fold(String::new(), |digits, word| digits + &format!("{word:016x}"))
}
