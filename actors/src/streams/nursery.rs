//! What the supervisor of streams and partitions needs to know.
//!
//! A stream that fails joins its group anew; a partition that fails claims its row anew and reads on from what is
//! durable. Used by the node.

use std::sync::Arc;

use async_trait::async_trait;
use motet_store::port::PartitionKey;

use super::{StreamState, Streams};
use crate::address::Address;
use crate::supervisor::Nursery;

/// The streams as their supervisor sees them.
pub(crate) struct StreamNursery(pub(crate) Arc<Streams>);

#[async_trait]
impl Nursery for StreamNursery {
    async fn revive(&self, child: &Address) -> Result<(), String> {
        match child {
            Address::Stream(namespace, name) => {
                let key = (namespace.clone(), name.clone());
                let Some(stream) = self.0.reading.get(&key).map(|reading| Arc::clone(&reading.stream)) else {
                    // It was ended meanwhile.
                    return Ok(());
                };
                self.0.begin(stream).await
            }
            Address::Partition(namespace, stream, topic, partition) => {
                let key = PartitionKey {
                    namespace: namespace.clone(),
                    stream: stream.clone(),
                    topic: topic.to_string(),
                    partition: *partition,
                };
                self.0.occupy(&key).await
            }
            _ => Ok(()),
        }
    }

    fn ended(&self, _: &Address) {}

    fn quarantined(&self, child: &Address, reason: &str) {
        tracing::error!(actor = %child, reason, "a stream stands still until it is put again or the node starts anew");
        if let Address::Stream(namespace, name) = child {
            let key = (namespace.clone(), name.clone());
            if let Some((_, reading)) = self.0.reading.remove(&key) {
                self.0.note(&reading.stream, StreamState::Failed(reason.to_owned()));
            }
        }
    }
}
