//! F17: three times as many submissions as the node can carry out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motet_tests::client::Client;
use motet_tests::faults::backing::Backing;
use motet_tests::history::History;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::waiting::until;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

/// Batches take 50 ms each, so the node carries out 20 a second whatever the machine is: 160 runs.
const MODEL: &str = "kind: Model\nname: slow\nbackend: fake\nbatch: {max: 8}\nparameters: {latency_ms: 50}\n";
const WORKFLOW: &str = r#"
kind: Workflow
name: heavy
version: "1"
steps:
  say: {call: model, model: slow, with: {text: "${ input.text }"}, retry: {max_attempts: 20}}
output: {text: "${ steps.say.output.text }"}
"#;

/// Submissions per second: three times what the model can do.
const RATE: u64 = 3 * 8 * 20;

/// Unfinished runs that the node takes.
const UNFINISHED: u64 = 400;

/// Requests that wait for their answers at one time.
const OUTSTANDING: usize = 256;

/// By how much the process may grow: 400 runs of some kilobytes, and buffers.
const GROWTH_BYTES: u64 = 192 << 20;

/// Runs from which the usual latency is taken.
const CALM_RUNS: usize = 40;

/// Time after the overload within which latency is what it was.
const RECOVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Answers {
    taken: AtomicU64,
    refused: AtomicU64,
    /// Refusals that did not say when to try again.
    silent: AtomicU64,
    other: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_overloaded_it_refuses_and_recovers_sqlite() -> Result<()> {
    overloaded(Backing::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_overloaded_it_refuses_and_recovers_postgres() -> Result<()> {
    let server = tempfile::tempdir()?;
    match Backing::postgres("f17_overloaded_it_refuses_and_recovers_postgres", server.path()).await? {
        Some(backing) => overloaded(backing).await,
        None => Ok(()),
    }
}

async fn overloaded(backing: Backing) -> Result<()> {
    let span = Duration::from_secs(Scale::from_environment().pick(8, 60, 600));
    let folder = tempfile::tempdir()?;
    let settings = backing.settings(&folder.path().join("data"));
    let unfinished = UNFINISHED.to_string();
    let settings = settings.with("MOTET__RUNS__MAX_UNFINISHED", &unfinished).with("MOTET__RUNS__MAX_LIVE", &unfinished);
    let mut node = Node::start(settings.with("MOTET__HTTP__MAX_IN_FLIGHT", "64")).await?;
    let client = node.client();
    client.put_definition("models", "slow", MODEL).await?;
    client.put_definition("workflows", "heavy", WORKFLOW).await?;
    let history = Arc::new(History::new());
    let calm = slowest(&client, &history, "calm").await?;
    let (small, answers) = (node.resident_bytes()?, Arc::new(Answers::default()));
    let largest = storm(&node, &history, &answers, span).await?;
    let (taken, refused) = (answers.taken.load(Ordering::SeqCst), answers.refused.load(Ordering::SeqCst));
    println!("F17: {taken} taken, {refused} refused in {span:?}; {} MiB became {} MiB", small >> 20, largest >> 20);
    ensure!(refused > taken / 2, "it was not overloaded: {taken} taken, {refused} refused");
    ensure!(answers.silent.load(Ordering::SeqCst) == 0, "some refusals had no Retry-After");
    ensure!(answers.other.load(Ordering::SeqCst) == 0, "some answers were neither taken nor refused");
    ensure!(largest < small + GROWTH_BYTES, "{} MiB grew to {} MiB", small >> 20, largest >> 20);
    let ended = Instant::now();
    until(RECOVERY, "every run's end", async || {
        (client.metric("motet_runs_unfinished").await.ok()? == 0.0).then_some(())
    })
    .await?;
    let after = slowest(&client, &history, "after").await?;
    let recovered = ended.elapsed();
    ensure!(after < calm * 3 + Duration::from_millis(200), "{calm:?} became {after:?}");
    ensure!(recovered < RECOVERY, "it took {recovered:?}");
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    history.prove(&backing.read(node.data()).await?);
    println!("F17: slowest of {CALM_RUNS} calm runs {calm:?} before, {after:?} after, {recovered:?} later; lost 0");
    Ok(())
}

/// Submits at a steady rate whatever is answered, and tells the largest size of the process meanwhile.
async fn storm(node: &Node, history: &Arc<History>, answers: &Arc<Answers>, span: Duration) -> Result<u64> {
    let (client, places) = (node.client(), Arc::new(Semaphore::new(OUTSTANDING)));
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut largest, mut number) = (Instant::now(), 0, 0_u64);
    while begun.elapsed() < span {
        ticks.tick().await;
        largest = largest.max(node.resident_bytes()?);
        let due = u64::try_from(begun.elapsed().as_millis())? * RATE / 1_000;
        while number < due {
            number += 1;
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (client, history, answers) = (client.clone(), Arc::clone(history), Arc::clone(answers));
            tokio::spawn(async move {
                submit(&client, &history, &answers, &format!("storm-{number}")).await;
                drop(place);
            });
        }
    }
    // Every answer is in when every place is free again.
    let all = u32::try_from(OUTSTANDING)?;
    tokio::time::timeout(RECOVERY, places.acquire_many(all)).await.context("answers did not come")??.forget();
    Ok(largest)
}

async fn submit(client: &Client, history: &History, answers: &Answers, key: &str) {
    let request = client.request(Method::POST, "/api/v1/workflows/heavy/runs").header("idempotency-key", key);
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::SeqCst);
    match client.send(request.json(&json!({ "input": { "text": key } }))).await {
        Ok(reply) if reply.status.is_success() => {
            history.promised(key, reply.body["id"].as_str().unwrap_or_default());
            count(&answers.taken);
        }
        Ok(reply) if reply.status == 429 || reply.status == 503 => {
            count(&answers.refused);
            if !reply.headers.contains_key("retry-after") {
                count(&answers.silent);
            }
        }
        _ => {
            count(&answers.other);
        }
    }
}

/// The slowest of some runs that are waited for one after the other.
async fn slowest(client: &Client, history: &History, when: &str) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for number in 0..CALM_RUNS {
        let (key, begun) = (format!("{when}-{number}"), Instant::now());
        let path = "/api/v1/workflows/heavy/runs?wait=20s";
        let request = client.request(Method::POST, path).header("idempotency-key", &key);
        let reply = client.send(request.json(&json!({ "input": { "text": key } }))).await?.expect(200)?;
        slowest = slowest.max(begun.elapsed());
        history.promised(&key, reply.body["id"].as_str().context("no id")?);
    }
    Ok(slowest)
}
