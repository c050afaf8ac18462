//! `WWW-Authenticate` (RFC 9110, section 11.6.1), read leniently: an unquoted realm URL, odd case and several challenges
//! in one line are all met in the wild.

use std::fmt;

/// How much of one header line is read, in bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// One challenge: a scheme with its parameters, or with one opaque token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The challenges of one header line, in order. What cannot be read is left out.
    pub fn parse_line(line: &str) -> Vec<Self> {
        let mut scanner = Scanner { rest: line.get(..LINE_BYTES_MAX).unwrap_or(line) };
        let mut challenges: Vec<Self> = Vec::new();
        while let Some(item) = scanner.next_item() {
            match item {
                Item::Scheme(scheme) => {
                    challenges.push(Self { scheme: scheme.to_owned(), parameters: Vec::new() });
                }
                Item::Parameter(name, value) => {
                    if let Some(challenge) = challenges.last_mut() {
                        challenge.parameters.push((name.to_ascii_lowercase(), value));
                    }
                }
            }
        }
        challenges
    }

    /// The scheme is `Bearer`, in any case.
    pub fn is_bearer(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("bearer")
    }

    /// The scheme is `Basic`, in any case.
    pub fn is_basic(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("basic")
    }

    /// The value of a parameter; `name` in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The same challenge with another realm.
    #[must_use]
    pub fn with_realm(mut self, realm: &str) -> Self {
        for (name, value) in &mut self.parameters {
            if name == "realm" {
                realm.clone_into(value);
            }
        }
        self
    }
}

/// One challenge a line, values quoted and without escapes: Docker 1.6 takes the rest of the line as parameters and
/// misreads a backslash inside a quoted value.
impl fmt::Display for Challenge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.scheme)?;
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            let separator = if index == 0 { " " } else { "," };
            let value: String =
                value.chars().filter(|char| !matches!(char, '"' | '\\') && !char.is_control()).collect();
            write!(formatter, "{separator}{name}=\"{value}\"")?;
        }
        Ok(())
    }
}

enum Item<'a> {
    Scheme(&'a str),
    Parameter(&'a str, String),
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// A word followed by `=` is a parameter, any other word a scheme.
    fn next_item(&mut self) -> Option<Item<'a>> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
            if self.rest.is_empty() {
                return None;
            }
            let word = self.take_while(|char| !matches!(char, ' ' | '\t' | ',' | '=' | '"'));
            if word.is_empty() {
                // A stray quote or equals sign: step over it.
                self.rest = self.rest.get(1..).unwrap_or_default();
                continue;
            }
            let after = self.rest.trim_start_matches([' ', '\t']);
            let Some(value) = after.strip_prefix('=') else {
                return Some(Item::Scheme(word));
            };
            self.rest = value.trim_start_matches([' ', '\t']);
            return Some(Item::Parameter(word, self.take_value()));
        }
    }

    fn take_value(&mut self) -> String {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.take_while(|char| !matches!(char, ' ' | '\t' | ',')).to_owned();
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((index, char)) = characters.next() {
            match char {
                '"' => {
                    self.rest = quoted.get(index + 1..).unwrap_or_default();
                    return value;
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => value.push(char),
            }
        }
        self.rest = "";
        value
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|char| !belongs(char)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str) -> Vec<String> {
        Challenge::parse_line(line).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_forms_that_registries_use() {
        let line =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let challenges = Challenge::parse_line(line);
        assert_eq!(challenges.len(), 1);
        assert_eq!(challenges[0].parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(challenges[0].to_string(), line);
    }

    #[test]
    fn odd_forms_are_read() {
        assert_eq!(
            written("bearer realm=https://a.example/t, service=x"),
            [r#"bearer realm="https://a.example/t",service="x""#]
        );
        assert_eq!(
            written(r#"BASIC Realm = "a, b" , Bearer realm="r""#),
            [r#"BASIC realm="a, b""#, r#"Bearer realm="r""#]
        );
        assert_eq!(written(r#"Bearer realm="a\"b""#), [r#"Bearer realm="ab""#]);
        assert_eq!(written("Negotiate"), ["Negotiate"]);
        assert_eq!(written(r#"Bearer realm="open"#), [r#"Bearer realm="open""#]);
        assert_eq!(written("=,\"\","), Vec::<String>::new());
    }

    #[test]
    fn a_realm_can_be_replaced() {
        let challenge = Challenge::parse_line(r#"Bearer realm="https://a.example/t",service="s""#).remove(0);
        assert_eq!(
            challenge.with_realm("http://gw:5000/token").to_string(),
            r#"Bearer realm="http://gw:5000/token",service="s""#
        );
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics_and_what_is_written_reads_back(line in "\\PC{0,200}") {
            for challenge in Challenge::parse_line(&line) {
                let _ = Challenge::parse_line(&challenge.to_string());
            }
        }
    }
}
