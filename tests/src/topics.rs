//! Topics of a broker, as tests need them: made, filled, and read to their ends.
//!
//! Reads committed records only, as a careful application does. Used by the suite about streams.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use motet_broker::contract::{Grounds, KafkaGrounds, Reader};
use motet_broker::kafka::KafkaSettings;
use motet_broker::port::{Broker, Delivered, Outgoing, Place, Record, RecordSink, SinkSettings};

/// Longest time that a record may need, over restarts of the broker.
const DELIVERY: Duration = Duration::from_secs(120);

/// Bytes of the largest record that is sent.
const LARGEST: usize = 32 << 20;

/// Records that are sent at one time.
const AT_ONCE: usize = 1_000;

/// A broker's topics.
pub struct Topics {
    brokers: String,
    grounds: Arc<dyn Grounds>,
    sink: Arc<dyn RecordSink>,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Topics {
    /// The topics of the broker that listens here and asks for no security.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub async fn at(brokers: &str) -> Result<Self> {
        let mut settings = KafkaSettings::plaintext(brokers);
        settings.properties.insert("message.max.bytes".to_owned(), LARGEST.to_string());
        let grounds = KafkaGrounds::around(brokers, settings);
        let settings = SinkSettings { deliver_within: DELIVERY, ..SinkSettings::default() };
        let sink = grounds.broker().sink(settings).await?;
        Ok(Self { brokers: brokers.to_owned(), grounds, sink })
    }

    /// Where the broker listens.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// What is done behind the backs of readers and writers.
    #[must_use]
    pub fn grounds(&self) -> &Arc<dyn Grounds> {
        &self.grounds
    }

    /// The broker as an application sees it.
    #[must_use]
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.grounds.broker()
    }

    /// Makes topics, each with so many partitions.
    pub async fn create(&self, topics: &[(&str, i32)]) {
        for (topic, partitions) in topics {
            self.grounds.create(topic, *partitions).await;
        }
    }

    /// Writes records and tells where each lies.
    ///
    /// # Errors
    /// When one is not taken.
    pub async fn produce(&self, records: Vec<Outgoing>) -> Result<Vec<Delivered>> {
        let mut delivered = vec![];
        for some in records.chunks(AT_ONCE) {
            for outcome in self.sink.send(some.to_vec()).await {
                delivered.push(outcome?);
            }
        }
        Ok(delivered)
    }

    /// What there is in a topic, by partition.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn content(&self, topic: &str, partitions: i32) -> Result<BTreeMap<i32, Vec<Record>>> {
        let broker = self.broker();
        let mut ends = BTreeMap::new();
        for partition in 0..partitions {
            let place = Place::new(topic, partition);
            let high = broker.bounds(&place).await?.high;
            ends.insert(place, high);
        }
        let mut reader = Reader::of(&broker, &self.grounds.fresh("content"), topic, partitions).await;
        let read = |reader: &Reader, place: &Place, high: i64| reader.next.get(place).copied().unwrap_or(0) >= high;
        reader
            .until("the end of the topic", |reader| ends.iter().all(|(place, high)| read(reader, place, *high)))
            .await;
        reader.close().await;
        let records = std::mem::take(&mut reader.records);
        Ok(records.into_iter().map(|(place, records)| (place.partition, records)).collect())
    }

    /// How many records a topic's partitions hold or held, marks of transactions among them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn high(&self, topic: &str, partitions: i32) -> Result<i64> {
        let mut sum = 0;
        for partition in 0..partitions {
            sum += self.broker().bounds(&Place::new(topic, partition)).await?.high;
        }
        Ok(sum)
    }
}

/// A record with a key and a text.
#[must_use]
pub fn record(topic: &str, partition: i32, key: &str, value: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        topic: topic.to_owned(),
        partition: Some(partition),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        ..Outgoing::default()
    }
}

/// The value of a header as text.
///
/// # Errors
/// When there is none.
pub fn header(record: &Record, name: &str) -> Result<String> {
    let found = record.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone());
    let value = found.with_context(|| format!("no header {name} in {:?}", record.headers))?;
    ensure!(!value.is_empty(), "the header {name} is empty");
    Ok(String::from_utf8_lossy(&value).into_owned())
}
