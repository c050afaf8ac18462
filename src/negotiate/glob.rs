//! Patterns of repository names and of tags: globs, not regular expressions.

use std::fmt;
use std::str::FromStr;

/// A pattern in which `*` stands for any characters but `/`, and `**` for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

/// Why a text is not a [`Glob`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern: expected at most 255 characters of a repository name, `*` and `**`, such as `team/**`")]
pub struct InvalidGlob;

/// Why a text is not a pattern of tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern of tags: expected at most 255 characters of a tag and `*`, such as `*-rc*`")]
pub struct InvalidTagGlob;

/// The longest pattern, in bytes: that of the longest repository name.
const GLOB_BYTES_MAX: usize = 255;

impl Glob {
    /// Matches whatever has no `/`.
    pub fn anything() -> Self {
        Self("*".into())
    }

    /// A pattern of tags, which may hold capitals and no `/`.
    pub fn of_tags(text: &str) -> Result<Self, InvalidTagGlob> {
        let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*');
        let fits = !text.is_empty() && text.len() <= GLOB_BYTES_MAX && text.bytes().all(is_ours);
        if fits { Ok(Self(text.into())) } else { Err(InvalidTagGlob) }
    }

    /// The whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        matches_apart(self.0.as_bytes(), text.as_bytes(), b'/')
    }
}

impl FromStr for Glob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_ours = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b'*')
        };
        let fits = !text.is_empty() && text.len() <= GLOB_BYTES_MAX && text.bytes().all(is_ours);
        if fits { Ok(Self(text.into())) } else { Err(InvalidGlob) }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// All of `text` matches, where `*` stands for any bytes but `separator` and `**` for any bytes. Row by row over the
/// pattern, so the cost is the product of the lengths whatever the pattern is.
pub fn matches_apart(pattern: &[u8], text: &[u8], separator: u8) -> bool {
    // reached[n]: the pattern so far matches the first n bytes.
    let mut reached = vec![false; text.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        let (crosses, after) = match after.split_first() {
            Some((b'*', beyond)) if byte == b'*' => (true, beyond),
            _ => (false, after),
        };
        rest = after;
        let mut next = vec![false; text.len() + 1];
        if byte == b'*' {
            let mut open = false;
            for (position, slot) in next.iter_mut().enumerate() {
                let passes = position > 0 && (crosses || text.get(position - 1) != Some(&separator));
                open = reached.get(position) == Some(&true) || (open && passes);
                *slot = open;
            }
        } else {
            for (position, matched) in text.iter().enumerate() {
                if *matched == byte
                    && reached.get(position) == Some(&true)
                    && let Some(slot) = next.get_mut(position + 1)
                {
                    *slot = true;
                }
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stop_at_slashes_and_double_stars_do_not() {
        let cases = [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "library", true),
            ("*", "library/busybox", false),
            ("**", "library/busybox", true),
            ("team/*", "team/app", true),
            ("team/*", "team/app/x", false),
            ("team/**", "team/app/x", true),
            ("team/**", "team", false),
            ("*/app", "team/app", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a**c", "a/b/c", true),
            ("***", "a/b", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(pattern.parse::<Glob>().unwrap().matches(text), expected, "{pattern} {text}");
        }
        assert!(Glob::of_tags("v1.*-RC_*").unwrap().matches("v1.2-RC_3"));
        for bad in ["", "a/b", "a?b", "[0-9]", &"a".repeat(256)] {
            assert!(Glob::of_tags(bad).is_err(), "{bad}");
        }
        for bad in ["", "A", "a?b", "a b", &"a".repeat(256)] {
            assert!(bad.parse::<Glob>().is_err(), "{bad}");
        }
    }
}
