//! Who asked for what, and what they got: the table by which an operator sees who still needs the old formats.
//!
//! It is about this process since it began, and of bounded size: what was seen least lately makes room, and is counted on
//! among the others. A request costs it one short lock; nothing waits for anything else in it.

mod recent;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::StatusCode;
use http::header::USER_AGENT;
use http::request::Parts;

use crate::image::media_type::Format;
use crate::negotiate::Formats;
use crate::negotiate::user_agent::UserAgent;

use super::exchange::Exchange;
use super::fault::Fault;
use super::route::repository_in;

use recent::Recent;
pub use recent::Row;

/// How many rows of pulls are kept.
pub const PULLS_MAX: usize = 4096;
/// How many rows of refusals are kept.
pub const REFUSALS_MAX: usize = 256;
/// How many characters of a client's name are kept, and as many of its version.
const NAME_CHARACTERS_MAX: usize = 64;
/// How many characters of a path, or of the words of a refusal, are kept.
const WORDS_CHARACTERS_MAX: usize = 300;

/// What a client needs at least: the newest manifest format that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Schema 1, and nothing newer.
    Schema1,
    /// Schema 2, and nothing newer.
    Schema2,
    /// Nothing old: it reads OCI.
    Oci,
    /// None of the three.
    None,
}

impl Need {
    const fn of(reads: Formats) -> Self {
        if reads.contains(Format::Oci) {
            Self::Oci
        } else if reads.contains(Format::Schema2) {
            Self::Schema2
        } else if reads.contains(Format::Schema1) {
            Self::Schema1
        } else {
            Self::None
        }
    }

    /// One lower-case word: `schema1`, `schema2`, `oci`, `none`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Schema1 => Format::Schema1.word(),
            Self::Schema2 => Format::Schema2.word(),
            Self::Oci => Format::Oci.word(),
            Self::None => "none",
        }
    }
}

/// How often something was seen, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub requests: u64,
    /// When first.
    pub first: SystemTime,
    /// When last.
    pub last: SystemTime,
}

impl Tally {
    /// It was seen once, then.
    pub const fn once(when: SystemTime) -> Self {
        Self { requests: 1, first: when, last: when }
    }

    /// It was seen these times too.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Who asks, as far as the `User-Agent` says. All of it is the client's own word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// What it is, such as `Docker`; empty where it does not say.
    pub kind: String,
    /// Which version; empty where it does not say.
    pub version: String,
    /// Its class in the table of known clients; `unknown` where it is in none.
    pub class: &'static str,
}

/// Requests for manifests that are one row: the upstream let the client see what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pull {
    /// The upstream's name.
    pub upstream: String,
    /// The repository, as the upstream names it.
    pub repository: String,
    /// Who asked.
    pub sender: Sender,
    /// What it reads.
    pub reads: Formats,
    /// What is stored.
    pub stored: Format,
    /// What it got; `None` where it was refused.
    pub served: Option<Format>,
}

impl Pull {
    /// What its client needs at least.
    pub const fn need(&self) -> Need {
        Need::of(self.reads)
    }
}

/// Refusals that are one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The upstream's name; empty where none was meant.
    pub upstream: String,
    /// The status of the answer.
    pub status: StatusCode,
    /// The code in it.
    pub code: &'static str,
    /// The class of the client.
    pub class: &'static str,
}

/// The last of the refusals of a row.
#[derive(Clone, Debug, Default)]
pub struct LastRefusal {
    /// Why.
    pub words: String,
    /// The path that was asked for.
    pub path: String,
}

/// Rows that made room for others.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    /// How many rows.
    pub rows: u64,
    /// How often all of them were seen, and when.
    pub tally: Tally,
}

