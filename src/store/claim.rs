//! Claims: so that replicas which are asked for the same at the same time do not all do the same work.
//!
//! Best effort. Nothing is wrong when a claim is lost, overwritten or never seen: two replicas then make the same bytes,
//! and the first that keeps them has made them.

use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::recipe::Recipe;
use super::{Put, Store, frame, layout};

/// After this long a claim whose holder has not come to an end counts for nothing.
pub const CLAIM_EXPIRY: Duration = Duration::from_secs(30);

/// Who is at a derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This process, from now on.
    Ours,
    /// Another one.
    Theirs,
    /// Another one was, and this is how it made the document.
    Made(Box<Recipe>),
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    AtWork,
    Made(Box<Recipe>),
}

impl Store {
    /// Claims a derivation, named by 64 hexadecimal digits. A store that fails claims nothing for anybody.
    pub async fn claim(&self, dish: &str) -> Claim {
        let Some(object) = object(&State::AtWork) else { return Claim::Ours };
        if matches!(self.put_if_absent(&layout::claim(dish), object.clone()).await, Ok(Put::Done) | Err(_)) {
            return Claim::Ours;
        }
        if let Some(claim) = self.claimed(dish).await {
            return claim;
        }
        self.settle_with(dish, object).await;
        Claim::Ours
    }

    /// What a claim by another says now; `None` if there is none that counts.
    pub async fn claimed(&self, dish: &str) -> Option<Claim> {
        let (object, meta) = self.read(&layout::claim(dish)).await.ok()??;
        match serde_json::from_slice(&frame::unwrap(&object)?).ok()? {
            State::Made(recipe) => Some(Claim::Made(recipe)),
            State::AtWork => (super::age_of(meta.last_modified.into()) < CLAIM_EXPIRY).then_some(Claim::Theirs),
        }
    }

    /// Ends a claim: tells those who wait how the document was made, or that nothing came of it.
    pub async fn settle(&self, dish: &str, made: Option<&Recipe>) {
        match made.and_then(|recipe| object(&State::Made(Box::new(recipe.clone())))) {
            Some(object) => self.settle_with(dish, object).await,
            None => {
                let _ = super::timed(self.objects.delete(&layout::claim(dish))).await;
            }
        }
    }

    /// A claim that cannot be written is one that nobody sees, which is allowed.
    async fn settle_with(&self, dish: &str, object: Bytes) {
        let _ = super::timed(self.put(&layout::claim(dish), object)).await;
    }
}

fn object(state: &State) -> Option<Bytes> {
    serde_json::to_vec(state).ok().map(|content| frame::wrap(&content))
}
