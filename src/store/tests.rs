use super::*;
use crate::image::manifest::Manifest;
use crate::image::media_type::Format;
use crate::translate::{LayerPolicy, SigningKey, signed};

fn recipe(source: &[u8]) -> Recipe {
    Recipe {
        edition: 1,
        upstream: "default".into(),
        repository: "a/b".parse().unwrap(),
        tag: Some("t".parse().unwrap()),
        source: Digest::sha256(source),
        source_format: Format::Oci,
        config: None,
        target: Format::Schema1,
        derived: Digest::sha256(b"document"),
        shape: None,
        signing_key: None,
        layers: LayerPolicy::Stored,
        gzip_layers: Vec::new(),
    }
}

async fn kept_bytes(store: &Store, recipe: &Recipe) -> Option<Bytes> {
    let found = store.document(&recipe.scope(), &recipe.derived, recipe.edition).await.unwrap();
    found.document().map(|found| found.document.bytes)
}

fn document_file(directory: &std::path::Path, recipe: &Recipe) -> std::path::PathBuf {
    directory.join(layout::document(recipe.edition, &recipe.derived, &recipe.scope()).as_ref())
}

fn flip_last_byte(file: &std::path::Path) {
    let mut damaged = std::fs::read(file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(file, damaged).unwrap();
}

fn directory_store(directory: &std::path::Path) -> Store {
    Store::open(&Location::Directory(directory.to_owned())).unwrap()
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = recipe(b"source");
    let kept = directory_store(directory.path()).keep(&recipe, "document".into()).await.unwrap();
    assert_eq!(kept, "document");
    let store = directory_store(directory.path());
    assert_eq!(kept_bytes(&store, &recipe).await.unwrap(), "document");
    assert_eq!(store.recipes(&recipe.scope(), &recipe.derived).await.unwrap(), std::slice::from_ref(&recipe));
    let other = Scope::new("default", &"a/c".parse().unwrap());
    assert!(store.recipes(&other, &recipe.derived).await.unwrap().is_empty());
}

/// Only a signature leaves room for two bodies under one digest.
#[tokio::test]
async fn the_first_writer_wins() {
    let layer = Digest::sha256(b"layer");
    let schema1 = format!(
        r#"{{"schemaVersion":1,"name":"a/b","tag":"t","architecture":"amd64","fsLayers":[{{"blobSum":"{layer}"}}],"history":[{{"v1Compatibility":"{{\"id\":\"{}\"}}"}}]}}"#,
        "ab".repeat(32)
    );
    let manifest = Manifest::parse(schema1.into()).unwrap();
    let [first, second] = [[1; 32], [2; 32]].map(|seed| signed(&manifest, &SigningKey::generate(seed).unwrap()));
    assert_ne!(first, second);
    let store = Store::open(&Location::Memory).unwrap();
    let recipe = Recipe { derived: manifest.digest().clone(), ..recipe(b"source") };
    assert_eq!(store.keep(&recipe, first.clone()).await.unwrap(), first);
    assert_eq!(store.keep(&recipe, second).await.unwrap(), first);
    assert_eq!(kept_bytes(&store, &recipe).await.unwrap(), first);
    assert_eq!(store.signing_key("one").await.unwrap(), "one");
    assert_eq!(store.signing_key("two").await.unwrap(), "one");
}

#[tokio::test]
async fn one_derived_digest_may_have_several_sources() {
    let store = Store::open(&Location::Memory).unwrap();
    let (one, two) = (recipe(b"one"), recipe(b"two"));
    store.keep(&one, "document".into()).await.unwrap();
    store.keep(&two, "document".into()).await.unwrap();
    let mut sources: Vec<_> =
        store.recipes(&one.scope(), &one.derived).await.unwrap().into_iter().map(|recipe| recipe.source).collect();
    sources.sort();
    let mut expected = [one.source, two.source];
    expected.sort();
    assert_eq!(sources, expected);
}

#[tokio::test]
async fn a_damaged_object_is_absent_and_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory_store(directory.path());
    let recipe = recipe(b"source");
    store.keep(&recipe, "document".into()).await.unwrap();
    flip_last_byte(&document_file(directory.path(), &recipe));
    flip_last_byte(&directory.path().join(layout::recipe(&recipe).as_ref()));
    assert_eq!(kept_bytes(&store, &recipe).await, None);
    assert!(store.recipes(&recipe.scope(), &recipe.derived).await.unwrap().is_empty());
    assert_eq!(store.keep(&recipe, "document".into()).await.unwrap(), "document");
    assert_eq!(kept_bytes(&store, &recipe).await.unwrap(), "document");
    assert_eq!(store.recipes(&recipe.scope(), &recipe.derived).await.unwrap(), [recipe]);
}

