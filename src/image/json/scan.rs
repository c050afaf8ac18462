//! The scanner: RFC 8259 and nothing else, but for what Go lets into strings, with limits, without recursion.

use std::borrow::Cow;

use super::raw::Raw;
use super::text;

/// How deep objects and arrays may nest. Real documents reach six; Go's own limit of 10,000 is an invitation.
pub const DEPTH_MAX: usize = 64;

/// Which documents pass for JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// UTF-8, and no object names a key twice, at any depth, however the key is escaped: two parsers could read two
    /// documents. Manifests are read so.
    Strict,
    /// What Go's `encoding/json` reads: keys may repeat, and whoever reads the object decides; strings may hold any
    /// bytes. Image configs are read so.
    Go,
}

/// Why bytes are not a JSON document within the limits. Reads after "the stored document ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More bytes than are ever read.
    #[error("has {bytes} bytes, more than the {bytes_max} that are read")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Not UTF-8 (RFC 8259 section 8.1), in a document that must be.
    #[error("is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Not JSON, or JSON with something before or after it, a byte order mark included.
    #[error("is not JSON at byte {at}: expected {expected}")]
    Syntax {
        /// Offset of the first byte that does not fit.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// Objects and arrays within each other beyond [`DEPTH_MAX`].
    #[error("nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// A key twice in one object.
    #[error("names {} twice", text::quoted(.key))]
    Repeated {
        /// The key, decoded.
        key: String,
    },
}

/// The document in these bytes, if they are one JSON value of at most `bytes_max` bytes, at most [`DEPTH_MAX`] deep,
/// without a byte order mark, with nothing but whitespace around it. Time is linear in the bytes, apart from the
/// sorting of the keys of each object where they must be distinct.
pub fn scan(bytes: &[u8], bytes_max: usize, dialect: Dialect) -> Result<Raw<'_>, Fault> {
    if bytes.len() > bytes_max {
        return Err(Fault::TooLarge { bytes: bytes.len(), bytes_max });
    }
    let mut cursor = Cursor::new(bytes);
    let value = match dialect {
        Dialect::Strict => {
            std::str::from_utf8(bytes).map_err(|error| Fault::NotUtf8 { at: error.valid_up_to() })?;
            cursor.value(&mut Ledger::default())?
        }
        Dialect::Go => cursor.value(&mut Unwatched)?,
    };
    cursor.skip_whitespace();
    match cursor.peek() {
        None => Ok(value),
        Some(_) => Err(cursor.syntax("the end of the document")),
    }
}

/// Told of every key while a value is scanned.
pub(super) trait KeyWatch<'a> {
    /// An object begins.
    fn open(&mut self);
    /// A key of the innermost object, still escaped.
    fn key(&mut self, raw: &'a [u8]);
    /// The innermost object ends.
    fn close(&mut self) -> Result<(), Fault>;
}

/// Lets every key pass.
pub(super) struct Unwatched;

impl<'a> KeyWatch<'a> for Unwatched {
    fn open(&mut self) {}
    fn key(&mut self, _raw: &'a [u8]) {}
    fn close(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Refuses a key that an object names twice. The keys of all open objects lie in one stack.
#[derive(Default)]
struct Ledger<'a> {
    keys: Vec<Cow<'a, str>>,
    starts: Vec<usize>,
}

impl<'a> KeyWatch<'a> for Ledger<'a> {
    fn open(&mut self) {
        self.starts.push(self.keys.len());
    }

    fn key(&mut self, raw: &'a [u8]) {
        self.keys.push(text::decoded(raw));
    }

    fn close(&mut self) -> Result<(), Fault> {
        let start = self.starts.pop().unwrap_or_default();
        let mut keys = self.keys.split_off(start);
        keys.sort_unstable();
        match keys.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first()).flatten()) {
            Some(key) => Err(Fault::Repeated { key: key.to_string() }),
            None => Ok(()),
        }
    }
}

