//! How a derived document was made.

use sha2::{Digest as _, Sha256};

use crate::image::digest::Digest;
use crate::image::layer::GzipLayer;
use crate::image::media_type::Format;
use crate::image::reference::{Repository, Tag};
use crate::translate::index::Shape;
use crate::translate::{LayerPolicy, Learnt};

/// Everything that decided the bytes of a derived document, by value or by digest: who has these can cook it again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recipe {
    /// The edition of the translator.
    pub edition: u32,
    /// The name of the upstream that the source was seen at.
    pub upstream: String,
    /// The repository, as sent upstream. Schema 1 says it in its `name`.
    pub repository: Repository,
    /// The tag that schema 1 says in its `tag`; absent for other targets, whose bytes do not depend on it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tag: Option<Tag>,
    /// The stored document.
    pub source: Digest,
    /// The config that was read for it, where one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<Digest>,
    /// What the stored document is.
    pub source_format: Format,
    /// What it became.
    pub target: Format,
    /// The digest of what it became.
    pub derived: Digest,
    /// How a list or index was to look, where it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shape: Option<Shape>,
    /// The libtrust key id of the key that signed it; schema 1 only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signing_key: Option<String>,
    /// What became of its layers.
    #[serde(skip_serializing_if = "is_stored", default)]
    pub layers: LayerPolicy,
    /// The gzip layers that stand in it for others, in the order of those. What the layers of schema 1 tell is not here:
    /// whoever reads them learns it again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gzip_layers: Vec<StandIn>,
}

/// A gzip layer and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StandIn {
    /// The digest of the stored layer.
    pub stored: Digest,
    /// What stands for it.
    #[serde(flatten)]
    pub gzip: GzipLayer,
}

/// The part of the store that one repository of one upstream sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Box<str>);

impl Scope {
    /// The scope of a repository of an upstream.
    pub fn new(upstream: &str, repository: &Repository) -> Self {
        let mut hash = Sha256::new();
        hash.update(upstream.as_bytes());
        hash.update(b"\n");
        hash.update(repository.as_str().as_bytes());
        Self(data_encoding::HEXLOWER.encode(&hash.finalize()).into())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Recipe {
    /// What of its gzip layers a translation reads.
    pub fn learnt(&self) -> Learnt {
        let gzip = self.gzip_layers.iter().map(|layer| (layer.stored.clone(), layer.gzip.clone())).collect();
        Learnt { gzip, ..Learnt::default() }
    }

    /// The scope that may know this recipe.
    pub fn scope(&self) -> Scope {
        Scope::new(&self.upstream, &self.repository)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_stored(layers: &LayerPolicy) -> bool {
    *layers == LayerPolicy::Stored
}
