//! The house test: who may know whom, how large things may be, and what may not be committed.
//!
//! Runs in `make check`. A rule is changed here and in ARCHITECTURE.md, together and on purpose.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::Path;

use motet_tests::house::manifest::{self, Dependency, Package};
use motet_tests::house::source::{self, Source};
use motet_tests::house::{Breach, demand_none};
use motet_tests::place::workspace;

/// Files that are longer than the rule, each with the length past which it may not grow. Shrink the list.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions that are longer than the rule, as `path::name`. Shrink the list.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

fn sources() -> Vec<(String, String)> {
    let root = workspace();
    let mut found = vec![];
    for room in ["runtime", "actors", "cluster", "config", "tests", "benches"] {
        gather(&root, &root.join(room), &["rs"], &mut found);
    }
    assert!(found.len() > 50, "only {} sources were found", found.len());
    found
}

fn gather(root: &Path, folder: &Path, kinds: &[&str], found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            gather(root, &path, kinds, found);
        } else if path.extension().is_some_and(|kind| kinds.iter().any(|wanted| kind == *wanted)) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn arrows_point_down_and_crates_live_at_home() {
    demand_none(manifest::breaches(&manifest::packages()));
}

#[test]
fn sources_keep_the_rules() {
    let sources = sources();
    for (path, lines) in sources.iter().map(|(path, text)| (path, text.lines().count())) {
        if lines > source::FILE_LINES_AIM {
            println!("{path} has {lines} lines: worth splitting past {}", source::FILE_LINES_AIM);
        }
    }
    let breaches = sources
        .iter()
        .flat_map(|(path, text)| source::breaches(Source { path, text }, LONG_FILES, LONG_FUNCTIONS))
        .collect();
    demand_none(breaches);
}

#[test]
fn no_merge_is_left_half_done() {
    let mut texts = vec![];
    gather(&workspace(), &workspace(), &["rs", "md", "toml", "yaml", "sql", "proto", "py", "c"], &mut texts);
    let marks = ["<".repeat(7), ">".repeat(7)];
    let left = |line: &&str| marks.iter().any(|mark| line.starts_with(mark.as_str()));
    let found: Vec<_> = texts.iter().filter(|(_, text)| text.lines().any(|line| left(&line))).collect();
    assert!(texts.iter().any(|(path, _)| path == "ARCHITECTURE.md"));
    assert!(
        found.is_empty(),
        "marks of a merge are left in {:?}",
        found.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
}

#[test]
fn exceptions_are_still_needed() {
    let sources = sources();
    let mut stale = vec![];
    for (path, _) in LONG_FILES {
        let needed = sources.iter().any(|(name, text)| name == path && text.lines().count() > source::FILE_LINES);
        stale.extend((!needed).then_some(*path));
    }
    for (function, _) in LONG_FUNCTIONS {
        let (path, name) = function.split_once("::").unwrap();
        let needed = sources.iter().filter(|(file, _)| file == path).any(|(_, text)| {
            source::functions(text).iter().any(|(found, _, length)| found == name && *length > source::FUNCTION_LINES)
        });
        stale.extend((!needed).then_some(*function));
    }
    assert!(stale.is_empty(), "take these exceptions out, nothing needs them: {stale:?}");
}

#[test]
fn the_rules_find_what_they_forbid() {
    let edge = |from: &str, to: &str| Package {
        name: from.to_owned(),
        dependencies: vec![Dependency { name: to.to_owned() }],
    };
    for (from, to, fits) in [
        ("motet-server", "motet-actors", true),
        ("motet-actors", "motet-server", false),
        ("motet-engine", "tokio", false),
        ("motet-engine", "motet-store", false),
        ("motet-config", "motet-engine", false),
        ("motet-server", "ractor", false),
        ("motet-actors", "ractor", true),
        ("motet-models", "sqlx", false),
        ("motet-actors", "motet-cluster", true),
        ("motet-cluster", "motet-store", true),
        ("motet-cluster", "motet-actors", false),
        ("motet-actors", "tonic", false),
    ] {
        assert_eq!(manifest::breaches(&[edge(from, to)]).is_empty(), fits, "{from} -> {to}");
    }
    let check = |path: &str, text: &str| -> Vec<Breach> { source::breaches(Source { path, text }, &[], &[]) };
    let long = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(80));
    let sleeps = ["//! x\ntokio::time::", "sleep(d)\n"].concat();
    let maps = ["//! x\nuse std::collections::Hash", "Map;\n"].concat();
    for (path, text, count) in [
        ("actors/src/a.rs", "//! x\n", 0),
        ("actors/src/a.rs", "fn f() {}\n", 1),
        ("actors/src/util.rs", "//! x\n", 1),
        ("actors/src/a.rs", &long, 1),
        ("actors/src/a.rs", &format!("//! x\n{}", "\n".repeat(600)), 1),
        ("actors/src/a.rs", &sleeps, 0),
        ("actors/src/a/tests.rs", &sleeps, 1),
        ("runtime/engine/src/a.rs", &maps, 1),
        ("actors/src/a.rs", &maps, 0),
    ] {
        assert_eq!(check(path, text).len(), count, "{path}: {:?}", check(path, text));
    }
}
