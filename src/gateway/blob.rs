//! Blobs, and whatever else passes through: streamed, unchanged, never collected.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, IF_RANGE, LINK, LOCATION, RANGE};
use http::{Method, Response, StatusCode};
use moka::sync::Cache;

use crate::image::digest::Digest;
use crate::image::manifest::{Content, Manifest};
use crate::image::reference::Repository;
use crate::negotiate::Client;
use crate::negotiate::user_agent::Version;
use crate::translate::empty_layer;
use crate::upstream::{Failure, ForwardRequest, Reach, RedirectAction, StreamedBody, headers, is_redirect};

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::held::Held;
use super::kept_blob::FromCache;
use super::{Gateway, is_read_only, kept_blob};

/// How many sizes of blobs are remembered.
const SIZES_MAX: u64 = 100_000;

/// The first Docker that follows a redirect with what it was asked for: the first built with Go 1.8 came after it, and it
/// resumes what was cut off.
const FIRST_THAT_REDIRECTS_WELL: Version = Version::new(1, 13, 0);

/// The sizes that the stored manifests of each repository name. Docker up to 1.9 cannot read a blob without a length, and some registries
/// stream theirs without one.
pub(super) struct Sizes(Cache<(Repository, Digest), u64>);

impl Default for Sizes {
    fn default() -> Self {
        Self(Cache::new(SIZES_MAX))
    }
}

impl Sizes {
    pub(super) fn learn(&self, repository: &Repository, manifest: &Manifest) {
        if let Content::Image(image) = manifest.content() {
            for descriptor in std::iter::once(&image.config).chain(&image.layers) {
                self.0.insert((repository.clone(), descriptor.digest.clone()), descriptor.size);
            }
        }
    }
}

/// Which redirects of blobs the gateway follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Following {
    /// Those that the operator wants it to.
    AsConfigured,
    /// All: what is to be kept must come by here.
    Always,
}

impl Gateway {
    pub(super) async fn blob(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: Repository,
        digest: Digest,
    ) -> Result<Response<Body>, Fault> {
        if digest == *empty_layer::digest() {
            return Ok(empty_layer_answer(&exchange.head.headers, &digest));
        }
        match self.upstreams_blob(exchange, &repository, &digest).await {
            // Who asks HEAD because it is about to push is told of it too: a manifest that names it brings it along.
            Err(Fault::Upstream(absence)) if absence.may_be_absence() => {
                let made = Box::pin(self.made_blob(exchange, &repository, &digest)).await?;
                made.ok_or(Fault::Upstream(absence))
            }
            answered => answered,
        }
    }

    async fn upstreams_blob(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response<Body>, Fault> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let lead = match self.blob_from_cache(exchange, repository, digest).await? {
            FromCache::Answer(response) => return Ok(response),
            FromCache::Lead(lead) => Some(lead),
            FromCache::Nothing => None,
        };
        let following = if lead.is_some() { Following::Always } else { Following::AsConfigured };
        let mut answer = self.pass_blob(exchange, &path, following).await?;
        if let Some(lead) = lead {
            answer = match kept_blob::fill(lead, answer).await {
                Ok(filled) => {
                    self.note_consent(exchange, repository, digest);
                    return Ok(filled);
                }
                Err(answer) => answer,
            };
        }
        if answer.status() == StatusCode::OK && !answer.headers().contains_key(CONTENT_LENGTH) {
            let declared = self.declared_length(exchange, &path).await;
            if let Some(length) = declared.or_else(|| self.sizes.0.get(&(repository.clone(), digest.clone()))) {
                answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
                return Ok(answer.map(|rest| Body::of_length(rest, length)));
            }
        }
        Ok(answer.map(Body::streamed))
    }

