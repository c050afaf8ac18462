//! Directories that cannot be written: a full one, one that became read-only, and one on a file system that a store cannot
//! use. Needs root, who alone may mount.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    documents,
    guises::{Guise, READS_OCI, READS_SCHEMA_1, READS_SCHEMA_2},
    http::Answer,
    images::{self, Blob, Image, Twin},
    layers,
    programs::{self, run, say},
    registries::{Gateway, Registry, said},
    stores::url_of,
};

const TAG: &str = "v1";
/// Far more than a test writes, and soon filled.
const SIZE: &str = "size=1m";

/// A mounted file system; dropping it unmounts it, whoever uses it still.
struct Mount {
    at: PathBuf,
    /// The loop device behind it.
    device: Option<String>,
    // Removed after the unmounting.
    _directory: TempDir,
}

impl Mount {
    fn tmpfs() -> Self {
        let directory = programs::directory();
        let at = directory.path().join("mount");
        std::fs::create_dir(&at).unwrap();
        run(tool("mount").args(["-t", "tmpfs", "-o", SIZE, "schemabridge-test"]).arg(&at));
        Self { at, device: None, _directory: directory }
    }

    /// exFAT, which has no hard links; none where the machine gives no devices for it.
    fn exfat() -> Option<Self> {
        let directory = programs::directory();
        let (at, image) = (directory.path().join("mount"), directory.path().join("image"));
        std::fs::create_dir(&at).unwrap();
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        run(tool("mkfs.exfat").arg(&image));
        let looped = programs::outcome(tool("losetup").args(["--find", "--show"]).arg(&image));
        if !looped.status.success() || !Path::new("/dev/fuse").exists() {
            say("LEFT OUT: a file system without hard links needs a loop device and /dev/fuse");
            return None;
        }
        let device = String::from_utf8(looped.stdout).unwrap().trim().to_owned();
        let mount = Self { at, device: Some(device.clone()), _directory: directory };
        run(tool("mount.exfat-fuse").arg(&device).arg(&mount.at));
        Some(mount)
    }

    /// How the file system is mounted from now on.
    fn becomes(&self, word: &str) {
        run(tool("mount").args(["-o", &format!("remount,{word}")]).arg(&self.at));
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            let zeros = vec![0; size];
            let full = std::iter::repeat_with(|| file.write_all(&zeros)).find_map(Result::err).unwrap();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = programs::outcome(tool("umount").arg("--lazy").arg(&self.at));
        if let Some(device) = &self.device {
            let _ = programs::outcome(tool("losetup").args(["--detach", device]));
        }
    }
}

fn tool(name: &str) -> Command {
    Command::new(programs::debian(name))
}

/// A gateway on a small tmpfs, and what it handed out while all was well.
struct Stage {
    gateway: Gateway,
    mount: Mount,
    registry: Registry,
    handed_out: Vec<(Guise, String, Answer)>,
}

impl Stage {
    fn set() -> Self {
        let (registry, mount) = (Registry::docker_registry(), Mount::tmpfs());
        let gateway = Gateway::start_on_directory(&registry, &mount.at);
        let image = put(&registry, "test/before");
        let ask = |guise: Guise| {
            let answer = ask(&gateway, guise, "test/before", TAG);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let digest = answer.header("docker-content-digest").unwrap().to_owned();
            assert_ne!(digest, images::digest(&image.manifest(Twin::Oci)));
            (guise, digest, answer)
        };
        let handed_out = [READS_SCHEMA_1, READS_SCHEMA_2].map(ask).into();
        Self { gateway, mount, registry, handed_out }
    }

    /// What needs no writing goes on, and what needs it is refused so that the client comes again.
    fn assert_serves_what_it_can(&mut self, repository: &str) {
        let image = put(&self.registry, repository);
        let refused = ask(&self.gateway, READS_SCHEMA_2, repository, TAG);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.header("retry-after").is_some(), "{refused:?}");

        // Docker 1.9 does not come back by digest: it may have what is not kept.
        let given = ask(&self.gateway, READS_SCHEMA_1, repository, TAG);
        let digest = images::digest(&documents::schema1_of(&given, repository));
        self.gateway.wait_for_line("warn of a document that is not kept", |line| {
            line["level"] == "WARN"
                && said(line, "message") == "a derived document could not be kept"
                && said(line, "digest") == digest
        });

        let stored = ask(&self.gateway, READS_OCI, repository, TAG);
        assert_eq!((stored.status, &stored.body), (200, &image.manifest(Twin::Oci)));
        for blob in image.blobs() {
            let target = format!("/v2/{repository}/blobs/{}", blob.digest);
            assert_eq!(READS_SCHEMA_2.ask(self.gateway.address, &target).body, blob.bytes);
        }
        self.assert_keeps_its_word();
    }

    /// Everything that was handed out is served.
    fn assert_keeps_its_word(&self) {
        for (guise, digest, answer) in &self.handed_out {
            let again = ask(&self.gateway, *guise, "test/before", digest);
            assert_eq!(again.status, 200, "{digest}: {}", again.text());
            assert_eq!(again.body, answer.body, "{digest}");
        }
    }

    /// The same process derives again, and keeps what it derives.
    fn assert_recovers(&mut self, repository: &str) {
        let derived = ask(&self.gateway, READS_SCHEMA_2, repository, TAG);
        assert_eq!(derived.status, 200, "{}", derived.text());
        let digest = derived.header("docker-content-digest").unwrap().to_owned();
        self.gateway.wait_for_line("say that the store answers again", |line| {
            said(line, "message") == "the store answers again"
        });
        self.restart();
        assert_eq!(ask(&self.gateway, READS_SCHEMA_2, repository, &digest).body, derived.body);
        self.assert_keeps_its_word();
    }

    /// Another process on the same directory, which remembers nothing.
    fn restart(&mut self) {
        self.gateway = Gateway::start_on_directory(&self.registry, &self.mount.at);
    }
}