/// All that is known at one moment.
pub struct Snapshot {
    /// Since when.
    pub since: SystemTime,
    /// Pulls, the latest first, with why each last got what it got.
    pub pulls: Vec<(Arc<Pull>, Row<String>)>,
    /// Pulls without a row of their own, by what their clients need.
    pub other_pulls: BTreeMap<Need, Others>,
    /// Manifests that were served, by what is stored and what was served.
    pub cells: BTreeMap<(Format, Format), Tally>,
    /// Refusals, the latest first.
    pub refusals: Vec<(Arc<Refusal>, Row<LastRefusal>)>,
    /// Refusals without a row of their own.
    pub other_refusals: Option<Others>,
}

/// What was seen since the process began.
pub struct Seen {
    since: SystemTime,
    books: Mutex<Books>,
}

struct Books {
    pulls: Recent<Pull, String>,
    other_pulls: BTreeMap<Need, Others>,
    cells: BTreeMap<(Format, Format), Tally>,
    refusals: Recent<Refusal, LastRefusal>,
    other_refusals: Option<Others>,
}

impl Default for Seen {
    fn default() -> Self {
        Self::with_room_for(PULLS_MAX, REFUSALS_MAX)
    }
}

impl Seen {
    fn with_room_for(pulls: usize, refusals: usize) -> Self {
        let books = Books {
            pulls: Recent::new(pulls),
            other_pulls: BTreeMap::new(),
            cells: BTreeMap::new(),
            refusals: Recent::new(refusals),
            other_refusals: None,
        };
        Self { since: SystemTime::now(), books: Mutex::new(books) }
    }

    /// Takes note of a request that was answered so.
    pub(super) fn note(&self, upstream: &str, exchange: &Exchange, status: StatusCode) {
        let (outcome, once) = (&exchange.record.outcome, Tally::once(SystemTime::now()));
        let refused = exchange.record.refused();
        if let (Some(stored), Some(repository)) = (outcome.stored, repository_in(exchange.head.uri.path()))
            && (outcome.served.is_some() || status == StatusCode::NOT_ACCEPTABLE)
        {
            let pull = Pull {
                upstream: upstream.to_owned(),
                repository: repository.to_owned(),
                sender: sender(exchange),
                reads: exchange.client.usable(),
                stored,
                served: outcome.served.filter(|_| refused.is_none()),
            };
            let why = refused.map_or_else(|| outcome.why.unwrap_or_default().to_owned(), |(_, words)| shown(words));
            self.books().pull(pull, once, why);
        }
        if let Some((code, words)) = refused {
            let refusal = Refusal { upstream: upstream.to_owned(), status, code, class: exchange.client.class() };
            let last = LastRefusal { words: shown(words), path: shown(&exchange.asked_path()) };
            self.books().refusal(refusal, once, last);
        }
    }

    /// Takes note of a request that reached no upstream.
    pub(super) fn note_refused(&self, fault: &Fault, head: &Parts) {
        let (status, code) = (fault.status(), fault.code());
        let refusal = Refusal { upstream: String::new(), status, code, class: "unknown" };
        let last = LastRefusal { words: shown(&fault.to_string()), path: shown(head.uri.path()) };
        self.books().refusal(refusal, Tally::once(SystemTime::now()), last);
    }

