//! Records go out through an idempotent producer: each is written once, or the sink says that it was not.
//!
//! Tries again only what librdkafka can try without writing twice. Used through the port, and by the transactional sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header as NativeHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::oneshot;

use super::blocking;
use super::properties::Scope;
use super::settings::{KafkaSettings, explain};
use super::trouble::{self, Context, code, meaning};
use crate::BrokerError;
use crate::port::{Delivered, Outgoing, RecordSink, SinkSettings};

/// An acknowledgement is waited for a little longer than librdkafka does.
const SLACK: Duration = Duration::from_secs(5);

/// What became of a record.
type Report = Result<Delivered, Code>;

/// The producer's context: reports find their way back through what travels with each record.
#[derive(Default)]
pub(super) struct SinkContext(Context);

impl ClientContext for SinkContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        trouble::log(level, facility, text);
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for SinkContext {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(code(error)),
        };
        let _ = report.send(outcome);
    }
}

/// A producer and what its errors mean.
pub(super) struct Sending {
    pub(super) producer: ThreadedProducer<SinkContext>,
    deliver_within: Duration,
}

/// A record on its way, or why it is not.
pub(super) type Sent = Result<oneshot::Receiver<Report>, BrokerError>;

impl Sending {
    /// Makes a producer; blocks, but not for the brokers.
    pub(super) fn open(
        cluster: &KafkaSettings,
        settings: &SinkSettings,
        more: &[(&str, String)],
    ) -> Result<Self, BrokerError> {
        let mut config = ClientConfig::new();
        let deliver_within = settings.deliver_within.max(Duration::from_millis(100));
        // Java's clients hash keys like this: the same key goes to the same partition, whoever writes it.
        config.set("partitioner", "murmur2_random");
        let unknown = (deliver_within / 2).min(Duration::from_secs(10));
        config.set("topic.metadata.propagation.max.ms", unknown.as_millis().to_string());
        cluster.settle(&mut config, Scope::Writing);
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("enable.idempotence", "true").set("acks", "all");
        config.set("message.timeout.ms", deliver_within.as_millis().to_string());
        config.set("queue.buffering.max.messages", settings.queue_records.max(1).to_string());
        config.set("queue.buffering.max.kbytes", (settings.queue_bytes / 1024).max(1).to_string());
        config.set("linger.ms", settings.linger.as_millis().to_string());
        for (name, value) in more {
            config.set(*name, value);
        }
        let producer = config.create_with_context(SinkContext::default()).map_err(|error| explain(&error))?;
        Ok(Self { producer, deliver_within })
    }

