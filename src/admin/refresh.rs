//! Forgetting what tags name, for an operator who knows better.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, ORIGIN};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use url::form_urlencoded;

use crate::gateway::Service;
use crate::gateway::refresh::{Named, Unforgettable};

/// How many bytes of body a request may have: only that of a refresh is read.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long that may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many images one request may name: each is looked for in all that is remembered.
pub const IMAGES_MAX: usize = 100;

/// Where a browser says that a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A status and the sentence that goes with it.
pub(super) type Said = (StatusCode, String);

/// Forgets what the tags of images name; says a line for each.
pub(super) async fn refresh<Body>(request: Request<Body>, service: &Service) -> Result<Said, Said>
where
    Body: http_body::Body<Data = Bytes>,
    Body::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let refused = |status, text: &str| Err((status, format!("{text}\n")));
    if request.method() != Method::POST {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "only POST");
    }
    // A browser on this machine can be led to any address of it, but says on whose behalf it comes.
    if [ORIGIN, SEC_FETCH_SITE].iter().any(|name| request.headers().contains_key(name)) {
        return refused(StatusCode::FORBIDDEN, "not for pages of the web");
    }
    let (head, body) = request.into_parts();
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body has more than {BODY_BYTES_MAX} bytes"));
        }
        Ok(Err(_)) | Err(_) => return refused(StatusCode::BAD_REQUEST, "the body did not arrive"),
    };
    let named = named(head.uri.query().unwrap_or_default(), &body)?;
    let forgotten = service.forget(&named).await.map_err(|error| {
        let status = match error {
            Unforgettable::Malformed(_) => StatusCode::BAD_REQUEST,
            Unforgettable::Unknown { .. } => StatusCode::NOT_FOUND,
        };
        (status, format!("{error}\n"))
    })?;
    let lines = named.images.iter().zip(forgotten).map(|(image, callers)| match callers {
        0 => format!("{image}: nothing was remembered\n"),
        1 => format!("{image}: forgotten for 1 caller\n"),
        callers => format!("{image}: forgotten for {callers} callers\n"),
    });
    Ok((StatusCode::OK, lines.collect()))
}

/// What a form names, in the query and in the body.
fn named(query: &str, body: &[u8]) -> Result<Named, Said> {
    let refused = |text: String| Err((StatusCode::BAD_REQUEST, format!("{text}\n")));
    let mut named = Named::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body)) {
        match name.as_ref() {
            "image" => named.images.push(value.into_owned()),
            "ns" => named.registry = Some(value.into_owned()),
            "host" => named.host = Some(value.into_owned()),
            _ => return refused(format!("`{name}` is unknown: expected `image`, `ns` or `host`")),
        }
    }
    match named.images.len() {
        0 => refused("no image is named: expected `image=repository:tag`".to_owned()),
        1..=IMAGES_MAX => Ok(named),
        _ => refused(format!("more than {IMAGES_MAX} images are named")),
    }
}