    /// When the process began.
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// All of it.
    pub fn snapshot(&self) -> Snapshot {
        let books = self.books();
        Snapshot {
            since: self.since,
            pulls: books.pulls.rows(),
            other_pulls: books.other_pulls.clone(),
            cells: books.cells.clone(),
            refusals: books.refusals.rows(),
            other_refusals: books.other_refusals,
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn pull(&mut self, pull: Pull, once: Tally, why: String) {
        if let Some(served) = pull.served {
            let cell = self.cells.entry((pull.stored, served));
            cell.and_modify(|tally| tally.add(&once)).or_insert(once);
        }
        if let Some((pull, row)) = self.pulls.note(pull, once, why) {
            let others = self.other_pulls.entry(pull.need());
            others.and_modify(|others| others.take_in(&row.tally)).or_insert_with(|| Others::of(row.tally));
        }
    }

    fn refusal(&mut self, refusal: Refusal, once: Tally, last: LastRefusal) {
        if let Some((_, row)) = self.refusals.note(refusal, once, last) {
            match &mut self.other_refusals {
                Some(others) => others.take_in(&row.tally),
                none => *none = Some(Others::of(row.tally)),
            }
        }
    }
}

impl Others {
    const fn of(tally: Tally) -> Self {
        Self { rows: 1, tally }
    }

    fn take_in(&mut self, tally: &Tally) {
        self.rows = self.rows.saturating_add(1);
        self.tally.add(tally);
    }
}

fn sender(exchange: &Exchange) -> Sender {
    let class = exchange.client.class();
    let header = exchange.head.headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if exchange.client.is_recognised() {
        let name = exchange.client.to_string();
        let (kind, version) = name.split_once(' ').unwrap_or((&name, ""));
        return Sender { kind: kind.to_owned(), version: version.to_owned(), class };
    }
    let user_agent = UserAgent::parse(header);
    let first = user_agent.products().next();
    let part = |text: &str| legible(text, NAME_CHARACTERS_MAX);
    let [kind, version] = first.map_or_else(Default::default, |product| [product.name, product.version].map(part));
    Sender { kind, version, class }
}

fn shown(text: &str) -> String {
    legible(text, WORDS_CHARACTERS_MAX)
}

/// The beginning of a text, without what could make it look like another: control characters and changes of direction.
fn legible(text: &str, characters_max: usize) -> String {
    let legible = |letter: char| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '\u{fffd}' };
    text.chars().map(legible).take(characters_max).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pull(repository: u64, reads: Format) -> Pull {
        let sender = Sender { kind: "Docker".to_owned(), version: "1.9.1".to_owned(), class: "docker<1.10" };
        Pull {
            upstream: "default".to_owned(),
            repository: repository.to_string(),
            sender,
            reads: Formats::of(&[reads]),
            stored: Format::Oci,
            served: Some(reads),
        }
    }

    fn at(second: u64) -> Tally {
        Tally::once(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
    }

    #[test]
    fn what_makes_room_is_counted_on_by_what_it_needs() {
        let seen = Seen::with_room_for(3, 3);
        for second in 0..10 {
            let reads = if second % 2 == 0 { Format::Schema1 } else { Format::Schema2 };
            seen.books().pull(pull(second, reads), at(second), String::new());
        }
        let snapshot = seen.snapshot();
        let kept: Vec<_> = snapshot.pulls.iter().map(|(pull, _)| pull.repository.as_str()).collect();
        assert_eq!(kept, ["9", "8", "7"]);
        let of = |need| {
            let Others { rows, tally } = snapshot.other_pulls[&need];
            (rows, tally.requests, tally.first, tally.last)
        };
        assert_eq!(of(Need::Schema1), (4, 4, at(0).first, at(6).last));
        assert_eq!(of(Need::Schema2), (3, 3, at(1).first, at(5).last));
        assert_eq!(snapshot.cells[&(Format::Oci, Format::Schema1)].requests, 5, "the cells miss nothing");
    }

    #[test]
    fn refusals_make_room_too() {
        let seen = Seen::with_room_for(1, 2);
        for status in 400..405 {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = Refusal { upstream: String::new(), status, code: "UNKNOWN", class: "unknown" };
            seen.books().refusal(refusal, at(status.as_u16().into()), LastRefusal::default());
        }
        let snapshot = seen.snapshot();
        assert_eq!((snapshot.refusals.len(), snapshot.other_refusals.unwrap().rows), (2, 3));
    }

    #[test]
    fn what_a_client_says_of_itself_is_cut_and_cannot_change_how_it_is_read() {
        assert_eq!(legible("<script>", 64), "<script>");
        assert_eq!(legible("a\u{202e}b\u{7}c", 64), "a\u{fffd}b\u{fffd}c");
        assert_eq!(legible(&"x".repeat(10_000), NAME_CHARACTERS_MAX).len(), NAME_CHARACTERS_MAX);
    }
}
