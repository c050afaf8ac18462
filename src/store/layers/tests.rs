use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;

use super::*;
use crate::image::layer::Compression;
use crate::image::media_type::{DOCKER_CONFIG, Format, SCHEMA2};
use crate::store::sweep::{Bounds, LEFTOVER_AGE, Occasion};
use crate::store::{Location, Recipe, layout};
use crate::translate::DerivedBlob;

const BYTES: &[u8] = b"the bytes of a gzip layer";

fn maker() -> Maker {
    Maker::new(LayerPolicy::Gzip, "compressor-1")
}

fn layer() -> Digest {
    Digest::sha256(b"layer")
}

fn made(bytes: &[u8]) -> GzipLayer {
    GzipLayer { digest: Digest::sha256(bytes), size: bytes.len() as u64, diff_id: Digest::sha256(b"archive") }
}

fn in_directory(directory: &std::path::Path) -> Store {
    Store::open(&Location::Directory(directory.to_owned())).unwrap()
}

async fn upload(store: &Store, bytes: &[u8], before: Option<Transcoding>) -> Result<Transcoding, StoreFailure> {
    let mut upload = store.begin_upload(&layer(), &maker(), before).await?;
    for piece in bytes.chunks(7) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish(made(bytes)).await
}

async fn read(store: &Store, transcoding: &Transcoding, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreFailure> {
    let pieces: Vec<Bytes> = store.read_layer(transcoding, range).await?.unwrap().try_collect().await?;
    Ok(pieces.concat())
}

fn files(directory: &std::path::Path, folder: &str) -> Vec<std::path::PathBuf> {
    let mut folders = vec![directory.join("v1").join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { files.push(entry) }
        }
    }
    files
}

fn age(file: &std::path::Path, age: Duration) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn facts_outlive_the_process_and_the_first_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let facts = LayerFacts { diff_id: Digest::sha256(b"archive"), size: 7, compression: Compression::Gzip };
    assert_eq!(in_directory(directory.path()).facts(&layer()).await.unwrap(), None);
    in_directory(directory.path()).keep_facts(&layer(), &facts).await.unwrap();
    let other = LayerFacts { size: 8, ..facts.clone() };
    in_directory(directory.path()).keep_facts(&layer(), &other).await.unwrap();
    assert_eq!(in_directory(directory.path()).facts(&layer()).await.unwrap(), Some(facts.clone()));

    let [file] = files(directory.path(), "facts").try_into().unwrap();
    std::fs::write(&file, b"damage").unwrap();
    let store = in_directory(directory.path());
    assert_eq!(store.facts(&layer()).await.unwrap(), None);
    store.keep_facts(&layer(), &facts).await.unwrap();
    assert_eq!(store.facts(&layer()).await.unwrap(), Some(facts), "damage is worth nothing");
}

#[tokio::test]
async fn a_layer_is_found_from_both_sides_and_read_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    for store in [in_directory(directory.path()), Store::open(&Location::Memory).unwrap()] {
        assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::Unmade);
        assert!(store.transcodings_of(&made(BYTES).digest).await.unwrap().is_empty());
        let kept = upload(&store, BYTES, None).await.unwrap();
        assert_eq!((&kept.layer, &kept.gzip), (&layer(), &made(BYTES)));
        assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::There(kept.clone()));
        assert_eq!(store.transcodings_of(&kept.gzip.digest).await.unwrap(), std::slice::from_ref(&kept));
        assert_eq!(read(&store, &kept, 0..kept.gzip.size).await.unwrap(), BYTES);
        assert_eq!(read(&store, &kept, 4..9).await.unwrap(), &BYTES[4..9]);
        let newer = Maker::new(LayerPolicy::Gzip, "compressor-2");
        assert_eq!(store.transcoding(&layer(), &newer).await.unwrap(), Standing::Unmade);
    }
}

#[tokio::test]
async fn the_first_of_two_replicas_decides_and_the_other_removes_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (in_directory(directory.path()), in_directory(directory.path()));
    let mut late = other.begin_upload(&layer(), &maker(), None).await.unwrap();
    late.write("other bytes".into()).await.unwrap();
    let first = upload(&one, BYTES, None).await.unwrap();
    assert_eq!(late.finish(made(b"other bytes")).await.unwrap(), first);
    assert_eq!(files(directory.path(), "layers").len(), 1);
    assert!(other.transcodings_of(&made(b"other bytes").digest).await.unwrap().is_empty());
    assert_eq!(read(&other, &first, 0..first.gzip.size).await.unwrap(), BYTES);
}

#[tokio::test]
async fn what_was_evicted_is_made_again_in_its_place_and_only_with_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path());
    let kept = upload(&store, BYTES, None).await.unwrap();
    let [file] = files(directory.path(), "layers").try_into().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::Evicted(kept.clone()));
    assert!(store.read_layer(&kept, 0..3).await.unwrap().is_none());

    let refused = upload(&store, b"others", Some(kept.clone())).await.unwrap_err();
    assert!(refused.to_string().contains("other bytes"), "{refused}");
    assert!(files(directory.path(), "layers").is_empty());
    assert_eq!(upload(&store, BYTES, Some(kept.clone())).await.unwrap(), kept);
    assert_eq!(files(directory.path(), "layers"), [file]);
    assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::There(kept));
}

