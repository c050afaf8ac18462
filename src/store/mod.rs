//! Floor 4: what outlives the process.
//!
//! A derived document and the recipe that made it, and the key that signs schema 1. The layout under the root of the
//! store, version 1:
//!
//! ```text
//! v1/documents/<algorithm>/<first 2 digits>/<digits>           a derived document, by its digest
//! v1/recipes/<scope>/<digits of derived>/<digits of source>    how it was made; one immutable record per source
//! v1/signing-key                                               the schema 1 signing key, PEM
//! ```
//!
//! `scope` is the SHA-256 of upstream name and repository. Every object starts with a line that holds the SHA-256 of the
//! rest (see `frame.rs`), so damage is noticed: the digest of a schema 1 document leaves its signature out.

mod frame;
pub mod layout;
pub mod location;
pub mod memory;
pub mod recipe;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::image::digest::Digest;

pub use location::Location;
pub use memory::Memory;
pub use recipe::{Recipe, Scope};

/// How long one operation of the store may take.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How many recipes of one derived digest are looked at, newest first.
pub const RECIPES_MAX: usize = 8;
/// How many names of recipes of one derived digest are listed, to find the newest.
const RECIPES_LISTED_MAX: usize = 1024;

/// The version of the layout, and the name of its folder.
const LAYOUT: &str = "v1";

/// The durable tier: a directory or this process's memory.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    location: Location,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store {location}: {reason}")]
pub struct UnusableStore {
    location: Location,
    reason: String,
}

/// Why the store cannot answer now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store cannot {operation}: {reason}")]
pub struct StoreFailure {
    operation: &'static str,
    reason: String,
}

impl Store {
    /// Opens a store, making its directory if there is none.
    pub fn open(location: &Location) -> Result<Self, UnusableStore> {
        let unusable = |reason: String| UnusableStore { location: location.clone(), reason };
        let objects: Arc<dyn ObjectStore> = match location {
            Location::Memory => Arc::new(InMemory::new()),
            Location::Directory(directory) => {
                // What is made here is nobody else's to read: it will hold the signing key.
                let layout = directory.join(LAYOUT);
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&layout);
                made.map_err(|error| unusable(error.to_string()))?;
                let files = LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable(error.to_string()))?;
                Arc::new(files.with_fsync(true))
            }
        };
        Ok(Self { objects, location: location.clone() })
    }

    /// What it holds outlives the process.
    pub const fn is_durable(&self) -> bool {
        matches!(self.location, Location::Directory(_))
    }

    /// Keeps a derived document with its recipe, the document first, so that a recipe never names bytes that are not
    /// there. Where the document exists already, the bytes that came first are handed back: they are the ones that
    /// other replicas serve.
    pub async fn keep(&self, recipe: &Recipe, bytes: Bytes) -> Result<Bytes, StoreFailure> {
        let kept = self.create(document_path(&recipe.derived), bytes).await?;
        let record = serde_json::to_vec(recipe).map_err(|error| StoreFailure::new("write a recipe", &error))?;
        self.create(recipe_path(&recipe.scope(), &recipe.derived, &recipe.source), record.into()).await?;
        Ok(kept)
    }

    /// A derived document, if it is here and undamaged.
    pub async fn document(&self, derived: &Digest) -> Result<Option<Bytes>, StoreFailure> {
        self.read(&document_path(derived)).await
    }

    /// The recipes of a derived digest within a scope, newest first, at most [`RECIPES_MAX`].
    pub async fn recipes(&self, scope: &Scope, derived: &Digest) -> Result<Vec<Recipe>, StoreFailure> {
        let prefix = recipes_path(scope, derived);
        let listing = async { self.objects.list(Some(&prefix)).take(RECIPES_LISTED_MAX).try_collect::<Vec<_>>().await };
        let mut found = within_time("list recipes", listing).await?;
        found.sort_by(|left, right| {
            right.last_modified.cmp(&left.last_modified).then_with(|| left.location.cmp(&right.location))
        });
        let mut recipes = Vec::new();
        for object in found.into_iter().take(RECIPES_MAX) {
            let record = self.read(&object.location).await?;
            recipes.extend(record.and_then(|record| serde_json::from_slice::<Recipe>(&record).ok()));
        }
        Ok(recipes)
    }

    /// The shared signing key: the one that is here, or else `candidate`, which is then the shared one.
    pub async fn signing_key(&self, candidate: &str) -> Result<String, StoreFailure> {
        let kept =
            self.create(Path::from_iter([LAYOUT, "signing-key"]), Bytes::copy_from_slice(candidate.as_bytes())).await?;
        String::from_utf8(kept.to_vec()).map_err(|error| StoreFailure::new("read the signing key", &error))
    }

    /// Writes an object whole, unless an undamaged one is there: that one is handed back.
    async fn create(&self, path: Path, content: Bytes) -> Result<Bytes, StoreFailure> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let framed = frame::wrap(&content);
        let put = self.objects.put_opts(&path, framed.clone().into(), create);
        match timed(put).await {
            Some(Ok(_)) => return Ok(content),
            Some(Err(object_store::Error::AlreadyExists { .. })) => {}
            Some(Err(error)) => return Err(StoreFailure::new("write", &error)),
            None => return Err(StoreFailure::timed_out("write")),
        }
        if let Some(existing) = self.read(&path).await? {
            return Ok(existing);
        }
        // What is there is damaged: it is worth nothing, so it may be overwritten.
        within_time("replace a damaged object", self.objects.put(&path, framed.into())).await?;
        Ok(content)
    }

    /// The content of an object; `None` if there is no such object or it is damaged.
    async fn read(&self, path: &Path) -> Result<Option<Bytes>, StoreFailure> {
        let read = async {
            match self.objects.get(path).await {
                Ok(object) => object.bytes().await.map(Some),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Some(framed) = within_time("read", read).await? else { return Ok(None) };
        let content = frame::unwrap(&framed);
        if content.is_none() {
            tracing::warn!(object = %path, "an object of the store is damaged and is treated as absent");
        }
        Ok(content)
    }
}

impl StoreFailure {
    fn new(operation: &'static str, error: &dyn std::error::Error) -> Self {
        Self { operation, reason: error.to_string() }
    }

    fn timed_out(operation: &'static str) -> Self {
        Self { operation, reason: format!("it did not answer within {} s", OPERATION_TIMEOUT.as_secs()) }
    }
}

async fn timed<Output>(operation: impl Future<Output = Output>) -> Option<Output> {
    tokio::time::timeout(OPERATION_TIMEOUT, operation).await.ok()
}

async fn within_time<Output>(
    name: &'static str,
    operation: impl Future<Output = object_store::Result<Output>>,
) -> Result<Output, StoreFailure> {
    match timed(operation).await {
        Some(output) => output.map_err(|error| StoreFailure::new(name, &error)),
        None => Err(StoreFailure::timed_out(name)),
    }
}

fn document_path(derived: &Digest) -> Path {
    let hex = derived.hex();
    let shelf = hex.get(..2).unwrap_or_default();
    Path::from_iter([LAYOUT, "documents", derived.algorithm().name(), shelf, hex])
}

fn recipes_path(scope: &Scope, derived: &Digest) -> Path {
    Path::from_iter([LAYOUT, "recipes", scope.as_str(), derived.hex()])
}

fn recipe_path(scope: &Scope, derived: &Digest, source: &Digest) -> Path {
    Path::from_iter([LAYOUT, "recipes", scope.as_str(), derived.hex(), source.hex()])
}

#[cfg(test)]
mod tests;
