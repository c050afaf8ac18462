//! Work that is done once, however many ask for it at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::upstream::{Asked, Remembered, continued};

use super::Gateway;
use super::derive::Obstacle;
use super::metrics::{Followed, Metrics};

/// How shared work ended, for one of those who waited.
pub(super) enum Shared<Value> {
    Done(Value),
    Refused(Obstacle),
    SomebodyElsesRefusal,
}

impl Gateway {
    /// Runs shared work on a task that no client can cancel, and tells one's own refusal from another's.
    pub(super) async fn share<Value, Work, Running>(&self, cache: Remembered, work: Work) -> Shared<Value>
    where
        Value: Send + 'static,
        Work: FnOnce(Arc<Lead>) -> Running,
        Running: Future<Output = Result<Value, Arc<Obstacle>>> + Send + 'static,
    {
        let lead = Arc::new(Lead { is_ours: AtomicBool::new(false), cache, metrics: Arc::clone(&self.shared.metrics) });
        let shared = tokio::spawn(continued(work(Arc::clone(&lead)))).await;
        let is_ours = lead.is_ours.load(Ordering::Acquire);
        self.count_asked(cache, if is_ours { Asked::Miss } else { Asked::Coalesced });
        let answer = match shared {
            Ok(Ok(value)) => Shared::Done(value),
            Ok(Err(obstacle)) => match &*obstacle {
                Obstacle::Upstream(failure) if failure.is_about_the_caller() && !is_ours => {
                    Shared::SomebodyElsesRefusal
                }
                obstacle => Shared::Refused(obstacle.clone()),
            },
            Err(_) => return Shared::Refused(Obstacle::Internal),
        };
        if !is_ours {
            let followed =
                if let Shared::SomebodyElsesRefusal = answer { Followed::LeaderFailed } else { Followed::Served };
            self.shared.metrics.count_follower(cache, followed);
        }
        answer
    }
}

/// Who works for all who ask the same.
pub(super) struct Lead {
    is_ours: AtomicBool,
    cache: Remembered,
    metrics: Arc<Metrics>,
}

/// The work itself, done by whoever was first.
pub(super) async fn led_by<Output>(lead: Arc<Lead>, work: impl Future<Output = Output>) -> Output {
    lead.is_ours.store(true, Ordering::Release);
    let _shown = lead.metrics.flight(lead.cache);
    work.await
}
