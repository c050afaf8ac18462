//! What the store knows of layers: what their bytes tell, and which gzip layer stands for one.
//!
//! What bytes tell is true for ever, so facts are written once and never go. A gzip layer is large and can be made again:
//! its bytes have a name of their own and may be evicted, while a small record says what stands for what. The record is
//! written create-only, so it decides between replicas that make the same at the same time.

mod config;
mod reading;
mod sweep;
#[cfg(test)]
mod tests;
mod upload;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::image::digest::Digest;
use crate::image::layer::{GzipLayer, LayerFacts};
use crate::translate::LayerPolicy;

use super::health::Ability;
use super::layout::{self, Name, source_key};
use super::{RECIPES_LISTED_MAX, RECIPES_MAX, Store, StoreFailure, frame, within_time};

pub use config::Config;
pub use reading::LayerBytes;
pub use upload::Upload;

/// What decides the bytes of a gzip layer beside the layer that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker(Box<str>);

impl Maker {
    /// The policy, and the program that carries it out with all that decides its bytes.
    pub fn new(policy: LayerPolicy, compressor: &str) -> Self {
        let policy = match policy {
            LayerPolicy::Stored => "stored",
            LayerPolicy::Gzip => "gzip",
        };
        Self(data_encoding::HEXLOWER.encode(&Sha256::digest(format!("{policy}\n{compressor}"))).into())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which gzip layer stands for a layer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transcoding {
    /// The layer.
    pub layer: Digest,
    /// What decided the bytes, as [`Maker`] has it.
    maker: String,
    /// The gzip layer.
    #[serde(flatten)]
    pub gzip: GzipLayer,
    /// The name of the upload that its bytes stand under.
    upload: String,
}

/// What the store has of a gzip layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was never made here.
    Unmade,
    /// It was made, and its bytes are gone: whoever makes it again makes the same.
    Evicted(Transcoding),
    /// It is there.
    There(Transcoding),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct FactsRecord {
    layer: Digest,
    #[serde(flatten)]
    facts: LayerFacts,
}

impl Transcoding {
    fn path(&self) -> Path {
        layout::layer(&source_key(&self.layer), &self.maker, &self.upload)
    }

    fn is_of(&self, layer: &str, maker: &str) -> bool {
        source_key(&self.layer) == layer && self.maker == maker
    }
}

impl Store {
    /// What the bytes of a layer tell, if anybody read them.
    pub async fn facts(&self, layer: &Digest) -> Result<Option<LayerFacts>, StoreFailure> {
        let is_of = |record: &FactsRecord| record.layer == *layer;
        let found = self.record(&layout::facts(layer), is_of).await?;
        Ok(found.map(|record: FactsRecord| record.facts))
    }

    /// Keeps for ever what the bytes of a layer tell.
    pub async fn keep_facts(&self, layer: &Digest, facts: &LayerFacts) -> Result<(), StoreFailure> {
        let record = FactsRecord { layer: layer.clone(), facts: facts.clone() };
        let is_of = |object: &Bytes| read_record(object).filter(|record: &FactsRecord| record.layer == *layer);
        self.create(layout::facts(layer), object(&record)?, is_of).await.map(drop)
    }

    /// Which gzip layer of this maker stands for a layer, and whether its bytes are there.
    pub async fn transcoding(&self, layer: &Digest, maker: &Maker) -> Result<Standing, StoreFailure> {
        match self.decided(&source_key(layer), maker.as_str()).await? {
            None => Ok(Standing::Unmade),
            Some(decided) if self.has_bytes_of(&decided).await? => Ok(Standing::There(decided)),
            Some(decided) => Ok(Standing::Evicted(decided)),
        }
    }

    /// What a gzip layer stands for: several layers can have one archive. At most [`RECIPES_MAX`].
    pub async fn transcodings_of(&self, gzip: &Digest) -> Result<Vec<Transcoding>, StoreFailure> {
        let folder = layout::ways_back(gzip);
        let ways = self.named_in(&folder, |name| match name {
            Name::Transcoded { gzip: hex, layer, maker } if hex == gzip.hex() => Some((layer, maker)),
            _ => None,
        });
        let decided =
            ways.await?.into_iter().map(|((layer, maker), _)| async move { self.decided(&layer, &maker).await });
        let decided: Vec<_> = stream::iter(decided).buffered(RECIPES_MAX).try_collect().await?;
        // A way back is written before it is decided: it may lead to another.
        Ok(decided.into_iter().flatten().filter(|decided| decided.gzip.digest == *gzip).collect())
    }

    async fn decided(&self, layer: &str, maker: &str) -> Result<Option<Transcoding>, StoreFailure> {
        let is_of = |decided: &Transcoding| decided.is_of(layer, maker);
        self.record(&layout::transcoding(layer, maker), is_of).await
    }

    /// Whether the bytes of a gzip layer are there.
    pub async fn has_bytes_of(&self, transcoding: &Transcoding) -> Result<bool, StoreFailure> {
        let path = transcoding.path();
        let head = async {
            match self.objects.head(&path).await {
                Ok(meta) => Ok(meta.size == transcoding.gzip.size),
                Err(object_store::Error::NotFound { source, .. }) if !super::is_about_the_bucket(&*source) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.noted(Ability::Reading, "look for a layer", within_time("look for a layer", head).await)
    }

    /// A small object of JSON, where it is what its name says.
    async fn record<Record: DeserializeOwned>(
        &self,
        path: &Path,
        is_of: impl Fn(&Record) -> bool,
    ) -> Result<Option<Record>, StoreFailure> {
        let Some((object, _)) = self.read(path).await? else { return Ok(None) };
        let record = read_record(&object).filter(is_of);
        self.note_soundness(path, record.is_some());
        Ok(record)
    }

    /// What the names in a folder say that are wanted, the youngest first, at most [`RECIPES_MAX`].
    async fn named_in<Wanted>(
        &self,
        folder: &Path,
        wanted: impl Fn(Name) -> Option<Wanted>,
    ) -> Result<Vec<(Wanted, ObjectMeta)>, StoreFailure> {
        let objects = self.objects.list(Some(folder)).take(RECIPES_LISTED_MAX);
        let named = objects.try_filter_map(|object| {
            let named = Name::of(&object.location).and_then(&wanted);
            std::future::ready(Ok(named.map(|named| (named, object))))
        });
        let listed = within_time("list a folder", named.try_collect::<Vec<_>>()).await;
        let mut found = self.noted(Ability::Reading, "list a folder", listed)?;
        found.sort_by(|(_, left), (_, right)| {
            right.last_modified.cmp(&left.last_modified).then_with(|| left.location.cmp(&right.location))
        });
        found.truncate(RECIPES_MAX);
        Ok(found)
    }
}

fn object(record: &impl serde::Serialize) -> Result<Bytes, StoreFailure> {
    let content = serde_json::to_vec(record).map_err(|error| StoreFailure::new("write a record", &error))?;
    Ok(frame::wrap(&content))
}

fn read_record<Record: DeserializeOwned>(object: &Bytes) -> Option<Record> {
    serde_json::from_slice(&frame::unwrap(object)?).ok()
}

/// What is wrong with the object of a layer's facts.
pub(super) fn facts_fault(object: &Bytes, layer: &str) -> Option<String> {
    let is_sound = read_record(object).is_some_and(|record: FactsRecord| source_key(&record.layer) == layer);
    (!is_sound).then(|| "it cannot be read, or tells of another layer than its name says".to_owned())
}

/// What is wrong with the object of a transcoding.
pub(super) fn transcoding_fault(object: &Bytes, layer: &str, maker: &str) -> Option<String> {
    let is_sound = read_record(object).is_some_and(|decided: Transcoding| decided.is_of(layer, maker));
    (!is_sound).then(|| "it cannot be read, or tells of another layer than its name says".to_owned())
}
