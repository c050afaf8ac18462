//! On whose behalf a request goes upstream.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use sha2::{Digest as _, Sha256};

/// `Basic` with an empty user and an empty password: what Docker 1.6 and 1.7 send when nobody is logged in. It counts
/// as no credentials, because registries answer it with 401 where they would serve an anonymous caller.
const EMPTY_BASIC: &str = "Og==";

/// A token that says that there is nobody: for clients that show one to whoever challenged them, be it for nothing.
pub const NOBODYS_TOKEN: &str = "nobody";

/// A caller of the upstream: a client with the credentials that it sent, or none; or the gateway itself.
#[derive(Clone)]
pub struct Caller(Kind);

#[derive(Clone)]
enum Kind {
    Client(Option<HeaderValue>),
    Gateway,
}

/// Nobody in particular.
impl Default for Caller {
    fn default() -> Self {
        Self(Kind::Client(None))
    }
}

impl Caller {
    /// The caller that these request headers speak for.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let authorization = headers.get(AUTHORIZATION).filter(|value| !is_nobody(value)).cloned();
        Self::new(authorization)
    }

    /// A caller with this Authorization header.
    pub fn new(authorization: Option<HeaderValue>) -> Self {
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self(Kind::Client(authorization))
    }

    /// The gateway itself, with the credentials that it holds for whichever upstream it asks.
    pub const fn gateway() -> Self {
        Self(Kind::Gateway)
    }

    /// Whether this is the gateway itself.
    pub const fn is_gateway(&self) -> bool {
        matches!(self.0, Kind::Gateway)
    }

    /// The header that a client sent, if any. It is marked sensitive and does not print.
    pub const fn authorization(&self) -> Option<&HeaderValue> {
        match &self.0 {
            Kind::Client(authorization) => authorization.as_ref(),
            Kind::Gateway => None,
        }
    }

    /// A key that tells callers apart without holding their credentials: a hash of them under a key of this process.
    /// Callers without credentials share one, and the gateway has one.
    pub fn fingerprint(&self, process_key: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(process_key);
        match &self.0 {
            Kind::Client(None) => {}
            Kind::Client(Some(value)) => {
                hash.update(b"\x01");
                hash.update(value.as_bytes());
            }
            Kind::Gateway => hash.update(b"\x02"),
        }
        hash.finalize().into()
    }

    /// How long the credentials stay good after `now`, where they are a JSON web token that says so.
    pub fn remaining_life(&self, now: SystemTime) -> Option<Duration> {
        let text = self.authorization()?.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let claims = token.split('.').nth(1)?;
        let claims = data_encoding::BASE64URL_NOPAD.decode(claims.trim_end_matches('=').as_bytes()).ok()?;
        let Claims { exp } = serde_json::from_slice(&claims).ok()?;
        if exp <= 0.0 {
            return Some(Duration::ZERO);
        }
        let expiry = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(exp).ok()?)?;
        Some(expiry.duration_since(now).unwrap_or_default())
    }
}

#[derive(serde::Deserialize)]
struct Claims {
    /// Seconds after 1970; RFC 7519 lets them be any number, and tokens hold some that make no sense.
    exp: f64,
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match &self.0 {
            Kind::Client(Some(_)) => "Caller([redacted])",
            Kind::Client(None) => "Caller(anonymous)",
            Kind::Gateway => "Caller(gateway)",
        })
    }
}

fn is_nobody(value: &HeaderValue) -> bool {
    let Some((scheme, credentials)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let is = |name, nobodys| scheme.eq_ignore_ascii_case(name) && credentials.trim() == nobodys;
    is("basic", EMPTY_BASIC) || is("bearer", NOBODYS_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(authorization: &str) -> Caller {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        Caller::from_headers(&headers)
    }

    #[test]
    fn what_names_nobody_is_nobody() {
        assert!(caller("Basic Og==").authorization().is_none());
        assert!(caller("basic  Og==").authorization().is_none());
        assert!(caller("Bearer nobody").authorization().is_none());
        assert!(caller("Basic dTpw").authorization().is_some());
        assert!(caller("Bearer nobodys").authorization().is_some());
    }

    #[test]
    fn credentials_do_not_print() {
        let text = format!("{:?}", caller("Basic dTpw"));
        assert!(!text.contains("dTpw"), "{text}");
        assert!(!format!("{:?}", caller("Basic dTpw").authorization()).contains("dTpw"));
    }

    #[test]
    fn a_token_says_how_long_it_lives() {
        let claims = data_encoding::BASE64URL_NOPAD.encode(br#"{"exp":1000,"aud":"x"}"#);
        let caller = caller(&format!("Bearer h.{claims}.s"));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(caller.remaining_life(at(990)), Some(Duration::from_secs(10)));
        assert_eq!(caller.remaining_life(at(2000)), Some(Duration::ZERO));
        assert_eq!(self::caller("Bearer opaque").remaining_life(at(0)), None);
    }

    #[test]
    fn an_expiry_that_makes_no_sense_prolongs_nothing_and_breaks_nothing() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let life = |exp: &str| {
            let claims = data_encoding::BASE64URL_NOPAD.encode(format!("{{\"exp\":{exp}}}").as_bytes());
            caller(&format!("Bearer h.{claims}.s")).remaining_life(now)
        };
        for ended in ["0", "-1", "-1e300", "999.5", "1000", "-0.0"] {
            assert_eq!(life(ended), Some(Duration::ZERO), "{ended}");
        }
        assert_eq!(life("1000.5"), Some(Duration::from_millis(500)));
        assert_eq!(life("1e12"), Some(Duration::from_secs(1_000_000_000_000 - 1000)));
        for no_time in ["1e300", "1e999", "\"soon\"", "null", "[]"] {
            assert_eq!(life(no_time), None, "{no_time}");
        }
    }

    #[test]
    fn fingerprints_tell_callers_apart() {
        let key = [7; 32];
        assert_eq!(caller("Basic dTpw").fingerprint(&key), caller("Basic dTpw").fingerprint(&key));
        assert_ne!(caller("Basic dTpw").fingerprint(&key), Caller::default().fingerprint(&key));
        assert_ne!(caller("Basic dTpw").fingerprint(&key), caller("Basic dTpw").fingerprint(&[8; 32]));
        assert_eq!(Caller::gateway().fingerprint(&key), Caller::gateway().fingerprint(&key));
        assert_ne!(Caller::gateway().fingerprint(&key), Caller::default().fingerprint(&key));
    }
}
