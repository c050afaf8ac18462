//! Method aside, what a path asks for (OCI distribution-spec, section "Endpoints").
//!
//! One parser: what it classified is rebuilt from its values, or passed on byte for byte, so that gateway and upstream
//! cannot read one path in two ways. No path of a registry needs an escape, a dot segment or an empty segment, so a path
//! with any of them names nothing.

use crate::image::digest::Digest;
use crate::image::reference::{Reference, Repository};

use super::fault::Fault;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`.
    Base,
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// The name.
        repository: Repository,
        /// The tag or digest.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// The name.
        repository: Repository,
        /// The digest.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/…`.
    Upload,
    /// `/v2/<name>/referrers/<digest>`.
    Referrers {
        /// The name.
        repository: Repository,
        /// The digest.
        digest: Digest,
    },
    /// Anything else under `/v2/`: tags, the catalogue, extensions.
    Other,
    /// `/token`, the gateway's own.
    Token,
    /// `/v1/repositories/<name>/images`, where Docker 1.6 and 1.7 show an error's text.
    LegacyImages {
        /// The name.
        repository: Repository,
    },
}

impl Route {
    /// Classifies a raw path.
    pub fn of(path: &str) -> Result<Self, Fault> {
        match path {
            path if is_base(path) => return Ok(Self::Base),
            "/token" => return Ok(Self::Token),
            _ => {}
        }
        if let Some(name) = path.strip_prefix("/v1/repositories/").and_then(|rest| rest.strip_suffix("/images")) {
            return match name.parse() {
                Ok(repository) => Ok(Self::LegacyImages { repository }),
                Err(_) => Err(Fault::NotFound),
            };
        }
        let rest = path.strip_prefix("/v2/").ok_or(Fault::NotFound)?;
        if !is_plain(rest) {
            return Err(Fault::NameInvalid("the path holds an escape, a dot segment or an empty segment".to_owned()));
        }
        Self::within_v2(rest)
    }

