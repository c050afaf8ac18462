//! Version 1 of the layout: where each object stands under the root of the store.
//!
//! ```text
//! v1/documents/<edition>/<ab>/<cd>/<derived>.<scope>             derived bytes, with the recipe that made them first
//! v1/recipes/<ab>/<cd>/<derived>.<scope>.<source>.<edition>      one record for each source that gives these bytes
//! v1/configs/<ab>/<cd>/<config>.<scope>.<source>.<edition>       a config that was made with a document, and the recipe
//! v1/facts/<ab>/<cd>/<layer>                                     what the bytes of a layer tell
//! v1/transcodings/<ab>/<cd>/<layer>.<maker>                      which gzip layer stands for a layer
//! v1/transcoded/<ab>/<cd>/<gzip>.<layer>.<maker>                 the way back from the gzip layer
//! v1/layers/<ab>/<cd>/<layer>.<maker>.<upload>                   the bytes of a gzip layer
//! v1/claims/<ab>/<dish>                                          a derivation that one replica is at
//! v1/signing-key                                                 the schema 1 signing key, PEM
//! v1/staging/<name>                                              directories only: an object on its way to its name
//! ```
//!
//! `derived`, `scope`, `source` and `dish` are 64 hexadecimal digits each: of the derived digest, of the SHA-256 of
//! upstream name and repository, of the stored document's digest, and of what decides the derived bytes. `ab` and `cd` are
//! the first four digits of `derived`, so that a million recipes fill 65,536 folders with about fifteen each. A document is
//! found by one read, because derived digest and repository give its name; its other sources by listing one folder. The
//! edition stands in every name, so whoever clears up reads no object to learn it.
//!
//! What does not parse as one of these is somebody else's, or a later version's: it is neither read nor removed.

use object_store::path::Path;
use sha2::{Digest as _, Sha256};

use crate::image::digest::{Algorithm, Digest};

use super::recipe::{Recipe, Scope};

/// The version of the layout, and the name of its folder.
pub const LAYOUT: &str = "v1";
/// The folder of derived documents.
pub const DOCUMENTS: &str = "documents";
/// The folder of recipes.
pub const RECIPES: &str = "recipes";
/// The folder of configs that were made with documents.
pub const CONFIGS: &str = "configs";
/// The folder of what is known of layers.
pub const FACTS: &str = "facts";
/// The folder of decisions, which gzip layer stands for a layer.
pub const TRANSCODINGS: &str = "transcodings";
/// The folder of the ways back from gzip layers.
pub const TRANSCODED: &str = "transcoded";
/// The folder of gzip layers.
pub const LAYERS: &str = "layers";
/// The folder of claims.
pub const CLAIMS: &str = "claims";
/// The folder of objects on their way to their names.
pub const STAGING: &str = "staging";
/// The name of the signing key.
const SIGNING_KEY: &str = "signing-key";
/// How many hexadecimal digits a SHA-256 has.
const HEX_LENGTH: usize = 64;

/// What the name of an object says. Every text is hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A derived document.
    Document {
        /// The edition that made it.
        edition: u32,
        /// The digits of its digest.
        derived: String,
        /// The upstream and repository that may know it.
        scope: String,
    },
    /// A recipe.
    Recipe {
        /// The edition that cooked by it.
        edition: u32,
        /// The digits of the derived digest.
        derived: String,
        /// The upstream and repository that may know it.
        scope: String,
        /// The stored document, as [`source_key`] gives it.
        source: String,
    },
    /// A config that was made with a document.
    Config {
        /// The edition that cooked it.
        edition: u32,
        /// The digits of its digest.
        config: String,
        /// The upstream and repository that may know it.
        scope: String,
        /// The stored document, as [`source_key`] gives it.
        source: String,
    },
    /// What the bytes of a layer tell.
    Facts {
        /// The layer, as [`source_key`] gives it.
        layer: String,
    },
    /// Which gzip layer stands for a layer.
    Transcoding {
        /// The layer, as [`source_key`] gives it.
        layer: String,
        /// What decides the bytes of the gzip layer.
        maker: String,
    },
    /// The way back from a gzip layer.
    Transcoded {
        /// The digits of its digest.
        gzip: String,
        /// The layer that it stands for, as [`source_key`] gives it.
        layer: String,
        /// What decided its bytes.
        maker: String,
    },
    /// The bytes of a gzip layer.
    Layer {
        /// The layer that it stands for, as [`source_key`] gives it.
        layer: String,
        /// What decided its bytes.
        maker: String,
    },
    /// A claim of a derivation.
    Claim,
    /// The signing key.
    SigningKey,
    /// An object that has not come to its name yet, or never will.
    Staged,
}

