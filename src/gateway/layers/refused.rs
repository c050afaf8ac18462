//! What a layer that cannot be read means for whoever asked for the image, and for whoever asks next.

use std::time::Duration;

use moka::sync::Cache;

use crate::image::digest::Digest;
use crate::store::blobs::Broken;
use crate::transcode::Fault;
use crate::upstream::Failure;

use crate::gateway::derive::Obstacle;

use super::Purpose;

/// How many layers are known to be bad at a time.
const REFUSALS_MAX: u64 = 1024;
/// How long a layer is known to be bad. It will not get better: this is for whoever repaired more than the layer.
const REFUSAL_LIFE: Duration = Duration::from_secs(60 * 60);

/// Layers that were found bad, so that not each who asks has them read again. Only what their own bytes are to blame for,
/// within the bounds of this process, so it holds wherever they come from.
pub(super) struct Refusals(Cache<Wanted, Fault>);

/// A layer, what it was wanted for, and the digest that its archive was to have.
type Wanted = (Digest, Purpose, Option<Digest>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REFUSALS_MAX).time_to_live(REFUSAL_LIFE).build())
    }
}

impl Refusals {
    /// What stands in the way of reading a layer, if it is known to be bad.
    pub(super) fn check(&self, purpose: Purpose, (layer, diff_id): (&Digest, Option<&Digest>)) -> Result<(), Obstacle> {
        let known = self.0.get(&(layer.clone(), purpose, diff_id.cloned()));
        known.map_or(Ok(()), |fault| Err(obstacle(layer, fault)))
    }

    /// What a fault means, which is remembered where it is the layer's own.
    pub(super) fn note(
        &self,
        purpose: Purpose,
        (layer, diff_id): (&Digest, Option<&Digest>),
        fault: Fault,
    ) -> Obstacle {
        if fault.is_of_the_bytes() {
            self.0.insert((layer.clone(), purpose, diff_id.cloned()), fault.clone());
        }
        obstacle(layer, fault)
    }
}

/// A layer whose bytes are bad is the image's fault; whatever came on the way here is the upstream's.
pub(super) fn obstacle(layer: &Digest, fault: Fault) -> Obstacle {
    match fault {
        Fault::Source(failure) => match failure.0.downcast_ref::<Broken>() {
            Some(Broken::Upstream(failure)) => Obstacle::Upstream(failure.clone()),
            Some(Broken::Store(failure)) => Obstacle::Store(failure.clone()),
            // What was found damaged is not kept any longer: whoever asks next gets it from the upstream.
            Some(Broken::Disk(_) | Broken::Damaged | Broken::Yielded) | None => Obstacle::Internal,
        },
        Fault::WrongDigest { expected, found } => Obstacle::Upstream(Failure::WrongBytes { expected, found }),
        Fault::Unproven(fault) => obstacle(layer, *fault),
        Fault::Damaged(_)
        | Fault::OtherCompression(_)
        | Fault::NoArchive
        | Fault::NotZstd
        | Fault::TooLarge { .. }
        | Fault::Bomb { .. }
        | Fault::WrongDiffId { .. } => Obstacle::Layer(format!("its layer {layer} {fault}")),
        Fault::Abandoned | Fault::Internal => Obstacle::Internal,
    }
}
