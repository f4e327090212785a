//! Runs every test binary of a finished build, one after the other, and tells what each suite took.
//!
//! Reads cargo's messages (`--message-format=json`) from standard input to find the binaries. Prints a line per suite
//! with its budget, fails a suite that takes three times its budget, shows the output of suites that failed, and ends
//! in one line of counts. A first argument names the suites to run, a second one the tests in them. Never repeats a
//! failed test. Used by `make test` and `.ci/run`.

use std::fmt::Write as _;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

/// How long a suite may take in the short form, in seconds. The others get [`BUDGET`].
const BUDGETS: [(&str, u64); 19] = [
    ("engine", 20),
    ("engine/properties", 60),
    ("store", 90),
    ("actors/node", 40),
    ("broker", 120),
    ("cluster", 40),
    ("cluster/leader", 120),
    ("cluster/ownership", 60),
    ("models", 60),
    ("vectors", 40),
    ("tests/behaviour", 60),
    ("tests/children", 150),
    ("tests/cluster", 90),
    ("tests/cold_start", 60),
    ("tests/faults", 420),
    ("tests/kafka", 90),
    ("tests/open_inference", 90),
    ("tests/simulation", 60),
    ("tests/streams", 180),
];

/// Budget of a suite that is not listed, in seconds.
const BUDGET: u64 = 15;

/// A suite that takes this many budgets has failed, whatever its tests say.
const PATIENCE: u32 = 3;

/// How much longer the long forms may take.
const FULL_FACTOR: u64 = 10;

/// How much longer a night may take.
const NIGHT_FACTOR: u64 = 200;

/// Begins the line that a test prints when it cannot run here; see `motet_tests::skip`.
const SKIP_MARK: &str = "SKIPPED";

