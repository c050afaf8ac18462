//! A file of tokens.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::watched::{Reason, entries};

/// How short a token may be, so that it cannot be guessed.
const TOKEN_CHARACTERS_MIN: usize = 32;

/// Hashes of tokens under a key of this process, each with the line that it stands on.
pub(super) struct Tokens {
    process_key: [u8; 32],
    hashes: Vec<(u32, [u8; 32])>,
}

impl Tokens {
    pub(super) fn parse(text: &str, process_key: [u8; 32]) -> Result<Self, Reason> {
        let mut hashes = Vec::new();
        for (number, token) in entries(text) {
            let line = |expected| Reason::Line { number, expected };
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(line("expected a token of printable ASCII characters without blanks"));
            }
            if token.len() < TOKEN_CHARACTERS_MIN {
                return Err(line("expected a token of at least 32 characters, such as `openssl rand -hex 32` prints"));
            }
            let place = u32::try_from(number).map_err(|_| Reason::TooLarge)?;
            hashes.push((place, hash(&process_key, token.as_bytes())));
        }
        if hashes.is_empty() { Err(Reason::Empty) } else { Ok(Self { process_key, hashes }) }
    }

    /// `token on line 3`. All of them are looked at, so the time tells nothing of where the token stands.
    pub(super) fn name_of(&self, token: &[u8]) -> Option<Arc<str>> {
        let shown = hash(&self.process_key, token);
        let mut found = 0;
        for (place, hash) in &self.hashes {
            found.conditional_assign(place, hash.ct_eq(&shown));
        }
        (found != 0).then(|| format!("token on line {found}").into())
    }
}

fn hash(process_key: &[u8; 32], token: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(process_key).chain_update(token).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0123456789abcdef0123456789abcdef";
    const SECOND: &str = "ghp_0123456789/abcdef.0123456789~abcdef==";

    fn parse(text: &str) -> Result<Tokens, String> {
        Tokens::parse(text, [7; 32]).map_err(|reason| reason.to_string())
    }

    #[test]
    fn each_line_is_a_token_known_by_its_number() {
        let tokens = parse(&format!("# ci\n{FIRST}\r\n\n  {SECOND}  \n")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tokens.name_of(FIRST.as_bytes()).as_deref(), Some("token on line 2"));
        assert_eq!(tokens.name_of(SECOND.as_bytes()).as_deref(), Some("token on line 4"));
        for other in [&FIRST[1..], "", "# ci", &FIRST.to_uppercase()] {
            assert_eq!(tokens.name_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_alone() {
        for (text, number) in [(format!("{FIRST}\nsecret-but-short"), 2), (format!("#\n{FIRST} {SECOND}"), 2)] {
            let error = parse(&text).err().unwrap();
            assert!(error.starts_with(&format!("line {number}: expected")), "{error}");
            assert!(!error.contains("secret-but-short") && !error.contains(FIRST), "{error}");
        }
        for empty in ["", "# nothing\n\n"] {
            assert!(parse(empty).err().unwrap().contains("no entry"));
        }
    }
}
