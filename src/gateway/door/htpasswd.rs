//! A file of names and bcrypt hashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::attempts::Attempt;
use super::watched::{Reason, UnusableFile, Watched, entries};

/// How many passwords are checked at once; each takes a processor for as long as its hash was made to cost.
const CHECKS_AT_ONCE: usize = 2;
/// How long a check may wait for its turn. Docker gives `/v2/` ten seconds.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a right password is remembered, so that a pull does not pay for each of its twenty requests.
const RIGHT_LIFE: Duration = Duration::from_secs(60);
/// How many right passwords are remembered.
const RIGHT_MAX: u64 = 16 * 1024;
/// The costs that a hash may have: a lower one is none of bcrypt's, a higher one keeps a processor for seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=15;
/// The length of every bcrypt hash in its text form.
const HASH_CHARACTERS: usize = 60;

/// What became of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is this user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// It was not looked at: this address was wrong too often.
    TooMany,
    /// It was not looked at: too many others wait.
    Busy,
}

/// The users of a file, and whoever was right lately.
pub(super) struct Passwords {
    users: Watched<Users>,
    process_key: [u8; 32],
    /// By a hash of name, password and the user's line: a changed line is a new password.
    right: Cache<[u8; 32], ()>,
    turns: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn open(file: &Path, process_key: [u8; 32]) -> Result<Self, UnusableFile> {
        Ok(Self {
            users: Watched::open(file, Users::parse)?,
            process_key,
            right: Cache::builder().max_capacity(RIGHT_MAX).time_to_live(RIGHT_LIFE).build(),
            turns: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
        })
    }

    /// Checks a password. `begin` counts the attempt against whoever makes it; requests that show the same at the same
    /// time are one attempt, and what was right lately is none.
    pub(super) async fn verify(
        &self,
        user: &[u8],
        password: &[u8],
        begin: impl FnOnce() -> Option<Attempt>,
    ) -> Verdict {
        let users = self.users.current().await;
        let candidate = users.candidate(user, &self.process_key);
        let key = self.key(&[user, password, candidate.hash.as_bytes()]);
        let checked = self.right.try_get_with(key, async {
            let attempt = begin().ok_or(Verdict::TooMany)?;
            match self.check(candidate, password.to_vec()).await {
                Verdict::Wrong => Err(Verdict::Wrong),
                Verdict::Right => {
                    attempt.take_back();
                    Ok(())
                }
                unchecked => {
                    attempt.take_back();
                    Err(unchecked)
                }
            }
        });
        checked.await.map_or_else(|verdict: Arc<Verdict>| *verdict, |()| Verdict::Right)
    }

