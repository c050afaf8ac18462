//! What a layer that cannot be read means for whoever asked for the image.

use crate::image::digest::Digest;
use crate::store::blobs::Broken;
use crate::transcode::Fault;
use crate::upstream::Failure;

use crate::gateway::derive::Obstacle;

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
