//! The work that runs are measured with: three steps in sequence, each returning 128 bytes.
//!
//! Used by `durable_runs` and, for the Motet side, by `peers`.

use std::net::SocketAddr;

use anyhow::Result;
use motet_tests::client::Client;

use crate::load::Work;

/// Bytes that a step returns.
pub const OUTPUT_BYTES: usize = 128;

const MODEL: &str =
    "kind: Model\nname: writer\nbackend: fake\nbatch: {max: 256}\nqueue: 4096\nparameters: {output_bytes: 128}\n";
const WORKFLOW: &str = r#"
kind: Workflow
name: three
version: "1"
steps:
  one: {call: model, model: writer, with: {text: "${ input.text }"}}
  two: {call: model, model: writer, with: {text: "${ steps.one.output.text }"}}
  three: {call: model, model: writer, with: {text: "${ steps.two.output.text }"}}
output: {text: "${ steps.three.output.text }"}
"#;

/// Gives a node the workflow whose steps are model calls within the process.
///
/// # Errors
/// When a definition is not taken.
pub async fn define(client: &Client) -> Result<()> {
    client.put_definition("models", "writer", MODEL).await?;
    client.put_definition("workflows", "three", WORKFLOW).await?;
    Ok(())
}

/// The workflow `three` whose steps call the HTTP server at `url`.
#[must_use]
pub fn calling(url: &str) -> String {
    let step = |name: &str, body: &str| {
        format!("  {name}: {{call: http, with: {{method: POST, url: \"{url}\", body: \"${{ {body} }}\"}}}}\n")
    };
    let steps =
        [step("one", "input.text"), step("two", "steps.one.output.body"), step("three", "steps.two.output.body")];
    let output = "output: {text: \"${ steps.three.output.body }\"}\n";
    format!("kind: Workflow\nname: three\nversion: \"1\"\nsteps:\n{}{output}", steps.concat())
}

/// Submits runs of `three` and waits for their ends.
#[must_use]
pub fn submit(http: SocketAddr) -> Work {
    Work {
        to: http,
        path: "/api/v1/workflows/three/runs?wait=30s".to_owned(),
        body: r#"{"input":{"text":"what the first step is asked"}}"#.to_owned(),
        good: "\"succeeded\"".to_owned(),
    }
}
