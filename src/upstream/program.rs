//! Programs that print credentials, kept within their time and their length.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How much such a program may print, in bytes.
const PRINTED_BYTES_MAX: u64 = 64 * 1024;

/// How a program ended and what it printed.
pub(super) struct Printed {
    pub(super) succeeded: bool,
    pub(super) output: Vec<u8>,
}

/// Runs a program to its end with `input`. It dies with the future. What it writes to its error output is dropped, for
/// it may hold a secret.
pub(super) async fn run(program: &Path, arguments: &[String], input: &str) -> std::io::Result<Printed> {
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input has no need of it.
        let _unread = stdin.write_all(input.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(PRINTED_BYTES_MAX + 1).read_to_end(&mut output).await?;
    }
    if output.len() as u64 > PRINTED_BYTES_MAX {
        return Err(std::io::Error::other(format!("it printed more than {PRINTED_BYTES_MAX} bytes")));
    }
    Ok(Printed { succeeded: child.wait().await?.success(), output })
}

/// The program of this name in the first of these directories that has it; without directories, the name as it is.
pub(super) fn find(name: &str, search_path: Option<&OsStr>) -> PathBuf {
    let directories = search_path.into_iter().flat_map(std::env::split_paths);
    directories.map(|directory| directory.join(name)).find(|program| program.is_file()).unwrap_or_else(|| name.into())
}
