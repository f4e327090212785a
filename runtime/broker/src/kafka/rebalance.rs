//! What happens when the group gives and takes partitions.
//!
//! Nothing is waited for in librdkafka's callback, and nothing is read before its owner says where to begin: what the
//! group gives is answered with an empty assignment. Used by the poll thread.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::seat::Shared;
use super::trouble;
use crate::port::{Place, SourceEvent};

/// The consumer's context.
pub(super) struct SourceContext {
    pub(super) shared: Arc<Shared>,
    /// Why the event that is being served tells an error.
    reason: Mutex<String>,
}

impl SourceContext {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, reason: Mutex::default() }
    }

    /// What librdkafka said about the error that a poll just gave.
    pub(super) fn take_reason(&self) -> String {
        std::mem::take(&mut *self.reason.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn given(&self, consumer: &BaseConsumer<Self>, places: Vec<Place>) {
        let nothing = TopicPartitionList::new();
        let outcome = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&nothing),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&nothing),
        };
        warn(outcome, "what the group gave could not be answered");
        let mut seats = self.shared.seats();
        for place in &places {
            seats.entry(place.clone()).or_insert_with(|| self.shared.new_seat());
        }
        drop(seats);
        if !places.is_empty() {
            tracing::info!(places = ?Names(&places), "the group gives partitions");
            self.shared.mailbox.push(SourceEvent::Assigned(places));
        }
    }

    fn taken(&self, consumer: &BaseConsumer<Self>, places: Vec<Place>) {
        let lost = consumer.assignment_lost();
        let mut begun = TopicPartitionList::new();
        let mut seats = self.shared.seats();
        for place in &places {
            if seats.remove(place).is_some_and(|seat| seat.next.is_some()) {
                begun.add_partition(&place.topic, place.partition);
            }
        }
        drop(seats);
        if begun.count() > 0 {
            // A rest would outlast the stay.
            warn(consumer.resume(&begun), "partitions could not be resumed");
        }
        let outcome = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&begun),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        };
        warn(outcome, "what the group took could not be answered");
        places.iter().for_each(|place| self.shared.drop_wish(place));
        self.shared.mailbox.forget(&places);
        if !places.is_empty() {
            tracing::info!(places = ?Names(&places), lost, "the group takes partitions");
            self.shared.mailbox.push(SourceEvent::Revoked { places, lost });
        }
    }
}

fn warn(outcome: KafkaResult<()>, what: &str) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "{what}");
    }
}

/// Partitions in a line of the log.
struct Names<'a>(&'a [Place]);

impl std::fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|place| format_args!("{place}").to_string())).finish()
    }
}

/// The partitions of a list; the crate's own way panics at one that is empty.
fn places(list: &TopicPartitionList) -> Vec<Place> {
    if list.count() == 0 {
        return vec![];
    }
    list.elements().iter().map(|element| Place::new(element.topic(), element.partition())).collect()
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.shared.note_call();
        trouble::log(level, facility, text);
    }

    // They are asked for since they keep watermarks fresh; nobody reads them.
    fn stats_raw(&self, _: &[u8]) {
        self.shared.note_call();
    }

    fn error(&self, _: KafkaError, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ConsumerContext for SourceContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.shared.note_call();
        let places = places(list);
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.given(consumer, places),
            _ => self.taken(consumer, places),
        }
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _: &TopicPartitionList) {
        self.shared.note_call();
        if let Err(error) = outcome {
            tracing::debug!(%error, "the group was not told a position; nothing depends on it");
        }
    }
}
