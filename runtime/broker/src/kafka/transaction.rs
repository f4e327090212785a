//! Records and a position in one Kafka transaction: what was committed is known by the position that came with it.
//!
//! Everything blocks, so it runs off the executor. Never goes on after an outcome that nobody knows. Used through the
//! port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::blocking;
use super::properties::Scope;
use super::settings::{KafkaSettings, explain};
use super::sink::{Sending, Sent, Shape, end_elsewhere};
use super::trouble::{Context, code, meaning};
use crate::BrokerError;
use crate::port::{Delivered, Outgoing, Place, TransactionSettings, TransactionalSink};

/// What is open under one id.
struct Open {
    sending: Sending,
    metadata: ConsumerGroupMetadata,
    anchor: Place,
    id: String,
    within: Duration,
}

/// A transactional sink; none inside when it is spent.
pub(super) struct KafkaTransactionalSink {
    open: Option<Arc<Open>>,
    position: Option<i64>,
}

impl KafkaTransactionalSink {
    /// Fences whoever had it open, ends what they left open, and reads the position.
    pub(super) fn open(cluster: &KafkaSettings, settings: TransactionSettings) -> Result<Self, BrokerError> {
        let TransactionSettings { id, group, anchor, within, mut sink } = settings;
        let within = within.clamp(Duration::from_secs(1), Duration::from_secs(300));
        sink.deliver_within = sink.deliver_within.min(within);
        let more = [
            ("transactional.id", id.clone()),
            // The brokers must not give up what is still waited for here.
            ("transaction.timeout.ms", (within * 2).as_millis().to_string()),
        ];
        let sending = Sending::open(cluster, &sink, &more)?;
        let failed = |error: &KafkaError| failure(&sending, error, &id);
        sending.producer.init_transactions(within).map_err(|error| failed(&error))?;
        let mut config = cluster.client(Scope::Reading);
        config.set("group.id", &group).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let consumer: BaseConsumer<Context> =
            config.create_with_context(Context::default()).map_err(|error| explain(&error))?;
        let mut places = TopicPartitionList::new();
        places.add_partition(&anchor.topic, anchor.partition);
        let committed = consumer.committed_offsets(places, within).map_err(|error| match code(&error) {
            Code::OperationTimedOut => unended(&group, within),
            _ => failed(&error),
        })?;
        let position = match committed.find_partition(&anchor.topic, anchor.partition) {
            Some(element) => {
                element.error().map_err(|error| failed(&error))?;
                match element.offset() {
                    Offset::Offset(position) => Some(position),
                    _ => None,
                }
            }
            None => None,
        };
        let metadata = consumer.group_metadata();
        end_elsewhere(consumer);
        let metadata = metadata.ok_or_else(|| BrokerError::Setting("the group has no name".to_owned()))?;
        let open = Open { sending, metadata, anchor, id, within };
        Ok(Self { open: Some(Arc::new(open)), position })
    }
}

/// The producer answers, but the position that it left does not: a transaction of it has no end. Kafka forgets the end of
/// one for each partition that had no leader when it was to be told there. Which end it was nobody here can know.
fn unended(group: &str, within: Duration) -> BrokerError {
    BrokerError::Unavailable(format!(
        "the position of group '{group}' was not told within {within:?}: a transaction still holds it. If this stays, \
         Kafka has lost the end of one while a partition had no leader: `kafka-transactions.sh find-hanging` names it, and \
         `kafka-transactions.sh abort` ends it (its records may then be sent once more, with the same event ids)"
    ))
}

/// What the failure of a transaction's call means.
fn failure(sending: &Sending, error: &KafkaError, id: &str) -> BrokerError {
    match code(error) {
        Code::OperationTimedOut => sending.silence(),
        code => match (sending.producer.client().fatal_error(), code) {
            (Some((fatal, text)), _) => meaning(fatal, &format!("the transactions of '{id}': {text}")),
            (None, code) => meaning(code, &format!("the transactions of '{id}'")),
        },
    }
}