/// A whole and sound object in the wrong place is as good as damaged.
#[tokio::test]
async fn an_object_under_another_objects_name_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory_store(directory.path());
    let (one, other) = (recipe(b"one"), Recipe { repository: "a/c".parse().unwrap(), ..recipe(b"one") });
    store.keep(&one, "document".into()).await.unwrap();
    store.keep(&other, "document".into()).await.unwrap();
    std::fs::copy(document_file(directory.path(), &one), document_file(directory.path(), &other)).unwrap();
    assert_eq!(kept_bytes(&store, &other).await, None);
    assert_eq!(kept_bytes(&store, &one).await.unwrap(), "document");
}

#[tokio::test]
async fn a_claim_is_held_by_one_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory_store(directory.path()), directory_store(directory.path()));
    let dish = "ab".repeat(32);
    assert_eq!(here.claim(&dish).await, Claim::Ours);
    assert_eq!(there.claim(&dish).await, Claim::Theirs);
    let recipe = recipe(b"source");
    here.settle(&dish, Some(&recipe)).await;
    assert_eq!(there.claimed(&dish).await, Some(Claim::Made(Box::new(recipe))));
    here.settle(&dish, None).await;
    assert_eq!(there.claimed(&dish).await, None);
    assert_eq!(there.claim(&dish).await, Claim::Ours);
    let file = directory.path().join(layout::claim(&dish).as_ref());
    let long_ago = SystemTime::now() - CLAIM_EXPIRY - Duration::from_secs(1);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(here.claim(&dish).await, Claim::Ours, "its holder has not come to an end");
}

#[tokio::test]
async fn use_is_noted_and_what_others_cleared_away_is_kept_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory_store(directory.path());
    let recipe = recipe(b"source");
    store.keep(&recipe, "document".into()).await.unwrap();
    let files = [document_file(directory.path(), &recipe), directory.path().join(layout::recipe(&recipe).as_ref())];
    let long_ago = SystemTime::now() - USE_NOTED_EVERY * 2;
    for file in &files {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    let found = store.document(&recipe.scope(), &recipe.derived, 1).await.unwrap().document().unwrap();
    store.note_use_of(&found).await;
    for file in &files {
        let noted = std::fs::metadata(file).unwrap().modified().unwrap();
        assert!(noted > long_ago + USE_NOTED_EVERY, "{}", file.display());
        std::fs::remove_file(file).unwrap();
    }
    store.note_use(&recipe, &found.document.bytes).await;
    assert_eq!(kept_bytes(&store, &recipe).await.unwrap(), "document");
    assert_eq!(store.recipes(&recipe.scope(), &recipe.derived).await.unwrap(), [recipe]);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let location = Location::Directory(file.path().join("below-a-file"));
    let error = Store::open(&location).unwrap_err().to_string();
    assert!(error.contains("below-a-file"), "{error}");
}

/// A later edition may have said more in its recipe than was understood, so it is not written again from that.
#[tokio::test]
async fn only_what_is_understood_is_kept_again() {
    for (edition, is_kept_again) in [(EDITION, true), (EDITION + 1, false)] {
        let directory = tempfile::tempdir().unwrap();
        let (store, recipe) = (directory_store(directory.path()), Recipe { edition, ..recipe(b"source") });
        store.note_use(&recipe, &"document".into()).await;
        assert_eq!(document_file(directory.path(), &recipe).exists(), is_kept_again, "edition {edition}");
    }
}

/// As in a directory that is full or read-only.
#[tokio::test]
async fn what_is_kept_already_need_not_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let (store, kept) = (directory_store(directory.path()), recipe(b"source"));
    store.keep(&kept, "document".into()).await.unwrap();
    let staging = directory.path().join("v1/staging");
    std::fs::remove_dir(&staging).unwrap();
    std::fs::write(&staging, "nothing can be staged").unwrap();
    assert_eq!(store.keep(&kept, "document".into()).await.unwrap(), "document");
    assert!(store.keep(&recipe(b"other source"), "document".into()).await.is_err(), "its recipe is not there");
}

#[test]
fn an_error_is_shown_without_what_opens_the_bucket() {
    let words =
        "GET https://bucket.example/key?X-Signature=hush\n failed: <?xml version=\"1.0\"?><Code>AccessDenied</Code>";
    let expected = "GET https://bucket.example/key failed: <?xml version=\"1.0\"?><Code>AccessDenied</Code>";
    assert_eq!(shown(words), expected);
    assert_eq!(shown(&"x".repeat(ERROR_CHARACTERS_MAX + 1)).len(), ERROR_CHARACTERS_MAX);
}
