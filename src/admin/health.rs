//! How the gateway is, for those who start it, watch it and lead clients to it.
//!
//! An upstream or a store that is away is no part of it: that is answered request by request and heals without a restart.
//! Nor is a start: nothing is answered here before clients are served, so whoever asks early (a socket that systemd opened
//! holds connections from before the process) waits for the one answer that is true.

use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;

/// How the gateway is: serving, until it is told to stop.
#[derive(Debug, Default)]
pub struct Health {
    stopping: AtomicBool,
}

impl Health {
    /// It was told to stop.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The status and the word of a path, if it is one of health. The process is alive and has started while it answers, and
    /// is ready until it is told to stop; the other names are those that load balancers ask for.
    pub(super) fn of(&self, path: &str) -> Option<(StatusCode, &'static str)> {
        match path {
            "/readyz" | "/healthz" | "/health" if self.stopping.load(Ordering::Relaxed) => {
                Some((StatusCode::SERVICE_UNAVAILABLE, "stopping"))
            }
            "/livez" | "/startupz" | "/readyz" | "/healthz" | "/health" => Some((StatusCode::OK, "ok")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(health: &Health) -> [u16; 5] {
        let paths = ["/livez", "/startupz", "/readyz", "/healthz", "/health"];
        paths.map(|path| health.of(path).map_or(0, |(status, _)| status.as_u16()))
    }

    #[test]
    fn each_step_is_seen_by_those_whom_it_concerns() {
        let health = Health::default();
        assert_eq!(statuses(&health), [200; 5]);
        health.stopping();
        assert_eq!(statuses(&health), [200, 200, 503, 503, 503]);
        assert_eq!(health.of("/readyz").map(|(_, word)| word), Some("stopping"));
        assert_eq!(health.of("/"), None);
    }
}
