//! What reads and is neither a manifest, a blob nor their referrers: tags, the list of all repositories, extensions.

use std::sync::Arc;

use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};

use crate::upstream::Failure;

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::{CATALOG, Catalog, Gateway};

/// How many bytes a page of the catalogue may have, to be looked through.
const CATALOG_BYTES_MAX: usize = 8 << 20;

impl Gateway {
    /// Tags pass. Who speaks to the upstream himself may ask it anything else; what the gateway asks for somebody is his
    /// to see only if the operator says so.
    pub(super) async fn other(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let path = exchange.head.uri.path();
        let (is_catalog, is_tags) = (path == CATALOG, path.ends_with("/tags/list"));
        let is_for_gateway = exchange.caller.is_gateway();
        if is_for_gateway && !is_tags && !(is_catalog && self.options.catalog == Catalog::Filtered) {
            return Err(Fault::NotFound);
        }
        if is_catalog && (is_for_gateway || !self.options.repositories.are_empty()) {
            return self.catalog(exchange).await;
        }
        self.forward(exchange).await
    }

    /// A page of the catalogue, without the repositories that are not served.
    async fn catalog(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        let path = exchange.head.uri.path().to_owned();
        let (mut head, body) = self.pass(exchange, &path).await?.into_parts();
        let page = self.upstream.collect(body, CATALOG_BYTES_MAX, "catalogue").await?;
        let mut page: Page = serde_json::from_slice(&page).map_err(|_| Failure::Unexpected { status: head.status })?;
        page.repositories.retain(|name| self.options.repositories.serve(name));
        let page = serde_json::to_vec(&page).map_err(|_| Fault::Internal)?;
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
        Ok(Response::from_parts(head, Body::whole(page)))
    }
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Page {
    repositories: Vec<String>,
}
