//! What a broker in memory holds: topics with their partitions, groups, and the positions of transactions.
//!
//! One lock around everything; nothing is waited for while it is held. Used by the sources and sinks of `memory`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::group::Group;
use crate::BrokerError;
use crate::port::{Bounds, Delivered, Outgoing, Place, Record, Start};

/// The largest record, in bytes of key, value and headers: what Kafka allows by itself.
pub const LARGEST: usize = 1_000_000;

/// A broker's whole state.
#[derive(Debug, Default)]
pub(super) struct World {
    state: Mutex<State>,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub(super) struct State {
    topics: BTreeMap<String, Topic>,
    pub(super) groups: HashMap<String, Group>,
    /// By id: how often it was opened.
    pub(super) transactions: HashMap<String, u64>,
    /// By group and anchor.
    pub(super) positions: HashMap<(String, Place), i64>,
    /// Whether topics or members came or went since partitions were dealt out.
    pub(super) reshaped: bool,
    made: u64,
    unkeyed: usize,
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: u64,
    pub(super) logs: Vec<Log>,
}

/// A partition. Offsets that no record has are gaps.
#[derive(Debug, Default)]
pub(super) struct Log {
    records: VecDeque<Record>,
    low: i64,
    high: i64,
}

impl Log {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { low: self.low, high: self.high }
    }

    /// Records from an offset on.
    pub(super) fn from(&self, offset: i64) -> impl Iterator<Item = &Record> {
        self.records.iter().skip(self.records.partition_point(|record| record.offset < offset))
    }

    fn append(&mut self, record: &Outgoing) -> i64 {
        let offset = self.high;
        self.high += 1;
        self.records.push_back(Record {
            offset,
            timestamp: Some(record.timestamp.unwrap_or_else(now)),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        });
        offset
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, deals partitions out again where that is due, and wakes every source.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let outcome = change(&mut state);
        if std::mem::take(&mut state.reshaped) {
            state.deal();
        }
        for group in state.groups.values() {
            group.wake();
        }
        outcome
    }

    /// Changes what concerns one source only: nobody is dealt anything, nobody is woken.
    pub(super) fn touch<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.lock())
    }
}

impl State {
    pub(super) fn create(&mut self, name: &str, partitions: i32) {
        (self.made, self.reshaped) = (self.made + 1, true);
        let logs = (0..partitions.max(1)).map(|_| Log::default()).collect();
        self.topics.entry(name.to_owned()).or_insert(Topic { id: self.made, logs });
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.topics.remove(name);
        self.reshaped = true;
        self.positions.retain(|(_, place), _| &*place.topic != name);
        for group in self.groups.values_mut() {
            group.topic_went(name);
        }
    }

    pub(super) fn trim(&mut self, place: &Place, before: i64) {
        if let Ok(log) = self.log_mut(place) {
            log.low = before.clamp(log.low, log.high);
            let gone = log.records.partition_point(|record| record.offset < log.low);
            log.records.drain(..gone);
        }
    }

    pub(super) fn topic(&self, name: &str) -> Result<&Topic, BrokerError> {
        self.topics.get(name).ok_or_else(|| BrokerError::UnknownTopic { topic: name.to_owned() })
    }

    pub(super) fn log(&self, place: &Place) -> Result<&Log, BrokerError> {
        let topic = self.topic(&place.topic)?;
        let log = usize::try_from(place.partition).ok().and_then(|number| topic.logs.get(number));
        log.ok_or_else(|| unknown(place))
    }

    fn log_mut(&mut self, place: &Place) -> Result<&mut Log, BrokerError> {
        self.log(place)?;
        let log = self.topics.get_mut(&*place.topic).zip(usize::try_from(place.partition).ok());
        log.and_then(|(topic, number)| topic.logs.get_mut(number)).ok_or_else(|| unknown(place))
    }

    pub(super) fn offset_for(&self, place: &Place, start: Start) -> Result<i64, BrokerError> {
        let log = self.log(place)?;
        Ok(match start {
            Start::Earliest => log.low,
            Start::Latest => log.high,
            Start::At(at) => {
                let late = |record: &&Record| record.timestamp.is_some_and(|time| time >= at.as_millis());
                log.from(log.low).find(late).map_or(log.high, |record| record.offset)
            }
        })
    }

    /// Where a record goes, unless it cannot.
    fn place_of(&mut self, record: &Outgoing) -> Result<Place, BrokerError> {
        let count = self.topic(&record.topic)?.logs.len();
        if record.bytes() > LARGEST {
            return Err(BrokerError::TooLarge { topic: record.topic.clone(), bytes: record.bytes() });
        }
        let number = match (record.partition, &record.key) {
            (Some(number), _) => {
                return self.log(&Place::new(&record.topic, number)).map(|_| Place::new(&record.topic, number));
            }
            (None, Some(key)) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                usize::try_from(hasher.finish() % count.max(1) as u64).unwrap_or(0)
            }
            (None, None) => {
                self.unkeyed = self.unkeyed.wrapping_add(1);
                self.unkeyed % count.max(1)
            }
        };
        Ok(Place::new(&record.topic, i32::try_from(number).unwrap_or(0)))
    }

    pub(super) fn write(&mut self, record: &Outgoing) -> Result<Delivered, BrokerError> {
        let place = self.place_of(record)?;
        let offset = self.log_mut(&place)?.append(record);
        Ok(Delivered { partition: place.partition, offset })
    }

    /// Writes all or nothing, and the mark behind it that takes an offset as well.
    pub(super) fn write_all(&mut self, records: &[Outgoing]) -> Result<Vec<Delivered>, BrokerError> {
        let places = records.iter().map(|record| self.place_of(record)).collect::<Result<Vec<_>, _>>()?;
        let mut delivered = vec![];
        for (place, record) in places.iter().zip(records) {
            let offset = self.log_mut(place)?.append(record);
            delivered.push(Delivered { partition: place.partition, offset });
        }
        self.mark(places)?;
        Ok(delivered)
    }

    pub(super) fn write_aborted(&mut self, records: &[Outgoing]) -> Result<(), BrokerError> {
        let places = records.iter().map(|record| self.place_of(record)).collect::<Result<Vec<_>, _>>()?;
        for place in &places {
            self.log_mut(place)?.high += 1;
        }
        self.mark(places)
    }

    fn mark(&mut self, mut places: Vec<Place>) -> Result<(), BrokerError> {
        places.sort();
        places.dedup();
        places.iter().try_for_each(|place| self.log_mut(place).map(|log| log.high += 1))
    }

    /// Deals the partitions of every group out to its members.
    fn deal(&mut self) {
        let all: Vec<Place> = self
            .topics
            .iter()
            .flat_map(|(name, topic)| {
                let name: Arc<str> = name.as_str().into();
                (0..topic.logs.len()).map(move |number| Place {
                    topic: Arc::clone(&name),
                    partition: i32::try_from(number).unwrap_or(i32::MAX),
                })
            })
            .collect();
        self.groups.retain(|_, group| !group.is_empty());
        for group in self.groups.values_mut() {
            group.deal(&all);
        }
    }
}

fn unknown(place: &Place) -> BrokerError {
    BrokerError::UnknownPartition { topic: place.topic.to_string(), partition: place.partition }
}
