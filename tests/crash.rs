//! `kill -9` between any two steps of a write: what was handed out stays good, and nothing half-written is served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::client::{Client, Reply};
use crate::support::images::{Document, Image, Kind};
use crate::support::parents::{Entry, oci_index};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{patiently, sha256};

/// Each chain is a store of its own, which lives through all its rounds.
const CHAINS: usize = 8;
const ROUNDS_OF_A_CHAIN: usize = 25;

/// Where the process is stopped: the point, and the how manieth time it is reached. A derivation writes a claim, the
/// document, its recipe and, for schema 1, asks for the signing key; a list writes its children before.
const POINTS: [&str; 12] = [
    "staged:1",
    "staged:2",
    "staged:3",
    "staged:4",
    "staged:5",
    "renamed:1",
    "renamed:2",
    "renamed:3",
    "renamed:4",
    "recipe-written:1",
    "recipe-written:2",
    "answer-sent:1",
];

/// One kind of request: what is stored, and who asks.
#[derive(Clone, Copy)]
enum Dish {
    Schema1,
    Schema2,
    Oci,
    List,
}

impl Dish {
    const ALL: [Self; 4] = [Self::Schema1, Self::Schema2, Self::Oci, Self::List];

    fn client(self) -> Client {
        match self {
            Self::Schema1 => Client::docker_1_9_1(),
            Self::Schema2 | Self::List => Client::docker_17(),
            Self::Oci => Client::oci_only(),
        }
    }

    fn put(self, upstream: &Upstream, repository: &str) {
        let image = Image::classic(repository);
        match self {
            Self::Schema1 | Self::Schema2 => upstream.put_image(repository, "latest", &image, &image.oci()),
            Self::Oci => upstream.put_image(repository, "latest", &image, &image.schema2()),
            Self::List => {
                let images =
                    ["amd64", "s390x"].map(|architecture| Image::buildkit(repository, architecture, Kind::Gzip, 1));
                let children: Vec<Document> = images.iter().map(Image::oci).collect();
                for (image, child) in images.iter().zip(&children) {
                    upstream.put_image(repository, "latest", image, child);
                }
                let entries = [Entry::on(&children[0], "linux/amd64"), Entry::on(&children[1], "linux/s390x")];
                upstream.put(repository, "latest", &oci_index(&entries));
            }
        }
    }
}

/// What clients of a chain were given: by repository and digest.
type HandedOut = BTreeMap<(String, String), Vec<u8>>;

struct Chain {
    directory: tempfile::TempDir,
    upstream: Arc<Upstream>,
    handed_out: HandedOut,
    reached: BTreeSet<String>,
}

impl Chain {
    async fn serve(&self, more: &[&str]) -> Process {
        let (url, store) = (self.upstream.url(), format!("file://{}", self.directory.path().display()));
        Process::serve(&[&["--upstream", &url, "--store", &store], more].concat(), &[]).await
    }

    /// Stops the process at the point, kills it, and looks at what is left.
    async fn round(&mut self, repository: &str, dish: Dish, point: &str) {
        dish.put(&self.upstream, repository);
        let target = format!("/v2/{repository}/manifests/latest");
        let mut process = self.serve(&["--fault-point", point]).await;
        let address = process.address;
        let asked = tokio::spawn(async move {
            let mut open = dish.client().get(&target).open(address).await;
            open.rest().await;
            let has_head = open.received().windows(4).any(|window| window == b"\r\n\r\n");
            has_head.then(|| open.reply(false))
        });
        let expected = format!("fault point {} reached", point.split(':').next().unwrap());
        let mut asked = std::pin::pin!(asked);
        // The point may lie behind the answer, or this request may not come by it so often.
        let answered = tokio::select! {
            said = patiently("the fault point", process.says()) => {
                assert_eq!(said.as_deref(), Some(expected.as_str()));
                self.reached.insert(point.split(':').next().unwrap().to_owned());
                None
            }
            reply = &mut asked => reply.unwrap(),
        };
        let is_answered = answered.is_some();
        if is_answered && point.starts_with("answer-sent") {
            assert_eq!(patiently("the fault point", process.says()).await, Some(expected));
            self.reached.insert("answer-sent".to_owned());
        }
        process.kill().await;
        let reply = if is_answered { answered } else { asked.await.unwrap() };
        let reply = reply.filter(|reply| reply.is_whole && reply.status == 200);
        if let Some(reply) = &reply {
            self.note(repository, reply);
        }
        self.nothing_is_half_written();
        let process = self.serve(&[]).await;
        let again = process.get(&dish.client(), &format!("/v2/{repository}/manifests/latest")).await;
        assert_eq!(again.status, 200, "{point}: {}\n{}", again.text(), process.log());
        if let Some(reply) = reply {
            assert_eq!(again.text(), reply.text(), "{point}");
        }
        self.note(repository, &again);
        self.all_is_served(&process, |of| of == repository).await;
        process.kill().await;
    }

