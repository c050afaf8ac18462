//! containerd and dockerd of one's own: their own roots, sockets and processes, nothing shared with one that runs already.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    images::FILES,
    layers,
    programs::{self, Program, run},
};

/// containerd with empty stores, and `ctr` to talk to it.
pub struct Containerd {
    socket: PathBuf,
    root: PathBuf,
    // Ended before its directory is removed.
    program: Program,
    _directory: TempDir,
}

/// What would need devices, a network or file systems that a test machine may not have.
const PLUGINS_LEFT_OUT: [&str; 6] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.overlayfs",
    "io.containerd.snapshotter.v1.zfs",
];

impl Containerd {
    pub fn start() -> Self {
        let directory = programs::directory();
        let path = |name: &str| directory.path().join(name);
        let (root, socket, settings) = (path("root"), path("containerd.sock"), path("config.toml"));
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let text = format!(
            "version = 2\nroot = {}\nstate = {}\noom_score = 0\ndisabled_plugins = {PLUGINS_LEFT_OUT:?}\n\
             [grpc]\naddress = {}\n[ttrpc]\naddress = {}\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = {}\n",
            quoted(&root),
            quoted(&path("state")),
            quoted(&socket),
            quoted(&path("ttrpc.sock")),
            // Otherwise this plugin makes a folder in /opt.
            quoted(&path("opt")),
        );
        std::fs::write(&settings, text).unwrap();
        let mut command = Command::new(programs::debian("containerd"));
        command.arg("--config").arg(&settings);
        let program = Program::start("containerd", command, directory.path());
        let mut containerd = Self { socket, root, program, _directory: directory };
        let mut version = containerd.ctr();
        version.arg("version");
        containerd.program.wait_until("answer ctr", || programs::outcome(&mut version).status.success());
        containerd
    }

    /// `ctr` at this containerd.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new(programs::debian("ctr"));
        command.arg("--address").arg(&self.socket);
        command
    }

    /// Pulls and unpacks the image for this machine; gives the digest that containerd keeps for the name.
    pub fn pull(&self, reference: &str) -> String {
        self.pull_with(&[], reference)
    }

    /// The same for another platform.
    pub fn pull_for(&self, platform: &str, reference: &str) -> String {
        self.pull_with(&["--platform", platform], reference)
    }

    fn pull_with(&self, options: &[&str], reference: &str) -> String {
        let pull = ["images", "pull", "--snapshotter", "native", "--plain-http"];
        run(self.ctr().args(pull).args(options).arg(reference));
        self.digest(reference)
    }

    /// A pull by the `hosts.toml` of each registry in this folder.
    pub fn pull_by_hosts(&self, hosts: &Path, reference: &str) -> Command {
        let mut command = self.ctr();
        command.args(["images", "pull", "--snapshotter", "native", "--hosts-dir"]).arg(hosts).arg(reference);
        command
    }

    /// The digest that containerd keeps for the name.
    pub fn digest(&self, reference: &str) -> String {
        let listed = run(self.ctr().args(["images", "list", &format!("name=={reference}")]));
        listed.split_whitespace().find(|word| word.starts_with("sha256:")).expect("ctr lists a digest").to_owned()
    }

    /// Looks for the files of the runnable image in what was unpacked.
    pub fn assert_files(&self, what: &str) {
        assert!(self.has_unpacked(holds_files), "{what}: no snapshot holds the files of the image");
    }

    /// Whether any layer came out like this: the native snapshotter keeps every layer as a whole tree.
    pub fn has_unpacked(&self, wanted: impl Fn(&Path) -> bool) -> bool {
        let snapshots = self.root.join("io.containerd.snapshotter.v1.native/snapshots");
        std::fs::read_dir(&snapshots).unwrap().any(|snapshot| wanted(&snapshot.unwrap().path()))
    }
}

/// dockerd with empty stores on a containerd of its own, and `docker` to talk to it. It remembers layers and manifests
/// even of images that were removed, so that a second pull would prove nothing: start another.
pub struct Dockerd {
    host: String,
    program: Program,
    _directory: TempDir,
    _containerd: Containerd,
}

