//! `schemabridge store`: what the commands say of a store, what they remove, and what comes back by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::client::{Client, Reply};
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::sha256;
use crate::support::upstream::Upstream;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A directory store with the derived schema 1 and schema 2 of two images, and what clients were given.
struct Filled {
    upstream: Upstream,
    directory: tempfile::TempDir,
    handed_out: Vec<(String, Reply)>,
}

impl Filled {
    async fn new() -> Self {
        let (upstream, directory) = (Upstream::start().await, tempfile::tempdir().unwrap());
        // A process that is killed leaves nothing that would still write.
        let url = format!("file://{}", directory.path().display());
        let process = Process::serve(&["--upstream", &upstream.url(), "--store", &url], &[]).await;
        let mut handed_out = Vec::new();
        for repository in ["team/one", "other/two"] {
            let image = Image::classic(repository);
            upstream.put_image(repository, "v1", &image, &image.oci());
            for client in [Client::docker_1_9_1(), Client::docker_17()] {
                let reply = process.get(&client, &format!("/v2/{repository}/manifests/v1")).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                handed_out.push((repository.to_owned(), reply));
            }
        }
        process.kill().await;
        Self { upstream, directory, handed_out }
    }

    fn url(&self) -> String {
        format!("file://{}", self.directory.path().display())
    }

    /// What `store` and these words say, and how it ends.
    async fn command(&self, words: &[&str]) -> Output {
        store(&[words, &["--store", &self.url()]].concat()).await
    }

    async fn said(&self, words: &[&str]) -> String {
        let output = self.command(words).await;
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The only object of this folder whose name begins with the digits of this digest.
    fn object(&self, folder: &str, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let found = files_below(&self.directory.path().join("v1").join(folder)).into_keys();
        let mut found = found.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(hex));
        let object = found.next().unwrap_or_else(|| panic!("no {digest} in {folder}"));
        assert_eq!(found.next(), None);
        object
    }

    fn document(&self, number: usize) -> PathBuf {
        self.object("documents", self.handed_out[number].1.digest())
    }

    fn recipe(&self, number: usize) -> PathBuf {
        self.object("recipes", self.handed_out[number].1.digest())
    }

    /// Lets every handed-out digest be last used so many days ago, bytes and recipe.
    fn used_days_ago(&self, days: [u32; 4]) {
        for (number, days) in days.into_iter().enumerate() {
            for file in [self.document(number), self.recipe(number)] {
                used(&file, DAY * days);
            }
        }
    }

    fn documents_left(&self) -> Vec<bool> {
        self.left("documents")
    }

    fn recipes_left(&self) -> Vec<bool> {
        self.left("recipes")
    }

    /// Which of the handed-out digests still have an object in this folder.
    fn left(&self, folder: &str) -> Vec<bool> {
        let files = files_below(&self.directory.path().join("v1").join(folder));
        let has = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap();
            files.keys().any(|file| file.file_name().unwrap().to_str().unwrap().starts_with(hex))
        };
        self.handed_out.iter().map(|(_, reply)| has(reply.digest())).collect()
    }

    /// Puts a true object of another edition beside the first document: a name and a recipe that say so.
    fn put_document_of_edition(&self, edition: u32, bytes: &[u8]) -> PathBuf {
        let object = std::fs::read(self.document(0)).unwrap();
        let mut recipe: Value = serde_json::from_slice(object.split(|byte| *byte == b'\n').nth(1).unwrap()).unwrap();
        recipe["edition"] = edition.into();
        recipe["derived"] = sha256(bytes).into();
        recipe["target"] = "oci".into();
        let content = [recipe.to_string().as_bytes(), b"\n", bytes].concat();
        let (hex, name) = (sha256(bytes).split_off("sha256:".len()), self.document(0));
        let scope = name.extension().unwrap().to_str().unwrap().to_owned();
        let folder = self.directory.path().join(format!("v1/documents/{edition}/{}/{}", &hex[..2], &hex[2..4]));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{hex}.{scope}"));
        std::fs::write(&file, framed(&content)).unwrap();
        file
    }
}

/// An object of the store: the line with the hash of the rest.
fn framed(content: &[u8]) -> Vec<u8> {
    [format!("schemabridge 1 {}\n", sha256(content)).as_bytes(), content].concat()
}

