//! A set of formats.

use std::fmt;

use crate::image::media_type::Format;

/// A set of [`Format`]s: what a client reads, or what its `Accept` lines cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Formats(u8);

impl Formats {
    /// No format.
    pub const NONE: Self = Self(0);
    /// Every format.
    pub const ALL: Self = Self::of(&Format::ALL);

    /// The set of `formats`.
    pub const fn of(formats: &[Format]) -> Self {
        let mut bits = 0;
        let mut rest = formats;
        while let [first, others @ ..] = rest {
            bits |= bit(*first);
            rest = others;
        }
        Self(bits)
    }

    /// This set and `format`.
    #[must_use]
    pub const fn with(self, format: Format) -> Self {
        Self(self.0 | bit(format))
    }

    /// This set but not `format`.
    #[must_use]
    pub const fn without(self, format: Format) -> Self {
        Self(self.0 & !bit(format))
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `format` is in the set.
    pub const fn contains(self, format: Format) -> bool {
        self.0 & bit(format) != 0
    }

    /// Whether all of this set is in `other`.
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The formats of the set in the order of [`Format::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(move |format| self.contains(*format))
    }
}

const fn bit(format: Format) -> u8 {
    1 << format as u8
}

impl FromIterator<Format> for Formats {
    fn from_iter<I: IntoIterator<Item = Format>>(formats: I) -> Self {
        formats.into_iter().fold(Self::NONE, Self::with)
    }
}

/// The names as a part of a sentence: `Docker schema 1, Docker schema 2 and a Docker manifest list`.
impl fmt::Display for Formats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Format::name).collect();
        match names.split_last() {
            None => formatter.write_str("no format known here"),
            Some((last, [])) => formatter.write_str(last),
            Some((last, others)) => write!(formatter, "{} and {last}", others.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_as_a_sentence() {
        assert_eq!(Formats::of(&[Format::Schema1]).to_string(), "Docker schema 1");
        assert_eq!(
            Formats::of(&[Format::List, Format::Schema1, Format::Schema2]).to_string(),
            "Docker schema 1, Docker schema 2 and a Docker manifest list"
        );
        assert_eq!(Formats::NONE.to_string(), "no format known here");
    }

    #[test]
    fn what_was_put_in_is_in_and_nothing_else() {
        for format in Format::ALL {
            let only = Formats::NONE.with(format);
            assert_eq!(only.iter().collect::<Vec<_>>(), [format]);
            assert!(!Formats::ALL.without(format).contains(format));
            assert!(only.is_subset(Formats::ALL) && !Formats::ALL.is_subset(only));
        }
        assert!(Formats::NONE.is_empty() && !Formats::ALL.is_empty());
    }
}
