//! Clients that submit runs under keys and repeat what was not answered, clients that read, and the proof that all of
//! it was kept.
//!
//! Never knows which fault is made: it only goes on until every submission is acknowledged. Used by the rows of the
//! fault matrix and by nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::backing::Backing;
use crate::client::{Client, Submission};
use crate::history::History;
use crate::node::Node;
use crate::seed::Seed;
use crate::waiting::{let_pass, looks, until};

/// Longest time from the last fault to the end of every run.
const FINISH: Duration = Duration::from_secs(60);

/// Begins the keys of these clients.
const KEY: &str = "key-";

/// Clients that only read.
const READERS: usize = 2;

/// Runs that are read at one time in the end.
const READ_AT_ONCE: usize = 16;

/// The queues hold far fewer calls than the runs owe at once: an accepted run waits for room and never fails for it.
const MODELS: [(&str, &str); 2] = [
    ("echo", "kind: Model\nname: echo\nbackend: fake\nbatch: {max: 32}\nparameters: {latency_ms: 4}\n"),
    (
        "shaky",
        "kind: Model\nname: shaky\nbackend: fake\nbatch: {max: 16}\nparameters: {latency_ms: 2, fail_every: 4}\n",
    ),
];

const WORKFLOW: &str = r#"
kind: Workflow
name: survivor
version: "1"
steps:
  draft: {call: model, model: echo, with: {text: "${ input.text }"}}
  parts: {call: transform, with: {list: ["${ steps.draft.output.text }-a", "${ steps.draft.output.text }-b", "${ steps.draft.output.text }-c"]}}
  each: {for_each: "${ steps.parts.output.list }", as: part, call: model, model: echo, with: {text: "${ part }"}}
  shaky: {call: model, model: shaky, with: {text: "shaky ${ steps.draft.output.text }"},
          retry: {max_attempts: 100, backoff: {initial: 2ms, factor: 1.5, max: 40ms}}}
  finish: {needs: [each], call: model, model: echo, with: {text: "done ${ steps.shaky.output.text }"}}
output: {text: "${ steps.finish.output.text }", count: "${ size(steps.each.output) }"}
"#;

struct Shared {
    /// One for each node.
    clients: Vec<Client>,
    history: History,
    runs: usize,
    next: AtomicUsize,
    /// Submissions that may be made so far.
    allowed: Semaphore,
    over: AtomicBool,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    submitters: Vec<JoinHandle<Result<()>>>,
    readers: Vec<JoinHandle<()>>,
}

/// What a row came to. What was lost, doubled or changed is not among it: that fails the row.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// Runs that were promised, are there, and ended as they should.
    pub runs: usize,
    /// Submissions that were repeated because nobody knew what became of them.
    pub repeated: u64,
    /// Runs whose events were read while the faults were made.
    pub witnessed: usize,
    /// Time from the last fault to the end of every run.
    pub settled: Duration,
}

impl Load {
    /// Begins with `clients` clients that will submit `runs` runs, each as soon as [`Load::allow`] lets it.
    ///
    /// # Errors
    /// When the node does not take the definitions.
    pub async fn begin(node: &Node, runs: usize, clients: usize, seed: &mut Seed) -> Result<Self> {
        Self::begin_on(&[node.client()], runs, clients, seed).await
    }

    /// The same on several nodes of one cluster: whoever gets no answer of one asks the next.
    ///
    /// # Errors
    /// When the first one does not take the definitions.
    pub async fn begin_on(nodes: &[Client], runs: usize, clients: usize, seed: &mut Seed) -> Result<Self> {
        for (name, model) in MODELS {
            nodes[0].put_definition("models", name, model).await?;
        }
        nodes[0].put_definition("workflows", "survivor", WORKFLOW).await?;
        let shared = Arc::new(Shared {
            clients: nodes.to_vec(),
            history: History::new(),
            runs,
            next: AtomicUsize::new(0),
            allowed: Semaphore::new(0),
            over: AtomicBool::new(false),
        });
        let submitters = (0..clients).map(|_| tokio::spawn(submit_all(Arc::clone(&shared)))).collect();
        let readers = (0..READERS).map(|_| tokio::spawn(read_on(Arc::clone(&shared), seed.draw()))).collect();
        Ok(Self { shared, submitters, readers })
    }

    /// Lets so many more runs be submitted.
    pub fn allow(&self, runs: usize) {
        self.shared.allowed.add_permits(runs);
    }

    /// Runs that were promised so far.
    #[must_use]
    pub fn promised(&self) -> usize {
        self.shared.history.promises().keys().filter(|key| key.starts_with(KEY)).count()
    }

    /// Adds runs that the row itself was promised, by key: they are proven with the others.
    pub fn extend(&self, promised: impl IntoIterator<Item = (String, String)>) {
        promised.into_iter().for_each(|(key, run)| self.shared.history.promised(&key, &run));
    }