#[tokio::test]
async fn damage_is_never_served_whole_and_makes_room_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path());
    let kept = upload(&store, BYTES, None).await.unwrap();
    let [file] = files(directory.path(), "layers").try_into().unwrap();
    let mut damaged = BYTES.to_vec();
    damaged[3] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let mut pieces = store.read_layer(&kept, 0..kept.gzip.size).await.unwrap().unwrap();
    let mut read = Vec::new();
    let failure = loop {
        match pieces.try_next().await {
            Ok(Some(piece)) => read.extend_from_slice(&piece),
            Ok(None) => panic!("all of it was served"),
            Err(failure) => break failure,
        }
    };
    assert!(read.len() < BYTES.len() && failure.to_string().contains("made again"), "{failure}");
    assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::Evicted(kept.clone()));

    upload(&store, BYTES, Some(kept.clone())).await.unwrap();
    std::fs::write(&file, &BYTES[1..]).unwrap();
    assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::Evicted(kept), "cut short");
}

#[tokio::test]
async fn what_is_not_finished_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path());
    let begun = || async {
        let mut upload = store.begin_upload(&layer(), &maker(), None).await.unwrap();
        upload.write(Bytes::from(vec![1; 3 << 20])).await.unwrap();
        upload
    };
    drop(begun().await);
    begun().await.abort().await;
    assert!(begun().await.finish(made(BYTES)).await.is_err(), "these are other bytes");
    for folder in ["layers", "staging", "transcodings", "transcoded"] {
        assert!(files(directory.path(), folder).is_empty(), "{folder}");
    }
}

#[tokio::test]
async fn the_least_lately_used_go_and_what_they_stand_for_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path());
    let old = upload(&store, BYTES, None).await.unwrap();
    let [file] = files(directory.path(), "layers").try_into().unwrap();
    age(&file, 2 * LEFTOVER_AGE);
    let young = Maker::new(LayerPolicy::Gzip, "compressor-2");
    let mut second = store.begin_upload(&layer(), &young, None).await.unwrap();
    second.write(BYTES.into()).await.unwrap();
    second.finish(made(BYTES)).await.unwrap();

    let bounds = Bounds { layers_bytes_max: Some(BYTES.len() as u64), ..Bounds::default() };
    let swept = store.sweep(bounds, Occasion::Rehearsal, || {}).await.unwrap();
    assert_eq!((swept.layers, swept.layers_bytes, swept.leftovers), (1, BYTES.len() as u64, 0));
    assert_eq!(files(directory.path(), "layers").len(), 2);
    store.sweep(bounds, Occasion::Background, || {}).await.unwrap();
    assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::Evicted(old));
    assert!(matches!(store.transcoding(&layer(), &young).await.unwrap(), Standing::There(_)));
}

/// A crash between the upload and the record leaves bytes that nothing names.
#[tokio::test]
async fn an_upload_that_stands_for_nothing_goes_when_it_is_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path());
    let kept = upload(&store, BYTES, None).await.unwrap();
    let stray = directory.path().join(layout::layer(layer().hex(), maker().as_str(), &"ab".repeat(32)).as_ref());
    std::fs::write(&stray, b"stray").unwrap();
    let sweep = || store.sweep(Bounds::default(), Occasion::Background, || {});
    assert_eq!(sweep().await.unwrap().leftovers, 0);
    for file in files(directory.path(), "layers") {
        age(&file, 2 * LEFTOVER_AGE);
    }
    assert_eq!(sweep().await.unwrap().leftovers, 1);
    assert!(!stray.exists());
    assert_eq!(store.transcoding(&layer(), &maker()).await.unwrap(), Standing::There(kept));
}

/// Nodes that have the config ask for the document alone.
#[tokio::test]
async fn the_config_of_a_document_in_use_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_directory(directory.path());
    let bytes = Bytes::from_static(b"{}");
    let config = DerivedBlob { digest: Digest::sha256(&bytes), bytes };
    let document = Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"{SCHEMA2}","config":{{"mediaType":"{DOCKER_CONFIG}","size":2,"digest":"{}"}},"layers":[]}}"#,
        config.digest
    ));
    let recipe = Recipe {
        edition: 1,
        upstream: "default".to_owned(),
        repository: "app".parse().unwrap(),
        tag: None,
        source: Digest::sha256(b"schema 1"),
        config: None,
        source_format: Format::Schema1,
        target: Format::Schema2,
        derived: Digest::sha256(&document),
        shape: None,
        signing_key: None,
        layers: LayerPolicy::Stored,
        gzip_layers: Vec::new(),
    };
    store.keep_config(&recipe, &config).await.unwrap();
    store.keep(&recipe, document.clone()).await.unwrap();
    let [file] = files(directory.path(), "configs").try_into().unwrap();
    age(&file, Duration::from_hours(48));
    store.note_use(&recipe, &document).await;
    let noted = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert!(noted.elapsed().unwrap() < Duration::from_hours(24));
}
