//! The end: from a signal to the last connection.

use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::admin::Health;
use crate::config::lifecycle::LifecycleArguments;
use crate::server::Stop;

use super::super::systemd;

/// How long the operator's last request may take when all clients are gone.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The signals that end the gateway.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they no longer end the process.
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves these clients until a signal comes and then until all is finished that was under way, or the time for it or the
/// patience of the operator is over. What serves them says how many connections were cut.
pub(super) async fn serve_until_told(
    mut signals: Signals,
    health: &Health,
    stop: &Stop,
    times: &LifecycleArguments,
    clients: impl Future<Output = usize>,
) {
    let mut clients = pin!(clients);
    tokio::select! {
        _ = &mut clients => return,
        () = signals.next() => {}
    }
    let LifecycleArguments { drain_delay: delay, drain_timeout: timeout, .. } = times;
    health.stopping();
    systemd::stopping(delay.saturating_add(*timeout));
    tracing::info!(delay_seconds = delay.as_secs_f64(), timeout_seconds = timeout.as_secs_f64(), "stopping");
    stop.leave();
    let steps = async {
        tokio::time::sleep(*delay).await;
        stop.close();
        tracing::info!("no connection is taken any more");
        tokio::time::sleep(*timeout).await;
    };
    let why = tokio::select! {
        _ = &mut clients => return tracing::info!("all that was under way is finished"),
        () = steps => "they did not finish in time",
        () = signals.next() => "a second signal came",
    };
    stop.cut();
    let connections = clients.await;
    tracing::warn!(connections, why, "connections were cut");
}

/// Ends what serves the operator, who was answered until now.
pub(super) async fn end_operator(stop: &Stop, mut served: JoinHandle<usize>) {
    stop.close();
    if tokio::time::timeout(ADMIN_TIMEOUT, &mut served).await.is_err() {
        stop.cut();
        let _cut = served.await;
    }
}
