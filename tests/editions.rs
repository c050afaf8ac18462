//! A digest outlives the translator that made it: a store is read by every later edition, by the edition before during a
//! roll-out, and what an edition does not know it leaves alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Call, Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image};
use crate::support::objects::{self, Kept};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{basic, sha256};

const TAGGED: &str = "/v2/app/manifests/latest";

fn named(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/manifests/{digest}")
}

fn series(result: &str) -> String {
    format!(r#"schemabridge_derived_digest_requests_total{{upstream="default",result="{result}"}}"#)
}

mod a_store_of_edition_1 {
    use super::*;

    fn fixture(part: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/golden/store-edition-1", part].iter().collect()
    }

    /// What its registry held, in a registry; and its objects, in a directory of their own.
    async fn restored() -> (Upstream, TempDir) {
        let upstream = Upstream::start().await;
        for (path, bytes) in objects::files(&fixture("upstream")) {
            let [repository, name] = [path.parent(), path.file_name().map(Path::new)].map(|part| part.unwrap());
            let repository = repository.to_str().unwrap();
            if name.extension().is_some_and(|kind| kind == "config") {
                upstream.contents().put_blob(repository, bytes.into());
                continue;
            }
            let manifest: Value = serde_json::from_slice(&bytes).unwrap();
            let tag = (name == Path::new("latest.manifest")).then_some("latest");
            upstream.put(repository, tag, &Document::new(manifest["mediaType"].as_str().unwrap(), bytes));
        }
        let directory = tempfile::tempdir().unwrap();
        for (path, bytes) in objects::files(&fixture("store")) {
            objects::write(directory.path(), path.to_str().unwrap(), &bytes);
        }
        (upstream, directory)
    }

    fn documents() -> Vec<Kept> {
        objects::files_of(&fixture("store"), "documents").values().map(|object| objects::kept(object)).collect()
    }

    fn digest_of(document: &Kept) -> String {
        if document.recipe["target"] == "schema1" {
            sha256(&images::payload(&document.bytes))
        } else {
            sha256(&document.bytes)
        }
    }

    #[test]
    fn is_laid_out_as_the_documentation_says() {
        let store = fixture("store");
        let mut targets = BTreeSet::new();
        for (path, object) in objects::files_of(&store, "documents") {
            let document = objects::kept(&object);
            assert_eq!(path, Path::new(&objects::document_path(&document.recipe)));
            assert_eq!(document.recipe["derived"], digest_of(&document).as_str());
            targets.insert(document.recipe["target"].as_str().unwrap().to_owned());
            let recipe = &objects::files(&store)[Path::new(&objects::recipe_path(&document.recipe))];
            assert_eq!(serde_json::from_slice::<Value>(objects::content(recipe)).unwrap(), document.recipe);
        }
        assert_eq!(targets, ["list", "oci", "schema1", "schema2"].map(str::to_owned).into());
        let recipes = objects::files_of(&store, "recipes");
        for (path, object) in &recipes {
            let recipe: Value = serde_json::from_slice(objects::content(object)).unwrap();
            assert_eq!(*path, Path::new(&objects::recipe_path(&recipe)));
        }
        for (path, object) in objects::files_of(&store, "claims") {
            let claim: Value = serde_json::from_slice(objects::content(&object)).unwrap();
            assert!(recipes.contains_key(Path::new(&objects::recipe_path(&claim["made"]))), "{}", path.display());
            let dish = path.file_name().unwrap().to_str().unwrap();
            assert_eq!((path.parent().unwrap(), dish.len()), (&*Path::new("v1/claims").join(&dish[..2]), 64));
        }
        let key = std::fs::read(store.join("v1/signing-key")).unwrap();
        assert!(objects::content(&key).starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
    }

    /// Fields that recipes have had since that store was kept. They are absent where nothing was done to layers.
    const LATER_FIELDS: [&str; 2] = ["layers", "gzip_layers"];

    /// Every field of a recipe is a row of the documentation's table, and every row is a field.
    #[test]
    fn has_the_fields_that_the_documentation_names() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/store.md")).unwrap();
        let table = text.split("### A recipe").nth(1).unwrap().split("\n#").next().unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let documented: BTreeSet<&str> = rows.collect();
        let documents = documents();
        let fields = documents.iter().flat_map(|document| document.recipe.as_object().unwrap().keys());
        let fields = fields.map(String::as_str).chain(LATER_FIELDS);
        assert_eq!(fields.collect::<BTreeSet<_>>(), documented);
    }

    #[tokio::test]
    async fn is_served_byte_for_byte_by_its_edition_and_by_the_next() {
        for edition in [1, 2] {
            let (upstream, directory) = restored().await;
            let before = objects::files(directory.path());
            let gateway = Setup::default().store_in(directory.path()).edition(edition).before(&upstream).await;
            let documents = documents();
            for document in &documents {
                let text = |key: &str| document.recipe[key].as_str().unwrap();
                let target = named(text("repository"), text("derived"));
                let reply = gateway.manifest(&Client::curl(), &target).await;
                assert_eq!(reply.status, 200, "edition {edition}: {}", reply.text());
                assert!(reply.body == document.bytes, "edition {edition}: {target} has other bytes");
                assert_eq!(reply.header("schemabridge-source-digest"), Some(text("source")));
            }
            assert_eq!(documents.len(), 8);
            assert!(upstream.requests_to("*", "*/blobs/*").is_empty(), "nothing was made again");
            assert_eq!(gateway.counted(&series("hit")), 16, "HEAD and GET");
            gateway.stop().await;
            // A directory for objects on their way is made; nothing is in it.
            assert!(objects::files(directory.path()) == before, "edition {edition} changed the store");
        }
    }

    #[tokio::test]
    async fn is_left_alone_by_the_next_edition_that_writes_its_own() {
        let (upstream, directory) = restored().await;
        let before = objects::files(directory.path());
        let gateway = Setup::default().store_in(directory.path()).edition(2).before(&upstream).await;
        for repository in ["oci", "schema2", "index"] {
            for client in [Client::docker_1_9_1(), Client::docker_17(), Client::oci_only()] {
                let reply = gateway.manifest(&client, &format!("/v2/{repository}/manifests/latest")).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
        }
        gateway.stop().await;
        for (path, bytes) in &before {
            assert!(std::fs::read(directory.path().join(path)).unwrap() == *bytes, "{} is changed", path.display());
        }
        let mut expected = BTreeSet::new();
        for mut document in documents() {
            document.recipe["edition"] = 2.into();
            expected.insert(PathBuf::from(objects::document_path(&document.recipe)));
            expected.insert(PathBuf::from(objects::recipe_path(&document.recipe)));
        }
        let found = ["documents", "recipes"].map(|kind| objects::files_of(directory.path(), kind).into_keys());
        let made = found.into_iter().flatten().filter(|path| !before.contains_key(path));
        assert_eq!(made.collect::<BTreeSet<_>>(), expected);
    }
}

mod a_translator_that_changed {
    use super::*;

    /// An image, and what an edition 1 that printed compactly would have made of it.
    async fn with(directory: &Path) -> (Upstream, Document) {
        let (upstream, image) = (Upstream::start().await, Image::classic("app"));
        upstream.put_image("app", "latest", &image, &image.oci());
        let derived = image.schema2().changed(|_| {});
        assert_ne!(derived.digest, image.schema2().digest);
        objects::write_document(directory, &recipe(1, &image.oci(), &derived), &derived.bytes);
        (upstream, derived)
    }

    fn recipe(edition: u32, source: &Document, derived: &Document) -> Value {
        json!({
            "edition": edition, "upstream": "default", "repository": "app", "source": source.digest,
            "source_format": "oci", "target": "schema2", "derived": derived.digest,
        })
    }

    async fn ask(gateway: &Gateway, caller: &str, target: &str) -> Reply {
        gateway.send(&Client::docker_17().get(target).header("Authorization", caller)).await
    }

    #[tokio::test]
    async fn does_not_change_what_its_older_edition_handed_out() {
        let directory = tempfile::tempdir().unwrap();
        let (upstream, derived) = with(directory.path()).await;
        let (ann, bob) = (basic("ann", "pw"), basic("bob", "pw"));
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&ann, "app");
        upstream.contents().admit(&bob, "elsewhere");
        let gateway = Setup::default().store_in(directory.path()).edition(2).before(&upstream).await;
        let target = named("app", &derived.digest);
        assert_eq!(ask(&gateway, &bob, &target).await.status, 403);
        assert_eq!(gateway.send(&Call::new("GET", &target)).await.status, 401);
        assert_eq!(gateway.counted(&series("hit")), 0);
        let reply = ask(&gateway, &ann, &target).await;
        assert_eq!((reply.status, &reply.body[..]), (200, &derived.bytes[..]));
        assert_eq!(reply.content_type(), images::SCHEMA2);
        assert_eq!(gateway.counted(&series("hit")), 1);
        upstream.contents().revoke(&ann, "app");
        assert_eq!(ask(&gateway, &ann, &target).await.status, 403);
    }

    #[tokio::test]
    async fn says_that_bytes_are_lost_only_to_those_who_may_see_their_source() {
        let directory = tempfile::tempdir().unwrap();
        let (upstream, derived) = with(directory.path()).await;
        std::fs::remove_dir_all(directory.path().join("v1/documents")).unwrap();
        let (ann, bob) = (basic("ann", "pw"), basic("bob", "pw"));
        upstream.contents().close("Basic realm=\"registry\"");
        upstream.contents().admit(&ann, "app");
        upstream.contents().admit(&bob, "elsewhere");
        let gateway = Setup::default().store_in(directory.path()).edition(2).before(&upstream).await;
        let target = named("app", &derived.digest);
        let refused = ask(&gateway, &bob, &target).await;
        assert_eq!(refused.status, 403);
        assert_eq!(gateway.counted(&series("lost")), 0);
        let lost = ask(&gateway, &ann, &target).await;
        let (code, words) = lost.error();
        assert_eq!((lost.status, code.as_str()), (404, "MANIFEST_UNKNOWN"));
        assert!(words.contains("no longer in the store") && words.contains("pull the tag again"), "{words}");
        assert_eq!(gateway.counted(&series("lost")), 1);
        upstream.contents().revoke(&ann, "app");
        assert_eq!(ask(&gateway, &ann, &target).await.status, 403);
        assert_eq!(gateway.counted(&series("lost")), 1);
    }

    /// The newest recipe is of an edition whose bytes are gone; those of another are still there.
    #[tokio::test]
    async fn serves_the_bytes_of_whichever_edition_still_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let (upstream, derived) = with(directory.path()).await;
        objects::write_recipe(directory.path(), &recipe(2, &Image::classic("app").oci(), &derived));
        let older = objects::recipe_path(&recipe(1, &Image::classic("app").oci(), &derived));
        let older = std::fs::File::options().write(true).open(directory.path().join(older)).unwrap();
        older.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        for edition in [2, 3] {
            let gateway = Setup::default().store_in(directory.path()).edition(edition).before(&upstream).await;
            let reply = gateway.get(&Client::docker_17(), &named("app", &derived.digest)).await;
            assert_eq!((reply.status, &reply.body[..]), (200, &derived.bytes[..]), "edition {edition}");
            gateway.stop().await;
        }
    }

    /// While both run, a tag's digest alternates; whichever a client was given, any replica serves.
    #[tokio::test]
    async fn alternates_during_a_roll_out_and_every_digest_is_pullable_from_every_replica() {
        let directory = tempfile::tempdir().unwrap();
        let (upstream, of_edition_1) = with(directory.path()).await;
        let image = Image::classic("app");
        let of_edition_3 = image.schema2().rewritten(|text| format!("{text}\n"));
        let recipe = recipe(3, &image.oci(), &of_edition_3);
        objects::write_document(directory.path(), &recipe, &of_edition_3.bytes);
        let setup = |edition| Setup::default().store_in(directory.path()).edition(edition).before(&upstream);
        let (old, new) = (setup(1).await, setup(2).await);
        let mut handed_out: Vec<(String, Vec<u8>)> =
            [&of_edition_1, &of_edition_3].map(|document| (document.digest.clone(), document.bytes.to_vec())).into();
        for replica in [&old, &new, &old] {
            for client in [Client::docker_1_9_1(), Client::docker_17()] {
                let reply = replica.manifest(&client, TAGGED).await;
                handed_out.push((reply.digest().to_owned(), reply.body));
            }
        }
        for replica in [&new, &old] {
            for (digest, bytes) in &handed_out {
                let reply = replica.manifest(&Client::curl(), &named("app", digest)).await;
                assert_eq!((reply.status, &reply.body), (200, bytes), "{digest}");
            }
        }
    }
}

