//! Floor 4: what outlives the process.
//!
//! What the bytes of layers tell, and layers that were made of others, are in [`layers`].
//!
//! A derived document and the recipes that made it, the claims of those who are at making one, and the key that signs
//! schema 1. Where each stands is in [`layout`], what it holds in [`record`]. Objects are written whole and atomically, and
//! only where there is none: of two replicas that make the same, the first has made it, and the other serves its bytes.
//! Every object starts with a line that holds the SHA-256 of the rest (see `frame.rs`), so damage is noticed: the digest of
//! a schema 1 document leaves its signature out.

pub mod blobs;
pub mod bucket;
mod claim;
mod directory;
pub mod fault_point;
mod frame;
mod health;
pub mod layers;
pub mod layout;
pub mod location;
pub mod memory;
mod metrics;
pub mod recipe;
pub mod record;
mod survey;
pub mod sweep;
mod tend;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::image::digest::Digest;
use crate::translate::EDITION;

use directory::Usability;
use fault_point::FaultPoint;
pub use health::State;
use health::{Ability, Health};
use layout::Name;

pub use bucket::Bucket;
pub use claim::{CLAIM_EXPIRY, Claim};
pub use layers::{LayerBytes, Maker, Standing, Transcoding, Upload};
pub use location::Location;
pub use memory::Memory;
pub use metrics::Metrics;
pub use recipe::{Recipe, Scope};
pub use record::Document;
pub use survey::{Inspected, Seen};

/// How long one operation of the store may take.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How many recipes of one derived digest are looked at, newest first.
pub const RECIPES_MAX: usize = 8;
/// How many names of one folder of recipes are listed, to find those of one derived digest.
const RECIPES_LISTED_MAX: usize = 10_000;
/// How often the last use of an object is noted while it is in use.
pub const USE_NOTED_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How old an object of a bucket may become, while it is in use, before it is written again: the age is all that a
/// lifecycle rule goes by, and each writing is paid for.
pub const REWRITTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How much of an error's text is shown, in characters.
const ERROR_CHARACTERS_MAX: usize = 400;

/// The durable tier: a bucket, a directory or this process's memory.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    location: Location,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    returns_damage: Arc<AtomicBool>,
    written: Arc<tend::Written>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the store {location}: {reason}")]
pub struct UnusableStore {
    location: String,
    reason: String,
}

/// Why the store cannot answer now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store cannot {operation}: {reason}")]
pub struct StoreFailure {
    operation: &'static str,
    reason: String,
}

/// A document of the store, and when it was last used or written.
#[derive(Clone, Debug)]
pub struct Found {
    /// The document.
    pub document: Document,
    /// What the store says of its object.
    last_use: SystemTime,
}

/// What the store holds under the name of a derived document.
#[derive(Clone, Debug)]
pub enum Held {
    /// Nothing: it was never kept here, or cleared away.
    Nothing,
    /// Something was kept, and cannot be read any more.
    Damage,
    /// The document.
    Document(Box<Found>),
}

impl Held {
    /// The document, where it can be read.
    pub fn document(self) -> Option<Found> {
        match self {
            Self::Document(found) => Some(*found),
            Self::Nothing | Self::Damage => None,
        }
    }
}

impl Store {
    /// Opens a store. A directory is made if there is none, and checked; a bucket is not asked, so one that is away does
    /// not stop the start.
    pub fn open(location: &Location) -> Result<Self, UnusableStore> {
        if let Location::Directory(directory) = location {
            let prepared = directory::prepare(directory);
            match prepared.map_err(|reason| UnusableStore::new(location, format!("the directory {reason}")))? {
                Usability::Usable => {}
                Usability::Later(error) => tracing::warn!(
                    store = %location, %error,
                    "the store cannot be written now; it is tried again with every request that needs it"
                ),
            }
        }
        Self::open_as_it_is(location)
    }

