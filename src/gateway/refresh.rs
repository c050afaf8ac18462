//! Forgetting what a tag names, because an operator knows that it names something else by now.

use std::sync::Arc;

use url::form_urlencoded;

use crate::image::reference::{Reference, Repository, Tag};
use crate::upstream::route::UnknownUpstream;

use super::route::Route;
use super::{Gateway, Service};

const DEFAULT_TAG: &str = "latest";

/// Images, as clients write them behind the gateway's host: `repository` or `repository:tag`, with the prefix of their
/// upstream if it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The images.
    pub images: Vec<String>,
    /// The registry that they are in, as `?ns=` names it.
    pub registry: Option<String>,
    /// The host at which clients ask for them, where it has an upstream of its own.
    pub host: Option<String>,
}

/// Why what an image names cannot be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unforgettable {
    /// Not the name of an image.
    #[error(
        "`{0}` does not name a tag: expected `repository` or `repository:tag`, without a host and without a digest"
    )]
    Malformed(String),
    /// No upstream is meant.
    #[error("`{image}`: {unknown}")]
    Unknown {
        /// The image.
        image: String,
        /// Why there is none.
        unknown: UnknownUpstream,
    },
}

impl Service {
    /// Forgets what the tags of these images name, and that they name nothing; says for each how many callers were told.
    /// Forgets none where one of them cannot be.
    pub async fn forget(&self, named: &Named) -> Result<Vec<usize>, Unforgettable> {
        let tags = named.images.iter().map(|image| self.find(image, named)).collect::<Result<Vec<_>, _>>()?;
        let mut callers = Vec::new();
        for (gateway, repository, tag) in tags {
            callers.push(gateway.forget_tag(&repository, &tag).await);
        }
        Ok(callers)
    }

    /// Where a client finds an image: by the rules for requests.
    fn find(&self, image: &str, named: &Named) -> Result<(Arc<Gateway>, Repository, Tag), Unforgettable> {
        let malformed = || Unforgettable::Malformed(image.to_owned());
        let (name, tag) = image.rsplit_once(':').unwrap_or((image, DEFAULT_TAG));
        let path = format!("/v2/{name}/manifests/{tag}");
        let registry = named.registry.as_deref().map(|name| form_urlencoded::byte_serialize(name.as_bytes()));
        let query = registry.map(|name| format!("ns={}", name.collect::<String>()));
        let table = self.table();
        let Ok(Route::Manifest { reference: Reference::Tag(tag), .. }) = Route::of(&path) else {
            return Err(malformed());
        };
        let chosen = table
            .routes
            .choose(named.host.as_deref(), &path, query.as_deref())
            .map_err(|unknown| Unforgettable::Unknown { image: image.to_owned(), unknown })?;
        let gateway = table.gateways.get(chosen.upstream).ok_or_else(malformed)?;
        let Ok(Route::Manifest { repository, .. }) = Route::of(&chosen.path) else { return Err(malformed()) };
        let repository = gateway.named_upstream(repository).ok_or_else(malformed)?;
        Ok((Arc::clone(gateway), repository, tag))
    }
}

impl Gateway {
    /// A repository as the upstream names it.
    fn named_upstream(&self, repository: Repository) -> Option<Repository> {
        if !self.is_in_library(repository.as_str()) {
            return Some(repository);
        }
        format!("library/{repository}").parse().ok()
    }
}
