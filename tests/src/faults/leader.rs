//! Who leads the cluster, looked at all the time: for how long nobody did.
//!
//! Believes the store, and the row that says which node is under a fault: a leader that is dead leads nobody, whatever
//! is left of its lease. Used by the rows of the fault matrix about clusters.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::waiting::let_pass;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longest wait for one node's answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A look that goes on until it is finished.
pub struct LeaderWatch {
    log: Arc<Mutex<Log>>,
    looking: JoinHandle<()>,
}

impl Drop for LeaderWatch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

struct Log {
    /// The last leader and its term.
    seen: Option<(String, u64)>,
    /// A node that a fault has, and the term up to which it can do nothing.
    dead: Option<(String, u64)>,
    /// When somebody led for the last time.
    led: Instant,
    gaps: Vec<Duration>,
    terms: BTreeSet<u64>,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Led {
    /// Every time without a leader that was longer than a second, in turn.
    pub gaps: Vec<Duration>,
    /// How many terms there were.
    pub terms: usize,
}

impl Led {
    /// The longest time without a leader; none worth a word is zero.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.gaps.iter().copied().max().unwrap_or_default()
    }
}

impl LeaderWatch {
    /// Begins to look, at whichever node answers.
    #[must_use]
    pub fn start(nodes: &[Client]) -> Self {
        let nodes: Vec<_> = nodes.iter().map(|node| node.with_patience(PATIENCE)).collect();
        let (led, terms) = (Instant::now(), BTreeSet::new());
        let log = Arc::new(Mutex::new(Log { seen: None, dead: None, led, gaps: vec![], terms }));
        let noted = Arc::clone(&log);
        let looking = tokio::spawn(async move {
            let mut turn = 0;
            loop {
                for _ in &nodes {
                    turn += 1;
                    if let Ok(leader) = leader(&nodes[turn % nodes.len()]).await {
                        noted.lock().unwrap().note(leader);
                        break;
                    }
                }
                let_pass(LOOK_EVERY).await;
            }
        });
        Self { log, looking }
    }

    /// Who leads, as far as was seen; none while nobody does.
    ///
    /// # Panics
    /// When the look has panicked; so do the others.
    #[must_use]
    pub fn leader(&self) -> Option<(String, u64)> {
        let log = self.log.lock().unwrap();
        log.seen.clone().filter(|(_, term)| log.leads(*term))
    }

    /// A fault keeps a node from leading: if it leads, nobody does from now on, until another term begins.
    pub fn fails(&self, node: &str) {
        let mut log = self.log.lock().unwrap();
        // One that fell before may still stand in the store.
        if let Some(seen) = log.seen.clone().filter(|(leader, term)| leader == node && log.leads(*term)) {
            log.dead = Some(seen);
        }
    }

    /// The fault is over: if nobody took the node's term, it leads again.
    pub fn healed(&self, node: &str) {
        let mut log = self.log.lock().unwrap();
        log.dead = log.dead.take().filter(|(dead, _)| dead != node);
    }

    /// Ends the look.
    #[must_use]
    pub fn finish(self) -> Led {
        let mut log = self.log.lock().unwrap();
        log.close_gap();
        Led { gaps: log.gaps.clone(), terms: log.terms.len() }
    }
}

impl Log {
    /// Whether the leader of a term can do something.
    fn leads(&self, term: u64) -> bool {
        self.dead.as_ref().is_none_or(|(_, dead)| term > *dead)
    }

    fn note(&mut self, leader: Option<(String, u64)>) {
        if leader.as_ref().is_some_and(|(_, term)| self.leads(*term)) {
            self.close_gap();
        }
        self.terms.extend(leader.as_ref().map(|(_, term)| *term));
        self.seen = leader;
    }

    fn close_gap(&mut self) {
        let gap = self.led.elapsed();
        if gap > Duration::from_secs(1) {
            self.gaps.push(gap);
        }
        self.led = Instant::now();
    }
}

async fn leader(node: &Client) -> Result<Option<(String, u64)>> {
    let view = node.get("/api/v1/cluster").await?.expect(200)?.body;
    let leader = &view["leader"];
    if leader.is_null() || leader["lease_left_ms"] == 0 {
        return Ok(None);
    }
    let name = leader["node"].as_str().context("a leader without a name")?;
    Ok(Some((name.to_owned(), leader["term"].as_u64().context("a leader without a term")?)))
}