/// A place in a text.
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn syntax(&self, expected: &'static str) -> Fault {
        Fault::Syntax { at: self.at, expected }
    }

    pub(super) fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over this byte if it is next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// A key, its colon, and the whitespace around them; the text between the quotes, still escaped.
    pub(super) fn key(&mut self) -> Result<&'a [u8], Fault> {
        self.skip_whitespace();
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a key in double quotes"));
        }
        let key = self.string()?;
        self.skip_whitespace();
        if self.take(b':') { Ok(key) } else { Err(self.syntax("a colon")) }
    }

    /// One value and the whitespace before it. Nesting costs heap, never stack.
    pub(super) fn value(&mut self, watch: &mut impl KeyWatch<'a>) -> Result<Raw<'a>, Fault> {
        self.skip_whitespace();
        let start = self.at;
        let mut open: Vec<Container> = Vec::new();
        loop {
            if !self.leaf_or_opening(&mut open, watch)? {
                continue;
            }
            if self.closings(&mut open, watch)? {
                return Ok(Raw::scanned(self.text.get(start..self.at).unwrap_or_default()));
            }
        }
    }

    /// Steps over a scalar or an empty container (true: a value has ended), or into a container (false).
    fn leaf_or_opening(&mut self, open: &mut Vec<Container>, watch: &mut impl KeyWatch<'a>) -> Result<bool, Fault> {
        self.skip_whitespace();
        let container = match self.peek() {
            Some(b'{') => Container::Object,
            Some(b'[') => Container::Array,
            _ => return self.scalar().map(|()| true),
        };
        if open.len() == DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        self.at += 1;
        self.skip_whitespace();
        let closer = if container == Container::Object { b'}' } else { b']' };
        if self.take(closer) {
            return Ok(true);
        }
        open.push(container);
        if container == Container::Object {
            watch.open();
            watch.key(self.key()?);
        }
        Ok(false)
    }

    /// After a value: steps over every container that ends here. True if the outermost value has ended, false if a
    /// comma (and in an object the next key) was passed.
    fn closings(&mut self, open: &mut Vec<Container>, watch: &mut impl KeyWatch<'a>) -> Result<bool, Fault> {
        while let Some(container) = open.last().copied() {
            self.skip_whitespace();
            match (container, self.peek()) {
                (Container::Object, Some(b',')) => {
                    self.at += 1;
                    watch.key(self.key()?);
                    return Ok(false);
                }
                (Container::Array, Some(b',')) => {
                    self.at += 1;
                    return Ok(false);
                }
                (Container::Object, Some(b'}')) => {
                    self.at += 1;
                    watch.close()?;
                }
                (Container::Array, Some(b']')) => self.at += 1,
                (Container::Object, _) => return Err(self.syntax("a comma or the end of the object")),
                (Container::Array, _) => return Err(self.syntax("a comma or the end of the array")),
            }
            open.pop();
        }
        Ok(true)
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.syntax("a value")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.syntax("true, false or null"))
        }
    }

    /// `-? (0 | [1-9][0-9]*) (\. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Result<(), Fault> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax("a digit")) } else { Ok(()) }
    }

    /// The text between the quotes, still escaped, its escapes known to be well formed. Stands at the opening quote.
    fn string(&mut self) -> Result<&'a [u8], Fault> {
        self.at += 1;
        let start = self.at;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    let raw = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(raw);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.syntax("an escape instead of a control character")),
                None => return Err(self.syntax("the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.syntax("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.syntax("an escape sequence")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(text: &str) -> Result<Raw<'_>, Fault> {
        scan(text.as_bytes(), 1024, Dialect::Strict)
    }

    #[test]
    fn accepts_what_rfc_8259_accepts() {
        for good in [
            "{}",
            "[]",
            " [ ] ",
            "0",
            "-0",
            "-0.5e+10",
            "1E9",
            "12345678901234567890",
            "null",
            "true",
            "\"\"",
            r#""\"\\\/\b\f\n\r\té\ud800""#,
            r#"{"a":{"a":[{"a":1},{"a":2}]},"b":{}}"#,
            "\"\u{7f}é\u{2028}\"",
        ] {
            assert!(distinct(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "",
            " ",
            "{",
            "[",
            "{]",
            "[}",
            "[1,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "{a:1}",
            "{'a':1}",
            "01",
            "-",
            "1.",
            ".5",
            "+1",
            "1e",
            "0x1",
            "NaN",
            "Infinity",
            "nul",
            "truex",
            "\"\n\"",
            "\"\t\"",
            r#""\x""#,
            r#""\u12g4""#,
            "\"",
            "\"\\\"",
            "{}{}",
            "{} x",
            "\u{feff}{}",
            "// c\n{}",
            "1 2",
            "[1 2]",
            "\u{a0}{}",
        ] {
            assert!(matches!(distinct(bad), Err(Fault::Syntax { .. })), "{bad}");
        }
        assert_eq!(scan(b"\"\xff\"", 9, Dialect::Strict), Err(Fault::NotUtf8 { at: 1 }));
        assert_eq!(scan(b"\"\xed\xa0\x80\"", 9, Dialect::Strict), Err(Fault::NotUtf8 { at: 1 }));
    }

    #[test]
    fn go_lets_any_bytes_into_strings_and_nowhere_else() {
        for good in [&b"\"\xff\""[..], b"{\"\xed\xa0\x80\":[\"\xf0\x9f\"]}", b"\"\xc3\\\"\x80\""] {
            assert_eq!(scan(good, 99, Dialect::Go).unwrap().as_bytes(), good);
        }
        for bad in [
            &b"\xff"[..],
            b"\xff{}",
            b"{}\xff",
            b"[1\xff]",
            b"{\xff:1}",
            b"\"\\\xff\"",
            b"\"\\u\xff000\"",
            b"tru\xff",
            b"\"\xff",
        ] {
            assert!(matches!(scan(bad, 99, Dialect::Go), Err(Fault::Syntax { .. })), "{bad:?}");
        }
    }

    #[test]
    fn limits_are_exact() {
        assert!(scan(b"[]", 2, Dialect::Strict).is_ok());
        assert_eq!(scan(b"[ ]", 2, Dialect::Strict), Err(Fault::TooLarge { bytes: 3, bytes_max: 2 }));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(distinct(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(distinct(&nested(DEPTH_MAX + 1)), Err(Fault::TooDeep));
        let deep = "{\"a\":".repeat(1_000_000);
        assert_eq!(scan(deep.as_bytes(), usize::MAX, Dialect::Go), Err(Fault::TooDeep));
    }

    #[test]
    fn a_key_may_not_come_twice_however_it_is_escaped() {
        let repeated = |key: &str| Err(Fault::Repeated { key: key.to_owned() });
        assert_eq!(distinct(r#"{"a":1,"b":2,"a":3}"#), repeated("a"));
        assert_eq!(distinct(r#"{"a":1,"\u0061":3}"#), repeated("a"));
        assert_eq!(distinct(r#"[{"x":[{"k":1,"k":1}]}]"#), repeated("k"));
        assert_eq!(distinct(r#"{"\ud800":1,"\udfff":1}"#), repeated("\u{fffd}"), "both are U+FFFD to Go");
        assert!(scan(br#"{"a":1,"a":3}"#, 99, Dialect::Go).is_ok());
        assert_eq!(Fault::Repeated { key: "layers".into() }.to_string(), "names `layers` twice");
    }
}
