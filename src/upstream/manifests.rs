//! Manifests: which document a reference names, and its bytes.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use crate::image::digest::Digest;
use crate::image::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Reference, Repository};

use super::body::StreamedBody;
use super::caller::Caller;
use super::coding::{self, Coding};
use super::failure::Failure;
use super::redirect::Journey;
use super::scope::Scope;
use super::{DOCKER_CONTENT_DIGEST, Upstream};

/// What the gateway itself accepts: every format. The client's own Accept never goes upstream for a manifest, because
/// distribution 2.8 would translate or refuse by it, and resolving a tag under two Accepts can name two documents.
const EVERY_FORMAT: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*",
);

/// What a reference names at this moment, for this caller.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The digest of the stored document.
    pub digest: Digest,
    /// Its bytes, where they had to be read to learn the digest.
    pub bytes: Option<Bytes>,
}

impl Upstream {
    /// Asks which document `reference` names, as `caller`. The answer is both freshness and consent.
    ///
    /// One HEAD; where that answers 200 without a usable digest, or 405 or 501, one GET of at most
    /// [`MANIFEST_BYTES_MAX`] bytes follows. Any other refusal is final: asking again by GET would spend the caller's
    /// rate limit to learn nothing.
    pub async fn resolve(
        &self,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Resolved, Failure> {
        let url = self.manifest_url(repository, reference.as_str());
        let answer = self.ask_for_manifest(Method::HEAD, url.clone(), caller, repository).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                return self.resolve_by_get(caller, url, repository, reference).await;
            }
            _ => return Err(self.refused(answer).await),
        }
        let headers = answer.headers();
        let named = headers.get(DOCKER_CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        match (named, reference) {
            (Some(found), Reference::Digest(expected)) if found != *expected => {
                Err(Failure::WrongBytes { expected: expected.clone(), found })
            }
            (Some(digest), _) => Ok(Resolved { digest, bytes: None }),
            (None, Reference::Digest(digest)) => Ok(Resolved { digest: digest.clone(), bytes: None }),
            (None, Reference::Tag(_)) => self.resolve_by_get(caller, url, repository, reference).await,
        }
    }

    async fn resolve_by_get(
        &self,
        caller: &Caller,
        url: Url,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Resolved, Failure> {
        let answer = self.ask_for_manifest(Method::GET, url, caller, repository).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        let answer = self.plain_manifest(answer).await?;
        let bytes = self.collect(answer.into_body(), MANIFEST_BYTES_MAX, "manifest").await?;
        let digest = match reference {
            Reference::Digest(digest) => verified(digest, &bytes).map(|()| digest.clone())?,
            Reference::Tag(_) => match Manifest::parse(bytes.clone()) {
                Ok(manifest) => manifest.digest().clone(),
                Err(_) => Digest::sha256(&bytes),
            },
        };
        Ok(Resolved { digest, bytes: Some(bytes) })
    }

    /// The manifest with this digest: at most [`MANIFEST_BYTES_MAX`] bytes, and exactly those that the digest names.
    /// The digest of a schema 1 document is that of its payload.
    pub async fn fetch_manifest(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Bytes, Failure> {
        let answer = self.open_manifest(caller, repository, digest, Method::GET).await?;
        let bytes = self.collect(answer.into_body(), MANIFEST_BYTES_MAX, "manifest").await?;
        verified(digest, &bytes)?;
        Ok(bytes)
    }

    /// Asks for a manifest by digest, accepting every format, and hands back the answer's head and its body unread.
    /// Anything but a 200 is a [`Failure`].
    pub async fn open_manifest(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
        method: Method,
    ) -> Result<http::Response<StreamedBody>, Failure> {
        let url = self.manifest_url(repository, digest.as_str());
        let is_head = method == Method::HEAD;
        let mut answer = self.ask_for_manifest(method, url.clone(), caller, repository).await?;
        if is_head && answer.status() == StatusCode::OK && Coding::of(answer.headers())? == Coding::Gzip {
            // Its length is that of other bytes.
            answer = self.ask_for_manifest(Method::GET, url, caller, repository).await?;
        }
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        self.plain_manifest(answer).await
    }

    /// The same answer, without a content coding.
    async fn plain_manifest(
        &self,
        answer: http::Response<reqwest::Body>,
    ) -> Result<http::Response<StreamedBody>, Failure> {
        if Coding::of(answer.headers())? == Coding::Identity {
            return Ok(answer.map(|inner| self.streamed(inner)));
        }
        let (mut head, body) = answer.into_parts();
        let compressed = self.collect(self.streamed(body), MANIFEST_BYTES_MAX, "manifest").await?;
        let plain = coding::gunzipped(&compressed, MANIFEST_BYTES_MAX, "manifest")?;
        head.headers.remove(CONTENT_ENCODING);
        head.headers.insert(CONTENT_LENGTH, plain.len().into());
        Ok(http::Response::from_parts(head, self.streamed(plain.into())))
    }

    async fn ask_for_manifest(
        &self,
        method: Method,
        url: Url,
        caller: &Caller,
        repository: &Repository,
    ) -> Result<http::Response<reqwest::Body>, Failure> {
        let headers = HeaderMap::from_iter([(ACCEPT, EVERY_FORMAT)]);
        self.ask(Journey { method, url, caller, headers }, Scope::pull(repository)).await
    }

    fn manifest_url(&self, repository: &Repository, reference: &str) -> Url {
        self.endpoint(&format!("/v2/{repository}/manifests/{reference}"), None)
    }
}

/// Checks a manifest against the digest it was asked by: that of the bytes, or of the payload for schema 1.
pub fn verified(digest: &Digest, bytes: &Bytes) -> Result<(), Failure> {
    if digest.matches(bytes) {
        return Ok(());
    }
    let found = match Manifest::parse(bytes.clone()) {
        Ok(manifest) if manifest.format() == Format::Schema1 => manifest.digest().clone(),
        _ => Digest::sha256(bytes),
    };
    if found == *digest { Ok(()) } else { Err(Failure::WrongBytes { expected: digest.clone(), found }) }
}
