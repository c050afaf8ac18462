//! What the `Accept` lines of a manifest request cover (RFC 9110, section 12.5.1, read as real clients write it).
//!
//! All lines count and their order does not: Docker from 1.10 sends one line per type in a random order, containerd one
//! joined line whose order is historical. A quality of 0 excludes; any other ranks only what is derived.

use crate::image::media_type::{
    Format, MANIFEST_LIST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA1_SIGNED, SCHEMA2,
};

use super::formats::Formats;

/// The most bytes of `Accept` that are looked at, in all lines together. The longest that a real client sends is under
/// 500. A longer one counts as naming nothing that is known here: cutting it would make the order of its lines matter.
pub const ACCEPT_BYTES_MAX: usize = 32 * 1024;

/// A quality in thousandths: what has no `q` has the highest.
const QUALITY_MAX: u16 = 1000;
/// The lowest quality that does not exclude.
const QUALITY_MIN: u16 = 1;

/// What the `Accept` lines of one request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    presence: Presence,
    qualities: [Option<u16>; Format::ALL.len()],
    names_only_oci: bool,
}

/// How much of an `Accept` there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No line, or only empty ones.
    Absent,
    /// Types are listed and none is known here (`application/octet-stream`): all is covered but what is excluded.
    Unknown,
    /// Nothing is named that is known here but a wildcard: `*/*`, `application/*`, a bare `*`, `application/json` alone.
    Wildcard,
    /// At least one manifest type is named.
    Named,
}

impl Accept {
    /// Reads all `Accept` lines of a request, as raw header bytes. Never fails: what cannot be read is ignored.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut ranges = Ranges::default();
        let mut looked_at = 0_usize;
        for line in lines {
            looked_at = looked_at.saturating_add(line.len());
            if looked_at > ACCEPT_BYTES_MAX {
                return Ranges { listed: true, ..Ranges::default() }.accept();
            }
            ranges.read(line);
        }
        ranges.accept()
    }

    /// How much of an `Accept` there is.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// The formats that may be answered, as far as `Accept` goes.
    pub fn covered(&self) -> Formats {
        Format::ALL.into_iter().filter(|format| self.quality(*format).is_some()).collect()
    }

    /// The quality of a covered format in thousandths, from 1 to 1000; `None` for one that is not covered.
    pub fn quality(&self, format: Format) -> Option<u16> {
        self.qualities.get(format as usize).copied().flatten()
    }

    /// Whether manifest types are named, all of them OCI's, and nothing wider: such a client has no use for Docker's.
    pub fn names_only_oci(&self) -> bool {
        self.names_only_oci
    }
}

/// What was said about one media type or wildcard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mention {
    #[default]
    Silent,
    Wanted(u16),
    Excluded,
}

impl Mention {
    /// Adds one more element for the same type: an exclusion stays, else the highest quality does.
    fn add(&mut self, quality: Option<u16>) {
        *self = match (*self, quality) {
            (Self::Excluded, _) | (_, None) => Self::Excluded,
            (Self::Wanted(before), Some(quality)) => Self::Wanted(before.max(quality)),
            (Self::Silent, Some(quality)) => Self::Wanted(quality),
        };
    }

    /// This, or `other` where this is silent.
    fn or(self, other: Self) -> Self {
        if self == Self::Silent { other } else { self }
    }
}

/// The elements of all lines, sorted into what they are about.
#[derive(Default)]
struct Ranges {
    listed: bool,
    schema1_signed: Mention,
    schema1: Mention,
    schema2: Mention,
    oci: Mention,
    list: Mention,
    index: Mention,
    artifact: Mention,
    json: Mention,
    any_application: Mention,
    any: Mention,
}

impl Ranges {
    fn read(&mut self, line: &[u8]) {
        for element in split_unquoted(line, b',') {
            let mut parts = split_unquoted(element, b';');
            let media_type = parts.next().unwrap_or_default().trim_ascii();
            if media_type.is_empty() {
                continue;
            }
            self.listed = true;
            if let Some(mention) = self.about(media_type) {
                mention.add(quality_of(parts));
            }
        }
    }

