//! The home of a user of skopeo and podman: their settings and all that they keep, nothing of this machine's.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{clients::signature_policy, programs};

/// A home with no images. The settings come from `/etc/containers` of another file system, where one is given.
pub struct Home {
    directory: TempDir,
    policy: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        let directory = programs::directory();
        let policy = signature_policy(&directory);
        Self { directory, policy }
    }

    /// A home on a machine whose file system begins at `root`.
    pub fn on_machine(root: &Path) -> Self {
        let home = Self::new();
        std::fs::create_dir(home.directory.path().join(".config")).unwrap();
        symlink(root.join("etc/containers"), home.directory.path().join(".config/containers")).unwrap();
        home
    }

    /// Copies an image, as `arguments` say where they are needed, and gives the folder that it is copied to.
    pub fn skopeo_copy(&self, arguments: &[&str], reference: &str, name: &str) -> (Command, PathBuf) {
        let target = self.directory.path().join(name);
        let mut command = Command::new(programs::debian("skopeo"));
        command
            .env("HOME", self.directory.path())
            .arg("--policy")
            .arg(&self.policy)
            .args(["copy", "--preserve-digests"])
            .args(arguments)
            .arg(format!("docker://{reference}"))
            .arg(format!("dir:{}", target.display()));
        (command, target)
    }

    pub fn podman(&self) -> Command {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(programs::debian("podman"));
        command.env("HOME", self.directory.path());
        command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    }

    pub fn podman_pull(&self, arguments: &[&str], reference: &str) -> Command {
        let mut command = self.podman();
        command.args(["pull", "--signature-policy"]).arg(&self.policy).args(arguments).arg(reference);
        command
    }
}