/// An OCI image that nobody has asked for.
fn put(registry: &Registry, repository: &str) -> Image {
    let image = images::runnable_labelled(repository);
    registry.push(&image, Twin::Oci, repository, TAG);
    image
}

fn ask(gateway: &Gateway, guise: Guise, repository: &str, reference: &str) -> Answer {
    guise.ask(gateway.address, &format!("/v2/{repository}/manifests/{reference}"))
}

/// An image with a layer of zstd whose gzip layer has some three MiB.
fn zstd_image() -> Image {
    // The digits of as many hashes: no compressor makes less than half of them.
    let digits = (0..100_000_u32).map(|number| images::hexadecimal(&number.to_le_bytes())).collect::<String>();
    let archive = layers::tar(&[("data/digits", digits.as_str())]);
    let mut image = images::runnable();
    let mut config: Value = serde_json::from_slice(&image.config.bytes).unwrap();
    config["rootfs"]["diff_ids"] = [images::digest(&archive)].into();
    config["history"] = Value::Null;
    image.config = Blob::new(serde_json::to_vec(&config).unwrap());
    image.layers = vec![Blob::new(layers::zstd(&archive))];
    image
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[test]
fn a_full_disk_stops_new_derivations_and_nothing_else() {
    let mut stage = Stage::set();
    stage.mount.fill();
    stage.assert_serves_what_it_can("test/full");
    stage.mount.empty();
    stage.assert_recovers("test/full");
}

#[test]
fn a_disk_that_becomes_read_only_stops_new_derivations_and_nothing_else() {
    let mut stage = Stage::set();
    stage.mount.becomes("ro");
    stage.assert_serves_what_it_can("test/read-only");
    stage.mount.becomes("rw");
    stage.assert_recovers("test/read-only");
}

#[test]
fn a_gateway_starts_on_a_disk_that_cannot_be_written_and_serves_what_is_there() {
    let mut stage = Stage::set();
    stage.mount.becomes("ro");
    stage.restart();
    stage.assert_keeps_its_word();
    stage.assert_serves_what_it_can("test/read-only");
    stage.mount.becomes("rw");
    stage.mount.fill();
    stage.restart();
    stage.assert_keeps_its_word();
    stage.assert_serves_what_it_can("test/full");
    stage.mount.empty();
    stage.assert_recovers("test/full");
}

/// The gzip layer has more bytes than the disk: what is there of it goes, and what needs no room is served.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_layer_is_a_503_until_there_is_room() {
    let (registry, mount, repository) = (Registry::docker_registry(), Mount::tmpfs(), "test/layers");
    let zstd = zstd_image();
    for blob in zstd.blobs() {
        registry.push_blob(repository, blob);
    }
    let stored = zstd.manifest_with_layers(Twin::Oci, "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(registry.put_manifest(repository, TAG, Twin::Oci.media_type(), &stored).status, 201);
    put(&registry, "test/gzip");
    let gateway = Gateway::start_on_directory_with(&registry, &mount.at, &["--transcode", "zstd"]);
    for _ in 0..2 {
        let refused = ask(&gateway, READS_SCHEMA_2, repository, TAG);
        let words = refused.text();
        assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{words}");
        assert!(words.contains("store"), "{words}");
        assert_eq!(files_below(&mount.at.join("v1/layers")), 0);
        assert_eq!(files_below(&mount.at.join("v1/staging")), 0);
        let as_stored = ask(&gateway, READS_OCI, repository, TAG);
        assert_eq!((as_stored.status, as_stored.body), (200, stored.clone()));
    }
    // What is small has room still.
    assert_eq!(ask(&gateway, READS_SCHEMA_2, "test/gzip", TAG).status, 200);

    mount.becomes("size=64m");
    let given = ask(&gateway, READS_SCHEMA_2, repository, TAG);
    assert_eq!(given.status, 200, "{}", given.text());
    let manifest: Value = serde_json::from_slice(&given.body).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let bytes = READS_SCHEMA_2.ask(gateway.address, &format!("/v2/{repository}/blobs/{layer}")).body;
    assert_eq!(images::digest(&bytes), layer);
    assert!(bytes.len() > 1 << 20, "{}", bytes.len());
}

/// Replicas share the key that signs schema 1: none is made up where it cannot be kept.
#[test]
fn a_full_disk_without_a_signing_key_gives_no_schema_1() {
    let (registry, mount) = (Registry::docker_registry(), Mount::tmpfs());
    mount.fill();
    let gateway = Gateway::start_on_directory(&registry, &mount.at);
    put(&registry, "test/full");
    let refused = ask(&gateway, READS_SCHEMA_1, "test/full", TAG);
    assert_eq!(refused.status, 503, "{}", refused.text());
    mount.empty();
    documents::schema1_of(&ask(&gateway, READS_SCHEMA_1, "test/full", TAG), "with space again");
}

#[test]
fn a_file_system_without_hard_links_is_refused_at_the_start() {
    let Some(mount) = Mount::exfat() else { return };
    let store = url_of(&mount.at.join("store"));
    let output = programs::outcome(
        Command::new(env!("CARGO_BIN_EXE_schemabridge"))
            .args(["serve", "--upstream", "http://127.0.0.1:1", "--store", &store])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]),
    );
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{complaint}");
    for words in ["--store", store.as_str(), "hard links", "expected"] {
        assert!(complaint.contains(words), "no {words}: {complaint}");
    }
    assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
}
