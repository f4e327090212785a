//! The thread that polls a consumer: hands records over, rests and goes on by credit, and does what the handle wishes.
//!
//! Never waits for anything but librdkafka and a wake-up, never longer than a tenth of a second, and never for a
//! database. The consumer lives and ends on this thread, since ending it blocks. Used by the source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::look::{Depth, Look};
use super::native;
use super::query::Questions;
use super::rebalance::SourceContext;
use super::seat::{Reading, Shared, Wish};
use super::trouble::{code, meaning};
use crate::port::{Batch, Place, Record, SourceEvent};
use crate::{BrokerError, ErrorClass};

/// Longest sleep: what wakes the thread may have been missed.
const SLEEP: Duration = Duration::from_millis(100);

/// Records that are taken before wishes are looked at again.
const AT_ONCE: usize = 1000;

/// Time between two looks at positions and watermarks.
const LOOK_AT_POSITIONS: Duration = Duration::from_millis(200);

/// A consumer and what belongs to it.
pub(super) struct Poller {
    pub(super) consumer: BaseConsumer<SourceContext>,
    pub(super) shared: Arc<Shared>,
    pub(super) look: Look,
    pub(super) group: String,
    open: Option<Batch>,
    /// Partitions that librdkafka rests from.
    resting: BTreeSet<Place>,
    looked: Instant,
}

impl Poller {
    pub(super) fn new(
        consumer: BaseConsumer<SourceContext>,
        shared: Arc<Shared>,
        questions: Questions,
        group: String,
    ) -> Self {
        let look = Look::new(Arc::clone(&shared), questions);
        Self { consumer, shared, look, group, open: None, resting: BTreeSet::new(), looked: Instant::now() }
    }

    /// Polls until the source is closed or cannot go on; returns when the group was left.
    pub(super) fn run(mut self) {
        self.shared.begin_polling();
        let end = loop {
            if self.shared.is_closing() {
                break BrokerError::Closed;
            }
            for (place, wish) in self.shared.wishes() {
                self.obey(&place, wish);
            }
            self.go_on();
            let drained = match self.drain() {
                Ok(drained) => drained,
                Err(error) => break error,
            };
            self.look_at_positions();
            self.look.when_due();
            if drained {
                std::thread::park_timeout(SLEEP);
            }
        };
        let shared = Arc::clone(&self.shared);
        for (place, wish) in shared.wishes() {
            if let Some(next) = wish.commit {
                self.commit(&place, next);
            }
        }
        // Leaves the group, which takes its time.
        drop(self);
        shared.mailbox.push(SourceEvent::Ended(end));
        shared.ended.send_replace(true);
    }

    fn obey(&mut self, place: &Place, wish: Wish) {
        if let Some(next) = wish.commit {
            self.commit(place, next);
        }
        match wish.reading {
            Some(Reading::From(offset)) => self.begin(place, offset),
            Some(Reading::Halted) => self.halt(place),
            None => {}
        }
        if let Some(paused) = wish.paused {
            if let Some(seat) = self.shared.seats().get_mut(place) {
                seat.paused = paused;
            }
            self.settle(place);
        }
    }

