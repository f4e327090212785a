//! Several nodes of the release binary over one PostgreSQL, each with default settings.
//!
//! Used by the benches of a cluster.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_tests::node::{self, Node, NodeSettings};
use motet_tests::ports::free_address;
use motet_tests::waiting::until;

use crate::peers;
use crate::peers::postgres::Postgres;

/// Shards of all runs: the default.
pub const SHARDS: u64 = 64;

/// Longest time until every node serves its share.
const SPREAD: Duration = Duration::from_secs(60);

/// A database and the nodes on it.
pub struct Nodes {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The database server, as `initdb` makes it.
    pub server: Postgres,
    folder: tempfile::TempDir,
}

impl Nodes {
    /// A server with an empty schema, and no node yet.
    ///
    /// # Errors
    /// When the server does not start or the schema cannot be made.
    pub async fn begin() -> Result<Self> {
        let folder = tempfile::tempdir_in(peers::ground())?;
        // The server's user has to get through.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let server = Postgres::start(folder.path()).await?;
        node::migrate(&server.url("postgres"))?;
        Ok(Self { nodes: vec![], server, folder })
    }

    /// Where the database is.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url("postgres")
    }

    /// Where the nodes' APIs are.
    #[must_use]
    pub fn http(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::http).collect()
    }

    /// Starts so many nodes and waits until each serves its share and nothing is on its way.
    ///
    /// # Errors
    /// When a node does not start, or shares are not spread in time.
    pub async fn start(&mut self, count: usize) -> Result<()> {
        for number in self.nodes.len()..count {
            let name = format!("node-{number}");
            let settings = NodeSettings::new(self.folder.path().join(&name))
                .with("MOTET__STORE__URL", &self.url())
                .with("MOTET__NODE__NAME", &name)
                .with("MOTET__CLUSTER__ADDRESS", &free_address().to_string())
                .with("MOTET__LOG__FILTER", "warn");
            self.nodes.push(Node::start(settings).await?);
        }
        let client = self.nodes.first().context("no node")?.client();
        until(SPREAD, "every node serves its share", async || {
            let view = client.get("/api/v1/cluster").await.ok()?.body;
            let shares: Vec<_> = view["nodes"].as_array()?.iter().filter_map(|node| node["shards"].as_u64()).collect();
            let fair = SHARDS / count as u64;
            let spread = shares.len() == count && shares.iter().all(|share| *share + 2 >= fair * 9 / 10);
            (spread && shares.iter().sum::<u64>() == SHARDS && view["shards"]["moving"] == 0).then_some(())
        })
        .await
    }

    /// Ends the nodes cleanly; the database stays.
    ///
    /// # Errors
    /// When a node does not end well.
    pub async fn stop_nodes(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            ensure!(node.stop().await?.success(), "{}", node.log_tail());
        }
        Ok(())
    }
}
