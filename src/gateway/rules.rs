//! What the operator says of an upstream's repositories.

use crate::negotiate::Glob;

/// What a repository without a `/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleNames {
    /// A repository like any other.
    AsTheyAre,
    /// One of `library/`: Docker Hub keeps `alpine` as `library/alpine`, and clients that go there themselves know.
    InLibrary,
}

/// Which repositories are served; for manifests, blobs, tags, referrers and pushes alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryRules {
    /// Those that match one of these; all if there are none.
    pub allow: Vec<Glob>,
    /// But not those that match one of these.
    pub deny: Vec<Glob>,
}

impl RepositoryRules {
    /// The repository, as the upstream names it, is served.
    pub fn serve(&self, repository: &str) -> bool {
        let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(repository));
        (self.allow.is_empty() || matches(&self.allow)) && !matches(&self.deny)
    }

    /// Nothing is said, so every repository is served.
    pub const fn are_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}
