//! Logging in to the upstream with the credentials that the gateway holds (distribution-spec, "token authentication").
//!
//! What the upstream's challenge said is remembered, so that all but the first request come with what it wants. A
//! refusal renews what was refused and tries once more; then it is final.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use moka::sync::Cache;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::cache_requests::Asked;
use super::challenge::Challenge;
use super::credentials::{Credential, Credentials, basic};
use super::failure::REFUSAL_BYTES_MAX;
use super::lease::{Lease, Term};
use super::redirect::{self, Freight, Journey};
use super::scope::Scope;
use super::token::{TokenAnswer, TokenRequest};
use super::{Caller, Failure, ForwardRequest, Options, Refusal, RequestBody, Upstream, authority_of};

/// How many tokens are kept.
const TOKENS_MAX: u64 = 10_000;
/// How long a token is good whose life the token service does not say (distribution's token specification).
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How long a token is believed to be good at most.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Who asks, for token services that keep a record of it.
const CLIENT_ID: &str = "schemabridge";

/// What the gateway knows of one upstream's door. Belongs to that upstream alone: the same realm behind another one
/// gives other tokens.
pub(super) struct Login {
    credentials: Credentials,
    door: RwLock<Option<Door>>,
    tokens: Cache<TokenKey, Arc<Lease<HeaderValue>>>,
}

/// What the upstream's last challenge asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Door {
    /// Nothing, so far.
    Open,
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    realm: String,
    service: Option<String>,
    scope: Scope,
    identity: [u8; 32],
}

impl Login {
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let registry = authority_of(&options.url);
        let credentials = Credentials::new(options.authentication.clone(), registry, options.credentials_timeout)?;
        let tokens = Cache::builder().max_capacity(TOKENS_MAX).time_to_idle(TOKEN_LIFE_MAX).build();
        Ok(Self { credentials, door: RwLock::new(None), tokens })
    }

    fn door(&self) -> Option<Door> {
        self.door.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The door that a 401 describes, or the one that is known where it describes none.
    fn learn(&self, headers: &HeaderMap) -> Option<Door> {
        let Some(door) = Door::of(headers) else { return self.door() };
        self.remember(door.clone());
        Some(door)
    }

    fn remember(&self, door: Door) {
        *self.door.write().unwrap_or_else(PoisonError::into_inner) = Some(door);
    }
}

impl Door {
    /// Bearer before Basic, wherever they stand.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
        let challenges: Vec<Challenge> = lines.flat_map(Challenge::parse_line).collect();
        let bearer = challenges.iter().filter(|challenge| challenge.is_bearer()).find_map(|challenge| {
            let service = challenge.parameter("service").filter(|service| !service.is_empty());
            Some(Self::Bearer { realm: challenge.parameter("realm")?.to_owned(), service: service.map(str::to_owned) })
        });
        bearer.or_else(|| challenges.iter().any(Challenge::is_basic).then_some(Self::Basic))
    }
}

impl Upstream {
    /// Sends a request of the gateway's own, as its caller or with the gateway's credentials.
    pub(super) async fn ask(&self, journey: Journey<'_>, scope: Scope) -> Result<Response<reqwest::Body>, Failure> {
        if journey.caller.is_gateway() {
            // Boxed: callers who log in themselves do not carry it about.
            Box::pin(self.ask_logged_in(journey, scope)).await
        } else {
            redirect::follow(&self.transport, journey).await
        }
    }

    async fn ask_logged_in(&self, journey: Journey<'_>, scope: Scope) -> Result<Response<reqwest::Body>, Failure> {
        let first = self.logged_in(&scope).await?;
        let answer = self.at_rest(redirect::follow(&self.transport, journey.with_caller(&first)).await?).await;
        let Some(second) = self.logged_in_again(&scope, &first, &answer).await? else {
            return self.admitted(answer);
        };
        self.admitted(redirect::follow(&self.transport, journey.with_caller(&second)).await?)
    }

