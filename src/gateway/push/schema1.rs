//! A schema 1 pushed to an upstream that does not take it: what is stored instead is the schema 2, or the OCI manifest, that
//! says the same.
//!
//! The client learns nothing of it: it is answered with the digest that it computed itself. What it pushed is kept as derived
//! from what is stored, before that is stored, so that the digest it shows can be pulled from the first moment on.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_LENGTH, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};

use crate::gateway::Gateway;
use crate::gateway::body::Body;
use crate::gateway::derive::{Obstacle, Order, Part};
use crate::gateway::exchange::Exchange;
use crate::gateway::fault::Fault;
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Reference, Repository, Tag};
use crate::store::Recipe;
use crate::translate::{self, BadSignature, Derived, LayerPolicy};
use crate::upstream::{DOCKER_CONTENT_DIGEST, Failure, Refusal, continued};

use super::whole;

/// How many layers the upstream is asked for at a time.
const LAYERS_ASKED_FOR_AT_ONCE: usize = 8;
/// Said of layers that schema 2 has no word for.
const PUSHING_AS_OCI_WOULD_HELP: &str = "; --push-as oci at the gateway would store it";

/// The upstream refuses a schema 1 because it is one, as far as can be told: distribution 3 answers `MANIFEST_INVALID`,
/// distribution 2.8 with schema 1 switched off 500 and `UNKNOWN`, others 415 or `UNSUPPORTED`. Where it meant something else
/// it says so again when it is sent the other format.
pub(super) fn is_about_the_format(refusal: &Refusal) -> bool {
    let codes = error_codes(&refusal.body);
    let all = |known: &[&str]| !codes.is_empty() && codes.iter().all(|code| known.contains(&code.as_str()));
    match refusal.status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => true,
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE => {
            all(&["MANIFEST_INVALID", "UNSUPPORTED"])
        }
        StatusCode::INTERNAL_SERVER_ERROR => all(&["UNKNOWN"]),
        _ => false,
    }
}

/// It is a schema 1 whose signature does not hold. It will be refused, so nothing is to be written for it. One without any
/// signature is the registry's to judge.
pub(super) async fn is_changed_since_signed(pushed: &Manifest) -> Result<bool, Fault> {
    if !matches!(pushed.content(), Content::Schema1(_)) {
        return Ok(false);
    }
    let pushed = pushed.clone();
    // A signature is dear to check: not on a thread that others wait for.
    let verified =
        tokio::task::spawn_blocking(move || translate::verify(&pushed)).await.map_err(|_| Fault::Internal)?;
    Ok(verified.is_err_and(|bad| bad != BadSignature::None))
}

fn error_codes(body: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        code: String,
    }
    let errors = serde_json::from_slice(body).map(|Errors { errors }| errors);
    errors.unwrap_or_default().into_iter().map(|entry| entry.code).collect()
}

impl Gateway {
    /// Stores what says the same as this schema 1 in a format that the upstream takes. Nothing is written before all of it is
    /// known to be good, and nothing under the tag before all that it names is there.
    pub(super) async fn put_instead(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        repository: &Repository,
        reference: &Reference,
        pushed: Manifest,
    ) -> Result<Response<Body>, Fault> {
        let pushed = self.verified(pushed).await?;
        let tag = tag_of(&pushed, reference)?;
        self.require_layers(exchange, repository, &pushed).await?;
        let order = Order {
            caller: exchange.caller.clone(),
            repository: repository.clone(),
            tag: tag.clone(),
            source: pushed.digest().clone(),
            stored: Arc::clone(&pushed),
            target: self.options.push_as.format(),
            shape: None,
            layers: LayerPolicy::Stored,
            known: Arc::default(),
            part: Part::Whole,
        };
        let made = self.made_in_time(order).await?;
        for blob in &made.blobs {
            self.upload(&exchange.caller, repository, &blob.digest, whole(blob.bytes.clone())).await?;
        }
        let recipe = Recipe {
            edition: self.shared.edition,
            upstream: self.options.upstream_name.clone(),
            repository: repository.clone(),
            tag: Some(tag),
            source: made.digest.clone(),
            config: made.blobs.first().map(|config| config.digest.clone()),
            source_format: made.format,
            target: Format::Schema1,
            derived: pushed.digest().clone(),
            shape: None,
            signing_key: None,
            layers: LayerPolicy::Stored,
            gzip_layers: Vec::new(),
        };
        self.keep_pushed(recipe.clone(), &pushed).await?;
        self.put_made(exchange, repository, reference, &made).await?;
        self.resolutions.forget();
        self.serve_pushed_again(recipe, &pushed).await;
        answer_pushed(exchange, repository, &pushed, &made)
    }

    async fn verified(&self, pushed: Manifest) -> Result<Arc<Manifest>, Fault> {
        // A signature is dear to check: not on a thread that others wait for.
        let verify = move || translate::verify(&pushed).map(|()| Arc::new(pushed));
        let verified = tokio::task::spawn_blocking(verify).await.map_err(|_| Fault::Internal)?;
        verified.map_err(|bad| Fault::SignatureInvalid(bad.to_string()))
    }