mod what_an_edition_does_not_know {
    use super::*;

    /// Long unused, so that whoever clears up would take it first.
    const LAST_USE: Duration = Duration::from_secs(500 * 24 * 3600);

    fn schemabridge(arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_schemabridge")).args(arguments).env_clear().output().unwrap()
    }

    /// The objects of another layout, of a later edition, and files of somebody else's. The digests of those of the later
    /// edition: of one that is understood, and of one that is not.
    fn add_strangers(store: &Path, source: &Document) -> [Document; 2] {
        let derived = ["understood", "not understood"].map(|word| Document::new(images::SCHEMA2, format!("{word}\n")));
        let mut recipe = json!({
            "edition": 99, "upstream": "default", "repository": "app", "source": source.digest,
            "source_format": "oci", "target": "schema2", "derived": derived[0].digest, "flavour": {"of": "tomorrow"},
        });
        objects::write_document(store, &recipe, &derived[0].bytes);
        recipe["target"] = "schema9".into();
        recipe["derived"] = derived[1].digest.as_str().into();
        objects::write_document(store, &recipe, &derived[1].bytes);
        let [a, b] = ["ab".repeat(32), "cd".repeat(32)];
        for path in [
            format!("v2/documents/1/ab/ab/{a}.{b}"),
            "v2/signing-key".to_owned(),
            "notes.txt".to_owned(),
            "v1/notes.txt".to_owned(),
            "v1/documents/notes.txt".to_owned(),
            format!("v1/documents/1/ab/ab/{a}"),
            format!("v1/documents/1/ab/cd/{a}.{b}"),
            format!("v1/documents/1/ab/ab/{a}.{b}.tmp"),
            format!("v1/documents/one/ab/ab/{a}.{b}"),
            format!("v1/recipes/ab/ab/{a}.{b}.{b}"),
            format!(
                "v1/recipes/{}/{}/notes #1 ü%.txt",
                &objects::digits(&derived[0].digest)[..2],
                &objects::digits(&derived[0].digest)[2..4]
            ),
            "v1/claims/ab/.nfs0000001".to_owned(),
            "v1/tags/ab/cd".to_owned(),
        ] {
            objects::write(store, &path, b"not ours\n");
        }
        derived
    }

