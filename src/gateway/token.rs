//! `/token`: the upstream's token service, for clients that reach nothing but the gateway.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::upstream::token::{TOKEN_BYTES_MAX, TokenAnswer, TokenRequest};
use crate::upstream::{Failure, Refusal};

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::{ChallengeMode, Gateway};

impl Gateway {
    /// Relays a token request to the realm that the upstream itself names; the request has no say in where it goes.
    pub(super) async fn answer_token(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        if self.options.challenge == ChallengeMode::Pass {
            return Err(Fault::NotFound);
        }
        let (method, parameters) = match exchange.head.method {
            Method::GET | Method::HEAD => {
                (Method::GET, pairs(exchange.head.uri.query().unwrap_or_default().as_bytes())?)
            }
            Method::POST => (Method::POST, pairs(&form(exchange.body.take()).await?)?),
            _ => return Err(Fault::NotAllowed("a token is asked for by GET or POST".to_owned())),
        };
        let request = TokenRequest { method, parameters, caller: exchange.caller.clone() };
        let answer = self.upstream.exchange_token(request).await?.ok_or(Fault::NotFound)?;
        if answer.status != StatusCode::OK {
            let TokenAnswer { status, headers, body } = answer;
            if !status.is_client_error() && !status.is_server_error() {
                return Err(Failure::Unexpected { status }.into());
            }
            return Err(Failure::Refused(Box::new(Refusal { status, headers, body })).into());
        }
        Ok(with_both_fields(&answer))
    }
}

fn pairs(encoded: &[u8]) -> Result<Vec<(String, String)>, Fault> {
    if encoded.len() > TOKEN_BYTES_MAX {
        return Err(Fault::BodyTooLarge(TOKEN_BYTES_MAX));
    }
    Ok(form_urlencoded::parse(encoded).into_owned().collect())
}

async fn form(body: Option<reqwest::Body>) -> Result<Vec<u8>, Fault> {
    let Some(body) = body else { return Ok(Vec::new()) };
    match Limited::new(body, TOKEN_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Fault::BodyTooLarge(TOKEN_BYTES_MAX)),
        Err(_) => Err(Fault::BadRequest("the body of the request broke off".to_owned())),
    }
}

/// Docker up to 1.9 reads `token`, `OAuth2` clients read `access_token`: the answer has both.
fn with_both_fields(answer: &TokenAnswer) -> Response<Body> {
    let body = match serde_json::from_slice::<Map<String, Value>>(&answer.body) {
        Ok(mut fields) => {
            let token = fields.get("token").or_else(|| fields.get("access_token")).cloned();
            if let Some(token) = token {
                fields.entry("token").or_insert_with(|| token.clone());
                fields.entry("access_token").or_insert(token);
            }
            Value::Object(fields).to_string().into()
        }
        // Not for the gateway to judge: the client will.
        Err(_) => answer.body.clone(),
    };
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
