//! Reading stored documents and making derived ones: each once, however many ask.
//!
//! Shared work runs on a task of its own. A client that leaves does not stop it for the others, and what was paid for
//! fills the memory. What it brings depends on content alone, so it may be shared between callers; that each of them may
//! see the source was asked before. Only a refusal is personal: who shared somebody else's asks once again for himself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::image::descriptor::Descriptor;
use crate::image::digest::Digest;
use crate::image::manifest::{CONFIG_BYTES_MAX, Content, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Repository, Tag};
use crate::store::memory::{Completeness, Dish, Handed, Kept, LastUse};
use crate::store::recipe::StandIn;
use crate::store::{Claim, RECIPES_MAX, Recipe, StoreFailure};
use crate::translate::index::Shape;
use crate::translate::sign::SigningKey;
use crate::translate::{self, Cell, Derived, DerivedBlob, LayerFault, LayerPolicy, Learnt, Source, Untranslatable};
use crate::upstream::{Asked, Caller, Failure, Remembered, continued};

use super::Gateway;
use super::fault::Fault;
use super::shared::random_bytes;
use super::together::{Lead, Shared, led_by};

/// How long to wait for another replica that is at the same derivation, before making it here too.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
/// How often that replica is looked after.
const CLAIM_LOOK: Duration = Duration::from_millis(50);

/// Why a document cannot be read or made. Shared between all who wait for it.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Obstacle {
    #[error(transparent)]
    Upstream(#[from] Failure),
    #[error("the stored document {0}")]
    Malformed(String),
    #[error("{0}")]
    Untranslatable(String),
    /// It cannot, for its layers of zstd.
    #[error("{0}")]
    Zstd(String),
    /// A layer cannot be read, in whatever format the image is to be.
    #[error("{0}")]
    Layer(String),
    /// It was made, and cannot be kept.
    #[error("{failure}")]
    Unkept { kept: Arc<Kept>, failure: StoreFailure },
    #[error(transparent)]
    Store(#[from] StoreFailure),
    #[error("{0}")]
    SigningKey(String),
    /// As many are worked on as may be.
    #[error("too many manifests are being worked on at this moment")]
    Busy { seconds: u64 },
    #[error("a task of the gateway ended without an answer")]
    Internal,
}

impl From<Obstacle> for Fault {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Upstream(failure) => Self::Upstream(failure),
            Obstacle::Malformed(words) => Self::Malformed(words),
            Obstacle::Untranslatable(words) | Obstacle::Zstd(words) => Self::Unacceptable(words),
            Obstacle::Layer(words) => Self::Unacceptable(format!("this image cannot be translated: {words}")),
            Obstacle::Unkept { failure, .. } | Obstacle::Store(failure) => Self::Store(failure),
            Obstacle::SigningKey(words) => Self::SigningKey(words),
            Obstacle::Busy { seconds } => Self::Busy(seconds),
            Obstacle::Internal => Self::Internal,
        }
    }
}

/// What is to be derived, for whom.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) caller: Caller,
    pub(super) repository: Repository,
    pub(super) tag: Tag,
    pub(super) stored: Arc<Manifest>,
    /// The digest that the upstream knows the stored document by.
    pub(super) source: Digest,
    pub(super) target: Format,
    /// How it is to look, if it is a list or index.
    pub(super) shape: Option<Shape>,
    /// What becomes of its layers.
    pub(super) layers: LayerPolicy,
    /// What is known of them before: how it was made the first time.
    pub(super) known: Arc<Learnt>,
    pub(super) part: Part,
}

/// Whether a document is the whole of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A client asked for it.
    Whole,
    /// It is made for a list or index. Whoever makes that one makes all its children.
    Child,
}

impl Order {
    fn dish(&self) -> Dish {
        // Only schema 1 says its tag; any other document is the same under every tag.
        let tag = (self.target == Format::Schema1).then(|| self.tag.clone());
        Dish {
            repository: self.repository.clone(),
            tag,
            source: self.source.clone(),
            target: self.target,
            shape: self.shape.clone(),
            layers: self.layers,
        }
    }
}

