//! A derived document is never precious: a fresh process makes each one again from its recipe alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::images::{self, Image, Kind};
use crate::support::parents::{Entry, docker_list, oci_index};
use crate::support::upstream::Upstream;

/// The documents of a run: every golden image and some of our own, stored in each form.
async fn upstream() -> (Upstream, Vec<String>) {
    let upstream = Upstream::start().await;
    let mut repositories = Vec::new();
    let golden =
        ["all-empty-history", "buildkit-healthcheck-shell", "html-escape", "missing-created", "no-architecture"];
    let images = golden.into_iter().map(|name| (name.to_owned(), Image::golden(name))).chain([
        ("classic".to_owned(), Image::classic("classic")),
        ("foreign".to_owned(), Image::buildkit("foreign", "amd64", Kind::Foreign, 2)),
    ]);
    for (name, image) in images {
        let forms = [("schema2", image.schema2()), ("oci", image.oci_annotated()), ("hybrid", image.hybrid())];
        for (form, document) in forms {
            let repository = format!("{name}/{form}");
            upstream.put_image(&repository, "v1", &image, &document);
            repositories.push(repository);
        }
    }
    (upstream, repositories)
}

/// The content of an object of the store: what follows its first line.
fn content(file: &Path) -> Vec<u8> {
    let framed = std::fs::read(file).unwrap();
    let line = framed.iter().position(|byte| *byte == b'\n').unwrap();
    framed[line + 1..].to_vec()
}

