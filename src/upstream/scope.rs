//! What a token is asked for: as little as the request needs.

use http::Method;
use url::form_urlencoded;

use crate::image::reference::Repository;

/// The scopes of one request, such as `repository:library/busybox:pull`. Built from the request alone: what a challenge
/// asks for is the upstream's word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    /// Of the base endpoint, which belongs to no repository.
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Of what only reads.
    pub(super) fn pull(repository: &Repository) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// Of any request under `/v2/`. A mount reads another repository too.
    pub(super) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let Some(name) = repository_in(path) else {
            let is_catalog = path == "/v2/_catalog";
            return Self(is_catalog.then(|| "registry:catalog:*".to_owned()).into_iter().collect());
        };
        let actions = match *method {
            Method::GET | Method::HEAD => "pull",
            Method::DELETE => "delete",
            _ => "pull,push",
        };
        let mut scopes = vec![format!("repository:{name}:{actions}")];
        let named = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        if *method == Method::POST
            && named("mount").is_some()
            && let Some(from) = named("from").and_then(|from| from.parse::<Repository>().ok())
            && from.as_str() != name
        {
            scopes.push(format!("repository:{from}:pull"));
        }
        Self(scopes)
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The name in a path. It may itself hold what looks like an endpoint, so the end of the path decides.
fn repository_in(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    if let Some(name) = rest.strip_suffix("/tags/list").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Some(name);
    }
    let (head, _) = rest.rsplit_once('/')?;
    ["/blobs/uploads", "/blobs", "/manifests", "/referrers"]
        .into_iter()
        .find_map(|endpoint| head.strip_suffix(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_what_the_request_needs() {
        let cases = [
            ("GET", "/v2/", None, ""),
            ("GET", "/v2/_catalog", None, "registry:catalog:*"),
            ("GET", "/v2/a/b/manifests/latest", None, "repository:a/b:pull"),
            ("HEAD", "/v2/a/manifests/manifests/x", None, "repository:a/manifests:pull"),
            ("GET", "/v2/a/tags/list", Some("n=1"), "repository:a:pull"),
            ("GET", "/v2/a/blobs/sha256:0", Some("mount=x&from=b"), "repository:a:pull"),
            ("GET", "/v2/a/referrers/sha256:0", None, "repository:a:pull"),
            ("GET", "/v2/a/blobs/uploads/1", None, "repository:a:pull"),
            ("PUT", "/v2/a/manifests/x", None, "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads/", None, "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads", None, "repository:a:pull,push"),
            ("PATCH", "/v2/a/blobs/uploads/1", None, "repository:a:pull,push"),
            ("DELETE", "/v2/a/manifests/sha256:0", None, "repository:a:delete"),
            (
                "POST",
                "/v2/a/blobs/uploads/",
                Some("mount=sha256%3A0&from=b%2Fc"),
                "repository:a:pull,push repository:b/c:pull",
            ),
            ("POST", "/v2/a/blobs/uploads/", Some("mount=sha256:0&from=a"), "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads/", Some("mount=sha256:0&from=B:pull,push"), "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads/", Some("from=b"), "repository:a:pull,push"),
        ];
        for (method, path, query, expected) in cases {
            let scope = Scope::of(&method.parse().unwrap(), path, query);
            assert_eq!(scope.iter().collect::<Vec<_>>().join(" "), expected, "{method} {path}");
        }
    }
}
