//! What the documents say of the code and of each other is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document for people.
fn documents() -> Vec<PathBuf> {
    let at_top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from);
    let entries = fs::read_dir(root().join("docs")).unwrap();
    let below = entries.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    at_top.into_iter().chain(below).filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// What stands between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Every family of metrics that the table of them names, without the end of counters, with its labels.
pub fn metrics() -> BTreeMap<String, Vec<String>> {
    let operating = read("docs/operating.md");
    let (_, table) = operating.split_once("### Metrics").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let named = rows.map(|row| quoted(row).next().unwrap());
    named
        .map(|name| {
            let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
            let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned);
            (name.strip_suffix("_total").unwrap_or(name).to_owned(), labels.collect())
        })
        .collect()
}

#[test]
fn every_test_that_the_lessons_name_is_there() {
    let lessons = read("docs/lessons.md");
    let rows: Vec<&str> = lessons.lines().filter(|line| line.starts_with('|') && line.contains("::")).collect();
    assert!(rows.len() > 30, "{} rows name a test", rows.len());
    let named: BTreeSet<(&str, &str)> =
        rows.iter().flat_map(|row| quoted(row)).filter_map(|name| name.split_once("::")).collect();
    for (file, test) in named {
        let source = read(Path::new("tests").join(file).with_extension("rs"));
        assert!(source.contains(&format!("fn {test}(")), "tests/{file}.rs has no {test}");
    }
}

#[test]
fn every_row_of_the_lessons_names_a_test() {
    let lessons = read("docs/lessons.md");
    let rows = lessons.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what went wrong"));
    for row in rows {
        assert!(row.rsplit('|').nth(1).is_some_and(|cell| cell.contains("::")), "{row}");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://")) {
            let file = target.split('#').next().unwrap();
            let path = root().join(document.parent().unwrap()).join(file);
            assert!(path.exists(), "{} leads to {target}, which there is not", document.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were looked at");
}
