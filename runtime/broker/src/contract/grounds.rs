//! What checks need beside the ports: topics that come and go, and what only brokers do.
//!
//! Used by the checks of the contract, and by tests elsewhere that need topics.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::interval;

use super::PATIENCE;
use crate::BrokerError;
use crate::kafka::{KafkaBroker, KafkaSettings};
use crate::memory::MemoryBroker;
use crate::port::{Broker, Outgoing, Place};

/// A broker, and what is done behind its back.
#[async_trait(?Send)]
pub trait Grounds: Send + Sync {
    /// The broker.
    fn broker(&self) -> Arc<dyn Broker>;

    /// Makes a topic and waits until it can be used.
    async fn create(&self, topic: &str, partitions: i32);

    /// The same, for records of up to so many bytes.
    async fn create_large(&self, topic: &str, partitions: i32, bytes: usize);

    /// Deletes a topic and waits until it is not there any more.
    async fn delete(&self, topic: &str);

    /// Takes the records before an offset away, as retention does.
    async fn trim(&self, place: &Place, before: i64);

    /// Writes records in a transaction that is aborted.
    async fn write_aborted(&self, records: Vec<Outgoing>);

    /// A name that nothing else has.
    fn fresh(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        format!("{name}-{}-{}-{number}", std::process::id(), since.as_millis())
    }
}

/// What an environment variable says of the broker that tests share; without it the test is skipped, loudly, and in CI
/// it fails.
///
/// # Panics
/// In CI, when it is not set.
#[must_use]
pub fn service(test: &str, variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let why = format!("{variable} is not set; `tests/services/services start kafka` prints it");
        // Written past the harness's capture, so that a plain `cargo test` shows it too.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "{test} was skipped in CI: {why}");
    }
    value
}

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let (begun, mut looks) = (Instant::now(), interval(Duration::from_millis(20)));
    while !ask().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        looks.tick().await;
    }
}

/// Grounds around a broker in memory.
#[derive(Debug)]
pub struct MemoryGrounds(MemoryBroker);

impl MemoryGrounds {
    /// Around this broker.
    #[must_use]
    pub fn around(broker: MemoryBroker) -> Arc<dyn Grounds> {
        Arc::new(Self(broker))
    }
}

#[async_trait(?Send)]
impl Grounds for MemoryGrounds {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.clone())
    }

    async fn create(&self, topic: &str, partitions: i32) {
        self.0.create(topic, partitions);
    }

    async fn create_large(&self, _: &str, _: i32, _: usize) {
        panic!("a broker in memory has one bound for all records");
    }

    async fn delete(&self, topic: &str) {
        self.0.delete(topic);
    }

    async fn trim(&self, place: &Place, before: i64) {
        self.0.trim(place, before);
    }

    async fn write_aborted(&self, records: Vec<Outgoing>) {
        self.0.write_aborted(&records).unwrap();
    }
}

/// Grounds around a Kafka cluster that asks for no security.
pub struct KafkaGrounds {
    brokers: String,
    broker: Arc<KafkaBroker>,
    admin: AdminClient<DefaultClientContext>,
}

impl std::fmt::Debug for KafkaGrounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaGrounds").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl KafkaGrounds {
    /// Around the cluster that `brokers` belong to, reached with `settings`.
    ///
    /// # Panics
    /// When the settings cannot be used.
    #[must_use]
    pub fn around(brokers: &str, settings: KafkaSettings) -> Arc<dyn Grounds> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let (admin, broker) = (config.create().unwrap(), KafkaBroker::new(settings).unwrap());
        Arc::new(Self { brokers: brokers.to_owned(), broker: Arc::new(broker), admin })
    }

    async fn make(&self, new: NewTopic<'_>, partitions: i32) {
        // A topic that was deleted a moment ago may still stand in the way.
        until("the topic to be made", async || {
            let made = self.admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
            matches!(&made[0], Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)))
        })
        .await;
        let topic = new.name;
        until("the topic to be there", async || {
            let led = async |partition| self.broker.bounds(&Place::new(topic, partition)).await.is_ok();
            self.broker.partitions(topic).await == Ok(partitions) && led(0).await && led(partitions - 1).await
        })
        .await;
    }
}

#[async_trait(?Send)]
impl Grounds for KafkaGrounds {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker) as Arc<dyn Broker>
    }

    async fn create(&self, topic: &str, partitions: i32) {
        self.make(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), partitions).await;
    }

    async fn create_large(&self, topic: &str, partitions: i32, bytes: usize) {
        let bytes = bytes.to_string();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", &bytes);
        self.make(new, partitions).await;
    }

    async fn delete(&self, topic: &str) {
        self.admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        until("the topic to be gone", async || {
            matches!(self.broker.partitions(topic).await, Err(BrokerError::UnknownTopic { .. }))
        })
        .await;
    }

    async fn trim(&self, place: &Place, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&place.topic, place.partition, Offset::Offset(before)).unwrap();
        self.admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    async fn write_aborted(&self, records: Vec<Outgoing>) {
        let (brokers, id) = (self.brokers.clone(), self.fresh("aborted"));
        let work = move || {
            let mut config = ClientConfig::new();
            let producer: BaseProducer =
                config.set("bootstrap.servers", brokers).set("transactional.id", id).create().unwrap();
            producer.init_transactions(PATIENCE).unwrap();
            producer.begin_transaction().unwrap();
            for record in &records {
                let mut native = BaseRecord::<[u8], [u8]>::to(&record.topic);
                (native.partition, native.payload) = (record.partition, record.value.as_deref());
                producer.send(native).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            producer.abort_transaction(PATIENCE).unwrap();
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    }
}
