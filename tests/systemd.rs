//! What systemd is told of the gateway, and the sockets that it opens for it.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};

use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::support::client::Client;
use crate::support::images::Image;
use crate::support::patiently;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

/// Where systemd listens.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { folder, socket }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").to_str().unwrap().to_owned()
    }

    /// The next message, line by line.
    async fn hears(&self) -> Vec<String> {
        let mut message = vec![0; 4096];
        let length = patiently("word from the gateway", self.socket.recv(&mut message)).await.unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }
}

/// `serve` with this socket as the first that systemd passes, under these names.
fn passed(socket: impl Into<OwnedFd>, names: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        "LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null",
        "sh",
        env!("CARGO_BIN_EXE_schemabridge"),
        "serve",
    ]);
    command.args(["--store", "memory:", "--log-format", "json"]).args(arguments).env_clear();
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", names).stdin(Stdio::from(socket.into()));
    command
}

/// What it says when it does not start.
async fn complaint(mut command: Command) -> String {
    let Output { status, stderr, .. } = patiently("its end", command.output()).await.unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

async fn upstream() -> Upstream {
    let (upstream, image) = (Upstream::start().await, Image::classic("app"));
    upstream.put_image("app", "latest", &image, &image.oci());
    upstream
}

#[tokio::test]
async fn systemd_hears_of_the_start_a_reload_and_the_end() {
    let (upstream, manager) = (upstream().await, Manager::start());
    let arguments =
        ["--store", "memory:", "--upstream", &upstream.url(), "--drain-delay", "1s", "--drain-timeout", "20s"];
    let mut process = Process::serve(&arguments, &[("NOTIFY_SOCKET", &manager.path())]).await;
    let ready = manager.hears().await;
    assert_eq!(ready, ["READY=1".to_owned(), format!("STATUS=listening on {}", process.address)]);
    process.hang_up();
    let reloading = manager.hears().await;
    assert_eq!(reloading[0], "RELOADING=1");
    let since_boot = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = since_boot.split(' ').next().unwrap().parse().unwrap();
    let told: f64 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!(told > 0.0 && told <= (seconds + 1.0) * 1e6, "{told} of {seconds}");
    assert_eq!(manager.hears().await[0], "READY=1");
    process.terminate();
    let stopping = manager.hears().await;
    assert_eq!(stopping[0], "STOPPING=1");
    let within: u64 = stopping[1].strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
    assert!(within > 21_000_000, "{within}");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_reload_that_fails_is_over_too() {
    let (upstream, manager, folder) = (upstream().await, Manager::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("config.toml");
    std::fs::write(&file, format!("[[upstream]]\nname = \"hub\"\nurl = {:?}\n", upstream.url())).unwrap();
    let arguments = ["--store", "memory:", "--config", file.to_str().unwrap()];
    let process = Process::serve(&arguments, &[("NOTIFY_SOCKET", &manager.path())]).await;
    assert_eq!(manager.hears().await[0], "READY=1");
    std::fs::write(&file, "nonsense = 1\n").unwrap();
    process.hang_up();
    assert_eq!(manager.hears().await[0], "RELOADING=1");
    let over = manager.hears().await;
    assert_eq!(over[0], "READY=1");
    assert!(over[1].starts_with("STATUS=what was read again cannot be used"), "{over:?}");
}

#[tokio::test]
async fn the_watchdog_is_fed_while_the_process_runs() {
    let (upstream, manager) = (upstream().await, Manager::start());
    let environment = [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", "2000000".to_owned())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let process = Process::serve(&["--store", "memory:", "--upstream", &upstream.url()], &environment).await;
    let (mut beats, mut ready) = (0, false);
    while beats < 3 || !ready {
        match manager.hears().await[0].as_str() {
            "WATCHDOG=1" => beats += 1,
            "READY=1" => ready = true,
            other => panic!("{other}"),
        }
    }
    assert!(!process.log().contains("does not answer itself"));
}

#[tokio::test]
async fn a_socket_that_is_passed_stands_in_place_of_the_flag() {
    let (upstream, socket) = (upstream().await, TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let address = socket.local_addr().unwrap();
    // Nobody could listen there.
    let arguments = ["--upstream", &upstream.url(), "--listen", "192.0.2.1:1", "--admin-listen", "127.0.0.1:0"];
    let mut process = Process::start(passed(socket, "schemabridge.socket", &arguments)).await;
    assert_eq!(process.address, address);
    assert_eq!(process.get(&Client::docker_17(), TAGGED).await.status, 200);
    process.hang_up();
    process.logged("the configuration was read again").await;
    assert!(!process.log().contains("takes effect with the next start"));
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_socket_called_admin_is_the_operators() {
    let (upstream, socket) = (upstream().await, TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let address = socket.local_addr().unwrap();
    let arguments = ["--upstream", &upstream.url(), "--listen", "127.0.0.1:0", "--admin-listen", "192.0.2.1:1"];
    let process = Process::start(passed(socket, "admin", &arguments)).await;
    assert_eq!(process.admin, address);
    assert_eq!(Client::curl().get("/readyz").send(process.admin).await.text(), "ok\n");
    assert_eq!(process.get(&Client::docker_17(), TAGGED).await.status, 200);
}

#[tokio::test]
async fn what_is_meant_for_another_process_is_left_alone() {
    let (upstream, socket) = (upstream().await, TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let other = std::process::id().to_string();
    let environment = [("LISTEN_FDS", "1"), ("LISTEN_PID", other.as_str())];
    let process = Process::serve(&["--store", "memory:", "--upstream", &upstream.url()], &environment).await;
    assert_ne!(process.address, socket.local_addr().unwrap());
    assert_eq!(process.get(&Client::docker_17(), TAGGED).await.status, 200);
}

#[tokio::test]
async fn sockets_that_do_not_fit_are_refused_in_words() {
    let upstream = upstream().await;
    let arguments = ["--upstream", &upstream.url(), "--admin-listen", "127.0.0.1:0"];
    let tcp = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let refused = complaint(passed(udp, "datagrams", &arguments)).await;
    assert!(refused.contains("`datagrams`") && refused.contains("ListenStream="), "{refused}");
    let listening = tcp();
    let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let refused = complaint(passed(connected, "each", &arguments)).await;
    assert!(refused.contains("it is a connection") && refused.contains("Accept=no"), "{refused}");
    let refused = complaint(passed(tcp(), "one:two", &arguments)).await;
    assert!(refused.contains("1 sockets") && refused.contains("names 2"), "{refused}");
}

/// Whoever may come in is settled by where clients really connect, whatever flags say.
#[tokio::test]
async fn credentials_are_not_held_behind_a_passed_socket_where_anybody_could_use_them() {
    let (upstream, folder) = (upstream().await, tempfile::tempdir().unwrap());
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    let credentials = ["--username", "u", "--password-file", password.to_str().unwrap()];
    let url = upstream.url();
    let arguments = [&["--upstream", &url, "--admin-listen", "127.0.0.1:0"], credentials.as_slice()].concat();
    let socket = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let refused = complaint(passed(socket, "clients", &arguments)).await;
    assert!(refused.contains("allow_anonymous") && !refused.contains("s3cret"), "{refused}");
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    Process::start(passed(socket, "clients", &arguments)).await;
}
