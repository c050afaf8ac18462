//! Layers as other programs pack them, read and packed anew: what `python3` and `zstd` say of them is what this says.

use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use futures_util::stream;
use schemabridge::image::digest::Digest;
use schemabridge::image::layer::{Compression, GzipLayer, LayerFacts};
use schemabridge::transcode::{Bounds, Fault, Workers};

/// Writes an archive of text, of numbers and of zeros.
const MAKE_ARCHIVE: &str = "
import io, sys, tarfile
with tarfile.open(sys.argv[1], 'w') as archive:
    for name, content in [('text', b'some words\\n' * 90000), ('numbers', bytes(i * i % 251 for i in range(700000))), ('zeros', bytes(300000))]:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
";

/// Packs a file as Python does, in two members.
const GZIP_TWICE: &str = "
import gzip, sys
data = open(sys.argv[1], 'rb').read()
with open(sys.argv[2], 'wb') as out:
    out.write(gzip.compress(data[:500000]) + gzip.compress(data[500000:], 1))
";

/// Unpacks what was packed here, all members and nothing behind them, and says the SHA-256 of it.
const SHA256_OF_GZIP: &str = "
import gzip, hashlib, sys
print('sha256:' + hashlib.sha256(gzip.decompress(sys.stdin.buffer.read())).hexdigest())
";

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sha256sum(file: &Path) -> Digest {
    let line = run("sha256sum", &[file.to_str().unwrap()]);
    format!("sha256:{}", line.split(' ').next().unwrap()).parse().unwrap()
}

/// What Python reads out of gzip bytes.
fn unpacked_by_python(gzip: &[u8]) -> Digest {
    let mut python = Command::new("python3")
        .args(["-c", SHA256_OF_GZIP])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), gzip).unwrap();
    let output = python.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A folder with `layer.tar` and its packings.
fn packed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    run("python3", &["-c", MAKE_ARCHIVE, &path("layer.tar")]);
    run("python3", &["-c", GZIP_TWICE, &path("layer.tar"), &path("layer.tar.gz")]);
    run("zstd", &["-q", "-19", "--long=24", &path("layer.tar"), "-o", &path("layer.tar.zst")]);
    folder
}

fn pieces(file: &Path) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static + use<> {
    let bytes = std::fs::read(file).unwrap();
    stream::iter(bytes.chunks(30_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>())
}

fn workers() -> Workers {
    Workers::new(Workers::default_at_once(), Bounds::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_what_other_programs_say_of_the_layer() {
    let folder = packed();
    let diff_id = sha256sum(&folder.path().join("layer.tar"));
    let workers = workers();
    for (name, compression) in
        [("layer.tar", Compression::None), ("layer.tar.gz", Compression::Gzip), ("layer.tar.zst", Compression::Zstd)]
    {
        let file = folder.path().join(name);
        let turn = workers.turn().await.unwrap();
        let facts = workers.measure(turn, &sha256sum(&file), pieces(&file)).await.unwrap();
        let size = std::fs::metadata(&file).unwrap().len();
        assert_eq!(facts, LayerFacts { diff_id: diff_id.clone(), size, compression }, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_read_the_gzip_layer_and_find_the_same_archive() {
    let folder = packed();
    let (archive, blob) = (folder.path().join("layer.tar"), folder.path().join("layer.tar.zst"));
    let (diff_id, workers) = (sha256sum(&archive), workers());
    let mut made = Vec::new();
    for _ in 0..2 {
        let turn = workers.turn().await.unwrap();
        let mut making = workers.to_gzip(turn, sha256sum(&blob), Some(diff_id.clone()), pieces(&blob));
        let mut bytes = Vec::new();
        while let Some(piece) = making.next().await {
            bytes.extend_from_slice(&piece);
        }
        let gzip = making.finish().await.unwrap();
        assert_eq!(
            gzip,
            GzipLayer { digest: Digest::sha256(&bytes), size: bytes.len() as u64, diff_id: diff_id.clone() }
        );
        assert_eq!(unpacked_by_python(&bytes), diff_id);
        made.push(bytes);
    }
    assert!(made[0] == made[1], "the same each time");
}

/// zstd's own word for a window that only a reader who was asked to reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_beyond_what_is_read_is_refused() {
    let folder = packed();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // From a pipe, because of a file zstd knows the length and takes a window of that.
    let command = format!("cat '{}' | zstd -q -1 --long=28 > '{}'", path("layer.tar"), path("long.zst"));
    run("sh", &["-c", &command]);
    let (file, workers) = (folder.path().join("long.zst"), workers());
    let turn = workers.turn().await.unwrap();
    let fault = workers.measure(turn, &sha256sum(&file), pieces(&file)).await.unwrap_err();
    assert!(matches!(fault, Fault::Damaged(_)), "{fault}");
}
