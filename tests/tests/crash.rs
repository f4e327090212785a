//! Kill -9 at random moments under load: what was acknowledged survives, and nothing happens twice.
//!
//! `make test` kills 5 times, `make test-full` 30 times. The seed is printed; `MOTET_TEST_SEED` sets it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use motet_tests::client::{Client, Submission};
use motet_tests::history::History;
use motet_tests::journal;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};
use serde_json::json;
use tokio::sync::Semaphore;

/// New runs between two kills: 2,000 in the short form.
const RUNS_PER_KILL: usize = 400;
const CLIENTS: usize = 48;
const READERS: usize = 2;

/// Time between a start and the next kill.
const BETWEEN_KILLS_MS: std::ops::Range<u64> = 30..700;

/// Longest time from the last start to the end of every run.
const FINISH: Duration = Duration::from_secs(60);

/// The queues hold far fewer calls than the runs owe at once: an accepted run waits for room and never fails for it.
const MODELS: [(&str, &str); 2] = [
    ("echo", "kind: Model\nname: echo\nbackend: fake\nbatch: {max: 32}\nparameters: {latency_ms: 4}\n"),
    (
        "shaky",
        "kind: Model\nname: shaky\nbackend: fake\nbatch: {max: 16}\nparameters: {latency_ms: 2, fail_every: 4}\n",
    ),
];

const WORKFLOW: &str = r#"
kind: Workflow
name: survivor
version: "1"
steps:
  draft: {call: model, model: echo, with: {text: "${ input.text }"}}
  parts: {call: transform, with: {list: ["${ steps.draft.output.text }-a", "${ steps.draft.output.text }-b", "${ steps.draft.output.text }-c"]}}
  each: {for_each: "${ steps.parts.output.list }", as: part, call: model, model: echo, with: {text: "${ part }"}}
  shaky: {call: model, model: shaky, with: {text: "shaky ${ steps.draft.output.text }"},
          retry: {max_attempts: 100, backoff: {initial: 2ms, factor: 1.5, max: 40ms}}}
  finish: {needs: [each], call: model, model: echo, with: {text: "done ${ steps.shaky.output.text }"}}
output: {text: "${ steps.finish.output.text }", count: "${ size(steps.each.output) }"}
"#;

struct Load {
    runs: usize,
    client: Client,
    history: History,
    next: AtomicUsize,
    /// Submissions that may be made so far: each round of the test adds its part.
    allowed: Semaphore,
    over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_loses_and_repeats_nothing() -> Result<()> {
    let full = std::env::var("MOTET_TEST_FULL").is_ok_and(|value| value == "1");
    let kills = if full { 30 } else { 5 };
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    for (name, model) in MODELS {
        node.client().put_definition("models", name, model).await?;
    }
    node.client().put_definition("workflows", "survivor", WORKFLOW).await?;

    let runs = kills * RUNS_PER_KILL;
    let load = Arc::new(Load {
        runs,
        client: node.client(),
        history: History::new(),
        next: AtomicUsize::new(0),
        allowed: Semaphore::new(0),
        over: AtomicBool::new(false),
    });
    let submitters: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(submit_all(Arc::clone(&load)))).collect();
    let readers: Vec<_> =
        (0..READERS).map(|_| seed.draw()).map(|seed| tokio::spawn(read_on(Arc::clone(&load), seed))).collect();
    for kill in 0..kills {
        load.allowed.add_permits(RUNS_PER_KILL);
        let wait = Duration::from_millis(seed.between(BETWEEN_KILLS_MS.start, BETWEEN_KILLS_MS.end));
        let_pass(wait).await;
        node.check_running()?;
        let unfinished = load.client.metric("motet_runs_unfinished").await?;
        node.kill()?;
        let promised = load.history.promises().len();
        let ready = node.restart().await?;
        println!(
            "kill {} after {wait:?}: {promised} runs promised, {unfinished} unfinished, ready again after {ready:?}",
            kill + 1
        );
    }
    let begun = Instant::now();
    for submitter in submitters {
        submitter.await??;
    }
    let promises = load.history.promises();
    ensure!(promises.len() == runs, "{} of {runs} runs were taken; {}", promises.len(), node.log_tail());
    finish_all(&load, promises.values()).await.map_err(|error| error.context(node.log_tail()))?;
    println!("all {runs} runs have ended {:.1} s after the last start", begun.elapsed().as_secs_f64());
    load.over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await?;
    }
    read_everything(&load, &promises).await?;
    node.stop().await?;
    load.history.prove(&journal::read(node.data()).await?);
    println!("{} submissions were repeated, {} runs read by clients", load.history.repeats(), load.history.witnessed());
    Ok(())
}

/// Submits the next key again and again until the node has acknowledged it.
async fn submit_all(load: Arc<Load>) -> Result<()> {
    loop {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.runs {
            return Ok(());
        }
        load.allowed.acquire().await?.forget();
        let (key, input) = (format!("key-{number}"), json!({ "text": format!("run {number}") }));
        loop {
            match load.client.submit("survivor", &input, &key).await {
                Submission::Accepted(run) => {
                    load.history.promised(&key, &run);
                    break;
                }
                Submission::Unknown => {
                    load.history.repeated();
                    load.client.until_ready(FINISH).await?;
                }
                Submission::Refused(status) => ensure!(status == 503 || status == 429, "refused with {status}"),
            }
        }
    }
}

/// Reads events of promised runs while the node is killed and comes back.
async fn read_on(load: Arc<Load>, seed: u64) {
    let mut seed = Seed::new(seed);
    while !load.over.load(Ordering::Relaxed) {
        let promises: Vec<_> = load.history.promises().into_values().collect();
        let place = usize::try_from(seed.between(0, promises.len() as u64)).unwrap();
        let read = match promises.get(place) {
            Some(run) => load.client.events(run).await.map(|events| load.history.saw_events(run, events)),
            None => Ok(()),
        };
        if read.is_err() || promises.is_empty() {
            let_pass(Duration::from_millis(20)).await;
        }
    }
}

async fn finish_all(load: &Load, runs: impl Iterator<Item = &String>) -> Result<()> {
    let looks = stream::iter(runs.cloned()).map(|run| async move {
        until(FINISH, &format!("the end of {run}"), async || {
            let run = load.client.read_run(&run).await.ok()?;
            (!run["finished_at"].is_null()).then_some(())
        })
        .await
    });
    looks.buffer_unordered(16).try_collect().await
}

/// Reads every run once more, its events, and its key again.
async fn read_everything(load: &Load, promises: &std::collections::BTreeMap<String, String>) -> Result<()> {
    let reads = stream::iter(promises.clone()).map(|(key, run)| async move {
        let number: usize = key.trim_start_matches("key-").parse()?;
        let read = load.client.read_run(&run).await?;
        let output = json!({ "text": format!("done shaky run {number}"), "count": 3 });
        ensure!(read["state"] == "succeeded" && read["output"] == output, "{run} of {key} reads {read}");
        load.history.saw_events(&run, load.client.events(&run).await?);
        let again = load.client.submit("survivor", &json!({ "text": format!("run {number}") }), &key).await;
        ensure!(again == Submission::Accepted(run.clone()), "{key} gave {run}, and then {again:?}");
        Ok(())
    });
    reads.buffer_unordered(16).try_collect().await
}