    /// Where an element of `media_type` is noted; `None` for a type that is not known here.
    fn about(&mut self, media_type: &[u8]) -> Option<&mut Mention> {
        let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is(SCHEMA1_SIGNED) => Some(&mut self.schema1_signed),
            () if is(SCHEMA1) => Some(&mut self.schema1),
            () if is(SCHEMA2) => Some(&mut self.schema2),
            () if is(OCI_MANIFEST) => Some(&mut self.oci),
            () if is(MANIFEST_LIST) => Some(&mut self.list),
            () if is(OCI_INDEX) => Some(&mut self.index),
            () if is(OCI_ARTIFACT) => Some(&mut self.artifact),
            () if is("application/json") => Some(&mut self.json),
            () if is("application/*") => Some(&mut self.any_application),
            // containerd 1.0 to 1.2 and Java write a bare `*`
            () if is("*/*") || is("*") => Some(&mut self.any),
            () => None,
        }
    }

    /// What is said about `format` by name.
    fn mention(&self, format: Format) -> Mention {
        match format {
            Format::Schema1 => match (self.schema1_signed, self.schema1) {
                // both names mean one format, and the answer is always the signed one: only its exclusion is final
                (Mention::Wanted(signed), Mention::Wanted(unsigned)) => Mention::Wanted(signed.max(unsigned)),
                (signed, unsigned) => signed.or(unsigned),
            },
            Format::Schema2 => self.schema2,
            Format::Oci => self.oci,
            Format::List => self.list,
            Format::Index => self.index,
            Format::Artifact => self.artifact,
        }
    }

    fn accept(&self) -> Accept {
        let named: Formats =
            Format::ALL.into_iter().filter(|format| matches!(self.mention(*format), Mention::Wanted(_))).collect();
        let mut wildcard = self.any_application.or(self.any);
        if named.is_empty() && matches!(self.json, Mention::Wanted(_)) {
            wildcard = self.json;
        }
        let presence = match wildcard {
            _ if !self.listed => Presence::Absent,
            _ if !named.is_empty() => Presence::Named,
            Mention::Wanted(_) => Presence::Wildcard,
            Mention::Silent | Mention::Excluded => Presence::Unknown,
        };
        if named.is_empty() && wildcard == Mention::Silent {
            wildcard = Mention::Wanted(QUALITY_MAX);
        }
        let qualities = Format::ALL.map(|format| self.quality(format, wildcard));
        let names_only_oci = !named.is_empty()
            && named.is_subset(Formats::of(&[Format::Oci, Format::Index, Format::Artifact]))
            && !matches!(wildcard, Mention::Wanted(_))
            && !matches!(self.json, Mention::Wanted(_));
        Accept { presence, qualities, names_only_oci }
    }

    fn quality(&self, format: Format, wildcard: Mention) -> Option<u16> {
        let mention = match format {
            // Docker from 1.10 always sends `application/json` beside manifest types: its old name of schema 1
            Format::Schema1 if matches!(self.json, Mention::Wanted(_)) => {
                self.mention(format).or(Mention::Wanted(QUALITY_MIN))
            }
            // an artifact travels in an OCI manifest
            Format::Artifact => self.artifact.or(self.oci),
            _ => self.mention(format),
        };
        match mention.or(wildcard) {
            Mention::Wanted(quality) => Some(quality),
            Mention::Silent | Mention::Excluded => None,
        }
    }
}

/// The quality among the parameters of an element: `None` for 0, the highest where there is none or it cannot be read.
fn quality_of<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    for parameter in parameters {
        let mut halves = parameter.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        if let (true, Some(value)) = (name.eq_ignore_ascii_case(b"q"), halves.next()) {
            return parse_quality(value.trim_ascii());
        }
    }
    Some(QUALITY_MAX)
}

/// Reads `0.5`, `.9`, `0.`, `1.000`; anything else is 1, and only a true zero excludes.
fn parse_quality(text: &[u8]) -> Option<u16> {
    let mut halves = text.splitn(2, |byte| *byte == b'.');
    let whole = halves.next().unwrap_or_default();
    let fraction = halves.next().unwrap_or_default();
    let digits = || whole.iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return Some(QUALITY_MAX);
    }
    if digits().all(|digit| *digit == b'0') {
        return None;
    }
    if whole.iter().any(|digit| *digit != b'0') {
        return Some(QUALITY_MAX);
    }
    let thousandths = fraction
        .iter()
        .chain(b"000")
        .take(3)
        .fold(0, |sum: u16, digit| sum * 10 + u16::from(digit.saturating_sub(b'0')));
    Some(thousandths.max(QUALITY_MIN))
}

