//! What reads and is neither a manifest, a blob nor their referrers: tags, the list of all repositories, extensions.

use std::sync::Arc;

use http::header::{
    CONTENT_LENGTH, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, Response, StatusCode};

use crate::upstream::Failure;

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::route::repository_in;
use super::{CATALOG, Catalog, Gateway, Pushes};

/// How many bytes a page of the catalogue may have, to be looked through.
const CATALOG_BYTES_MAX: usize = 8 << 20;

impl Gateway {
    /// Tags pass. Who speaks to the upstream himself may ask it anything else; what the gateway asks for somebody is his
    /// to see only if the operator says so.
    pub(super) async fn other(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let path = exchange.head.uri.path();
        // Some registries do not mind a final slash.
        let is_catalog = path.strip_suffix('/').unwrap_or(path) == CATALOG;
        let is_tags = path.ends_with("/tags/list") && repository_in(path).is_some();
        let is_for_gateway = exchange.caller.is_gateway();
        if is_for_gateway && !is_tags && !(is_catalog && self.options.catalog == Catalog::Filtered) {
            return Err(Fault::NotFound);
        }
        if is_catalog && (is_for_gateway || !self.options.repositories.are_empty()) {
            return self.catalog(exchange).await;
        }
        self.forward(exchange).await
    }

    /// How far an upload has come: of no use to anybody where nobody can begin one.
    pub(super) async fn upload_state(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        if exchange.caller.is_gateway() && self.options.pushes == Pushes::Refused {
            return Err(Fault::NotFound);
        }
        self.forward(exchange).await
    }

    /// A page of the catalogue, without the repositories that are not served.
    async fn catalog(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let path = exchange.head.uri.path().to_owned();
        // Whatever the client wants of the page is about another than it gets, and HEAD is told its length.
        for header in [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE] {
            exchange.head.headers.remove(header);
        }
        let asked = std::mem::replace(&mut exchange.head.method, Method::GET);
        let answer = self.pass(exchange, &path).await;
        exchange.head.method = asked;
        let (mut head, body) = answer?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Failure::Unexpected { status: head.status }.into());
        }
        let page = self.upstream.collect(body, CATALOG_BYTES_MAX, "catalogue").await?;
        let mut page: Page = serde_json::from_slice(&page).map_err(|_| Failure::Unreadable { what: "catalogue" })?;
        page.repositories.retain(|name| self.options.repositories.serve(name));
        let page = serde_json::to_vec(&page).map_err(|_| Fault::Internal)?;
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
        for header in [ETAG, LAST_MODIFIED] {
            head.headers.remove(header);
        }
        Ok(Response::from_parts(head, Body::whole(page)))
    }
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Page {
    repositories: Vec<String>,
}
