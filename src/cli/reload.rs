//! Reading the configuration again while the gateway runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::Signal;

use crate::config::ServeArguments;
use crate::config::file::File;
use crate::gateway::Service;
use crate::server::tls::Tls;

use super::{Command, CommandLine, Failure, systemd};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How often the configuration was read again, and when it last could be used.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    reloads: Family<Reload, Counter>,
    last_success: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        // Shown from the start, so that an alert on the first failure has something to rise from.
        for taken in [Taken::Ok, Taken::Failed] {
            drop(self.reloads.get_or_create(&Reload { result: taken.as_str() }));
        }
        let reloads = self.reloads.clone();
        registry.register("config_reloads", "Times that the configuration was read again, by how that ended", reloads);
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration that is in force was read",
            self.last_success.clone(),
        );
        self.note_success();
    }

    fn note_success(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}

/// Reads the configuration and the certificates again on SIGHUP and when their files change; never returns. What cannot be
/// used changes nothing.
pub(super) async fn keep_up(
    mut again: Again,
    mut hangup: Signal,
    service: Arc<Service>,
    tls: Option<Tls>,
    metrics: Metrics,
) {
    loop {
        let change = tokio::select! {
            _ = hangup.recv() => {
                again.file.has_changed().await;
                Change::Told
            }
            () = again.file.change() => Change::Configuration,
            () = certificates_change(tls.as_ref()) => Change::Certificates,
        };
        systemd::reloading();
        let configuration = (change != Change::Certificates).then(|| again.take_effect(&service));
        let certificates = match change {
            Change::Configuration => None,
            Change::Told | Change::Certificates => certificates_take_effect(tls.clone()).await,
        };
        let is_in_force = [configuration, certificates].iter().flatten().all(|taken| *taken == Taken::Ok);
        let taken = if is_in_force { Taken::Ok } else { Taken::Failed };
        systemd::reloaded(taken);
        if is_in_force {
            metrics.note_success();
        }
        metrics.reloads.get_or_create(&Reload { result: taken.as_str() }).inc();
    }
}

/// What is to be read again, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// All, because somebody said so.
    Told,
    /// The file, because it is another.
    Configuration,
    /// Certificates, likewise.
    Certificates,
}

/// What became of something that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in force.
    Ok,
    /// What was before is.
    Failed,
}

impl Taken {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

async fn certificates_change(tls: Option<&Tls>) {
    let Some(tls) = tls else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let looking = tls.clone();
        if tokio::task::spawn_blocking(move || looking.files_have_changed()).await.unwrap_or_default() {
            return;
        }
    }
}

/// Nothing where there is no TLS.
async fn certificates_take_effect(tls: Option<Tls>) -> Option<Taken> {
    let tls = tls?;
    let read = tokio::task::spawn_blocking(move || tls.read_again()).await.map_err(|error| error.to_string());
    Some(match read.and_then(|read| read) {
        Ok(()) => {
            tracing::info!("the certificates were read again and are in force");
            Taken::Ok
        }
        Err(error) => {
            tracing::error!(%error, "the certificates cannot be used; those before stay in force");
            Taken::Failed
        }
    })
}

/// What it takes to read the configuration again.
pub(super) struct Again {
    line: CommandLine,
    file: Watched,
    /// What was said at the start.
    arguments: ServeArguments,
    tables: File,
    /// Where clients connect, whatever was said.
    listened: Vec<SocketAddr>,
}

impl Again {
    pub(super) fn new(line: CommandLine, arguments: &ServeArguments, file: &File, listened: Vec<SocketAddr>) -> Self {
        let watched = Watched::new(arguments.config.clone());
        Self { line, file: watched, arguments: arguments.clone(), tables: file.clone(), listened }
    }

    fn take_effect(&self, service: &Service) -> Taken {
        match self.read(service) {
            Ok(()) => {
                tracing::info!("the configuration was read again and is in force");
                Taken::Ok
            }
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be used; the one before stays in force");
                Taken::Failed
            }
        }
    }

    fn read(&self, service: &Service) -> Result<(), Failure> {
        let (commands, file) = self.line.read()?;
        let Command::Serve(arguments) = commands.command else { return Ok(()) };
        // Whatever addresses the file names now, these are where clients come from.
        service.change(arguments.site(&file, &self.listened)?)?;
        if arguments.start_only(&file) != self.arguments.start_only(&self.tables) {
            tracing::warn!(
                "addresses, TLS, store, memory, key, blob cache, drain or log were changed: that takes effect with the next start"
            );
        }
        Ok(())
    }
}

/// The file, and what was in it when it was last looked at. Its bytes tell: Kubernetes changes a file by changing where a
/// link above it leads.
struct Watched {
    path: Option<PathBuf>,
    seen: Option<Vec<u8>>,
}

impl Watched {
    fn new(path: Option<PathBuf>) -> Self {
        let seen = path.as_deref().and_then(content);
        Self { path, seen }
    }

    async fn change(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.has_changed().await {
                return;
            }
        }
    }

    async fn has_changed(&mut self) -> bool {
        let Some(path) = self.path.clone() else { return false };
        let now = tokio::task::spawn_blocking(move || content(&path)).await.unwrap_or_default();
        // A file that is away for a moment is being replaced.
        let has_changed = now.is_some() && now != self.seen;
        if has_changed {
            self.seen = now;
        }
        has_changed
    }
}

fn content(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}
