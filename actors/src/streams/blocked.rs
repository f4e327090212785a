//! Topics that take no results now, and why, as the log, the metrics and views show it.
//!
//! Decides nothing, and tells only of this node's shards. Written by the relay.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};

use motet_broker::BrokerError;
use motet_engine::id::ShardId;

/// A topic that takes no results now. They are kept, and tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedTopic {
    /// Why, and what to do about it.
    pub reason: String,
    /// In how many of this node's shards results wait for it.
    pub shards: usize,
}

/// The topics that take no results of this node now.
#[derive(Debug, Default)]
pub struct BlockedTopics {
    topics: Mutex<BTreeMap<String, Blocked>>,
}

#[derive(Debug)]
struct Blocked {
    kind: Discriminant<BrokerError>,
    reason: String,
    shards: BTreeSet<ShardId>,
}

impl BlockedTopics {
    /// How a topic is blocked; none when it is not.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<BlockedTopic> {
        let topics = self.lock();
        topics.get(topic).map(|found| BlockedTopic { reason: found.reason.clone(), shards: found.shards.len() })
    }

    /// A topic did not take a shard's results.
    pub(crate) fn block(&self, topic: &str, shard: ShardId, error: &BrokerError) {
        let (kind, reason) = (discriminant(error), error.to_string());
        let mut topics = self.lock();
        let known = topics.get(topic).is_some_and(|found| found.kind == kind);
        if !known {
            tracing::warn!(topic, %shard, reason, "results cannot be sent; they are kept, in order, and tried again");
        }
        let found = topics.entry(topic.to_owned()).or_insert_with(|| Blocked {
            kind,
            reason: String::new(),
            shards: BTreeSet::new(),
        });
        (found.kind, found.reason) = (kind, reason);
        found.shards.insert(shard);
        show(topic, found.shards.len());
    }

    /// A topic took a shard's results, or the shard is somebody else's.
    pub(crate) fn free(&self, topic: &str, shard: ShardId) {
        let mut topics = self.lock();
        let Some(found) = topics.get_mut(topic) else { return };
        found.shards.remove(&shard);
        show(topic, found.shards.len());
        if found.shards.is_empty() {
            topics.remove(topic);
            tracing::info!(topic, "nothing waits any more for a topic that took no results");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Blocked>> {
        // Each change leaves the map whole.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn show(topic: &str, shards: usize) {
    metrics::gauge!("motet_outbox_blocked", "topic" => topic.to_owned()).set(shards as f64);
}