async fn store(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.arg("store").args(words).env_clear();
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every file below a folder, with its bytes.
fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

fn used(file: &Path, ago: Duration) {
    std::fs::File::options().write(true).open(file).unwrap().set_modified(SystemTime::now() - ago).unwrap();
}

#[tokio::test]
async fn ls_names_what_was_derived_of_what() {
    let filled = Filled::new().await;
    let said = filled.said(&["ls"]).await;
    assert_eq!(said.lines().count(), 4, "{said}");
    for (repository, reply) in &filled.handed_out {
        let source = Image::classic(repository).oci().digest;
        let line = said.lines().find(|line| line.contains(repository) && line.contains(reply.digest()));
        let line = line.unwrap_or_else(|| panic!("no {repository} {}: {said}", reply.digest()));
        assert!(line.contains(&source) && line.contains("oci -> schema"), "{line}");
    }
    assert_eq!(said.matches("team/one:v1  oci -> schema1").count(), 1, "{said}");
}

#[tokio::test]
async fn ls_in_json_says_the_same_and_can_be_narrowed_to_repositories() {
    let filled = Filled::new().await;
    used(&filled.recipe(0), DAY * 3);
    let said = filled.said(&["ls", "--json", "--repository", "team/*"]).await;
    let listed: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed.len(), 2, "{said}");
    let (_, reply) = &filled.handed_out[0];
    let first = listed.iter().find(|recipe| recipe["derived"] == reply.digest()).unwrap();
    assert_eq!((&first["repository"], &first["tag"]), (&json!("team/one"), &json!("v1")));
    assert_eq!((&first["source_format"], &first["target"]), (&json!("oci"), &json!("schema1")));
    assert_eq!(first["source"], Image::classic("team/one").oci().digest);
    let day = |moment: SystemTime| chrono::DateTime::<chrono::Utc>::from(moment).format("%F").to_string();
    let expected = day(std::fs::metadata(filled.recipe(0)).unwrap().modified().unwrap());
    assert!(first["last_use"].as_str().unwrap().starts_with(&expected), "{first}");
    assert_eq!(filled.said(&["ls", "--repository", "nobody/*"]).await, "");
}

#[tokio::test]
async fn stat_counts_by_kind_and_edition_and_names_what_it_does_not_know() {
    let filled = Filled::new().await;
    filled.put_document_of_edition(7, b"{}");
    std::fs::write(filled.directory.path().join("notes.txt"), "of somebody else").unwrap();
    let said: Value = serde_json::from_str(&filled.said(&["stat", "--json"]).await).unwrap();
    let objects = |kind: &str| said[kind]["objects"].as_u64().unwrap_or_else(|| panic!("no {kind}: {said}"));
    assert_eq!((objects("documents of edition 1"), objects("documents of edition 7")), (4, 1));
    assert_eq!((objects("recipes of edition 1"), objects("signing key"), objects("unknown")), (4, 1, 1));
    let documents = files_below(&filled.directory.path().join("v1/documents/1"));
    let bytes: usize = documents.values().map(Vec::len).sum();
    assert_eq!(said["documents of edition 1"]["bytes"], bytes);
    assert_eq!(said["unknown"]["bytes"], "of somebody else".len());
    let said = filled.said(&["stat"]).await;
    assert!(said.starts_with(&filled.url()) && said.contains("documents of edition 1: 4 objects"), "{said}");
    assert!(said.contains("unknown: 1 objects, 16 bytes"), "{said}");
}

#[tokio::test]
async fn verify_finds_a_flipped_byte_and_names_the_object() {
    let filled = Filled::new().await;
    assert_eq!(filled.said(&["verify"]).await, "9 objects, all sound\n");
    for file in [filled.document(1), filled.recipe(2), filled.directory.path().join("v1/signing-key")] {
        let sound = std::fs::read(&file).unwrap();
        let mut damaged = sound.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&file, damaged).unwrap();
        let output = filled.command(&["verify"]).await;
        let name = file.strip_prefix(filled.directory.path()).unwrap().to_str().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains(&format!("damaged: {name}: ")), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains("1 of 9 objects"), "{}", text(&output.stderr));
        std::fs::write(&file, sound).unwrap();
    }
}

/// True to its own hash, and yet not what its name promises.
#[tokio::test]
async fn verify_finds_an_object_under_the_name_of_another() {
    let filled = Filled::new().await;
    std::fs::copy(filled.document(1), filled.document(3)).unwrap();
    let output = filled.command(&["verify"]).await;
    let name = filled.document(3).strip_prefix(filled.directory.path()).unwrap().display().to_string();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains(&name), "{}", text(&output.stdout));
}