/// Where a derived document stands.
pub fn document(edition: u32, derived: &Digest, scope: &Scope) -> Path {
    let hex = derived.hex();
    let [first, second] = shelf(hex);
    let edition = edition.to_string();
    Path::from_iter([LAYOUT, DOCUMENTS, &edition, first, second, &format!("{hex}.{}", scope.as_str())])
}

/// The folder in which all recipes of a derived digest stand, beside those of a few others.
pub fn recipes(derived: &Digest) -> Path {
    let [first, second] = shelf(derived.hex());
    Path::from_iter([LAYOUT, RECIPES, first, second])
}

/// Where a recipe stands.
pub fn recipe(recipe: &Recipe) -> Path {
    let hex = recipe.derived.hex();
    let [first, second] = shelf(hex);
    let (scope, source) = (recipe.scope(), source_key(&recipe.source));
    let name = format!("{hex}.{}.{source}.{}", scope.as_str(), recipe.edition);
    Path::from_iter([LAYOUT, RECIPES, first, second, &name])
}

/// The folder in which a config that was made with documents stands, beside a few others.
pub fn configs(config: &Digest) -> Path {
    let [first, second] = shelf(config.hex());
    Path::from_iter([LAYOUT, CONFIGS, first, second])
}

/// Where a config stands that was made with the document of this recipe.
pub fn config(recipe: &Recipe, config: &Digest) -> Path {
    let edition = recipe.edition.to_string();
    shelved(CONFIGS, config.hex(), &[recipe.scope().as_str(), &source_key(&recipe.source), &edition])
}

/// Where it stands what the bytes of a layer tell.
pub fn facts(layer: &Digest) -> Path {
    shelved(FACTS, &source_key(layer), &[])
}

/// Where it stands which gzip layer stands for a layer.
pub fn transcoding(layer: &str, maker: &str) -> Path {
    shelved(TRANSCODINGS, layer, &[maker])
}

/// The folder in which the ways back from a gzip layer stand, beside those of a few others.
pub fn ways_back(gzip: &Digest) -> Path {
    let [first, second] = shelf(gzip.hex());
    Path::from_iter([LAYOUT, TRANSCODED, first, second])
}

/// Where the way back from a gzip layer stands.
pub fn way_back(gzip: &Digest, layer: &str, maker: &str) -> Path {
    shelved(TRANSCODED, gzip.hex(), &[layer, maker])
}

/// Where an upload of a gzip layer comes to stand.
pub fn layer(layer: &str, maker: &str, upload: &str) -> Path {
    shelved(LAYERS, layer, &[maker, upload])
}

fn shelved(folder: &str, hex: &str, more: &[&str]) -> Path {
    let [first, second] = shelf(hex);
    let name = more.iter().fold(hex.to_owned(), |name, word| name + "." + word);
    Path::from_iter([LAYOUT, folder, first, second, &name])
}

/// Where the claim of a derivation stands.
pub fn claim(dish: &str) -> Path {
    Path::from_iter([LAYOUT, CLAIMS, dish.get(..2).unwrap_or_default(), dish])
}

/// Where the signing key stands.
pub fn signing_key() -> Path {
    Path::from_iter([LAYOUT, SIGNING_KEY])
}

/// Where an object is written before it gets its name.
pub fn staging(name: &str) -> Path {
    Path::from_iter([LAYOUT, STAGING, name])
}

