//! The characters inside JSON strings: read, compared and written as Go does.
//!
//! Go takes each byte that is not UTF-8 by itself, so a character cut short counts as often as it has bytes, where
//! `String::from_utf8_lossy` counts it once.

use std::borrow::Cow;
use std::iter;

/// The characters that the text between two quotes stands for. The scanner has checked the escapes; half a surrogate
/// pair is U+FFFD, and so is each byte that is not UTF-8, as in Go.
pub(super) fn decoded(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\')
        && let Ok(plain) = std::str::from_utf8(raw)
    {
        return Cow::Borrowed(plain);
    }
    let mut out = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        push_unescaped(&mut out, chunk.valid());
        out.extend(iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
    }
    Cow::Owned(out)
}

fn push_unescaped(out: &mut String, mut rest: &str) {
    while let Some((plain, after)) = rest.split_once('\\') {
        out.push_str(plain);
        rest = push_escape(out, after);
    }
    out.push_str(rest);
}

/// Writes the character of the escape that begins after a backslash; returns what follows it.
fn push_escape<'a>(out: &mut String, after: &'a str) -> &'a str {
    let mut characters = after.chars();
    match characters.next() {
        Some('u') => return push_unicode_escape(out, characters.as_str()),
        Some('b') => out.push('\u{8}'),
        Some('f') => out.push('\u{c}'),
        Some('n') => out.push('\n'),
        Some('r') => out.push('\r'),
        Some('t') => out.push('\t'),
        Some(itself) => out.push(itself),
        None => {}
    }
    characters.as_str()
}

/// `after` begins with the four digits.
fn push_unicode_escape<'a>(out: &mut String, after: &'a str) -> &'a str {
    let Some((first, rest)) = code_unit(after) else {
        return "";
    };
    if let Some((second, rest)) = rest.strip_prefix("\\u").and_then(code_unit)
        && let Some(Ok(character)) = char::decode_utf16([first, second]).next()
        && character.len_utf16() == 2
    {
        out.push(character);
        return rest;
    }
    out.push(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest
}

fn code_unit(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

/// Writes a string in quotes as Go's `json.Marshal` does: `<`, `>`, `&`, U+2028 and U+2029 escaped; of the control
/// characters only `\n`, `\r` and `\t` short (before Go 1.22, and so in every distribution 2.8 that was released). Go's
/// strings hold any bytes: each one that is not UTF-8 is written as the escape of U+FFFD, which itself needs none.
pub fn push_string(out: &mut String, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push('"');
    for chunk in text.utf8_chunks() {
        push_characters(out, chunk.valid());
        for _ in chunk.invalid() {
            out.extend(four_digits(char::REPLACEMENT_CHARACTER));
        }
    }
    out.push('"');
}

fn push_characters(out: &mut String, mut rest: &str) {
    while let Some(at) = rest.bytes().position(may_need_escape) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = from.chars();
        match characters.next() {
            Some(character) if needs_escape(character) => push_escaped(out, character),
            Some(character) => out.push(character),
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
}

/// The first byte of a character that [`needs_escape`], or of one near U+2028. Bytes are looked through several times
/// as fast as characters, and most need nothing.
fn may_need_escape(byte: u8) -> bool {
    const FIRST_OF_LINE_SEPARATOR: u8 = 0xe2;
    matches!(byte, b'"' | b'\\' | 0..=0x1f | b'<' | b'>' | b'&' | FIRST_OF_LINE_SEPARATOR)
}

fn needs_escape(character: char) -> bool {
    matches!(character, '"' | '\\' | '\0'..='\u{1f}') || is_html(character)
}

/// The characters that Go escapes so that JSON can stand inside HTML and JavaScript.
pub(super) fn is_html(character: char) -> bool {
    matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ => out.extend(four_digits(character)),
    }
}

/// A character of the basic plane as `\u` and four lower-case digits.
pub(super) fn four_digits(character: char) -> impl Iterator<Item = char> {
    let code = u32::from(character);
    let digits = [12, 8, 4, 0].into_iter().filter_map(move |shift| char::from_digit((code >> shift) & 0xf, 16));
    "\\u".chars().chain(digits)
}

/// Two keys are one to Go's decoder, which matches a struct's fields without regard to case, in Unicode's simple
/// folding: the long s is an `s` and the kelvin sign a `k`.
pub fn equal_fold(left: &str, right: &str) -> bool {
    let fold = |character: char| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    left.chars().map(fold).eq(right.chars().map(fold))
}

/// A text from outside as an error message shows it: in backquotes, at most 80 characters, without control characters.
pub fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let shown = text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut out: String = iter::once('`').chain(shown).collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        out.push('…');
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_escape_is_read() {
        assert_eq!(decoded(br#"\"\\\/\b\f\n\r\t"#), "\"\\/\u{8}\u{c}\n\r\t");
        assert_eq!(decoded(br"x\u0041y\u20AC\ud83d\ude00"), "xAy€😀");
        assert_eq!(decoded(br"\ud83d\ud83d\ude00"), "\u{fffd}😀");
        assert_eq!(decoded(br"\ude00\ud83dx\u0041"), "\u{fffd}\u{fffd}xA");
        assert_eq!(decoded(br"\ud83d\u0041"), "\u{fffd}A");
        assert_eq!(decoded(br"\u0041\u0042"), "AB");
        assert!(matches!(decoded("plain é".as_bytes()), Cow::Borrowed(_)));
    }

    /// Bytes that are no character: expected texts from Go's `json.Unmarshal` and `json.Marshal`.
    #[test]
    fn bytes_that_are_not_utf_8_are_read_and_written_one_by_one() {
        for (bytes, read, written) in [
            (&b"a\xffb\xc3(c\xed\xa0\x80d"[..], "a?b?(c???d", r"a!b!(c!!!d"),
            (b"\xf0\x9f\x98", "???", "!!!"),
            (b"\xc0\xaf\xf4\x90\x80\x80", "??????", "!!!!!!"),
            (b"\xf0\x9f\x98\\\"\x80", "???\"?", r#"!!!\\\"!"#),
            (b"\xef\xbf\xbd\xff\\ufffd", "???", r"?!\\ufffd"),
            (b"\xf0\xe2\x80\xa8", "?\u{2028}", r"!\u2028"),
        ] {
            assert_eq!(decoded(bytes), read.replace('?', "\u{fffd}"), "{bytes:?}");
            let mut out = String::new();
            push_string(&mut out, bytes);
            let written = written.replace('?', "\u{fffd}").replace('!', r"\ufffd");
            assert_eq!(out, format!("\"{written}\""), "{bytes:?}");
        }
    }

    /// Expected text from Go 1.19's `json.Marshal`, as distribution 2.8 prints it.
    #[test]
    fn strings_are_written_as_go_writes_them() {
        let mut out = String::new();
        push_string(&mut out, "a\"\\/<>&\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}é\u{2028}\u{2029}😀\u{fffd}".as_bytes());
        let expected =
            "\"a\\\"\\\\/\\u003c\\u003e\\u0026\\n\\r\\t\\u0008\\u000c\\u0000\\u001f\u{7f}é\\u2028\\u2029😀\u{fffd}\"";
        assert_eq!(out, expected);
    }

    #[test]
    fn keys_fold_as_in_go() {
        assert!(equal_fold("Layers", "layers") && equal_fold("LAYER\u{17f}", "layers") && equal_fold("\u{212a}", "k"));
        assert!(!equal_fold("layer", "layers") && !equal_fold("é", "É"));
    }
}
