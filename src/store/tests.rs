use super::*;
use crate::image::media_type::Format;

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
    }
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
    assert_eq!(store.document(&recipe.derived).await.unwrap().unwrap(), "document");
    assert_eq!(store.recipes(&recipe.scope(), &recipe.derived).await.unwrap(), std::slice::from_ref(&recipe));
    let other = Scope::new("default", &"a/c".parse().unwrap());
    assert!(store.recipes(&other, &recipe.derived).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_writer_wins() {
    let store = Store::open(&Location::Memory).unwrap();
    let recipe = recipe(b"source");
    store.keep(&recipe, "first".into()).await.unwrap();
    assert_eq!(store.keep(&recipe, "second".into()).await.unwrap(), "first");
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
    let file = directory.path().join(document_path(&recipe.derived).as_ref());
    let mut damaged = std::fs::read(&file).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert_eq!(store.document(&recipe.derived).await.unwrap(), None);
    assert_eq!(store.keep(&recipe, "document".into()).await.unwrap(), "document");
    assert_eq!(store.document(&recipe.derived).await.unwrap().unwrap(), "document");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let location = Location::Directory(file.path().join("below-a-file"));
    let error = Store::open(&location).unwrap_err().to_string();
    assert!(error.contains("below-a-file"), "{error}");
}
