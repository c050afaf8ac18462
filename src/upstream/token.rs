//! The upstream's token service: where it may be, and one exchange with it.
//!
//! A bearer realm is the upstream's word and credentials are sent to it, so it is believed only as far as it names a
//! place that belongs to the upstream.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use url::Url;
use url::form_urlencoded::Serializer;

use super::challenge::Challenge;
use super::transport::Transport;
use super::{Caller, Failure, Upstream};

/// How many bytes of a token request's form, and of its answer, are read.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Docker Hub's registry and its token service are two hosts of one owner.
pub const DOCKER_HUB_HOSTS: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];
/// Docker Hub, by any of its hosts.
pub fn is_docker_hub(url: &Url) -> bool {
    url.host_str().is_some_and(|host| DOCKER_HUB_HOSTS.contains(&host))
}

const DOCKER_HUB_TOKEN_HOST: &str = "auth.docker.io";

/// The realm that the upstream itself last named.
#[derive(Default)]
pub(super) struct RealmMemory(RwLock<Option<String>>);

impl RealmMemory {
    /// Remembers the realm of a 401 of the upstream.
    pub(super) fn learn(&self, status: StatusCode, headers: &HeaderMap) {
        if status != StatusCode::UNAUTHORIZED {
            return;
        }
        if let Some(realm) =
            bearer_challenge(headers).and_then(|challenge| challenge.parameter("realm").map(str::to_owned))
        {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(realm);
        }
    }

    fn known(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The first bearer challenge of an answer.
fn bearer_challenge(headers: &HeaderMap) -> Option<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(Challenge::parse_line)
        .find(|challenge| challenge.is_bearer() && challenge.parameter("realm").is_some())
}

/// What a client asks a token service.
pub struct TokenRequest {
    /// GET with the parameters in the query, or POST with them as a form.
    pub method: Method,
    /// The decoded parameters, in order.
    pub parameters: Vec<(String, String)>,
    /// The client's own credentials.
    pub caller: Caller,
}

/// What the token service answered.
pub struct TokenAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most [`TOKEN_BYTES_MAX`] bytes.
    pub body: Bytes,
}

impl Upstream {
    /// Relays a token request to the realm that this upstream last named; asks the upstream for it when none is known.
    /// `None` where the upstream has no token service.
    pub async fn exchange_token(&self, request: TokenRequest) -> Result<Option<TokenAnswer>, Failure> {
        let realm = match self.realm.known() {
            Some(realm) => Some(realm),
            None => self.ask_for_realm().await?,
        };
        let Some(realm) = realm else { return Ok(None) };
        let realm = self.trusted_realm(&realm)?;
        self.ask_realm(realm, request).await.map(Some)
    }

    async fn ask_for_realm(&self) -> Result<Option<String>, Failure> {
        self.ping(&Caller::default()).await?;
        Ok(self.realm.known())
    }

    /// One exchange with a realm that is trusted.
    pub(super) async fn ask_realm(&self, realm: Url, request: TokenRequest) -> Result<TokenAnswer, Failure> {
        let answer = self.ask_realm_now(realm, request).await;
        self.transport.traffic.meter().asked_for_token(answer.as_ref().ok().map(|answer| answer.status));
        answer
    }

    async fn ask_realm_now(&self, realm: Url, request: TokenRequest) -> Result<TokenAnswer, Failure> {
        let mut url = realm;
        let mut outgoing = if request.method == Method::POST {
            let form = Serializer::new(String::new()).extend_pairs(&request.parameters).finish();
            let mut outgoing = Transport::request(Method::POST, url, &request.caller);
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            outgoing.headers_mut().insert(CONTENT_TYPE, form_type);
            *outgoing.body_mut() = Some(form.into());
            outgoing
        } else {
            url.query_pairs_mut().extend_pairs(&request.parameters);
            Transport::request(Method::GET, url, &request.caller)
        };
        outgoing.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = if self.is_own(outgoing.url()) {
            self.transport.send(outgoing).await?
        } else {
            self.transport.send_abroad(outgoing).await?
        };
        if answer.status().is_redirection() {
            return Err(Failure::RealmRefused { reason: "it redirects, which a token service must not".to_owned() });
        }
        let (head, inner) = answer.into_parts();
        let body = self.collect(self.streamed(inner), TOKEN_BYTES_MAX, "token").await?;
        Ok(TokenAnswer { status: head.status, headers: head.headers, body })
    }

    /// The realm as a URL, if it is a place that belongs to this upstream.
    pub(super) fn trusted_realm(&self, realm: &str) -> Result<Url, Failure> {
        let refuse = |reason: String| Failure::RealmRefused { reason };
        let base = &self.options.url;
        let url = base.join(realm).map_err(|_| refuse("it is not a URL".to_owned()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it holds credentials".to_owned()));
        }
        match (base.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => {}
            _ => return Err(refuse("it is not https although the upstream is".to_owned())),
        }
        let (Some(own), Some(named)) = (base.host_str(), url.host_str()) else {
            return Err(refuse("it names no host".to_owned()));
        };
        let is_own = own == named;
        let is_docker_hub = DOCKER_HUB_HOSTS.contains(&own) && named == DOCKER_HUB_TOKEN_HOST;
        let is_allowed = self.options.token_realms.iter().any(|allowed| allowed.origin() == url.origin());
        if is_own || is_docker_hub || is_allowed {
            return Ok(url);
        }
        let origin = url.origin().ascii_serialization();
        Err(refuse(format!(
            "it is at {origin}, not at the upstream's own host {own}; allow it with --token-realm {origin}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Options;

    fn upstream(url: &str, token_realm: Option<&str>) -> Upstream {
        let mut options = Options::new(url.parse().unwrap());
        options.token_realms = token_realm.into_iter().map(|url| url.parse().unwrap()).collect();
        Upstream::new(options).unwrap()
    }

    #[test]
    fn a_realm_must_belong_to_the_upstream() {
        let cases = [
            ("https://r.example", None, "https://r.example/token", true),
            ("https://r.example", None, "/token", true),
            ("https://r.example:5000", None, "https://r.example:5001/token", true),
            ("https://r.example", None, "http://r.example/token", false),
            ("https://r.example", None, "https://r.example.attacker.example/token", false),
            ("https://r.example", None, "https://user@r.example/token", false),
            ("https://r.example", None, "https://auth.example/token", false),
            ("https://r.example", Some("https://auth.example/"), "https://auth.example/token", true),
            ("https://r.example", Some("https://auth.example/"), "https://auth.example:444/token", false),
            ("https://registry-1.docker.io", None, "https://auth.docker.io/token", true),
            ("https://r.example", None, "https://auth.docker.io/token", false),
            ("http://127.0.0.1:5000", None, "http://169.254.169.254/token", false),
            ("http://127.0.0.1:5000", None, "file:///etc/passwd", false),
        ];
        for (url, token_realm, realm, trusted) in cases {
            assert_eq!(upstream(url, token_realm).trusted_realm(realm).is_ok(), trusted, "{url} {realm}");
        }
    }
}
