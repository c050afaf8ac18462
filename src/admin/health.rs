//! How the gateway is, for those who start it, watch it and lead clients to it.
//!
//! An upstream or a store that is away is no part of it: that is answered request by request and heals without a restart.

use std::sync::atomic::{AtomicU8, Ordering};

use http::StatusCode;

/// How the gateway is.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;

impl Health {
    /// It listens, with a configuration that is in force.
    pub fn started(&self) {
        // Whoever is told to stop while it starts does not become ready again.
        let _stopping = self.0.compare_exchange(STARTING, SERVING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It was told to stop.
    pub fn stopping(&self) {
        self.0.store(STOPPING, Ordering::Relaxed);
    }

    /// The status and the word of a path, if it is one of health. The process is alive while it answers. It has started for
    /// good, and is ready until it is told to stop; the other names are those that load balancers ask for.
    pub(super) fn of(&self, path: &str) -> Option<(StatusCode, &'static str)> {
        let now = self.0.load(Ordering::Relaxed);
        match (path, now) {
            ("/livez", _) | ("/startupz", SERVING | STOPPING) => Some((StatusCode::OK, "ok")),
            ("/startupz", _) => Some((StatusCode::SERVICE_UNAVAILABLE, "starting")),
            ("/readyz" | "/healthz" | "/health", now) => Some(match now {
                SERVING => (StatusCode::OK, "ok"),
                STOPPING => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            }),
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
        assert_eq!(statuses(&health), [200, 503, 503, 503, 503]);
        assert_eq!(health.of("/readyz").map(|(_, word)| word), Some("starting"));
        health.started();
        assert_eq!(statuses(&health), [200; 5]);
        health.stopping();
        assert_eq!(statuses(&health), [200, 200, 503, 503, 503]);
        assert_eq!(health.of("/readyz").map(|(_, word)| word), Some("stopping"));
        health.started();
        assert_eq!(statuses(&health), [200, 200, 503, 503, 503]);
        assert_eq!(health.of("/"), None);
    }
}
