//! What an upstream says of how often it may be asked: `RateLimit-*` and `Retry-After`.

use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::Refusal;

/// For how long a 429 is believed at most: whoever says a day may mean one bad minute.
const COOL_DOWN_MAX: Duration = Duration::from_secs(300);
/// For how long a 429 is believed that does not say.
const COOL_DOWN_WITHOUT_WORD: Duration = Duration::from_secs(10);
/// For how long a count of remaining requests is believed: then one question finds out how many there are by now.
const READING_LIFE_MAX: Duration = Duration::from_secs(60);

/// How many requests an upstream said that it lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) limit: Option<u64>,
    pub(super) remaining: Option<u64>,
    window: Option<Duration>,
}

impl Reading {
    /// Reads `ratelimit-limit` and `ratelimit-remaining`, as a number or in Docker Hub's form, `100;w=21600`.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let limit = quota(headers.get("ratelimit-limit"));
        let remaining = quota(headers.get("ratelimit-remaining"));
        let window = remaining.or(limit)?.1;
        Some(Self { limit: limit.map(|(limit, _)| limit), remaining: remaining.map(|(left, _)| left), window })
    }

    /// Fewer than `floor` requests remain, as far as that is still known so long after the reading.
    pub(super) fn is_below(&self, floor: u64, age: Duration) -> bool {
        let life = self.window.map_or(READING_LIFE_MAX, |window| window.min(READING_LIFE_MAX));
        age < life && self.remaining.is_some_and(|remaining| remaining < floor)
    }
}

fn quota(value: Option<&HeaderValue>) -> Option<(u64, Option<Duration>)> {
    let text = value?.to_str().ok()?.split(',').next()?;
    let mut parts = text.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok()).map(Duration::from_secs);
    Some((number, window))
}

/// A 429, and how long nothing is asked for its sake.
#[derive(Debug)]
pub(super) struct CoolDown {
    since: Instant,
    length: Duration,
    refusal: Refusal,
}

impl CoolDown {
    pub(super) fn new(refusal: &HeaderMap, now: Instant, clock: SystemTime) -> Self {
        let length = retry_after(refusal, clock).unwrap_or(COOL_DOWN_WITHOUT_WORD).min(COOL_DOWN_MAX);
        let (status, headers) = (http::StatusCode::TOO_MANY_REQUESTS, refusal.clone());
        Self { since: now, length, refusal: Refusal { status, headers, body: bytes::Bytes::new() } }
    }

    /// The refusal again, with the time that is left, if any is.
    pub(super) fn refusal(&self, now: Instant) -> Option<Refusal> {
        let left = self.length.saturating_sub(now.saturating_duration_since(self.since));
        if left.is_zero() {
            return None;
        }
        let mut refusal = self.refusal.clone();
        refusal.headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(left)));
        Some(refusal)
    }
}

/// Rounded up: a client that comes back a moment too early is refused again.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// `Retry-After` in both of its forms.
fn retry_after(headers: &HeaderMap, clock: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = SystemTime::from(chrono::DateTime::parse_from_rfc2822(text).ok()?);
    Some(date.duration_since(clock).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn both_forms_of_a_limit_are_read() {
        let cases = [
            ("100;w=21600", Some((100, Some(21600)))),
            ("100", Some((100, None))),
            ("100, 100;w=60", Some((100, None))),
            (" 7 ; w=60 ; burst=3", Some((7, Some(60)))),
            ("-1", None),
            ("many", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let value = text.parse().unwrap();
            let found = quota(Some(&value)).map(|(number, window)| (number, window.map(|window| window.as_secs())));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(Reading::of(&headers(&[("docker-ratelimit-source", "10.0.0.1")])), None);
    }

    #[test]
    fn a_reading_holds_for_a_minute_or_its_window() {
        let reading = |text| Reading::of(&headers(&[("ratelimit-remaining", text)])).unwrap();
        let age = Duration::from_secs;
        assert!(reading("9;w=21600").is_below(10, age(59)));
        assert!(!reading("9;w=21600").is_below(10, age(60)));
        assert!(!reading("9;w=30").is_below(10, age(30)));
        assert!(!reading("10;w=21600").is_below(10, age(0)));
        assert!(!Reading::of(&headers(&[("ratelimit-limit", "1")])).unwrap().is_below(10, age(0)));
    }

    #[test]
    fn a_cool_down_lasts_as_long_as_it_says_within_reason() {
        let clock = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            (Some("7"), 7),
            (Some("0"), 0),
            (Some("86400"), 300),
            (Some("99999999999999999999"), 10),
            (Some("-5"), 10),
            (Some("soon"), 10),
            // RFC 9110, section 5.6.7: the example date is 784111777 s after 1970.
            (Some("Sun, 06 Nov 1994 08:49:57 GMT"), 20),
            (Some("Sun, 06 Nov 1994 08:49:17 GMT"), 0),
            (None, 10),
        ];
        let now = Instant::now();
        for (value, seconds) in cases {
            let lines: Vec<_> = value.into_iter().map(|value| ("retry-after", value)).collect();
            let cool_down = CoolDown::new(&headers(&lines), now, clock);
            let left = |after| cool_down.refusal(now + after).map(|refusal| refusal.headers[RETRY_AFTER].clone());
            assert_eq!(left(Duration::ZERO), (seconds > 0).then(|| HeaderValue::from(seconds)), "{value:?}");
            assert_eq!(left(Duration::from_secs(seconds)), None, "{value:?}");
        }
    }
}
