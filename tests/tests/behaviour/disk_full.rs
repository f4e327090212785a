//! A disk without room: nothing that was acknowledged is lost, and the node says that it is not ready.
//!
//! Needs root for a small file system of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::client::Submission;
use motet_tests::history::History;
use motet_tests::journal;
use motet_tests::node::{Node, NodeSettings};
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

/// A file system in memory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "motet-test"]).arg(at).output();
        status.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    fn grow(&self, size: &str) -> Result<()> {
        let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status()?;
        ensure!(status.success(), "the small disk did not grow");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, "12m") else {
        skip("a_full_disk_loses_nothing_that_was_acknowledged", "mounting a file system needs root");
        return Ok(());
    };
    let mut node = Node::start(NodeSettings::new(&data)).await?;
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

    disk.grow("128m")?;
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
    history.prove(&journal::read(&data).await?);
    drop(disk);
    Ok(())
}
