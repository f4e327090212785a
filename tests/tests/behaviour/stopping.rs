//! Stopping under load, and two processes on one data folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use motet_tests::client::Submission;
use motet_tests::history::History;
use motet_tests::journal;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::waiting::until;
use serde_json::json;

const MODEL: &str = "kind: Model\nname: slow\nbackend: fake\nbatch: {max: 8}\nparameters: {latency_ms: 10}\n";
const WORKFLOW: &str = r#"
kind: Workflow
name: slow
version: "1"
steps:
  one: {call: model, model: slow, with: {text: "${ input.text }"}}
  two: {call: model, model: slow, with: {text: "${ steps.one.output.text }"}}
"#;

#[tokio::test]
async fn a_second_process_is_kept_away_from_the_data() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    let mut second = Node::prepare(NodeSettings::new(folder.path().join("data")));
    second.spawn()?;
    let status = second.wait(Duration::from_secs(10)).await?;
    let log = second.log();
    ensure!(!status.success(), "the second process ran: {log}");
    ensure!(log.contains("in use") || log.contains("another process"), "{log}");
    ensure!(node.client().is_ready().await, "the first process suffered from the second");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_load_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    let client = node.client();
    client.put_definition("models", "slow", MODEL).await?;
    client.put_definition("workflows", "slow", WORKFLOW).await?;
    let (history, stopped) = (Arc::new(History::new()), Arc::new(AtomicBool::new(false)));
    let submitters: Vec<_> = (0..16)
        .map(|place| {
            let (client, history, stopped) = (client.clone(), Arc::clone(&history), Arc::clone(&stopped));
            tokio::spawn(async move {
                for number in 0.. {
                    let key = format!("{place}-{number}");
                    match client.submit("slow", &json!({ "text": key }), &key).await {
                        Submission::Accepted(run) => history.promised(&key, &run),
                        // The process is on its way out: what was not acknowledged was not promised.
                        Submission::Unknown | Submission::Refused(_) if stopped.load(Ordering::Relaxed) => {
                            return Some(key);
                        }
                        other => panic!("{key}: {other:?}"),
                    }
                }
                None
            })
        })
        .collect();
    until(Duration::from_secs(30), "300 promised runs", async || (history.promises().len() >= 300).then_some(()))
        .await?;
    stopped.store(true, Ordering::Relaxed);
    let status = node.stop().await?;
    ensure!(status.success(), "{status}; {}", node.log_tail());
    let mut doubtful = vec![];
    for submitter in submitters {
        doubtful.extend(submitter.await?);
    }
    node.restart().await?;
    // A key whose answer was lost is asked for again: it may have been taken.
    for key in doubtful {
        match client.submit("slow", &json!({ "text": key }), &key).await {
            Submission::Accepted(run) => history.promised(&key, &run),
            other => panic!("{key}: {other:?}"),
        }
    }
    let runs: Vec<_> = history.promises().into_values().collect();
    let ends = stream::iter(runs).map(|run| {
        let client = client.clone();
        async move {
            until(Duration::from_secs(30), &format!("the end of {run}"), async || {
                (!client.read_run(&run).await.ok()?["finished_at"].is_null()).then_some(())
            })
            .await
        }
    });
    ends.buffer_unordered(16).try_collect::<()>().await?;
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    history.prove(&journal::read(node.data()).await?);
    Ok(())
}