    /// Opens a store to look at it. Nothing is made or checked.
    pub fn open_as_it_is(location: &Location) -> Result<Self, UnusableStore> {
        let unusable = |reason: String| UnusableStore::new(location, reason);
        let objects: Arc<dyn ObjectStore> = match location {
            Location::Memory => Arc::new(InMemory::new()),
            Location::Directory(directory) => {
                let files = LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable(error.to_string()))?;
                Arc::new(files.with_fsync(true))
            }
            Location::Bucket(bucket) => bucket::open(bucket).map_err(unusable)?,
        };
        Ok(Self {
            objects,
            location: location.clone(),
            metrics: Arc::default(),
            health: Arc::default(),
            returns_damage: Arc::default(),
            written: Arc::default(),
        })
    }

    /// What it holds outlives the process.
    pub const fn is_durable(&self) -> bool {
        !matches!(self.location, Location::Memory)
    }

    /// It is on this machine, as far as can be told: asking it takes next to no time.
    pub const fn is_near(&self) -> bool {
        matches!(self.location, Location::Memory | Location::Directory(_))
    }

    /// Tries a bucket once, under a name that nobody else has: one that is away is a warning, and so is one that gives a
    /// name twice, because replicas rely on it. A directory is checked when it is opened.
    pub async fn check(&self, name: &str) {
        if self.is_near() {
            return;
        }
        let path = layout::staging(name);
        let object = || frame::wrap(b"whether a name is given only once");
        // What fails is counted and said where it fails.
        if matches!(self.put_if_absent(&path, object()).await, Ok(Put::Done))
            && matches!(self.put_if_absent(&path, object()).await, Ok(Put::Done))
        {
            tracing::warn!(
                store = %self.location,
                "the bucket gives one name to two objects: replicas may answer with different schema 1 signatures; expected a service that honours `If-None-Match: *`"
            );
        }
        let _ = timed(self.objects.delete(&path)).await;
    }

    /// Where it is.
    pub const fn location(&self) -> &Location {
        &self.location
    }

    /// Whether it answered when it was last asked.
    pub fn state(&self) -> State {
        self.health.state()
    }

    /// What is counted of this store.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Keeps a derived document with its recipe. Where the document is there already, the bytes that came first are handed
    /// back: they are the ones that other replicas serve.
    pub async fn keep(&self, recipe: &Recipe, bytes: Bytes) -> Result<Bytes, StoreFailure> {
        let (scope, derived) = (recipe.scope(), &recipe.derived);
        let document = Document { recipe: recipe.clone(), bytes };
        let object = document.to_object().map_err(|error| StoreFailure::new("write a document", &error))?;
        let record = recipe.to_object().map_err(|error| StoreFailure::new("write a recipe", &error))?;
        let path = layout::document(recipe.edition, derived, &scope);
        let sound = |object: &Bytes| Document::from_object(object).filter(|document| document.is_of(derived, &scope));
        let first = self.create(path, object, sound).await?;
        // Both hold the recipe, so whichever a crash leaves alone is good by itself; but only this one outlives an
        // eviction of the bytes.
        let same = |object: &Bytes| Recipe::from_object(object).filter(|found| is_same_record(found, recipe));
        self.create(layout::recipe(recipe), record, same).await?;
        fault_point::reach(FaultPoint::RecipeWritten).await;
        Ok(first.map_or(document.bytes, |first| first.bytes))
    }

    /// A derived document of this edition. One read.
    pub async fn document(&self, scope: &Scope, derived: &Digest, edition: u32) -> Result<Held, StoreFailure> {
        let path = layout::document(edition, derived, scope);
        let Some((object, meta)) = self.read(&path).await? else { return Ok(Held::Nothing) };
        let document = Document::from_object(&object).filter(|document| document.is_of(derived, scope));
        // A later edition may say what this one does not understand.
        let is_of_later_edition = edition > EDITION && frame::unwrap(&object).is_some();
        self.note_soundness(&path, document.is_some() || is_of_later_edition);
        Ok(match document {
            Some(document) => Held::Document(Box::new(Found { document, last_use: meta.last_modified.into() })),
            None if is_of_later_edition => Held::Nothing,
            None => Held::Damage,
        })
    }

    /// The recipes of a derived digest within a scope, newest first, at most [`RECIPES_MAX`].
    pub async fn recipes(&self, scope: &Scope, derived: &Digest) -> Result<Vec<Recipe>, StoreFailure> {
        let folder = layout::recipes(derived);
        let is_asked_for = |object: &ObjectMeta| match Name::of(&object.location) {
            Some(Name::Recipe { derived: hex, scope: of, .. }) => hex == derived.hex() && of == scope.as_str(),
            _ => false,
        };
        let listing = async {
            let objects = self.objects.list(Some(&folder)).take(RECIPES_LISTED_MAX);
            objects.try_filter(|object| std::future::ready(is_asked_for(object))).try_collect::<Vec<_>>().await
        };
        let mut found = self.noted(Ability::Reading, "list recipes", within_time("list recipes", listing).await)?;
        found.sort_by(|left, right| {
            right.last_modified.cmp(&left.last_modified).then_with(|| left.location.cmp(&right.location))
        });
        found.truncate(RECIPES_MAX);
        let reads = found.into_iter().map(|object| async move { self.recipe(&object.location, scope, derived).await });
        let recipes: Vec<Option<Recipe>> = stream::iter(reads).buffered(RECIPES_MAX).try_collect().await?;
        Ok(recipes.into_iter().flatten().collect())
    }

    async fn recipe(&self, path: &Path, scope: &Scope, derived: &Digest) -> Result<Option<Recipe>, StoreFailure> {
        let Some((object, _)) = self.read(path).await? else { return Ok(None) };
        match Recipe::from_object(&object) {
            // A later edition may say what this one does not understand.
            None if frame::unwrap(&object).is_some() => Ok(None),
            found => {
                let recipe = found.filter(|recipe| recipe.scope() == *scope && recipe.derived == *derived);
                self.note_soundness(path, recipe.is_some());
                Ok(recipe)
            }
        }
    }

    /// Says that a document which was found is in use, if it was not said lately.
    pub async fn note_use_of(&self, found: &Found) {
        if age_of(found.last_use) >= self.noted_every() {
            self.note_use(&found.document.recipe, &found.document.bytes).await;
        }
    }

    /// Says that a derived document and its recipe are in use, so that they are not cleared away; what was cleared away by
    /// others is kept again, unless a later edition may have said more in it than is known here. Best effort.
    pub async fn note_use(&self, recipe: &Recipe, bytes: &Bytes) {
        let objects = [layout::document(recipe.edition, &recipe.derived, &recipe.scope()), layout::recipe(recipe)];
        for object in objects {
            match self.refresh(&object).await {
                Ok(()) => {}
                Err(object_store::Error::NotFound { .. }) if recipe.edition > EDITION => {}
                Err(object_store::Error::NotFound { .. }) => {
                    if let Err(error) = self.keep(recipe, bytes.clone()).await {
                        tracing::debug!(%error, %object, "an object in use was gone and cannot be kept again now");
                    }
                }
                Err(error) => tracing::debug!(%error, %object, "the last use of an object cannot be noted now"),
            }
        }
        self.note_use_of_config(recipe, bytes).await;
    }

    /// How old the last use of an object may become while it is in use.
    const fn noted_every(&self) -> Duration {
        match self.location {
            Location::Memory | Location::Directory(_) => USE_NOTED_EVERY,
            Location::Bucket(_) => REWRITTEN_AFTER,
        }
    }

    async fn refresh(&self, path: &Path) -> object_store::Result<()> {
        if let Location::Directory(root) = &self.location {
            let (root, object) = (root.clone(), path.clone());
            let touched = tokio::task::spawn_blocking(move || directory::touch(&root, &object, SystemTime::now()));
            return match touched.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(source)) if source.kind() == std::io::ErrorKind::NotFound => {
                    Err(object_store::Error::NotFound { path: path.to_string(), source: source.into() })
                }
                Ok(Err(source)) => Err(object_store::Error::Generic { store: "directory", source: source.into() }),
                Err(source) => Err(object_store::Error::JoinError { source }),
            };
        }
        let found = self.objects.get(path).await?;
        if age_of(found.meta.last_modified.into()) < self.noted_every() {
            return Ok(());
        }
        let object = found.bytes().await?;
        // Damage is not made young again: it is for a reader to find and replace.
        if frame::unwrap(&object).is_some() {
            self.put(path, object).await?;
        }
        Ok(())
    }

    /// The shared signing key: the one that is here, or else `candidate`, which is then the shared one. A damaged one is
    /// not replaced: other replicas sign with it, and only its owner can say that it is gone.
    pub async fn signing_key(&self, candidate: &str) -> Result<String, StoreFailure> {
        const READ: &str = "read the signing key";
        let path = layout::signing_key();
        let (object, _) = match self.read(&path).await? {
            Some(found) => found,
            None if self.put_if_absent(&path, frame::wrap(candidate.as_bytes())).await? == Put::Done => {
                return Ok(candidate.to_owned());
            }
            None => self.read(&path).await?.ok_or_else(|| StoreFailure::of(READ, "it was removed just now"))?,
        };
        let key = frame::unwrap(&object).and_then(|text| String::from_utf8(text.to_vec()).ok());
        self.note_soundness(&path, key.is_some());
        key.ok_or_else(|| {
            let words = format!("{path} is damaged; put back a copy of it, or remove it and restart every replica");
            StoreFailure::of(READ, &words)
        })
    }

    /// Writes an object whole, unless a sound one is there: that one is handed back, as `sound` reads it.
    async fn create<Content>(
        &self,
        path: Path,
        object: Bytes,
        sound: impl Fn(&Bytes) -> Option<Content>,
    ) -> Result<Option<Content>, StoreFailure> {
        let put = self.put_if_absent(&path, object.clone()).await;
        if matches!(put, Ok(Put::Done)) {
            self.written.note(object.len());
            return Ok(None);
        }
        // A directory that is full or read-only may hold it already; a bucket that does not take it is away.
        if (put.is_ok() || self.is_near())
            && let Some((existing, meta)) = self.read(&path).await?
        {
            let content = sound(&existing);
            self.note_soundness(&path, content.is_some());
            if let Some(content) = content {
                if age_of(meta.last_modified.into()) >= USE_NOTED_EVERY {
                    // It is handed out again: a sweep must not find it old at this moment.
                    let _ = self.refresh(&path).await;
                }
                return Ok(Some(content));
            }
        }
        put?;
        // What is there is damaged, or was until this moment: it is worth nothing, so it may be overwritten.
        let replaced = within_time("replace a damaged object", self.put(&path, object)).await;
        self.noted(Ability::Writing, "replace", replaced)?;
        Ok(None)
    }

    /// Gives an object its name, whatever has it.
    async fn put(&self, path: &Path, object: Bytes) -> object_store::Result<()> {
        let Location::Directory(root) = &self.location else {
            return self.objects.put(path, object.into()).await.map(|_| ());
        };
        self.objects.rename(&self.stage(root, object).await?, path).await
    }

    async fn stage(&self, root: &std::path::Path, object: Bytes) -> object_store::Result<Path> {
        let root = root.to_owned();
        let staged = tokio::task::spawn_blocking(move || directory::stage(&root, &object)).await?;
        let staged =
            staged.map_err(|source| object_store::Error::Generic { store: "directory", source: source.into() })?;
        fault_point::reach(FaultPoint::Staged).await;
        Ok(directory::staged_object(&staged))
    }

    /// Gives an object its name, if nothing has it.
    async fn put_if_absent(&self, path: &Path, object: Bytes) -> Result<Put, StoreFailure> {
        let put = async {
            let Location::Directory(root) = &self.location else {
                let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                return self.objects.put_opts(path, object.into(), create).await.map(|_| ());
            };
            let staged = self.stage(root, object).await?;
            let named = self.objects.copy_if_not_exists(&staged, path).await;
            fault_point::reach(FaultPoint::Renamed).await;
            // What stays is cleared away with other leftovers.
            let _ = self.objects.delete(&staged).await;
            named
        };
        let result = match timed(put).await {
            Some(Ok(())) => Ok(Put::Done),
            Some(Err(object_store::Error::AlreadyExists { .. })) => Ok(Put::Taken),
            Some(Err(error)) => Err(StoreFailure::new("write", &error)),
            None => Err(StoreFailure::timed_out("write")),
        };
        self.noted(Ability::Writing, "write", result)
    }

    /// An object; `None` if there is no such object.
    async fn read(&self, path: &Path) -> Result<Option<(Bytes, ObjectMeta)>, StoreFailure> {
        let read = async {
            match self.objects.get(path).await {
                Ok(found @ GetResult { .. }) => {
                    let meta = found.meta.clone();
                    found.bytes().await.map(|bytes| Some((bytes, meta)))
                }
                Err(object_store::Error::NotFound { source, .. }) if !is_about_the_bucket(&*source) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.noted(Ability::Reading, "read", within_time("read", read).await)
    }

    /// Counts what is damaged, and says so where it is the first after sound ones: a store that returns nothing but
    /// garbage would fill the log.
    fn note_soundness(&self, path: &Path, is_sound: bool) {
        if !is_sound {
            self.metrics.damaged.inc();
        }
        if !self.returns_damage.swap(!is_sound, Ordering::Relaxed) && !is_sound {
            tracing::warn!(
                store = %self.location, object = %path,
                "an object of the store is damaged; documents and recipes are made again when they are needed, and `schemabridge store verify` finds others"
            );
        }
    }

    /// Counts an operation, and says so where it is the first to fail or the first to succeed again.
    fn noted<Output>(
        &self,
        ability: Ability,
        operation: &'static str,
        result: Result<Output, StoreFailure>,
    ) -> Result<Output, StoreFailure> {
        self.metrics.count(operation, &result);
        self.health.note(ability, &self.location, &result);
        result
    }
}

/// A bucket that is gone answers with the status of an object that is not there, and only the code tells them apart.
fn is_about_the_bucket(answer: &(dyn std::error::Error + Send + Sync)) -> bool {
    let words = answer.to_string();
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| words.contains(code))
}

