//! Reading the configuration again while the gateway runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::ServeArguments;
use crate::gateway::Service;

use super::{Command, CommandLine, Failure};

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

/// Reads the configuration again on SIGHUP and when the file changes; never returns. One that cannot be used changes
/// nothing.
pub(super) async fn keep_up(
    line: CommandLine,
    arguments: ServeArguments,
    service: Arc<Service>,
    metrics: Metrics,
) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut file = Watched::new(arguments.config.clone());
    loop {
        tokio::select! {
            _ = hangup.recv() => file.has_changed().await,
            () = file.change() => true,
        };
        let read = again(&line, &arguments, &service);
        let result = match &read {
            Ok(()) => {
                metrics.note_success();
                tracing::info!("the configuration was read again and is in force");
                "ok"
            }
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be used; the one before stays in force");
                "failed"
            }
        };
        metrics.reloads.get_or_create(&Reload { result }).inc();
    }
}

fn again(line: &CommandLine, before: &ServeArguments, service: &Service) -> Result<(), Failure> {
    let (commands, file) = line.read()?;
    let Command::Serve(mut arguments) = commands.command else { return Ok(()) };
    let holds_back = arguments.start_only() != before.start_only();
    // Clients go on connecting where they did from the start, so there the door must be good enough.
    arguments.listen.clone_from(&before.listen);
    service.change(arguments.site(&file)?)?;
    if holds_back {
        tracing::warn!("addresses, TLS, store, memory, key or log were changed: that takes effect with the next start");
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDS: &str = "[[upstream]]\nname = \"hub\"\nurl = \"http://127.0.0.1:9\"\nauth = { username = \"gate\", \
                         password_file = \"/nowhere\" }\n";

    fn serve(line: &CommandLine) -> (ServeArguments, crate::config::file::File) {
        let (commands, file) = line.read().unwrap();
        let Command::Serve(arguments) = commands.command else { panic!("not `serve`") };
        (*arguments, file)
    }

    /// The new address takes effect with the next start, and the door must not go before it.
    #[tokio::test]
    async fn a_door_stays_as_long_as_anybody_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        let (config, logins) = (folder.path().join("config.toml"), folder.path().join("logins"));
        std::fs::write(&logins, "alice:$2y$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu\n").unwrap();
        let words = ["schemabridge", "serve", "--store", "memory:", "--config", config.to_str().unwrap()];
        let line = CommandLine(words.map(Into::into).to_vec());
        let door = format!("htpasswd = {logins:?}\n");
        std::fs::write(&config, format!("listen = [\"0.0.0.0:5000\"]\n{door}{HOLDS}")).unwrap();
        let (arguments, file) = serve(&line);
        let service = Service::start(arguments.options(&file).unwrap()).unwrap();
        std::fs::write(&config, format!("listen = [\"127.0.0.1:5000\"]\n{HOLDS}")).unwrap();
        let refused = again(&line, &arguments, &service).unwrap_err().to_string();
        assert!(refused.contains("0.0.0.0:5000"), "{refused}");
        std::fs::write(&config, format!("listen = [\"127.0.0.1:5000\"]\n{door}{HOLDS}")).unwrap();
        again(&line, &arguments, &service).unwrap();
    }
}
