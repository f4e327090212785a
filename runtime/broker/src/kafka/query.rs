//! Questions about topics, asked one after the other on a thread of their own.
//!
//! Never blocks whoever asks: questions wait in a bounded line and have a bound on their answer. Reads no records. Used
//! by the broker's handle and by sources that must know why reading stopped.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::native;
use super::properties::Scope;
use super::settings::{KafkaSettings, explain};
use super::trouble::{Context, code, meaning};
use crate::BrokerError;
use crate::port::{Bounds, Place, Start};

/// Questions that wait at most.
const WAITING: usize = 1024;

/// The client serves its own events at least this often.
const SERVED: Duration = Duration::from_secs(1);

/// How many events are served at once.
const SERVED_AT_ONCE: usize = 64;

/// Longest wait for one answer of the brokers.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// A question waits no longer than this for its turn.
const TURN: Duration = Duration::from_secs(10);

type Question = Box<dyn FnOnce(&Asking) + Send>;

/// Where questions are handed in.
#[derive(Clone)]
pub(super) struct Questions {
    line: SyncSender<Question>,
}

/// The client that asks.
pub(super) struct Asking {
    client: BaseConsumer<Context>,
}

impl Questions {
    /// Starts the thread; it ends when nobody can ask any more.
    pub(super) fn start(settings: &KafkaSettings) -> Result<Self, BrokerError> {
        let mut config = settings.client(Scope::Reading);
        config.set("allow.auto.create.topics", "false").set("isolation.level", "read_committed");
        let client: BaseConsumer<Context> =
            config.create_with_context(Context::default()).map_err(|error| explain(&error))?;
        let (line, questions) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("motet-kafka-questions".to_owned())
            .spawn(move || answer(&Asking { client }, &questions))
            .map_err(|error| BrokerError::Unavailable(format!("no thread can be started: {error}")))?;
        Ok(Self { line })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Asking) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.post(move |asking| {
            let _ = reply.send(question(asking));
        })?;
        match tokio::time::timeout(TURN + ANSWER, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(BrokerError::Unavailable("the question waited too long for its turn".to_owned())),
            Err(_) => Err(BrokerError::Unavailable(format!("no answer within {} s", (TURN + ANSWER).as_secs()))),
        }
    }

    /// Has something asked whose answer finds its own way.
    pub(super) fn post(&self, question: impl FnOnce(&Asking) + Send + 'static) -> Result<(), BrokerError> {
        let begun = Instant::now();
        let timely = move |asking: &Asking| {
            // Whoever asked has gone by then.
            if begun.elapsed() < TURN {
                question(asking);
            }
        };
        self.line.try_send(Box::new(timely)).map_err(|error| match error {
            TrySendError::Full(_) => BrokerError::Busy,
            TrySendError::Disconnected(_) => BrokerError::Closed,
        })
    }
}

fn answer(asking: &Asking, questions: &Receiver<Question>) {
    loop {
        match questions.recv_timeout(SERVED) {
            Ok(question) => question(asking),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        asking.serve();
    }
}

impl Asking {
    /// Takes errors and lines of the log, which would pile up otherwise. An empty answer does not say that there is
    /// nothing left.
    fn serve(&self) {
        for _ in 0..SERVED_AT_ONCE {
            let _ = self.client.poll(Duration::ZERO);
        }
    }

    fn failed(&self, error: &KafkaError, about: &str) -> BrokerError {
        match code(error) {
            Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown => self.silence(),
            code => meaning(code, about),
        }
    }

    fn silence(&self) -> BrokerError {
        self.serve();
        self.client.context().troubles.silence(ANSWER)
    }

    /// What a partition holds.
    pub(super) fn bounds(&self, place: &Place) -> Result<Bounds, BrokerError> {
        let Place { topic, partition } = place;
        match self.client.fetch_watermarks(topic, *partition, ANSWER) {
            Ok((low, high)) => Ok(Bounds { low, high }),
            Err(error) => Err(self.unknown(place, &error)),
        }
    }

    /// The offset that a start means.
    pub(super) fn offset_for(&self, place: &Place, start: Start) -> Result<i64, BrokerError> {
        let at = match start {
            Start::Earliest => return self.bounds(place).map(|bounds| bounds.low),
            Start::Latest => return self.bounds(place).map(|bounds| bounds.high),
            Start::At(at) => at.as_millis().max(0),
        };
        let mut times = TopicPartitionList::new();
        let listed = times.add_partition_offset(&place.topic, place.partition, Offset::Offset(at));
        let found = listed.and_then(|()| self.client.offsets_for_times(times, ANSWER));
        let found = found.map_err(|error| self.unknown(place, &error))?;
        let element = found.find_partition(&place.topic, place.partition);
        let element = element.ok_or_else(|| BrokerError::Refused(format!("{place}: no offset was answered")))?;
        element.error().map_err(|error| self.unknown(place, &error))?;
        match element.offset() {
            Offset::Offset(offset) => Ok(offset),
            // Nothing is as late as that.
            _ => self.bounds(place).map(|bounds| bounds.high),
        }
    }

    fn unknown(&self, place: &Place, error: &KafkaError) -> BrokerError {
        match code(error) {
            Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::LeaderNotAvailable => {
                match self.partitions(&place.topic) {
                    Ok(count) if place.partition >= count => {
                        BrokerError::UnknownPartition { topic: place.topic.to_string(), partition: place.partition }
                    }
                    Ok(_) => BrokerError::Unavailable(format!("{place} has no leader at present")),
                    Err(error) => error,
                }
            }
            _ => self.failed(error, &place.to_string()),
        }
    }

    /// How many partitions a topic has.
    pub(super) fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let about = format!("the topic '{topic}'");
        let metadata = self.client.fetch_metadata(Some(topic), ANSWER).map_err(|error| self.failed(&error, &about))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let unknown = || BrokerError::UnknownTopic { topic: topic.to_owned() };
        let found = found.ok_or_else(unknown)?;
        match found.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Err(unknown()),
            Some(code) => Err(meaning(code, &about)),
            None if found.partitions().is_empty() => Err(unknown()),
            None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
        }
    }

    /// What tells a topic from every other.
    pub(super) fn origin(&self, topic: &str) -> Result<String, BrokerError> {
        let about = format!("the topic '{topic}'");
        let client = self.client.client();
        let id = native::topic_id(client, topic, ANSWER).map_err(|(code, text)| match code {
            Code::UnknownTopicOrPartition => BrokerError::UnknownTopic { topic: topic.to_owned() },
            Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown => self.silence(),
            code => match meaning(code, &about) {
                BrokerError::Refused(_) => BrokerError::Refused(format!("{about}: {text}")),
                other => other,
            },
        })?;
        let cluster = client.fetch_cluster_id(ANSWER).ok_or_else(|| self.silence())?;
        Ok(format!("{cluster}/{id}"))
    }
}