/// Splits at `separator` where it is outside of a quoted string. A string that is never closed ends with the line.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |byte| {
        if escaped {
            escaped = false;
        } else if quoted && *byte == b'\\' {
            escaped = true;
        } else if *byte == b'"' {
            quoted = !quoted;
        }
        !quoted && *byte == separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{Artifact, Index, List, Oci, Schema1, Schema2};

    const S1_SIGNED: &str = SCHEMA1_SIGNED;

    fn accept(lines: &[&str]) -> Accept {
        Accept::parse(lines.iter().map(|line| line.as_bytes()))
    }

    fn covers(lines: &[&str], expected: &[Format]) {
        assert_eq!(accept(lines).covered(), Formats::of(expected), "{lines:?}");
    }

    #[test]
    fn every_line_counts() {
        covers(&[S1_SIGNED, SCHEMA2, "text/html", MANIFEST_LIST], &[Schema1, Schema2, List]);
        covers(&[&format!("{SCHEMA2}, {OCI_MANIFEST}"), OCI_INDEX], &[Schema2, Oci, Index, Artifact]);
    }

    #[test]
    fn case_parameters_and_blanks_do_not_count() {
        covers(&[&SCHEMA2.to_ascii_uppercase()], &[Schema2]);
        covers(&[&format!(" \t{SCHEMA2} ; charset=\"a,b\\\"\" ;q=1 ,, ,{MANIFEST_LIST};")], &[Schema2, List]);
        covers(&[&format!("text/html\\,{SCHEMA2}")], &[Schema2]);
        covers(&[&format!("text/html;a=\"never closed, {SCHEMA2}"), MANIFEST_LIST], &[List]);
    }

    #[test]
    fn a_bare_star_is_a_wildcard_and_so_are_its_like() {
        for wildcard in
            ["*", "*/*", "application/*", "*; q=.2", "text/html,application/xml;q=0.9,*/*;q=0.8", "Application/JSON"]
        {
            covers(&[wildcard], &Format::ALL);
            assert_eq!(accept(&[wildcard]).presence(), Presence::Wildcard, "{wildcard}");
        }
        covers(&[SCHEMA2, "*"], &Format::ALL);
        assert_eq!(accept(&[SCHEMA2, "*"]).presence(), Presence::Named);
        covers(&["*/*", "application/*;q=0"], &[]);
    }

    #[test]
    fn json_beside_manifest_types_is_the_last_wish_for_schema_1() {
        let both = accept(&["application/json", SCHEMA2]);
        assert_eq!(both.covered(), Formats::of(&[Schema1, Schema2]));
        assert!(both.quality(Schema1) < both.quality(Schema2));
        covers(&["application/json", "text/plain"], &Format::ALL);
        covers(&["application/json", SCHEMA2, &format!("{S1_SIGNED};q=0")], &[Schema2]);
        assert!(!accept(&["application/json", OCI_MANIFEST]).names_only_oci());
    }

    #[test]
    fn both_names_of_schema_1_are_one_format() {
        covers(&[SCHEMA1], &[Schema1]);
        covers(&[S1_SIGNED], &[Schema1]);
        assert_eq!(Schema1.media_type(), S1_SIGNED, "whichever was asked for, the signed one is answered");
        covers(&[&format!("{SCHEMA1};q=0, {S1_SIGNED}")], &[Schema1]);
        covers(&[&format!("{S1_SIGNED};q=0, {SCHEMA1}, {SCHEMA2}")], &[Schema2]);
    }

    #[test]
    fn nothing_and_nothing_known_cover_everything() {
        covers(&[], &Format::ALL);
        assert_eq!(accept(&[]).presence(), Presence::Absent);
        assert_eq!(accept(&["", " , "]).presence(), Presence::Absent);
        covers(&["application/octet-stream"], &Format::ALL);
        assert_eq!(accept(&["application/octet-stream"]).presence(), Presence::Unknown);
        assert_eq!(Accept::parse([&b"\xff\xfe\x00"[..]]).presence(), Presence::Unknown);
    }

    #[test]
    fn a_quality_of_zero_excludes() {
        for zero in ["q=0", "Q=0.000", "q= 0.", "q=.0", "q=00"] {
            covers(&["*/*", &format!("{SCHEMA2};{zero}")], &[Schema1, Oci, List, Index, Artifact]);
        }
        covers(&["*/*;q=0", SCHEMA2], &[Schema2]);
        covers(&["*/*;q=0"], &[]);
        covers(&[SCHEMA2, &format!("{SCHEMA2};q=0"), MANIFEST_LIST], &[List]);
        covers(&[OCI_MANIFEST, &format!("{OCI_ARTIFACT};q=0")], &[Oci]);
    }

    #[test]
    fn qualities_are_read_as_they_are_found_in_the_wild() {
        for (written, expected) in [
            ("q=.9", 900),
            ("q=0.5", 500),
            ("q=1.000", 1000),
            ("q=1", 1000),
            ("q=0.0001", 1),
            ("q=0.12345", 123),
            ("q=7", 1000),
            ("q=", 1000),
            ("q=.", 1000),
            ("q=high", 1000),
            ("q=-1", 1000),
            ("q", 1000),
            ("level=1;q=0.3", 300),
        ] {
            let accept = accept(&[&format!("{SCHEMA2};{written}")]);
            assert_eq!(accept.quality(Schema2), Some(expected), "{written}");
        }
    }

    #[test]
    fn only_oci_means_only_oci() {
        assert!(accept(&[OCI_MANIFEST, OCI_INDEX, OCI_ARTIFACT, "text/html"]).names_only_oci());
        for wider in ["*/*", "*", SCHEMA2, SCHEMA1, MANIFEST_LIST, "application/*;q=0.1"] {
            assert!(!accept(&[OCI_MANIFEST, wider]).names_only_oci(), "{wider}");
        }
        assert!(!accept(&[]).names_only_oci() && !accept(&["text/html"]).names_only_oci());
    }

    #[test]
    fn more_than_the_cap_names_nothing() {
        let long = "x".repeat(ACCEPT_BYTES_MAX);
        for lines in [[long.as_str(), SCHEMA2], [SCHEMA2, long.as_str()]] {
            assert_eq!(accept(&lines).presence(), Presence::Unknown);
            covers(&lines, &Format::ALL);
        }
    }
}
