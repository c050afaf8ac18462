//! A table of bounded length that lets go of what was noted least lately.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::Tally;

/// Rows by key, at most so many.
pub(super) struct Recent<Key, Last> {
    rows_max: usize,
    rows: HashMap<Arc<Key>, Noted<Last>>,
    /// Keys by when they were last noted, oldest first.
    order: BTreeMap<u64, Arc<Key>>,
    next_place: u64,
}

struct Noted<Last> {
    row: Row<Last>,
    place: u64,
}

/// How often and when, and what was said the last time.
#[derive(Clone, Debug)]
pub struct Row<Last> {
    /// How often and when.
    pub tally: Tally,
    /// What was said the last time.
    pub last: Last,
}

impl<Key: Eq + Hash, Last: Clone> Recent<Key, Last> {
    pub(super) fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: HashMap::new(), order: BTreeMap::new(), next_place: 0 }
    }

    /// Counts one more; hands back the row that had to go for it.
    pub(super) fn note(&mut self, key: Key, once: Tally, last: Last) -> Option<(Arc<Key>, Row<Last>)> {
        let place = self.next_place;
        self.next_place = self.next_place.wrapping_add(1);
        if let Some(noted) = self.rows.get_mut(&key) {
            noted.row.tally.add(&once);
            noted.row.last = last;
            if let Some(key) = self.order.remove(&std::mem::replace(&mut noted.place, place)) {
                self.order.insert(place, key);
            }
            return None;
        }
        let evicted = if self.rows.len() < self.rows_max { None } else { self.evict() };
        let key = Arc::new(key);
        self.order.insert(place, Arc::clone(&key));
        self.rows.insert(key, Noted { row: Row { tally: once, last }, place });
        evicted
    }

    fn evict(&mut self) -> Option<(Arc<Key>, Row<Last>)> {
        let (_, key) = self.order.pop_first()?;
        let noted = self.rows.remove(&key)?;
        Some((key, noted.row))
    }

    /// All rows, the one that was noted last first.
    pub(super) fn rows(&self) -> Vec<(Arc<Key>, Row<Last>)> {
        let latest_first = self.order.values().rev();
        latest_first.filter_map(|key| Some((Arc::clone(key), self.rows.get(key)?.row.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn at(seconds: u64) -> Tally {
        Tally::once(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn names(recent: &Recent<&'static str, u64>) -> Vec<&'static str> {
        recent.rows().iter().map(|(key, _)| **key).collect()
    }

    #[test]
    fn what_was_noted_least_lately_goes_first() {
        let mut recent = Recent::new(2);
        assert!(recent.note("a", at(1), 1).is_none());
        assert!(recent.note("b", at(2), 2).is_none());
        assert!(recent.note("a", at(3), 3).is_none());
        let (key, row) = recent.note("c", at(4), 4).unwrap();
        assert_eq!((*key, row.tally, row.last), ("b", at(2), 2));
        assert_eq!(names(&recent), ["c", "a"]);
        let (_, a) = recent.rows().pop().unwrap();
        assert_eq!((a.tally.requests, a.tally.first, a.tally.last, a.last), (2, at(1).first, at(3).last, 3));
    }

    #[test]
    fn however_many_come_it_holds_no_more_than_it_may() {
        let mut recent = Recent::new(10);
        let evicted = (0..1000).filter_map(|number| recent.note(number, at(number), ())).count();
        assert_eq!((recent.rows().len(), recent.order.len(), recent.rows.len(), evicted), (10, 10, 10, 990));
    }
}