    /// Sends a client's request with the gateway's credentials. A body that arrives while it is sent cannot be sent
    /// twice, so what writes learns first what the upstream wants.
    pub(super) async fn forward_logged_in(
        &self,
        mut request: ForwardRequest,
    ) -> Result<Response<reqwest::Body>, Failure> {
        request.forget_empty_stream();
        let scope = Scope::of(&request.method, &request.path, request.query.as_deref());
        let is_read_only = matches!(request.method, Method::GET | Method::HEAD);
        if !is_read_only && self.login.door().is_none() {
            self.look_at_the_door().await?;
        }
        let first = self.logged_in(&scope).await?;
        let again = request.again();
        let answer = self.at_rest(self.send_on(&first, request).await?).await;
        match (self.logged_in_again(&scope, &first, &answer).await?, again) {
            (Some(second), Some(again)) => self.admitted(self.send_on(&second, again).await?),
            _ => self.admitted(answer),
        }
    }

    /// Follows the redirect of a blob with the gateway's credentials, which go no further than the upstream's own origin.
    pub(super) async fn travel_logged_in(
        &self,
        journey: &Journey<'_>,
        scope: &Scope,
        target: Url,
    ) -> Result<Response<reqwest::Body>, Failure> {
        let first = self.logged_in(scope).await?;
        let attempt = journey.with_caller(&first);
        let answer = redirect::travel(&self.transport, &attempt, target.clone(), Freight::Blob).await?;
        let answer = self.at_rest(answer).await;
        let Some(second) = self.logged_in_again(scope, &first, &answer).await? else {
            return self.admitted(answer);
        };
        let journey = journey.with_caller(&second);
        self.admitted(redirect::travel(&self.transport, &journey, target, Freight::Blob).await?)
    }

