//! `/token`: the upstream's token service, for clients that reach nothing but the gateway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::upstream::token::{TOKEN_BYTES_MAX, TokenAnswer, TokenRequest};
use crate::upstream::{Caller, Failure, NOBODYS_TOKEN, Refusal};

use super::body::Body;
use super::exchange::Exchange;
use super::fault::Fault;
use super::{Callers, ChallengeMode, Gateway, is_read_only};

/// What is said of the life of a token that is never over.
const NOBODYS_TOKEN_LIFE: Duration = Duration::from_secs(300);

impl Gateway {
    /// Relays a token request to the realm that the upstream itself names; the request has no say in where it goes.
    pub(super) async fn answer_token(self: &Arc<Self>, exchange: &mut Exchange) -> Result<Response<Body>, Fault> {
        if self.options.challenge == ChallengeMode::Pass || self.options.callers == Callers::TheGateway {
            return Err(Fault::NotFound);
        }
        // Whoever has nothing to show is spoken for; in a form there may be something.
        if exchange.caller.is_gateway() && is_read_only(&exchange.head.method) {
            return Ok(nobodys_token());
        }
        let (method, parameters) = match exchange.head.method {
            Method::GET | Method::HEAD => {
                (Method::GET, pairs(exchange.head.uri.query().unwrap_or_default().as_bytes())?)
            }
            Method::POST => (Method::POST, pairs(&exchange.whole_body(TOKEN_BYTES_MAX).await?)?),
            _ => return Err(Fault::NotAllowed("a token is asked for by GET or POST".to_owned())),
        };
        let caller = if exchange.caller.is_gateway() { Caller::default() } else { exchange.caller.clone() };
        let request = TokenRequest { method, parameters, caller };
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

/// What a client shows that wants a token before it asks, and has no credentials: it counts as nothing.
fn nobodys_token() -> Response<Body> {
    let fields =
        json!({"token": NOBODYS_TOKEN, "access_token": NOBODYS_TOKEN, "expires_in": NOBODYS_TOKEN_LIFE.as_secs()});
    document(fields.to_string().into())
}

/// Docker up to 1.9 reads `token`, `OAuth2` clients read `access_token`: the answer has both.
fn with_both_fields(answer: &TokenAnswer) -> Response<Body> {
    let body = match serde_json::from_slice::<Map<String, Value>>(&answer.body) {
        Ok(mut fields) => {
            let named = |name: &str| fields.get(name)?.as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            let (token, access_token) = (named("token"), named("access_token"));
            if let Some(known) = token.clone().or(access_token.clone()) {
                fields.insert("token".to_owned(), token.unwrap_or_else(|| known.clone()).into());
                fields.insert("access_token".to_owned(), access_token.unwrap_or(known).into());
            }
            Value::Object(fields).to_string().into()
        }
        // Not for the gateway to judge: the client will.
        Err(_) => answer.body.clone(),
    };
    document(body)
}

fn document(body: Bytes) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
