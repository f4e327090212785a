//! Sends what runs owe to the outside: the records of each shard's outbox, to each topic in order, until the broker has
//! taken them.
//!
//! Holds no records for long: the rows are the truth, and are forgotten when they were acknowledged. After a crash a
//! record may be sent again, under the same event id; those that are sent in transactions are not. A topic that takes
//! nothing holds up its own records and no others, and nothing is given up. Spawned by the node, one for all shards that
//! it owns.

mod carrier;
mod lanes;
mod sinks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use motet_engine::id::ShardId;
use motet_store::StoreError;
use motet_store::port::OutboxRecord;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::carrier::{Carrier, Load};
use self::lanes::Look;
use crate::runs::Runs;
use crate::streams::Streams;

/// Records of one shard that are read together.
const BATCH: u32 = 500;

/// Records that a look at a shard passes over before others have their turn.
const PASSED_OVER: usize = 2_000;

/// Shards that are looked at together.
const AT_ONCE: usize = 16;

/// Loads that are sent together.
const SENT_AT_ONCE: usize = 32;

/// A look waits this long for its loads; those that take longer go on by themselves.
const PATIENCE: Duration = Duration::from_secs(1);

/// Every shard is looked at this often, whatever was told.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Every shard is read from its start this often, whatever is known of it.
const FROM_START_EVERY: Duration = Duration::from_secs(60);

/// After a look that could not be finished it waits this long, more or less.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// The actor.
pub(crate) struct Relay {
    carrier: Arc<Carrier>,
    places: Arc<Semaphore>,
    /// What is under way, so that it ends with the actor.
    loads: Mutex<JoinSet<()>>,
}

/// It tells itself to look again.
#[derive(Debug)]
pub(crate) struct Again;

impl Actor for Relay {
    type Msg = Again;
    /// When the shards were read from their start.
    type State = Instant;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Again>, (): ()) -> Result<Instant, ActorProcessingErr> {
        myself.cast(Again)?;
        Ok(Instant::now())
    }

    async fn handle(
        &self,
        myself: ActorRef<Again>,
        _: Again,
        from_start: &mut Instant,
    ) -> Result<(), ActorProcessingErr> {
        if from_start.elapsed() >= FROM_START_EVERY {
            self.carrier.lanes.rewind();
            *from_start = Instant::now();
        }
        let own = self.carrier.runs.own_shards().into_iter().collect();
        self.carrier.lanes.keep(&own);
        self.carrier.sinks.tidy(&own).await;
        let again = self.look_at_all().await;
        let (runs, entropy) = (Arc::clone(&self.carrier.runs), &self.carrier.streams.entropy);
        let pause = AFTER_FAILURE.mul_f64(0.5 + entropy.fraction());
        tokio::spawn(async move {
            if again {
                tokio::time::sleep(pause).await;
            } else if tokio::time::timeout(SWEEP_EVERY, runs.outbox().more()).await.is_err() {
                runs.own_shards().into_iter().for_each(|shard| runs.outbox().add(shard));
            }
            let _ = myself.cast(Again);
        });
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Again>, _: &mut Instant) -> Result<(), ActorProcessingErr> {
        let mut loads = std::mem::take(&mut *self.loads.lock().unwrap_or_else(PoisonError::into_inner));
        loads.shutdown().await;
        self.carrier.sinks.tidy(&BTreeSet::new()).await;
        Ok(())
    }
}

impl Relay {
    pub(crate) fn new(runs: Arc<Runs>, streams: Arc<Streams>) -> Self {
        Self {
            carrier: Arc::new(Carrier::new(runs, streams)),
            places: Arc::new(Semaphore::new(SENT_AT_ONCE)),
            loads: Mutex::default(),
        }
    }

    /// Looks at the shards that were named; whether some must be looked at again soon.
    async fn look_at_all(&self) -> bool {
        let runs = &self.carrier.runs;
        let looks = stream::iter(runs.outbox().take()).map(|shard| async move { (shard, self.look(shard).await) });
        let looked: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        let mut again = false;
        for (shard, outcome) in looked {
            match outcome {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => tracing::warn!(%shard, %error, "results that wait cannot be read; trying again"),
            }
            runs.outbox().add(shard);
            again = true;
        }
        again
    }

    /// Hands out what a shard owes; whether something was left that nobody takes care of.
    async fn look(&self, shard: ShardId) -> Result<bool, StoreError> {
        let Carrier { runs, lanes, streams, .. } = &*self.carrier;
        let Some(epoch) = runs.epoch(shard) else { return Ok(false) };
        let mut look = lanes.begin(shard, epoch);
        let (mut held, mut passed) = (BTreeSet::new(), 0);
        while runs.epoch(shard) == Some(epoch) {
            let rows = streams.store.outbox(shard, look.after, BATCH).await?;
            let (count, last) = (rows.len(), rows.last().map(|row| row.position));
            passed += self.hand_out(&mut look, rows, &mut held).await;
            look.after = last.unwrap_or(look.after);
            if count < BATCH as usize {
                break;
            }
            if passed >= PASSED_OVER {
                runs.outbox().add(shard);
                break;
            }
        }
        lanes.end(&look);
        Ok(look.left_some())
    }

    /// Has rows sent, topic by topic, and waits for that a little; how many of them were left to others or for later.
    /// `held` are the topics of which this look has left records: what follows those waits.
    async fn hand_out(&self, look: &mut Look, rows: Vec<OutboxRecord>, held: &mut BTreeSet<String>) -> usize {
        let mut topics: BTreeMap<String, Vec<OutboxRecord>> = BTreeMap::new();
        for row in rows {
            match topics.get_mut(&row.row.topic) {
                Some(rows) => rows.push(row),
                None => drop(topics.insert(row.row.topic.clone(), vec![row])),
            }
        }
        let (mut begun, mut passed) = (vec![], 0);
        for (topic, rows) in topics {
            let count = rows.len();
            match self.begin(look, &topic, rows, held.contains(&topic)) {
                Some(told) => begun.push((topic, count, told)),
                None => {
                    passed += count;
                    held.insert(topic);
                }
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for (topic, count, told) in begun {
            if !matches!(tokio::time::timeout_at(deadline, told).await, Ok(Ok(true))) {
                passed += count;
                held.insert(topic);
            }
        }
        passed
    }

    /// Begins to send the rows of a topic; none when they must wait.
    fn begin(
        &self,
        look: &mut Look,
        topic: &str,
        rows: Vec<OutboxRecord>,
        held: bool,
    ) -> Option<oneshot::Receiver<bool>> {
        let lanes = &self.carrier.lanes;
        let first = rows.first()?.position;
        let place = if held { None } else { Arc::clone(&self.places).try_acquire_owned().ok() };
        let Some(place) = place else {
            lanes.pass(look, topic, first);
            return None;
        };
        let turn = lanes.take(look, topic, first)?;
        let (told, waits) = oneshot::channel();
        let load = Load { shard: look.shard, epoch: look.epoch, topic: topic.to_owned(), rows };
        let carrier = Arc::clone(&self.carrier);
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        while loads.try_join_next().is_some() {}
        loads.spawn(async move { carrier.carry(turn, load, place, told).await });
        Some(waits)
    }
}
