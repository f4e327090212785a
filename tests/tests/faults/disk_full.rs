//! F10: a disk without room: nothing that was acknowledged is lost, and the node says that it is not ready.
//!
//! Needs root for a small file system of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::client::Submission;
use motet_tests::faults::backing::Backing;
use motet_tests::faults::disk::SmallDisk;
use motet_tests::history::History;
use motet_tests::node::Node;
use motet_tests::skip::skip;
use motet_tests::waiting::until;
use serde_json::json;

const MODEL: &str = "kind: Model\nname: echo\nbackend: fake\n";
const WORKFLOW: &str = r#"
kind: Workflow
name: large
version: "1"
steps:
  say: {call: model, model: echo, with: {text: "${ input.text }"}}
output: {length: "${ size(steps.say.output.text) }"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_full_disk_sqlite() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, "12m") else {
        skip("f10_full_disk_sqlite", "mounting a file system needs root");
        return Ok(());
    };
    let mut node = Node::start(Backing::Sqlite.settings(&data)).await?;
    let client = node.client();
    client.put_definition("models", "echo", MODEL).await?;
    client.put_definition("workflows", "large", WORKFLOW).await?;
    let history = History::new();
    let text = "all work and no play ".repeat(400);
    let input = |number: usize| json!({ "text": format!("{number} {text}") });
    let mut number = 0;
    let refusal = loop {
        let key = format!("key-{number}");
        match client.submit("large", &input(number), &key).await {
            Submission::Accepted(run) => history.promised(&key, &run),
            other => break other,
        }
        number += 1;
        ensure!(number < 20_000, "the disk never became full");
    };
    println!("{number} runs were taken before the disk was full, then {refusal:?}");
    ensure!(number > 10, "only {number} runs fit");
    until(Duration::from_secs(10), "readiness to go", async || (!client.is_ready().await).then_some(())).await?;
    ensure!(node.is_running(), "the node should tell, not die: {}", node.log_tail());

    disk.resize("128m")?;
    node.terminate()?;
    node.wait(Duration::from_secs(30)).await?;
    node.restart().await?;
    let key = format!("key-{number}");
    match client.submit("large", &input(number), &key).await {
        Submission::Accepted(run) => history.promised(&key, &run),
        other => panic!("with room again: {other:?}"),
    }
    for run in history.promises().into_values() {
        until(Duration::from_secs(30), &format!("the end of {run}"), async || {
            (!client.read_run(&run).await.ok()?["finished_at"].is_null()).then_some(())
        })
        .await?;
    }
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    history.prove(&Backing::Sqlite.read(&data).await?);
    println!("F10: {} runs were kept over a full disk, lost 0, doubled 0, changed 0", number + 1);
    drop(disk);
    Ok(())
}
