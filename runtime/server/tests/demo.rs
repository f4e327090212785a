//! The demo as its users run it: the real binary, real inference, no network.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Articles that answer each of the sample questions, in their order.
const RIGHT: [&[&str]; 8] = [
    &["firewall-ports"],
    &["double-charge"],
    &["lost-2fa"],
    &["damaged-parcel"],
    &["rate-limit"],
    &["calibrate-co2"],
    &["downgrade-plan", "cancel-subscription"],
    &["data-location", "subprocessors-transfer"],
];

fn demo(arguments: &[&str], temporary: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motet"));
    command.arg("demo").args(arguments).env("NO_COLOR", "1").env("TMPDIR", temporary);
    command.env("XDG_CACHE_HOME", temporary.join("cache")).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_demo_answers_without_network() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&["--offline", "--output", "json"], temporary.path());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answers = report["answers"].as_array().unwrap();
    assert_eq!(answers.len(), RIGHT.len());
    let is_right = |(answer, right): (&Value, &&[&str])| {
        let sources = answer["output"]["sources"].as_array().unwrap();
        assert!(!answer["output"]["answer"].as_str().unwrap().is_empty());
        sources.iter().any(|source| right.contains(&source["id"].as_str().unwrap()))
    };
    let right: Vec<bool> = answers.iter().zip(&RIGHT).map(is_right).collect();
    assert!(right.iter().filter(|right| **right).count() >= 6, "{right:?}");
    for model in report["models"].as_array().unwrap() {
        assert!(model["figures"]["largest_batch"].as_u64().unwrap() > 1, "{model}");
        assert!(model["figures"]["batches"].as_u64() < model["figures"]["rows"].as_u64(), "{model}");
    }
    let quality = &report["quality"];
    assert!(quality["among_five"].as_u64() > Some(quality["with_article"].as_u64().unwrap() * 3 / 4), "{quality}");
    assert_eq!(report["restart"]["succeeded"], report["restart"]["accepted"], "{report}");
    assert_eq!(report["restart"]["same_answer"], report["restart"]["accepted"], "{report}");
    let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.ends_with("cache")), "the temporary folder is left: {left:?}");
}

#[test]
fn the_demo_reads_folders_and_leaves_a_named_data_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let notes = temporary.path().join("notes");
    fs::create_dir(&notes).unwrap();
    fs::write(notes.join("bread.md"), "# Bread\n\nKnead the dough for ten minutes and let it rise over night.")
        .unwrap();
    fs::write(notes.join("bike.txt"), "The chain of the bicycle needs a drop of oil every month.").unwrap();
    let data = temporary.path().join("data");
    let folder = notes.display().to_string();
    let kept = data.display().to_string();
    let question = "How long must the dough rise?";
    let arguments = ["--offline", "--folder", &folder, "--data", &kept, "--question", question];
    // Twice, as a user would: the second time everything is there already.
    for _ in 0..2 {
        let output = demo(&arguments, temporary.path());
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{shown}{}", String::from_utf8_lossy(&output.stderr));
        assert!(shown.contains("Indexed 2 pieces in 1 concurrent run,") && shown.contains("Bread"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 100 + kept.len()), "{shown}");
        assert!(data.join("server.log").is_file());
    }
}