    fn begin(&mut self, place: &Place, offset: i64) {
        self.halt(place);
        let stale = native::position(self.consumer.client(), place);
        let mut list = TopicPartitionList::new();
        let listed = list.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset));
        let outcome = listed.and_then(|()| {
            let mut seats = self.shared.seats();
            let Some(seat) = seats.get_mut(place) else { return Ok(()) };
            (seat.next, seat.stale, seat.high, seat.origin) = (Some(offset), stale, None, None);
            drop(seats);
            self.consumer.incremental_assign(&list)
        });
        match outcome {
            Ok(()) => {
                self.settle(place);
                self.look.soon(Depth::Origins);
            }
            Err(error) => {
                if let Some(seat) = self.shared.seats().get_mut(place) {
                    seat.next = None;
                }
                self.shared.mailbox.push(SourceEvent::Trouble(format!("{place} cannot be read: {error}")));
            }
        }
    }

    fn halt(&mut self, place: &Place) {
        let begun = self.shared.seats().get_mut(place).is_some_and(|seat| seat.next.take().is_some());
        if !begun {
            return;
        }
        self.flush();
        self.shared.mailbox.forget(std::slice::from_ref(place));
        let list = only(place);
        if self.resting.remove(place) {
            let _ = self.consumer.resume(&list);
            if let Some(seat) = self.shared.seats().get_mut(place) {
                seat.rests = false;
            }
        }
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(%place, %error, "a partition could not be put down");
        }
    }

    fn commit(&self, place: &Place, next: i64) {
        let mut list = TopicPartitionList::new();
        let listed = list.add_partition_offset(&place.topic, place.partition, Offset::Offset(next));
        if let Err(error) = listed.and_then(|()| self.consumer.commit(&list, CommitMode::Async)) {
            tracing::debug!(%place, %error, "the group was not told a position; nothing depends on it");
        }
    }

    /// Goes on with partitions whose credit came back.
    fn go_on(&mut self) {
        for place in self.resting.clone() {
            self.settle(&place);
        }
    }

    /// Rests or goes on as credit and the handle want it.
    fn settle(&mut self, place: &Place) {
        let mut seats = self.shared.seats();
        let Some(seat) = seats.get_mut(place).filter(|seat| seat.next.is_some()) else {
            self.resting.remove(place);
            return;
        };
        let rest = seat.paused || seat.ledger.rests();
        if rest == seat.rests {
            return;
        }
        seat.rests = rest;
        drop(seats);
        let list = only(place);
        let outcome = if rest {
            self.resting.insert(place.clone());
            metrics::counter!("motet_kafka_rests_total").increment(1);
            self.consumer.pause(&list)
        } else {
            self.resting.remove(place);
            let resumed = self.consumer.resume(&list);
            // A seek forgets the position, by which a gap at the end is seen.
            self.flush();
            self.look_at_position(place);
            native::hurry(self.consumer.client(), place);
            resumed
        };
        if let Err(error) = outcome {
            tracing::warn!(%place, %error, rest, "a partition does not rest, or does not go on");
        }
    }

    /// Takes what has come. True when nothing is left; an error ends the source.
    fn drain(&mut self) -> Result<bool, BrokerError> {
        let mut drained = false;
        for _ in 0..AT_ONCE {
            let full = match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let record = Taken::of(&message, self.open.as_ref());
                    drop(message);
                    self.take(record)
                }
                Some(Err(error)) => {
                    self.fail(&error)?;
                    None
                }
                // An event that is no record comes as nothing too.
                None if self.shared.was_called() => None,
                None => {
                    drained = true;
                    break;
                }
            };
            if let Some(place) = full {
                self.settle(&place);
            }
        }
        self.flush();
        Ok(drained)
    }

    /// Puts a record into the open batch; its place when the credit there is used up.
    fn take(&mut self, Taken { place, record }: Taken) -> Option<Place> {
        let mut seats = self.shared.seats();
        let seat = seats.get_mut(&place)?;
        // After a rest librdkafka begins where it was; anything before that was handed over.
        let from = seat.next.filter(|next| record.offset >= *next)?;
        let next = record.offset + 1;
        seat.next = Some(next);
        let credit = seat.ledger.take(record.bytes());
        let rests = seat.ledger.rests();
        drop(seats);
        let batch = Batch::new(place.clone(), vec![record], (from, next), credit);
        let limit = self.shared.mailbox.limit();
        let rest = match self.open.as_mut() {
            Some(open) => open.join(batch, limit),
            None => Some(batch),
        };
        if let Some(batch) = rest {
            self.flush();
            self.open = Some(batch);
        }
        rests.then_some(place)
    }

    /// Hands the open batch over, unless its partition was taken meanwhile.
    fn flush(&mut self) {
        let Some(batch) = self.open.take() else { return };
        let here = self
            .shared
            .seats()
            .get(&batch.place)
            .is_some_and(|seat| seat.next.is_some() && batch.belongs_to(&seat.ledger));
        if here {
            self.shared.mailbox.push(SourceEvent::Records(batch));
        }
    }

    /// Looks at all partitions once in a while.
    fn look_at_positions(&mut self) {
        if self.looked.elapsed() < LOOK_AT_POSITIONS {
            return;
        }
        self.looked = Instant::now();
        let begun = |(place, seat): (&Place, &super::seat::Seat)| seat.next.map(|_| place.clone());
        let places: Vec<Place> = self.shared.seats().iter().filter_map(begun).collect();
        places.iter().for_each(|place| self.look_at_position(place));
    }

    /// Tells of a gap at the end of what was read, and remembers how much more there is.
    fn look_at_position(&self, place: &Place) {
        let client = self.consumer.client();
        let (position, high) = (native::position(client, place), native::high(client, place));
        let mut seats = self.shared.seats();
        let Some(seat) = seats.get_mut(place) else { return };
        seat.high = high.or(seat.high);
        let (Some(next), Some(position)) = (seat.next, position) else {
            seat.stale = None;
            return;
        };
        if seat.stale == Some(position) || position <= next {
            return;
        }
        (seat.next, seat.stale) = (Some(position), None);
        let gap = Batch::new(place.clone(), vec![], (next, position), seat.ledger.take_none());
        drop(seats);
        self.shared.mailbox.push(SourceEvent::Records(gap));
    }

    /// What an error means for the source; an error in return ends it.
    fn fail(&mut self, error: &KafkaError) -> Result<(), BrokerError> {
        let reason = self.consumer.context().take_reason();
        if let Some((code, text)) = self.consumer.client().fatal_error() {
            return Err(match meaning(code, &format!("the group '{}'", self.group)) {
                BrokerError::Refused(_) | BrokerError::Unavailable(_) => BrokerError::Refused(text),
                other => other,
            });
        }
        let code = code(error);
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                self.look.soon(Depth::Bounds);
                return Ok(());
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
                self.look.soon(Depth::Origins);
            }
            Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed => {
                return Err(meaning(code, &reason));
            }
            Code::InvalidGroupId | Code::InvalidSessionTimeout | Code::UnsupportedAssignor => {
                return Err(BrokerError::Setting(format!("the group '{}' cannot be joined: {reason}", self.group)));
            }
            _ => {}
        }
        if self.shared.troubles.note(code, &reason, Instant::now()) {
            self.shared.mailbox.push(SourceEvent::Trouble(advice(code, &reason, &self.group)));
        }
        Ok(())
    }
}

fn advice(code: Code, reason: &str, group: &str) -> String {
    match code {
        Code::InconsistentGroupProtocol => format!(
            "the group '{group}' cannot be joined: its other members share partitions in another way; give this \
             stream a group of its own"
        ),
        Code::UnknownTopicOrPartition | Code::UnknownTopic => format!("{reason}; create the topic, or mend its name"),
        _ => {
            let error = meaning(code, reason);
            if error.class() == ErrorClass::Retryable { reason.to_owned() } else { error.to_string() }
        }
    }
}

fn only(place: &Place) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.topic, place.partition);
    list
}

/// A record that was copied out of librdkafka's memory.
struct Taken {
    place: Place,
    record: Record,
}

impl Taken {
    /// `open` lends the name of its topic, which most records share with the one before.
    fn of(message: &BorrowedMessage<'_>, open: Option<&Batch>) -> Self {
        let (topic, partition) = (message.topic(), message.partition());
        let place = match open {
            Some(batch) if &*batch.place.topic == topic => Place { topic: Arc::clone(&batch.place.topic), partition },
            _ => Place::new(topic, partition),
        };
        let record = Record {
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: native::headers(message),
        };
        Self { place, record }
    }
}
