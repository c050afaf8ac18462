//! Growth: what a store lets go of, and when.
//!
//! Bytes can be made again, so they go by last use when they are too many; recipes cannot, and have bounds of their own.
//! What this binary cannot make again (bytes of an older edition) goes last. What it does not know (names that mean nothing
//! to it, newer editions) is not touched.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::translate::EDITION;

use super::layout::{CLAIMS, CONFIGS, DOCUMENTS, LAYOUT, Name, RECIPES};
use super::{Location, Store, StoreFailure, directory};

/// How much a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many bytes of derived documents; `None` for no bound. Default 10 GiB.
    pub documents_bytes_max: Option<u64>,
    /// How many bytes of layers that were made of others; `None` for no bound. Default 50 GiB.
    pub layers_bytes_max: Option<u64>,
    /// How many recipes, configs that were made with documents among them. Default 1,000,000.
    pub recipes_max: usize,
    /// How long after its last use a recipe is kept. Default 400 days.
    pub recipe_age_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            documents_bytes_max: Some(10 << 30),
            layers_bytes_max: Some(Self::LAYERS_BYTES_MAX),
            recipes_max: 1_000_000,
            recipe_age_max: Duration::from_secs(400 * 24 * 3600),
        }
    }
}

impl Bounds {
    /// How many bytes of layers that were made of others a store may hold, where nothing else is said.
    pub const LAYERS_BYTES_MAX: u64 = 50 << 30;
}

/// How old a claim, or an object that never came to its name, is when it is cleared away.
pub const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// From this many recipes on, a sweep that nobody asked for does not remove more than half of them for their age: it is
/// likelier that the clock is wrong.
pub const SUSPICIOUS_RECIPES: usize = 1_000;
/// A last use before 2020 was written by a machine that did not know the time.
const EARLIEST_USE: Duration = Duration::from_secs(1_577_836_800);
/// How many objects are removed at once.
const REMOVALS_AT_ONCE: usize = 16;

/// Whether somebody looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The gateway does it by itself.
    Background,
    /// The same, by a clock that ran away meanwhile: nothing is removed for its age.
    BackgroundWithoutClock,
    /// An operator asked for it.
    ByHand,
    /// An operator wants to know what it would do.
    Rehearsal,
}

/// What a sweep did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Recipes that were removed.
    pub recipes: u64,
    /// Documents that were removed; each can be made again while its recipe is there.
    pub documents: u64,
    /// Of these, documents of an older edition, which may not be made again.
    pub documents_of_older_editions: u64,
    /// The bytes of those documents.
    pub documents_bytes: u64,
    /// Layers that were removed; each can be made again while the upstream has what it stands for.
    pub layers: u64,
    /// The bytes of those layers.
    pub layers_bytes: u64,
    /// Claims and objects that never came to their names.
    pub leftovers: u64,
    /// The age of recipes was not gone by, because the clock is likely wrong.
    pub is_clock_suspicious: bool,
}

/// What is there, as far as a decision needs it. Times are seconds after 1970.
#[derive(Clone, Debug, Default)]
struct Census {
    own: Vec<(u64, u64)>,
    older: Vec<(u64, u64)>,
    recipes: Vec<u64>,
}

/// What goes: everything whose last use is before a moment, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Plan {
    recipes_before: u64,
    own_before: u64,
    older_before: u64,
    is_clock_suspicious: bool,
}

/// What becomes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    /// Its last use is not known; it counts as used now.
    IsTouched,
    Goes,
}

impl Census {
    fn add(&mut self, name: &Name, size: u64, last_use: u64) {
        match name {
            Name::Document { edition, .. } if *edition == EDITION => self.own.push((last_use, size)),
            Name::Document { edition, .. } if *edition < EDITION => self.older.push((last_use, size)),
            Name::Recipe { edition, .. } | Name::Config { edition, .. } if *edition <= EDITION => {
                self.recipes.push(last_use);
            }
            _ => {}
        }
    }

