//! Layers of zstd as skopeo packs them, for Docker 20.10, which cannot unpack them: by a gateway that makes gzip layers of
//! them it has the same files as from the same archives in gzip.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    engines::{Dockerd, reference},
    guises::READS_SCHEMA_2,
    images::{self, Blob, Twin},
    layers,
    programs::{self, run},
    registries::{Gateway, Registry},
};

const REPOSITORY: &str = "test/zstd";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Writes four archives, each over the one before: owners, modes, times, links of both kinds, names that need more than ASCII,
/// a file that is much larger than a piece, and the removal of what is below.
const MAKE_ARCHIVES: &str = r"
import io, sys, tarfile

def member(name, kind, content=b'', mode=0o644, owner=(0, 0), time=1234567890, link=''):
    made = tarfile.TarInfo(name)
    made.type, made.mode, (made.uid, made.gid), made.mtime, made.linkname = kind, mode, owner, time, link
    made.size = len(content)
    return made, io.BytesIO(content)

# Go ends an archive with two empty records, and tar fills up ten thousand bytes. skopeo 1.9 forgets what follows the two.
tarfile.RECORDSIZE = tarfile.BLOCKSIZE
FILE, FOLDER, SYMLINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
large = bytes(number * number % 251 for number in range(700000)) + bytes(400000)
archives = [
    [member('data', FOLDER, mode=0o755), member('data/plain', FILE, b'plain\n'), member('data/removed', FILE, b'gone\n'),
     member('data/replaced', FILE, b'before\n'), member('data/setuid', FILE, b'#!\n', 0o4755, (1000, 50), 86400)],
    [member('data/sticky', FOLDER, mode=0o1777, owner=(7, 8)), member('data/sticky/own', FILE, b'own\n', 0o600, (7, 8)),
     member('data/sticky/same', HARD, link='data/sticky/own'), member('data/link', SYMLINK, link='sticky/own')],
    [member('data/large', FILE, large, 0o400, (65534, 65534)), member('data/.wh.removed', FILE),
     member('data/replaced', FILE, b'after\n', 0o755)],
    [member('data/\u017e \U0001f433', FILE, b'name\n', time=1700000000), member('data/dangling', SYMLINK, link='/no/where')],
]
for number, members in enumerate(archives):
    with tarfile.open(f'{sys.argv[1]}/{number}.tar', 'w', format=tarfile.PAX_FORMAT) as archive:
        for header, content in members:
            archive.addfile(header, content)
";

/// Says of each member below `data` all that decides how it is unpacked.
const DESCRIBE: &str = r"
import hashlib, sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        if member.name.startswith('data/'):
            content = hashlib.sha256(archive.extractfile(member).read()).hexdigest() if member.isreg() else ''
            print(member.name, member.type, oct(member.mode & 0o7777), member.uid, member.gid, member.mtime, member.linkname, content)
";

/// The end of the magic number of frames that readers of zstd skip: there zstd:chunked says where each file begins.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// A layer, and the end of its OCI type.
type Packed = (Blob, &'static str);

/// Four archives, and each of them as a layer.
struct Stage {
    archives: Vec<Vec<u8>>,
    gzip: Vec<Packed>,
    zstd: Vec<Packed>,
    chunked: Vec<Packed>,
}

impl Stage {
    fn set() -> Self {
        let directory = programs::directory();
        run(Command::new(programs::debian("python3")).args(["-c", MAKE_ARCHIVES]).arg(directory.path()));
        let archive = |number: usize| std::fs::read(directory.path().join(format!("{number}.tar"))).unwrap();
        let archives: Vec<_> = (0..4).map(archive).collect();
        let plain = in_a_folder(&archives);
        let [zstd, chunked] = ["zstd", "zstd:chunked"].map(|format| packed_by_skopeo(&plain, format));
        let has_frames_to_skip =
            |(blob, _): &Packed| blob.bytes.windows(SKIPPABLE.len()).any(|bytes| bytes == SKIPPABLE);
        assert!(chunked.iter().all(has_frames_to_skip));
        let gzip = archives.iter().map(|archive| (Blob::new(layers::gzip(archive)), "tar+gzip"));
        Self { gzip: gzip.collect(), zstd, chunked, archives }
    }

    /// One layer of each compression.
    fn mixed(&self) -> Vec<Packed> {
        let plain = (Blob::new(self.archives[3].clone()), "tar");
        vec![self.gzip[0].clone(), self.zstd[1].clone(), self.chunked[2].clone(), plain]
    }

    fn push(&self, registry: &Registry, layers: &[Packed], tag: &str) {
        let config = Blob::new(config_of(&self.archives));
        let descriptor = |media_type: &str, blob: &Blob| json!({"mediaType": media_type, "size": blob.bytes.len(), "digest": blob.digest});
        let named = layers
            .iter()
            .map(|(blob, kind)| descriptor(&format!("application/vnd.oci.image.layer.v1.{kind}"), blob))
            .collect::<Vec<_>>();
        let media_type = Twin::Oci.media_type();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": descriptor(OCI_CONFIG, &config), "layers": named,
        });
        for blob in layers.iter().map(|(blob, _)| blob).chain([&config]) {
            registry.push_blob(REPOSITORY, blob);
        }
        let answer = registry.put_manifest(REPOSITORY, tag, media_type, &serde_json::to_vec(&manifest).unwrap());
        assert_eq!(answer.status, 201, "{tag}: {}", answer.text());
    }
}