/// The derived document that stands beside a recipe: what follows the first two lines.
fn document(store: &Path, derived: &str, recipe: &Path) -> Vec<u8> {
    let hex = derived.strip_prefix("sha256:").unwrap();
    let words: Vec<&str> = recipe.file_name().unwrap().to_str().unwrap().split('.').collect();
    assert_eq!(words[0], hex);
    let folder = store.join("v1/documents/1").join(&hex[..2]).join(&hex[2..4]);
    let behind = content(&folder.join(format!("{}.{}", words[0], words[1])));
    let line = behind.iter().position(|byte| *byte == b'\n').unwrap();
    behind[line + 1..].to_vec()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Makes the document of a recipe in a process that has nothing but the files that the recipe names.
fn cook(recipe: &Value, upstream: &Upstream, folder: &Path) -> Vec<u8> {
    let text = |key: &str| recipe[key].as_str();
    let repository = text("repository").unwrap();
    let written = |name: &str, bytes: &[u8]| {
        let file = folder.join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let contents = upstream.contents();
    let source = contents.manifest(repository, text("source").unwrap()).expect("the source is stored");
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["translate", "--to", text("target").unwrap(), "--repository", repository]);
    command.arg("--manifest").arg(written("manifest", &source.bytes));
    command.arg("--signing-key").arg(folder.join("key"));
    if let Some(tag) = text("tag") {
        command.args(["--tag", tag]);
    }
    if let Some(config) = text("config") {
        let config = contents.blob(repository, config).expect("the config is stored");
        command.arg("--config-blob").arg(written("config", &config));
    }
    drop(contents);
    let output = command.env_clear().output().unwrap();
    assert!(output.status.success(), "{recipe}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn every_derived_document_of_a_run_is_made_again_from_its_recipe_alone() {
    let (upstream, repositories) = upstream().await;
    let store = tempfile::tempdir().unwrap();
    let gateway = Setup::default().store_in(store.path()).before(&upstream).await;
    for repository in &repositories {
        for client in [Client::docker_1_9_1(), Client::docker_17(), Client::oci_only()] {
            gateway.manifest(&client, &format!("/v2/{repository}/manifests/v1")).await;
        }
    }
    gateway.stop().await;

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), content(&store.path().join("v1/signing-key"))).unwrap();
    let recipes = files_below(&store.path().join("v1/recipes"));
    let mut targets = std::collections::BTreeSet::new();
    for file in &recipes {
        let recipe: Value = serde_json::from_slice(&content(file)).unwrap();
        let derived = recipe["derived"].as_str().unwrap();
        let kept = document(store.path(), derived, file);
        let again = cook(&recipe, &upstream, folder.path());
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&kept), "{recipe}");
        targets.insert(format!("{} -> {}", recipe["source_format"], recipe["target"]));
    }
    assert!(recipes.len() > 30, "only {} recipes were written", recipes.len());
    let expected = [
        r#""oci" -> "schema1""#,
        r#""oci" -> "schema2""#,
        r#""schema2" -> "oci""#,
        r#""schema2" -> "schema1""#,
        r#""schema2" -> "schema2""#,
    ];
    assert_eq!(targets.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Lists and indexes in every shape that a recipe can have, and a client that is given it.
async fn upstream_of_parents() -> (Upstream, Vec<(&'static str, Client)>) {
    let upstream = Upstream::start().await;
    let platforms = ["linux/arm/v7", "linux/amd64", "linux/arm/v5", "linux/arm/v6"];
    let images = platforms.map(|platform| Image::buildkit(platform, "any", Kind::Gzip, 1));
    let packed = Image::buildkit("zstd", "s390x", Kind::Zstd, 1);
    for repository in ["index", "list"] {
        upstream.put_image(repository, "latest", &packed, &packed.oci());
        for image in &images {
            upstream.put_image(repository, "latest", image, &image.oci());
            upstream.put_image(repository, "latest", image, &image.schema2());
        }
    }
    let entries = |document: fn(&Image) -> images::Document| {
        let listed = images.iter().zip(platforms).map(|(image, platform)| Entry::on(&document(image), platform));
        let zstd = Entry::on(&packed.oci(), "linux/s390x");
        listed.chain([zstd]).collect::<Vec<Entry>>()
    };
    upstream.put("index", "latest", &oci_index(&entries(Image::oci)));
    upstream.put("list", "latest", &docker_list(&entries(Image::schema2)));
    let both = Client::new("", &[&format!("{}, {}", images::INDEX, images::SCHEMA2)]);
    let parents = vec![
        ("index", Client::docker_17()),
        ("index", Client::docker_20_10()),
        ("list", Client::docker_17()),
        ("list", Client::docker_20_10()),
        ("list", Client::oci_only()),
        ("list", both),
    ];
    (upstream, parents)
}

/// The bytes are gone from the store and from memory; the recipe, whose shape says how the parent is to look, is left. What
/// the operator wants of new parents does not change those that were handed out.
#[tokio::test]
async fn a_list_or_index_is_made_again_from_its_recipe_and_the_upstream() {
    let (upstream, parents) = upstream_of_parents().await;
    let store = tempfile::tempdir().unwrap();
    let setup = || Setup::default().store_in(store.path());
    let gateway = setup().arm_variants(&["v7", "v5"]).before(&upstream).await;
    let mut handed = std::collections::BTreeMap::new();
    for (repository, client) in &parents {
        let reply = gateway.manifest(client, &format!("/v2/{repository}/manifests/latest")).await;
        assert!(reply.header("schemabridge-source-digest").is_some(), "{repository}: {}", reply.text());
        for child in reply.json()["manifests"].as_array().unwrap() {
            handed.insert((*repository, child["digest"].as_str().unwrap().to_owned()), None);
        }
        handed.insert((*repository, reply.digest().to_owned()), Some(reply.body));
    }
    gateway.stop().await;
    let parents_made = handed.values().flatten().count();
    assert_eq!(parents_made, parents.len(), "each client has one of its own");

    let documents = store.path().join("v1/documents");
    let kept = files_below(&documents).len();
    std::fs::remove_dir_all(&documents).unwrap();
    let gateway = setup().before(&upstream).await;
    for ((repository, digest), body) in &handed {
        let again = gateway.manifest(&Client::curl(), &format!("/v2/{repository}/manifests/{digest}")).await;
        assert_eq!(again.status, 200, "{repository} {digest}: {}", again.text());
        assert!(body.as_ref().is_none_or(|body| *body == again.body), "{repository}: {}", again.text());
    }
    assert_eq!(files_below(&documents).len(), kept, "they are kept again");
}