#[tokio::test]
async fn a_rehearsal_says_what_would_go_and_changes_nothing() {
    let filled = Filled::new().await;
    filled.used_days_ago([500, 500, 1, 1]);
    let before = files_below(filled.directory.path());
    let said = filled.said(&["gc", "--dry-run"]).await;
    assert!(said.starts_with("would remove 2 recipes, 2 documents"), "{said}");
    assert!(files_below(filled.directory.path()) == before, "a rehearsal changed something");
    let said = filled.said(&["gc"]).await;
    assert!(said.starts_with("removed 2 recipes, 2 documents"), "{said}");
    assert_eq!(
        (filled.documents_left(), filled.recipes_left()),
        (vec![false, false, true, true], vec![false, false, true, true])
    );
}

#[tokio::test]
async fn gc_lets_bytes_go_by_last_use_and_keeps_their_recipes() {
    let filled = Filled::new().await;
    filled.used_days_ago([1, 4, 3, 2]);
    let size = |number| std::fs::metadata(filled.document(number)).unwrap().len();
    let most = (size(0) + size(3)).to_string();
    filled.said(&["gc", "--store-max-size", &most]).await;
    assert_eq!(filled.documents_left(), [true, false, false, true]);
    assert_eq!(filled.recipes_left(), [true; 4]);
    // The key is nobody's to remove.
    filled.said(&["gc", "--store-max-size", "1", "--store-max-recipes", "1"]).await;
    assert!(filled.directory.path().join("v1/signing-key").is_file());
}

#[tokio::test]
async fn gc_bounds_the_number_and_the_age_of_recipes() {
    let filled = Filled::new().await;
    filled.used_days_ago([10, 40, 30, 20]);
    filled.said(&["gc", "--recipe-max-age", "35d"]).await;
    assert_eq!(filled.recipes_left(), [true, false, true, true]);
    assert_eq!(filled.documents_left(), [true, false, true, true], "bytes without a recipe are of no use");
    filled.said(&["gc", "--store-max-recipes", "2"]).await;
    assert_eq!(filled.recipes_left(), [true, false, false, true]);
}

#[tokio::test]
async fn gc_lets_bytes_that_cannot_be_made_again_go_last() {
    let filled = Filled::new().await;
    let older = filled.put_document_of_edition(0, b"what an older translator made");
    used(&older, DAY * 100);
    let size = std::fs::metadata(&older).unwrap().len();
    filled.said(&["gc", "--store-max-size", &size.to_string()]).await;
    assert_eq!((filled.documents_left(), older.is_file()), (vec![false; 4], true));
    let said = filled.said(&["gc", "--store-max-size", &(size - 1).to_string()]).await;
    assert!(said.contains("(1 of older editions)") && !older.is_file(), "{said}");
}

#[tokio::test]
async fn gc_never_removes_what_it_does_not_know() {
    let filled = Filled::new().await;
    let newer = filled.put_document_of_edition(2, b"what a newer translator made");
    let root = filled.directory.path();
    let (hex, scope) = ("ab".repeat(32), "cd".repeat(32));
    let unknown = [
        root.join("notes.txt"),
        root.join("v1/notes.txt"),
        root.join(format!("v2/documents/1/ab/ab/{hex}.{scope}")),
        root.join(format!("v1/documents/x/ab/ab/{hex}.{scope}")),
        root.join(format!("v1/documents/1/00/00/{hex}.{scope}")),
        root.join(format!("v1/recipes/ab/ab/{hex}.{scope}.{hex}.2")),
        root.join("v1/recipes/ab/notes.txt"),
    ];
    for file in &unknown {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "of somebody else").unwrap();
    }
    for file in unknown.iter().chain([&newer]) {
        used(file, DAY * 1000);
    }
    filled.used_days_ago([1000; 4]);
    filled.said(&["gc", "--store-max-size", "1", "--store-max-recipes", "1", "--recipe-max-age", "1d"]).await;
    assert_eq!((filled.documents_left(), filled.recipes_left()), (vec![false; 4], vec![false; 4]));
    for file in unknown.iter().chain([&newer]) {
        assert!(file.is_file(), "{} was removed", file.display());
    }
}

