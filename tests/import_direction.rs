//! The floors: an arrow may only point down, rooms on one floor do not know each other, and what is below the line is
//! pure. Every path in the syntax tree is read: imports, `super::`, inline paths, the tokens of macros.

use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Each room with its floor.
const FLOORS: [(&str, u8); 11] = [
    ("image", 0),
    ("translate", 1),
    ("negotiate", 2),
    ("upstream", 3),
    ("store", 4),
    ("transcode", 4),
    ("gateway", 5),
    ("server", 6),
    ("admin", 6),
    ("config", 6),
    ("cli", 6),
];

/// The highest floor below the line.
const PURE_MAX: u8 = 2;

/// What floors below the line do without: input and output, the clock, the environment, logging, chance, hash order.
const IMPURE: [&str; 15] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "tracing",
    "tokio",
    "reqwest",
    "hyper",
    "object_store",
];

fn floor(room: &str) -> u8 {
    let known = FLOORS.iter().find(|(name, _)| *name == room);
    known.unwrap_or_else(|| panic!("`{room}` has no floor; give it one here and in the architecture")).1
}

/// `cli` puts the process together from its neighbours; nobody else on the top floor knows another.
fn may_know(from: &str, to: &str) -> bool {
    from == to || floor(to) < floor(from) || (from == "cli" && floor(to) == floor(from))
}

/// Collects every path of a file, made absolute where it begins with `crate`, `self` or `super`.
struct Paths {
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Paths {
    fn note(&mut self, path: Vec<String>) {
        let mut absolute = self.module.clone();
        let mut rest = path.as_slice();
        match rest.first().map(String::as_str) {
            Some("crate" | "schemabridge") => {
                absolute = vec!["crate".to_owned()];
                rest = &rest[1..];
            }
            Some("self" | "super") => {}
            _ => return self.found.push(path),
        }
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "self" => {}
                "super" => assert!(absolute.pop().is_some(), "{path:?} leads out of the crate"),
                _ => break,
            }
            rest = others;
        }
        absolute.extend_from_slice(rest);
        self.found.push(absolute);
    }

    fn note_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.note(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.note(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    /// `pub(crate)` is no arrow.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    /// `pub(crate)` is no way to anywhere.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    /// Tokens print with blanks around `::`, so text inside of literals does not look like a path.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let tokens = called.tokens.to_string();
        let words: Vec<&str> = tokens.split_whitespace().collect();
        let mut position = 0;
        while position < words.len() {
            let mut path = vec![words[position].trim_start_matches(['&', '*', '(', '!']).to_owned()];
            while words.get(position + 1) == Some(&"::") && position + 2 < words.len() {
                path.push(words[position + 2].to_owned());
                position += 2;
            }
            if path.len() > 1 {
                self.note(path);
            }
            position += 1;
        }
        visit::visit_macro(self, called);
    }
}

/// The module that a file is.
fn module_of(file: &Path, source: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source).unwrap().with_extension("");
    let mut module = vec!["crate".to_owned()];
    module.extend(relative.iter().map(|part| part.to_str().unwrap().to_owned()));
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

fn paths_of(text: &str, module: Vec<String>) -> Vec<Vec<String>> {
    let mut paths = Paths { module, found: Vec::new() };
    paths.visit_file(&syn::parse_file(text).unwrap());
    paths.found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.sort();
    found
}

/// Every file that belongs to a room, with the room and its paths.
fn rooms() -> Vec<(PathBuf, String, Vec<Vec<String>>)> {
    let source: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src"].iter().collect();
    let mut rooms = Vec::new();
    for file in files(&source) {
        let module = module_of(&file, &source);
        let text = std::fs::read_to_string(&file).unwrap();
        if let Some(room) = module.get(1).cloned() {
            rooms.push((file.clone(), room, paths_of(&text, module)));
        }
    }
    assert!(rooms.len() > 10, "the sources were not found");
    rooms
}

fn wrong_ways(room: &str, paths: &[Vec<String>]) -> Vec<String> {
    let leads = |path: &&Vec<String>| match path.as_slice() {
        [origin, to, ..] if origin == "crate" => FLOORS.iter().any(|(name, _)| name == to) && !may_know(room, to),
        [origin] => origin == "crate",
        _ => false,
    };
    paths.iter().filter(leads).map(|path| path.join("::")).collect()
}

#[test]
fn arrows_only_point_down() {
    let mut wrong = Vec::new();
    for (file, room, paths) in rooms() {
        floor(&room);
        wrong.extend(wrong_ways(&room, &paths).into_iter().map(|path| format!("{}: {path}", file.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn below_the_line_everything_is_pure() {
    let mut wrong = Vec::new();
    for (file, room, paths) in rooms() {
        for path in paths.iter().map(|path| path.join("::")).filter(|_| floor(&room) <= PURE_MAX) {
            let is_impure = |name: &&str| path == **name || path.starts_with(&format!("{name}::"));
            if IMPURE.iter().any(is_impure) {
                wrong.push(format!("{}: {path}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_config_reads_the_environment_and_only_upstream_makes_a_client() {
    let mut wrong = Vec::new();
    for (file, room, paths) in rooms() {
        for path in paths.iter().map(|path| path.join("::")) {
            let reads = path.starts_with("std::env::var") && room != "config";
            let sends = path.starts_with("reqwest::Client") && room != "upstream";
            if reads || sends {
                wrong.push(format!("{}: {path}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The reader itself: each of these would be an arrow up from `translate`.
#[test]
fn every_way_to_write_a_path_is_read() {
    let ways = [
        "use crate::gateway::Gateway;",
        "use crate::{image::digest::Digest, gateway};",
        "use super::super::gateway as door;",
        "pub use schemabridge::gateway::*;",
        "fn f() { crate::gateway::answer(); }",
        "fn f(x: &crate::gateway::Gateway) {}",
        "mod inner { fn f() { super::super::super::gateway::answer(); } }",
        "fn f() { println!(\"{}\", crate::gateway::NAME); }",
        "impl crate::gateway::Door for X {}",
        "#[cfg(test)] mod tests { use crate::gateway; }",
        "use crate::*;",
    ];
    for way in ways {
        let module = ["crate", "translate", "table"].map(str::to_owned).to_vec();
        assert_eq!(wrong_ways("translate", &paths_of(way, module)).len(), 1, "{way}");
    }
    let module = || ["crate", "translate", "table"].map(str::to_owned).to_vec();
    for fine in [
        "use crate::image::digest::Digest;",
        "use super::sign;",
        "fn f() -> &'static str { \"crate::gateway\" }",
        "use std::fmt;",
    ] {
        assert!(wrong_ways("translate", &paths_of(fine, module())).is_empty(), "{fine}");
    }
}
