//! Every fault, and the one place where it becomes a status and words.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, RETRY_AFTER,
    VARY,
};
use http::{Response, StatusCode};

use crate::image::digest::{Digest, InvalidDigest};
use crate::image::reference::InvalidReference;
use crate::negotiate::Refusal;
use crate::store::StoreFailure;
use crate::upstream::route::UnknownUpstream;
use crate::upstream::{self, DOCKER_CONTENT_DIGEST, Failure, headers};

use super::body::Body;
use super::door;

/// How long a client is asked to wait when the gateway's own store cannot answer, in seconds.
const STORE_RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");
/// How long a client is asked to wait when too many logins are being checked, in seconds.
const LOGIN_RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// How long a client is asked to wait while the layers of its image are being read, in seconds.
/// No estimate of what is left: who comes back early waits in line and is answered the moment the work is done, while an
/// estimate that is too long leaves a finished image lying.
const LAYERS_RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The upstream refused, or could not be used.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// Nothing that is stored can be given to this client.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// A derived document cannot be made again. The text is for a person.
    #[error("{0}")]
    Unacceptable(String),
    /// The stored document contradicts itself.
    #[error("the stored document {0}")]
    Malformed(String),
    /// The store cannot answer, and without it the answer could be wrong.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The signing key of schema 1 is not usable.
    #[error("the schema 1 signing key in the store is not usable: {0}")]
    SigningKey(String),
    /// The method is not one for this path.
    #[error("{0}")]
    NotAllowed(String),
    /// The repository name, or the path around it, is outside the grammar.
    #[error("{0}")]
    NameInvalid(String),
    /// What follows `/manifests/` is neither a tag nor a digest.
    #[error(transparent)]
    ReferenceInvalid(InvalidReference),
    /// What follows `/blobs/` is not a digest.
    #[error(transparent)]
    DigestInvalid(InvalidDigest),
    /// A header is outside its grammar.
    #[error("{0}")]
    BadRequest(String),
    /// The client does not send its body.
    #[error("the body of the request did not arrive within {0} s")]
    BodyTooSlow(u64),
    /// The body is larger than the gateway reads.
    #[error("the body is larger than the limit of {0} bytes")]
    BodyTooLarge(usize),
    /// The gateway's own door wants a login. The text is for a person.
    #[error("{0}")]
    LoginWanted(&'static str),
    /// The gateway's own door goes by client certificates, and the client showed none that it takes.
    #[error("this gateway wants a client certificate with a name that it knows; connect with one")]
    CertificateWanted,
    /// Too many wrong logins from one address.
    #[error("too many wrong logins came from your address; wait {0} s and try again")]
    TooManyLogins(u64),
    /// Too many logins wait to be checked.
    #[error("too many logins are being checked at this moment; try again")]
    LoginsBusy,
    /// As many manifests are worked on as may be, and this one waited long enough for its turn.
    #[error("too many manifests are being read or translated at this moment; try again")]
    Busy(u64),
    /// A path that is nobody's.
    #[error("there is nothing under this path; a registry's endpoints are under /v2/")]
    NotFound,
    /// The words of an earlier refusal, for an engine that shows no others.
    #[error("{0}")]
    LegacyRefusal(String),
    /// Derived bytes are gone from the store and cannot be made again, because another edition made them.
    #[error("the bytes of this derived digest are no longer in the store; pull the tag again")]
    Lost,
    /// The request names no upstream of this gateway.
    #[error("{0}; ask its operator for the names that it answers to")]
    UnknownUpstream(UnknownUpstream),
    /// The operator does not let this repository out.
    #[error("this gateway does not serve the repository `{0}`; ask its operator for it")]
    RepositoryDenied(String),
    /// The layers of the image are still being read for its translation. The text says how far that is.
    #[error("the layers of this image are being read so that it can be translated: {0}; pull it again in a while")]
    LayersInWork(String),
    /// A pushed schema 1 whose signature is no good. The text reads after "the manifest ".
    #[error("the manifest {0}; nothing was written")]
    SignatureInvalid(String),
    /// A pushed image names a layer that its repository does not have.
    #[error("the image names the layer {0}, which the repository does not have; push it first. Nothing was written")]
    LayerMissing(Digest),
    /// A pushed schema 1 that the upstream does not take, and of which nothing else can be made.
    #[error("the registry does not take schema 1, and this image cannot be translated: {0}; nothing was written")]
    PushUntranslatable(String),
    /// The layers of a pushed image could not be read, or be stored, in the time that its client waits.
    #[error(
        "the layers of this image were not all read or stored within {0} s; what is done by then stays, so push it again"
    )]
    PushInWork(u64),
    /// A task of the gateway ended without an answer.
    #[error("the gateway failed while it worked on this request")]
    Internal,
}