struct Suite {
    name: String,
    binary: PathBuf,
    folder: PathBuf,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

struct Outcome {
    counts: Counts,
    took: Duration,
    ok: bool,
    output: String,
    skips: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let full = std::env::var("MOTET_TEST_FULL").is_ok_and(|value| value == "1");
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let night = std::env::var("MOTET_CHAOS").is_ok_and(|value| value == "1");
    let (filter, test) = (std::env::args().nth(1), std::env::args().nth(2));
    let mut suites = find_suites(std::io::stdin().lock())?;
    suites.retain(|suite| filter.as_deref().is_none_or(|wanted| suite.name.contains(wanted)));
    anyhow::ensure!(
        !suites.is_empty(),
        "the build has no test binary{}",
        filter.map_or(String::new(), |f| format!(" named like '{f}'"))
    );
    println!("{:<24} {:>7} {:>7} {:>8} {:>9} {:>8}", "suite", "passed", "failed", "skipped", "seconds", "budget");
    let (mut total, mut broken, mut skips) = (Counts::default(), Vec::new(), Vec::new());
    for suite in &suites {
        let factor = if night {
            NIGHT_FACTOR
        } else if full {
            FULL_FACTOR
        } else {
            1
        };
        let budget = Duration::from_secs(budget_of(&suite.name) * factor);
        let mut outcome = run(suite, test.as_deref(), budget * PATIENCE)?;
        if in_ci && outcome.counts.skipped > 0 {
            outcome.ok = false;
        }
        report(suite, &outcome, budget);
        total.passed += outcome.counts.passed;
        total.failed += outcome.counts.failed;
        total.skipped += outcome.counts.skipped;
        skips.extend(outcome.skips.iter().map(|skip| format!("{}: {skip}", suite.name)));
        if !outcome.ok {
            // A binary that died, or was too slow, counts as one failure even if no test says so.
            total.failed += u64::from(outcome.counts.failed == 0);
            broken.push((suite, outcome));
        }
    }
    for (suite, outcome) in &broken {
        println!("\n---- {} ----\n{}", suite.name, outcome.output.trim_end());
    }
    for skip in &skips {
        println!("skipped  {skip}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn budget_of(name: &str) -> u64 {
    BUDGETS.iter().find(|(suite, _)| *suite == name).map_or(BUDGET, |(_, seconds)| *seconds)
}

/// The test binaries among the artefacts of a build; benches are not run here.
fn find_suites(messages: impl BufRead) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for line in messages.lines() {
        let line = line?;
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
        let is_test = message["profile"]["test"] == true && kind != "bench" && kind != "example";
        let (true, Some(binary)) = (is_test, message["executable"].as_str()) else { continue };
        let manifest = Path::new(message["manifest_path"].as_str().context("an artefact without a manifest")?);
        let folder = manifest.parent().context("a manifest without a folder")?.to_owned();
        let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let name = match kind {
            "test" => format!("{package}/{target}"),
            "bin" => format!("{package} bin {target}"),
            _ => package,
        };
        suites.push(Suite { name, binary: binary.into(), folder });
    }
    suites.sort_by(|one, other| one.name.cmp(&other.name));
    suites.dedup_by(|one, other| one.name == other.name);
    Ok(suites)
}

fn run(suite: &Suite, test: Option<&str>, limit: Duration) -> Result<Outcome> {
    let begun = Instant::now();
    let mut child = Command::new(&suite.binary)
        // A test that skips says so in its output, which the harness keeps to itself otherwise.
        .arg("--show-output")
        .args(test)
        .current_dir(&suite.folder)
        .env("CARGO_MANIFEST_DIR", &suite.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", suite.binary.display()))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    // The watch ends with the binary: its end is told by the channel, so nothing polls.
    let (ended, end) = std::sync::mpsc::sync_channel::<()>(1);
    let pid = rustix::process::Pid::from_child(&child);
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(limit).is_err();
        if late {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        late
    });
    let status = child.wait()?;
    let _ = ended.send(());
    let late = watch.join().unwrap_or(false);
    let took = begun.elapsed();
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    let (mut counts, seen) = count(&stdout);
    let skips: Vec<String> = stdout
        .lines()
        .chain(stderr.lines())
        .filter_map(|line| line.strip_prefix(SKIP_MARK))
        .map(|why| why.trim_start_matches([':', ' ']).to_owned())
        .collect();
    counts.skipped += skips.len() as u64;
    counts.passed = counts.passed.saturating_sub(skips.len() as u64);
    let mut output = stdout + &stderr;
    if late {
        let _ = writeln!(output, "stopped after {} s: {PATIENCE} times its budget", limit.as_secs());
    } else if !status.success() || !seen {
        let _ = writeln!(output, "ended with {status}");
    }
    let ok = status.success() && seen && !late && took <= limit;
    Ok(Outcome { counts, took, ok, output, skips })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Reads the summary lines of the test harness; false when there is none.
fn count(stdout: &str) -> (Counts, bool) {
    let (mut counts, mut seen) = (Counts::default(), false);
    for line in stdout.lines().filter(|line| line.starts_with("test result: ")) {
        seen = true;
        let number = |what: &str| {
            let (before, _) = line.split_once(what)?;
            before.rsplit([' ', ';', '.']).find(|word| !word.is_empty())?.parse::<u64>().ok()
        };
        counts.passed += number(" passed").unwrap_or(0);
        counts.failed += number(" failed").unwrap_or(0);
        counts.skipped += number(" ignored").unwrap_or(0);
    }
    (counts, seen)
}

fn report(suite: &Suite, outcome: &Outcome, budget: Duration) {
    let verdict = match (outcome.ok, outcome.took > budget) {
        (false, _) => "  FAILED",
        (true, true) => "  over budget",
        (true, false) => "",
    };
    let Counts { passed, failed, skipped } = outcome.counts;
    let seconds = outcome.took.as_secs_f64();
    println!("{:<24} {passed:>7} {failed:>7} {skipped:>8} {seconds:>9.1} {:>8}{verdict}", suite.name, budget.as_secs());
}