    /// A refusal whose body was read: what is unread of it would hold up the question for a token where few may be in
    /// flight.
    async fn at_rest(&self, answer: Response<reqwest::Body>) -> Response<reqwest::Body> {
        if !matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return answer;
        }
        let (head, body) = answer.into_parts();
        let body = self.collect(self.streamed(body), REFUSAL_BYTES_MAX, "error").await.unwrap_or_default();
        Response::from_parts(head, body.into())
    }

    /// Learns from the base endpoint what the upstream wants.
    async fn look_at_the_door(&self) -> Result<(), Failure> {
        let head = self.ping(&Caller::default()).await?;
        if self.login.learn(&head.headers).is_none() && head.status == StatusCode::OK {
            self.login.remember(Door::Open);
        }
        Ok(())
    }

    /// A caller with what the upstream is known to want for this.
    async fn logged_in(&self, scope: &Scope) -> Result<Caller, Failure> {
        self.authorization(self.login.door(), scope, None).await.map(Caller::new)
    }

    /// A caller that may fare better than the one that was answered so; none if nobody would.
    async fn logged_in_again(
        &self,
        scope: &Scope,
        refused: &Caller,
        answer: &Response<reqwest::Body>,
    ) -> Result<Option<Caller>, Failure> {
        let door = match answer.status() {
            StatusCode::UNAUTHORIZED => self.login.learn(answer.headers()),
            // Amazon ECR says so that a token is over.
            StatusCode::FORBIDDEN if refused.authorization().is_some() => self.login.door(),
            _ => return Ok(None),
        };
        let next = self.authorization(door, scope, refused.authorization()).await?;
        Ok((next.as_ref() != refused.authorization()).then(|| Caller::new(next)))
    }

    /// The answer to a request with the gateway's credentials. A client must not take the upstream's challenge for the
    /// gateway's own.
    fn admitted(&self, mut answer: Response<reqwest::Body>) -> Result<Response<reqwest::Body>, Failure> {
        if answer.status() == StatusCode::UNAUTHORIZED {
            let by = format!("the registry {}", self.authority());
            return Err(self.denied(by, StatusCode::UNAUTHORIZED));
        }
        answer.headers_mut().remove(WWW_AUTHENTICATE);
        Ok(answer)
    }

    fn denied(&self, by: String, status: StatusCode) -> Failure {
        Failure::Denied { by, status, shown: self.login.credentials.words() }
    }

    /// What to send for this at such a door; another than `refused` if there is another.
    async fn authorization(
        &self,
        door: Option<Door>,
        scope: &Scope,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Failure> {
        let Some(door) = door else { return Ok(None) };
        let credentials = &self.login.credentials;
        let credential = credentials.current(&self.transport).await?;
        let shown = match (&door, &credential) {
            (Door::Open, _) => None,
            (Door::Bearer { .. }, Credential::Bearer(_)) | (Door::Basic, _) => credential.header(),
            (Door::Bearer { realm, service }, _) => {
                let token = self.token(realm, service.as_deref(), scope, &credential, refused).await;
                if !matches!(token, Err(Failure::Denied { .. })) {
                    return token.map(Some);
                }
                let another = credentials.another_than(&credential, &self.transport).await?;
                if another == credential {
                    return token.map(Some);
                }
                return self.token(realm, service.as_deref(), scope, &another, refused).await.map(Some);
            }
        };
        if shown.is_some() && shown.as_ref() == refused {
            return Ok(credentials.another_than(&credential, &self.transport).await?.header());
        }
        Ok(shown)
    }

    /// A token for this, from the token service where it is time for a new one.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &Scope,
        credential: &Credential,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Failure> {
        let (realm_url, key) = (
            self.trusted_realm(realm)?,
            TokenKey {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.clone(),
                identity: credential.identity(),
            },
        );
        let lease = self.login.tokens.get_with(key, Arc::default);
        let (mut asked, was_held) = (false, lease.is_held());
        let renewal = async {
            asked = true;
            self.new_token(&realm_url, service, scope, credential).await
        };
        let token = match refused {
            Some(refused) => lease.another_than(refused, renewal).await,
            None => lease.get(renewal).await,
        };
        self.transport.traffic.meter().looked_for_token(match (asked, was_held) {
            (true, true) => Asked::Revalidated,
            (true, false) => Asked::Miss,
            (false, true) => Asked::Hit,
            (false, false) => Asked::Coalesced,
        });
        token
    }

    async fn new_token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &Scope,
        credential: &Credential,
    ) -> Result<Term<HeaderValue>, Failure> {
        let asked = Instant::now();
        let answer = match credential {
            Credential::Identity(token) => {
                let answer = self.ask_realm(realm.clone(), by_identity(service, scope, token)).await?;
                // A token service that knows no POST.
                if matches!(answer.status.as_u16(), 400 | 401 | 404 | 405) {
                    let authorization = basic("", token);
                    self.ask_realm(realm.clone(), by_get(service, scope, authorization)).await?
                } else {
                    answer
                }
            }
            _ => self.ask_realm(realm.clone(), by_get(service, scope, credential.header())).await?,
        };
        if answer.status != StatusCode::OK {
            return Err(self.no_token(realm, &answer));
        }
        let (token, life) = token_of(&answer.body)
            .ok_or_else(|| Failure::RealmRefused { reason: "it answered 200 without a token".to_owned() })?;
        Ok(Term::lasting(token, life.saturating_sub(asked.elapsed())))
    }

    /// The token service's refusal. Its words are not passed on: they could quote what it was sent.
    fn no_token(&self, realm: &Url, answer: &TokenAnswer) -> Failure {
        let TokenAnswer { status, headers, .. } = answer;
        if *status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
            return self.denied(format!("the token service {}", realm.origin().ascii_serialization()), *status);
        }
        let retry_after = headers.get(RETRY_AFTER).map(|value| (RETRY_AFTER, value.clone()));
        let headers = retry_after.into_iter().collect();
        Failure::Refused(Box::new(Refusal { status: *status, headers, body: Bytes::new() }))
    }
}

impl ForwardRequest {
    /// A body without bytes, as that of a POST that begins an upload, can be sent twice.
    fn forget_empty_stream(&mut self) {
        let is_empty = self.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        if is_empty && matches!(self.body, Some(RequestBody::Streamed(_))) {
            self.body = Some(RequestBody::Whole(Bytes::new()));
        }
    }

    /// The same once more, where its body can be sent twice.
    fn again(&self) -> Option<Self> {
        let body = match &self.body {
            None => None,
            Some(RequestBody::Whole(bytes)) => Some(RequestBody::Whole(bytes.clone())),
            Some(RequestBody::Streamed(_)) => return None,
        };
        let (method, path, query) = (self.method.clone(), self.path.clone(), self.query.clone());
        Some(Self { method, path, query, headers: self.headers.clone(), body })
    }
}

