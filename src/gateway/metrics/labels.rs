//! What a request is, in the few words that a label may have.

use http::Method;

use crate::gateway::route::is_base;
use crate::image::digest::Digest;

/// What a path asks for. One that turns out to name nothing is counted by what it looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLabel {
    Base,
    ManifestTag,
    ManifestDigest,
    Blob,
    Tags,
    Referrers,
    Catalog,
    Upload,
    Token,
    Legacy,
    Other,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodLabel {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

impl RouteLabel {
    /// How many there are.
    pub const NUMBER: usize = Self::Other as usize + 1;

    /// Goes by the end of the path, before which an upstream's prefix may stand.
    pub fn of(path: &str) -> Self {
        if is_base(path) {
            return Self::Base;
        }
        if path == "/token" {
            return Self::Token;
        }
        if path.starts_with("/v1/") {
            return Self::Legacy;
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Self::Other };
        let (head, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        let (above, word) = head.rsplit_once('/').unwrap_or(("", head));
        match (word, last) {
            ("manifests", last) if last.contains(':') => Self::ManifestDigest,
            ("manifests", _) => Self::ManifestTag,
            ("uploads", _) if above.ends_with("/blobs") => Self::Upload,
            ("blobs", "uploads") => Self::Upload,
            ("blobs", last) if last.parse::<Digest>().is_ok() => Self::Blob,
            ("referrers", _) => Self::Referrers,
            ("tags", "list") => Self::Tags,
            (_, "_catalog") => Self::Catalog,
            _ => Self::Other,
        }
    }

    /// A manifest, by whatever it is named.
    pub const fn is_manifest(self) -> bool {
        matches!(self, Self::ManifestTag | Self::ManifestDigest)
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::ManifestTag => "manifest_tag",
            Self::ManifestDigest => "manifest_digest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Upload => "upload",
            Self::Token => "token",
            Self::Legacy => "legacy",
            Self::Other => "other",
        }
    }
}

impl MethodLabel {
    /// How many there are.
    pub const NUMBER: usize = Self::Other as usize + 1;

    /// A method that is none of a registry's would be a label that the client makes up.
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_of_a_few_routes() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let cases = [
            ("/v2".to_owned(), "base"),
            ("/v2/".to_owned(), "base"),
            ("/v2/a/manifests/latest".to_owned(), "manifest_tag"),
            ("/v2/manifests/manifests/manifests".to_owned(), "manifest_tag"),
            (format!("/v2/hub/a/manifests/{digest}"), "manifest_digest"),
            (format!("/v2/a/blobs/{digest}"), "blob"),
            ("/v2/a/blobs/uploads".to_owned(), "upload"),
            ("/v2/a/blobs/uploads/".to_owned(), "upload"),
            ("/v2/a/blobs/uploads/1".to_owned(), "upload"),
            (format!("/v2/a/referrers/{digest}"), "referrers"),
            ("/v2/a/tags/list".to_owned(), "tags"),
            ("/v2/_catalog".to_owned(), "catalog"),
            ("/v2/prefix/_catalog".to_owned(), "catalog"),
            ("/token".to_owned(), "token"),
            ("/v1/repositories/a/images".to_owned(), "legacy"),
            ("/".to_owned(), "other"),
            ("*".to_owned(), "other"),
            ("/v2/a/blobs/b".to_owned(), "other"),
        ];
        for (path, expected) in cases {
            assert_eq!(RouteLabel::of(&path).as_str(), expected, "{path}");
        }
    }
}