    /// Waits until as many runs were promised.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_promised(&self, runs: usize) -> Result<()> {
        until(FINISH, &format!("{runs} promised runs"), async || (self.promised() >= runs).then_some(())).await
    }

    /// Waits for every submission and every run, reads everything again, stops the node and proves the history.
    ///
    /// # Errors
    /// When something is not acknowledged, does not end, or reads differently.
    ///
    /// # Panics
    /// With every broken promise.
    pub async fn prove(self, node: Node, backing: &Backing) -> Result<Tally> {
        self.prove_on(vec![node], backing).await
    }

    /// The same for several nodes of one cluster.
    ///
    /// # Errors
    /// As [`Load::prove`].
    ///
    /// # Panics
    /// With every broken promise.
    pub async fn prove_on(self, nodes: Vec<Node>, backing: &Backing) -> Result<Tally> {
        let begun = Instant::now();
        for submitter in self.submitters {
            submitter.await??;
        }
        let shared = &self.shared;
        let mut promises = shared.history.promises();
        promises.retain(|key, _| key.starts_with(KEY));
        ensure!(promises.len() == shared.runs, "{} of {} runs were taken", promises.len(), shared.runs);
        finish_all(shared, promises.values()).await.map_err(|error| {
            let logs: Vec<_> = nodes.iter().map(Node::log_tail).collect();
            error.context(logs.join("\n"))
        })?;
        let settled = begun.elapsed();
        shared.over.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.await?;
        }
        read_everything(shared, &promises).await?;
        let data = nodes[0].data().to_owned();
        for mut node in nodes {
            ensure!(node.stop().await?.success(), "a node did not stop well; {}", node.log_tail());
        }
        shared.history.prove(&backing.read(&data).await?);
        let history = &shared.history;
        Ok(Tally { runs: promises.len(), repeated: history.repeats(), witnessed: history.witnessed(), settled })
    }
}

impl Shared {
    /// One node's client, by turns.
    fn client(&self, turn: usize) -> &Client {
        &self.clients[turn % self.clients.len()]
    }
}

/// Submits the next key again and again until the node has acknowledged it.
async fn submit_all(load: Arc<Shared>) -> Result<()> {
    loop {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.runs {
            return Ok(());
        }
        load.allowed.acquire().await?.forget();
        let (key, input) = (format!("{KEY}{number}"), json!({ "text": format!("run {number}") }));
        let (mut tries, mut tried) = (looks(), number);
        loop {
            tries.tick().await;
            tried += 1;
            match load.client(tried).submit("survivor", &input, &key).await {
                Submission::Accepted(run) => {
                    load.history.promised(&key, &run);
                    break;
                }
                Submission::Unknown => load.history.repeated(),
                Submission::Refused(status) => ensure!(status == 503 || status == 429, "refused with {status}"),
            }
        }
    }
}

/// Reads events of promised runs while the faults are made.
async fn read_on(load: Arc<Shared>, seed: u64) {
    let mut seed = Seed::new(seed);
    while !load.over.load(Ordering::Relaxed) {
        let promises: Vec<_> = load.history.promises().into_values().collect();
        let place = usize::try_from(seed.between(0, promises.len() as u64)).unwrap();
        let read = match promises.get(place) {
            Some(run) => load.client(place).events(run).await.map(|events| load.history.saw_events(run, events)),
            None => Ok(()),
        };
        if read.is_err() || promises.is_empty() {
            let_pass(Duration::from_millis(20)).await;
        }
    }
}

async fn finish_all(load: &Shared, runs: impl Iterator<Item = &String>) -> Result<()> {
    let looks = stream::iter(runs.cloned()).map(|run| async move {
        until(FINISH, &format!("the end of {run}"), async || {
            let run = load.client(0).read_run(&run).await.ok()?;
            (!run["finished_at"].is_null()).then_some(())
        })
        .await
    });
    looks.buffer_unordered(READ_AT_ONCE).try_collect().await
}

/// Reads every run once more, its events, and its key again.
async fn read_everything(load: &Shared, promises: &BTreeMap<String, String>) -> Result<()> {
    let reads = stream::iter(promises.clone()).map(|(key, run)| async move {
        let number: usize = key.trim_start_matches(KEY).parse()?;
        let read = load.client(number).read_run(&run).await?;
        let output = json!({ "text": format!("done shaky run {number}"), "count": 3 });
        ensure!(read["state"] == "succeeded" && read["output"] == output, "{run} of {key} reads {read}");
        load.history.saw_events(&run, load.client(number).events(&run).await?);
        let again = load.client(number).submit("survivor", &json!({ "text": format!("run {number}") }), &key).await;
        ensure!(again == Submission::Accepted(run.clone()), "{key} gave {run}, and then {again:?}");
        Ok(())
    });
    reads.buffer_unordered(READ_AT_ONCE).try_collect().await
}
