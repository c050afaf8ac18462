//! Requests that write: refused unless the operator lets them through, and then passed on as they are. Only a schema 1 that
//! the upstream does not take becomes another document on the way.

mod bring;
mod measurement;
mod schema1;
mod uploads;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
use url::Url;

use crate::image::digest::Digest;
use crate::image::manifest::{Content, MANIFEST_BYTES_MAX, Manifest};
use crate::image::reference::{Reference, Repository};
use crate::store::Scope;
use crate::upstream::{Caller, Failure, ForwardRequest, RequestBody, StreamedBody};

use crate::gateway::blob::onward;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::fault::Fault;
use crate::gateway::route::Route;
use crate::gateway::{Gateway, Pushes};

pub(super) use uploads::Uploads;

/// The media type of a blob that is uploaded.
const BLOB: &str = "application/octet-stream";

impl Gateway {
    /// Answers a request that is neither GET nor HEAD.
    pub(in crate::gateway) async fn push(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        route: Route,
    ) -> Result<Response<Body>, Fault> {
        let method = exchange.head.method.clone();
        if !matches!(method, Method::PUT | Method::POST | Method::PATCH | Method::DELETE) {
            return Err(Fault::NotAllowed(format!("{method} is not a method of a registry")));
        }
        if self.options.pushes == Pushes::Refused {
            return Err(Fault::NotAllowed(format!(
                "{method} is not served: this gateway only reads; start it with --push to let pushes through"
            )));
        }
        match route {
            Route::Manifest { repository, reference } if method == Method::PUT => {
                self.put_manifest(exchange, &repository, &reference).await
            }
            Route::Manifest { repository, reference: Reference::Digest(digest) } if method == Method::DELETE => {
                self.refuse_to_delete_derived(exchange, &repository, &digest).await?;
                self.pass_push(exchange).await
            }
            Route::Upload => {
                self.check_mount(exchange)?;
                self.pass_upload(exchange).await
            }
            Route::Manifest { .. } | Route::Blob { .. } | Route::Referrers { .. } | Route::Other => {
                self.pass_push(exchange).await
            }
            Route::Base | Route::Token | Route::LegacyImages { .. } => {
                Err(Fault::NotAllowed(format!("{method} has no meaning for this path")))
            }
        }
    }

