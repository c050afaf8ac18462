//! The bytes of the directory, kept and reserved, and who goes when there are too many. Knows neither the disk nor the
//! clock.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use crate::image::digest::Digest;

/// How much may be in the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of everything, fills included.
    pub(super) bytes: u64,
    /// Fills at a time.
    pub(super) fills: usize,
    /// Bytes of all fills at a time.
    pub(super) fill_bytes: u64,
}

/// What stands in the directory and what is on its way there. The sum of all of it is never above the limit, unless the
/// directory was found that way.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    kept: HashMap<Digest, Kept>,
    /// Those of `kept` that nobody reads, by last use.
    idle: BTreeSet<(SystemTime, Digest)>,
    idle_bytes: u64,
    /// Forgotten while they were read: on the disk until the last reader closes them.
    leaving: HashMap<Number, Kept>,
    on_disk: u64,
    fills: usize,
    reserved: u64,
    last_number: u64,
}

/// Tells a blob from another that was kept under the same digest earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Number(u64);

#[derive(Debug)]
struct Kept {
    number: Number,
    size: u64,
    last_use: SystemTime,
    readers: usize,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It is larger than a fill may be.
    Never,
    /// Other fills, or blobs that are being read, take it.
    Now,
}

/// A blob that has to go.
pub(super) type Evicted = (Digest, u64);