impl Fault {
    /// The fault is the upstream's or the gateway's, not the client's: an operator wants to see it.
    pub(super) fn is_ours(&self) -> bool {
        self.status().is_server_error()
    }

    /// The status that a client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Upstream(failure) => match failure {
                Failure::Refused(refusal) => refusal.status,
                Failure::TimedOut { .. } | Failure::TooSlow { .. } => StatusCode::GATEWAY_TIMEOUT,
                Failure::UploadStalled { .. } => StatusCode::REQUEST_TIMEOUT,
                Failure::UploadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                Failure::UnforwardableQuery => StatusCode::BAD_REQUEST,
                Failure::Denied { .. } => StatusCode::FORBIDDEN,
                Failure::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
                Failure::BreakerOpen { .. }
                | Failure::Unexpected { .. }
                | Failure::Unreachable { .. }
                | Failure::WrongBytes { .. }
                | Failure::WrongLength { .. }
                | Failure::Coded { .. }
                | Failure::TooLarge { .. }
                | Failure::Unreadable { .. }
                | Failure::RedirectRefused { .. }
                | Failure::RealmRefused { .. }
                | Failure::TooPrivate { .. }
                | Failure::NoCredentials { .. } => StatusCode::BAD_GATEWAY,
            },
            Self::Refused(_) | Self::Unacceptable(_) | Self::Malformed(_) | Self::LegacyRefusal(_) => {
                StatusCode::NOT_ACCEPTABLE
            }
            Self::Store(_)
            | Self::SigningKey(_)
            | Self::LoginsBusy
            | Self::Busy(_)
            | Self::LayersInWork(_)
            | Self::PushInWork(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::LoginWanted(_) => StatusCode::UNAUTHORIZED,
            Self::TooManyLogins(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NameInvalid(_)
            | Self::ReferenceInvalid(_)
            | Self::DigestInvalid(_)
            | Self::BadRequest(_)
            | Self::SignatureInvalid(_)
            | Self::PushUntranslatable(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound | Self::Lost | Self::UnknownUpstream(_) | Self::LayerMissing(_) => StatusCode::NOT_FOUND,
            Self::CertificateWanted | Self::RepositoryDenied(_) => StatusCode::FORBIDDEN,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code of the errors JSON (OCI distribution-spec, section "Error codes"). `UNSUPPORTED` for whatever cannot be
    /// translated: Docker 1.8 to 17 show its text and hide that of `MANIFEST_UNKNOWN`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Refused(_)
            | Self::Unacceptable(_)
            | Self::Malformed(_)
            | Self::LegacyRefusal(_)
            | Self::NotAllowed(_) => "UNSUPPORTED",
            Self::SignatureInvalid(_) => "MANIFEST_UNVERIFIED",
            Self::LayerMissing(_) => "BLOB_UNKNOWN",
            Self::PushUntranslatable(_) => "MANIFEST_INVALID",
            Self::NameInvalid(_) => "NAME_INVALID",
            Self::UnknownUpstream(_) => "NAME_UNKNOWN",
            Self::RepositoryDenied(_) => "DENIED",
            Self::ReferenceInvalid(InvalidReference::Tag(_)) => "TAG_INVALID",
            Self::ReferenceInvalid(InvalidReference::Digest(_)) | Self::DigestInvalid(_) => "DIGEST_INVALID",
            Self::BodyTooLarge(_) => "SIZE_INVALID",
            Self::BodyTooSlow(_) => "UNKNOWN",
            Self::BadRequest(_)
            | Self::LoginWanted(_)
            | Self::CertificateWanted
            | Self::TooManyLogins(_)
            | Self::LoginsBusy
            | Self::Busy(_)
            | Self::LayersInWork(_)
            | Self::PushInWork(_)
            | Self::NotFound
            | Self::Lost
            | Self::Upstream(_)
            | Self::Store(_)
            | Self::SigningKey(_)
            | Self::Internal => code_of(self.status()),
        }
    }

    /// The answer. `upstream` is the upstream's host and port, for the words.
    pub(super) fn into_response(self, upstream: &str) -> Response<Body> {
        match self {
            Self::Upstream(Failure::Refused(refusal)) => relayed(*refusal, upstream),
            Self::LegacyRefusal(words) => legacy(words),
            fault => fault.into_own_response(upstream),
        }
    }

    fn into_own_response(self, upstream: &str) -> Response<Body> {
        let words = match &self {
            Self::Upstream(failure) => failure.words(upstream),
            fault => fault.to_string(),
        };
        let mut response = errors_json(self.status(), self.code(), &words);
        let headers = response.headers_mut();
        match self {
            Self::Store(_) | Self::SigningKey(_) => {
                headers.insert(RETRY_AFTER, STORE_RETRY_AFTER);
            }
            Self::LoginWanted(_) => door::challenge(headers),
            Self::TooManyLogins(seconds) | Self::Busy(seconds) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::LayersInWork(_) | Self::PushInWork(_) => {
                headers.insert(RETRY_AFTER, LAYERS_RETRY_AFTER);
            }
            Self::LoginsBusy => {
                headers.insert(RETRY_AFTER, LOGIN_RETRY_AFTER);
            }
            Self::Upstream(failure) => {
                headers.extend(failure.retry_after().map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
            }
            Self::NotAllowed(_) => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::Refused(_) | Self::Unacceptable(_) | Self::Malformed(_) => {
                headers.insert(VARY, HeaderValue::from_static("Accept, User-Agent"));
            }
            _ => {}
        }
        response
    }
}

/// The code for a status that the upstream, or nobody, explained.
fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "MANIFEST_UNKNOWN",
        405 | 406 => "UNSUPPORTED",
        413 => "SIZE_INVALID",
        429 => "TOOMANYREQUESTS",
        502..=504 => "UNAVAILABLE",
        _ => "UNKNOWN",
    }
}

