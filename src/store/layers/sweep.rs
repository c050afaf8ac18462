//! Growth: gzip layers go by last use when their bytes are too many. What they stand for stays written down.

use std::time::SystemTime;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::store::layout::{LAYERS, LAYOUT, Name};
use crate::store::sweep::{LEFTOVER_AGE, Occasion, Swept, believable, modified, seconds};
use crate::store::{Store, StoreFailure};

impl Store {
    /// Lets go of uploads that stand for nothing, and of the layers that were used least lately while they are too many.
    pub(in crate::store) async fn sweep_layers(
        &self,
        bytes_max: Option<u64>,
        occasion: Occasion,
        swept: &mut Swept,
        look: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreFailure> {
        let now = seconds(SystemTime::now());
        let mut standing = Vec::new();
        let mut objects = self.listing(&Path::from_iter([LAYOUT, LAYERS]));
        while let Some(object) = objects.try_next().await? {
            look();
            let Some(name @ Name::Layer { .. }) = Name::of(&object.location) else { continue };
            let last_use = believable(modified(&object), now);
            if now.saturating_sub(last_use) > LEFTOVER_AGE.as_secs() && self.is_leftover(&name, &object).await? {
                self.let_go(&object, occasion).await?;
                swept.leftovers += 1;
                continue;
            }
            standing.push((last_use, object, name));
        }
        let Some(bytes_max) = bytes_max else { return Ok(()) };
        standing.sort_by(|(left, one, _), (right, other, _)| {
            left.cmp(right).then_with(|| one.location.cmp(&other.location))
        });
        let mut too_much = standing.iter().map(|(_, object, _)| object.size).sum::<u64>().saturating_sub(bytes_max);
        for (_, object, name) in standing {
            if too_much == 0 {
                break;
            }
            too_much = too_much.saturating_sub(object.size);
            self.let_go(&object, occasion).await?;
            swept.note(&name, object.size);
        }
        Ok(())
    }

    /// An upload that no record names: a crash came between the two, or another replica was first.
    async fn is_leftover(&self, name: &Name, object: &ObjectMeta) -> Result<bool, StoreFailure> {
        let Name::Layer { layer, maker } = name else { return Ok(false) };
        let decided = self.decided(layer, maker).await?;
        Ok(decided.is_none_or(|decided| decided.path() != object.location))
    }

    async fn let_go(&self, object: &ObjectMeta, occasion: Occasion) -> Result<(), StoreFailure> {
        if occasion == Occasion::Rehearsal {
            return Ok(());
        }
        match crate::store::timed(self.objects.delete(&object.location)).await {
            // Another replica was first.
            Some(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Some(Err(error)) => Err(StoreFailure::new("remove", &error)),
            None => Err(StoreFailure::timed_out("remove")),
        }
    }
}
