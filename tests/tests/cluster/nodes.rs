//! Several nodes over one database of the test's own.
//!
//! Used by the other files of this suite.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use motet_tests::client::Client;
use motet_tests::faults::backing::Backing;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::place;
use motet_tests::ports::free_address;
use motet_tests::waiting::until;
use serde_json::{Value, json};

/// Longest wait for what a cluster does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Shards of all runs.
pub(crate) const SHARDS: u64 = 24;

pub(crate) const MODEL: &str = "
kind: Model
name: echo
backend: fake
parameters: {latency_ms: 5}
";

/// One that ends by itself, and one that waits for a person.
pub(crate) const WORKFLOWS: [(&str, &str); 2] = [
    (
        "hello",
        "
kind: Workflow
name: hello
steps:
  greet: {call: model, model: echo, with: {text: 'Hello, ${ input.name }!'}}
output: '${ steps.greet.output.text }'
",
    ),
    (
        "asks",
        "
kind: Workflow
name: asks
steps:
  ask: {call: signal, signal: answer}
output: '${ steps.ask.output }'
",
    ),
];

/// Nodes by name. They end with the value.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<SocketAddr>,
    pub(crate) folder: tempfile::TempDir,
    backing: Backing,
    _server: tempfile::TempDir,
}

impl Nodes {
    /// None, loudly, where no PostgreSQL is installed.
    pub(crate) async fn begin(test: &str) -> Result<Option<Self>> {
        let (server, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let Some(backing) = Backing::postgres(test, server.path()).await? else { return Ok(None) };
        Ok(Some(Self { nodes: vec![], links: vec![], folder, backing, _server: server }))
    }

    /// So many nodes with every role, of which each serves shards.
    pub(crate) async fn of(test: &str, count: usize) -> Result<Option<Self>> {
        let Some(mut nodes) = Self::begin(test).await? else { return Ok(None) };
        for number in 0..count {
            nodes.add(&format!("node-{number}"), |settings| settings).await?;
        }
        nodes.until_everybody_serves(count).await?;
        Ok(Some(nodes))
    }

    /// Starts one more node.
    pub(crate) async fn add(&mut self, name: &str, change: impl FnOnce(NodeSettings) -> NodeSettings) -> Result<()> {
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

    pub(crate) fn client(&self, number: usize) -> Client {
        self.nodes[number].client()
    }

    /// Puts the model and the workflows through the first node.
    pub(crate) async fn define(&self) -> Result<()> {
        self.client(0).put_definition("models", "echo", MODEL).await?;
        for (name, text) in WORKFLOWS {
            self.client(0).put_definition("workflows", name, text).await?;
        }
        Ok(())
    }

    /// The nodes together, as one of them sees them.
    pub(crate) async fn seen_by(&self, number: usize) -> Result<Value> {
        Ok(self.client(number).get("/api/v1/cluster").await?.expect(200)?.body)
    }

    /// Waits until so many nodes serve all shards and nothing is on its way.
    pub(crate) async fn until_everybody_serves(&self, count: usize) -> Result<()> {
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
    pub(crate) async fn until_seen(
        &self,
        by: usize,
        what: &str,
        of: &str,
        seen: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let looked = until(PATIENCE, what, async || {
            let view = self.seen_by(by).await.ok()?;
            nodes(&view).iter().find(|node| node["name"] == of && seen(node)).cloned()
        });
        looked.await.with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(Node::log_tail).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn nodes(view: &Value) -> &[Value] {
    view["nodes"].as_array().map_or(&[], Vec::as_slice)
}

/// Runs a command of the binary against a node.
pub(crate) fn motet(node: &Node, arguments: &[&str]) -> Result<Output> {
    let server = format!("http://{}", node.http());
    Command::new(place::motet()).args(arguments).env("MOTET_SERVER", server).output().context("the binary cannot run")
}

/// Starts a run that waits for an answer; its id.
pub(crate) async fn ask(client: &Client) -> Result<String> {
    let begun = client.post("/api/v1/workflows/asks/runs", &json!({"input": {}})).await?.expect(202)?.body;
    Ok(begun["id"].as_str().context("no id")?.to_owned())
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}
