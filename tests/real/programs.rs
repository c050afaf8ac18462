//! Real programs: found, started, waited for, and ended by the process id that starting them gave.

use std::{
    fs::File,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a program may take until it listens, and until it ends. Reached only by one that is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A running program; dropping it ends it. If the test has failed by then, the end of its log is shown.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command` with both outputs going to `<name>.log` in `directory`.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|fault| panic!("cannot start {name} ({command:?}): {fault}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Everything the program has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// The file that its outputs go to.
    pub fn path(&self) -> PathBuf {
        self.log.clone()
    }

    /// Returns when something accepts connections at `address`.
    pub fn wait_for_port(&mut self, address: SocketAddr) {
        self.wait_until(&format!("listen on {address}"), || TcpStream::connect(address).is_ok());
    }

    /// Returns when `ready` says so; panics with the log when the program ends or never gets there.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended ({status}) before it would {what}:\n{}", self.name, self.log());
            }
            assert!(started.elapsed() < PATIENCE, "{} does not {what}:\n{}", self.name, self.log());
            thread::sleep(PAUSE);
        }
    }

    /// Ends the program as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the program to end, and sees that it does.
    fn end(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // A shell always has `kill`; the program of that name is in a package of its own.
        let _ = Command::new("sh").arg("-c").arg("kill \"$0\"").arg(self.child.id().to_string()).status();
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            let log = self.log();
            let lines = log.lines().collect::<Vec<_>>();
            say(&format!(
                "--- end of the log of {}:\n{}",
                self.name,
                lines[lines.len().saturating_sub(25)..].join("\n")
            ));
        }
    }
}

/// The path of a program that Debian packages; missing is a failure.
pub fn debian(name: &str) -> PathBuf {
    on_path(name)
        .unwrap_or_else(|| panic!("the program {name} is not installed here: run tests/run.sh, which installs it"))
}

/// The path of a tool that is built with Go. Missing is a failure where there is a `go` to build it with, else none,
/// and the run says that it was left out.
pub fn go_tool(name: &str) -> Option<PathBuf> {
    let found = tools().map(|directory| directory.join("bin").join(name)).filter(|path| path.is_file());
    if found.is_none() {
        assert!(on_path("go").is_none(), "the Go tool {name} is not built here: run tests/run.sh, which builds it");
        say(&format!("LEFT OUT: {name} is built with Go, and there is no go here"));
    }
    found
}

/// The path of a server of buckets, below the folder of the tools; missing is a failure.
pub fn bucket_server(path: &str) -> PathBuf {
    tools()
        .map(|directory| directory.join(path))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| panic!("{path} is not installed here: run tests/run.sh, which installs it"))
}

/// Where `tests/run.sh` puts the tools that it builds and installs.
fn tools() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join("schemabridge-tools"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    // Daemons live in the sbin folders, which the PATH of an ordinary shell leaves out.
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs a command to its end and gives its standard output; a failure shows both outputs.
pub fn run(command: &mut Command) -> String {
    let output = outcome(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command to its end.
pub fn outcome(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|fault| panic!("cannot run {command:?}: {fault}"))
}

/// A temporary directory with a short name: the path of a Unix socket in it must stay under 108 bytes.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("sb-").tempdir().unwrap()
}

/// A loopback address that nobody listens on, below the range which the kernel gives to outgoing connections,
/// so that none of them takes it before the program does.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 18_000;
    const COUNT: u16 = 14_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id().wrapping_mul(31) % u32::from(COUNT)).unwrap();
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("no free port")
}

/// Writes a line past the test harness, which would swallow it when the test passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
