//! Today's clients pull lists and indexes through the gateway, for their own platform and for others.
//!
//! Each of them reads what is stored, so each must get exactly that, and find in it the files of the platform it asked for.

use std::{path::Path, process::Command};

use crate::{
    clients::signature_policy,
    engines::{Containerd, Dockerd, reference},
    images::hexadecimal,
    layers,
    parents::{AMD64, ARM_V6, ARM_V7, ARM64, Child, FILE, Parent},
    programs::{self, run},
    registries::{Gateway, Registry, said},
};

const TAG: &str = "v1";
const OTHERS: [&str; 3] = [ARM_V6, ARM64, ARM_V7];

/// One stored list or index behind a gateway, and where to pull it.
struct Stored<'a> {
    what: String,
    parent: &'a Parent,
    reference: String,
    /// The other platform, beside that of most machines, for which it is pulled.
    other: &'static str,
}

impl Stored<'_> {
    /// The images to pull, and words for each: that of most machines and one other, so that the parents together take
    /// their turns through all platforms.
    fn images(&self) -> impl Iterator<Item = (&Child, String)> {
        [AMD64, self.other]
            .map(|platform| (self.parent.child(platform), format!("{} for {platform}", self.what)))
            .into_iter()
    }
}

/// Calls `pull` for every registry and what `parents` makes for it, then looks for the gateway's word that it served the
/// tag as stored.
fn each_stored(parents: impl Fn(&str) -> Vec<Parent>, pull: impl Fn(&Stored)) {
    for registry in Registry::both() {
        let mut gateway = Gateway::start(&registry);
        for (parent, turn) in parents(registry.name).iter().zip(0..) {
            parent.push(&registry, TAG);
            let what = format!("{} in {}", parent.repository, registry.name);
            let reference = reference(gateway.address, &parent.repository, TAG);
            let others = OTHERS.into_iter().filter(|platform| parent.has(platform)).collect::<Vec<_>>();
            let stored = Stored { what, parent, reference, other: others[turn % others.len()] };
            pull(&stored);
            let line = gateway.wait_for_manifest(&parent.repository, TAG);
            let expected = (parent.form.word(), parent.form.word(), parent.digest());
            let found = (said(&line, "stored"), said(&line, "served"), said(&line, "digest").to_owned());
            assert_eq!(found, expected, "{}", stored.what);
        }
    }
}

/// Every mixture, for clients that unpack gzip alone.
fn with_gzip(whose: &str) -> Vec<Parent> {
    Parent::mixtures(whose)
}

/// And an index with a zstd image.
fn with_zstd(whose: &str) -> Vec<Parent> {
    let mut parents = Parent::mixtures(whose);
    parents.push(Parent::with_zstd_for_arm64(whose));
    parents
}

/// The architecture and the variant, as options of these names.
fn platform_options(architecture: &str, variant: &str, platform: &str) -> Vec<String> {
    let names = [None, Some(architecture), Some(variant)];
    let words = names.into_iter().zip(platform.split('/'));
    words.filter_map(|(name, word)| Some([name?.to_owned(), word.to_owned()])).flatten().collect()
}

fn says(root: &Path, child: &Child) -> bool {
    std::fs::read_to_string(root.join(FILE)).is_ok_and(|text| text == child.text)
}

#[test]
fn docker_20_10_gets_what_is_stored_for_each_platform() {
    let dockerd = Dockerd::start();
    each_stored(with_gzip, |stored| {
        for (child, what) in stored.images() {
            let digest = dockerd.pull_for(child.platform, &stored.reference);
            assert_eq!(digest, stored.parent.digest(), "{what}");
            assert_eq!(dockerd.image_id(&stored.reference), child.image.config.digest, "{what}");
            let container = dockerd.container(&stored.reference);
            assert_eq!(dockerd.file(&container, FILE).as_ref(), Some(&child.text), "{what}");
        }
    });
}

#[test]
fn containerd_gets_what_is_stored_for_each_platform() {
    let containerd = Containerd::start();
    each_stored(with_zstd, |stored| {
        for (child, what) in stored.images() {
            let digest = containerd.pull_for(child.platform, &stored.reference);
            assert_eq!(digest, stored.parent.digest(), "{what}");
            assert!(containerd.has_unpacked(|root| says(root, child)), "{what}: not {:?}", child.text);
        }
    });
}

