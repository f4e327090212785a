//! What the nodes of this suite do: their definitions, and commands of the binary against them.
//!
//! Used by the other files of this suite.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use motet_tests::client::Client;
use motet_tests::node::Node;
pub(crate) use motet_tests::nodes::{Nodes, PATIENCE, SHARDS, nodes};
use motet_tests::place;
use serde_json::json;

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

/// Puts the model and the workflows through the first node.
pub(crate) async fn define(nodes: &Nodes) -> Result<()> {
    nodes.client(0).put_definition("models", "echo", MODEL).await?;
    for (name, text) in WORKFLOWS {
        nodes.client(0).put_definition("workflows", name, text).await?;
    }
    Ok(())
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
