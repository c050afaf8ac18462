//! Go's `encoding/json`, the writing half, byte for byte.

use super::raw::Raw;
use super::text::{is_html, may_be_html, push_four_digits, push_string};

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

    /// A member whose value is a string.
    #[must_use]
    pub fn string(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        push_string(&mut self.text, value);
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
        push_string(&mut self.text, key);
        self.text.push(':');
    }
}

/// A string.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
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

/// A value as it was written, without whitespace and with what Go escapes escaped: what Go does to a `json.RawMessage`.
/// Numbers, keys and their order stay, repeated keys too. What Go escapes can stand in strings only.
pub fn compacted(value: Raw<'_>) -> String {
    let mut out = String::with_capacity(value.as_str().len());
    let mut rest = value.as_str();
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b' ' | b'\t' | b'\n' | b'\r')) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        if from.starts_with('"') {
            let (string, after) = split_string(from);
            push_html_escaped(&mut out, string);
            rest = after;
        } else {
            rest = from.trim_start_matches([' ', '\t', '\n', '\r']);
        }
    }
    out.push_str(rest);
    out
}

fn push_html_escaped(out: &mut String, string: &str) {
    let mut rest = string;
    while let Some(at) = rest.bytes().position(may_be_html) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = from.chars();
        match characters.next() {
            Some(character) if is_html(character) => push_four_digits(out, character),
            Some(character) => out.push(character),
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
}

/// The string, quotes included, that stands at the beginning of well-formed JSON, and what follows it.
fn split_string(text: &str) -> (&str, &str) {
    let mut from = 1;
    loop {
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(at) if rest.get(at) == Some(&b'"') => {
                return text.split_at_checked(from + at + 1).unwrap_or((text, ""));
            }
            // A backslash and what it escapes.
            Some(at) => from += at + 2,
            None => return (text, ""),
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
        let (token, after) = match character {
            '"' => split_string(rest),
            _ => rest.split_at(character.len_utf8()),
        };
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
    use super::super::scan::{Keys, scan};
    use super::*;

    /// Expected text from Go's `json.Marshal` of a `map[string]json.RawMessage` (distribution 2.8 does this to configs).
    #[test]
    fn raw_values_are_compacted_and_escaped() {
        let raw = " { \"Z\" : 1.50 , \"A\" : [ 1e3 , 12345678901234567890 ],\n\"A\":\"a <\\\" b\\\\\" , \"u\":\"\u{2028} \\u003c\\/\" } ";
        let value = scan(raw.as_bytes(), 4096, Keys::Repeatable).unwrap();
        assert_eq!(
            ObjectWriter::new().json("k<", &compacted(value)).finish(),
            "{\"k\\u003c\":{\"Z\":1.50,\"A\":[1e3,12345678901234567890],\"A\":\"a \\u003c\\\" b\\\\\",\"u\":\"\\u2028 \\u003c\\/\"}}"
        );
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