/// The upstream's refusal: its status and headers, and its body where that is an errors JSON with at least one entry.
/// Docker up to 1.9 panics on an empty list, and an HTML page helps nobody.
fn relayed(refusal: upstream::Refusal, upstream: &str) -> Response<Body> {
    let upstream::Refusal { status, headers, body } = refusal;
    let mut response = if is_errors_json(&body) {
        let mut response = Response::new(Body::whole(body.clone()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        response
    } else {
        errors_json(status, code_of(status), &sentence(status, upstream))
    };
    let own = response.headers_mut();
    for (name, value) in &refusal_headers(&headers) {
        own.append(name, value.clone());
    }
    own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    own.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What of an upstream's error answer still holds when its body is written anew.
fn refusal_headers(upstream: &HeaderMap) -> HeaderMap {
    let mut kept = headers::end_to_end(upstream);
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CACHE_CONTROL, ETAG, DOCKER_CONTENT_DIGEST] {
        kept.remove(name);
    }
    kept.remove("docker-distribution-api-version");
    kept.remove("set-cookie");
    kept
}

/// What a client is told whose login ran out while the layers of its image were read for it. The upstream's challenge goes
/// with it, so a client that can will log in again by itself.
pub(super) fn login_over(layer: &Digest, upstream: &str) -> Bytes {
    let words = format!(
        "the registry {upstream} wants a new login before the layer {layer} can be read for the translation of this image; \
         log in and pull it again: what was read of it before is kept"
    );
    errors_body("UNAUTHORIZED", &words).into()
}

fn sentence(status: StatusCode, upstream: &str) -> String {
    match status.as_u16() {
        401 => format!("the registry {upstream} wants a login for this; log in and try again"),
        403 => format!("the registry {upstream} denies you this; ask its operator for access"),
        404 => format!("the registry {upstream} has nothing under this name"),
        429 => format!("the registry {upstream} has had too many requests from you; wait and try again"),
        _ => format!("the registry {upstream} answered {status}"),
    }
}

/// A body that every client can read: an errors JSON with at least one entry, each with a code.
fn is_errors_json(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        code: String,
    }
    serde_json::from_slice::<Errors>(body)
        .is_ok_and(|Errors { errors }| !errors.is_empty() && errors.iter().all(|entry| !entry.code.is_empty()))
}

fn errors_json(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    with_error_headers(status, "application/json", errors_body(code, message))
}

fn errors_body(code: &str, message: &str) -> String {
    let json = serde_json::json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
    let mut body = json.to_string();
    body.push('\n');
    body
}

/// Docker 1.6 and 1.7 print the body as it is, so it is plain text.
fn legacy(words: String) -> Response<Body> {
    with_error_headers(StatusCode::NOT_ACCEPTABLE, "text/plain; charset=utf-8", words)
}

fn with_error_headers(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
