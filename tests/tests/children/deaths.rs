//! What it costs when the process of a model dies, hangs, grows or is unloaded.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use motet_tests::node::{Node, NodeSettings};
use motet_tests::scale::Scale;
use motet_tests::waiting::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{interpreter, object, process_of};

const PATIENCE: Duration = Duration::from_secs(90);

/// Runs that are under way at one time while processes are killed.
const CALLERS: usize = 8;

/// Longest time from a death to the next answer, as most deaths must go.
const RECOVERY: Duration = Duration::from_secs(2);

const WORKFLOW: &str = r#"
kind: Workflow
name: ask
steps:
  ask: {call: model, model: mortal, with: {text: "${ input.text }"}, timeout: 60s}
output: {told: "${ steps.ask.output.told }"}
"#;

/// A node with the model that dies of some texts.
async fn stage(folder: &Path, python: &Path, rest: &str) -> Result<Node> {
    let node = Node::start(NodeSettings::new(folder.join("data"))).await?;
    let client = node.client().with_patience(PATIENCE);
    client.put_definition("models", "mortal", &object(python, "mortal", "text", rest)).await?;
    client.put_definition("models", "other", "kind: Model\nname: other\nbackend: fake\n").await?;
    client.put_definition("workflows", "ask", WORKFLOW).await?;
    infer(&node, "mortal", "ready").await?;
    Ok(node)
}

async fn infer(node: &Node, model: &str, text: &str) -> Result<Value> {
    let reply = node.client().with_patience(PATIENCE);
    Ok(reply.post(&format!("/api/v1/models/{model}/infer"), &json!({"with": {"text": text}})).await?.expect(200)?.body)
}

async fn ask(node: &Node, text: &str) -> Result<Value> {
    node.client().with_patience(PATIENCE).run("ask", &json!({"text": text}), PATIENCE).await
}

#[tokio::test]
async fn a_text_that_crashes_the_process_fails_alone() -> Result<()> {
    let Some(python) = interpreter("a_text_that_crashes_the_process_fails_alone").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut node = stage(folder.path(), &python, "batch: {max: 16, window: 300ms}\n").await?;
    let texts = ["one", "two", "segfault", "three", "four", "wrong", "five"];
    let runs = futures::future::try_join_all(texts.map(|text| ask(&node, text))).await?;
    for (text, run) in texts.iter().zip(runs) {
        let words = run["error"].to_string();
        match *text {
            "segfault" => {
                ensure!(run["state"] == "failed" && words.contains("crashed"), "{run:#}");
                ensure!(words.contains("signal 11") && words.contains("died 3 times"), "{run:#}");
            }
            "wrong" => {
                ensure!(run["state"] == "failed" && words.contains("invalid"), "{run:#}");
                ensure!(words.contains("ValueError: this text is wrong (objects.py, line"), "{run:#}");
            }
            other => ensure!(run["output"]["told"] == other.to_uppercase(), "{run:#}\n{}", node.log_tail()),
        }
    }
    node.check_running()
}

#[tokio::test]
async fn a_process_that_hangs_or_grows_is_ended_and_the_next_call_answered() -> Result<()> {
    let Some(python) = interpreter("a_process_that_hangs_or_grows_is_ended").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let yaml = "timeout: 2s\n";
    let mut node = stage(folder.path(), &python, yaml).await?;
    let client = node.client().with_patience(PATIENCE);
    let hung = client.post("/api/v1/models/mortal/infer", &json!({"with": {"text": "hang"}})).await?;
    ensure!(hung.status == 504, "{:#}", hung.body);
    infer(&node, "mortal", "after").await?;
    let small = object(&python, "mortal", "text", "version: '2'\n")
        .replace("\n  outputs", "\n  memory_bytes: 268435456\n  outputs");
    client.put_definition("models", "mortal", &small).await?;
    let grown = ask(&node, "grow").await?;
    let words = grown["error"].to_string();
    ensure!(grown["state"] == "failed" && words.contains("may have 256"), "{grown:#}");
    infer(&node, "mortal", "after").await?;
    node.check_running()
}

#[tokio::test]
async fn no_run_fails_because_somebody_kills_the_process() -> Result<()> {
    let Some(python) = interpreter("no_run_fails_because_somebody_kills_the_process").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut node = stage(folder.path(), &python, "batch: {max: 8}\n").await?;
    let kills = Scale::from_environment().pick(5, 50, 500);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, stop, answered) =
                (node.client().with_patience(PATIENCE), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let text = format!("slow {caller} {turn}");
                    let run = client.run("ask", &json!({"text": text}), PATIENCE).await?;
                    ensure!(run["output"]["told"] == text.to_uppercase(), "{run:#}");
                    let other = client.post("/api/v1/models/other/infer", &json!({"with": {"text": "x"}})).await?;
                    ensure!(other.status == 200, "the other model noticed: {:#}", other.body);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let mut recoveries = vec![];
    for kill in 0..kills {
        let before = answered.load(Ordering::Relaxed);
        let moved = async || (answered.load(Ordering::Relaxed) >= before + 10).then_some(());
        until(PATIENCE, "answers between two kills", moved)
            .await
            .context("before a kill")
            .with_context(|| node.log_tail())?;
        let process = process_of(node.pid().context("no node")?, "mortal").context("the model has no process")?;
        let begun = Instant::now();
        kill_process(Pid::from_raw(process.try_into()?).context("no process")?, Signal::KILL)?;
        infer(&node, "mortal", &format!("after {kill}")).await?;
        recoveries.push(begun.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await??;
    }
    recoveries.sort();
    let (median, worst) = (recoveries[recoveries.len() / 2], recoveries[recoveries.len() - 1]);
    println!(
        "{kills} kills, {} runs; next answer after {median:?} (median), {worst:?} (worst)",
        answered.load(Ordering::Relaxed)
    );
    ensure!(median < RECOVERY, "the next answer came after {median:?}");
    let ends = node.client().metric("motet_model_process_ends_total").await?;
    ensure!(ends >= f64::from(kills), "{ends} deaths were counted of {kills}");
    node.check_running()
}

#[tokio::test]
async fn unloading_tensorflow_gives_the_memory_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    let client = node.client().with_patience(PATIENCE);
    client.put_definition("models", "guesslang", super::parity::GUESSLANG).await?;
    let pid = node.pid().context("no node")?;
    let mut resident = vec![];
    for _ in 0..20 {
        client.post("/v2/repository/models/guesslang/load", &json!({})).await?.expect(200)?;
        let call = json!({"with": {"inputs": ["print('hello')"]}});
        client.post("/api/v1/models/guesslang/infer", &call).await?.expect(200)?;
        ensure!(process_of(pid, "guesslang").is_some(), "the model has no process of its own");
        client.post("/v2/repository/models/guesslang/unload", &json!({})).await?.expect(200)?;
        let gone = async || process_of(pid, "guesslang").is_none().then_some(());
        until(PATIENCE, "the end of the process", gone).await?;
        resident.push(node.resident_bytes()?);
    }
    // The first rounds make what stays: buffers, pools, the journal's pages.
    let (early, late) = (resident[2], resident[19]);
    println!("resident after each round: {:?} MiB", resident.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>());
    let Some(grown) = late.checked_sub(early) else { return node.check_running() };
    if grown * 20 > early {
        bail!("{early} bytes after 3 rounds, {late} after 20: {resident:?}");
    }
    node.check_running()
}
