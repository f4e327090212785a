//! The smallest run: one step that the engine carries out itself, so that nothing but the run is measured.
//!
//! Used by the benches that show what else goes on beside many waiting runs.

use std::net::SocketAddr;

use anyhow::Result;
use motet_tests::client::Client;

use crate::load::Work;

const WORKFLOW: &str = "kind: Workflow\nname: short\nversion: \"1\"\nsteps:\n  only: {call: transform, with: {a: 1}}\n";

/// Gives a node the workflow.
///
/// # Errors
/// When it is not taken.
pub async fn define(client: &Client) -> Result<()> {
    client.put_definition("workflows", "short", WORKFLOW).await.map(drop)
}

/// Submits runs and waits for their ends.
#[must_use]
pub fn submit(http: SocketAddr) -> Work {
    Work {
        to: http,
        path: "/api/v1/workflows/short/runs?wait=30s".to_owned(),
        body: "{}".to_owned(),
        good: "\"succeeded\"".to_owned(),
    }
}
