//! Reading and writing the objects of a directory as `docs/store.md` says, without any of the gateway's own code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use super::sha256;

/// The first line of every object, up to the hash.
const MARK: &str = "schemabridge 1 ";

/// A derived document as an object holds it.
#[derive(Debug)]
pub struct Kept {
    pub recipe: Value,
    pub bytes: Bytes,
}

/// The hexadecimal digits of the SHA-256 of these bytes.
pub fn hex(bytes: &[u8]) -> String {
    sha256(bytes).split_off("sha256:".len())
}

/// The hexadecimal digits of a digest.
pub fn digits(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// The content behind the first line, which must name its hash.
pub fn content(object: &[u8]) -> &[u8] {
    let end = object.iter().position(|byte| *byte == b'\n').expect("a first line");
    let (line, content) = (std::str::from_utf8(&object[..end]).unwrap(), &object[end + 1..]);
    assert_eq!(line, format!("{MARK}{}", sha256(content)));
    content
}

fn object(content: &[u8]) -> Vec<u8> {
    [format!("{MARK}{}\n", sha256(content)).as_bytes(), content].concat()
}

/// The recipe and the derived bytes in the object of a document.
pub fn kept(object: &[u8]) -> Kept {
    let content = content(object);
    let end = content.iter().position(|byte| *byte == b'\n').expect("a recipe on a line");
    let recipe = serde_json::from_slice(&content[..end]).unwrap();
    Kept { recipe, bytes: Bytes::copy_from_slice(&content[end + 1..]) }
}

/// The digits that stand for a repository of an upstream.
pub fn scope(recipe: &Value) -> String {
    let text = |key: &str| recipe[key].as_str().unwrap();
    hex(format!("{}\n{}", text("upstream"), text("repository")).as_bytes())
}

/// Where the document of a recipe stands under the root of a store.
pub fn document_path(recipe: &Value) -> String {
    let derived = digits(recipe["derived"].as_str().unwrap());
    let (first, second) = (&derived[..2], &derived[2..4]);
    format!("v1/documents/{}/{first}/{second}/{derived}.{}", recipe["edition"], scope(recipe))
}

/// Where a recipe stands under the root of a store.
pub fn recipe_path(recipe: &Value) -> String {
    let [derived, source] = ["derived", "source"].map(|key| digits(recipe[key].as_str().unwrap()));
    let (first, second) = (&derived[..2], &derived[2..4]);
    format!("v1/recipes/{first}/{second}/{derived}.{}.{source}.{}", scope(recipe), recipe["edition"])
}

/// Writes a recipe into a store.
pub fn write_recipe(store: &Path, recipe: &Value) {
    write(store, &recipe_path(recipe), &object(recipe.to_string().as_bytes()));
}

/// Writes a document with its recipe into a store, and the recipe beside it.
pub fn write_document(store: &Path, recipe: &Value, bytes: &[u8]) {
    let content = [recipe.to_string().as_bytes(), b"\n", bytes].concat();
    write(store, &document_path(recipe), &object(&content));
    write_recipe(store, recipe);
}

/// Writes a file into a store.
pub fn write(store: &Path, path: &str, bytes: &[u8]) {
    let file = store.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// Every file of a store, by its path under the root.
pub fn files(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(store).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The files of one kind of object, by their paths under the root.
pub fn files_of(store: &Path, kind: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = Path::new("v1").join(kind);
    files(&store.join(&folder)).into_iter().map(|(path, bytes)| (folder.join(path), bytes)).collect()
}
