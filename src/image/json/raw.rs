//! Values as they were written.

use std::borrow::Cow;

use super::scan::{Cursor, Unwatched};
use super::text;

/// The text of one well-formed JSON value, exactly as it stands in its document. Strings in it may hold bytes that are not
/// UTF-8, if the document was read so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a [u8]);

/// The members of an object, in the order in which they were written. Repeated keys are all there.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl<'a> Raw<'a> {
    /// For the scanner, which knows that this text is one well-formed value.
    pub(super) fn scanned(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// It is `null`, which Go reads like a key that is not there, unless the key was there before.
    pub fn is_null(self) -> bool {
        self.0 == b"null"
    }

    /// The members, if it is an object.
    pub fn object(self) -> Option<Object<'a>> {
        let mut cursor = Cursor::new(self.0);
        let mut members = Vec::new();
        if !cursor.take(b'{') {
            return None;
        }
        cursor.skip_whitespace();
        while !cursor.take(b'}') {
            let key = cursor.key().ok()?;
            members.push((text::decoded(key), cursor.value(&mut Unwatched).ok()?));
            cursor.skip_whitespace();
            cursor.take(b',');
        }
        Some(Object { members })
    }

    /// The elements, if it is an array.
    pub fn array(self) -> Option<Vec<Self>> {
        let mut cursor = Cursor::new(self.0);
        let mut elements = Vec::new();
        if !cursor.take(b'[') {
            return None;
        }
        cursor.skip_whitespace();
        while !cursor.take(b']') {
            elements.push(cursor.value(&mut Unwatched).ok()?);
            cursor.skip_whitespace();
            cursor.take(b',');
        }
        Some(elements)
    }

    /// The characters, if it is a string. A lone surrogate is U+FFFD, and so is each byte that is not UTF-8, as in Go.
    pub fn string(self) -> Option<Cow<'a, str>> {
        self.0.strip_prefix(b"\"")?.strip_suffix(b"\"").map(text::decoded)
    }

    /// The number, if it is written as a whole number without a fraction or an exponent and fits, as Go asks of one.
    pub fn integer(self) -> Option<i64> {
        std::str::from_utf8(self.0).ok()?.parse().ok()
    }

    /// The truth value, if it is one.
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }
}

impl<'a> Object<'a> {
    /// The value of this key, spelled exactly so; of several the last. `null` counts as not there.
    pub fn value(&self, key: &str) -> Option<Raw<'a>> {
        self.members
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value)
            .filter(|value| !value.is_null())
    }

    /// The key is there, whatever its value.
    pub fn names(&self, key: &str) -> bool {
        self.members.iter().any(|(name, _)| name == key)
    }

    /// All members, in the order in which they were written.
    pub fn members(&self) -> &[(Cow<'a, str>, Raw<'a>)] {
        &self.members
    }

    /// All members, the last of equal keys only, in the order of the keys' bytes: how Go writes a map.
    pub fn into_sorted(self) -> Vec<(Cow<'a, str>, Raw<'a>)> {
        let mut members = self.members;
        members.reverse();
        members.sort_by(|(left, _), (right, _)| left.cmp(right));
        members.dedup_by(|(later, _), (earlier, _)| later == earlier);
        members
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::{Dialect, scan};
    use super::*;

    fn raw(text: &str) -> Raw<'_> {
        scan(text.as_bytes(), 4096, Dialect::Go).unwrap()
    }

    #[test]
    fn members_keep_their_bytes_and_the_last_of_a_key_counts() {
        let object = raw(r#" { "b" : [ 1, {"x":2} ] , "a":1.50,"\u0062" : "é" ,"n":null} "#).object().unwrap();
        let keys: Vec<&str> = object.members().iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["b", "a", "b", "n"]);
        assert_eq!(object.value("b").unwrap().as_bytes(), "\"é\"".as_bytes());
        assert_eq!(object.value("a").unwrap().as_bytes(), b"1.50");
        assert!(object.value("n").is_none() && object.names("n") && !object.names("B"));
        let sorted = object.into_sorted();
        let sorted: Vec<_> = sorted.iter().map(|(key, value)| (key.as_ref(), value.as_bytes())).collect();
        assert_eq!(sorted, [("a", &b"1.50"[..]), ("b", "\"é\"".as_bytes()), ("n", b"null")]);
    }

    #[test]
    fn values_are_read_as_go_reads_them() {
        assert_eq!(raw("-7").integer(), Some(-7));
        for not_an_integer in ["1.0", "1e3", "\"1\"", "9223372036854775808", "null"] {
            assert_eq!(raw(not_an_integer).integer(), None, "{not_an_integer}");
        }
        assert_eq!(raw(r#""a\u00e9\ud83d\ude00\ud800x""#).string().unwrap(), "aé😀\u{fffd}x");
        assert_eq!(raw("true").boolean(), Some(true));
        let elements: Vec<&[u8]> = raw("[ 1 ,[2,3], {} ]").array().unwrap().into_iter().map(Raw::as_bytes).collect();
        assert_eq!(elements, [&b"1"[..], b"[2,3]", b"{}"]);
        assert!(raw("{}").array().is_none() && raw("[]").object().is_none() && raw("1").string().is_none());
    }
}
