//! The gateway as a process of its own, which can be killed.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::client::{Client, Reply};
use super::patiently;

/// The address of what listens in the file system.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// A running `serve`. Killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    /// Where the operator connects.
    pub admin: SocketAddr,
    /// What it writes on standard output.
    said: UnboundedReceiver<String>,
    log: Arc<watch::Sender<String>>,
    marks: AtomicUsize,
}

impl Process {
    /// Starts `serve` on free ports and waits until it says where it listens.
    pub async fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(arguments);
        command.args(["--log-format", "json"]).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
        Self::start(command).await
    }

    /// Starts this, which is to become a `serve` that logs JSON, and waits until it says where it listens.
    pub async fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (sender, said) = unbounded_channel();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let log = Arc::new(watch::Sender::new(String::new()));
        let (found, mut addresses) = unbounded_channel();
        let (written, mut lines) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                written.send_modify(|log| log.extend([line.as_str(), "\n"]));
                if let (Some(message), Some(address)) = (said["message"].as_str(), said["address"].as_str()) {
                    let _nobody_waits_any_more = found.send((message == "listening", address.to_owned()));
                }
            }
        });
        let (mut address, mut admin) = (None, None);
        while address.is_none() || admin.is_none() {
            let next = patiently("the gateway's listeners", addresses.recv()).await;
            let (is_gateway, text) =
                next.unwrap_or_else(|| panic!("it ended before it listened: {}", log.borrow().as_str()));
            let place = if is_gateway { &mut address } else { &mut admin };
            place.get_or_insert(if text.starts_with("unix:") { NOWHERE } else { text.parse().unwrap() });
        }
        Self { child, address: address.unwrap(), admin: admin.unwrap(), said, log, marks: AtomicUsize::default() }
    }

    /// Waits for the next line on standard output; `None` when there will be none.
    pub async fn says(&mut self) -> Option<String> {
        self.said.recv().await
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until it has logged this.
    pub async fn logged(&self, text: &str) {
        let mut log = self.log.subscribe();
        patiently(&format!("`{text}` in the log"), log.wait_for(|log| log.contains(text))).await.unwrap();
    }

    /// Waits until it has logged this so often.
    pub async fn logged_times(&self, text: &str, times: usize) {
        let mut log = self.log.subscribe();
        let often = log.wait_for(|log| log.matches(text).count() >= times);
        patiently(&format!("`{text}` in the log {times} times"), often).await.unwrap();
    }

    /// Tells it to read its configuration again, by its own id.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Tells it to stop, by its own id.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it this signal, by its own id.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        patiently("the end of the process", self.child.wait()).await.unwrap()
    }

    /// How many lines it logged until now whose message begins so. The log is written in order, so what it says of one
    /// more request comes last.
    pub async fn lines_logged(&self, message: &str) -> usize {
        let mark = format!("/mark-{}", self.marks.fetch_add(1, Ordering::Relaxed));
        self.get(&Client::curl(), &mark).await;
        self.logged(&mark).await;
        let log = self.log();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["message"].as_str().is_some_and(|said| said.starts_with(message))).count()
    }

    /// What it counted so far, as Prometheus reads it.
    pub async fn metrics(&self) -> String {
        Client::curl().get("/metrics").send(self.admin).await.text()
    }

    /// What this series stands at; 0 where it was never counted.
    pub async fn metric(&self, series: &str) -> u64 {
        let metrics = self.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// GET of this target as this client.
    pub async fn get(&self, client: &Client, target: &str) -> Reply {
        client.get(target).send(self.address).await
    }

    /// Ends it as a power cut would: SIGKILL, by its own id.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
