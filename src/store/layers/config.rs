//! Configs that were made with a document. Like recipes they stay: a config alone does not tell how it was made.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::image::digest::Digest;
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::store::layout::{self, Name};
use crate::store::recipe::{Recipe, Scope};
use crate::store::record::{below_recipe, recipe_and_rest};
use crate::store::{RECIPES_MAX, Store, StoreFailure, frame};
use crate::translate::DerivedBlob;

/// A config, and the recipe of the document that it was made with: who may read the source of that may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How the document was made.
    pub recipe: Recipe,
    /// The digest of the config.
    pub digest: Digest,
    /// The config.
    pub bytes: Bytes,
}

impl Config {
    fn to_object(&self) -> Result<Bytes, serde_json::Error> {
        below_recipe(&self.recipe, &self.bytes)
    }

    /// The config in an object; `None` where the object is damaged, or says more than this version understands.
    pub fn from_object(object: &Bytes) -> Option<Self> {
        let (recipe, bytes) = recipe_and_rest(object)?;
        Some(Self { recipe, digest: Digest::sha256(&bytes), bytes })
    }
}

impl Store {
    /// Keeps a config that was made with the document of this recipe. Written before the document itself, so whoever is
    /// shown the document finds the config.
    pub async fn keep_config(&self, recipe: &Recipe, config: &DerivedBlob) -> Result<(), StoreFailure> {
        let kept = Config { recipe: recipe.clone(), digest: config.digest.clone(), bytes: config.bytes.clone() };
        let object = kept.to_object().map_err(|error| StoreFailure::new("write a config", &error))?;
        let is_of = |object: &Bytes| Config::from_object(object).filter(|found| found.digest == config.digest);
        self.create(layout::config(recipe, &config.digest), object, is_of).await.map(drop)
    }

    /// Says that the config is in use that was made with a document, because the document is: whoever has the config already
    /// does not ask for it. One that is gone is made again with the document.
    pub(in crate::store) async fn note_use_of_config(&self, recipe: &Recipe, document: &Bytes) {
        if recipe.source_format != Format::Schema1 || !matches!(recipe.target, Format::Schema2 | Format::Oci) {
            return;
        }
        let Ok(manifest) = Manifest::parse(document.clone()) else { return };
        let Content::Image(image) = manifest.content() else { return };
        if let Err(error) = self.refresh(&layout::config(recipe, &image.config.digest)).await {
            tracing::debug!(%error, config = %image.config.digest, "the last use of a config cannot be noted now");
        }
    }

    /// A config within a scope, once for each source that it was made of, the youngest first, at most [`RECIPES_MAX`].
    pub async fn configs(&self, scope: &Scope, config: &Digest) -> Result<Vec<Config>, StoreFailure> {
        let folder = layout::configs(config);
        let found = self.named_in(&folder, |name| match name {
            Name::Config { config: hex, scope: of, .. } if hex == config.hex() && of == scope.as_str() => Some(()),
            _ => None,
        });
        let reads = found.await?.into_iter().map(|((), meta)| async move {
            let Some((object, _)) = self.read(&meta.location).await? else { return Ok(None) };
            let kept = Config::from_object(&object);
            // A later edition may say what this one does not understand.
            if kept.is_some() || frame::unwrap(&object).is_none() {
                let is_sound = kept.as_ref().is_some_and(|kept| kept.digest == *config);
                self.note_soundness(&meta.location, is_sound);
            }
            if crate::store::age_of(meta.last_modified.into()) >= self.noted_every() {
                // In use: a sweep must not find it old.
                let _ = self.refresh(&meta.location).await;
            }
            Ok(kept.filter(|kept| kept.digest == *config && kept.recipe.scope() == *scope))
        });
        let configs: Vec<Option<Config>> = stream::iter(reads).buffered(RECIPES_MAX).try_collect().await?;
        Ok(configs.into_iter().flatten().collect())
    }
}
