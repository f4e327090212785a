//! Kafka, through librdkafka: sources, sinks and questions about topics.
//!
//! Never commits a position that counts, never resets one, and never creates a topic. Chosen by the server; used through
//! the ports.

mod look;
mod mailbox;
mod native;
mod poll;
mod properties;
mod query;
mod rebalance;
mod seat;
mod settings;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod transaction;
mod trouble;

use std::sync::Arc;

use async_trait::async_trait;

use self::query::Questions;
pub use self::settings::{KafkaSettings, Mechanism, Sasl, Secret, Security, Tls};
use self::sink::KafkaSink;
use self::source::KafkaSource;
use self::transaction::KafkaTransactionalSink;
use crate::BrokerError;
use crate::port::{
    Bounds, Broker, Place, RecordSink, RecordSource, SinkSettings, SourceSettings, Start, TransactionSettings,
    TransactionalSink,
};

/// A Kafka cluster.
pub struct KafkaBroker {
    settings: Arc<KafkaSettings>,
    questions: Questions,
}

impl std::fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaBroker").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaBroker {
    /// The cluster that these settings lead to. Connects to nobody yet.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(settings: KafkaSettings) -> Result<Self, BrokerError> {
        settings.check()?;
        let questions = Questions::start(&settings)?;
        Ok(Self { settings: Arc::new(settings), questions })
    }

    /// Version of librdkafka.
    #[must_use]
    pub fn library_version() -> String {
        rdkafka::util::get_rdkafka_version().1
    }
}

/// Carries out what may block, off the executor's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(BrokerError::Unavailable(format!("the work was cut off: {error}"))))
}

#[async_trait]
impl Broker for KafkaBroker {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    async fn subscribe(&self, settings: SourceSettings) -> Result<Box<dyn RecordSource>, BrokerError> {
        let (cluster, questions) = (Arc::clone(&self.settings), self.questions.clone());
        let source = blocking(move || KafkaSource::open(&cluster, settings, questions)).await?;
        Ok(Box::new(source))
    }

    async fn sink(&self, settings: SinkSettings) -> Result<Arc<dyn RecordSink>, BrokerError> {
        let cluster = Arc::clone(&self.settings);
        let sink = blocking(move || KafkaSink::open(&cluster, &settings)).await?;
        Ok(Arc::new(sink))
    }

    async fn transactional_sink(
        &self,
        settings: TransactionSettings,
    ) -> Result<Box<dyn TransactionalSink>, BrokerError> {
        let cluster = Arc::clone(&self.settings);
        let sink = blocking(move || KafkaTransactionalSink::open(&cluster, settings)).await?;
        Ok(Box::new(sink))
    }

    async fn offset_for(&self, place: &Place, start: Start) -> Result<i64, BrokerError> {
        let place = place.clone();
        self.questions.ask(move |asking| asking.offset_for(&place, start)).await
    }

    async fn bounds(&self, place: &Place) -> Result<Bounds, BrokerError> {
        let place = place.clone();
        self.questions.ask(move |asking| asking.bounds(&place)).await
    }

    async fn origin(&self, topic: &str) -> Result<String, BrokerError> {
        let topic = topic.to_owned();
        self.questions.ask(move |asking| asking.origin(&topic)).await
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let topic = topic.to_owned();
        self.questions.ask(move |asking| asking.partitions(&topic)).await
    }
}
