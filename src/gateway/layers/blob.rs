//! Blobs that the gateway made: configs of upgraded images, and gzip layers. Only for whoever may see what they were made
//! of, at that moment.

use std::sync::Arc;

use http::{Method, Response};

use crate::image::digest::Digest;
use crate::image::reference::Repository;
use crate::store::layers::Config;
use crate::store::{LayerBytes, Recipe, Scope, Standing, Transcoding};
use crate::upstream::continued;

use crate::gateway::Gateway;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::fault::Fault;
use crate::gateway::held::Held;
use crate::gateway::kept_blob::Verdict;

use super::gzip::maker;
use super::work::{Kind, Work};

impl Gateway {
    /// A blob that the upstream does not have and that was made here; `None` if it was not, or not of anything that this
    /// caller may see.
    pub(in crate::gateway) async fn made_blob(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Response<Body>>, Fault> {
        let store = &self.shared.store;
        let scope = Scope::new(&self.options.upstream_name, repository);
        let looked_up = tokio::try_join!(store.configs(&scope, digest), store.transcodings_of(digest));
        let (configs, layers) = match looked_up {
            Ok(found) => found,
            // Nobody was promised anything: the upstream's word stands.
            Err(_) if !self.options.policy.layers.are_read() => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        if let Some(response) = self.made_config(exchange, &configs, digest).await? {
            return Ok(Some(response));
        }
        for layer in layers {
            match self.may_see(exchange, repository, &layer.layer).await {
                Ok(Verdict::Yes) => return self.made_layer(exchange, repository, layer).await.map(Some),
                Ok(Verdict::NotSaid) => {}
                Err(Fault::Upstream(failure)) if failure.may_be_absence() => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(None)
    }

    async fn made_config(
        self: &Arc<Self>,
        exchange: &Exchange,
        configs: &[Config],
        digest: &Digest,
    ) -> Result<Option<Response<Body>>, Fault> {
        let Some(Config { bytes, .. }) = configs.first() else { return Ok(None) };
        let recipes: Vec<Recipe> = configs.iter().map(|config| config.recipe.clone()).collect();
        match self.visible_source(exchange, &recipes).await {
            Ok(None) => Ok(None),
            Err(failure) if failure.may_be_absence() => Ok(None),
            Err(failure) => Err(failure.into()),
            Ok(Some(_)) => {
                let held = Held { digest, size: bytes.len() as u64 };
                Ok(Some(held.answer(&exchange.head.headers, |part| {
                    let [start, end] = [part.start, part.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
                    Body::whole(bytes.slice(start..end.min(bytes.len())))
                })))
            }
        }
    }

    async fn made_layer(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        made: Transcoding,
    ) -> Result<Response<Body>, Fault> {
        let held = Held { digest: &made.gzip.digest, size: made.gzip.size };
        let mut wanted = None;
        let response = held.answer(&exchange.head.headers, |part| {
            wanted = Some(part);
            Body::empty()
        });
        let Some(part) = wanted.filter(|_| exchange.head.method != Method::HEAD) else { return Ok(response) };
        let length = part.end - part.start;
        let bytes = match self.shared.store.read_layer(&made, part.clone()).await? {
            Some(bytes) => bytes,
            None => self.read_again(exchange, repository, made.clone(), part).await?,
        };
        Ok(response.map(|_| Body::made(bytes, length)))
    }

    /// Bytes that were evicted, made again by a task that goes on when the client leaves.
    async fn read_again(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        before: Transcoding,
        part: std::ops::Range<u64>,
    ) -> Result<LayerBytes, Fault> {
        let decided = match self.shared.store.transcoding(&before.layer, &maker()).await? {
            Standing::Unmade => return Err(Fault::Lost),
            Standing::Evicted(decided) | Standing::There(decided) => decided,
        };
        // What another version made, this one cannot make again.
        if decided.gzip != before.gzip {
            return Err(Fault::Lost);
        }
        let (gateway, caller, place) = (Arc::clone(self), exchange.caller.clone(), repository.clone());
        let again = async move {
            let image = (&place, &before.layer.clone());
            let work = Work::new(Kind::Transcode, &gateway.options.upstream_name, image, (1, None));
            let again = async {
                let made = gateway.transcode_again(&caller, &place, before, &work).await;
                work.note_layer();
                made
            };
            gateway.shared.layers.works.during(&work, again).await
        };
        let again = tokio::spawn(continued(again));
        let again = self.within_patience(repository, again).await?;
        let again = again.map_err(|_| Fault::Internal)??;
        self.shared.store.read_layer(&again, part).await?.ok_or(Fault::Lost)
    }
}