#[test]
fn podman_gets_the_files_of_each_platform() {
    let directory = programs::directory();
    let path = |name: &str| directory.path().join(name);
    let policy = signature_policy(&directory);
    let podman = || {
        let mut command = Command::new(programs::debian("podman"));
        command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    };
    each_stored(with_zstd, |stored| {
        for (child, what) in stored.images() {
            let pull = ["pull", "--quiet", "--tls-verify=false", "--platform", child.platform, "--signature-policy"];
            let id = run(podman().args(pull).arg(&policy).arg(&stored.reference));
            assert_eq!(format!("sha256:{}", id.trim()), child.image.config.digest, "{what}");
            let root = run(podman().args(["image", "mount", id.trim()]));
            assert!(says(Path::new(root.trim()), child), "{what}: not {:?} in {root}", child.text);
            run(podman().args(["image", "unmount", id.trim()]));
        }
    });
}

#[test]
fn skopeo_gets_what_is_stored_for_each_platform() {
    each_stored(with_zstd, |stored| {
        for (child, what) in stored.images() {
            let directory = programs::directory();
            let target = directory.path().join("image");
            run(Command::new(programs::debian("skopeo"))
                .arg("--policy")
                .arg(signature_policy(&directory))
                .args(platform_options("--override-arch", "--override-variant", child.platform))
                .args(["copy", "--src-tls-verify=false", "--preserve-digests"])
                .arg(format!("docker://{}", stored.reference))
                .arg(format!("dir:{}", target.display())));
            assert_eq!(std::fs::read(target.join("manifest.json")).unwrap(), child.manifest, "{what}");
            for blob in child.image.blobs() {
                let found = std::fs::read(target.join(hexadecimal(&blob.bytes)));
                assert_eq!(found.ok().as_ref(), Some(&blob.bytes), "{what}: {}", blob.digest);
            }
        }
    });
}

#[test]
fn crane_gets_what_is_stored_for_each_platform() {
    let Some(crane) = programs::go_tool("crane") else { return };
    let crane = |platform: &str| {
        let mut command = Command::new(&crane);
        command.args(["--platform", platform]);
        command
    };
    each_stored(with_zstd, |stored| {
        let whole = run(crane("all").args(["digest", &stored.reference]));
        assert_eq!(whole.trim(), stored.parent.digest(), "{}", stored.what);
        for (child, what) in stored.images() {
            let digest = run(crane(child.platform).args(["digest", &stored.reference]));
            assert_eq!(digest.trim(), child.digest(), "{what}");
            let exported = programs::outcome(crane(child.platform).args(["export", &stored.reference, "-"]));
            let found = layers::file_in_tar(&exported.stdout, FILE).map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), Some(child.text.as_str()), "{what}");
        }
    });
}

#[test]
fn regctl_gets_what_is_stored_with_all_children() {
    let Some(regctl) = programs::go_tool("regctl") else { return };
    each_stored(with_zstd, |stored| {
        let directory = programs::directory();
        let host = stored.reference.split('/').next().unwrap();
        let regctl = || {
            let mut command = Command::new(&regctl);
            command.env("REGCTL_CONFIG", directory.path().join("config.json"));
            command
        };
        run(regctl().args(["registry", "set", "--tls", "disabled", host]));
        for (child, what) in stored.images() {
            let get = ["manifest", "get", "--format", "raw-body", "--platform", child.platform, &stored.reference];
            assert_eq!(run(regctl().args(get)).into_bytes(), child.manifest, "{what}");
        }

        let layout = directory.path().join("layout");
        run(regctl().args(["image", "copy", &stored.reference, &format!("ocidir://{}:{TAG}", layout.display())]));
        let children = stored
            .parent
            .children
            .iter()
            .flat_map(|child| child.image.blobs().map(|blob| &blob.bytes).chain([&child.manifest]));
        for bytes in children.chain([&stored.parent.bytes]) {
            let found = std::fs::read(layout.join("blobs/sha256").join(hexadecimal(bytes)));
            assert_eq!(found.ok().as_ref(), Some(bytes), "{}: {}", stored.what, String::from_utf8_lossy(bytes));
        }
    });
}