impl Dockerd {
    pub fn start() -> Self {
        Self::start_with("{}", &[])
    }

    /// The same with this `daemon.json`, and with these variables in its environment.
    pub fn start_with(settings: &str, environment: &[(&str, String)]) -> Self {
        let containerd = Containerd::start();
        let directory = programs::directory();
        let path = |name: &str| directory.path().join(name);
        let host = format!("unix://{}", path("docker.sock").display());
        std::fs::write(path("daemon.json"), settings).unwrap();
        let mut command = Command::new(programs::debian("dockerd"));
        command
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .args(["--oom-score-adjust=0", "--storage-driver=vfs"])
            .arg("--config-file")
            .arg(path("daemon.json"))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--containerd")
            .arg(&containerd.socket)
            .args(["--host", &host]);
        let program = Program::start("dockerd", command, directory.path());
        let mut dockerd = Self { host, program, _directory: directory, _containerd: containerd };
        let mut version = dockerd.docker();
        version.arg("version");
        dockerd.program.wait_until("answer docker", || programs::outcome(&mut version).status.success());
        dockerd
    }

    /// `docker` at this dockerd, whatever the environment says about others.
    pub fn docker(&self) -> Command {
        let mut command = Command::new(programs::debian("docker"));
        for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(variable);
        }
        command.args(["--host", &self.host]);
        command
    }

    /// Pulls the image for this machine and gives the digest that Docker reports.
    pub fn pull(&self, reference: &str) -> String {
        self.pull_with(&[], reference)
    }

    /// The same for another platform.
    pub fn pull_for(&self, platform: &str, reference: &str) -> String {
        self.pull_with(&["--platform", platform], reference)
    }

    /// What Docker says about a pull that it gives up.
    pub fn pull_in_vain(&self, platform: &str, reference: &str) -> String {
        let output = programs::outcome(self.docker().args(["pull", "--platform", platform, reference]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "docker pulled {reference} for {platform}: {said}");
        said
    }

    fn pull_with(&self, options: &[&str], reference: &str) -> String {
        let said = run(self.docker().arg("pull").args(options).arg(reference));
        let digest = said.lines().find_map(|line| line.strip_prefix("Digest: ")).expect("docker reports a digest");
        digest.to_owned()
    }

    /// The image id, which is the digest of the config that Docker keeps.
    pub fn image_id(&self, reference: &str) -> String {
        run(self.docker().args(["image", "inspect", "--format", "{{.Id}}", reference])).trim().to_owned()
    }

    /// Looks for the files of the runnable image in a container made of it.
    pub fn assert_files(&self, reference: &str, what: &str) {
        let container = self.container(reference);
        for (path, text) in FILES {
            assert_eq!(self.file(&container, path).as_deref(), Some(text), "{what}: {path}");
        }
    }

    /// A container made of an image, of whatever platform; it never runs.
    pub fn container(&self, reference: &str) -> String {
        run(self.docker().args(["create", "--network", "none", reference])).trim().to_owned()
    }

    /// The text of a file of a container, if it has it.
    pub fn file(&self, container: &str, path: &str) -> Option<String> {
        let copied = programs::outcome(self.docker().args(["cp", &format!("{container}:/{path}"), "-"]));
        let name = path.rsplit('/').next().unwrap();
        layers::file_in_tar(&copied.stdout, name).map(|text| String::from_utf8_lossy(text).into_owned())
    }
}

/// Whether every file of the runnable image is under `root` with the right text.
pub fn holds_files(root: &Path) -> bool {
    FILES.iter().all(|(path, text)| std::fs::read(root.join(path)).is_ok_and(|found| found == text.as_bytes()))
}

/// How clients write an image of a registry on loopback.
pub fn reference(address: SocketAddr, repository: &str, tag: &str) -> String {
    format!("{address}/{repository}:{tag}")
}