    fn age(store: &Path) {
        for path in objects::files(store).keys() {
            let file = std::fs::File::options().write(true).open(store.join(path)).unwrap();
            file.set_modified(SystemTime::now() - LAST_USE).unwrap();
        }
    }

    #[tokio::test]
    async fn is_neither_served_wrongly_nor_removed_nor_changed() {
        let (upstream, image) = (Upstream::start().await, Image::classic("app"));
        upstream.put_image("app", "latest", &image, &image.oci());
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path();
        let [understood, other] = add_strangers(store, &image.oci());
        age(store);
        let strangers = objects::files(store);

        let url = format!("file://{}", store.display());
        let gateway = Process::serve(&["--upstream", &upstream.url(), "--store", &url], &[]).await;
        for client in [Client::docker_1_9_1(), Client::docker_17()] {
            assert_eq!(gateway.get(&client, TAGGED).await.status, 200);
        }
        let reply = gateway.get(&Client::docker_17(), &named("app", &understood.digest)).await;
        assert_eq!((reply.status, &reply.body[..]), (200, &understood.bytes[..]), "its bytes need no understanding");
        for stray in [other.digest, sha256(b"not ours\n"), format!("sha256:{}", "ab".repeat(32))] {
            assert_eq!(gateway.get(&Client::docker_17(), &named("app", &stray)).await.status, 404);
        }
        let metrics = gateway.metrics().await;
        assert!(metrics.contains("\nschemabridge_store_damaged_objects_total 0\n"), "{metrics}");
        gateway.kill().await;

        age(store);
        let verified = schemabridge(&["store", "verify", "--store", &url]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let cleared = schemabridge(&["store", "gc", "--store", &url, "--store-max-size", "0"]);
        let words = String::from_utf8(cleared.stdout).unwrap();
        assert!(words.starts_with("removed 2 recipes, 2 documents of "), "{words}");
        let left = objects::files(store);
        for (path, bytes) in &strangers {
            assert!(left.get(path) == Some(bytes), "{} is not what it was", path.display());
        }
        let more: Vec<&PathBuf> = left.keys().filter(|path| !strangers.contains_key(*path)).collect();
        assert_eq!(more, [Path::new("v1/signing-key")]);
    }
}