/// Whether a name was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Done,
    Taken,
}

/// A record stands for a recipe if it leads from the same source to the same bytes.
fn is_same_record(found: &Recipe, recipe: &Recipe) -> bool {
    found.scope() == recipe.scope() && found.source == recipe.source && found.derived == recipe.derived
}

impl UnusableStore {
    fn new(location: &Location, reason: String) -> Self {
        Self { location: location.to_string(), reason }
    }
}

impl StoreFailure {
    fn new(operation: &'static str, error: &dyn std::error::Error) -> Self {
        Self { operation, reason: shown(&error.to_string()) }
    }

    fn of(operation: &'static str, reason: &str) -> Self {
        Self { operation, reason: reason.to_owned() }
    }

    /// A document is damaged and no recipe of it can be found: whether it can be served again is not known.
    pub fn of_damage() -> Self {
        Self::of(
            "read a derived document",
            "it is damaged, and there is no recipe to make it again; pull the tag again",
        )
    }

    fn timed_out(operation: &'static str) -> Self {
        Self { operation, reason: format!("it did not answer within {} s", OPERATION_TIMEOUT.as_secs()) }
    }
}

/// What a library says of an error, on one line, cut, and without the queries of URLs: those can hold a signature that
/// opens the bucket. The XML in which a service says why is left as it is.
fn shown(words: &str) -> String {
    let words = words.split_whitespace().map(without_query);
    let mut line = words.collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(ERROR_CHARACTERS_MAX) {
        line.truncate(end);
    }
    line
}

fn without_query(word: &str) -> &str {
    let Some((scheme, rest)) = word.split_once("://") else { return word };
    rest.find('?').map_or(word, |at| &word[..scheme.len() + "://".len() + at])
}

/// How long ago that was; nothing for what a clock that was wrong says of the future.
fn age_of(moment: SystemTime) -> Duration {
    SystemTime::now().duration_since(moment).unwrap_or_default()
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

#[cfg(test)]
mod tests;
