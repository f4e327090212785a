//! The floor on the reading side: librdkafka's consumer alone, which reads a topic and does nothing with it.
//!
//! Used by `ingest`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Longest wait for a record.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads so many records and returns how many it did per second, from the first one on.
///
/// # Errors
/// When the broker does not hand them over.
pub async fn measure(brokers: &str, topic: &str, partitions: i32, records: u64) -> Result<f64> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read(&brokers, &topic, partitions, records)).await?
}

fn read(brokers: &str, topic: &str, partitions: i32, records: u64) -> Result<f64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "floor").set("enable.auto.commit", "false");
    // As Motet reads, so that only what it does with records differs.
    config.set("isolation.level", "read_committed").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut begun, mut read, mut bytes) = (None, 0u64, 0usize);
    while read < records {
        let message = consumer.poll(PATIENCE).context("no record came")??;
        bytes += message.payload().map_or(0, <[u8]>::len);
        begun.get_or_insert_with(Instant::now);
        read += 1;
    }
    ensure!(bytes > 0, "the records were empty");
    Ok(records as f64 / begun.context("nothing was read")?.elapsed().as_secs_f64())
}
