//! What `serve` says to a person at a terminal, and to nobody else.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::support::patiently;
use crate::support::process::Process;

/// Ctrl-C, as a terminal knows it.
const INTERRUPT: &[u8] = b"\x03";

/// Starts `serve` at a terminal; returns what it says until it is interrupted, which it is when it has said this.
async fn said(arguments: &[&str], environment: &[(&str, &str)], last: &str) -> String {
    let own = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let words = [&[env!("CARGO_BIN_EXE_schemabridge")], own.as_slice(), arguments].concat();
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    // No shell stays that the interrupt would end too.
    let line = format!("exec {line}");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
    command.envs(environment.iter().copied()).env("SHELL", "/bin/sh").env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let (mut keys, mut lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    let mut text = String::new();
    while let Some(line) = patiently("a line at the terminal", lines.next_line()).await.unwrap() {
        text.extend([line.trim_end(), "\n"]);
        if line.contains(last) {
            keys.write_all(INTERRUPT).await.unwrap();
        }
    }
    let ended = patiently("the end", child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{text}");
    text
}

/// What stands behind this at the beginning of a line.
fn behind<'a>(text: &'a str, what: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(what)).map(str::trim).collect()
}

#[tokio::test]
async fn a_person_hears_where_everything_is() {
    let folder = tempfile::tempdir().unwrap();
    let (store, socket) = (folder.path().join("state"), folder.path().join("gateway.sock"));
    let (store, socket) = (format!("file://{}", store.display()), format!("unix:{}", socket.display()));
    let upstreams = ["--upstream", "hub=https://hub.example", "--upstream", "corp=https://corp.example:8443/base"];
    let arguments = [&["--store", &store, "--listen", &socket], upstreams.as_slice()].concat();
    let text = said(&arguments, &[("HTTPS_PROXY", "http://user:s3cret@egress.example:3128")], "  try ").await;
    let listens = behind(&text, "listens on");
    let [address] = listens.as_slice() else { panic!("{text}") };
    let authority = address.strip_prefix("http://127.0.0.1:").unwrap().trim_end_matches('/');
    assert!(authority.parse::<u16>().unwrap() > 0, "{text}");
    assert!(text.lines().any(|line| line.trim() == socket), "{text}");
    let before = behind(&text, "in front of");
    assert!(before[0].starts_with("https://hub.example") && before[0].contains("hub/"), "{text}");
    let corp = text.lines().find(|line| line.contains("https://corp.example:8443/base")).unwrap();
    assert!(corp.contains("corp/"), "{text}");
    assert_eq!(behind(&text, "state in"), [store.as_str()]);
    assert!(behind(&text, "page at")[0].starts_with("http://127.0.0.1:"), "{text}");
    assert_eq!(behind(&text, "try"), [format!("docker pull 127.0.0.1:{authority}/REPOSITORY:TAG")]);
    assert!(!text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn what_is_lost_at_the_end_is_said() {
    let text = said(&["--store", "memory:", "--upstream", "https://hub.example"], &[], "  try ").await;
    assert!(behind(&text, "state in")[0].contains("memory"), "{text}");
    assert_eq!(behind(&text, "in front of"), ["https://hub.example"]);
}

#[tokio::test]
async fn without_a_terminal_the_log_says_it() {
    let mut process = Process::serve(&["--store", "memory:", "--upstream", "https://hub.example"], &[]).await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    assert_eq!(process.says().await, None);
    let log = process.log();
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
    assert!(log.contains("https://hub.example") && !log.contains("docker pull"), "{log}");
}
