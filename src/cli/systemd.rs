//! What systemd hears of the gateway, where it wants to: see `sd_notify(3)`.

use std::time::Duration;

use crate::config::systemd::{NotifyState, tell, watchdog};

use super::reload::Taken;

/// What systemd allows beyond the time that the end may take.
const MARGIN: Duration = Duration::from_secs(10);

/// Clients can connect.
pub(super) fn ready(listening: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("listening on {listening}"))]);
}

/// The configuration is being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "there is no clock to tell systemd when the reload began"),
    }
}

/// It was read; clients are answered on, whether it could be used or not.
pub(super) fn reloaded(taken: Taken) {
    let status = match taken {
        Taken::Ok => "what was read again is in force",
        Taken::Failed => "what was read again cannot be used; what was before stays in force",
    };
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun and may take so long.
pub(super) fn stopping(within: Duration) {
    let microseconds = u32::try_from((within + MARGIN).as_micros()).unwrap_or(u32::MAX);
    let status = NotifyState::Status("finishing what is under way");
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds), status]);
}

/// Tells systemd, as often as it wants, that the gateway answers; never returns. It says nothing while it does not.
pub(super) async fn report_life<Answers: Future<Output = bool> + Send + 'static>(answers: impl Fn() -> Answers) {
    let Some(limit) = watchdog() else { return };
    beat(limit, answers, || tell(&[NotifyState::Watchdog])).await;
}

async fn beat<Answers: Future<Output = bool> + Send + 'static>(
    limit: Duration,
    answers: impl Fn() -> Answers,
    alive: impl Fn(),
) {
    let mut beats = tokio::time::interval(limit / 2);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        // A task of its own shows that the runtime still comes to new ones.
        if let Ok(Ok(true)) = tokio::time::timeout(limit / 4, tokio::spawn(answers())).await {
            alive();
        } else {
            tracing::warn!("the gateway does not answer itself, and systemd is not told that it is alive");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// How often it says that it is alive within ten limits, if its answer is there after so many seconds.
    async fn beats(answers: bool, seconds: u64) -> u32 {
        let (alive, after) = (AtomicU32::default(), Arc::new(AtomicU64::new(seconds)));
        let answering = || {
            let after = Arc::clone(&after);
            async move {
                tokio::time::sleep(Duration::from_secs(after.load(Ordering::Relaxed))).await;
                answers
            }
        };
        let note = || {
            alive.fetch_add(1, Ordering::Relaxed);
        };
        let beating = beat(LIMIT, answering, note);
        assert!(tokio::time::timeout(10 * LIMIT, beating).await.is_err());
        alive.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_alive_while_it_answers_in_time() {
        assert!((19..=21).contains(&beats(true, 0).await));
        assert!((19..=21).contains(&beats(true, 2).await));
        assert_eq!(beats(true, 3).await, 0);
        assert_eq!(beats(false, 0).await, 0);
    }
}
