//! From when to when a certificate is valid (RFC 5280, 4.1.2.5), which the library checks only for certificates of others.

use std::time::Duration;

use chrono::NaiveDateTime;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// From when to when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Validity {
    /// What a certificate in DER says; nothing where it is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
        let (SEQUENCE, mut fields, _) = element(certificate)? else { return None };
        if let (VERSION, _, rest) = element(fields)? {
            fields = rest;
        }
        // The serial number, the algorithm and the issuer come before.
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (SEQUENCE, times, _) = element(fields)? else { return None };
        let (kind, not_before, times) = element(times)?;
        let not_before = seconds(kind, not_before)?;
        let (kind, not_after, _) = element(times)?;
        Some(Self { not_before, not_after: seconds(kind, not_after)? })
    }

    /// What is wrong with it now, or will be so soon.
    pub(super) fn words(self, now: Duration, soon: Duration) -> Option<String> {
        let [now, soon] = [now, now.saturating_add(soon)].map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        let date = |seconds| chrono::DateTime::from_timestamp(seconds, 0).map_or_else(String::new, |at| at.to_string());
        match self {
            Self { not_after, .. } if not_after < now => Some(format!("has expired at {}", date(not_after))),
            Self { not_before, .. } if not_before > now => Some(format!("is not valid before {}", date(not_before))),
            Self { not_after, .. } if not_after < soon => Some(format!("expires at {}", date(not_after))),
            _ => None,
        }
    }
}

/// The tag and the content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if short <= 0x7f {
        (usize::from(short), rest)
    } else {
        let (digits, rest) =
            rest.split_at_checked(usize::from(short & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn seconds(kind: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match kind {
        // Two digits of the year: from 1950 to 2049.
        UTC_TIME if text.starts_with(|digit| digit >= '5') => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok().map(|time| time.and_utc().timestamp())
}
