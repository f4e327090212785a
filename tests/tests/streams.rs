//! Streams against the real binary and a real Kafka: records become durable runs, each once, and results come back.
//!
//! What concerns one node is tried on SQLite with the broker that tests share; what kills brokers or needs several
//! nodes has services of its own. `make test-full` does the counts that a change must pass.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

#[path = "streams/away.rs"]
mod away;
#[path = "streams/everyday.rs"]
mod everyday;
#[path = "streams/exactly_once.rs"]
mod exactly_once;
#[path = "streams/feed.rs"]
mod feed;
#[path = "streams/poison.rs"]
mod poison;
#[path = "streams/proof.rs"]
mod proof;
#[path = "streams/same.rs"]
mod same;
#[path = "streams/secured.rs"]
mod secured;

use std::time::Duration;

use anyhow::{Context, Result};
use motet_broker::contract::service;
use motet_tests::client::Client;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::topics::Topics;
use motet_tests::waiting::until;
use serde_json::Value;

/// Longest wait for what a node does by itself within a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node on SQLite beside the broker that tests share.
struct Stage {
    node: Node,
    topics: Topics,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// None, loudly, where there is no broker.
    async fn new(test: &str) -> Result<Option<Self>> {
        Self::with(test, |settings| settings).await
    }

    async fn with(test: &str, change: impl FnOnce(NodeSettings) -> NodeSettings) -> Result<Option<Self>> {
        let Some(brokers) = service(test, "MOTET_TEST_KAFKA") else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let settings = NodeSettings::new(folder.path().join("data")).with("MOTET__KAFKA__BROKERS", &brokers);
        let node = Node::start(change(settings)).await?;
        Ok(Some(Self { node, topics: Topics::at(&brokers).await?, _folder: folder }))
    }

    fn client(&self) -> Client {
        self.node.client()
    }
}

/// The partitions of a stream, as a node shows them.
async fn partitions(client: &Client, stream: &str) -> Result<Vec<Value>> {
    let mut view = client.get(&format!("/api/v1/streams/{stream}/partitions")).await?.expect(200)?.body;
    let Value::Array(partitions) = view["partitions"].take() else { anyhow::bail!("no partitions in {view}") };
    Ok(partitions)
}

/// Waits until all of so many partitions are as they should be; the last look at them.
async fn until_partitions(
    node: &Node,
    stream: &str,
    count: usize,
    what: &str,
    fit: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>> {
    let (client, mut last) = (node.client(), vec![]);
    let looked = until(PATIENCE, what, async || {
        last = partitions(&client, stream).await.ok()?;
        (last.len() == count && last.iter().all(&fit)).then_some(())
    });
    looked.await.with_context(|| format!("{}\n{last:#?}", node.log_tail()))?;
    Ok(last)
}

/// How many runs of a workflow are in a state; all of them where none is named. At most five hundred.
async fn count_runs(client: &Client, workflow: &str, state: &str) -> Result<usize> {
    let state = if state.is_empty() { String::new() } else { format!("&state={state}") };
    let path = format!("/api/v1/runs?workflow={workflow}&limit=500{state}");
    let view = client.get(&path).await?.expect(200)?.body;
    view["runs"].as_array().map(Vec::len).context("no runs")
}

/// Waits until so many runs of a workflow are in a state.
async fn until_runs(node: &Node, workflow: &str, state: &str, count: usize) -> Result<()> {
    let (client, mut last) = (node.client(), 0);
    let looked = until(PATIENCE, "the runs of the records", async || {
        last = count_runs(&client, workflow, state).await.ok()?;
        (last == count).then_some(())
    });
    looked.await.with_context(|| format!("{last} of {count} are '{state}'\n{}", node.log_tail()))
}
