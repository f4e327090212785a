//! Nodes with some of the roles: who serves runs, who answers clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::nodes::{Nodes, SHARDS, define, nodes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_decide_who_serves_runs_and_who_answers_clients() -> Result<()> {
    let test = "roles_decide_who_serves_runs_and_who_answers_clients";
    let Some(mut cluster) = Nodes::begin(test).await? else { return Ok(()) };
    let role = |roles: &'static str| {
        move |settings: motet_tests::node::NodeSettings| {
            settings.with("MOTET__CLUSTER__ROLES", roles).with("MOTET__CLUSTER__LABELS", "zone=b")
        }
    };
    cluster.add("front", role("api")).await?;
    cluster.add("back", role("runs,models,vectors")).await?;
    cluster.until_everybody_serves(1).await?;
    let front =
        cluster.until_seen(0, "the front has told what it is", "front", |node| node["state"] == "alive").await?;
    ensure!(front["roles"] == json!(["api"]) && front["labels"] == json!({"zone": "b"}), "{front}");
    ensure!(front["shards"] == 0, "{front}");
    define(&cluster).await?;
    let done = cluster.client(0).run("hello", &json!({"name": "Ada"}), Duration::from_secs(10)).await?;
    ensure!(done["output"] == "Hello, Ada!", "{done}");
    let refused = cluster.client(1).get("/api/v1/runs").await?.expect(404)?;
    ensure!(refused.body["detail"].as_str().is_some_and(|words| words.contains("'api'")), "{}", refused.body);
    let view = cluster.seen_by(1).await?;
    let back = nodes(&view).iter().find(|node| node["name"] == "back").cloned().unwrap_or_default();
    ensure!(back["shards"] == SHARDS && view["version_skew"] == false, "{view}");
    Ok(())
}