    /// The length that the head of the upstream's answer declares, asked by HEAD; where the question itself was a HEAD,
    /// by a GET whose body is not read.
    async fn declared_length(&self, exchange: &Exchange, path: &str) -> Option<u64> {
        let method = if exchange.head.method == Method::HEAD { Method::GET } else { Method::HEAD };
        let request =
            ForwardRequest { method, path: path.to_owned(), query: None, headers: HeaderMap::new(), body: None };
        let answer = self.upstream.forward(&exchange.caller, request).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Anything else under `/v2/` that only reads: tags, referrers, the catalogue, the state of an upload.
    pub(super) async fn forward(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let path = exchange.head.uri.path().to_owned();
        self.pass(exchange, &path).await.map(|answer| answer.map(Body::streamed))
    }

    /// The blob from the upstream, or from where the upstream redirects to if the gateway follows there.
    async fn pass_blob(
        &self,
        exchange: &mut Exchange,
        path: &str,
        following: Following,
    ) -> Result<Response<StreamedBody>, Fault> {
        let request = onward(exchange, path);
        let answer = self.upstream.forward(&exchange.caller, request).await?;
        if !is_redirect(answer.status()) {
            return self.relay(exchange, path, answer).await;
        }
        let target = self.upstream.redirect_target(path, answer.headers()).await?;
        if following == Following::AsConfigured && !self.upstream.follows(&target, reach_of(&exchange.client)) {
            return self.relay(exchange, path, answer).await;
        }
        // What is unread of it would hold up the next request where few may be in flight.
        drop(answer);
        let request = onward(exchange, path);
        let answer = self.upstream.fetch_redirected(&exchange.caller, request, target).await?;
        self.relay(exchange, path, answer).await
    }

    /// Sends the request on and relays the answer.
    pub(super) async fn pass(&self, exchange: &mut Exchange, path: &str) -> Result<Response<StreamedBody>, Fault> {
        let request = onward(exchange, path);
        let answer = self.upstream.forward(&exchange.caller, request).await?;
        self.relay(exchange, path, answer).await
    }

    /// The upstream's answer: its status, its end-to-end headers and its body, but for what would mislead this gateway's
    /// clients.
    pub(super) async fn relay(
        &self,
        exchange: &Exchange,
        path: &str,
        answer: Response<StreamedBody>,
    ) -> Result<Response<StreamedBody>, Fault> {
        if answer.status().is_client_error() || answer.status().is_server_error() {
            return Err(self.refusal(exchange, answer).await);
        }
        let (mut head, body) = answer.into_parts();
        head.headers = headers::end_to_end(&head.headers);
        head.headers.remove("set-cookie");
        if head.status.is_redirection() {
            self.redirected(exchange, path, &mut head).await?;
        } else if let Some(location) = head.headers.get(LOCATION) {
            match self.location_at_the_gateway(exchange, location) {
                Ok(location) => head.headers.insert(LOCATION, location),
                // Where an upload goes on is the answer; anywhere else it is a courtesy.
                Err(_) if is_read_only(&exchange.head.method) => head.headers.remove(LOCATION),
                Err(fault) => return Err(fault),
            };
        }
        if let Some(link) = head.headers.get(LINK) {
            let rewritten = self.link_at_the_gateway(exchange, link);
            head.headers.remove(LINK);
            head.headers.extend(rewritten.map(|link| (LINK, link)));
        }
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// The upstream's refusal, as it is relayed.
    pub(super) async fn refusal(&self, exchange: &Exchange, answer: Response<StreamedBody>) -> Fault {
        let mut failure = self.upstream.refused(answer).await;
        if let Failure::Refused(refusal) = &mut failure {
            self.keep_at_the_gateway(exchange, &mut refusal.headers);
        }
        failure.into()
    }

    /// The Location of an error answer (where an upload goes on) as it is at the gateway, or none.
    fn keep_at_the_gateway(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        if let Some(location) = headers.remove(LOCATION)
            && let Ok(location) = self.location_at_the_gateway(exchange, &location)
        {
            headers.insert(LOCATION, location);
        }
    }

    /// A redirect goes to the client, which follows it without the gateway, or through it where it leads back to the
    /// upstream's own endpoints. Go before 1.8 (Docker up to 1.12) does not know 308, and a relative target is the
    /// upstream's, not the gateway's.
    async fn redirected(&self, exchange: &Exchange, path: &str, head: &mut http::response::Parts) -> Result<(), Fault> {
        if head.status == StatusCode::PERMANENT_REDIRECT {
            head.status = StatusCode::TEMPORARY_REDIRECT;
        }
        if !head.headers.contains_key(LOCATION) {
            return Ok(());
        }
        let target = self.upstream.redirect_target(path, &head.headers).await?;
        let path = self.path_at_the_upstream(&target);
        let is_ours = target.origin() == self.upstream.url().origin() && path.starts_with("/v2/");
        let location = HeaderValue::try_from(if is_ours { exchange.path_for_client(&path) } else { target.into() });
        let refuse = |_| Failure::RedirectRefused { reason: "its Location is not a URL".to_owned() };
        head.headers.insert(LOCATION, location.map_err(refuse)?);
        self.upstream.note_redirect(RedirectAction::Passed);
        Ok(())
    }

    /// `Link` of a page of tags: an absolute URL at the upstream becomes a path, which holds at the gateway too. One
    /// that leads elsewhere is left out.
    fn link_at_the_gateway(&self, exchange: &Exchange, link: &HeaderValue) -> Option<HeaderValue> {
        let mut rest = link.to_str().ok()?;
        let mut links = Vec::new();
        while let Some((target, after)) = rest.trim_start_matches([' ', ',']).strip_prefix('<')?.split_once('>') {
            let end = after.find(",<").or_else(|| after.find(", <")).unwrap_or(after.len());
            let (parameters, next) = after.split_at(end);
            let url = self.upstream.url().join(target).ok()?;
            if url.origin() == self.upstream.url().origin() {
                let path = exchange.path_for_client(&self.path_at_the_upstream(&url));
                links.push(format!("<{path}>{parameters}"));
            }
            rest = next;
            if rest.is_empty() {
                break;
            }
        }
        HeaderValue::from_str(&links.join(", ")).ok().filter(|links| !links.is_empty())
    }

    /// Path and query of a URL of the upstream from `/v2/` on: without the upstream's own path prefix, where it is below it.
    pub(super) fn path_at_the_upstream(&self, url: &url::Url) -> String {
        let prefix = self.upstream.url().path().trim_end_matches('/');
        let below = url.path().strip_prefix(prefix).filter(|below| below.starts_with('/'));
        let path = below.unwrap_or(url.path());
        url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }
}

/// The client's request as the upstream gets it.
pub(super) fn onward(exchange: &mut Exchange, path: &str) -> ForwardRequest {
    let mut headers = headers::end_to_end_request(&exchange.head.headers);
    drop_malformed_range(&mut headers);
    headers.remove(CONTENT_LENGTH);
    if exchange.body.is_some()
        && let Some(length) = exchange.head.headers.get(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.clone());
    }
    ForwardRequest {
        method: exchange.head.method.clone(),
        path: path.to_owned(),
        query: exchange.head.uri.query().and_then(without_namespace),
        headers,
        body: exchange.body.take(),
    }
}

/// How far a client gets by itself. Docker before 1.13 is built with a Go that sends no headers after a redirect (no Range),
/// and runs on machines whose certificates and TLS are as old.
fn reach_of(client: &Client) -> Reach {
    match client.docker_version() {
        Some(version) if version < FIRST_THAT_REDIRECTS_WELL => Reach::OfTheGateway,
        _ => Reach::Anywhere,
    }
}

/// The query without `ns`, by which containerd tells a mirror which registry it means. The upstream is that registry.
fn without_namespace(query: &str) -> Option<String> {
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("ns=")).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// Docker 1.9 asks for `Range: 1-` when it resumes. An unparsable Range counts as none (RFC 9110, section 14.2), but
/// registries answer it with 416.
pub(super) fn drop_malformed_range(headers: &mut HeaderMap) {
    let is_range = |part: &str| match part.trim().split_once('-') {
        Some((first, last)) => {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            digits(first) && digits(last) && !(first.is_empty() && last.is_empty())
        }
        None => false,
    };
    let is_well_formed = |value: &HeaderValue| {
        let ranges = value.to_str().ok().and_then(|text| text.strip_prefix("bytes="));
        ranges.is_some_and(|ranges| ranges.split(',').all(is_range))
    };
    if headers.get(RANGE).is_some_and(|value| !is_well_formed(value)) {
        headers.remove(RANGE);
        headers.remove(IF_RANGE);
    }
}

/// The empty layer that every schema 1 of an image with empty steps names, in every repository, without asking
/// upstream: it has 32 bytes that everybody knows, and the upstream never had it.
fn empty_layer_answer(request: &HeaderMap, digest: &Digest) -> Response<Body> {
    let whole = empty_layer::BYTES.as_slice();
    Held { digest, size: whole.len() as u64 }.answer(request, |part| {
        let [start, end] = [part.start, part.end].map(|position| usize::try_from(position).unwrap_or(usize::MAX));
        Body::whole(bytes::Bytes::from_static(whole.get(start..end).unwrap_or_default()))
    })
}