/// A stored document's digest in the name of a recipe: its digits, or those of a SHA-256 over the digest where it is of
/// another algorithm, whose digits would make the name longer than a file's may be.
pub fn source_key(source: &Digest) -> String {
    if source.algorithm() == Algorithm::Sha256 {
        source.hex().to_owned()
    } else {
        data_encoding::HEXLOWER.encode(&Sha256::digest(source.as_str()))
    }
}

impl Name {
    /// What the path of an object says; `None` for what this version of the layout does not know.
    pub fn of(path: &Path) -> Option<Self> {
        let parts: Vec<_> = path.parts().collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        match parts.as_slice() {
            [LAYOUT, DOCUMENTS, edition, first, second, name] => {
                let (derived, scope) = name.split_once('.')?;
                let stands = is_hex(derived) && is_hex(scope) && shelf(derived) == [*first, *second];
                let (derived, scope) = (derived.to_owned(), scope.to_owned());
                stands.then_some(Self::Document { edition: number(edition)?, derived, scope })
            }
            [LAYOUT, RECIPES, first, second, name] => {
                let mut words = name.split('.');
                let [derived, scope, source, edition] = [words.next()?, words.next()?, words.next()?, words.next()?];
                let stands = words.next().is_none()
                    && [derived, scope, source].into_iter().all(is_hex)
                    && shelf(derived) == [*first, *second];
                let [derived, scope, source] = [derived, scope, source].map(str::to_owned);
                stands.then_some(Self::Recipe { edition: number(edition)?, derived, scope, source })
            }
            [LAYOUT, CLAIMS, first, dish] => (is_hex(dish) && dish.starts_with(first)).then_some(Self::Claim),
            [LAYOUT, SIGNING_KEY] => Some(Self::SigningKey),
            [LAYOUT, STAGING, _] => Some(Self::Staged),
            [LAYOUT, folder, first, second, name] => Self::of_layers(folder, [first, second], name),
            _ => None,
        }
    }

    /// What the name of an object says that has to do with layers.
    fn of_layers(folder: &str, stands_on: [&str; 2], name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('.').collect();
        let digits = if folder == CONFIGS { words.split_last()?.1 } else { words.as_slice() };
        if !digits.iter().all(|word| is_hex(word)) || shelf(digits.first()?) != stands_on {
            return None;
        }
        let owned = |word: &str| word.to_owned();
        match (folder, words.as_slice()) {
            (CONFIGS, [config, scope, source, edition]) => {
                let edition = number(edition)?;
                Some(Self::Config { edition, config: owned(config), scope: owned(scope), source: owned(source) })
            }
            (FACTS, [layer]) => Some(Self::Facts { layer: owned(layer) }),
            (TRANSCODINGS, [layer, maker]) => Some(Self::Transcoding { layer: owned(layer), maker: owned(maker) }),
            (TRANSCODED, [gzip, layer, maker]) => {
                Some(Self::Transcoded { gzip: owned(gzip), layer: owned(layer), maker: owned(maker) })
            }
            (LAYERS, [layer, maker, _]) => Some(Self::Layer { layer: owned(layer), maker: owned(maker) }),
            _ => None,
        }
    }
}

fn shelf(hex: &str) -> [&str; 2] {
    [hex.get(..2).unwrap_or_default(), hex.get(2..4).unwrap_or_default()]
}

