//! The token of Amazon ECR: one signed request to its API, with the credentials that the platform gives this machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequest;
use object_store::{ClientOptions, RetryConfig};
use serde::Deserialize;
use url::Url;

use super::credentials::Credential;
use super::lease::Term;
use super::transport::Transport;
use super::{Caller, body};

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const GET_AUTHORIZATION_TOKEN: HeaderValue =
    HeaderValue::from_static("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
const AMAZON_JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

/// How much of the API's answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long one request for the platform's own credentials may take to be connected, and in all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(9);
/// How often, and for how long, such a request is tried again.
const RETRIES_MAX: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a token is good at most, and where the API does not say.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(12 * 3600);

/// The API of one region, and who asks it.
pub(super) struct Ecr {
    region: String,
    endpoint: Url,
    platform: AwsCredentialProvider,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: String,
    /// Seconds since 1970, with a fraction.
    expires_at: Option<f64>,
}

impl Ecr {
    /// Makes no request.
    pub(super) fn new(region: &str, endpoint: Option<&Url>, settings: &[(String, String)]) -> Result<Self, String> {
        // The library makes its own HTTP client, which takes the process's provider of cryptography; where one was
        // installed already, it is this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let is_plain = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_plain {
            return Err(format!("`{region}` is not the name of an AWS region"));
        }
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.clone(),
            None => own_endpoint(region).parse().map_err(|error: url::ParseError| error.to_string())?,
        };
        let client = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
        let retries = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retries);
        for (name, value) in settings {
            // The platform has variables for many other programs too.
            if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        // Only its credentials are of interest; no bucket is ever asked.
        let nowhere =
            builder.with_region(region).with_bucket_name("none").build().map_err(|error| error.to_string())?;
        Ok(Self { region: region.to_owned(), endpoint, platform: nowhere.credentials().clone() })
    }

    /// A new token, as the user name and password that the registry takes.
    pub(super) async fn token(&self, transport: &Transport) -> Result<Term<Credential>, String> {
        let request = self.signed_request().await?;
        let answer = transport.send(request).await.map_err(|failure| failure.to_string())?;
        let status = answer.status();
        let body = body::StreamedBody::new(answer.into_body(), REQUEST_TIMEOUT);
        let body = body::collect(body, ANSWER_BYTES_MAX, "token").await.map_err(|failure| failure.to_string())?;
        if status != StatusCode::OK {
            return Err(format!("the API of Amazon ECR answered {status}{}", complaint(&body)));
        }
        term(&body, SystemTime::now()).ok_or_else(|| "the API of Amazon ECR answered without a token".to_owned())
    }

    async fn signed_request(&self) -> Result<reqwest::Request, String> {
        let credential = self.platform.get_credential().await.map_err(|error| error.to_string())?;
        let body = Bytes::from_static(b"{}");
        let mut signed = HttpRequest::new(body.clone().into());
        *signed.method_mut() = Method::POST;
        *signed.uri_mut() = self.endpoint.as_str().parse().map_err(|_| "its endpoint is not a URL".to_owned())?;
        signed.headers_mut().insert(TARGET, GET_AUTHORIZATION_TOKEN);
        signed.headers_mut().insert(CONTENT_TYPE, AMAZON_JSON);
        AwsAuthorizer::new(&credential, "ecr", &self.region)
            .try_authorize(&mut signed, None)
            .map_err(|error| error.to_string())?;
        let mut request = Transport::request(Method::POST, self.endpoint.clone(), &Caller::default());
        request.headers_mut().extend(signed.headers().clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.into());
        Ok(request)
    }
}

fn own_endpoint(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://api.ecr.{region}.amazonaws.com{suffix}/")
}

/// The kind of error that the API names, if it does: `UnrecognizedClientException`, `AccessDeniedException`.
fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        #[serde(rename = "__type")]
        kind: String,
    }
    let kind = serde_json::from_slice(body).map(|Complaint { kind }| kind).unwrap_or_default();
    let is_word = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b'.'));
    if kind.is_empty() || !is_word { String::new() } else { format!(" ({kind})") }
}

fn term(body: &[u8], now: SystemTime) -> Option<Term<Credential>> {
    let Answer { authorization_data } = serde_json::from_slice(body).ok()?;
    let AuthorizationData { authorization_token, expires_at } = authorization_data.into_iter().next()?;
    let pair = String::from_utf8(BASE64.decode(authorization_token.as_bytes()).ok()?).ok()?;
    let (username, password) = pair.split_once(':')?;
    let value = Credential::Basic { username: username.to_owned(), password: password.to_owned() };
    let life = expires_at.and_then(|seconds| {
        let expiry = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        Some(expiry.duration_since(now).unwrap_or_default())
    });
    let life = life.unwrap_or(TOKEN_LIFE_MAX).min(TOKEN_LIFE_MAX);
    Some(Term::lasting(value, life))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(expires_at: &str) -> Duration {
        let token = BASE64.encode(b"AWS:password");
        let text = format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}"{expires_at}}}]}}"#);
        let term = term(text.as_bytes(), UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        assert_eq!(term.value, Credential::Basic { username: "AWS".to_owned(), password: "password".to_owned() });
        term.ends_after.unwrap()
    }

    #[test]
    fn a_token_lives_as_long_as_the_api_says_and_twelve_hours_at_most() {
        assert_eq!(life(r#","expiresAt":1600.5"#), Duration::from_millis(600_500));
        assert_eq!(life(r#","expiresAt":999"#), Duration::ZERO);
        assert_eq!(life(r#","expiresAt":-1"#), TOKEN_LIFE_MAX);
        assert_eq!(life(r#","expiresAt":1e300"#), TOKEN_LIFE_MAX);
        assert_eq!(life(""), TOKEN_LIFE_MAX);
        for junk in ["", "{}", r#"{"authorizationData":[]}"#, r#"{"authorizationData":[{"authorizationToken":"%"}]}"#] {
            assert!(term(junk.as_bytes(), UNIX_EPOCH).is_none(), "{junk}");
        }
    }

    #[test]
    fn a_region_is_a_plain_word() {
        for (region, is_fine) in [("eu-central-1", true), ("", false), ("x.attacker.example/", false), ("a@b", false)] {
            assert_eq!(Ecr::new(region, None, &[]).is_ok(), is_fine, "{region}");
        }
        assert_eq!(own_endpoint("cn-north-1"), "https://api.ecr.cn-north-1.amazonaws.com.cn/");
    }
}
