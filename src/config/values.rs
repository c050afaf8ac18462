//! How the values of flags are written. Each error says what would be accepted; clap puts the flag and the value before.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::image::platform::{InvalidPlatform, Platform};
use crate::negotiate::glob::InvalidGlob;
use crate::negotiate::{Glob, PlatformRule};

use super::Variant;
use super::tables::UpstreamTable;

/// The URL of a registry. Never repeats the value: it may hold a password.
pub(super) fn registry_url(text: &str) -> Result<Url, String> {
    let url = plain_url(text)?;
    if url.path().trim_end_matches('/').ends_with("/v2") {
        return Err("expected the URL of the registry without `/v2`".to_owned());
    }
    Ok(url)
}

/// What `--upstream` says: a URL, or `NAME=URL`.
pub(super) fn upstream(text: &str) -> Result<UpstreamTable, String> {
    match text.split_once('=').filter(|(name, _)| !name.contains(['/', ':', '?'])) {
        Some((name, url)) => Ok(UpstreamTable::named(name.parse()?, registry_url(url)?)),
        None => Ok(UpstreamTable::of(DEFAULT_NAME.parse()?, registry_url(text)?)),
    }
}

/// What the only upstream is called where it has no name.
const DEFAULT_NAME: &str = "default";

/// A value that the file writes as a flag does.
pub(super) trait Written: Sized {
    /// The value, or what would be accepted.
    fn read(text: &str) -> Result<Self, String>;
}

impl Written for Glob {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: InvalidGlob| error.to_string())
    }
}

impl Written for PlatformRule {
    fn read(text: &str) -> Result<Self, String> {
        platform_rule(text)
    }
}

impl Written for Url {
    fn read(text: &str) -> Result<Self, String> {
        plain_url(text)
    }
}

impl Written for Variant {
    fn read(text: &str) -> Result<Self, String> {
        variant(text)
    }
}

pub(crate) fn plain_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or("expected an http or https URL, such as `https://registry.example`")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("expected a URL without user and password: they come from the clients".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected a URL without query and fragment".to_owned());
    }
    Ok(url)
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single).ok_or("expected a network, such as `10.0.0.0/8` or `127.0.0.1`".to_owned())
}

/// The mode of a file, in octal digits.
pub(super) fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.ok_or("expected the mode of a file in octal digits, such as `0660`".to_owned())
}

pub(super) fn platform_rule(text: &str) -> Result<PlatformRule, String> {
    let (pattern, platform) = text.split_once('=').unwrap_or(("**", text));
    let repositories: Glob = pattern.parse().map_err(|error: InvalidGlob| error.to_string())?;
    let platform: Platform = platform.parse().map_err(|error: InvalidPlatform| error.to_string())?;
    Ok(PlatformRule { repositories, platform })
}

pub(super) fn variant(text: &str) -> Result<Variant, String> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match text {
        "none" => Ok(Variant(None)),
        text if is_word => Ok(Variant(Some(text.to_owned()))),
        _ => Err("expected variants joined by commas, such as `v6,v5,none,v7`".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<tracing::Level, String> {
    text.parse().map_err(|_| "expected error, warn, info, debug or trace".to_owned())
}

/// A whole number with a unit of bytes.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
        ("", 1),
    ];
    let (number, unit) = split_unit(text);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes = number.and_then(|number| number.checked_mul(factor?));
    bytes.ok_or("expected a number of bytes with a unit, such as `256MiB` or `1GB`".to_owned())
}

/// A whole number with a unit of time.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let duration = number.and_then(|number| match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(24 * 3600).map(Duration::from_secs),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    });
    // Beyond some centuries the clock's own arithmetic could end.
    let duration = duration.filter(|duration| *duration <= Duration::from_secs(36_600 * 24 * 3600));
    duration.ok_or(
        "expected a duration of at most a century with a unit, such as `500ms`, `60s`, `5m`, `1h` or `400d`".to_owned(),
    )
}

/// A duration as it would be written, in the largest unit that says it whole.
pub(super) fn in_words(duration: Duration) -> String {
    const UNITS: [(u128, &str); 5] = [(24 * 3_600_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let milliseconds = duration.as_millis();
    let whole = UNITS.iter().find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| "0s".to_owned(), |(unit, word)| format!("{}{word}", milliseconds / unit))
}

fn split_unit(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(byte_size("256MiB"), Ok(256 << 20));
        assert_eq!(byte_size("10 kB"), Ok(10_000));
        assert_eq!(byte_size("7"), Ok(7));
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("400d"), Ok(Duration::from_secs(34_560_000)));
        for bad in ["", "x", "-1s", "1w", "60", "99999999999999999999s", "18446744073709551615s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "1XB", "99999999999999999999", "99999999999GiB"] {
            assert!(byte_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_and_addresses() {
        for good in ["http://127.0.0.1:5000", "https://registry.example/prefix"] {
            assert!(registry_url(good).is_ok(), "{good}");
        }
        for bad in [
            "registry.example",
            "ftp://x",
            "https://",
            "https://x/v2/",
            "https://x?y=z",
            "http://x#y",
            "http://u:p@x",
            "http://u@x",
        ] {
            assert!(registry_url(bad).is_err(), "{bad}");
        }
        assert_eq!((file_mode("0660"), file_mode("660"), file_mode("0")), (Ok(0o660), Ok(0o660), Ok(0)));
        assert_eq!(network("127.0.0.1").unwrap().to_string(), "127.0.0.1/32");
        for bad in ["", "0o660", "0680", "1777", "-1", "+660", "rw-rw----"] {
            assert!(file_mode(bad).is_err(), "{bad}");
        }
    }
}
