//! Values as they were written.

use std::borrow::Cow;

use super::scan::{Cursor, Unwatched};
use super::text;

/// The text of one well-formed JSON value, exactly as it stands in its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

/// The members of an object, in the order in which they were written. Repeated keys are all there.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl<'a> Raw<'a> {
    /// For the scanner, which knows that this text is one well-formed value.
    pub(super) fn scanned(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// It is `null`, which Go reads like a key that is not there.
    pub fn is_null(self) -> bool {
        self.0 == "null"
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

    /// The characters, if it is a string. A lone surrogate is U+FFFD, as in Go.
    pub fn string(self) -> Option<Cow<'a, str>> {
        self.0.strip_prefix('"')?.strip_suffix('"').map(text::decoded)
    }

    /// The number, if it is written as a whole number without a fraction or an exponent and fits, as Go asks of one.
    pub fn integer(self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// The truth value, if it is one.
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
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
    use super::super::scan::{Keys, scan};
    use super::*;

    fn raw(text: &str) -> Raw<'_> {
        scan(text.as_bytes(), 4096, Keys::Repeatable).unwrap()
    }

    #[test]
    fn members_keep_their_bytes_and_the_last_of_a_key_counts() {
        let object = raw(r#" { "b" : [ 1, {"x":2} ] , "a":1.50,"\u0062" : "é" ,"n":null} "#).object().unwrap();
        let keys: Vec<&str> = object.members().iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["b", "a", "b", "n"]);
        assert_eq!(object.value("b").unwrap().as_str(), "\"é\"");
        assert_eq!(object.value("a").unwrap().as_str(), "1.50");
        assert!(object.value("n").is_none() && object.names("n") && !object.names("B"));
        let sorted: Vec<String> = object.into_sorted().iter().map(|(k, v)| format!("{k}={}", v.as_str())).collect();
        assert_eq!(sorted, ["a=1.50", "b=\"é\"", "n=null"]);
    }

    #[test]
    fn values_are_read_as_go_reads_them() {
        assert_eq!(raw("-7").integer(), Some(-7));
        for not_an_integer in ["1.0", "1e3", "\"1\"", "9223372036854775808", "null"] {
            assert_eq!(raw(not_an_integer).integer(), None, "{not_an_integer}");
        }
        assert_eq!(raw(r#""a\u00e9\ud83d\ude00\ud800x""#).string().unwrap(), "aé😀\u{fffd}x");
        assert_eq!(raw("true").boolean(), Some(true));
        let elements: Vec<&str> = raw("[ 1 ,[2,3], {} ]").array().unwrap().into_iter().map(Raw::as_str).collect();
        assert_eq!(elements, ["1", "[2,3]", "{}"]);
        assert!(raw("{}").array().is_none() && raw("[]").object().is_none() && raw("1").string().is_none());
    }
}
