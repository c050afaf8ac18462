//! Random mixtures of what the golden inputs have one at a time: configs that are legal, translatable and ugly.

use crate::images::{self, Blob, Image};

/// Pieces of JSON strings, as they are spelled in the source text.
const PIECES: [&str; 28] = [
    "a",
    "RUN x",
    " && ",
    "<",
    ">",
    "&",
    "\\\"",
    "\\\\",
    "\\/",
    "/",
    "\\n",
    "\\t",
    "\\r",
    "\\b",
    "\\f",
    "\\u0000",
    "\\u001f",
    "\u{7f}",
    "é",
    "\\u00e9",
    "日本",
    "🐳",
    "\\ud83d\\udc33",
    "\u{2028}",
    "\\u2029",
    "\\ud800",
    "\\u003C",
    "\u{fffd}",
];

const DATES: [&str; 12] = [
    "\"2016-05-04T03:02:01Z\"",
    "\"2016-05-04T03:02:01.123456789Z\"",
    "\"2016-05-04T03:02:01.1234567891Z\"",
    "\"2016-05-04T03:02:01.120Z\"",
    "\"2016-05-04T03:02:01.000Z\"",
    "\"2016-05-04T03:02:01+02:00\"",
    "\"2016-05-04T03:02:01.5-11:30\"",
    "\"2016-05-04T03:02:01+00:00\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"1969-12-31T23:59:59.9Z\"",
    "\"2106-02-07T06:28:16Z\"",
    "null",
];

const NUMBERS: [&str; 10] =
    ["0", "-0", "1", "1.0", "1E+2", "-0.0e-7", "12345678901234567890123456789", "9007199254740993", "1e400", "0.1"];

/// Keys that mean nothing to a translator; several differ only in case, sort oddly or need escaping.
const KEYS: [&str; 12] = [
    "config",
    "container_config",
    "docker_version",
    "os.version",
    "variant",
    "Zeta",
    "zeta",
    "<x>",
    "é",
    "🐳",
    "\\u0061",
    "k\\n",
];

/// A sequence of numbers that a seed determines (`SplitMix64`).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    /// The next random image.
    pub fn image(&mut self, name: String) -> Image {
        let layers = (0..self.below(12)).map(|_| images::layer_number(self.below(8))).collect::<Vec<_>>();
        let history = self.history(layers.len());
        let diff_ids = layers.iter().map(|layer| format!("\"{}\"", layer.digest)).collect();
        let mut rootfs = vec![member("type", "\"layers\""), ("\"diff_ids\"".to_owned(), self.array(diff_ids))];
        if self.one_in(5) {
            let base = self.string();
            rootfs.push(member("base_layer", &base));
        }
        let mut members = vec![("\"rootfs\"".to_owned(), self.object(rootfs)), ("\"history\"".to_owned(), history)];
        self.describe(&mut members);
        self.shuffle(&mut members);
        let text = self.object(members);
        Image { name, config: Blob::new(text), layers }
    }

    /// Adds the other top-level members: those that schema 1 repeats and some that nobody knows, a few of them twice.
    fn describe(&mut self, members: &mut Vec<(String, String)>) {
        for _ in 0..=self.below(2) {
            let architecture = format!("\"{}\"", self.pick(&["amd64", "arm64", "s390x", "arm"]));
            members.push(member("architecture", &architecture));
        }
        if !self.one_in(4) {
            members.push(member("created", DATES[self.below(DATES.len())]));
        }
        for key in ["os", "author", "comment"] {
            let value = self.string();
            members.push(member(key, &value));
        }
        for _ in 0..self.below(8) {
            let key = self.pick(&KEYS);
            let value = self.value(3);
            members.push(member(key, &value));
        }
    }

    /// History entries: one for each layer, and some without, in any places.
    fn history(&mut self, layers: usize) -> String {
        let without = self.below(6) + usize::from(layers == 0);
        let mut has_layer = [vec![true; layers], vec![false; without]].concat();
        self.shuffle(&mut has_layer);
        let entries = has_layer.into_iter().map(|has_layer| self.entry(has_layer)).collect();
        self.array(entries)
    }

    fn entry(&mut self, has_layer: bool) -> String {
        let mut members = Vec::new();
        if !self.one_in(5) {
            members.push(member("created", DATES[self.below(DATES.len())]));
        }
        for key in ["created_by", "author", "comment", "unknown"] {
            if !self.one_in(3) {
                let value = self.string();
                members.push(member(key, &value));
            }
        }
        if !has_layer || self.one_in(4) {
            members.push(member("empty_layer", if has_layer { "false" } else { "true" }));
        }
        self.shuffle(&mut members);
        self.object(members)
    }

    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => self.pick(&NUMBERS).to_owned(),
            1 => self.pick(&["true", "false", "null"]).to_owned(),
            2..5 => self.string(),
            5 => {
                let items = (0..self.below(4)).map(|_| self.value(depth - 1)).collect();
                self.array(items)
            }
            _ => {
                let members = (0..self.below(5)).map(|_| (self.string(), self.value(depth - 1))).collect();
                self.object(members)
            }
        }
    }

    fn string(&mut self) -> String {
        let pieces = (0..self.below(6)).map(|_| self.pick(&PIECES)).collect::<String>();
        format!("\"{pieces}\"")
    }

    fn array(&mut self, items: Vec<String>) -> String {
        self.bracketed('[', items, ']')
    }

    fn object(&mut self, members: Vec<(String, String)>) -> String {
        let members = members.into_iter().map(|(key, value)| format!("{key}{}:{}{value}", self.blank(), self.blank()));
        let members = members.collect();
        self.bracketed('{', members, '}')
    }

    fn bracketed(&mut self, open: char, items: Vec<String>, close: char) -> String {
        let items = items.into_iter().map(|item| format!("{}{item}{}", self.blank(), self.blank())).collect::<Vec<_>>();
        format!("{open}{}{}{close}", items.join(","), self.blank())
    }

    /// Mostly nothing, now and then blanks that JSON allows.
    fn blank(&mut self) -> &'static str {
        self.pick(&["", "", "", "", "", " ", "\n\t", "\r\n  "])
    }
}

/// A member whose key is spelled as JSON text without the quotes.
fn member(key: &str, value: &str) -> (String, String) {
    (format!("\"{key}\""), value.to_owned())
}
