//! Carries the records of one shard to one topic, in order: sends them, then has the store forget them.
//!
//! Never passes over a record that the topic does not take: it tries that one again, alone, until it goes. Records that
//! ask for it go out in transactions that keep the position of the last one, so what the brokers have is known whatever
//! happened before the store forgot it. Used by the relay.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use motet_broker::BrokerError;
use motet_broker::port::Outgoing;
use motet_engine::id::{Epoch, ShardId};
use motet_store::port::OutboxRecord;
use motet_store::{ErrorClass, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::lanes::{Lanes, Turn};
use super::sinks::{Held, Sinks};
use crate::runs::Runs;
use crate::streams::Streams;

/// Records that are tried again at one time. They have places of their own: what is refused holds up nothing else.
const TRIED_AT_ONCE: usize = 16;

/// Bytes that are sent together, unless one record has more: the sink's queue holds four times as many.
const PORTION_BYTES: usize = 16 << 20;

/// A first wait before a record is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait before a record is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Failures in a row after which people are told of what usually passes.
const TOLD_AFTER: u32 = 3;

/// Why records stay where they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Records of one shard for one topic.
pub(super) struct Load {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) topic: String,
    /// In order; never empty.
    pub(super) rows: Vec<OutboxRecord>,
}

/// What carries them.
pub(super) struct Carrier {
    pub(super) runs: Arc<Runs>,
    pub(super) streams: Arc<Streams>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) sinks: Sinks,
    tried: Semaphore,
}

impl Carrier {
    pub(super) fn new(runs: Arc<Runs>, streams: Arc<Streams>) -> Self {
        let sinks = Sinks::new(Arc::clone(&streams));
        Self { runs, streams, lanes: Arc::default(), sinks, tried: Semaphore::new(TRIED_AT_ONCE) }
    }

    /// Sends a load, and tells whether all of it went. What did not is tried again until it goes or the shard is
    /// somebody else's; only then is the topic free.
    pub(super) async fn carry(
        &self,
        mut turn: Turn,
        mut load: Load,
        place: OwnedSemaphorePermit,
        told: oneshot::Sender<bool>,
    ) {
        let (mut done, mut failures) = (0, 0);
        let mut halt = self.send(&load, &mut done).await.err();
        drop(place);
        turn.left = load.rows.get(done).map(|row| row.position);
        // Only the first one is needed from now on.
        load.rows.truncate(done + 1);
        load.rows.drain(..done);
        let _ = told.send(halt.is_none());
        while let Some(why) = halt {
            if matches!(&why, Halt::Store(error) if error.class() == ErrorClass::Fenced) {
                self.runs.fenced(load.shard, load.epoch);
            }
            if !self.serves(&load) {
                break;
            }
            failures += 1;
            self.note(&load, &why, failures);
            tokio::time::sleep(pause_after(failures, self.streams.entropy.fraction())).await;
            halt = self.try_again(&mut load).await.err();
        }
        self.streams.blocked().free(&load.topic, load.shard);
        if turn.end() {
            self.runs.outbox().add(load.shard);
        }
    }

    fn serves(&self, load: &Load) -> bool {
        self.runs.epoch(load.shard) == Some(load.epoch)
    }

    fn note(&self, load: &Load, why: &Halt, failures: u32) {
        metrics::counter!("motet_outbox_failures_total").increment(1);
        match why {
            Halt::Store(error) => {
                tracing::warn!(shard = %load.shard, topic = load.topic, %error, "what was sent cannot be forgotten yet");
            }
            Halt::Broker(error) => {
                let passes = matches!(
                    error,
                    BrokerError::Busy | BrokerError::Closed | BrokerError::Aborted(_) | BrokerError::Fenced(_)
                );
                if !passes || failures >= TOLD_AFTER {
                    self.streams.blocked().block(&load.topic, load.shard, error);
                }
            }
        }
    }

    /// Tries the first record that did not go; what follows it is for the next look.
    async fn try_again(&self, load: &mut Load) -> Result<(), Halt> {
        let Ok(_place) = self.tried.acquire().await else { return Ok(()) };
        if !self.serves(load) {
            return Ok(());
        }
        self.send(load, &mut 0).await
    }

    /// Sends records in order; counts those that the topic has and the store has forgotten.
    async fn send(&self, load: &Load, done: &mut usize) -> Result<(), Halt> {
        for rows in load.rows.chunk_by(|one, next| one.row.transactional == next.row.transactional) {
            let mut rest = rows;
            while !rest.is_empty() {
                let (portion, later) = rest.split_at(fitting(rest));
                if rows[0].row.transactional {
                    self.transact(load, portion, done).await?;
                } else {
                    self.write(load, portion, done).await?;
                }
                rest = later;
            }
        }
        Ok(())
    }

