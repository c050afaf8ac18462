//! What objects hold: the line with the hash of the rest, and behind it a recipe, or a recipe and the bytes it gave.

use bytes::{BufMut, Bytes, BytesMut};

use crate::image::digest::Digest;
use crate::upstream::verified;

use super::frame;
use super::recipe::{Recipe, Scope};

/// A derived document as it is kept: the bytes, and the recipe that gave them first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// How it was made the first time. Other recipes may give the same bytes.
    pub recipe: Recipe,
    /// The derived document.
    pub bytes: Bytes,
}

/// An object of a recipe and the bytes that were made by it.
pub(super) fn below_recipe(recipe: &Recipe, bytes: &Bytes) -> Result<Bytes, serde_json::Error> {
    // serde_json writes no line feed outside strings and escapes those within, so the first one ends the recipe.
    let recipe = serde_json::to_vec(recipe)?;
    let mut content = BytesMut::with_capacity(recipe.len() + 1 + bytes.len());
    content.put_slice(&recipe);
    content.put_u8(b'\n');
    content.put_slice(bytes);
    Ok(frame::wrap(&content))
}

/// What is in such an object; `None` where it is damaged, or says more than this version understands.
pub(super) fn recipe_and_rest(object: &Bytes) -> Option<(Recipe, Bytes)> {
    let content = frame::unwrap(object)?;
    let line_length = content.iter().position(|byte| *byte == b'\n')?;
    let recipe = serde_json::from_slice(content.get(..line_length)?).ok()?;
    Some((recipe, content.slice(line_length + 1..)))
}

impl Document {
    /// The object of this document.
    pub(super) fn to_object(&self) -> Result<Bytes, serde_json::Error> {
        below_recipe(&self.recipe, &self.bytes)
    }

    /// The document in an object; `None` where the object is damaged.
    pub fn from_object(object: &Bytes) -> Option<Self> {
        let (recipe, bytes) = recipe_and_rest(object)?;
        verified(&recipe.derived, &bytes).ok()?;
        Some(Self { recipe, bytes })
    }

    /// It is what its name says, not another that got there.
    pub(super) fn is_of(&self, derived: &Digest, scope: &Scope) -> bool {
        self.recipe.derived == *derived && self.recipe.scope() == *scope
    }
}

impl Recipe {
    /// The object of this recipe.
    pub(super) fn to_object(&self) -> Result<Bytes, serde_json::Error> {
        Ok(frame::wrap(&serde_json::to_vec(self)?))
    }

    /// The recipe in an object; `None` where the object is damaged or says more than this version understands.
    pub fn from_object(object: &Bytes) -> Option<Self> {
        serde_json::from_slice(&frame::unwrap(object)?).ok()
    }
}
