//! F13: the time of day jumps by an hour, forward and back: timers fire once, and nobody waits an hour for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::client::{Client, Submission};
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::faults::shim::Shim;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};
use serde_json::{Value, json};

const CLIENTS: usize = 16;

/// Runs between two jumps; each has retries with waits of milliseconds under way.
const RUNS: usize = 100;

/// Runs that wait for a time that only a jump brings near.
const SLEEPERS: usize = 12;

const HOUR_MS: i64 = 3_600_000;

/// The timers look at least every 30 s.
const FIRED: Duration = Duration::from_secs(50);

const MODEL: &str = "kind: Model\nname: down\nbackend: fake\nparameters: {fail_every: 1}\n";
const WORKFLOW: &str = r#"
kind: Workflow
name: sleeper
version: "1"
steps:
  ask: {call: model, model: down, with: {text: "${ input.text }"},
        retry: {max_attempts: 2, backoff: {initial: 55m, factor: 1, max: 55m}}, fallback: {output: {text: gave up}}}
output: {text: "${ steps.ask.output.text }"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_the_time_of_day_jumps_sqlite() -> Result<()> {
    let rounds = Scale::from_environment().pick(1, 2, 25);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let shim = Shim::new(&data, &folder.path().join("control"))?;
    let node = Node::start(shim.steer(Backing::Sqlite.settings(&data))).await?;
    let client = node.client();
    let load = Load::begin(&node, rounds * 2 * RUNS, CLIENTS, &mut seed).await?;
    client.put_definition("models", "down", MODEL).await?;
    client.put_definition("workflows", "sleeper", WORKFLOW).await?;
    let mut sleepers = vec![];
    for round in 0..rounds {
        let fresh = put_to_sleep(&client, round).await?;
        load.allow(RUNS);
        let_pass(Duration::from_millis(seed.between(20, 200))).await;
        // An hour more than it ever was: a clock that was set back goes on slowly, and is not set forward by less.
        let hours = i64::try_from(round)?;
        shim.shift_clock((hours + 1) * HOUR_MS)?;
        for (_, run) in &fresh {
            fired_once(&client, run).await?;
        }
        load.until_promised((2 * round + 1) * RUNS).await?;
        load.allow(RUNS);
        let_pass(Duration::from_millis(seed.between(20, 200))).await;
        shim.shift_clock(hours * HOUR_MS)?;
        load.until_promised((2 * round + 2) * RUNS).await?;
        sleepers.extend(fresh);
    }
    load.extend(sleepers);
    let tally = load.prove(node, &Backing::Sqlite).await?;
    super::report("F13", &format!("{} jumps by an hour", 2 * rounds), &tally);
    Ok(())
}

/// Starts runs that fail once and then wait for most of an hour; returns them by key when all of them wait.
async fn put_to_sleep(client: &Client, round: usize) -> Result<Vec<(String, String)>> {
    let mut sleepers = vec![];
    for number in 0..SLEEPERS {
        let key = format!("sleeper-{round}-{number}");
        match client.submit("sleeper", &json!({ "text": "wake me" }), &key).await {
            Submission::Accepted(run) => sleepers.push((key, run)),
            other => anyhow::bail!("{key}: {other:?}"),
        }
    }
    for (_, run) in &sleepers {
        until(FIRED, &format!("{run} to wait"), async || {
            (client.read_run(run).await.ok()?["state"] == "waiting").then_some(())
        })
        .await?;
    }
    Ok(sleepers)
}

/// The run's retry came, and came once.
async fn fired_once(client: &Client, run: &str) -> Result<()> {
    let read: Value = until(FIRED, &format!("the end of {run}"), async || {
        let read = client.read_run(run).await.ok()?;
        (!read["finished_at"].is_null()).then_some(read)
    })
    .await?;
    ensure!(read["output"]["text"] == "gave up", "{run} reads {read}");
    let events = client.events(run).await?;
    let retries = events.iter().filter(|event| event["type"] == "call_retried").count();
    ensure!(retries == 1, "{run} was tried again {retries} times: {events:?}");
    Ok(())
}
