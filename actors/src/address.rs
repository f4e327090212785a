//! Who a message is for: a kind and a key, never a kept reference.
//!
//! Used by the router, the census and every supervisor.

use std::fmt;
use std::sync::Arc;

use motet_engine::id::{Name, Namespace, RunId, ShardId};
use serde::{Deserialize, Serialize};

/// One actor of the system, wherever it lives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "key", rename_all = "snake_case")]
pub enum Address {
    /// A run.
    Run(RunId),
    /// A model of a namespace.
    Model(Namespace, Name),
    /// A vector index of a namespace.
    Index(Namespace, Name),
    /// What calls other services.
    Egress,
    /// The timers of a shard.
    Timers(ShardId),
    /// What brings unfinished runs up.
    Recovery,
    /// What begins the runs of schedules.
    Scheduler,
    /// A stream of a namespace, on the node that reads it.
    Stream(Namespace, Name),
    /// A partition of a stream: topic and number.
    Partition(Namespace, Name, Arc<str>, i32),
    /// What keeps streams in step with their definitions.
    StreamKeeper,
    /// What sends the results of a shard.
    Relay(ShardId),
}

impl Address {
    /// The kind's name in metrics and lists.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Model(..) => "model",
            Self::Index(..) => "index",
            Self::Egress => "egress",
            Self::Timers(_) => "timers",
            Self::Recovery => "recovery",
            Self::Scheduler => "scheduler",
            Self::Stream(..) => "stream",
            Self::Partition(..) => "partition",
            Self::StreamKeeper => "stream_keeper",
            Self::Relay(_) => "relay",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => write!(f, "run/{run}"),
            Self::Model(namespace, name) => write!(f, "model/{namespace}/{name}"),
            Self::Index(namespace, name) => write!(f, "index/{namespace}/{name}"),
            Self::Egress => f.write_str("egress"),
            Self::Timers(shard) => write!(f, "timers/{shard}"),
            Self::Recovery => f.write_str("recovery"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::Stream(namespace, name) => write!(f, "stream/{namespace}/{name}"),
            Self::Partition(namespace, name, topic, partition) => {
                write!(f, "partition/{namespace}/{name}/{topic}/{partition}")
            }
            Self::StreamKeeper => f.write_str("stream_keeper"),
            Self::Relay(shard) => write!(f, "relay/{shard}"),
        }
    }
}