fn config_of(archives: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = archives.iter().map(|archive| images::digest(archive)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

/// The image with plain layers as skopeo's `dir:` has it.
fn in_a_folder(archives: &[Vec<u8>]) -> TempDir {
    let folder = programs::directory();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let described = |media_type: &str, bytes: &[u8]| {
        write(&images::hexadecimal(bytes), bytes);
        json!({"mediaType": media_type, "size": bytes.len(), "digest": images::digest(bytes)})
    };
    let config = described(OCI_CONFIG, &config_of(archives));
    let layer = |archive: &Vec<u8>| described("application/vnd.oci.image.layer.v1.tar", archive);
    let layers: Vec<Value> = archives.iter().map(layer).collect();
    let media_type = Twin::Oci.media_type();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
    write("manifest.json", manifest.to_string().as_bytes());
    write("version", b"Directory Transport Version: 1.1\n");
    folder
}

fn packed_by_skopeo(plain: &TempDir, format: &str) -> Vec<Packed> {
    let folder = programs::directory();
    let named = |folder: &TempDir| format!("dir:{}", folder.path().display());
    run(Command::new(programs::debian("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet", "--format", "oci", "--dest-compress"])
        .args(["--dest-compress-format", format, &named(plain), &named(&folder)]));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    let packed = |layer: &Value| {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        let digest = layer["digest"].as_str().unwrap();
        (Blob::new(read(digest.trim_start_matches("sha256:"))), "tar+zstd")
    };
    manifest["layers"].as_array().unwrap().iter().map(packed).collect()
}

/// The files of an image as a Docker that never saw it before has them, a line each.
fn files(of: SocketAddr, tag: &str) -> String {
    let (dockerd, directory) = (Dockerd::start(), programs::directory());
    let name = reference(of, REPOSITORY, tag);
    dockerd.pull(&name);
    let exported: PathBuf = directory.path().join("files.tar");
    run(dockerd.docker().args(["export", "--output"]).arg(&exported).arg(dockerd.container(&name)));
    described(&exported)
}

fn described(archive: &Path) -> String {
    run(Command::new(programs::debian("python3")).args(["-c", DESCRIBE]).arg(archive))
}

fn gateway(registry: &Registry, environment: &[(&str, &str)]) -> Gateway {
    Gateway::start_before(&format!("http://{}", registry.address), environment)
}

#[test]
fn docker_20_10_has_the_files_of_zstd_layers_with_their_owners_modes_times_and_links() {
    let (stage, registry) = (Stage::set(), Registry::docker_registry());
    stage.push(&registry, &stage.gzip, "gzip");
    let expected = files(registry.address, "gzip");
    for words in [
        "data/setuid b'0' 0o4755 1000 50 86400 ",
        "data/link b'2' ",
        "data/sticky/same b'1' ",
        "data/replaced b'0' 0o755 ",
    ] {
        assert!(expected.contains(words), "no {words}: {expected}");
    }
    assert!(!expected.contains("removed"), "{expected}");
    let gateway = gateway(&registry, &[("SCHEMABRIDGE_TRANSCODE", "zstd")]);
    for (tag, layers) in [("zstd", &stage.zstd), ("chunked", &stage.chunked), ("mixed", &stage.mixed())] {
        stage.push(&registry, layers, tag);
        assert_eq!(files(gateway.address, tag), expected, "{tag}");
    }
}

/// Nothing of this is needed by a Docker that could do it itself: straight from the registry it fails, and a gateway without
/// the switch says so before any layer is sent.
#[test]
fn docker_20_10_cannot_unpack_zstd_layers_itself_and_is_told_so() {
    let (stage, registry) = (Stage::set(), Registry::docker_registry());
    let dockerd = Dockerd::start();
    let refused = |of: SocketAddr, tag: &str| {
        let output = programs::outcome(dockerd.docker().args(["pull", &reference(of, REPOSITORY, tag)]));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{tag}: docker pulled it: {words}");
        words
    };
    let gateway = gateway(&registry, &[]);
    for (tag, layers) in [("zstd", &stage.zstd), ("chunked", &stage.chunked), ("mixed", &stage.mixed())] {
        stage.push(&registry, layers, tag);
        let words = refused(registry.address, tag);
        assert!(words.contains("tar header") || words.contains("unexpected EOF"), "{tag}: {words}");
        let words = refused(gateway.address, tag);
        assert!(words.contains("zstd") && words.contains("--transcode zstd"), "{tag}: {words}");
    }
}

/// tar fills an archive up with zeros, and skopeo 1.9 leaves them out of zstd:chunked: the layer holds another archive than the
/// config names, which every engine would find only after it has fetched all of it.
#[test]
fn a_layer_that_lost_the_end_of_its_archive_is_refused_with_both_digests() {
    let (mut stage, registry) = (Stage::set(), Registry::docker_registry());
    let whole = stage.archives[0].clone();
    stage.archives[0].resize(whole.len().next_multiple_of(10_240) + 10_240, 0);
    let packed = packed_by_skopeo(&in_a_folder(&stage.archives), "zstd:chunked");
    stage.push(&registry, &packed, "cut");
    let gateway = gateway(&registry, &[("SCHEMABRIDGE_TRANSCODE", "zstd")]);
    let refused = READS_SCHEMA_2.ask(gateway.address, &format!("/v2/{REPOSITORY}/manifests/cut"));
    let words = refused.text();
    assert_eq!(refused.status, 406, "{words}");
    for digest in [&packed[0].0.digest, &images::digest(&whole), &images::digest(&stage.archives[0])] {
        assert!(words.contains(digest), "no {digest}: {words}");
    }
}
