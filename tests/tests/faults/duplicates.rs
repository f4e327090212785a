//! F14: the same submission many times under one key: one after the other, at the same time, across a kill.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use motet_tests::client::{Client, Submission};
use motet_tests::faults::backing::Backing;
use motet_tests::history::History;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};
use reqwest::Method;
use serde_json::json;

/// Requests per key in one round, all at the same time.
const AT_ONCE: usize = 4;

/// Keys that are used at the same time.
const KEYS_AT_ONCE: usize = 16;

/// Rounds before the kill, with the kill, and after it.
const ROUNDS: usize = 3;

const SOON: Duration = Duration::from_secs(30);

const MODEL: &str = "kind: Model\nname: echo\nbackend: fake\nparameters: {latency_ms: 2}\n";
const WORKFLOW: &str = r#"
kind: Workflow
name: once
version: "1"
steps:
  say: {call: model, model: echo, with: {text: "${ input.text }"}}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_the_same_key_starts_one_run_sqlite() -> Result<()> {
    one_run_per_key(Backing::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_the_same_key_starts_one_run_postgres() -> Result<()> {
    let server = tempfile::tempdir()?;
    match Backing::postgres("f14_the_same_key_starts_one_run_postgres", server.path()).await? {
        Some(backing) => one_run_per_key(backing).await,
        None => Ok(()),
    }
}

async fn one_run_per_key(backing: Backing) -> Result<()> {
    let keys = Scale::from_environment().pick(120, 1_000, 20_000);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(backing.settings(&folder.path().join("data"))).await?;
    let client = node.client();
    client.put_definition("models", "echo", MODEL).await?;
    client.put_definition("workflows", "once", WORKFLOW).await?;
    let history = History::new();
    for round in 0..ROUNDS {
        let storm = submit_all(&client, &history, keys);
        if round == 1 {
            let kill = async {
                let_pass(Duration::from_millis(seed.between(5, 80))).await;
                node.kill()?;
                node.restart().await
            };
            futures::try_join!(storm, kill)?;
        } else {
            storm.await?;
        }
    }
    refuses_another_request(&client).await?;
    for run in history.promises().into_values() {
        until(SOON, &format!("the end of {run}"), async || {
            (!client.read_run(&run).await.ok()?["finished_at"].is_null()).then_some(())
        })
        .await?;
    }
    ensure!(history.promises().len() == keys, "{} of {keys} keys were taken", history.promises().len());
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    history.prove(&backing.read(node.data()).await?);
    println!("F14: {keys} keys, {} requests each, one run each; doubled 0", AT_ONCE * ROUNDS);
    Ok(())
}

/// Every key is submitted several times at once, each until it is acknowledged.
async fn submit_all(client: &Client, history: &History, keys: usize) -> Result<()> {
    let requests = (0..keys).flat_map(|key| (0..AT_ONCE).map(move |_| key));
    let sent = requests.map(|number| async move {
        let (key, input) = (format!("key-{number}"), json!({ "text": format!("run {number}") }));
        until(SOON, &format!("the answer to {key}"), async || match client.submit("once", &input, &key).await {
            Submission::Accepted(run) => {
                history.promised(&key, &run);
                Some(())
            }
            Submission::Refused(_) | Submission::Unknown => None,
        })
        .await
    });
    stream::iter(sent).buffer_unordered(KEYS_AT_ONCE * AT_ONCE).try_collect().await
}

/// A key that was used is refused for anything else.
async fn refuses_another_request(client: &Client) -> Result<()> {
    let request = client.request(Method::POST, "/api/v1/workflows/once/runs").header("idempotency-key", "key-0");
    let reply = client.send(request.json(&json!({ "input": { "text": "something else" } }))).await?.expect(422)?;
    ensure!(reply.body["code"] == "idempotency_key_reused", "{}", reply.body);
    Ok(())
}