fn is_hex(text: &str) -> bool {
    text.len() == HEX_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An edition, written as this layout writes it.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::media_type::Format;

    fn recipe_of(source: &str) -> Recipe {
        Recipe {
            edition: 3,
            upstream: "default".into(),
            repository: "a/b".parse().unwrap(),
            tag: None,
            source: source.parse().unwrap(),
            source_format: Format::Oci,
            config: None,
            target: Format::Schema2,
            derived: Digest::sha256(b"document"),
            shape: None,
            signing_key: None,
            layers: crate::translate::LayerPolicy::Stored,
            gzip_layers: Vec::new(),
        }
    }

    #[test]
    fn a_name_says_what_it_was_made_of() {
        let long = format!("sha512:{}", "ab".repeat(64));
        for source in [Digest::sha256(b"source").as_str(), &long] {
            let made = recipe_of(source);
            let (derived, scope) = (made.derived.hex().to_owned(), made.scope().as_str().to_owned());
            let document = document(3, &made.derived, &made.scope());
            let read = Name::Document { edition: 3, derived: derived.clone(), scope: scope.clone() };
            assert_eq!(Name::of(&document), Some(read));
            let path = recipe(&made);
            let read = Name::Recipe { edition: 3, derived, scope, source: source_key(&made.source) };
            assert_eq!(Name::of(&path), Some(read));
            assert!(path.filename().unwrap().len() < 255, "{path}");
            assert!(path.prefix_matches(&recipes(&made.derived)));
        }
        let [layer_key, maker] = ["12".repeat(32), "34".repeat(32)];
        let (gzip, owned) = (Digest::sha256(b"gzip"), |text: &str| text.to_owned());
        let read = Name::Transcoding { layer: owned(&layer_key), maker: owned(&maker) };
        assert_eq!(Name::of(&transcoding(&layer_key, &maker)), Some(read));
        let read = Name::Transcoded { gzip: owned(gzip.hex()), layer: owned(&layer_key), maker: owned(&maker) };
        assert_eq!(Name::of(&way_back(&gzip, &layer_key, &maker)), Some(read));
        assert!(way_back(&gzip, &layer_key, &maker).prefix_matches(&ways_back(&gzip)));
        let read = Name::Layer { layer: owned(&layer_key), maker: owned(&maker) };
        assert_eq!(Name::of(&layer(&layer_key, &maker, &"56".repeat(32))), Some(read));
        assert_eq!(Name::of(&facts(&gzip)), Some(Name::Facts { layer: owned(gzip.hex()) }));
        let made = recipe_of(&long);
        let (scope, source) = (owned(made.scope().as_str()), source_key(&made.source));
        let read = Name::Config { edition: 3, config: owned(gzip.hex()), scope, source };
        assert_eq!(Name::of(&config(&made, &gzip)), Some(read));
        assert!(config(&made, &gzip).prefix_matches(&configs(&gzip)) && config(&made, &gzip).as_ref().len() < 255);
        assert_eq!(Name::of(&claim(&"ab".repeat(32))), Some(Name::Claim));
        assert_eq!(Name::of(&signing_key()), Some(Name::SigningKey));
        assert_eq!(Name::of(&staging("x")), Some(Name::Staged));
    }

    #[test]
    fn what_is_not_of_this_layout_has_no_meaning() {
        let [a, b] = ["ab".repeat(32), "cd".repeat(32)];
        for path in [
            format!("v2/documents/1/ab/ab/{a}.{b}"),
            format!("v1/documents/01/ab/ab/{a}.{b}"),
            format!("v1/documents/1/ab/cd/{a}.{b}"),
            format!("v1/documents/1/ab/ab/{a}"),
            format!("v1/recipes/ab/ab/{a}.{b}.{b}"),
            format!("v1/recipes/ab/ab/{a}.{b}.{b}.1.1"),
            format!("v1/facts/ab/ab/{a}.{b}"),
            format!("v1/facts/ab/cd/{a}"),
            format!("v1/transcodings/ab/ab/{a}"),
            format!("v1/transcoded/ab/ab/{a}.{b}"),
            format!("v1/layers/ab/ab/{a}.{b}"),
            format!("v1/layers/ab/ab/{a}.{b}.x"),
            format!("v1/configs/ab/ab/{a}.{b}.{b}.01"),
            format!("v1/configs/ab/ab/{a}.{b}.1"),
            format!("v1/others/ab/ab/{a}"),
            format!("v1/claims/cd/{a}"),
            "v1/signing-key/more".to_owned(),
            "v1".to_owned(),
            "notes.txt".to_owned(),
        ] {
            assert_eq!(Name::of(&Path::from(path.as_str())), None, "{path}");
        }
    }
}
