//! C4: the other nodes cannot reach one of three any more, in turn and in either direction, while all of them reach
//! the database: nobody is evicted, no shard moves, and what is steered across happens once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_tests::client::{Client, Submission};
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::faults::proxy::{Direction, Rule};
use motet_tests::past::now;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};
use reqwest::Method;
use serde_json::json;

use super::{Cluster, NODES, SHARDS, TAKEN_OVER, owner};

/// Ends when it has heard all of its signals.
const SITTER: &str = r#"
kind: Workflow
name: sitter
version: "1"
steps:
  before: {call: signal, with: {}}
  across: {call: signal, with: {}}
  beside: {call: signal, with: {}}
  after: {call: signal, with: {}}
output: {heard: 4}
"#;

/// Cuts one node after the other off from the rest.
pub(super) async fn in_turn(cluster: &mut Cluster, load: &Load, scale: Scale, seed: &mut Seed) -> Result<String> {
    let cuts = scale.pick(2, 10, 100);
    let held = Duration::from_secs(scale.pick(4, 15, 15));
    cluster.nodes[0].client().put_definition("workflows", "sitter", SITTER).await?;
    for cut in 0..cuts {
        let victim = cut % NODES;
        let direction = if cut % 2 == 0 { Direction::There } else { Direction::Back };
        let in_flight = load.until_in_flight(Crowd::of(scale).in_flight).await?;
        let owners = cluster.until_balanced().await?;
        let (peer, own) = (client(cluster, victim + 1), client(cluster, victim));
        let run = sit_on(cluster, load, victim, &format!("sitter-{cut}")).await?;
        heard(&peer, &run, "before").await?;
        let_pass(Duration::from_millis(seed.between(50, 300))).await;
        let from = now()?;
        cluster.links[victim].set(direction, Rule { stalled: true, ..Rule::default() });
        ensure!(!signal(&peer, &run, "across").await, "what could not get there was acknowledged");
        heard(&own, &run, "beside").await?;
        let_pass(held).await;
        ensure!(cluster.rows().await? == owners, "a shard has moved though every node lives");
        cluster.quiet.push((from, now()?));
        cluster.links[victim].set(direction, Rule::default());
        heard(&peer, &run, "across").await.with_context(|| cluster.nodes[(victim + 1) % NODES].log_tail())?;
        heard(&peer, &run, "after").await?;
        let events = until(TAKEN_OVER, "the end of the run", async || {
            let read = own.read_run(&run).await.ok()?;
            if read["finished_at"].is_null() { None } else { own.events(&run).await.ok() }
        })
        .await?;
        let signals = events.iter().filter(|event| event["type"] == "signal_received").count();
        ensure!(signals == 4, "{run} was sent four signals and heard {signals}: {events:?}");
        println!("cut {cut} of node-{victim} from the others, {direction:?}: {in_flight} in flight, nothing moved");
    }
    Ok(format!("{cuts} partitions of {held:?} between nodes"))
}

fn client(cluster: &Cluster, node: usize) -> Client {
    cluster.clients().swap_remove(node % NODES)
}

/// Starts a run that waits for signals on a shard of this node.
async fn sit_on(cluster: &Cluster, load: &Load, node: usize, key: &str) -> Result<String> {
    let Submission::Accepted(run) = client(cluster, node).submit("sitter", &json!({}), key).await else {
        anyhow::bail!("{key} was not taken");
    };
    load.extend([(key.to_owned(), run.clone())]);
    let shard = usize::from(run.parse::<motet_engine::id::RunId>()?.shard().0 % SHARDS);
    let rows = cluster.rows().await?;
    ensure!(owner(&rows[shard]) == Some(&super::name(node)), "a node takes runs on its own shards, and {run} is not");
    Ok(run)
}

/// Sends a signal until it is acknowledged.
async fn heard(client: &Client, run: &str, name: &str) -> Result<()> {
    until(TAKEN_OVER * 2, "an answer to a signal", async || signal(client, run, name).await.then_some(())).await
}

/// Sends a signal once; whether it was acknowledged. Under the same key, so that it counts once.
async fn signal(client: &Client, run: &str, name: &str) -> bool {
    let path = format!("/api/v1/runs/{run}/signals/{name}");
    let request = client.request(Method::POST, &path).header("idempotency-key", format!("{run}-{name}"));
    client.send(request.json(&json!({}))).await.is_ok_and(|reply| reply.status == 202)
}
