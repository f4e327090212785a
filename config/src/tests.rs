//! Layers, mistakes with their places, and the default file against the typed settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::keys::KEYS;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn load(file: &str, environment: Pairs<'_>, overrides: Overrides) -> Result<Settings, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("motet.yaml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(Some(&path), environment, overrides).map_err(|mut problems| {
        for problem in &mut problems {
            if let Origin::File { path, .. } = &mut problem.origin {
                *path = "motet.yaml".into();
            }
        }
        problems
    })
}

fn problems(file: &str, environment: Pairs<'_>) -> Vec<String> {
    load(file, environment, Overrides::new()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_default_file_says_exactly_the_defaults() {
    let loaded = load(DEFAULT_FILE, &[], Overrides::new()).unwrap();
    assert_eq!(Settings { origins: Origins::default(), ..loaded }, Settings::default());
    let from_nothing = Settings::load(None, std::iter::empty(), Overrides::new()).unwrap();
    assert_eq!(from_nothing, Settings::default());
}

#[test]
fn every_key_is_explained_in_the_default_file() {
    let (mut section, mut explained, mut found) = (String::new(), false, Vec::new());
    for line in DEFAULT_FILE.lines() {
        let text = line.trim_start();
        if text.starts_with('#') {
            explained = true;
        } else if let Some((name, _)) = text.split_once(':') {
            if line.starts_with(' ') {
                assert!(explained, "{section}.{name} has no explanation");
                found.push(format!("{section}.{name}"));
            } else {
                section = name.to_owned();
            }
            explained = false;
        }
    }
    assert_eq!(found, KEYS.iter().map(|key| key.path).collect::<Vec<_>>());
}

#[test]
fn every_field_has_a_key() {
    // Leaves of the settings, counted in their debug form; `origins` is no setting.
    let settings = format!("{:#?}", Settings { origins: Origins::default(), ..Settings::default() });
    let leaves = settings.lines().filter(|line| line.starts_with("        ") && !line.starts_with("         "));
    let fields = leaves.filter(|line| line.contains(": ")).count();
    assert_eq!(fields, KEYS.len());
}

#[test]
fn later_layers_win() {
    let file = "http: {address: '0.0.0.0:1', max_wait: 5s}\nruns:\n  shards: 8\n";
    let environment = [("MOTET__HTTP__ADDRESS", "0.0.0.0:2"), ("MOTET__RUNS__MAX_LIVE", "7"), ("MOTET_OTHER", "x")];
    let overrides =
        Overrides::new().set("http.address", "--http", Some("0.0.0.0:3")).set("data.folder", "--data", None::<&str>);
    let settings = load(file, &environment, overrides).unwrap();
    assert_eq!(settings.http.address.port(), 3);
    assert_eq!(settings.http.max_wait, Duration::from_secs(5));
    assert_eq!((settings.runs.shards, settings.runs.max_live), (8, 7));
    let origin = |key: &str| settings.origins.get(key).to_string();
    assert_eq!(origin("http.address"), "command line --http");
    assert_eq!(origin("runs.max_live"), "environment MOTET__RUNS__MAX_LIVE");
    assert!(origin("runs.shards").ends_with("motet.yaml:3:11"), "{}", origin("runs.shards"));
    assert_eq!(origin("data.folder"), "default");
    let table = settings.effective().to_string();
    assert_eq!(table.lines().count(), KEYS.len());
    let words = |key: &str| {
        let line = table.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(words("http.address"), ["http.address", "0.0.0.0:3", "command", "line", "--http"]);
    assert_eq!(words("resources.folder"), ["resources.folder", "(none)", "default"]);
}

#[test]
fn what_is_shown_can_be_written() {
    let settings = load("http: {max_body_bytes: 10MB}\nresources: {folder: here}\n", &[], Overrides::new()).unwrap();
    let mut again = Settings::default();
    for (key, row) in KEYS.iter().zip(settings.effective().rows) {
        if !row.value.is_empty() {
            key.assign(&mut again, &row.value).unwrap();
        }
    }
    assert_eq!(Settings { origins: again.origins.clone(), ..settings }, again);
}

#[test]
fn nothing_set_means_the_default() {
    for file in ["", "---\n", "# only words\n", "http:\n", "http:\n  address:\nresources: {folder: ~}\n", "{}"] {
        let loaded = load(file, &[("MOTET__STORE__URL", "")], Overrides::new()).unwrap();
        assert_eq!(loaded, Settings::default(), "{file}");
    }
}

#[test]
fn model_files_go_to_the_cache_of_the_user() {
    for (environment, expected) in [
        (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")][..], Some("/x/motet")),
        (&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")], Some("/h/.cache/motet")),
        (&[("HOME", "/h"), ("MOTET__MODELS__CACHE_FOLDER", "/m")], Some("/m")),
        (&[], None),
    ] {
        let settings = load("", environment, Overrides::new()).unwrap();
        assert_eq!(settings.models.cache_folder, expected.map(PathBuf::from));
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let file = "\
http:
  adress: 127.0.0.1:1
  max_body_bytes: 8 Megs
  max_in_flight: 0
strore:
  url: x
log:
  format: xml
  filter: info,motet=debgu
node: {name: 7}
runs: 5
";
    let environment =
        [("MOTET__HTTP__MAX_WAITS", "5s"), ("MOTET__RUNS__SHARDS", "many"), ("MOTET__MODELS__THREADS", "-1")];
    let overrides = Overrides::new().set("shutdown.grace", "--grace", Some("30"));
    let told: Vec<_> = load(file, &environment, overrides).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "motet.yaml:2:3: http.adress: there is no such setting; did you mean 'http.address'?",
            "motet.yaml:3:19: http.max_body_bytes: '8 Megs' is no size; write a whole number with a unit: 8MiB",
            "motet.yaml:4:18: http.max_in_flight: 0 is out of bounds; it must be 1 to 1000000",
            "motet.yaml:5:1: strore: there is no such setting; did you mean 'store'?",
            "motet.yaml:8:11: log.format: 'xml' is no format; it is one of auto, text, json",
            "motet.yaml:9:11: log.filter: 'debgu' is no level; levels are off, error, warn, info, debug, trace; did you mean \
             'debug'?",
            "motet.yaml:10:14: node.name: expected a text, found 7; put it into quotes if it is meant",
            "motet.yaml:11:7: runs: expected a map of settings below this name",
            "environment MOTET__HTTP__MAX_WAITS: http.max_waits: there is no such setting; did you mean \
             'MOTET__HTTP__MAX_WAIT'?",
            "environment MOTET__MODELS__THREADS: models.threads: '-1' is no whole number",
            "environment MOTET__RUNS__SHARDS: runs.shards: 'many' is no whole number",
            "command line --grace: shutdown.grace: '30' is no time; write a whole number with a unit: 500ms, 30s, 5m",
        ]
    );
}

#[test]
fn single_mistakes_by_table() {
    for (file, words) in [
        ("http: {address: localhost:80}", "motet.yaml:1:17: http.address: 'localhost:80' is no address"),
        ("http:\n  address: [1]", "expected a single value"),
        ("egress: {allow: 'a.example,'}", "a comma too many"),
        ("egress: {allow: 'https://a.example'}", "'https://a.example' is no host"),
        ("egress: {allow: 'a b'}", "'a b' is no host"),
        ("egress: {max_answer_bytes: 1GiB}", "is out of bounds; it must be 1KiB to 16MiB"),
        ("egress: {max_in_flight: 0}", "0 is out of bounds"),
        ("store: {url: 'mysql://u:secret@h/d'}", "'mysql' is no store that this version knows"),
        ("data: {folder: ~/motet}", "'~' is not expanded"),
        ("node: {name: a b}", "'a b' is no name"),
        ("runs: {shards: 99999999999}", "99999999999 is out of bounds; it must be 1 to 4096"),
        ("runs: {shards: '99999999999999999999'}", "99999999999999999999 is out of bounds"),
        ("runs: {shards: 1.5}", "'1.5' is no whole number"),
        ("runs: {retention: 20000d}", "is out of bounds"),
        ("log: {filter: inof}", "did you mean 'info'?"),
        ("log: {filter: 'info,'}", "a comma too many"),
        ("threads: 4", "threads: there is no such setting; did you mean 'models.threads'?"),
        ("http.address: 127.0.0.1:1", "there is no such setting; did you mean 'http.address'?"),
        ("a: 1\n  b: [", "this is no YAML"),
        ("[1, 2]", "motet.yaml:1:1: expected a map"),
        ("http: {}\nhttp: {}", "motet.yaml:2:1: http: the key stands twice; first in line 1"),
        ("http:\n\tmax_wait: 5s", "motet.yaml:2:2: this is no YAML"),
        ("runs: {max_live: 10, max_unfinished: 5}", "runs.max_live (10) exceeds runs.max_unfinished (5)"),
        ("admin: {address: 127.0.0.1:8080}", "motet.yaml:1:18: admin.address: http.address and admin.address are both"),
        ("grpc: {address: 127.0.0.1:8080}", "motet.yaml:1:17: grpc.address: http.address and grpc.address are both"),
        ("admin: {address: 127.0.0.1:8081}", "motet.yaml:1:18: admin.address: grpc.address and admin.address are both"),
        ("http: {address: 127.0.0.1:9090}", "motet.yaml:1:17: http.address: http.address and admin.address are both"),
    ] {
        let told = problems(file, &[]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(words), "'{}' does not say '{words}'", told[0]);
        assert!(!told[0].contains("secret"));
    }
    for fine in [
        "http: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}",
        "log: {filter: 'warn,motet_actors=debug,hyper=off,[span{field=x}]=trace,motet'}",
        "runs: {shards: '16'}",
        "egress: {allow: '*, !10.0.0.0/8,api.example.org'}",
        "store: {url: 'sqlite:/var/lib/motet'}",
        "store: {url: 'postgres://u:secret@h/d'}",
    ] {
        load(fine, &[], Overrides::new()).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let told =
        Settings::load(Some(Path::new("/nowhere/motet.yaml")), std::iter::empty(), Overrides::new()).unwrap_err();
    assert!(told[0].to_string().starts_with("/nowhere/motet.yaml:1:1: cannot read the file: "), "{}", told[0]);
    let unknown = Overrides::new().set("http.adress", "--set", Some("x"));
    let told = Settings::load(None, std::iter::empty(), unknown).unwrap_err();
    assert_eq!(
        told[0].to_string(),
        "command line --set: http.adress: there is no such setting; did you mean 'http.address'?"
    );
}
