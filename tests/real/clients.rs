//! Today's clients pull through the gateway: both families of image, in front of both registries.
//!
//! Each of them reads what is stored, so each must get exactly that, and find in it the files that were put in.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::{
    engines::{Containerd, Dockerd, holds_files, reference},
    images::{self, FILES, Image, Twin},
    layers,
    programs::{self, run},
    registries::{Gateway, Registry},
};

const TAG: &str = "v1";

/// One stored image behind a gateway, and where to pull it.
struct Stored<'a> {
    what: String,
    image: &'a Image,
    reference: String,
    manifest: Vec<u8>,
}

impl Stored<'_> {
    fn digest(&self) -> String {
        images::digest(&self.manifest)
    }
}

/// Calls `pull` for every registry and both families. Each gets an image of its own name.
fn each_stored(pull: impl Fn(&Stored)) {
    let image = images::runnable();
    for registry in Registry::both() {
        let gateway = Gateway::start(&registry);
        for twin in Twin::BOTH {
            let repository = format!("test/{}", format!("{twin:?}").to_lowercase());
            registry.push(&image, twin, &repository, TAG);
            pull(&Stored {
                what: format!("{twin:?} in {}", registry.name),
                image: &image,
                reference: reference(gateway.address, &repository, TAG),
                manifest: image.manifest(twin),
            });
        }
    }
}

/// A policy file that lets every image in; without one containers/image refuses all.
pub fn signature_policy(directory: &TempDir) -> std::path::PathBuf {
    let path = directory.path().join("policy.json");
    std::fs::write(&path, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    path
}

/// Compares the files named by digest in `folder` with the blobs of the image.
fn assert_blobs(folder: &Path, stored: &Stored) {
    for blob in stored.image.blobs() {
        let hexadecimal = blob.digest.strip_prefix("sha256:").unwrap();
        let found = std::fs::read(folder.join(hexadecimal))
            .unwrap_or_else(|fault| panic!("{}: {hexadecimal}: {fault}", stored.what));
        assert!(found == blob.bytes, "{}: blob {hexadecimal} has other bytes", stored.what);
    }
}

/// Compares an OCI layout that a client wrote with the stored image.
fn assert_layout(layout: &Path, stored: &Stored) {
    let blobs = layout.join("blobs/sha256");
    assert_blobs(&blobs, stored);
    let manifest = std::fs::read(blobs.join(images::hexadecimal(&stored.manifest)));
    assert_eq!(manifest.unwrap_or_default(), stored.manifest, "{}: the manifest", stored.what);
}

#[test]
fn skopeo_gets_what_is_stored() {
    each_stored(|stored| {
        let directory = programs::directory();
        let target = directory.path().join("image");
        run(Command::new(programs::debian("skopeo"))
            .arg("--policy")
            .arg(signature_policy(&directory))
            .args(["copy", "--src-tls-verify=false", "--preserve-digests"])
            .arg(format!("docker://{}", stored.reference))
            .arg(format!("dir:{}", target.display())));
        assert_eq!(std::fs::read(target.join("manifest.json")).unwrap(), stored.manifest, "{}", stored.what);
        assert_blobs(&target, stored);
    });
}

#[test]
fn podman_gets_the_files() {
    each_stored(|stored| {
        let directory = programs::directory();
        let path = |name: &str| directory.path().join(name);
        let podman = || {
            let mut command = Command::new(programs::debian("podman"));
            command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
            command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
            command
        };
        let policy = signature_policy(&directory);
        run(podman().args(["pull", "--tls-verify=false", "--signature-policy"]).arg(&policy).arg(&stored.reference));
        let digest = run(podman().args(["image", "inspect", "--format", "{{.Digest}}", &stored.reference]));
        assert_eq!(digest.trim(), stored.digest(), "{}", stored.what);
        let root = run(podman().args(["image", "mount", &stored.reference]));
        assert!(holds_files(Path::new(root.trim())), "{}: the files are not in {root}", stored.what);
        run(podman().args(["image", "unmount", &stored.reference]));
    });
}

#[test]
fn buildah_gets_the_files() {
    each_stored(|stored| {
        let directory = programs::directory();
        let buildah = || {
            let mut command = Command::new(programs::debian("buildah"));
            command.arg("--root").arg(directory.path().join("root")).arg("--runroot").arg(directory.path().join("run"));
            command.args(["--storage-driver", "vfs"]);
            command
        };
        let policy = signature_policy(&directory);
        let from = ["from", "--name", "made", "--tls-verify=false", "--signature-policy"];
        run(buildah().args(from).arg(&policy).arg(format!("docker://{}", stored.reference)));
        let root = run(buildah().args(["mount", "made"]));
        assert!(holds_files(Path::new(root.trim())), "{}: the files are not in {root}", stored.what);
        run(buildah().args(["umount", "made"]));
    });
}

#[test]
fn containerd_gets_what_is_stored() {
    each_stored(|stored| {
        let containerd = Containerd::start();
        assert_eq!(containerd.pull(&stored.reference), stored.digest(), "{}", stored.what);
        containerd.assert_files(&stored.what);
    });
}

#[test]
fn docker_20_10_gets_what_is_stored() {
    each_stored(|stored| {
        let dockerd = Dockerd::start();
        assert_eq!(dockerd.pull(&stored.reference), stored.digest(), "{}", stored.what);
        assert_eq!(dockerd.image_id(&stored.reference), stored.image.config.digest, "{}", stored.what);
        dockerd.assert_files(&stored.reference, &stored.what);
    });
}

#[test]
fn crane_gets_what_is_stored() {
    let Some(crane) = programs::go_tool("crane") else { return };
    each_stored(|stored| {
        let digest = run(Command::new(&crane).args(["digest", &stored.reference]));
        assert_eq!(digest.trim(), stored.digest(), "{}", stored.what);
        let exported = programs::outcome(Command::new(&crane).args(["export", &stored.reference, "-"]));
        for (path, text) in FILES {
            let found = layers::file_in_tar(&exported.stdout, path);
            assert_eq!(found, Some(text.as_bytes()), "{}: {path}", stored.what);
        }
    });
}

#[test]
fn oras_gets_what_is_stored() {
    let Some(oras) = programs::go_tool("oras") else { return };
    each_stored(|stored| {
        let directory = programs::directory();
        let layout = directory.path().join("layout");
        run(Command::new(&oras)
            .args(["copy", "--from-plain-http", &stored.reference, "--to-oci-layout"])
            .arg(format!("{}:{TAG}", layout.display())));
        assert_layout(&layout, stored);
    });
}

#[test]
fn regctl_gets_what_is_stored() {
    let Some(regctl) = programs::go_tool("regctl") else { return };
    each_stored(|stored| {
        let directory = programs::directory();
        let layout = directory.path().join("layout");
        let host = stored.reference.split('/').next().unwrap();
        let regctl = || {
            let mut command = Command::new(&regctl);
            command.env("REGCTL_CONFIG", directory.path().join("config.json"));
            command
        };
        run(regctl().args(["registry", "set", "--tls", "disabled", host]));
        run(regctl().args(["image", "copy", &stored.reference, &format!("ocidir://{}:{TAG}", layout.display())]));
        assert_layout(&layout, stored);
    });
}
