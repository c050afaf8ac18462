//! Where the bytes of a layer come from.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http::header::HeaderMap;
use http::{Method, StatusCode};
use http_body_util::BodyExt;

use crate::image::digest::Digest;
use crate::image::reference::Repository;
use crate::store::blobs::{Broken, Kept};
use crate::upstream::{Caller, Failure, ForwardRequest, is_redirect};

use crate::gateway::Gateway;
use crate::gateway::derive::Obstacle;
use crate::gateway::fault::login_over;

use super::Work;
use super::pace::Paced;

/// The bytes of a layer, counted as they come.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, Broken>>;

impl Gateway {
    /// The bytes of a layer: kept ones, or as the upstream sends them to this caller, wherever it keeps them.
    pub(super) async fn open_layer(
        &self,
        caller: &Caller,
        repository: &Repository,
        layer: &Digest,
        work: &Work,
    ) -> Result<Pieces, Obstacle> {
        let pieces = match self.kept_layer(caller, repository, layer).await {
            Some(kept) => {
                let whole = 0..kept.size();
                kept.read(whole).into_data_stream().boxed()
            }
            None => self.layer_of_upstream(caller, repository, layer).await?,
        };
        let work = work.clone();
        Ok(pieces.inspect_ok(move |piece| work.note_bytes(piece.len())).boxed())
    }

    /// A layer that clients were given before, if the upstream lets this caller see it. Whatever else it says, it says again
    /// when the layer is asked for.
    async fn kept_layer(&self, caller: &Caller, repository: &Repository, layer: &Digest) -> Option<Kept> {
        let kept = self.shared.blob_cache.as_ref()?.find(layer).await?;
        let answer = self.upstream.forward(caller, request(Method::HEAD, repository, layer)).await.ok()?;
        (answer.status() == StatusCode::OK || is_redirect(answer.status())).then_some(kept)
    }

    async fn layer_of_upstream(
        &self,
        caller: &Caller,
        repository: &Repository,
        layer: &Digest,
    ) -> Result<Pieces, Obstacle> {
        let asked = || request(Method::GET, repository, layer);
        let mut answer = self.upstream.forward(caller, asked()).await?;
        if is_redirect(answer.status()) {
            let target = self.upstream.redirect_target(&asked().path, answer.headers()).await?;
            // What is unread of it would hold up the next request where few may be in flight.
            drop(answer);
            answer = self.upstream.fetch_redirected(caller, asked(), target).await?;
        }
        match answer.status() {
            StatusCode::OK => {
                let pieces = answer.into_body().into_data_stream();
                Ok(Paced::new(pieces, self.shared.layers.pace).map_err(Broken::from).boxed())
            }
            StatusCode::NOT_FOUND => {
                Err(Obstacle::Untranslatable(format!("the registry does not have its layer {layer}")))
            }
            _ => Err(self.layer_refused(layer, self.upstream.refused(answer).await).into()),
        }
    }

    /// The caller was let see the document that names the layer: a login that is wanted now has run out meanwhile.
    fn layer_refused(&self, layer: &Digest, mut failure: Failure) -> Failure {
        if let Failure::Refused(refusal) = &mut failure
            && refusal.status == StatusCode::UNAUTHORIZED
        {
            refusal.body = login_over(layer, &self.upstream.authority());
        }
        failure
    }
}

fn request(method: Method, repository: &Repository, layer: &Digest) -> ForwardRequest {
    let path = format!("/v2/{repository}/blobs/{layer}");
    ForwardRequest { method, path, query: None, headers: HeaderMap::new(), body: None }
}