    /// Hands a record to librdkafka.
    pub(super) fn begin(&self, record: &Outgoing) -> Sent {
        let (report, reported) = oneshot::channel();
        let mut native = BaseRecord::<[u8], [u8], _>::with_opaque_to(&record.topic, Box::new(report));
        (native.partition, native.timestamp) = (record.partition, record.timestamp);
        (native.key, native.payload) = (record.key.as_deref(), record.value.as_deref());
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            native.headers =
                Some(record.headers.iter().fold(headers, |headers, (key, value)| {
                    headers.insert(NativeHeader { key, value: value.as_deref() })
                }));
        }
        match self.producer.send(native) {
            Ok(()) => Ok(reported),
            Err((error, _)) => Err(self.failed(code(&error), record.partition, &record.topic, record.bytes())),
        }
    }

    /// Waits for a report.
    pub(super) async fn report(&self, sent: Sent, shape: &Shape) -> Result<Delivered, BrokerError> {
        match tokio::time::timeout(self.deliver_within + SLACK, sent?).await {
            Ok(Ok(Ok(delivered))) => Ok(delivered),
            Ok(Ok(Err(code))) => Err(self.failed(code, shape.partition, &shape.topic, shape.bytes)),
            Ok(Err(_)) => Err(BrokerError::Closed),
            Err(_) => Err(self.silence()),
        }
    }

    /// A report that must be there already.
    pub(super) fn reported(&self, sent: Sent, shape: &Shape) -> Result<Delivered, BrokerError> {
        match sent?.try_recv() {
            Ok(Ok(delivered)) => Ok(delivered),
            Ok(Err(code)) => Err(self.failed(code, shape.partition, &shape.topic, shape.bytes)),
            Err(_) => Err(self.silence()),
        }
    }

    pub(super) fn silence(&self) -> BrokerError {
        self.producer.context().0.troubles.silence(self.deliver_within)
    }

    /// What a failure of one record means.
    pub(super) fn failed(&self, code: Code, partition: Option<i32>, topic: &str, bytes: usize) -> BrokerError {
        let topic = topic.to_owned();
        if let Some((code, text)) = self.producer.client().fatal_error() {
            return match meaning(code, &text) {
                BrokerError::Refused(_) => BrokerError::Unavailable(format!("the producer has failed: {text}")),
                other => other,
            };
        }
        match (code, partition) {
            (Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize, _) => {
                BrokerError::TooLarge { topic, bytes }
            }
            (Code::UnknownPartition, Some(partition)) => BrokerError::UnknownPartition { topic, partition },
            (Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition, _) => {
                BrokerError::UnknownTopic { topic }
            }
            (Code::MessageTimedOut | Code::OperationTimedOut, _) => self.silence(),
            (code, _) => meaning(code, &format!("the topic '{topic}'")),
        }
    }

    /// Gives up what is under way.
    pub(super) fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

/// What remains known of a record that was handed over.
pub(super) struct Shape {
    topic: String,
    partition: Option<i32>,
    bytes: usize,
}

impl Shape {
    pub(super) fn of(record: Outgoing) -> Self {
        let bytes = record.bytes();
        Self { topic: record.topic, partition: record.partition, bytes }
    }
}

/// A sink of records that stand each for themselves.
pub(super) struct KafkaSink {
    sending: std::sync::Arc<Sending>,
    closed: AtomicBool,
}

impl KafkaSink {
    pub(super) fn open(cluster: &KafkaSettings, settings: &SinkSettings) -> Result<Self, BrokerError> {
        let sending = Sending::open(cluster, settings, &[])?;
        Ok(Self { sending: std::sync::Arc::new(sending), closed: AtomicBool::new(false) })
    }
}

#[async_trait]
impl RecordSink for KafkaSink {
    async fn send(&self, records: Vec<Outgoing>) -> Vec<Result<Delivered, BrokerError>> {
        let closed = self.closed.load(Ordering::Acquire);
        let (mut full, mut sent) = (false, Vec::with_capacity(records.len()));
        for record in records {
            let outcome = match (closed, full) {
                (true, _) => Err(BrokerError::Closed),
                // What follows must not overtake it.
                (_, true) => Err(BrokerError::Busy),
                _ => self.sending.begin(&record),
            };
            full |= outcome.as_ref().is_err_and(|error| *error == BrokerError::Busy);
            sent.push((outcome, Shape::of(record)));
        }
        join_all(sent.into_iter().map(async |(sent, shape)| self.sending.report(sent, &shape).await)).await
    }

    async fn close(&self, within: Duration) {
        self.closed.store(true, Ordering::Release);
        let (sending, begun) = (std::sync::Arc::clone(&self.sending), Instant::now());
        let _ = blocking(move || {
            if sending.producer.flush(within).is_err() {
                tracing::warn!("records were given up after {} ms", begun.elapsed().as_millis());
                sending.purge();
            }
            Ok(())
        })
        .await;
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        end_elsewhere(std::sync::Arc::clone(&self.sending));
    }
}

/// Ends a producer on a thread of its own: that takes up to half a second, which no executor's thread has.
pub(super) fn end_elsewhere<T: Send + 'static>(ending: T) {
    let _ = std::thread::Builder::new().name("motet-kafka-end".to_owned()).spawn(move || drop(ending));
}