    async fn check(&self, candidate: Candidate, password: Vec<u8>) -> Verdict {
        let turn = tokio::time::timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Verdict::Busy };
        let checking = tokio::task::spawn_blocking(move || {
            // Kept to the end of the work, which goes on when the client leaves.
            let _turn = turn;
            let matches = bcrypt::verify(&password, &candidate.hash).unwrap_or(false);
            matches && candidate.is_real == Real::Yes
        });
        if checking.await.unwrap_or(false) { Verdict::Right } else { Verdict::Wrong }
    }

    fn key(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(self.process_key);
        for part in parts {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The hash to compare a password with.
struct Candidate {
    hash: Arc<str>,
    is_real: Real,
}

/// Whether a hash is that of the user who asks, or of another in the place of nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Real {
    Yes,
    No,
}

struct Users {
    hashes: BTreeMap<Box<[u8]>, Arc<str>>,
}

impl Users {
    fn parse(text: &str) -> Result<Self, Reason> {
        let mut hashes = BTreeMap::new();
        for (number, entry) in entries(text) {
            let line = |expected| Reason::Line { number, expected };
            let pair = entry.split_once(':').filter(|(user, _)| !user.is_empty());
            let (user, hash) = pair.ok_or_else(|| line("expected `name:hash`"))?;
            check_hash(hash).map_err(line)?;
            if hashes.insert(user.as_bytes().into(), hash.into()).is_some() {
                return Err(line("this name stands on an earlier line too; expected each once"));
            }
        }
        if hashes.is_empty() { Err(Reason::Empty) } else { Ok(Self { hashes }) }
    }

    /// The user's hash. For a name that there is not, the hash of some user, the same one each time, so that it takes
    /// as long to be refused and costs are spread like everybody's.
    fn candidate(&self, user: &[u8], process_key: &[u8; 32]) -> Candidate {
        if let Some(hash) = self.hashes.get(user) {
            return Candidate { hash: Arc::clone(hash), is_real: Real::Yes };
        }
        let digest: [u8; 32] = Sha256::new().chain_update(process_key).chain_update(user).finalize().into();
        let [first, second, third, fourth, ..] = digest;
        let number = u32::from_be_bytes([first, second, third, fourth]) as usize % self.hashes.len().max(1);
        let hash = self.hashes.values().nth(number).cloned().unwrap_or_default();
        Candidate { hash, is_real: Real::No }
    }
}

fn check_hash(hash: &str) -> Result<(), &'static str> {
    const EXPECTED: &str =
        "expected a bcrypt hash, such as `htpasswd -B` makes: `$2y$`, the cost and 53 more characters";
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|version| hash.strip_prefix(version)).ok_or(EXPECTED)?;
    let (cost, salt_and_sum) = rest.split_once('$').ok_or(EXPECTED)?;
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let cost: u32 = cost.parse().map_err(|_| EXPECTED)?;
    if hash.len() != HASH_CHARACTERS || !salt_and_sum.bytes().all(is_ours) {
        return Err(EXPECTED);
    }
    if COSTS.contains(&cost) { Ok(()) } else { Err("expected a cost from 4 to 15") }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by the C library's `crypt`: the passwords are `wonderland` and `builder`.
    const ALICE: &str = "alice:$2y$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu";
    const BOB: &str = "bob:$2b$05$KwdfDTi5HR6XY43D3e59sufzXrqDlYRT8lvJH0dwB/IF4ie5xsSXm";

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(text).map_err(|reason| reason.to_string())
    }

    fn passwords(text: &str) -> (tempfile::TempDir, Passwords) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("htpasswd");
        std::fs::write(&file, text).unwrap();
        let passwords = Passwords::open(&file, [7; 32]).unwrap_or_else(|error| panic!("{error}"));
        (directory, passwords)
    }

    #[tokio::test]
    async fn hashes_of_other_programs_are_understood() {
        let (_directory, passwords) = passwords(&format!("# people\n{ALICE}\n\n{BOB}\n"));
        let attempts = super::super::attempts::Attempts::default();
        let verify = async |user: &str, password: &str| {
            let begin = || attempts.begin("192.0.2.1".parse().unwrap());
            passwords.verify(user.as_bytes(), password.as_bytes(), begin).await
        };
        assert_eq!(verify("alice", "wonderland").await, Verdict::Right);
        assert_eq!(verify("bob", "builder").await, Verdict::Right);
        for (user, password) in [("alice", "builder"), ("bob", ""), ("ALICE", "wonderland"), ("carol", "wonderland")] {
            assert_eq!(verify(user, password).await, Verdict::Wrong, "{user} {password}");
        }
        assert_eq!(verify("alice", "wonder\0land").await, Verdict::Wrong);
    }

    /// Whichever user's hash an unknown name is compared with, knowing that user's password opens nothing.
    #[tokio::test]
    async fn nobody_comes_in_under_a_name_that_there_is_not() {
        let (_directory, passwords) = passwords(ALICE);
        for number in 0..5 {
            let attempts = super::super::attempts::Attempts::default();
            let begin = || attempts.begin("192.0.2.1".parse().unwrap());
            let verdict = passwords.verify(format!("name{number}").as_bytes(), b"wonderland", begin).await;
            assert_eq!(verdict, Verdict::Wrong);
        }
    }

    #[tokio::test]
    async fn the_same_at_the_same_time_is_one_attempt_and_what_was_right_is_none() {
        let (_directory, passwords) = passwords(ALICE);
        let attempts = super::super::attempts::Attempts::default();
        let count = std::sync::atomic::AtomicU32::new(0);
        let verify = async || {
            let begin = || {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                attempts.begin("192.0.2.1".parse().unwrap())
            };
            passwords.verify(b"alice", b"wonderland", begin).await
        };
        let all = futures_util::future::join_all((0..50).map(|_| verify())).await;
        assert_eq!(all, vec![Verdict::Right; 50]);
        assert_eq!(verify().await, Verdict::Right);
        assert_eq!(count.into_inner(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_checked_in_time_is_not_taken_for_wrong() {
        let (_directory, passwords) = passwords(ALICE);
        let attempts = super::super::attempts::Attempts::default();
        let _all_turns = passwords.turns.acquire_many(u32::try_from(CHECKS_AT_ONCE).unwrap()).await.unwrap();
        for _ in 0..20 {
            let begin = || attempts.begin("192.0.2.1".parse().unwrap());
            assert_eq!(passwords.verify(b"alice", b"wonderland", begin).await, Verdict::Busy);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_was_right_lately_is_not_once_the_file_says_otherwise() {
        let (directory, passwords) = passwords(ALICE);
        let attempts = super::super::attempts::Attempts::default();
        let verify = async |user: &str, password: &str| {
            let begin = || attempts.begin("192.0.2.1".parse().unwrap());
            passwords.verify(user.as_bytes(), password.as_bytes(), begin).await
        };
        assert_eq!(verify("alice", "wonderland").await, Verdict::Right);
        let (_, bobs) = BOB.split_once(':').unwrap();
        std::fs::write(directory.path().join("htpasswd"), format!("alice:{bobs}\n")).unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(verify("alice", "wonderland").await, Verdict::Wrong);
        assert_eq!(verify("alice", "builder").await, Verdict::Right);
    }

    #[test]
    fn an_unknown_name_costs_what_some_user_costs_the_same_each_time() {
        let users = parse(&format!("{ALICE}\n{BOB}")).unwrap_or_else(|error| panic!("{error}"));
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..50 {
            let name = format!("name{number}");
            let [first, second] = [(); 2].map(|()| users.candidate(name.as_bytes(), &[7; 32]));
            assert_eq!((&first.hash, first.is_real), (&second.hash, Real::No));
            seen.insert(first.hash);
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_alone() {
        let (_, hash) = ALICE.split_once(':').unwrap();
        for line in [
            "carol:$apr1$Kv1GPYzL$SEkAMdSEkQ7ZFWLKsOkvu0".to_owned(),
            "carol:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=".to_owned(),
            "carol:rqXexS6ZhobKA".to_owned(),
            "carol:plain-text-password".to_owned(),
            "carol".to_owned(),
            format!(":{hash}"),
            format!("alice:{hash}"),
            format!("carol:{hash}x"),
            format!("carol:{}", hash.replace("$04$", "$31$")),
            format!("carol:{}", hash.replace("$2y$", "$2x$")),
        ] {
            let error = parse(&format!("{ALICE}\n# next\n{line}\n")).err().unwrap_or_else(|| panic!("{line}"));
            let secret = line.split_once(':').map_or("no secret", |(_, secret)| secret);
            assert!(error.starts_with("line 3: ") && error.contains("expected"), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
        assert!(parse("# nobody\n").err().unwrap().contains("no entry"));
    }
}
