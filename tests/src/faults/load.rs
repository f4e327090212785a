//! Clients that submit runs under keys and repeat what was not answered, clients that read, and the proof that all of
//! it was kept.
//!
//! Never knows which fault is made: it only goes on until every submission is acknowledged. Used by the rows of the
//! fault matrix and by nobody else.

mod crowd;
mod workflow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::backing::Backing;
use crate::client::{Client, Submission};
use crate::history::History;
use crate::journal::Kept;
use crate::node::Node;
use crate::seed::Seed;
use crate::waiting::{let_pass, looks, until};
pub use crowd::Crowd;

/// Longest time from the last fault to the end of every run that is not made to wait.
const FINISH: Duration = Duration::from_secs(60);

/// Time between two looks at how many runs have not ended.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// Begins the keys of these clients.
const KEY: &str = "key-";

/// Clients that only read.
const READERS: usize = 2;

/// Pause of a reader who is not to be the load.
const READ_EVERY: Duration = Duration::from_millis(20);

/// Runs that are read at one time in the end.
const READ_AT_ONCE: usize = 16;

/// Runs of a crowd that are read by way of the API in the end, at most.
const READ_BACK: usize = 4_000;

struct Shared {
    /// One for each node.
    clients: Vec<Client>,
    history: History,
    /// Most runs that are submitted.
    runs: usize,
    /// How many runs are kept unfinished, where it is not the row that says when to submit.
    crowd: Option<Crowd>,
    next: AtomicUsize,
    /// Runs whose submission has begun, and those that were promised.
    begun: AtomicUsize,
    promised: AtomicUsize,
    /// Submissions that may be made so far; none more when it is closed.
    allowed: Semaphore,
    over: AtomicBool,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    submitters: Vec<JoinHandle<Result<()>>>,
    readers: Vec<JoinHandle<()>>,
    pacer: Option<JoinHandle<()>>,
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
        Self::with(vec![node.client()], runs, None, clients, seed).await
    }

    /// Begins with `clients` clients that keep a crowd of runs unfinished on the nodes of one cluster: whoever gets no
    /// answer of one asks the next.
    ///
    /// # Errors
    /// When the first one does not take the definitions.
    pub async fn hold(nodes: Vec<Client>, crowd: Crowd, clients: usize, seed: &mut Seed) -> Result<Self> {
        let mut load = Self::with(nodes, usize::MAX, Some(crowd), clients, seed).await?;
        load.pacer = Some(tokio::spawn(crowd::keep_up(Arc::clone(&load.shared), crowd.in_flight)));
        Ok(load)
    }

    async fn with(
        nodes: Vec<Client>,
        runs: usize,
        crowd: Option<Crowd>,
        clients: usize,
        seed: &mut Seed,
    ) -> Result<Self> {
        workflow::put(&nodes[0], crowd.as_ref()).await?;
        let shared = Arc::new(Shared {
            clients: nodes,
            history: History::new(),
            runs,
            crowd,
            next: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            promised: AtomicUsize::new(0),
            allowed: Semaphore::new(0),
            over: AtomicBool::new(false),
        });
        let submitters = (0..clients).map(|_| tokio::spawn(submit_all(Arc::clone(&shared)))).collect();
        let readers = (0..READERS).map(|_| tokio::spawn(read_on(Arc::clone(&shared), seed.draw()))).collect();
        Ok(Self { shared, submitters, readers, pacer: None })
    }

    /// Lets so many more runs be submitted.
    pub fn allow(&self, runs: usize) {
        self.shared.allowed.add_permits(runs);
    }

    /// Runs that were promised so far.
    #[must_use]
    pub fn promised(&self) -> usize {
        self.shared.promised.load(Ordering::Relaxed)
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

    /// Waits until at least `runs` runs have not ended; how many that are.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_in_flight(&self, runs: usize) -> Result<u64> {
        let patience = workflow::patience(self.shared.crowd.as_ref());
        crowd::until_unfinished(&self.shared, patience, |unfinished| unfinished >= runs as u64).await
    }

    /// Waits for every submission and every run, reads everything again, stops the node and proves the history.
    ///
    /// # Errors
    /// When something is not acknowledged, does not end, or reads differently.
    ///
    /// # Panics
    /// With every broken promise.
    pub async fn prove(self, node: Node, backing: &Backing) -> Result<Tally> {
        self.prove_on(vec![node], backing).await.map(|(tally, _)| tally)
    }

    /// The same for several nodes of one cluster; with everything that the store holds in the end.
    ///
    /// # Errors
    /// As [`Load::prove`].
    ///
    /// # Panics
    /// With every broken promise.
    pub async fn prove_on(self, nodes: Vec<Node>, backing: &Backing) -> Result<(Tally, BTreeMap<String, Kept>)> {
        let begun = Instant::now();
        if let Some(pacer) = self.pacer {
            pacer.abort();
            self.shared.allowed.close();
        }
        for submitter in self.submitters {
            submitter.await??;
        }
        let shared = &self.shared;
        let mut promises = shared.history.promises();
        promises.retain(|key, _| key.starts_with(KEY));
        let wanted = shared.begun.load(Ordering::Relaxed);
        ensure!(promises.len() == wanted, "{} of {wanted} runs were taken", promises.len());
        ensure!(shared.crowd.is_some() || wanted == shared.runs, "{wanted} of {} runs were submitted", shared.runs);
        let patience = workflow::patience(shared.crowd.as_ref());
        crowd::until_unfinished(shared, patience, |unfinished| unfinished == 0).await.with_context(|| {
            let logs: Vec<_> = nodes.iter().map(Node::log_tail).collect();
            logs.join("\n")
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
        let kept = backing.read(&data).await?;
        shared.history.prove(&kept);
        let history = &shared.history;
        let (repeated, witnessed) = (history.repeats(), history.witnessed());
        Ok((Tally { runs: promises.len(), repeated, witnessed, settled }, kept))
    }
}

impl Shared {
    /// One node's client, by turns.
    fn client(&self, turn: usize) -> &Client {
        &self.clients[turn % self.clients.len()]
    }

    /// Submits a run of the load once.
    async fn submit(&self, number: usize, turn: usize) -> Submission {
        let (workflow, input) = workflow::request(number, self.crowd.as_ref());
        self.client(turn).submit(workflow, &input, &format!("{KEY}{number}")).await
    }
}

/// Submits the next key again and again until the node has acknowledged it.
async fn submit_all(load: Arc<Shared>) -> Result<()> {
    loop {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.runs {
            return Ok(());
        }
        let Ok(allowed) = load.allowed.acquire().await else { return Ok(()) };
        allowed.forget();
        load.begun.fetch_add(1, Ordering::Relaxed);
        let (mut tries, mut tried) = (looks(), number);
        loop {
            tries.tick().await;
            tried += 1;
            match load.submit(number, tried).await {
                Submission::Accepted(run) => {
                    load.history.promised(&format!("{KEY}{number}"), &run);
                    load.promised.fetch_add(1, Ordering::Relaxed);
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
        let place = usize::try_from(seed.draw() >> 1).unwrap_or_default();
        let read = match load.history.any_promised(place) {
            Some(run) => load.client(place).events(&run).await.map(|events| load.history.saw_events(&run, events)),
            None => Err(anyhow::anyhow!("nothing was promised yet")),
        };
        if read.is_err() || load.crowd.is_some() {
            let_pass(READ_EVERY).await;
        }
    }
}

/// Reads runs once more, their events, and their keys again.
async fn read_everything(load: &Shared, promises: &BTreeMap<String, String>) -> Result<()> {
    // Of a crowd a part is read by way of the API; every journal is read from the store besides.
    let every = if load.crowd.is_some() { promises.len().div_ceil(READ_BACK) } else { 1 };
    let part: Vec<_> = promises.iter().step_by(every.max(1)).map(|(key, run)| (key.clone(), run.clone())).collect();
    let reads = stream::iter(part).map(|(key, run)| async move {
        let number: usize = key.trim_start_matches(KEY).parse()?;
        let read = load.client(number).read_run(&run).await?;
        let output = workflow::output(number);
        ensure!(read["state"] == "succeeded" && read["output"] == output, "{run} of {key} reads {read}");
        load.history.saw_events(&run, load.client(number).events(&run).await?);
        let again = load.submit(number, number).await;
        ensure!(again == Submission::Accepted(run.clone()), "{key} gave {run}, and then {again:?}");
        Ok(())
    });
    reads.buffer_unordered(READ_AT_ONCE).try_collect().await
}
