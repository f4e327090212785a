//! F10: a disk without room: nothing that was acknowledged is lost, and the node says that it is not ready.
//!
//! Needs root for a small file system of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::client::{Client, Submission};
use motet_tests::faults::backing::Backing;
use motet_tests::faults::disk::SmallDisk;
use motet_tests::history::History;
use motet_tests::node::Node;
use motet_tests::seed::Seed;
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

/// How long the node may take to notice, and to recover.
const SOON: Duration = Duration::from_secs(30);

/// What was submitted so far.
struct Filling {
    history: History,
    next: usize,
    text: String,
}

impl Filling {
    async fn begin(node: &Node) -> Result<Self> {
        node.client().put_definition("models", "echo", MODEL).await?;
        node.client().put_definition("workflows", "large", WORKFLOW).await?;
        Ok(Self { history: History::new(), next: 0, text: incompressible() })
    }

    /// Submits the next run once; what is not taken is submitted again under the same key the next time.
    async fn submit(&mut self, client: &Client) -> Submission {
        let (key, input) = (format!("key-{}", self.next), json!({ "text": format!("{} {}", self.next, self.text) }));
        let answer = client.submit("large", &input, &key).await;
        if let Submission::Accepted(run) = &answer {
            self.history.promised(&key, run);
            self.next += 1;
        }
        answer
    }

    async fn until_full(&mut self, client: &Client) -> Result<()> {
        loop {
            match self.submit(client).await {
                Submission::Accepted(_) => ensure!(self.next < 20_000, "the disk never became full"),
                Submission::Refused(status) => {
                    println!("{} runs were taken before the disk was full, then {status}", self.next);
                    ensure!(self.next > 10 && status == 503, "refused with {status} after {} runs", self.next);
                    return Ok(());
                }
                Submission::Unknown => anyhow::bail!("no answer"),
            }
        }
    }

    /// One more is taken, and all of them end and are kept.
    async fn prove(mut self, mut node: Node, backing: &Backing) -> Result<()> {
        let client = node.client();
        let taken = until(SOON, "a run to be taken", async || match self.submit(&client).await {
            Submission::Accepted(_) => Some(()),
            _ => None,
        });
        taken.await.map_err(|error| error.context(node.log_tail()))?;
        for run in self.history.promises().into_values() {
            let what = format!("the end of {run}");
            let ended = until(SOON, &what, async || {
                (!client.read_run(&run).await.ok()?["finished_at"].is_null()).then_some(())
            });
            ended.await.map_err(|error| error.context(node.log_tail()))?;
        }
        ensure!(node.stop().await?.success(), "{}", node.log_tail());
        self.history.prove(&backing.read(node.data()).await?);
        println!("F10: {} runs were kept over a full disk, lost 0, doubled 0, changed 0", self.next);
        Ok(())
    }
}

/// Some kilobytes that no database makes smaller.
fn incompressible() -> String {
    let mut seed = Seed::new(1);
    (0..500).map(|_| format!("{:016x}", seed.draw())).collect()
}

/// The node says that it is broken, and needs a new start once there is room.
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
    let mut filling = Filling::begin(&node).await?;
    filling.until_full(&client).await?;
    until(SOON, "readiness to go", async || (!client.is_ready().await).then_some(())).await?;
    ensure!(node.is_running(), "the node should tell, not die: {}", node.log_tail());

    disk.resize("128m")?;
    node.terminate()?;
    node.wait(SOON).await?;
    node.restart().await?;
    filling.prove(node, &Backing::Sqlite).await
}

/// The server's disk is full: the node needs no new start once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_full_disk_postgres() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount(&Backing::postgres_data(folder.path()), "144m") else {
        skip("f10_full_disk_postgres", "mounting a file system needs root");
        return Ok(());
    };
    let Some(backing) = Backing::postgres("f10_full_disk_postgres", folder.path()).await? else { return Ok(()) };
    let mut node = Node::start(backing.settings(&folder.path().join("node"))).await?;
    let client = node.client();
    let mut filling = Filling::begin(&node).await?;
    filling.until_full(&client).await?;
    until(SOON, "readiness to go", async || (!client.is_ready().await).then_some(())).await?;
    ensure!(node.is_running(), "the node should tell, not die: {}", node.log_tail());

    disk.resize("512m")?;
    backing.server()?.recover().await?;
    filling.prove(node, &backing).await
}