    fn plan(mut self, bounds: Bounds, now: u64, occasion: Occasion) -> Plan {
        self.recipes.sort_unstable();
        let aged = now.saturating_sub(bounds.recipe_age_max.as_secs());
        let old = self.recipes.partition_point(|last_use| *last_use < aged);
        let is_clock_suspicious = match occasion {
            Occasion::Background => self.recipes.len() > SUSPICIOUS_RECIPES && old * 2 > self.recipes.len(),
            Occasion::BackgroundWithoutClock => old > 0,
            Occasion::ByHand | Occasion::Rehearsal => false,
        };
        let aged = if is_clock_suspicious { 0 } else { aged };
        let crowded = match self.recipes.len().saturating_sub(bounds.recipes_max) {
            0 => 0,
            too_many => self.recipes.get(too_many - 1).map_or(0, |last_use| last_use + 1),
        };
        let recipes_before = aged.max(crowded);
        let mut plan =
            Plan { recipes_before, own_before: recipes_before, older_before: recipes_before, is_clock_suspicious };
        let Some(bytes_max) = bounds.documents_bytes_max else { return plan };
        for documents in [&mut self.own, &mut self.older] {
            documents.retain(|(last_use, _)| *last_use >= recipes_before);
            documents.sort_unstable();
        }
        let bytes = |documents: &[(u64, u64)]| documents.iter().map(|(_, size)| size).sum::<u64>();
        let mut too_much = (bytes(&self.own) + bytes(&self.older)).saturating_sub(bytes_max);
        // Own bytes first, all of them if need be, and only then those that cannot be made again.
        plan.own_before = before_enough_is_gone(&self.own, &mut too_much).unwrap_or(plan.own_before);
        plan.older_before = before_enough_is_gone(&self.older, &mut too_much).unwrap_or(plan.older_before);
        plan
    }
}

/// The moment before which documents have to go, oldest first, until no bytes are too much; `None` if none has to.
fn before_enough_is_gone(documents: &[(u64, u64)], too_much: &mut u64) -> Option<u64> {
    let mut before = None;
    for (last_use, size) in documents {
        if *too_much == 0 {
            break;
        }
        before = Some(last_use + 1);
        *too_much = too_much.saturating_sub(*size);
    }
    before
}

impl Plan {
    fn verdict(&self, name: &Name, modified: u64, now: u64) -> Verdict {
        let before = match name {
            Name::Document { edition, .. } if *edition == EDITION => self.own_before,
            Name::Document { edition, .. } if *edition < EDITION => self.older_before,
            Name::Recipe { edition, .. } | Name::Config { edition, .. } if *edition <= EDITION => self.recipes_before,
            Name::Claim if now.saturating_sub(modified) > LEFTOVER_AGE.as_secs() => return Verdict::Goes,
            _ => return Verdict::Stays,
        };
        if modified < EARLIEST_USE.as_secs() {
            return Verdict::IsTouched;
        }
        if modified < before { Verdict::Goes } else { Verdict::Stays }
    }
}

/// When an object was last used, as far as that can be believed: not in the future, and not before there were clocks.
pub(super) fn believable(modified: u64, now: u64) -> u64 {
    if modified < EARLIEST_USE.as_secs() { now } else { modified.min(now) }
}

