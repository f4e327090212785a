//! Several nodes over one database of the test's own: started, looked at together, ended with the value.
//!
//! Makes no faults; a row that puts proxies between them has its own harness. Used by the suites about clusters and
//! about streams.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::client::Client;
use crate::faults::backing::Backing;
use crate::node::{Node, NodeSettings};
use crate::ports::free_address;
use crate::waiting::until;

/// Longest wait for what a cluster does by itself.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Shards of all runs.
pub const SHARDS: u64 = 24;

/// Nodes by name. They end with the value.
#[derive(Debug)]
pub struct Nodes {
    /// In the order in which they were added.
    pub nodes: Vec<Node>,
    /// Where each listens for the others.
    pub links: Vec<SocketAddr>,
    /// Holds their data folders.
    pub folder: tempfile::TempDir,
    backing: Backing,
    _server: tempfile::TempDir,
}

impl Nodes {
    /// A database and no node yet. None, loudly, where no PostgreSQL is installed.
    ///
    /// # Errors
    /// When the database does not start.
    pub async fn begin(test: &str) -> Result<Option<Self>> {
        let (server, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let Some(backing) = Backing::postgres(test, server.path()).await? else { return Ok(None) };
        Ok(Some(Self { nodes: vec![], links: vec![], folder, backing, _server: server }))
    }

    /// So many nodes with every role, of which each serves shards.
    ///
    /// # Errors
    /// When database or nodes do not start.
    pub async fn of(test: &str, count: usize) -> Result<Option<Self>> {
        let Some(mut nodes) = Self::begin(test).await? else { return Ok(None) };
        for number in 0..count {
            nodes.add(&format!("node-{number}"), |settings| settings).await?;
        }
        nodes.until_everybody_serves(count).await?;
        Ok(Some(nodes))
    }

    /// Starts one more node, with further settings.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add(&mut self, name: &str, change: impl FnOnce(NodeSettings) -> NodeSettings) -> Result<()> {
        let link = free_address();
        let settings = self
            .backing
            .settings(&self.folder.path().join(name))
            .with("MOTET__NODE__NAME", name)
            .with("MOTET__CLUSTER__ADDRESS", &link.to_string())
            .with("MOTET__RUNS__SHARDS", &SHARDS.to_string());
        self.nodes.push(Node::start(change(settings)).await?);
        self.links.push(link);
        Ok(())
    }

    /// The store behind all of them.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// A client of a node.
    #[must_use]
    pub fn client(&self, number: usize) -> Client {
        self.nodes[number].client()
    }

    /// The nodes together, as one of them sees them.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn seen_by(&self, number: usize) -> Result<Value> {
        Ok(self.client(number).get("/api/v1/cluster").await?.expect(200)?.body)
    }

    /// Waits until so many nodes serve all shards and nothing is on its way.
    ///
    /// # Errors
    /// When that does not come about; with the logs.
    pub async fn until_everybody_serves(&self, count: usize) -> Result<()> {
        let served = until(PATIENCE, "every node has shards", async || {
            let view = self.seen_by(0).await.ok()?;
            let shares: Vec<_> = nodes(&view)
                .iter()
                .map(|node| node["shards"].as_u64().unwrap_or(0))
                .filter(|share| *share > 0)
                .collect();
            (shares.len() == count && shares.iter().sum::<u64>() == SHARDS && view["shards"]["moving"] == 0)
                .then_some(())
        });
        served.await.with_context(|| self.logs())
    }

    /// Waits until a node that is asked sees something of another one.
    ///
    /// # Errors
    /// When it does not; with the logs.
    pub async fn until_seen(&self, by: usize, what: &str, of: &str, seen: impl Fn(&Value) -> bool) -> Result<Value> {
        let looked = until(PATIENCE, what, async || {
            let view = self.seen_by(by).await.ok()?;
            nodes(&view).iter().find(|node| node["name"] == of && seen(node)).cloned()
        });
        looked.await.with_context(|| self.logs())
    }

    /// The ends of all logs, for a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        self.nodes.iter().map(Node::log_tail).collect::<Vec<_>>().join("\n")
    }
}

/// The nodes of a view.
#[must_use]
pub fn nodes(view: &Value) -> &[Value] {
    view["nodes"].as_array().map_or(&[], Vec::as_slice)
}