    /// A mount reads from the repository that its query names.
    fn check_mount(&self, exchange: &Exchange) -> Result<(), Fault> {
        let query = exchange.head.uri.query().unwrap_or_default();
        let mut sources = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "from");
        let is_served = |from: &str| {
            let inside = self.is_in_library(from).then(|| format!("library/{from}"));
            self.options.repositories.serve(inside.as_deref().unwrap_or(from))
        };
        match sources.find(|(_, from)| !is_served(from)) {
            Some((_, from)) => Err(Fault::RepositoryDenied(from.into_owned())),
            None => Ok(()),
        }
    }

    async fn pass_push(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let path = exchange.head.uri.path().to_owned();
        let answer = self.pass(exchange, &path).await;
        self.resolutions.forget();
        Ok(answer?.map(Body::streamed))
    }

    /// Passes on a part of an upload, which may be measured meanwhile.
    async fn pass_upload(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let passing = self.measured(exchange);
        let path = exchange.head.uri.path().to_owned();
        let request = onward(exchange, &path);
        let answer = self.upstream.forward(&exchange.caller, request).await;
        self.resolutions.forget();
        let answer = answer?;
        if let Some(passing) = passing {
            self.note_answered(passing, &answer);
        }
        self.relay(exchange, &path, answer).await.map(|answer| answer.map(Body::streamed))
    }

    /// Where an upload goes on: the upstream's URL as it is at the gateway, the opaque query untouched. Absolute, because
    /// Docker up to 1.9 takes it as it is.
    pub(in crate::gateway) fn location_at_the_gateway(
        &self,
        exchange: &Exchange,
        location: &HeaderValue,
    ) -> Result<HeaderValue, Fault> {
        let refuse = |reason: &str| Failure::RedirectRefused { reason: reason.to_owned() };
        let text = location.to_str().map_err(|_| refuse("its Location is not a URL"))?;
        let url = self.upstream.url().join(text).map_err(|_| refuse("its Location is not a URL"))?;
        if url.origin() != self.upstream.url().origin() {
            return Err(refuse("its upload goes on at another origin, where the gateway sends nobody").into());
        }
        let base = exchange.external_url()?;
        let location = format!("{base}{}", exchange.path_for_client(&self.path_at_the_upstream(&url)));
        HeaderValue::from_str(&location).map_err(|_| refuse("its Location is not a URL").into())
    }

    /// Makes sure that the upstream has what the manifest names: the client was told that what only the gateway has exists,
    /// and so did not send it.
    async fn put_manifest(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Response<Body>, Fault> {
        let bytes = exchange.whole_body(MANIFEST_BYTES_MAX).await?;
        let manifest = Manifest::parse(bytes.clone()).ok();
        if let Some(manifest) = &manifest
            && !schema1::is_changed_since_signed(manifest).await?
        {
            self.bring_along(exchange, repository, manifest).await?;
        }
        exchange.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        exchange.body = Some(RequestBody::Whole(bytes));
        match (self.pass_push(exchange).await, manifest) {
            (Err(Fault::Upstream(Failure::Refused(refusal))), Some(manifest))
                if matches!(manifest.content(), Content::Schema1(_)) && schema1::is_about_the_format(&refusal) =>
            {
                self.put_instead(exchange, repository, reference, manifest).await
            }
            (answered, _) => answered,
        }
    }

    /// Sees to it that the repository has a blob.
    async fn upload(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
        blob: (u64, RequestBody),
    ) -> Result<(), Fault> {
        if self.has_blob(caller, repository, digest).await? {
            return Ok(());
        }
        self.upload_new(caller, repository, digest, blob).await
    }

    async fn has_blob(&self, caller: &Caller, repository: &Repository, digest: &Digest) -> Result<bool, Fault> {
        let head = self.send(caller, Method::HEAD, format!("/v2/{repository}/blobs/{digest}"), None, None).await?;
        Ok(head.status() == StatusCode::OK)
    }

    /// Uploads a blob that the repository does not have.
    async fn upload_new(
        &self,
        caller: &Caller,
        repository: &Repository,
        digest: &Digest,
        (length, body): (u64, RequestBody),
    ) -> Result<(), Fault> {
        let nothing = (BLOB, 0, RequestBody::Whole(Bytes::new()));
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.send(caller, Method::POST, uploads, None, Some(nothing)).await?;
        let url = match (opened.status(), opened.headers().get(LOCATION).and_then(|value| value.to_str().ok())) {
            (StatusCode::ACCEPTED, Some(location)) => self.upload_url(location)?,
            _ => return Err(self.upstream.refused(opened).await.into()),
        };
        // What is unread of it would hold up the next request where few may be in flight.
        drop(opened);
        let query = match url.query() {
            Some(query) => format!("{query}&digest={digest}"),
            None => format!("digest={digest}"),
        };
        let path = self.path_of_upload(&url);
        let put = self.send(caller, Method::PUT, path, Some(query), Some((BLOB, length, body))).await?;
        if put.status() == StatusCode::CREATED { Ok(()) } else { Err(self.upstream.refused(put).await.into()) }
    }

    /// The path, without the query, under which an upload goes on.
    fn path_of_upload(&self, url: &Url) -> String {
        let path = self.path_at_the_upstream(url);
        path.split('?').next().unwrap_or_default().to_owned()
    }

    fn upload_url(&self, location: &str) -> Result<Url, Fault> {
        let refuse = |reason: &str| Failure::RedirectRefused { reason: reason.to_owned() };
        let url = self.upstream.url().join(location).map_err(|_| refuse("its Location is not a URL"))?;
        if url.origin() == self.upstream.url().origin() {
            Ok(url)
        } else {
            Err(refuse("its upload goes on at another origin, where the gateway sends nothing").into())
        }
    }

    async fn send(
        &self,
        caller: &Caller,
        method: Method,
        path: String,
        query: Option<String>,
        body: Option<(&'static str, u64, RequestBody)>,
    ) -> Result<Response<StreamedBody>, Fault> {
        let mut headers = HeaderMap::new();
        if let Some((media_type, length, _)) = &body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(*length));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        let body = body.map(|(_, _, body)| body);
        let request = ForwardRequest { method, path, query, headers, body };
        Ok(self.upstream.forward(caller, request).await?)
    }

    /// A derived digest is not the upstream's to delete; its source is. Who may not see the source is not told of it.
    async fn refuse_to_delete_derived(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Fault> {
        let reference = Reference::Digest(digest.clone());
        if !self.resolve(exchange, repository, &reference).await.is_err_and(|failure| failure.is_not_found()) {
            return Ok(());
        }
        let scope = Scope::new(&self.options.upstream_name, repository);
        let recipes = self.shared.store.recipes(&scope, digest).await?;
        match self.visible_source(exchange, &recipes).await? {
            Some(recipe) => Err(Fault::NotAllowed(format!(
                "{digest} is a translation made by this gateway; delete what it was made from, {}",
                recipe.source
            ))),
            None => Ok(()),
        }
    }
}

/// Bytes that are here, as a request sends them.
fn whole(bytes: Bytes) -> (u64, RequestBody) {
    (bytes.len() as u64, RequestBody::Whole(bytes))
}
