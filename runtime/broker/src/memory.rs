//! A broker in memory, with the semantics of Kafka as far as the ports show them: offsets with gaps, groups with
//! rebalances, credit, retention, topics that come again.
//!
//! Keeps nothing beyond the process and serves nobody outside it. Used by tests, and on a laptop without Kafka.

mod group;
mod sink;
mod source;
mod world;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

use self::sink::{MemorySink, MemoryTransactionalSink};
use self::source::MemorySource;
pub use self::world::LARGEST;
use self::world::World;
use crate::BrokerError;
use crate::pattern::Pattern;
use crate::port::{
    Bounds, Broker, Outgoing, Place, Record, RecordSink, RecordSource, SinkSettings, SourceSettings, Start, Topics,
    TransactionSettings, TransactionalSink,
};

/// A broker; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {
    world: Arc<World>,
}

impl MemoryBroker {
    /// One without topics.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a topic, unless there is one of this name.
    pub fn create(&self, topic: &str, partitions: i32) {
        self.world.change(|state| state.create(topic, partitions));
    }

    /// Deletes a topic and everything in it.
    pub fn delete(&self, topic: &str) {
        self.world.change(|state| state.delete(topic));
    }

    /// Forgets the records before an offset, as retention does.
    pub fn trim(&self, place: &Place, before: i64) {
        self.world.change(|state| state.trim(place, before));
    }

    /// What a partition holds for readers; nothing when there is no such partition.
    #[must_use]
    pub fn records(&self, place: &Place) -> Vec<Record> {
        let read = |log: &world::Log| log.from(log.bounds().low).cloned().collect();
        self.world.look(|state| state.log(place).map(read).unwrap_or_default())
    }

    /// Writes records that no reader will see, as a transaction that is aborted does.
    ///
    /// # Errors
    /// As a sink's.
    pub fn write_aborted(&self, records: &[Outgoing]) -> Result<(), BrokerError> {
        self.world.change(|state| state.write_aborted(records))
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn subscribe(&self, settings: SourceSettings) -> Result<Box<dyn RecordSource>, BrokerError> {
        if settings.group.is_empty() {
            return Err(BrokerError::Setting("the group has no name".to_owned()));
        }
        let pattern = match &settings.topics {
            Topics::Named(names) if names.is_empty() => {
                return Err(BrokerError::Setting("no topic is named".to_owned()));
            }
            Topics::Named(_) => None,
            Topics::Pattern(pattern) => Some(Pattern::new(pattern)?),
        };
        Ok(Box::new(MemorySource::join(&self.world, settings, pattern)))
    }

    async fn sink(&self, _: SinkSettings) -> Result<Arc<dyn RecordSink>, BrokerError> {
        Ok(Arc::new(MemorySink { world: Arc::clone(&self.world), closed: AtomicBool::new(false) }))
    }

    async fn transactional_sink(
        &self,
        settings: TransactionSettings,
    ) -> Result<Box<dyn TransactionalSink>, BrokerError> {
        Ok(Box::new(MemoryTransactionalSink::open(&self.world, settings)?))
    }

    async fn offset_for(&self, place: &Place, start: Start) -> Result<i64, BrokerError> {
        self.world.look(|state| state.offset_for(place, start))
    }

    async fn bounds(&self, place: &Place) -> Result<Bounds, BrokerError> {
        self.world.look(|state| state.log(place).map(world::Log::bounds))
    }

    async fn origin(&self, topic: &str) -> Result<String, BrokerError> {
        self.world.look(|state| state.topic(topic).map(|found| format!("memory/{}", found.id)))
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        self.world.look(|state| state.topic(topic).map(|found| i32::try_from(found.logs.len()).unwrap_or(i32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryBroker;
    use crate::contract::{CHECKS, MemoryGrounds};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_every_promise() {
        for (name, check) in CHECKS {
            eprintln!("memory: {name}");
            check(MemoryGrounds::around(MemoryBroker::new())).await;
        }
    }
}
