//! F13: the time of day jumps by an hour, forward and back: timers fire once, and nobody waits an hour for it. It is
//! the node's own; that of a database server stays what it was.

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

/// Runs that wait for a time that only a jump brings near, and runs that wait for a moment.
const WAITERS: usize = 12;

const HOUR_MS: i64 = 3_600_000;

/// The timers look at least every 30 s.
const FIRED: Duration = Duration::from_secs(50);

/// A wait of less than a second is over by then.
const SOON: Duration = Duration::from_secs(10);

const MODEL: &str = "kind: Model\nname: down\nbackend: fake\nparameters: {fail_every: 1}\n";

/// A workflow whose only call fails, waits up to `wait`, fails again and falls back.
fn workflow(name: &str, wait: &str) -> String {
    format!(
        r#"
kind: Workflow
name: {name}
version: "1"
steps:
  ask: {{call: model, model: down, with: {{text: "${{ input.text }}"}},
        retry: {{max_attempts: 2, backoff: {{initial: {wait}, factor: 1, max: {wait}}}}},
        fallback: {{output: {{text: gave up}}}}}}
output: {{text: "${{ steps.ask.output.text }}"}}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_the_time_of_day_jumps_sqlite() -> Result<()> {
    the_time_of_day_jumps(Backing::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_the_time_of_day_jumps_postgres() -> Result<()> {
    let server = tempfile::tempdir()?;
    match Backing::postgres("f13_the_time_of_day_jumps_postgres", server.path()).await? {
        Some(backing) => the_time_of_day_jumps(backing).await,
        None => Ok(()),
    }
}

async fn the_time_of_day_jumps(backing: Backing) -> Result<()> {
    let rounds = Scale::from_environment().pick(1, 2, 25);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let shim = Shim::new(&data, &folder.path().join("control"))?;
    let node = Node::start(shim.steer(backing.settings(&data))).await?;
    let client = node.client();
    let load = Load::begin(&node, rounds * 2 * RUNS, CLIENTS, &mut seed).await?;
    client.put_definition("models", "down", MODEL).await?;
    client.put_definition("workflows", "sleeper", &workflow("sleeper", "55m")).await?;
    client.put_definition("workflows", "napper", &workflow("napper", "900ms")).await?;
    let mut waiters = vec![];
    for round in 0..rounds {
        let sleepers = start(&client, "sleeper", round).await?;
        for (_, run) in &sleepers {
            until(FIRED, &format!("{run} to wait"), async || {
                (client.read_run(run).await.ok()?["state"] == "waiting").then_some(())
            })
            .await?;
        }
        load.allow(RUNS);
        let_pass(Duration::from_millis(seed.between(20, 200))).await;
        // An hour more than it ever was: a clock that was set back goes on slowly, and is not set forward by less.
        let hours = i64::try_from(round)?;
        shim.shift_clock((hours + 1) * HOUR_MS)?;
        for (_, run) in &sleepers {
            fired_once(&client, run, FIRED).await?;
        }
        load.until_promised((2 * round + 1) * RUNS).await?;
        load.allow(RUNS);
        // Waits of less than a second are under way when the clock goes back by an hour.
        let nappers = start(&client, "napper", round).await?;
        let_pass(Duration::from_millis(seed.between(20, 100))).await;
        shim.shift_clock(hours * HOUR_MS)?;
        for (_, run) in &nappers {
            fired_once(&client, run, SOON).await?;
        }
        load.until_promised((2 * round + 2) * RUNS).await?;
        waiters.extend(sleepers.into_iter().chain(nappers));
    }
    load.extend(waiters);
    let tally = load.prove(node, &backing).await?;
    super::report("F13", &format!("{} jumps by an hour", 2 * rounds), &tally);
    Ok(())
}

/// Starts runs that fail once and then wait; returns them by key.
async fn start(client: &Client, workflow: &str, round: usize) -> Result<Vec<(String, String)>> {
    let mut waiters = vec![];
    for number in 0..WAITERS {
        let key = format!("{workflow}-{round}-{number}");
        match client.submit(workflow, &json!({ "text": "wake me" }), &key).await {
            Submission::Accepted(run) => waiters.push((key, run)),
            other => anyhow::bail!("{key}: {other:?}"),
        }
    }
    Ok(waiters)
}

/// The run's retry came, and came once.
async fn fired_once(client: &Client, run: &str, within: Duration) -> Result<()> {
    let read: Value = until(within, &format!("the end of {run}"), async || {
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
