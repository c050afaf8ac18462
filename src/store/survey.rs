//! Looking at a whole store, for the commands that do.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::translate::EDITION;

use super::layers::{self, Config};
use super::layout::{LAYOUT, Name, RECIPES, source_key};
use super::{Document, Recipe, Store, StoreFailure, frame};

/// How many objects are read at once.
const READS_AT_ONCE: usize = 16;

/// One object of the store.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What its name says; `None` for what this version does not know.
    pub name: Option<Name>,
    /// Where it stands, how large it is and when it was last used.
    pub meta: ObjectMeta,
}

/// One object that was read.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Where it stands.
    pub path: Path,
    /// What is wrong with it, if anything.
    pub fault: Option<String>,
}

impl Store {
    /// Every object under the root of the store, in no order.
    pub fn objects(&self) -> BoxStream<'static, Result<Seen, StoreFailure>> {
        let listed = self.objects.list(None).map_err(|error| StoreFailure::new("list", &error));
        listed.map_ok(|meta| Seen { name: Name::of(&meta.location), meta }).boxed()
    }

    /// Every recipe that can be read, with when it was last used, in no order.
    pub fn all_recipes(&self) -> BoxStream<'_, Result<(Recipe, ObjectMeta), StoreFailure>> {
        let recipes = self.listing(&Path::from_iter([LAYOUT, RECIPES])).map_ok(move |meta| async move {
            let object = self.read(&meta.location).await?;
            Ok(object.and_then(|(object, _)| Recipe::from_object(&object)).map(|recipe| (recipe, meta)))
        });
        recipes.try_buffer_unordered(READS_AT_ONCE).try_filter_map(|recipe| std::future::ready(Ok(recipe))).boxed()
    }

    /// Reads every object that this version knows and holds it against its hash, its name and its digest.
    pub fn inspect(&self) -> BoxStream<'_, Result<Inspected, StoreFailure>> {
        let known = self.objects().try_filter_map(|Seen { name, meta }| {
            let name = name.filter(|name| !matches!(name, Name::Claim | Name::Staged | Name::Layer { .. }));
            std::future::ready(Ok(name.map(|name| (name, meta))))
        });
        let read = known.map_ok(move |(name, meta)| async move {
            let path = meta.location;
            let fault = match self.read(&path).await? {
                Some((object, _)) => fault(&name, &object),
                // Somebody removed it meanwhile.
                None => None,
            };
            Ok(Inspected { path, fault })
        });
        read.try_buffer_unordered(READS_AT_ONCE).boxed()
    }
}

fn fault(name: &Name, object: &bytes::Bytes) -> Option<String> {
    if frame::unwrap(object).is_none() {
        return Some("its bytes are not those that its first line names".to_owned());
    }
    match name {
        // A later edition may say what this one does not understand.
        Name::Document { edition, .. } | Name::Recipe { edition, .. } if *edition > EDITION => None,
        Name::Document { derived, scope, edition } => match Document::from_object(object) {
            None => {
                Some("its recipe cannot be read, or its bytes do not have the digest that the recipe names".to_owned())
            }
            Some(Document { recipe, .. }) => other_name(&recipe, derived, scope, *edition),
        },
        Name::Recipe { derived, scope, source, edition } => match Recipe::from_object(object) {
            None => Some("its recipe cannot be read".to_owned()),
            Some(recipe) if source_key(&recipe.source) != *source => {
                Some("it is the recipe of another source than its name says".to_owned())
            }
            Some(recipe) => other_name(&recipe, derived, scope, *edition),
        },
        Name::Config { edition, .. } if *edition > EDITION => None,
        Name::Config { config, scope, source, edition } => match Config::from_object(object) {
            Some(Config { recipe, digest, .. }) if digest.hex() == config && source_key(&recipe.source) == *source => {
                other_name(&recipe, recipe.derived.hex(), scope, *edition)
            }
            _ => Some("it is not the config that its name says, or its recipe cannot be read".to_owned()),
        },
        Name::Facts { layer } => layers::facts_fault(object, layer),
        Name::Transcoding { layer, maker } => layers::transcoding_fault(object, layer, maker),
        // The bytes of a layer are held against their digest when they are read.
        Name::Transcoded { .. } | Name::Layer { .. } | Name::SigningKey | Name::Claim | Name::Staged => None,
    }
}

fn other_name(recipe: &Recipe, derived: &str, scope: &str, edition: u32) -> Option<String> {
    let is_of_name = recipe.derived.hex() == derived && recipe.scope().as_str() == scope && recipe.edition == edition;
    (!is_of_name).then(|| "it holds another document than its name says".to_owned())
}