/// How a transaction ended.
enum Ending {
    Committed(Vec<Delivered>),
    /// It was given up and the producer can go on.
    Aborted(BrokerError),
    /// Nobody knows, or the producer cannot go on.
    Open(BrokerError),
}

impl Open {
    fn transact(&self, records: Vec<Outgoing>, position: i64) -> Ending {
        let producer = &self.sending.producer;
        if let Err(error) = producer.begin_transaction() {
            return Ending::Open(failure(&self.sending, &error, &self.id));
        }
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            match self.sending.begin(&record) {
                Ok(report) => sent.push((Ok(report), Shape::of(record))),
                Err(error) => return self.abort(error),
            }
        }
        let mut offsets = TopicPartitionList::new();
        let Place { topic, partition } = &self.anchor;
        let told = offsets
            .add_partition_offset(topic, *partition, Offset::Offset(position))
            .and_then(|()| producer.send_offsets_to_transaction(&offsets, &self.metadata, self.within));
        if let Err(error) = told {
            return self.abort(failure(&self.sending, &error, &self.id));
        }
        // A record that failed has said why; what the transaction says then is only that one has.
        let _ = producer.flush(self.within);
        let delivered = match reports(&self.sending, sent) {
            Ok(delivered) => delivered,
            Err(error) => return self.abort(error),
        };
        match producer.commit_transaction(self.within) {
            Ok(()) => Ending::Committed(delivered),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                self.abort(failure(&self.sending, &KafkaError::Transaction(error), &self.id))
            }
            Err(error) => Ending::Open(match failure(&self.sending, &error, &self.id) {
                BrokerError::Refused(why) => BrokerError::Unavailable(why),
                other => other,
            }),
        }
    }

    fn abort(&self, why: BrokerError) -> Ending {
        // This gives up by itself what is under way. Purged besides, what a next transaction sends could be caught too.
        match self.sending.producer.abort_transaction(self.within) {
            Ok(()) => Ending::Aborted(why),
            Err(error) => {
                let ending = failure(&self.sending, &error, &self.id);
                tracing::warn!(id = self.id, why = %why, "a transaction could not be aborted: {ending}");
                Ending::Open(if matches!(ending, BrokerError::Fenced(_)) { ending } else { why })
            }
        }
    }
}

/// What became of records that all have a report, since they were waited for.
fn reports(sending: &Sending, sent: Vec<(Sent, Shape)>) -> Result<Vec<Delivered>, BrokerError> {
    let report = |(sent, shape): (Sent, Shape)| sending.reported(sent, &shape);
    sent.into_iter().map(report).collect()
}

#[async_trait]
impl TransactionalSink for KafkaTransactionalSink {
    fn position(&self) -> Option<i64> {
        self.position
    }

    async fn send(&mut self, records: Vec<Outgoing>, position: i64) -> Result<Vec<Delivered>, BrokerError> {
        // Taken, so that a caller who goes away meanwhile leaves a spent sink behind.
        let open = self.open.take().ok_or(BrokerError::Closed)?;
        let working = Arc::clone(&open);
        match blocking(move || Ok(working.transact(records, position))).await? {
            Ending::Committed(delivered) => {
                (self.open, self.position) = (Some(open), Some(position));
                Ok(delivered)
            }
            Ending::Aborted(why) => {
                self.open = Some(open);
                Err(match why {
                    BrokerError::Unavailable(why) => BrokerError::Aborted(why),
                    other => other,
                })
            }
            Ending::Open(error) => {
                end_elsewhere(open);
                Err(error)
            }
        }
    }

    fn is_usable(&self) -> bool {
        self.open.is_some()
    }

    async fn close(mut self: Box<Self>) {
        if let Some(open) = self.open.take() {
            // Nothing is open between two calls; what a dropped call left is ended by the next one of this id.
            let _ = blocking(move || {
                drop(open);
                Ok(())
            })
            .await;
        }
    }
}

impl Drop for KafkaTransactionalSink {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            end_elsewhere(open);
        }
    }
}
