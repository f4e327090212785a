//! Where models are: what this node hears of the others, by which calls of models find their node.
//!
//! Keeps no table and asks nobody: the rule is applied anew to every call, over what gossip tells. Made by whoever joins
//! a node to its cluster; used by the router.

mod rule;
mod telling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use motet_cluster::members::{Member, ModelName};
use tokio::sync::{Semaphore, watch};

pub(crate) use rule::{Passed, Situation, Where};
pub(crate) use telling::Telling;

/// Nodes are asked to load one model at most once in this time, since gossip takes its time to tell that they do.
const PROMPT_EVERY: Duration = Duration::from_secs(1);

/// Calls of one model that look for room at one time when no node had any; the others wait for their turn.
const LOOKING: usize = 32;

/// What a node among others knows for finding models.
pub struct Placement {
    members: watch::Receiver<Arc<Vec<Member>>>,
    prompted: DashMap<ModelName, Instant>,
    lines: DashMap<ModelName, Arc<Semaphore>>,
}

impl Placement {
    /// Over what membership shows: every node of which is heard, this one included.
    #[must_use]
    pub fn new(members: watch::Receiver<Arc<Vec<Member>>>) -> Self {
        Self { members, prompted: DashMap::new(), lines: DashMap::new() }
    }

    /// The nodes, as they are known now.
    pub(crate) fn members(&self) -> Arc<Vec<Member>> {
        Arc::clone(&self.members.borrow())
    }

    /// Whether nodes may be asked to load a model now; not again for a while when they may.
    pub(crate) fn may_prompt(&self, model: &ModelName) -> bool {
        let now = Instant::now();
        let mut may = false;
        self.prompted
            .entry(model.clone())
            .and_modify(|last| {
                may = now.saturating_duration_since(*last) >= PROMPT_EVERY;
                if may {
                    *last = now;
                }
            })
            .or_insert_with(|| {
                may = true;
                now
            });
        may
    }

    /// The line of a model's calls that found no room anywhere.
    pub(crate) fn line(&self, model: &ModelName) -> Arc<Semaphore> {
        Arc::clone(&self.lines.entry(model.clone()).or_insert_with(|| Arc::new(Semaphore::new(LOOKING))))
    }
}