pub(super) fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Store {
    /// Lets go of what is beyond the bounds. Reads the names of all objects twice and keeps 16 bytes of each: a million take
    /// some seconds. Other replicas may write and sweep meanwhile. `look` is told each object that was looked at.
    pub async fn sweep(
        &self,
        bounds: Bounds,
        occasion: Occasion,
        mut look: impl FnMut() + Send,
    ) -> Result<Swept, StoreFailure> {
        let now = seconds(SystemTime::now());
        let mut census = Census::default();
        for folder in [DOCUMENTS, RECIPES, CONFIGS] {
            let mut objects = self.listing(&Path::from_iter([LAYOUT, folder]));
            while let Some(object) = objects.try_next().await? {
                look();
                if let Some(name) = Name::of(&object.location) {
                    census.add(&name, object.size, believable(modified(&object), now));
                }
            }
        }
        let plan = census.plan(bounds, now, occasion);
        let mut swept = Swept { is_clock_suspicious: plan.is_clock_suspicious, ..Swept::default() };
        for folder in [DOCUMENTS, RECIPES, CONFIGS, CLAIMS] {
            self.remove(folder, &plan, now, occasion, &mut swept).await?;
        }
        self.sweep_layers(bounds.layers_bytes_max, occasion, &mut swept, &mut look).await?;
        swept.leftovers += self.clear_staging(occasion).await?;
        Ok(swept)
    }

    async fn remove(
        &self,
        folder: &str,
        plan: &Plan,
        now: u64,
        occasion: Occasion,
        swept: &mut Swept,
    ) -> Result<(), StoreFailure> {
        let objects = self.listing(&Path::from_iter([LAYOUT, folder]));
        let judged = objects.try_filter_map(|object| {
            let judged = Name::of(&object.location).map(|name| (plan.verdict(&name, modified(&object), now), name));
            let concerned = judged.filter(|(verdict, _)| *verdict != Verdict::Stays);
            std::future::ready(Ok(concerned.map(|(verdict, name)| (verdict, name, object))))
        });
        let done = judged.map_ok(|(verdict, name, object)| async move {
            match verdict {
                Verdict::Stays => {}
                _ if occasion == Occasion::Rehearsal => {}
                // What cannot be touched now stays as it is, and is found again by the next sweep.
                Verdict::IsTouched => drop(self.refresh(&object.location).await),
                Verdict::Goes => match super::timed(self.objects.delete(&object.location)).await {
                    // Another replica was first.
                    Some(Ok(()) | Err(object_store::Error::NotFound { .. })) => {}
                    Some(Err(error)) => return Err(StoreFailure::new("remove", &error)),
                    None => return Err(StoreFailure::timed_out("remove")),
                },
            }
            Ok((verdict, name, object.size))
        });
        let mut done = done.try_buffer_unordered(REMOVALS_AT_ONCE).boxed();
        while let Some((verdict, name, size)) = done.try_next().await? {
            if verdict == Verdict::Goes {
                swept.note(&name, size);
            }
        }
        Ok(())
    }

    /// Objects that a crash left on their way to their names.
    async fn clear_staging(&self, occasion: Occasion) -> Result<u64, StoreFailure> {
        let Location::Directory(root) = &self.location else { return Ok(0) };
        if occasion == Occasion::Rehearsal {
            return Ok(0);
        }
        let root = root.clone();
        let cleared = tokio::task::spawn_blocking(move || directory::clear_staging(&root, LEFTOVER_AGE)).await;
        cleared
            .map_err(|error| StoreFailure::new("clear away leftovers", &error))?
            .map_err(|error| StoreFailure::new("clear away leftovers", &error))
    }

    /// Every object below a folder.
    pub(super) fn listing(
        &self,
        folder: &Path,
    ) -> futures_util::stream::BoxStream<'static, Result<ObjectMeta, StoreFailure>> {
        self.objects.list(Some(folder)).map_err(|error| StoreFailure::new("list", &error)).boxed()
    }
}

impl Swept {
    pub(super) fn note(&mut self, name: &Name, size: u64) {
        match name {
            Name::Document { edition, .. } => {
                self.documents += 1;
                self.documents_bytes += size;
                self.documents_of_older_editions += u64::from(*edition != EDITION);
            }
            Name::Recipe { .. } | Name::Config { .. } => self.recipes += 1,
            Name::Layer { .. } => {
                self.layers += 1;
                self.layers_bytes += size;
            }
            Name::Facts { .. } | Name::Transcoding { .. } | Name::Transcoded { .. } => {}
            Name::Claim | Name::SigningKey | Name::Staged => self.leftovers += 1,
        }
    }
}