    fn within_v2(rest: &str) -> Result<Self, Fault> {
        let named = |name: &str| name.parse::<Repository>().map_err(|error| Fault::NameInvalid(error.to_string()));
        let (head, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        if let Some(name) = head.strip_suffix("/manifests") {
            let repository = named(name)?;
            let reference = last.parse().map_err(Fault::ReferenceInvalid)?;
            return Ok(Self::Manifest { repository, reference });
        }
        let is_upload = head.ends_with("/blobs/uploads") || (head.ends_with("/blobs") && last == "uploads");
        if is_upload {
            return Ok(Self::Upload);
        }
        if let Some(name) = head.strip_suffix("/blobs") {
            let repository = named(name)?;
            let digest = last.parse().map_err(Fault::DigestInvalid)?;
            return Ok(Self::Blob { repository, digest });
        }
        if let Some(name) = head.strip_suffix("/referrers") {
            let repository = named(name)?;
            let digest = last.parse().map_err(Fault::DigestInvalid)?;
            return Ok(Self::Referrers { repository, digest });
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            named(name)?;
        }
        Ok(Self::Other)
    }
}

/// The path of the base endpoint.
pub fn is_base(path: &str) -> bool {
    matches!(path, "/v2" | "/v2/")
}

/// The repository that a path under `/v2/` is about, in the bytes that stand there, if it is about one.
pub fn repository_in(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    // Some registries do not mind a final slash.
    if let Some(name) = rest.strip_suffix('/').unwrap_or(rest).strip_suffix("/tags/list") {
        return Some(name);
    }
    let ends = ["/manifests/", "/blobs/", "/referrers/"];
    let (head, last) = rest.rsplit_once('/').unwrap_or((rest, ""));
    let is_upload = head.strip_suffix("/blobs/uploads").or_else(|| {
        let name = head.strip_suffix("/blobs");
        name.filter(|_| last == "uploads")
    });
    if let Some(name) = is_upload {
        return Some(name);
    }
    let position = ends.into_iter().filter_map(|end| rest.rfind(end)).max()?;
    rest.get(..position)
}

/// Nothing in the path could be read in two ways. A final slash is part of an upload's URL.
fn is_plain(rest: &str) -> bool {
    let is_segment = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':' | b'=' | b'+' | b'@' | b',')
            })
    };
    rest.strip_suffix('/').unwrap_or(rest).split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(name: &str, reference: &str) -> Route {
        Route::Manifest { repository: name.parse().unwrap(), reference: reference.parse().unwrap() }
    }

    #[test]
    fn names_may_look_like_endpoints() {
        assert_eq!(Route::of("/v2/a/manifests/manifests/x").unwrap(), manifest("a/manifests", "x"));
        assert_eq!(Route::of("/v2/a/blobs/uploads/manifests/x").unwrap(), manifest("a/blobs/uploads", "x"));
        assert_eq!(Route::of("/v2/tags/list/manifests/x").unwrap(), manifest("tags/list", "x"));
        assert_eq!(Route::of(&format!("/v2/a/manifests/{DIGEST}")).unwrap(), manifest("a", DIGEST));
        let blob = Route::of(&format!("/v2/manifests/blobs/{DIGEST}")).unwrap();
        assert!(matches!(blob, Route::Blob { repository, .. } if repository.as_str() == "manifests"));
    }

    #[test]
    fn uploads_and_others() {
        for path in ["/v2/a/blobs/uploads/", "/v2/a/blobs/uploads", "/v2/a/b/blobs/uploads/1-2_3="] {
            assert_eq!(Route::of(path).unwrap(), Route::Upload, "{path}");
        }
        let referrers = Route::of(&format!("/v2/a/referrers/{DIGEST}")).unwrap();
        assert!(matches!(referrers, Route::Referrers { repository, .. } if repository.as_str() == "a"));
        for path in ["/v2/_catalog", "/v2/a/tags/list", "/v2/a/referrers"] {
            assert_eq!(Route::of(path).unwrap(), Route::Other, "{path}");
        }
        assert_eq!(Route::of("/v2").unwrap(), Route::Base);
        assert!(matches!(Route::of("/v1/repositories/a/images").unwrap(), Route::LegacyImages { .. }));
    }

    #[test]
    fn every_endpoint_says_whose_it_is() {
        for path in [
            "/v2/a/b/manifests/x".to_owned(),
            format!("/v2/a/b/blobs/{DIGEST}"),
            "/v2/a/b/blobs/uploads/".to_owned(),
            "/v2/a/b/blobs/uploads".to_owned(),
            "/v2/a/b/blobs/uploads/1-2".to_owned(),
            format!("/v2/a/b/referrers/{DIGEST}"),
            "/v2/a/b/tags/list".to_owned(),
            "/v2/a/b/tags/list/".to_owned(),
        ] {
            assert_eq!(repository_in(&path), Some("a/b"), "{path}");
        }
        assert_eq!(repository_in("/v2/a/manifests/manifests/x"), Some("a/manifests"));
        assert_eq!(repository_in("/v2/a/blobs/uploads/manifests/x"), Some("a/blobs/uploads"));
        for path in ["/v2/", "/v2/_catalog", "/token", "/v1/repositories/a/images"] {
            assert_eq!(repository_in(path), None, "{path}");
        }
    }

    proptest::proptest! {
        /// Rules of the operator are asked about the very repository that the route goes to.
        #[test]
        fn rules_and_routes_see_one_repository(segments in proptest::collection::vec(proptest::sample::select(vec!["a", "manifests", "blobs", "uploads", "tags", "list", "referrers", "x", DIGEST]), 1..7)) {
            let path = format!("/v2/{}", segments.join("/"));
            match Route::of(&path) {
                Ok(Route::Manifest { repository, .. } | Route::Blob { repository, .. } | Route::Referrers { repository, .. }) => {
                    proptest::prop_assert_eq!(repository_in(&path), Some(repository.as_str()));
                }
                Ok(Route::Upload) => proptest::prop_assert!(repository_in(&path).is_some()),
                _ => {}
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "/v2/a%2Fb/manifests/x",
            "/v2/a/../b/manifests/x",
            "/v2/%2e%2e/manifests/x",
            "/v2//manifests/x",
            "/v2/a//manifests/x",
            "/v2/a;b/manifests/x",
            "/v2/a\\b/manifests/x",
            "/v2/a/manifests/%00",
            "/v2/A/manifests/x",
            "/v2/a/manifests/-x",
            "/v2/a/blobs/sha256:abc",
            "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/manifests/x",
            "/v2/-/tags/list",
        ] {
            let refused = Route::of(path);
            let ok = matches!(refused, Ok(Route::Other)) && path == "/v2/manifests/x";
            assert!(refused.is_err() || ok, "{path}: {refused:?}");
        }
        for path in ["/", "/v3/", "/v1/_ping", "/v1/repositories/A/images", "/tokens"] {
            assert!(matches!(Route::of(path), Err(Fault::NotFound)), "{path}");
        }
    }
}