    /// Notes what a client holds now: the document, and for a list the digests of its children.
    fn note(&mut self, repository: &str, reply: &Reply) {
        self.handed_out.insert((repository.to_owned(), reply.digest().to_owned()), reply.body.clone());
        for child in reply.json()["manifests"].as_array().into_iter().flatten() {
            let key = (repository.to_owned(), child["digest"].as_str().unwrap().to_owned());
            self.handed_out.entry(key).or_default();
        }
    }

    async fn all_is_served(&self, process: &Process, wanted: impl Fn(&str) -> bool) {
        for ((repository, digest), body) in self.handed_out.iter().filter(|((repository, _), _)| wanted(repository)) {
            let reply = process.get(&Client::curl(), &format!("/v2/{repository}/manifests/{digest}")).await;
            assert_eq!(reply.status, 200, "{repository}@{digest}: {}", reply.text());
            if body.is_empty() {
                assert_eq!(sha256(&reply.body), *digest);
            } else {
                assert!(reply.body == *body, "{repository}@{digest} has other bytes");
            }
        }
    }

    /// Every object that has its name is whole: its first line holds the hash of the rest.
    fn nothing_is_half_written(&self) {
        let layout = self.directory.path().join("v1");
        for file in files_below(&layout).into_iter().filter(|file| !file.starts_with(layout.join("staging"))) {
            let object = std::fs::read(&file).unwrap();
            let line = object.iter().position(|byte| *byte == b'\n').unwrap_or_else(|| panic!("{}", file.display()));
            let named = String::from_utf8(object[..line].to_vec()).unwrap();
            assert_eq!(named, format!("schemabridge 1 {}", sha256(&object[line + 1..])), "{}", file.display());
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

async fn chain(number: usize, upstream: Arc<Upstream>) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = Chain { directory, upstream, handed_out: HandedOut::new(), reached: BTreeSet::new() };
    for round in 0..ROUNDS_OF_A_CHAIN {
        // 12 points and 4 kinds: every pair comes once in 48 rounds that are counted through all chains.
        let step = number + round * CHAINS;
        let (point, dish) = (POINTS[step % POINTS.len()], Dish::ALL[step / POINTS.len() % Dish::ALL.len()]);
        chain.round(&format!("chain{number}/round{round}"), dish, point).await;
    }
    let process = chain.serve(&[]).await;
    chain.all_is_served(&process, |_| true).await;
    let metrics = process.metrics().await;
    assert!(metrics.lines().any(|line| line == "schemabridge_store_damaged_objects_total 0"), "{metrics}");
    process.kill().await;
    chain.reached
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_out_outlives_200_kills_at_every_step_of_a_write() {
    let upstream = Arc::new(Upstream::start().await);
    let chains: Vec<_> = (0..CHAINS).map(|number| tokio::spawn(chain(number, Arc::clone(&upstream)))).collect();
    let mut reached = BTreeSet::new();
    for chain in chains {
        reached.extend(chain.await.unwrap());
    }
    let all = ["answer-sent", "recipe-written", "renamed", "staged"];
    assert_eq!(reached.iter().map(String::as_str).collect::<Vec<_>>(), all, "every point was reached");
    assert_eq!(CHAINS * ROUNDS_OF_A_CHAIN, 200);
}
