//! The binary as scripts see it: output, exit codes, words on standard error.
//!
//! Starts no server: what needs one is in the behaviour tests and in the test of the demo.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Nobody listens on the port of discarded bytes of a test machine.
const NOWHERE: &str = "http://127.0.0.1:9";

fn motet(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motet"));
    command.args(arguments).current_dir(folder).env_remove("MOTET_SERVER").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).output().unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const BROKEN: &str = "\
kind: Workflow
name: answer
steps:
  embed:
    cal: model
    model: minilm
  next:
    call: transform
    with: \"${ steps.embd.output.text }\"
---
kind: Modl
name: x
";

const WHOLE: &str = "kind: Workflow\nname: greet\nsteps:\n  hello: {call: transform, with: {text: hi}}\n";

#[test]
fn check_tells_every_mistake_with_its_place_and_a_caret() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), BROKEN).unwrap();
    fs::write(folder.path().join("b.yaml"), WHOLE).unwrap();
    let output = motet(folder.path(), &["check", "."]);
    let expected = "\
./a.yaml:4:3: the step 'embed' needs 'call'
 4 |   embed:
   |   ^
   = one of model, prompt, transform, parse, vector.query, vector.upsert, http, wait, signal
./a.yaml:5:5: the step 'embed' has no key 'cal'
 5 |     cal: model
   |     ^
   = did you mean 'call'?
./a.yaml:9:21: there is no step 'embd'
 9 |     with: \"${ steps.embd.output.text }\"
   |                     ^
   = did you mean 'embed'?
./a.yaml:11:7: there is no kind 'Modl' in this version
 11 | kind: Modl
    |       ^
   = did you mean 'Model'?
";
    assert_eq!(words(&output.stdout), expected);
    assert_eq!(words(&output.stderr), "4 mistakes in 1 of 2 files\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn check_reads_files_and_folders_and_speaks_json() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("flows")).unwrap();
    fs::write(folder.path().join("flows/b.yaml"), WHOLE).unwrap();
    let output = motet(folder.path(), &["check", "flows"]);
    assert_eq!((words(&output.stdout).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(words(&output.stderr), "1 file: 1 definition, no mistakes\n");
    let output = motet(folder.path(), &["check", "flows/b.yaml", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    fs::write(folder.path().join("flows/a.yaml"), BROKEN).unwrap();
    let output = motet(folder.path(), &["check", "flows", "--output", "json", "--quiet"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["ok"].as_bool(), report["files"].as_u64()), (Some(false), Some(2)));
    assert_eq!(report["mistakes"][1]["code"], "unknown-key");
    assert_eq!((words(&output.stderr).as_str(), output.status.code()), ("", Some(1)));
    for kind in ["workflow", "model", "index"] {
        let output = motet(folder.path(), &["check", "--schema", kind]);
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["title"].as_str().unwrap().to_lowercase(), kind);
    }
}

#[test]
fn twins_with_different_content_are_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), WHOLE).unwrap();
    fs::write(folder.path().join("b.yaml"), WHOLE.replace("hi", "ho")).unwrap();
    let output = motet(folder.path(), &["check", "a.yaml", "b.yaml"]);
    assert!(words(&output.stdout).starts_with("b.yaml:1:1: the Workflow 'greet' is defined differently in a.yaml"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn exit_codes_and_words_tell_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.yaml");
    fs::write(&whole, WHOLE).unwrap();
    let cases: [(&[&str], i32, &str, &str); 13] = [
        (&["sing"], 2, "unrecognized subcommand", "--help"),
        (&["run"], 2, "required arguments", "Usage"),
        (&["run", "a", "--input", "{"], 2, "the input is no JSON", "try: "),
        (&["run", "a", "--input", "@nowhere"], 2, "cannot read the input from nowhere", ""),
        (&["run", "a", "-i", "x"], 2, "'x' is no member of an input", "try: write it as -i key=value"),
        (&["run", "a", "--wait", "5"], 2, "with its unit", ""),
        (&["runs", "list", "--server", "http://["], 2, "is no address of a server", "MOTET_SERVER"),
        (&["runs", "list", "--server", NOWHERE], 3, "cannot reach a server at http://127.0.0.1:9", "motet serve"),
        (&["run", "a", "-i", "x=1", "--server", NOWHERE], 3, "cannot reach a server", "try: "),
        (&["apply", "whole.yaml", "--server", NOWHERE], 3, "cannot reach a server", "try: "),
        (&["check", "nowhere.yaml"], 1, "cannot read nowhere.yaml", "try: check the path"),
        (&["demo", "--folder", "."], 2, "needs questions", "--question"),
        (&["models", "fetch", "nowhere.yaml"], 1, "cannot read nowhere.yaml", ""),
    ];
    for (arguments, code, what, advice) in cases {
        let output = motet(folder.path(), arguments);
        let told = words(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(what) && told.contains(advice), "{arguments:?}: {told}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_motet"))
        .args(["check", "--schema", "workflow"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((words(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn settings_are_shown_with_their_origins_and_their_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let defaults = motet(folder.path(), &["config", "default"]);
    fs::write(folder.path().join("motet.yaml"), &defaults.stdout).unwrap();
    let output = motet(folder.path(), &["config", "check", "--config", "motet.yaml", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["settings"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["key"] == "http.address" && row["value"] == "127.0.0.1:8080"), "{report}");
    fs::write(folder.path().join("motet.yaml"), "http:\n  adress: 127.0.0.1:1\n").unwrap();
    for command in [&["config", "check", "--config", "motet.yaml"][..], &["serve", "--config", "motet.yaml"]] {
        let output = motet(folder.path(), command);
        let told = words(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("motet.yaml:2:") && told.contains("did you mean 'http.address'?"), "{told}");
    }
}

#[test]
fn help_teaches_and_version_answers() {
    let folder = tempfile::tempdir().unwrap();
    let help = words(&motet(folder.path(), &["--help"]).stdout);
    for expected in ["motet demo", "Exit codes:", "3  the server cannot be reached"] {
        assert!(help.contains(expected), "{help}");
    }
    for command in ["serve", "demo", "check", "apply", "run", "runs", "models", "indexes", "config"] {
        let help = words(&motet(folder.path(), &[command, "--help"]).stdout);
        assert!(help.contains("Examples:"), "{command}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{command}: {help}");
    }
    assert!(words(&motet(folder.path(), &["version"]).stdout).starts_with("motet "));
    let version = motet(folder.path(), &["version", "--output", "json"]);
    let version: Value = serde_json::from_slice(&version.stdout).unwrap();
    assert_eq!(version["name"], "motet");
}