    /// The caller's repository has every layer, whatever is known of it from elsewhere.
    async fn require_layers(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        pushed: &Manifest,
    ) -> Result<(), Fault> {
        let layers = translate::layers_read(pushed).map_err(|reason| Fault::PushUntranslatable(reason.to_string()))?;
        let asked = layers.into_iter().map(|layer| async move {
            let path = format!("/v2/{repository}/blobs/{layer}");
            let head = self.send(&exchange.caller, Method::HEAD, path, None, None).await?;
            match head.status() {
                StatusCode::NOT_FOUND => Err(Fault::LayerMissing(layer)),
                status if status.is_client_error() || status.is_server_error() => {
                    Err(self.upstream.refused(head).await.into())
                }
                _ => Ok(()),
            }
        });
        stream::iter(asked).buffer_unordered(LAYERS_ASKED_FOR_AT_ONCE).try_collect().await
    }

    /// Docker up to 1.9 waits a minute for an answer and does not ask again by itself: it is told before. What is learnt of
    /// layers until then, and after it, is there when the image is pushed again.
    async fn made_in_time(self: &Arc<Self>, order: Order) -> Result<Derived, Fault> {
        let gateway = Arc::clone(self);
        let making = tokio::spawn(continued(async move { gateway.cook_image(&order, None).await }));
        let patience = self.shared.layers.derive_timeout;
        let made = tokio::time::timeout(patience, making).await;
        let made = made.map_err(|_| Fault::PushInWork(patience.as_secs()))?.map_err(|_| Fault::Internal)?;
        made.map(|cooked| cooked.derived).map_err(|obstacle| match obstacle {
            Obstacle::Untranslatable(words) | Obstacle::Layer(words) => Fault::PushUntranslatable(words),
            Obstacle::Zstd(words) => Fault::PushUntranslatable(format!("{words}{PUSHING_AS_OCI_WOULD_HELP}")),
            other => other.into(),
        })
    }

    async fn put_made(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        reference: &Reference,
        made: &Derived,
    ) -> Result<(), Fault> {
        let path = match reference {
            Reference::Tag(tag) => format!("/v2/{repository}/manifests/{tag}"),
            Reference::Digest(_) => format!("/v2/{repository}/manifests/{}", made.digest),
        };
        let (length, body) = whole(made.bytes.clone());
        let document = Some((made.format.media_type(), length, body));
        let put = self.send(&exchange.caller, Method::PUT, path, None, document).await?;
        match put.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(()),
            _ => Err(self.upstream.refused(put).await.into()),
        }
    }
}

/// As Docker up to 1.9 expects it: the digest of the payload, which it has computed too.
fn answer_pushed(
    exchange: &mut Exchange,
    repository: &Repository,
    pushed: &Manifest,
    made: &Derived,
) -> Result<Response<Body>, Fault> {
    let outcome = &mut exchange.record.outcome;
    outcome.stored = Some(made.format);
    outcome.served = Some(pushed.format());
    outcome.source = Some(made.digest.to_string());
    outcome.digest = Some(pushed.digest().to_string());
    outcome.why = Some("pushed as schema 1");
    let path = exchange.path_for_client(&format!("/v2/{repository}/manifests/{}", pushed.digest()));
    let location = format!("{}{path}", exchange.external_url()?);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    let unspeakable = |_| Failure::RedirectRefused { reason: "its Location is not a URL".to_owned() };
    headers.insert(LOCATION, HeaderValue::from_str(&location).map_err(unspeakable)?);
    let digest = HeaderValue::from_str(pushed.digest().as_str()).map_err(|_| Fault::Internal)?;
    headers.insert(DOCKER_CONTENT_DIGEST, digest);
    Ok(response)
}

/// The tag that the document will be asked for under: that of the request, or the one that it says itself.
fn tag_of(pushed: &Manifest, reference: &Reference) -> Result<Tag, Fault> {
    match (reference, pushed.content()) {
        (Reference::Tag(tag), _) => Ok(tag.clone()),
        (Reference::Digest(digest), Content::Schema1(schema1)) if digest == pushed.digest() => {
            let tag = schema1.tag.parse().or_else(|_| "latest".parse());
            tag.map_err(|_| Fault::Internal)
        }
        (Reference::Digest(digest), _) => Err(Fault::BadRequest(format!(
            "the manifest was pushed as {digest}, and the digest of its payload is {}",
            pushed.digest()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn refusal(status: u16, body: &'static str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn only_what_registries_say_of_a_format_counts() {
        let about = [
            // distribution 3.1
            (400, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":"unsupported"}]}"#),
            // distribution 2.8 with schema 1 switched off
            (500, r#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{}}]}"#),
            (405, r#"{"errors":[{"code":"UNSUPPORTED"}]}"#),
            (415, ""),
        ];
        for (status, body) in about {
            assert!(is_about_the_format(&refusal(status, body)), "{status} {body}");
        }
        let other = [
            (400, ""),
            (400, r#"{"errors":[]}"#),
            (400, r#"{"errors":[{"code":"MANIFEST_UNVERIFIED"}]}"#),
            (400, r#"{"errors":[{"code":"MANIFEST_INVALID"},{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#),
            (401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#),
            (403, r#"{"errors":[{"code":"UNSUPPORTED"}]}"#),
            (500, "<html>"),
            (503, r#"{"errors":[{"code":"UNKNOWN"}]}"#),
        ];
        for (status, body) in other {
            assert!(!is_about_the_format(&refusal(status, body)), "{status} {body}");
        }
    }
}