impl Ledger {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            kept: HashMap::new(),
            idle: BTreeSet::new(),
            idle_bytes: 0,
            leaving: HashMap::new(),
            on_disk: 0,
            fills: 0,
            reserved: 0,
            last_number: 0,
        }
    }

    /// How many blobs it has.
    pub(super) fn blobs(&self) -> usize {
        self.kept.len()
    }

    /// How many bytes all of it may have.
    pub(super) const fn bytes_max(&self) -> u64 {
        self.limits.bytes
    }

    /// All bytes that are or may come to be on the disk.
    pub(super) const fn bytes(&self) -> u64 {
        self.on_disk.saturating_add(self.reserved)
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.kept.contains_key(digest)
    }

    /// Takes note of a blob that stands in the directory, unless it is known.
    pub(super) fn found(&mut self, digest: &Digest, size: u64, last_use: SystemTime) {
        if !self.has(digest) {
            self.insert(digest, size, last_use, 0);
        }
    }

    /// Makes room for a fill. What is handed back has to be removed from the disk before the fill writes.
    pub(super) fn reserve(&mut self, size: u64) -> Result<Vec<Evicted>, NoRoom> {
        if size > self.limits.fill_bytes.min(self.limits.bytes) {
            return Err(NoRoom::Never);
        }
        let busy = self.fills >= self.limits.fills || self.reserved + size > self.limits.fill_bytes;
        let unmovable = self.on_disk - self.idle_bytes + self.reserved;
        if busy || unmovable.saturating_add(size) > self.limits.bytes {
            return Err(NoRoom::Now);
        }
        self.fills += 1;
        self.reserved += size;
        Ok(self.evict_surplus())
    }

    /// Gives back what a fill had reserved.
    pub(super) fn release(&mut self, size: u64) {
        self.fills -= 1;
        self.reserved -= size;
    }

    /// A fill has come to its name. Counts as read once, until [`Self::end_reading`].
    pub(super) fn keep(&mut self, digest: &Digest, size: u64, now: SystemTime) -> Number {
        self.release(size);
        self.forget(digest);
        self.insert(digest, size, now, 1)
    }

    /// Begins to read a blob, which is not evicted meanwhile: its number and its size.
    pub(super) fn begin_reading(&mut self, digest: &Digest, now: SystemTime) -> Option<(Number, u64)> {
        let kept = self.kept.get_mut(digest)?;
        if kept.readers == 0 && self.idle.remove(&(kept.last_use, digest.clone())) {
            self.idle_bytes -= kept.size;
        }
        kept.readers += 1;
        kept.last_use = kept.last_use.max(now);
        Some((kept.number, kept.size))
    }

    /// A reader has closed its blob.
    pub(super) fn end_reading(&mut self, digest: &Digest, number: Number) {
        if let Some(kept) = self.kept.get_mut(digest).filter(|kept| kept.number == number) {
            kept.readers -= 1;
            if kept.readers == 0 {
                self.idle.insert((kept.last_use, digest.clone()));
                self.idle_bytes += kept.size;
            }
        } else if let Some(left) = self.leaving.get_mut(&number) {
            left.readers -= 1;
            if left.readers == 0 {
                self.on_disk -= left.size;
                self.leaving.remove(&number);
            }
        }
    }

    /// The blob of this number is known under this digest.
    pub(super) fn is_kept_as(&self, digest: &Digest, number: Number) -> bool {
        self.kept.get(digest).is_some_and(|kept| kept.number == number)
    }

    /// Forgets a blob that is no good or no longer there.
    pub(super) fn forget(&mut self, digest: &Digest) {
        let Some(kept) = self.kept.remove(digest) else { return };
        if kept.readers > 0 {
            self.leaving.insert(kept.number, kept);
            return;
        }
        self.idle.remove(&(kept.last_use, digest.clone()));
        self.idle_bytes -= kept.size;
        self.on_disk -= kept.size;
    }

    /// Lets go of what was used least lately, until everything fits or the rest is being read.
    pub(super) fn evict_surplus(&mut self) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        while self.bytes() > self.limits.bytes
            && let Some((_, digest)) = self.idle.first().cloned()
        {
            let size = self.kept.get(&digest).map_or(0, |kept| kept.size);
            self.forget(&digest);
            evicted.push((digest, size));
        }
        evicted
    }

    fn insert(&mut self, digest: &Digest, size: u64, last_use: SystemTime, readers: usize) -> Number {
        self.last_number += 1;
        let number = Number(self.last_number);
        self.on_disk += size;
        if readers == 0 {
            self.idle.insert((last_use, digest.clone()));
            self.idle_bytes += size;
        }
        self.kept.insert(digest.clone(), Kept { number, size, last_use, readers });
        number
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { bytes: 100, fills: 3, fill_bytes: 60 };

    fn digest(name: u8) -> Digest {
        Digest::sha256(&[name])
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn names(evicted: &[Evicted]) -> Vec<Digest> {
        evicted.iter().map(|(digest, _)| digest.clone()).collect()
    }

    #[test]
    fn what_was_used_least_lately_goes_first() {
        let mut ledger = Ledger::new(LIMITS);
        for (name, used) in [(1, 20), (2, 10), (3, 30)] {
            ledger.found(&digest(name), 30, at(used));
        }
        let (number, _) = ledger.begin_reading(&digest(2), at(40)).unwrap();
        ledger.end_reading(&digest(2), number);
        assert_eq!(names(&ledger.reserve(40).unwrap()), [digest(1)]);
        assert_eq!(ledger.bytes(), 100);
    }

    #[test]
    fn what_is_being_read_stays_and_counts_until_it_is_closed() {
        let mut ledger = Ledger::new(LIMITS);
        ledger.found(&digest(1), 70, at(1));
        let (number, _) = ledger.begin_reading(&digest(1), at(2)).unwrap();
        assert_eq!(ledger.reserve(40), Err(NoRoom::Now));
        ledger.forget(&digest(1));
        assert!(!ledger.has(&digest(1)));
        assert_eq!(ledger.reserve(40), Err(NoRoom::Now), "its file is open still");
        ledger.end_reading(&digest(1), number);
        assert_eq!(ledger.reserve(40), Ok(vec![]));
    }

    #[test]
    fn fills_are_bounded_by_count_and_by_bytes() {
        let mut ledger = Ledger::new(LIMITS);
        assert_eq!(ledger.reserve(61), Err(NoRoom::Never));
        for _ in 0..3 {
            ledger.reserve(1).unwrap();
        }
        assert_eq!(ledger.reserve(1), Err(NoRoom::Now));
        ledger.release(1);
        assert_eq!(ledger.reserve(59), Err(NoRoom::Now));
        ledger.reserve(58).unwrap();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(u64),
        Keep(usize, u8),
        Release(usize),
        Read(u8),
        Close(usize),
        Forget(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..80_u64).prop_map(Step::Reserve),
            3 => (0..3_usize, 0..8_u8).prop_map(|(fill, name)| Step::Keep(fill, name)),
            1 => (0..3_usize).prop_map(Step::Release),
            2 => (0..8_u8).prop_map(Step::Read),
            2 => (0..8_usize).prop_map(Step::Close),
            1 => (0..8_u8).prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 0..120)
    }

    /// Files as a directory has them: a name that is taken away leaves the file to those who have it open.
    #[derive(Default)]
    struct Disk {
        names: HashMap<Digest, usize>,
        /// Size, last use, how often it is open.
        files: Vec<(u64, u64, usize)>,
        fills: Vec<u64>,
        open: Vec<(Digest, Number, usize)>,
    }

    impl Disk {
        fn bytes(&self) -> u64 {
            let named = |index: &usize| self.names.values().any(|file| file == index);
            let files = self.files.iter().enumerate().filter(|(index, (_, _, open))| *open > 0 || named(index));
            files.map(|(_, (size, ..))| size).sum::<u64>() + self.fills.iter().sum::<u64>()
        }

        fn close(&mut self, ledger: &mut Ledger, reader: usize) {
            let (digest, number, file) = self.open.swap_remove(reader);
            self.files[file].2 -= 1;
            ledger.end_reading(&digest, number);
        }
    }

    proptest! {
        /// The count is that of a disk on which the same happens, it is never above the cap, nothing that is open is
        /// evicted, and nothing goes before something that was used longer ago.
        #[test]
        fn the_directory_never_holds_more_than_its_cap(steps in steps()) {
            let mut ledger = Ledger::new(LIMITS);
            let mut disk = Disk::default();
            for (now, step) in (1_u64..).zip(steps) {
                match step {
                    Step::Reserve(size) => if let Ok(evicted) = ledger.reserve(size) {
                        prop_assert!(disk.fills.len() < 3 && disk.fills.iter().sum::<u64>() + size <= 60);
                        for digest in names(&evicted) {
                            let (_, used, open) = disk.files[disk.names.remove(&digest).unwrap()];
                            prop_assert_eq!(open, 0);
                            let older = disk.names.values().map(|file| disk.files[*file]);
                            prop_assert!(older.filter(|(_, _, open)| *open == 0).all(|(_, other, _)| other >= used));
                        }
                        disk.fills.push(size);
                    },
                    Step::Keep(fill, name) => if fill < disk.fills.len() {
                        let size = disk.fills.swap_remove(fill);
                        let number = ledger.keep(&digest(name), size, at(now));
                        disk.files.push((size, now, 1));
                        disk.names.insert(digest(name), disk.files.len() - 1);
                        disk.open.push((digest(name), number, disk.files.len() - 1));
                    },
                    Step::Release(fill) => if fill < disk.fills.len() {
                        ledger.release(disk.fills.swap_remove(fill));
                    },
                    Step::Read(name) => {
                        let found = ledger.begin_reading(&digest(name), at(now));
                        prop_assert_eq!(found.is_some(), disk.names.contains_key(&digest(name)));
                        if let Some((number, size)) = found {
                            let file = disk.names[&digest(name)];
                            prop_assert_eq!(disk.files[file].0, size);
                            disk.files[file].1 = now;
                            disk.files[file].2 += 1;
                            disk.open.push((digest(name), number, file));
                        }
                    }
                    Step::Close(reader) => if reader < disk.open.len() {
                        disk.close(&mut ledger, reader);
                    },
                    Step::Forget(name) => {
                        ledger.forget(&digest(name));
                        disk.names.remove(&digest(name));
                    }
                }
                prop_assert_eq!(ledger.bytes(), disk.bytes());
                prop_assert!(ledger.bytes() <= 100);
            }
            while !disk.open.is_empty() {
                disk.close(&mut ledger, 0);
            }
            prop_assert_eq!(ledger.bytes(), disk.bytes());
        }
    }
}
