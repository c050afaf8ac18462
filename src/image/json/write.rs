//! Go's `encoding/json`, the writing half, byte for byte.

use super::raw::Raw;
use super::text::{four_digits, is_html, push_string};

/// Room for most of the objects that there are many of: an entry of schema 1's history, a descriptor.
const OBJECT_BYTES_EXPECTED: usize = 512;

/// Writes one object in compact form, its members in the order in which they are given.
pub struct ObjectWriter {
    text: String,
}

impl ObjectWriter {
    /// An object with no members yet.
    #[expect(clippy::new_without_default, reason = "a writer is not a value that has a default")]
    pub fn new() -> Self {
        let mut text = String::with_capacity(OBJECT_BYTES_EXPECTED);
        text.push('{');
        Self { text }
    }

    /// A member whose value is a string, of any bytes as in Go.
    #[must_use]
    pub fn string(mut self, key: &str, value: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key(key);
        push_string(&mut self.text, value.as_ref());
        self
    }

    /// A member whose value is a string, left out if that is empty (Go's `omitempty`).
    #[must_use]
    pub fn string_unless_empty(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.string(key, value) }
    }

    /// A member whose value is compact JSON already.
    #[must_use]
    pub fn json(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.text.push_str(value);
        self
    }

    /// The object.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }

    fn key(&mut self, key: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        push_string(&mut self.text, key.as_bytes());
        self.text.push(':');
    }
}

/// A string.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text.as_bytes());
    out
}

/// An array of values that are compact JSON already.
pub fn array(values: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut text = "[".to_owned();
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(value.as_ref());
    }
    text.push(']');
    text
}

/// An object of values that are compact JSON already, in the order in which they are given. Bytes, because
/// [`compacted`] values are.
pub fn object(members: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>) -> Vec<u8> {
    let mut text = b"{".to_vec();
    for (key, value) in members {
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(string(key.as_ref()).as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_ref());
    }
    text.push(b'}');
    text
}

/// A value as it was written, without whitespace and with what Go escapes escaped: what Go does to a `json.RawMessage`.
/// Numbers, keys and their order stay, repeated keys and bytes that are not UTF-8 too. What Go escapes can stand in
/// strings only.
pub fn compacted(value: Raw<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.as_bytes().len());
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => {
                let (string, after) = rest.split_at_checked(string_length(rest)).unwrap_or((rest, &[]));
                push_html_escaped(&mut out, string);
                after
            }
            b' ' | b'\t' | b'\n' | b'\r' => after,
            _ => {
                out.push(*byte);
                after
            }
        };
    }
    out
}

fn push_html_escaped(out: &mut Vec<u8>, string: &[u8]) {
    for chunk in string.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(is_html) {
            let (plain, from) = rest.split_at(at);
            out.extend_from_slice(plain.as_bytes());
            let mut characters = from.chars();
            let escape = characters.next().into_iter().flat_map(four_digits);
            out.extend(escape.filter_map(|character| u8::try_from(character).ok()));
            rest = characters.as_str();
        }
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(chunk.invalid());
    }
}

/// The length of the string, quotes included, that stands at the beginning of well-formed JSON.
fn string_length(text: &[u8]) -> usize {
    let mut from = 1;
    loop {
        let rest = text.get(from..).unwrap_or_default();
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(at) if rest.get(at) == Some(&b'"') => return from + at + 1,
            // A backslash and what it escapes.
            Some(at) => from += at + 2,
            None => return text.len(),
        }
    }
}

/// Go's `json.Indent` of compact JSON: every line after the first begins with `prefix` and one `indent` per level.
pub fn indented(compact: &str, prefix: &str, indent: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let mut depth: usize = 0;
    let mut just_opened = false;
    let mut rest = compact;
    while let Some(character) = rest.chars().next() {
        let closes = matches!(character, '}' | ']');
        depth -= usize::from(closes && depth > 0);
        if just_opened != closes {
            push_line(&mut out, prefix, indent, depth);
        }
        let length = if character == '"' { string_length(rest.as_bytes()) } else { character.len_utf8() };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        out.push_str(token);
        rest = after;
        just_opened = matches!(character, '{' | '[');
        depth += usize::from(just_opened);
        match character {
            ',' => push_line(&mut out, prefix, indent, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

fn push_line(out: &mut String, prefix: &str, indent: &str, depth: usize) {
    out.push('\n');
    out.push_str(prefix);
    for _ in 0..depth {
        out.push_str(indent);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::{Dialect, scan};
    use super::*;

    /// Expected text from Go's `json.Marshal` of a `map[string]json.RawMessage` (distribution 2.8 does this to configs).
    #[test]
    fn raw_values_are_compacted_and_escaped() {
        let raw = " { \"Z\" : 1.50 , \"A\" : [ 1e3 , 12345678901234567890 ],\n\"A\":\"a <\\\" b\\\\\" , \"u\":\"\u{2028} \\u003c\\/\" } ";
        let value = scan(raw.as_bytes(), 4096, Dialect::Go).unwrap();
        assert_eq!(
            String::from_utf8(object([("k<", compacted(value))])).unwrap(),
            "{\"k\\u003c\":{\"Z\":1.50,\"A\":[1e3,12345678901234567890],\"A\":\"a \\u003c\\\" b\\\\\",\"u\":\"\\u2028 \\u003c\\/\"}}"
        );
    }

    /// Expected bytes from Go's `json.Marshal`, as above.
    #[test]
    fn bytes_that_are_not_utf_8_stay_in_raw_values() {
        let raw = b"[ \"\xf0\x9f\x98 \\\"\x80\", \"\xef\xbf\xbd<\xff\", \"\xf0\xe2\x80\xa8\" ]";
        let compact = b"[\"\xf0\x9f\x98 \\\"\x80\",\"\xef\xbf\xbd\\u003c\xff\",\"\xf0\\u2028\"]";
        assert_eq!(compacted(scan(raw, 4096, Dialect::Go).unwrap()), compact);
    }

    /// Expected text from Go's `json.Indent`.
    #[test]
    fn indents_as_go_does() {
        assert_eq!(indented("{}", "", "   "), "{}");
        assert_eq!(
            indented(r#"{"a":[],"b":{},"c":[1,{"d":"x, {\"]:"}],"e":null}"#, "", "  "),
            "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \"x, {\\\"]:\"\n    }\n  ],\n  \"e\": null\n}"
        );
        assert_eq!(indented("[1]", "  ", "  "), "[\n    1\n  ]");
    }
}
