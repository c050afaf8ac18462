//! Named places at which the test build can be stopped, so that a test can kill it exactly there.
//!
//! Only debug builds have them. In a release build nothing can be armed and `reach` is empty.

/// A place between two steps of which a crash could leave one done and the other not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// An object is on the disk and has no name yet.
    Staged,
    /// An object has its name.
    Renamed,
    /// A document and its recipe are kept.
    RecipeWritten,
    /// All bytes of a layer are in the store, and nothing says what they stand for.
    LayerUploaded,
    /// It is written which gzip layer stands for a layer.
    TranscodingWritten,
    /// The client has the whole answer.
    AnswerSent,
}

#[cfg(not(debug_assertions))]
pub(crate) async fn reach(_point: FaultPoint) {}

#[cfg(debug_assertions)]
pub(crate) use armed::reach;
#[cfg(debug_assertions)]
pub use armed::{Arming, arm};

#[cfg(debug_assertions)]
mod armed {
    use std::io::Write;
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::FaultPoint;

    static ARMED: OnceLock<Arming> = OnceLock::new();
    static REACHED: AtomicUsize = AtomicUsize::new(0);

    /// Which point stops the process, and the how manieth time.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Arming {
        point: FaultPoint,
        time: usize,
    }

    const POINTS: [FaultPoint; 6] = [
        FaultPoint::Staged,
        FaultPoint::Renamed,
        FaultPoint::RecipeWritten,
        FaultPoint::LayerUploaded,
        FaultPoint::TranscodingWritten,
        FaultPoint::AnswerSent,
    ];

    /// The name of a point, and `:N` for the Nth time.
    impl FromStr for Arming {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            let (name, time) = text.split_once(':').unwrap_or((text, "1"));
            let point = POINTS.into_iter().find(|point| point.name() == name);
            match (point, time.parse()) {
                (Some(point), Ok(time)) => Ok(Self { point, time }),
                _ => Err(format!("expected one of {}, then `:N`", POINTS.map(FaultPoint::name).join(", "))),
            }
        }
    }

    impl FaultPoint {
        const fn name(self) -> &'static str {
            match self {
                Self::Staged => "staged",
                Self::Renamed => "renamed",
                Self::RecipeWritten => "recipe-written",
                Self::LayerUploaded => "layer-uploaded",
                Self::TranscodingWritten => "transcoding-written",
                Self::AnswerSent => "answer-sent",
            }
        }
    }

    /// Arms one point for the life of the process; the first call counts.
    pub fn arm(arming: Arming) {
        ARMED.get_or_init(|| arming);
    }

    /// Where this point is armed and its time has come: says so on standard output and goes no further, so that whoever
    /// reads it can kill the process here.
    pub(crate) async fn reach(point: FaultPoint) {
        let Some(arming) = ARMED.get().filter(|arming| arming.point == point) else { return };
        if REACHED.fetch_add(1, Ordering::Relaxed) + 1 != arming.time {
            return;
        }
        let mut output = std::io::stdout();
        let _ = writeln!(output, "fault point {} reached", point.name()).and_then(|()| output.flush());
        std::future::pending::<()>().await;
    }
}
