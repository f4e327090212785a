//! Transactional sinks, one for each shard and topic: opened when they are needed, closed when they rest.
//!
//! Never sends by itself. The id of a sink follows from store, shard and topic, so whoever owns the shard next fences
//! the one before. Used by the relay.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use motet_broker::BrokerError;
use motet_broker::port::{Outgoing, Place, TransactionSettings, TransactionalSink};
use motet_engine::id::ShardId;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::carrier::Halt;
use crate::streams::Streams;

/// Sinks that are open at one time; each costs a producer with its threads.
const OPEN: usize = 64;

/// A sink that was not used for so long is closed.
const REST: Duration = Duration::from_secs(5 * 60);

/// How long the ends of sinks are waited for.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

type Key = (ShardId, String);

/// The sinks that nobody uses now, and what new ones are made of.
pub(super) struct Sinks {
    streams: Arc<Streams>,
    places: Arc<Semaphore>,
    resting: Mutex<HashMap<Key, Held>>,
    origin: OnceCell<String>,
}

/// A sink in somebody's hand.
pub(super) struct Held {
    key: Key,
    sink: Box<dyn TransactionalSink>,
    /// Records before this position were sent.
    pub(super) next: u64,
    /// Whether what the brokers say of the position has not been compared with the store yet.
    pub(super) is_new: bool,
    used: Instant,
    _place: OwnedSemaphorePermit,
}

impl Held {
    /// Writes records and the position behind them in one transaction.
    pub(super) async fn send(&mut self, records: Vec<Outgoing>, next: u64) -> Result<(), BrokerError> {
        let position = i64::try_from(next).unwrap_or(i64::MAX);
        self.sink.send(records, position).await?;
        self.next = next;
        Ok(())
    }

    pub(super) fn is_usable(&self) -> bool {
        self.sink.is_usable()
    }
}

impl Sinks {
    pub(super) fn new(streams: Arc<Streams>) -> Self {
        let places = Arc::new(Semaphore::new(OPEN));
        Self { streams, places, resting: Mutex::default(), origin: OnceCell::new() }
    }

    /// The sink of a shard and a topic.
    pub(super) async fn take(&self, shard: ShardId, topic: &str) -> Result<Held, Halt> {
        let key = (shard, topic.to_owned());
        let resting = self.lock().remove(&key);
        if let Some(held) = resting {
            return Ok(held);
        }
        let place = self.place().await?;
        let store = &self.streams.store;
        let origin = self.origin.get_or_try_init(|| store.outbox_origin()).await?;
        let id = identity(origin, shard, topic);
        let settings = TransactionSettings::new(&id, &id, Place::new(topic, 0));
        let unset = || BrokerError::Setting("no broker is set: set kafka.brokers".to_owned());
        let sink = self.streams.broker().ok_or_else(unset)?.transactional_sink(settings).await?;
        let next = sink.position().and_then(|position| u64::try_from(position).ok()).unwrap_or(0);
        metrics::counter!("motet_outbox_sinks_opened_total").increment(1);
        Ok(Held { key, sink, next, is_new: true, used: Instant::now(), _place: place })
    }

    /// A place for one more; the one that has rested longest makes room.
    async fn place(&self) -> Result<OwnedSemaphorePermit, BrokerError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let longest = {
            let mut resting = self.lock();
            let longest = resting.iter().min_by_key(|(_, held)| held.used).map(|(key, _)| key.clone());
            longest.and_then(|key| resting.remove(&key))
        };
        close(longest).await;
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| BrokerError::Busy)
    }

    /// Keeps a sink for the next time, unless it is spent.
    pub(super) async fn give_back(&self, mut held: Held) {
        if !held.is_usable() {
            return close([held]).await;
        }
        held.used = Instant::now();
        self.lock().insert(held.key.clone(), held);
    }

    /// Closes what has rested long, and what belongs to other shards than these.
    pub(super) async fn tidy(&self, own: &BTreeSet<ShardId>) {
        let is_over = |(shard, _): &Key, held: &mut Held| !own.contains(shard) || held.used.elapsed() >= REST;
        let over: Vec<Held> = self.lock().extract_if(is_over).map(|(_, held)| held).collect();
        close(over).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        // Each change leaves the map whole.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn close(sinks: impl IntoIterator<Item = Held>) {
    let ends = join_all(sinks.into_iter().map(|held| held.sink.close()));
    if tokio::time::timeout(CLOSE_WITHIN, ends).await.is_err() {
        tracing::warn!("transactional sinks did not end in time and are dropped");
    }
}

/// The id under which the results of a shard for a topic are written, of whichever node.
fn identity(origin: &str, shard: ShardId, topic: &str) -> String {
    let digest = Sha256::digest(topic.as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("motet-{origin}-{}-{digest}", shard.0)
}