fn by_get(service: Option<&str>, scope: &Scope, authorization: Option<HeaderValue>) -> TokenRequest {
    let service = service.map(|service| ("service", service));
    let scopes = scope.iter().map(|scope| ("scope", scope));
    TokenRequest {
        method: Method::GET,
        parameters: owned(service.into_iter().chain(scopes)),
        caller: Caller::new(authorization),
    }
}

/// As `OAuth2` asks for an access token with a refresh token.
fn by_identity(service: Option<&str>, scope: &Scope, token: &str) -> TokenRequest {
    let scopes = scope.iter().collect::<Vec<_>>().join(" ");
    let fixed = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", CLIENT_ID)];
    let service = service.map(|service| ("service", service));
    let scopes = (!scopes.is_empty()).then_some(("scope", scopes.as_str()));
    TokenRequest {
        method: Method::POST,
        parameters: owned(fixed.into_iter().chain(service).chain(scopes)),
        caller: Caller::default(),
    }
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The token of an answer, and how long it is good. One that is said to be over already is good for the request that
/// it was asked for.
fn token_of(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    let fields: serde_json::Map<String, Value> = serde_json::from_slice(body).ok()?;
    let named = |name: &str| fields.get(name)?.as_str().filter(|token| !token.is_empty());
    let token = named("token").or_else(|| named("access_token"))?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    let seconds = match fields.get("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let life = seconds.map_or(TOKEN_LIFE, |seconds| {
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(TOKEN_LIFE_MAX).min(TOKEN_LIFE_MAX)
    });
    Some((header, life))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_goes_before_basic() {
        let door = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
            }
            Door::of(&headers)
        };
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Door::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        assert_eq!(door(&["Basic realm=\"x\"", "Bearer realm=\"/t\",service=\"s\""]), bearer("/t", Some("s")));
        assert_eq!(door(&["Basic realm=\"a, b\", bearer Realm=/t"]), bearer("/t", None));
        assert_eq!(door(&["Negotiate, basic realm=\"x\""]), Some(Door::Basic));
        assert_eq!(door(&["Bearer service=\"no realm\", Basic realm=\"x\""]), Some(Door::Basic));
        assert_eq!(door(&["Negotiate"]), None);
        assert_eq!(door(&[]), None);
    }

    #[test]
    fn the_life_of_a_token_is_what_is_said_within_reason() {
        let life = |expires_in: &str| {
            let (header, life) = token_of(format!(r#"{{"token":"t"{expires_in}}}"#).as_bytes()).unwrap();
            assert_eq!(header.as_bytes(), b"Bearer t");
            life.as_secs()
        };
        let day = TOKEN_LIFE_MAX.as_secs();
        let cases = [
            ("", 60),
            (r#","expires_in":300"#, 300),
            (r#","expires_in":"300""#, 300),
            (r#","expires_in":1"#, 1),
            (r#","expires_in":0"#, 0),
            (r#","expires_in":-5"#, 0),
            (r#","expires_in":1000000000000"#, day),
            (r#","expires_in":1e300"#, day),
            (r#","expires_in":null"#, 60),
            (r#","expires_in":{}"#, 60),
        ];
        for (expires_in, seconds) in cases {
            assert_eq!(life(expires_in), seconds, "{expires_in}");
        }
    }

    #[test]
    fn either_name_of_a_token_is_read() {
        let token = |body: &str| token_of(body.as_bytes()).map(|(header, _)| header.to_str().unwrap().to_owned());
        assert_eq!(token(r#"{"token":"a","access_token":"b"}"#).as_deref(), Some("Bearer a"));
        assert_eq!(token(r#"{"token":"","access_token":"b"}"#).as_deref(), Some("Bearer b"));
        for junk in ["", "[]", "{}", r#"{"token":7}"#, r#"{"token":"a\nb"}"#] {
            assert_eq!(token(junk), None, "{junk}");
        }
    }
}
