//! Any node answers for all; a node that drains gives its work away and goes on answering.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::nodes::{Nodes, SHARDS, ask, define, motet, nodes};

const WAIT: Duration = Duration::from_secs(10);

/// Runs of one workflow that are asked for through one node and steered through others.
const RUNS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_api_from_any_node() -> Result<()> {
    let Some(cluster) = Nodes::of("one_api_from_any_node", 3).await? else { return Ok(()) };
    define(&cluster).await?;
    for number in 0..3 {
        let done = cluster.client(number).run("hello", &json!({"name": "Ada"}), WAIT).await?;
        ensure!(done["output"] == "Hello, Ada!", "{done}");
    }
    // Enough of them that every node serves some, so that asking and answering cross.
    let mut runs = vec![];
    for number in 0..RUNS {
        runs.push(ask(&cluster.client(number % 3)).await?);
    }
    for (number, run) in runs.iter().enumerate() {
        let other = cluster.client((number + 1) % 3);
        other.post(&format!("/api/v1/runs/{run}/signals/answer"), &json!({"number": number})).await?.expect(202)?;
        let third = cluster.client((number + 2) % 3);
        let done = motet_tests::waiting::until(WAIT, "the run ends", async || {
            let run = third.read_run(run).await.ok()?;
            (run["state"] == "succeeded").then_some(run)
        });
        ensure!(done.await?["output"]["number"] == number, "{run}");
    }
    // A refusal is the same from everywhere as well.
    for (number, run) in runs.iter().enumerate().take(3) {
        let path = format!("/api/v1/runs/{run}/cancel");
        cluster.client((number + 1) % 3).post(&path, &json!({})).await?.expect(409)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_gives_its_shards_away_and_goes_on_answering() -> Result<()> {
    let test = "a_node_that_drains_gives_its_shards_away_and_goes_on_answering";
    let Some(cluster) = Nodes::of(test, 3).await? else { return Ok(()) };
    define(&cluster).await?;
    let mut runs = vec![];
    for number in 0..RUNS {
        runs.push(ask(&cluster.client(number % 3)).await?);
    }
    // Asked through another node than the one that is meant.
    let drained = motet(&cluster.nodes[0], &["drain", "node-2"])?;
    let words = String::from_utf8_lossy(&drained.stdout);
    ensure!(drained.status.success() && words.contains("may be stopped"), "{drained:?}");
    let there = cluster.until_seen(1, "the other nodes hear that it drains", "node-2", |node| {
        node["draining"] == true && node["shards"] == 0
    });
    there.await?;
    let shown = motet(&cluster.nodes[1], &["cluster"])?;
    ensure!(String::from_utf8_lossy(&shown.stdout).contains("draining"), "{shown:?}");
    // It answers as before, for runs that it once served too.
    let through = cluster.client(2);
    ensure!(through.run("hello", &json!({"name": "Bo"}), WAIT).await?["output"] == "Hello, Bo!");
    for run in &runs {
        through.post(&format!("/api/v1/runs/{run}/signals/answer"), &json!(1)).await?.expect(202)?;
    }
    // The last two may not both go, and what is unknown cannot.
    let client = cluster.client(2);
    client.post("/api/v1/nodes/node-0/drain", &json!({})).await?.expect(202)?;
    let seen = cluster.until_seen(1, "node-0 drains", "node-0", |node| node["draining"] == true);
    seen.await?;
    let refused = cluster.client(1).post("/api/v1/nodes/node-1/drain", &json!({})).await?.expect(409)?;
    ensure!(refused.body["code"] == "last_node", "{}", refused.body);
    client.post("/api/v1/nodes/nobody/drain", &json!({})).await?.expect(404)?;
    client.post("/api/v1/nodes/node-1/drain", &json!({"drian": true})).await?.expect(422)?;
    // And back.
    for name in ["node-0", "node-2"] {
        let undone = motet(&cluster.nodes[1], &["drain", name, "--undo"])?;
        ensure!(undone.status.success(), "{undone:?}");
    }
    cluster.until_everybody_serves(3).await?;
    let view = cluster.seen_by(0).await?;
    // Whoever comes back gets a fair share and no more.
    let most = nodes(&view).iter().filter_map(|node| node["shards"].as_u64()).max().unwrap_or_default();
    ensure!(most <= (SHARDS / 3) * 11 / 10 + 1, "{view}");
    Ok(())
}
