//! What a model in a process of its own can do, and what it cannot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use serde_json::{Value, json};

use super::{interpreter, object, objects};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the curious model tries, and how it must go.
const EXPECTED: [(&str, &str); 9] = [
    ("read a file of the system", "PermissionError"),
    ("read its own code", "did \"\"\"What t"),
    ("read the secrets of the node", "PermissionError"),
    ("write beside the weights", "PermissionError"),
    ("reach the network", "PermissionError"),
    ("run a shell", "PermissionError"),
    ("end the node", "PermissionError"),
    ("take 16 GiB", "MemoryError"),
    ("see the node's environment", "KeyError"),
];

#[tokio::test]
async fn a_model_reaches_nothing_but_its_own_files() -> Result<()> {
    let Some(python) = interpreter("a_model_reaches_nothing_but_its_own_files").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let settings = NodeSettings::new(folder.path().join("data")).with("MOTET_TEST_SECRET", "hidden");
    let mut node = Node::start(settings).await?;
    let client = node.client().with_patience(PATIENCE);
    client.put_definition("models", "curious", &object(&python, "curious", "action", "isolation: required\n")).await?;
    let actions: Vec<_> = EXPECTED.iter().map(|(action, _)| *action).collect();
    let answer = client.post("/api/v1/models/curious/infer", &json!({"with": {"action": actions}})).await?;
    let answer = answer.expect(200)?.body;
    let told: BTreeMap<&str, &str> = actions
        .iter()
        .zip(answer["output"]["told"].as_array().unwrap())
        .map(|(a, t)| (*a, t.as_str().unwrap()))
        .collect();
    let expected: BTreeMap<&str, &str> = EXPECTED.into_iter().collect();
    ensure!(told == expected, "{told:#?}");
    ensure!(!objects().join("mark").exists(), "the model wrote a file");
    let shown = client.get("/api/v1/models/curious").await?.expect(200)?.body;
    let layers = shown["signature"]["facts"].get("isolation").and_then(Value::as_object).cloned().unwrap_or_default();
    ensure!(layers.len() >= 6 && layers.values().all(|layer| layer == "holds"), "{shown:#}");
    node.check_running()
}

#[tokio::test]
async fn required_isolation_refuses_a_machine_without_it() -> Result<()> {
    let Some(python) = interpreter("required_isolation_refuses_a_machine_without_it").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    // A node that may not make namespaces, as in many containers.
    let settings = NodeSettings::new(folder.path().join("data")).without_namespaces();
    let mut node = Node::start(settings).await?;
    let client = node.client().with_patience(PATIENCE);
    let call = json!({"with": {"action": ["read its own code"]}});
    client.put_definition("models", "curious", &object(&python, "curious", "action", "isolation: required\n")).await?;
    let refused = client.post("/api/v1/models/curious/infer", &call).await?.expect(503)?.body;
    let words = refused["detail"].as_str().unwrap_or_default();
    ensure!(words.contains("isolation is required") && words.contains("namespaces"), "{refused:#}");
    let lax = object(&python, "curious", "action", "version: '2'\n");
    client.put_definition("models", "curious", &lax).await?;
    client.post("/api/v1/models/curious/infer", &call).await?.expect(200)?;
    let shown = client.get("/api/v1/models/curious").await?.expect(200)?.body;
    let layers = shown["signature"]["facts"].get("isolation").cloned().unwrap_or_default();
    ensure!(layers["namespaces"].as_str().is_some_and(|told| told.starts_with("does not hold")), "{shown:#}");
    ensure!(layers["landlock"] == "holds" && layers["seccomp"] == "holds", "{shown:#}");
    node.check_running()
}
