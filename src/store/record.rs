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

impl Document {
    /// The object of this document.
    pub(super) fn to_object(&self) -> Result<Bytes, serde_json::Error> {
        // serde_json writes no line feed outside strings and escapes those within, so the first one ends the recipe.
        let recipe = serde_json::to_vec(&self.recipe)?;
        let mut content = BytesMut::with_capacity(recipe.len() + 1 + self.bytes.len());
        content.put_slice(&recipe);
        content.put_u8(b'\n');
        content.put_slice(&self.bytes);
        Ok(frame::wrap(&content))
    }

    /// The document in an object; `None` where the object is damaged.
    pub fn from_object(object: &Bytes) -> Option<Self> {
        let content = frame::unwrap(object)?;
        let line_length = content.iter().position(|byte| *byte == b'\n')?;
        let recipe: Recipe = serde_json::from_slice(content.get(..line_length)?).ok()?;
        let bytes = content.slice(line_length + 1..);
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
