//! Points in time as documents write them: RFC 3339, kept in the offset in which they were written.

use std::fmt;

use chrono::{NaiveDate, NaiveDateTime, TimeDelta};

/// A point in time that Go's `time.Time` reads from JSON. Displays as Go writes it (`time.RFC3339Nano`): the fraction
/// without trailing zeros and cut after nine digits, an offset of nothing as `Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    local: NaiveDateTime,
    offset_minutes: i32,
    text: Box<str>,
}

impl Timestamp {
    /// Go's zero time, which stands where a document gives none.
    pub const ZERO: &'static str = "0001-01-01T00:00:00Z";
    const EPOCH: &'static str = "1970-01-01T00:00:00Z";

    /// The time that this text names, if it is RFC 3339 as Go is strict about it: upper-case letters, a point before
    /// the fraction, a day that exists, no leap second.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, rest) = text.split_at_checked("0000-00-00T00:00:00".len())?;
        let local = parse_local(whole)?;
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(after) => {
                let (fraction, zone) = after.split_at(after.find(|c: char| !c.is_ascii_digit())?);
                (Some(fraction).filter(|digits| !digits.is_empty())?, zone)
            }
            None => ("", rest),
        };
        let offset_minutes = parse_zone(zone)?;
        Some(Self { local, offset_minutes, text: go_text(whole, fraction, zone, offset_minutes) })
    }

    /// In UTC, without the fraction: what stands in a schema 1 signature. A time before 1970 is the beginning of 1970.
    pub fn utc_seconds(&self) -> String {
        let utc = self.local.checked_sub_signed(TimeDelta::minutes(self.offset_minutes.into()));
        match utc.filter(|time| time.and_utc().timestamp() >= 0) {
            Some(time) => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            None => Self::EPOCH.to_owned(),
        }
    }

    /// [`Timestamp::utc_seconds`] of a time that may not be known; the beginning of 1970 if it is not.
    pub fn utc_seconds_or_epoch(time: Option<&Self>) -> String {
        time.map_or_else(|| Self::EPOCH.to_owned(), Self::utc_seconds)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// `YYYY-MM-DDTHH:MM:SS`.
fn parse_local(text: &str) -> Option<NaiveDateTime> {
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let bytes = text.as_bytes();
    if !separators.iter().all(|(at, byte)| bytes.get(*at) == Some(byte)) {
        return None;
    }
    let year = number(text.get(0..4)?)?;
    let date = NaiveDate::from_ymd_opt(year.try_into().ok()?, number(text.get(5..7)?)?, number(text.get(8..10)?)?)?;
    date.and_hms_opt(number(text.get(11..13)?)?, number(text.get(14..16)?)?, number(text.get(17..19)?)?)
}

/// `Z` or `±HH:MM`, in minutes east of UTC.
fn parse_zone(zone: &str) -> Option<i32> {
    if zone == "Z" {
        return Some(0);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two_digits = hours.len() == 2 && minutes.len() == 2;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = i32::try_from(hours * 60 + minutes).ok().filter(|_| two_digits && hours < 24 && minutes < 60)?;
    match zone.as_bytes().first() {
        Some(b'+') => Some(total),
        Some(b'-') => Some(-total),
        _ => None,
    }
}

fn number(digits: &str) -> Option<u32> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn go_text(whole: &str, fraction: &str, zone: &str, offset_minutes: i32) -> Box<str> {
    const NANOSECOND_DIGITS: usize = 9;
    let fraction = fraction.get(..NANOSECOND_DIGITS).unwrap_or(fraction).trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let zone = if offset_minutes == 0 { "Z" } else { zone };
    format!("{whole}{point}{fraction}{zone}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts from distribution 2.8 (Go 1.19), and `date -u` for the seconds.
    #[test]
    fn prints_as_go_prints() {
        for (text, printed, seconds) in [
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
            ("2021-05-05T05:05:05.120000000Z", "2021-05-05T05:05:05.12Z", "2021-05-05T05:05:05Z"),
            ("2021-05-05T05:05:05.000Z", "2021-05-05T05:05:05Z", "2021-05-05T05:05:05Z"),
            ("2021-05-05T05:05:05.1234567899Z", "2021-05-05T05:05:05.123456789Z", "2021-05-05T05:05:05Z"),
            ("2021-01-01T01:05:05.5+02:30", "2021-01-01T01:05:05.5+02:30", "2020-12-31T22:35:05Z"),
            ("2021-01-01T01:05:05-00:00", "2021-01-01T01:05:05Z", "2021-01-01T01:05:05Z"),
            ("2021-01-01T01:05:05+00:00", "2021-01-01T01:05:05Z", "2021-01-01T01:05:05Z"),
            ("1969-12-31T23:59:59-01:00", "1969-12-31T23:59:59-01:00", "1970-01-01T00:59:59Z"),
            ("1970-01-01T00:30:00+01:00", "1970-01-01T00:30:00+01:00", "1970-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00+23:59", "0000-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
        ] {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!((time.to_string().as_str(), time.utc_seconds().as_str()), (printed, seconds), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_no_time() {
        for text in [
            "",
            "now",
            "2020-01-02",
            "2020-01-02T03:04:05",
            "2020-01-02t03:04:05Z",
            "2020-01-02T03:04:05z",
            "2020-01-02T03:04:05.Z",
            "2020-01-02T03:04:05,1Z",
            "2020-02-30T03:04:05Z",
            "2020-01-02T24:04:05Z",
            "2020-01-02T03:04:60Z",
            "2020-01-02 03:04:05Z",
            "2020-01-02T03:04:05+1:00",
            "2020-01-02T03:04:05+24:00",
            "2020-01-02T03:04:05+00:60",
            "2020-01-02T03:04:05Zx",
            "+020-01-02T03:04:05Z",
            "2020-01-02T03:04:05.1",
            "2020-13-02T03:04:05Z",
            "2020-01-02T03:04:05é",
            "２020-01-02T03:04:05Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