pub(super) fn modified(object: &ObjectMeta) -> u64 {
    seconds(object.last_modified.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 2_000_000_000;
    const DAY: u64 = 24 * 3600;

    fn document(edition: u32) -> Name {
        Name::Document { edition, derived: String::new(), scope: String::new() }
    }

    fn recipe(edition: u32) -> Name {
        Name::Recipe { edition, derived: String::new(), scope: String::new(), source: String::new() }
    }

    fn plan(objects: &[(Name, u64, u64)], bounds: Bounds, occasion: Occasion) -> Plan {
        let mut census = Census::default();
        for (name, size, last_use) in objects {
            census.add(name, *size, believable(*last_use, NOW));
        }
        census.plan(bounds, NOW, occasion)
    }

    fn stays(objects: &[(Name, u64, u64)], bounds: Bounds, occasion: Occasion) -> Vec<bool> {
        let plan = plan(objects, bounds, occasion);
        objects.iter().map(|(name, _, last_use)| plan.verdict(name, *last_use, NOW) != Verdict::Goes).collect()
    }

    fn of_size(bytes_max: u64) -> Bounds {
        Bounds { documents_bytes_max: Some(bytes_max), ..Bounds::default() }
    }

    #[test]
    fn bytes_go_by_last_use() {
        let objects =
            [(document(EDITION), 40, NOW - 3), (document(EDITION), 40, NOW - 1), (document(EDITION), 40, NOW - 2)];
        assert_eq!(stays(&objects, of_size(120), Occasion::Background), [true; 3]);
        assert_eq!(stays(&objects, of_size(119), Occasion::Background), [false, true, true]);
        assert_eq!(stays(&objects, of_size(79), Occasion::Background), [false, true, false]);
        let unbounded = Bounds { documents_bytes_max: None, ..Bounds::default() };
        assert_eq!(stays(&objects, unbounded, Occasion::Background), [true; 3]);
    }

    #[test]
    fn what_cannot_be_made_again_goes_last_and_what_is_not_known_never() {
        let objects = [
            (document(EDITION - 1), 40, NOW - 9),
            (document(EDITION - 1), 40, NOW - 8),
            (document(EDITION), 40, NOW - 1),
            (document(EDITION + 1), 40, NOW - 400 * DAY - 1),
            (recipe(EDITION + 1), 1, NOW - 400 * DAY - 1),
        ];
        assert_eq!(stays(&objects, of_size(80), Occasion::Background), [true, true, false, true, true]);
        assert_eq!(stays(&objects, of_size(79), Occasion::Background), [false, true, false, true, true]);
        assert_eq!(stays(&objects, of_size(0), Occasion::ByHand), [false, false, false, true, true]);
    }

    #[test]
    fn recipes_go_by_age_and_by_number_and_take_their_bytes_along() {
        let objects = [
            (recipe(EDITION), 1, NOW - 400 * DAY - 1),
            (document(EDITION), 1, NOW - 400 * DAY - 1),
            (recipe(EDITION), 1, NOW - 400 * DAY),
            (recipe(EDITION), 1, NOW),
        ];
        assert_eq!(stays(&objects, Bounds::default(), Occasion::Background), [false, false, true, true]);
        let one = Bounds { recipes_max: 1, ..Bounds::default() };
        assert_eq!(stays(&objects, one, Occasion::Background), [false, false, false, true]);
    }

    #[test]
    fn a_clock_that_is_likely_wrong_is_not_gone_by() {
        let mut objects = vec![(recipe(EDITION), 1, NOW - 500 * DAY); SUSPICIOUS_RECIPES];
        assert!(stays(&objects, Bounds::default(), Occasion::Background).iter().all(|stays| !stays));
        objects.push((recipe(EDITION), 1, NOW));
        assert!(stays(&objects, Bounds::default(), Occasion::Background).iter().all(|stays| *stays));
        assert!(plan(&objects, Bounds::default(), Occasion::Background).is_clock_suspicious);
        assert_eq!(stays(&objects, Bounds::default(), Occasion::ByHand).iter().filter(|stays| **stays).count(), 1);
        let few = &objects[..10];
        assert!(stays(few, Bounds::default(), Occasion::BackgroundWithoutClock).iter().all(|stays| *stays));
        let unknown = plan(&[(recipe(EDITION), 1, 7)], Bounds::default(), Occasion::ByHand);
        assert_eq!(unknown.verdict(&recipe(EDITION), 7, NOW), Verdict::IsTouched, "1970 is no last use");
    }

    proptest! {
        /// Nothing newer goes before something older of its kind, and what is left keeps the bounds.
        #[test]
        fn what_is_left_keeps_the_bounds(
            uses in prop::collection::vec((0..3_u32, 0..100_u64, 0..1000_u64), 0..60),
            bytes_max in 0..3000_u64,
            recipes_max in 0..20_usize,
        ) {
            let objects: Vec<_> = uses.iter().map(|(kind, size, age)| {
                let name = match kind { 0 => document(EDITION), 1 => document(EDITION - 1), _ => recipe(EDITION) };
                (name, *size, NOW - age * DAY)
            }).collect();
            let bounds = Bounds { documents_bytes_max: Some(bytes_max), recipes_max, ..Bounds::default() };
            let left = stays(&objects, bounds, Occasion::ByHand);
            let left: Vec<_> = objects.iter().zip(&left).collect();
            let kept = |wanted: fn(&Name) -> bool| left.iter().filter(move |((name, ..), stays)| **stays && wanted(name));
            let bytes: u64 = kept(|name| matches!(name, Name::Document { .. })).map(|((_, size, _), _)| size).sum();
            prop_assert!(bytes <= bytes_max);
            let recipes = kept(|name| matches!(name, Name::Recipe { .. })).count();
            prop_assert!(recipes <= recipes_max);
            for ((name, _, last_use), stays) in &left {
                let overtaken = left.iter().any(|((other, _, later), stays)| name == other && later > last_use && !**stays);
                prop_assert!(!(**stays && overtaken));
            }
        }
    }
}
