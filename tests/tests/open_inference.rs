//! Models called by clients of the Open Inference Protocol v2, against the real binary: the Python client of Triton over
//! HTTP and gRPC, on one node and on one that has no models itself.
//!
//! What is asked and expected stands in `open_inference/client.py`; each test here is one part of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motet_tests::client::Client;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::nodes::Nodes;
use motet_tests::python;
use motet_tests::skip::skip;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const PACKAGES: [&str; 2] = ["tritonclient[http,grpc]==2.73.0", "numpy>=2,<3"];

/// Longest time of one part.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time for a server without work to stop; far below the time that it would give work under way.
const STOPPED: Duration = Duration::from_secs(10);

const MODELS: [(&str, &str); 7] = [
    ("classifier", "backend: burn\nsource: builtin:support-desk\nbatch: {max: 64}"),
    ("echo", "backend: fake\nparameters: {dimension: 4}\nbatch: {max: 64, window: 100ms}"),
    ("slow", "backend: fake\nparameters: {latency_ms: 1000}\nqueue: 1"),
    ("late", "backend: fake\nparameters: {latency_ms: 1000}"),
    ("large", "backend: fake\nparameters: {output_bytes: 300000}"),
    ("failing", "backend: fake\nparameters: {fail_every: 1}"),
    ("broken", "backend: burn\nsource: {uri: 'file:/nowhere/at/all'}"),
];

async fn put_models(client: &Client) -> Result<()> {
    for (name, rest) in MODELS {
        client.put_definition("models", name, &format!("kind: Model\nname: {name}\nversion: '3'\n{rest}\n")).await?;
    }
    Ok(())
}

/// A part of the script against a node, ready to start. None, loudly, where the client cannot be installed.
async fn script(part: &str, surface: &str, node: &Node) -> Result<Option<Command>> {
    let packages = || python::environment("tritonclient", "tritonclient.http, tritonclient.grpc", &PACKAGES);
    let python = match tokio::task::spawn_blocking(packages).await? {
        Ok(python) => python,
        Err(reason) => {
            skip(part, &format!("the Python client cannot be installed: {reason}"));
            return Ok(None);
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/open_inference/client.py");
    let (http, grpc) = (node.http().to_string(), node.grpc().to_string());
    let mut command = Command::new(python);
    command.arg("-B").arg(script).args([part, surface, &http, &grpc]).kill_on_drop(true);
    Ok(Some(command))
}

/// Plays a part of the script against a node.
async fn play(part: &str, surface: &str, node: &Node) -> Result<()> {
    let Some(mut command) = script(part, surface, node).await? else { return Ok(()) };
    let output = tokio::time::timeout(PATIENCE, command.output()).await??;
    ensure!(
        output.status.success(),
        "{part} over {surface}:\n{}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        node.log_tail()
    );
    Ok(())
}

async fn on_one_node(part: &str, surfaces: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    put_models(&node.client()).await?;
    for surface in surfaces {
        play(part, surface, &node).await?;
    }
    node.check_running()
}

const BOTH: [&str; 2] = ["http", "grpc"];

#[tokio::test]
async fn the_server_and_its_models_tell_what_they_are() -> Result<()> {
    on_one_node("about", &BOTH).await
}

#[tokio::test]
async fn models_answer_whatever_the_tensors_travel_in() -> Result<()> {
    on_one_node("calls", &BOTH).await
}

#[tokio::test]
async fn calls_share_batches_and_are_counted() -> Result<()> {
    on_one_node("batches", &BOTH).await
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_the_words_of_the_protocol() -> Result<()> {
    on_one_node("errors", &BOTH).await
}

#[tokio::test]
async fn overload_and_deadlines_are_told() -> Result<()> {
    on_one_node("limits", &BOTH).await
}

#[tokio::test]
async fn models_are_loaded_and_unloaded() -> Result<()> {
    on_one_node("repository", &BOTH).await
}

#[tokio::test]
async fn bodies_are_json_or_bytes_as_the_client_wants() -> Result<()> {
    on_one_node("bodies", &["http"]).await
}

#[tokio::test]
async fn streams_go_on_after_a_call_that_failed() -> Result<()> {
    on_one_node("stream", &["grpc"]).await
}

#[tokio::test]
async fn typed_tensors_are_taken_and_raw_ones_given() -> Result<()> {
    on_one_node("typed", &["grpc"]).await
}

#[tokio::test]
async fn a_model_that_the_store_alone_remembers_is_loaded_for_a_client_that_waits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    put_models(&node.client()).await?;
    for surface in BOTH {
        node.kill()?;
        node.restart().await?;
        play("waits", surface, &node).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_open_stream_does_not_hold_the_server_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    put_models(&node.client()).await?;
    let Some(mut command) = script("held", "grpc", &node).await? else { return Ok(()) };
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(client.stdout.take().context("no output")?).lines();
    let told = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
    ensure!(told.as_deref() == Some("open"), "the client said {told:?}");
    let begun = Instant::now();
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    ensure!(begun.elapsed() < STOPPED, "stopping took {:?}; {}", begun.elapsed(), node.log_tail());
    client.kill().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_of_another_node_are_called_described_and_unloaded_alike() -> Result<()> {
    let test = "models_of_another_node_are_called_described_and_unloaded_alike";
    let Some(mut cluster) = Nodes::begin(test).await? else { return Ok(()) };
    let role = |roles: &'static str| move |settings: NodeSettings| settings.with("MOTET__CLUSTER__ROLES", roles);
    cluster.add("front", role("api")).await?;
    cluster.add("back", role("runs,models,vectors")).await?;
    cluster.until_everybody_serves(1).await?;
    cluster.until_seen(0, "the front sees the back", "back", |node| node["state"] == "alive").await?;
    put_models(&cluster.client(0)).await?;
    for surface in BOTH {
        play("elsewhere", surface, &cluster.nodes[0]).await?;
    }
    let front = cluster.client(0).get("/api/v1/models/echo").await?.expect(200)?.body;
    ensure!(front["state"] == json!("unloaded"), "{front}");
    Ok(())
}