/// Where a derived document came from this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Remembered,
    Cooked,
}

impl Gateway {
    /// The stored document with this digest, parsed. The caller must have been let see it.
    pub(super) async fn stored(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Arc<Manifest>, Obstacle> {
        if let Some(manifest) = self.remembered(repository, digest).await {
            return Ok(manifest);
        }
        let read = |gateway: Arc<Self>, caller: Caller| {
            let (repository, digest) = (repository.clone(), digest.clone());
            async move { gateway.read_stored(&caller, &repository, &digest).await }
        };
        let shared = {
            let (gateway, read) = (Arc::clone(self), read(Arc::clone(self), caller.clone()));
            let (repository, digest) = (repository.clone(), digest.clone());
            move |lead: Arc<Lead>| async move {
                gateway.memory.stored_or(repository, digest, Box::pin(led_by(lead, read))).await
            }
        };
        match self.share(Remembered::Manifest, shared).await {
            Shared::Done(manifest) => Ok(manifest),
            Shared::Refused(obstacle) => Err(obstacle),
            Shared::SomebodyElsesRefusal => read(Arc::clone(self), caller.clone()).await,
        }
    }

    /// The same for one that no other document asks for: where it is not remembered, it waits for its turn.
    pub(super) async fn stored_in_turn(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Arc<Manifest>, Obstacle> {
        if let Some(manifest) = self.remembered(repository, digest).await {
            return Ok(manifest);
        }
        let _turn = self.shared.turns.take().await?;
        Box::pin(self.stored(caller, repository, digest)).await
    }

    async fn remembered(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Manifest>> {
        let manifest = self.memory.stored(repository, digest).await?;
        self.count_asked(Remembered::Manifest, Asked::Hit);
        Some(manifest)
    }

    async fn read_stored(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Arc<Manifest>, Obstacle> {
        let bytes =
            self.upstream.fetch_manifest(caller, repository, digest).await.map_err(|failure| match failure {
                Failure::TooLarge { bytes_max, .. } => {
                    Obstacle::Malformed(format!("is larger than the limit of {bytes_max} bytes"))
                }
                failure => Obstacle::Upstream(failure),
            })?;
        self.parse_stored(repository, bytes)
    }

    /// Parses a stored document whose bytes were checked against their digest, and learns the sizes that it names.
    pub(super) fn parse_stored(&self, repository: &Repository, bytes: Bytes) -> Result<Arc<Manifest>, Obstacle> {
        let manifest = Manifest::parse(bytes).map_err(|malformed| Obstacle::Malformed(malformed.to_string()))?;
        self.sizes.learn(repository, &manifest);
        Ok(Arc::new(manifest))
    }

    /// The derived document that this order asks for, kept in the store before anybody sees its digest.
    pub(super) async fn derive(self: &Arc<Self>, order: Order) -> Result<(Arc<Kept>, Freshness), Obstacle> {
        let dish = order.dish();
        if let Some(kept) = self.memory.derived(&dish).await {
            if kept.last_use.is_due() {
                self.note_use(&kept.recipe, &kept.derived);
            }
            self.count_asked(Remembered::Derived, Asked::Hit);
            return Ok((kept, Freshness::Remembered));
        }
        let shared = {
            let (gateway, order, dish) = (Arc::clone(self), order.clone(), dish.clone());
            move |lead: Arc<Lead>| async move {
                let cook = Box::pin(gateway.cook_among_replicas(order));
                gateway.memory.derived_or(dish, led_by(lead, cook)).await
            }
        };
        match self.share(Remembered::Derived, shared).await {
            Shared::Done(kept) => {
                if kept.completeness == Completeness::Partial {
                    self.memory.forget_derived(&dish).await;
                }
                Ok((kept, Freshness::Cooked))
            }
            Shared::Refused(obstacle) => Err(obstacle),
            Shared::SomebodyElsesRefusal => {
                let gateway = Arc::clone(self);
                let cooked = tokio::spawn(continued(async move { gateway.cook_and_keep(order).await }));
                Ok((cooked.await.map_err(|_| Obstacle::Internal)??, Freshness::Cooked))
            }
        }
    }

    /// Tells the store that a derived document is in use. Nobody waits for that.
    pub(super) fn note_use(self: &Arc<Self>, recipe: &Recipe, derived: &Derived) {
        let (store, recipe, bytes) = (self.shared.store.clone(), recipe.clone(), derived.bytes.clone());
        tokio::spawn(async move { store.note_use(&recipe, &bytes).await });
    }

    /// Makes a document, unless another replica is at it and comes to an end in time: then its bytes are ours.
    async fn cook_among_replicas(self: &Arc<Self>, order: Order) -> Result<Arc<Kept>, Obstacle> {
        if order.part == Part::Child {
            return self.cook_and_keep(order).await;
        }
        let _turn = self.shared.turns.take().await?;
        if !self.shared.store.is_durable() {
            return self.cook_and_keep(order).await;
        }
        let claim = order.dish().key(&self.options.upstream_name, self.shared.edition);
        if let Some(recipe) = self.made_by_another(&claim).await
            && let Some(kept) = self.kept_by_another(&order, *recipe).await
        {
            return Ok(kept);
        }
        let cooked = self.cook_and_keep(order).await;
        let made = cooked.as_ref().ok().filter(|kept| kept.completeness == Completeness::Whole);
        let (store, made) = (self.shared.store.clone(), made.map(|kept| kept.recipe.clone()));
        // Nobody here waits for it.
        tokio::spawn(async move { store.settle(&claim, made.as_ref()).await });
        cooked
    }

    /// How another replica made a document, if it is at it or was. `None` gives the work to us.
    async fn made_by_another(&self, name: &str) -> Option<Box<Recipe>> {
        let wait = async {
            let mut claim = self.shared.store.claim(name).await;
            loop {
                match claim {
                    Claim::Ours => return None,
                    Claim::Made(recipe) => return Some(recipe),
                    Claim::Theirs => tokio::time::sleep(CLAIM_LOOK).await,
                }
                claim = match self.shared.store.claimed(name).await {
                    Some(claim) => claim,
                    None => self.shared.store.claim(name).await,
                };
            }
        };
        tokio::time::timeout(CLAIM_PATIENCE, wait).await.ok().flatten()
    }

    async fn kept_by_another(&self, order: &Order, recipe: Recipe) -> Option<Arc<Kept>> {
        let is_of_order = recipe.upstream == self.options.upstream_name
            && recipe.repository == order.repository
            && recipe.source == order.source
            && recipe.target == order.target
            && recipe.tag == order.dish().tag
            && recipe.shape == order.shape
            && recipe.layers == order.layers;
        if !is_of_order {
            return None;
        }
        let held = self.shared.store.document(&recipe.scope(), &recipe.derived, self.shared.edition).await.ok()?;
        let found = held.document()?;
        if !self.shared.store.has_config_of(&recipe, &found.document.bytes).await.ok()? {
            return None;
        }
        self.shared.store.note_use_of(&found).await;
        let derived = Derived {
            bytes: found.document.bytes,
            digest: recipe.derived.clone(),
            format: recipe.target,
            blobs: Vec::new(),
        };
        Some(self.remember_kept(derived, recipe, Completeness::Whole).await)
    }

    async fn cook_and_keep(self: &Arc<Self>, order: Order) -> Result<Arc<Kept>, Obstacle> {
        let (mut derived, recipe, completeness) = self.cook(order).await?;
        // The store has them from here on; in memory nobody would weigh them.
        let blobs = std::mem::take(&mut derived.blobs);
        match self.keep(&recipe, &derived, &blobs).await {
            Ok(first) => {
                let derived = Derived { bytes: first, ..derived };
                Ok(self.remember_kept(derived, recipe, completeness).await)
            }
            Err(failure) => {
                let kept = Arc::new(Kept { derived, recipe, completeness, last_use: LastUse::now() });
                Err(Obstacle::Unkept { kept, failure })
            }
        }
    }

    /// The blobs that were made with a document go first: whoever is shown the document asks for them.
    async fn keep(&self, recipe: &Recipe, derived: &Derived, blobs: &[DerivedBlob]) -> Result<Bytes, StoreFailure> {
        for blob in blobs {
            self.shared.store.keep_config(recipe, blob).await?;
        }
        self.shared.store.keep(recipe, derived.bytes.clone()).await
    }

    /// Keeps a schema 1 that a client pushed as derived from the document of its recipe, which is stored in its place.
    pub(super) async fn keep_pushed(&self, recipe: Recipe, pushed: &Manifest) -> Result<(), StoreFailure> {
        self.shared.store.keep(&recipe, pushed.bytes().clone()).await.map(drop)
    }

    /// From here on a client that reads schema 1 gets under the tag what was pushed, as long as it is remembered.
    pub(super) async fn serve_pushed_again(&self, recipe: Recipe, pushed: &Manifest) {
        let dish = Dish {
            repository: recipe.repository.clone(),
            tag: recipe.tag.clone(),
            source: recipe.source.clone(),
            target: recipe.target,
            shape: None,
            layers: recipe.layers,
        };
        let derived = Derived {
            bytes: pushed.bytes().clone(),
            digest: pushed.digest().clone(),
            format: Format::Schema1,
            blobs: Vec::new(),
        };
        let kept = self.remember_kept(derived, recipe.clone(), Completeness::Whole).await;
        self.memory.forget_derived(&dish).await;
        let _ = self.memory.derived_or(dish.clone(), async { Ok::<_, Obstacle>(kept) }).await;
        let claim = dish.key(&self.options.upstream_name, self.shared.edition);
        let store = self.shared.store.clone();
        // Best effort: other replicas make another schema 1 of it, which says the same.
        tokio::spawn(async move { store.settle(&claim, Some(&recipe)).await });
    }

    async fn remember_kept(&self, derived: Derived, recipe: Recipe, completeness: Completeness) -> Arc<Kept> {
        let scope = recipe.scope();
        let known = self.memory.handed(&scope, &derived.digest).await;
        let others = known.iter().flat_map(|handed| &handed.recipes).filter(|other| other.source != recipe.source);
        let recipes = std::iter::once(&recipe).chain(others).take(RECIPES_MAX).cloned().collect();
        let handed = Handed { derived: derived.clone(), recipes, last_use: LastUse::now() };
        self.memory.remember_handed(scope, handed).await;
        Arc::new(Kept { derived, recipe, completeness, last_use: LastUse::now() })
    }

    /// Translates, without keeping.
    async fn cook(self: &Arc<Self>, order: Order) -> Result<(Derived, Recipe, Completeness), Obstacle> {
        let (started, from, to) = (Instant::now(), order.stored.format(), order.target);
        let cooked = self.cook_now(order).await?;
        self.note_made(from, to, started.elapsed().as_secs_f64());
        Ok(cooked)
    }

    async fn cook_now(self: &Arc<Self>, order: Order) -> Result<(Derived, Recipe, Completeness), Obstacle> {
        let key = match order.target {
            Format::Schema1 => Some(self.signing_key().await?),
            _ => None,
        };
        let (Cooked { derived, config, gzip_layers }, completeness) = if let Some(shape) = &order.shape {
            let (derived, completeness) = self.cook_parent(&order, shape).await?;
            (Cooked { derived, config: None, gzip_layers: Vec::new() }, completeness)
        } else {
            (self.cook_image(&order, key.clone()).await?, Completeness::Whole)
        };
        let recipe = Recipe {
            edition: self.shared.edition,
            upstream: self.options.upstream_name.clone(),
            tag: order.dish().tag,
            repository: order.repository,
            source: order.source,
            source_format: order.stored.format(),
            config,
            target: order.target,
            derived: derived.digest.clone(),
            shape: order.shape,
            signing_key: key.map(|key| key.key_id().to_owned()),
            layers: order.layers,
            gzip_layers,
        };
        Ok((derived, recipe, completeness))
    }

    pub(super) async fn cook_image(&self, order: &Order, key: Option<Arc<SigningKey>>) -> Result<Cooked, Obstacle> {
        let cell = cell(order).ok_or_else(|| {
            let (from, to) = (order.stored.format(), order.target);
            Obstacle::Untranslatable(format!("there is no translation from {} to {}", from.name(), to.name()))
        })?;
        let (digest, config) = self.config(order).await?.unzip();
        let learnt = self.learn(order, config.as_ref()).await?;
        let gzip_layers = gzip_layers(&learnt);
        // Up to 8 MiB of JSON are hashed and written: not on a thread that others wait for.
        let order = order.clone();
        let work = move || {
            cell(&Source {
                manifest: &order.stored,
                config: config.as_deref(),
                repository: &order.repository,
                tag: &order.tag,
                signing_key: key.as_deref(),
                learnt: Some(&learnt),
            })
        };
        let derived = tokio::task::spawn_blocking(work).await.map_err(|_| Obstacle::Internal)?;
        let derived = derived.map_err(|reason| match reason {
            Untranslatable::Layer { fault: LayerFault::Zstd { .. }, .. } => Obstacle::Zstd(reason.to_string()),
            reason => Obstacle::Untranslatable(reason.to_string()),
        })?;
        Ok(Cooked { derived, config: digest, gzip_layers })
    }

    /// The config that the cell reads, where it reads one, or that layers are held against.
    async fn config(&self, order: &Order) -> Result<Option<(Digest, Bytes)>, Obstacle> {
        let Content::Image(image) = order.stored.content() else { return Ok(None) };
        let is_held_against = order.layers == LayerPolicy::Gzip && image.has_zstd_layers();
        if !is_held_against && !translate::config_needed(&order.stored, order.target) {
            return Ok(None);
        }
        self.fetch_config(&order.caller, &order.repository, &image.config).await.map(Some)
    }

    pub(super) async fn fetch_config(
        &self,
        caller: &Caller,
        repository: &Repository,
        config: &Descriptor,
    ) -> Result<(Digest, Bytes), Obstacle> {
        let mut fetched = self.upstream.fetch_blob(caller, repository, &config.digest, CONFIG_BYTES_MAX).await;
        if fetched.as_ref().is_err_and(Failure::is_outage)
            && let Some(bytes) = self.kept_config(caller, repository, config).await
        {
            fetched = Ok(bytes);
        }
        let bytes = fetched.map_err(|failure| match failure {
            Failure::TooLarge { bytes_max, .. } => {
                Obstacle::Untranslatable(format!("its config is larger than the limit of {bytes_max} bytes"))
            }
            failure if failure.is_not_found() => {
                Obstacle::Untranslatable(format!("the registry does not have its config {}", config.digest))
            }
            failure => Obstacle::Upstream(failure),
        })?;
        if bytes.len() as u64 != config.size {
            let (said, found) = (config.size, bytes.len());
            return Err(Obstacle::Malformed(format!("says that its config has {said} bytes, and it has {found}")));
        }
        Ok((config.digest.clone(), bytes))
    }

    /// A derived document made again by its recipe, if that gives the digest that was handed out. A recipe of another
    /// edition is tried too: most changes of a translator change few documents, and the digest tells.
    pub(super) async fn cook_again(
        self: &Arc<Self>,
        caller: &Caller,
        recipe: &Recipe,
    ) -> Result<Option<Derived>, Obstacle> {
        let stored = self.stored(caller, &recipe.repository, &recipe.source).await?;
        // A document that does not say its tag is the same under any.
        let Some(tag) = recipe.tag.clone().or_else(|| "latest".parse().ok()) else { return Ok(None) };
        let order = Order {
            caller: caller.clone(),
            repository: recipe.repository.clone(),
            tag,
            stored,
            source: recipe.source.clone(),
            target: recipe.target,
            shape: recipe.shape.clone(),
            layers: recipe.layers,
            known: Arc::new(recipe.learnt()),
            // What another replica made of it before is what is gone.
            part: Part::Child,
        };
        let kept = match self.derive(order).await {
            // Best effort: whoever is served now has the bytes, and the next one makes them again.
            Ok((kept, Freshness::Remembered)) => {
                let _ = self.shared.store.keep(&kept.recipe, kept.derived.bytes.clone()).await;
                kept
            }
            Ok((kept, Freshness::Cooked)) | Err(Obstacle::Unkept { kept, .. }) => kept,
            Err(obstacle) => return Err(obstacle),
        };
        Ok((kept.derived.digest == recipe.derived).then(|| kept.derived.clone()))
    }

    /// The key that signs schema 1: the operator's, or the one that is shared through the store. Never one that only this
    /// process knows, where the store outlives it.
    pub(super) async fn signing_key(&self) -> Result<Arc<SigningKey>, Obstacle> {
        let from_store = || async {
            let unusable = |error: &dyn std::fmt::Display| Obstacle::SigningKey(error.to_string());
            let entropy = random_bytes().map_err(|error| unusable(&error))?;
            let candidate = SigningKey::generate(entropy).map_err(|error| unusable(&error))?;
            let shared = self.shared.store.signing_key(&candidate.to_pem()).await?;
            SigningKey::from_pem(&shared).map(Arc::new).map_err(|error| unusable(&error))
        };
        self.shared.signing_key.get_or_try_init(from_store).await.cloned()
    }
}

/// A document that was made, with what its recipe says of the making.
pub(super) struct Cooked {
    pub(super) derived: Derived,
    config: Option<Digest>,
    gzip_layers: Vec<StandIn>,
}

fn gzip_layers(learnt: &Learnt) -> Vec<StandIn> {
    let gzip = learnt.gzip.iter();
    gzip.map(|(stored, gzip)| StandIn { stored: stored.clone(), gzip: gzip.clone() }).collect()
}

/// The table's cell, and more: an upgrade, an image in its own format with other layers, and a stored schema 1 under the
/// digest of its payload, for upstreams (Amazon ECR) that know it by another. Docker 1.6 and 1.7 refuse any digest but the
/// payload's.
fn cell(order: &Order) -> Option<Cell> {
    let (stored, target) = (&order.stored, order.target);
    match (stored.format(), target) {
        (Format::Schema1, Format::Schema1) => Some(under_payload_digest),
        (format, target) if format == target && order.layers == LayerPolicy::Gzip => Some(translate::repacked),
        _ => translate::cell_for(stored, target).or_else(|| translate::upgrade_for(stored, target)),
    }
}

fn under_payload_digest(source: &Source<'_>) -> Result<Derived, Untranslatable> {
    let manifest = source.manifest;
    let key = source.signing_key.ok_or(Untranslatable::SigningKeyMissing)?;
    let bytes = translate::signed(manifest, key);
    Ok(Derived { bytes, digest: manifest.digest().clone(), format: Format::Schema1, blobs: Vec::new() })
}

/// A schema 1 without signatures. It is given one before it goes out, because every client that reads schema 1 wants the
/// block; its payload, and so its digest, stay the same.
pub(super) fn is_unsigned(manifest: &Manifest) -> bool {
    matches!(manifest.content(), Content::Schema1(schema1) if !schema1.is_signed())
}