    /// Sends records each for itself.
    async fn write(&self, load: &Load, rows: &[OutboxRecord], done: &mut usize) -> Result<(), Halt> {
        let sink = self.streams.sink().await?;
        let outcomes = sink.send(rows.iter().map(outgoing).collect()).await;
        let taken = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
        self.forget(load, &rows[..taken], done).await?;
        let refused = outcomes.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends records in transactions.
    async fn transact(&self, load: &Load, rows: &[OutboxRecord], done: &mut usize) -> Result<(), Halt> {
        let mut held = self.sinks.take(load.shard, &load.topic).await?;
        let outcome = self.transact_with(&mut held, load, rows, done).await;
        self.sinks.give_back(held).await;
        outcome
    }

    async fn transact_with(
        &self,
        held: &mut Held,
        load: &Load,
        rows: &[OutboxRecord],
        done: &mut usize,
    ) -> Result<(), Halt> {
        let mut known = rows.partition_point(|row| row.position < held.next);
        if known > 0 && held.is_new && self.went_back(load, &rows[0], held.next).await? {
            tracing::error!(
                shard = %load.shard,
                topic = load.topic,
                "the topic has results of this store up to position {}, which the store knows nothing of: it was put \
                 back to an earlier state. What it owes is sent, and readers may see some of it again",
                held.next
            );
            (held.next, known) = (0, 0);
        }
        held.is_new = false;
        self.forget(load, &rows[..known], done).await?;
        let (mut rest, mut most) = (&rows[known..], rows.len());
        while let Some(last) = rest.get(..most.min(rest.len())).and_then(<[_]>::last) {
            let (batch, later) = rest.split_at(most.min(rest.len()));
            match held.send(batch.iter().map(outgoing).collect(), last.position + 1).await {
                Ok(()) => {
                    self.forget(load, batch, done).await?;
                    rest = later;
                }
                // Somewhere in there is what does not fit; what is before it shall go.
                Err(BrokerError::TooLarge { .. } | BrokerError::Busy) if batch.len() > 1 && held.is_usable() => {
                    most = batch.len() / 2;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the store was put back to an earlier state since the brokers had everything before `next`. Whoever sent
    /// that had the store forget records in order: so while one of them is there, the last of them is, too.
    async fn went_back(&self, load: &Load, first: &OutboxRecord, next: u64) -> Result<bool, StoreError> {
        let store = &self.streams.store;
        let at = async |position: u64| {
            let found = store.outbox(load.shard, position - 1, 1).await?;
            Ok::<_, StoreError>(found.into_iter().next().filter(|found| found.position == position))
        };
        let is_ours = |found: OutboxRecord| found.row.topic == load.topic && found.row.transactional;
        if at(next - 1).await?.is_some_and(is_ours) {
            return Ok(false);
        }
        // One who owned the shard before may have had all of them forgotten after they were read here.
        Ok(at(first.position).await?.is_some())
    }

    async fn forget(&self, load: &Load, rows: &[OutboxRecord], done: &mut usize) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let positions: Vec<u64> = rows.iter().map(|row| row.position).collect();
        self.streams.store.outbox_done(load.shard, load.epoch, &positions).await?;
        metrics::counter!("motet_outbox_sent_total").increment(rows.len() as u64);
        *done += rows.len();
        Ok(())
    }
}

/// How long to wait after so many failures in a row; `fraction` in `0.0..1.0` is the jitter.
fn pause_after(failures: u32, fraction: f64) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << failures.clamp(1, 16).saturating_sub(1)).min(LONGEST_PAUSE);
    bound.mul_f64(0.5 + fraction / 2.0)
}

/// How many of these records are sent together: at least one.
fn fitting(rows: &[OutboxRecord]) -> usize {
    let mut bytes = 0usize;
    let fit = rows.iter().take_while(|row| {
        bytes = bytes.saturating_add(row.row.payload.len());
        bytes <= PORTION_BYTES
    });
    fit.count().clamp(1, rows.len())
}

fn outgoing(record: &OutboxRecord) -> Outgoing {
    let row = &record.row;
    let headers = row.headers.iter().map(|(name, value): &(String, Bytes)| (name.clone(), Some(value.clone())));
    Outgoing {
        topic: row.topic.clone(),
        partition: None,
        key: row.key.clone(),
        value: Some(row.payload.clone()),
        headers: headers.collect(),
        timestamp: None,
    }
}