/// Each refusal is one line that names the flag and says what is expected.
#[tokio::test]
async fn what_is_no_store_to_look_at_is_refused_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let url = format!("file://{}", missing.display());
    let cases: [(&[&str], &[&str]); 7] = [
        (&["ls", "--store", "memory:"], &["--store", "memory:", "expected"]),
        (&["gc", "--store", "memory:"], &["--store", "memory:", "expected"]),
        (&["ls", "--store", &url], &["--store", missing.to_str().unwrap()]),
        (&["stat", "--store", &url], &["--store", missing.to_str().unwrap()]),
        (&["verify", "--store", &url], &["--store", missing.to_str().unwrap()]),
        (&["gc", "--store", &url], &["--store", missing.to_str().unwrap()]),
        (&["gc", "--store", "s3://bucket"], &["s3://bucket", "--bucket", "lifecycle"]),
    ];
    for (words, expected) in cases {
        let output = store(words).await;
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {complaint}");
        assert_eq!((complaint.trim_end().lines().count(), output.stdout.as_slice()), (1, &b""[..]), "{complaint}");
        for word in expected {
            assert!(complaint.contains(word), "{words:?} without {word}: {complaint}");
        }
        assert!(!missing.exists(), "{words:?} made a directory");
    }
}

#[tokio::test]
async fn looking_at_a_directory_without_a_store_leaves_it_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    for word in ["ls", "stat", "verify", "gc"] {
        let output = store(&[word, "--store", &url]).await;
        assert!(output.status.success(), "{word}: {}", text(&output.stderr));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{word} made something");
    }
}

#[tokio::test]
async fn bytes_that_were_let_go_are_made_again_for_whoever_asks() {
    let filled = Filled::new().await;
    filled.used_days_ago([2; 4]);
    let (upstream, url) = (filled.upstream.url(), filled.url());
    let process = Process::serve(&["--upstream", &upstream, "--store", &url], &[]).await;
    filled.said(&["gc", "--store-max-size", "1"]).await;
    assert_eq!(filled.documents_left(), [false; 4]);
    for (repository, reply) in &filled.handed_out {
        let again = process.get(&Client::curl(), &format!("/v2/{repository}/manifests/{}", reply.digest())).await;
        assert_eq!((again.status, again.text()), (200, reply.text()), "{repository}@{}", reply.digest());
    }
    assert_eq!(filled.documents_left(), [true; 4]);
    assert_eq!(results(&process).await, [("hit", 0), ("lost", 0), ("rederived", 4)].map(owned));
    process.kill().await;
}

/// The bytes of an older edition are gone, and this translator makes others: the promise is broken, and counted.
#[tokio::test]
async fn bytes_of_an_older_edition_that_are_gone_are_counted_as_lost() {
    let filled = Filled::new().await;
    let (repository, reply) = &filled.handed_out[1];
    let (url, upstream) = (filled.url(), filled.upstream.url());
    // The recipe of an older edition for the same source, which gave other bytes.
    let content = std::fs::read(filled.recipe(1)).unwrap();
    let mut recipe: Value = serde_json::from_slice(content.split(|byte| *byte == b'\n').nth(1).unwrap()).unwrap();
    let bytes = format!("{}\n", reply.text()).into_bytes();
    recipe["edition"] = 0.into();
    recipe["derived"] = sha256(&bytes).into();
    let hex = sha256(&bytes).split_off("sha256:".len());
    let name = filled.recipe(1).file_name().unwrap().to_str().unwrap().to_owned();
    let words: Vec<&str> = name.split('.').collect();
    let folder = filled.directory.path().join(format!("v1/recipes/{}/{}", &hex[..2], &hex[2..4]));
    std::fs::create_dir_all(&folder).unwrap();
    let object = framed(recipe.to_string().as_bytes());
    std::fs::write(folder.join(format!("{hex}.{}.{}.0", words[1], words[2])), object).unwrap();
    let process = Process::serve(&["--upstream", &upstream, "--store", &url], &[]).await;
    let lost = process.get(&Client::docker_17(), &format!("/v2/{repository}/manifests/sha256:{hex}")).await;
    assert_eq!(lost.status, 404, "{}", lost.text());
    lost.error();
    assert_eq!(results(&process).await, [("hit", 0), ("lost", 1), ("rederived", 0)].map(owned));
    process.kill().await;
}

fn owned((result, count): (&str, u64)) -> (String, u64) {
    (result.to_owned(), count)
}

/// How requests for derived digests ended, in the order of the results' names.
async fn results(process: &Process) -> Vec<(String, u64)> {
    let metrics = process.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with("schemabridge_derived_digest_requests_total{"));
    let mut results: Vec<(String, u64)> = lines
        .map(|line| {
            let result = line.split("result=\"").nth(1).unwrap().split('"').next().unwrap();
            (result.to_owned(), line.rsplit(' ').next().unwrap().parse().unwrap())
        })
        .collect();
    results.sort();
    results
}
