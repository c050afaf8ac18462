//! Blobs that the gateway made: configs of upgraded images, and gzip layers. Only for whoever may see what they were made
//! of, at that moment.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};

use crate::image::digest::Digest;
use crate::image::reference::Repository;
use crate::store::layers::Config;
use crate::store::{LayerBytes, Recipe, Scope, Standing, Transcoding};
use crate::upstream::{Caller, continued};

use crate::gateway::Gateway;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::fault::Fault;
use crate::gateway::held::Held;
use crate::gateway::kept_blob::Verdict;

use super::gzip::maker;
use super::work::{Kind, Work};

/// A blob that was made here.
pub(in crate::gateway) enum Made {
    /// A config that was rebuilt.
    Config(Bytes),
    /// A gzip layer in the place of another. Its bytes may have been evicted.
    Layer(Transcoding),
}

impl Gateway {
    /// A blob that the upstream does not have and that was made here; `None` if it was not, or not of anything that this
    /// caller may see.
    pub(in crate::gateway) async fn made_blob(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Response<Body>>, Fault> {
        match self.made(exchange, repository, digest).await? {
            None => Ok(None),
            Some(Made::Config(bytes)) => {
                let held = Held { digest, size: bytes.len() as u64 };
                Ok(Some(held.answer(&exchange.head.headers, |part| {
                    let [start, end] = [part.start, part.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
                    Body::whole(bytes.slice(start..end.min(bytes.len())))
                })))
            }
            Some(Made::Layer(layer)) => self.made_layer(exchange, repository, layer).await.map(Some),
        }
    }

    /// What was made here under this digest, if this caller may see what it was made of.
    pub(in crate::gateway) async fn made(
        self: &Arc<Self>,
        exchange: &Exchange,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Made>, Fault> {
        let store = &self.shared.store;
        let scope = Scope::new(&self.options.upstream_name, repository);
        let looked_up = tokio::try_join!(store.configs(&scope, digest), store.transcodings_of(digest));
        let (configs, layers) = match looked_up {
            Ok(found) => found,
            // Nobody was promised anything: the upstream's word stands.
            Err(_) if !self.options.policy.layers.are_read() => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        if let Some(config) = self.visible_config(exchange, configs).await? {
            return Ok(Some(Made::Config(config)));
        }
        for layer in layers {
            match self.may_see(exchange, repository, &layer.layer).await {
                Ok(Verdict::Yes) => return Ok(Some(Made::Layer(layer))),
                Ok(Verdict::NotSaid) => {}
                Err(Fault::Upstream(failure)) if failure.may_be_absence() => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(None)
    }

    async fn visible_config(
        self: &Arc<Self>,
        exchange: &Exchange,
        mut configs: Vec<Config>,
    ) -> Result<Option<Bytes>, Fault> {
        let recipes: Vec<Recipe> = configs.iter().map(|config| config.recipe.clone()).collect();
        match self.visible_source(exchange, &recipes).await {
            Ok(None) => Ok(None),
            Err(failure) if failure.may_be_absence() => Ok(None),
            Err(failure) => Err(failure.into()),
            Ok(Some(_)) => Ok(configs.pop().map(|config| config.bytes)),
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
        let Some(part) = wanted.filter(|_| exchange.head.method != Method::HEAD) else {
            // Whoever is told that it is there may not send it.
            let is_there = self.shared.store.has_bytes_of(&made).await? || self.can_be_made_again(&made).await?;
            return if is_there { Ok(response) } else { Err(Fault::Lost) };
        };
        let length = part.end - part.start;
        let bytes = self.bytes_of_made(&exchange.caller, repository, &made, part).await?;
        Ok(response.map(|_| Body::made(bytes, length)))
    }

    /// Bytes of a gzip layer, for a caller who may see what it stands for.
    pub(in crate::gateway) async fn bytes_of_made(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        made: &Transcoding,
        part: std::ops::Range<u64>,
    ) -> Result<LayerBytes, Fault> {
        match self.shared.store.read_layer(made, part.clone()).await? {
            Some(bytes) => Ok(bytes),
            None => self.read_again(caller, repository, made.clone(), part).await,
        }
    }

    /// What another version made, this one cannot make again.
    async fn can_be_made_again(&self, made: &Transcoding) -> Result<bool, Fault> {
        Ok(match self.shared.store.transcoding(&made.layer, &maker()).await? {
            Standing::Unmade => false,
            Standing::Evicted(decided) | Standing::There(decided) => decided.gzip == made.gzip,
        })
    }

    /// Bytes that were evicted, made again by a task that goes on when the client leaves.
    async fn read_again(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &Repository,
        before: Transcoding,
        part: std::ops::Range<u64>,
    ) -> Result<LayerBytes, Fault> {
        if !self.can_be_made_again(&before).await? {
            return Err(Fault::Lost);
        }
        let (gateway, caller, place) = (Arc::clone(self), caller.clone(), repository.clone());
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
