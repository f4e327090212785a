//! Some records of a partition on their way into the store: what they become, in one write, and what follows from it.
//!
//! After an error that leaves open what was written, the row says it: an own epoch and an offset that has moved mean
//! that everything was. Never gives records up: while the store is away it waits with them. Used by the partition's
//! actor, one portion after another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use motet_broker::port::{Batch, Record};
use motet_engine::stream::{DeadReason, Stage};
use motet_store::port::{Admission, Admitted, Ingest, PartitionKey};
use motet_store::{ErrorClass, StoreError};
use tokio::task::AbortHandle;

use super::claiming::{Claim, Unclaimed, other_topic};
use super::reading::{Read, Reader};
use super::{PATIENCE, PartitionActor, PartitionMessage, pause_after};
use crate::driver::DriverError;
use crate::mailbox::Mailbox;
use crate::router::Router;
use crate::streams::{MANY_RUNS, Streams};
use crate::submission::Expected;

/// Records of one write.
const RECORDS: usize = 500;

/// Bytes of records of one write; one record may be more.
const BYTES: usize = 1 << 20;

/// How often a partition that may not admit looks whether it may.
const CROWDED: Duration = Duration::from_millis(100);

/// The rate is asked again after this long at the latest: the node may have another share of the partitions.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What became of a portion.
pub(crate) enum Ingested {
    /// It is durable up to this offset; whether there are dead letters to be sent.
    Done { next: i64, letters: bool },
    /// Somebody else claimed the row, or set its offset.
    Fenced,
    /// It cannot go on before somebody acts: the words say how.
    Stopped(String),
}

/// Records for one write, with the credit that they hold.
pub(super) struct Portion {
    records: Vec<Record>,
    /// Where reading goes on after them.
    next: i64,
    /// Batches whose records are all in here or in portions before: their credit goes with this one.
    done: Vec<Batch>,
}

impl Portion {
    /// The next records that fit one write, in order; one record where care is called for.
    pub(super) fn next(waiting: &mut VecDeque<Batch>, careful: bool) -> Option<Self> {
        let most = if careful { 1 } else { RECORDS };
        let first = waiting.front()?;
        let mut portion = Self { records: vec![], next: first.from, done: vec![] };
        let mut bytes = 0;
        while portion.records.len() < most && bytes < BYTES {
            let Some(batch) = waiting.front_mut() else { break };
            let mut taken = 0;
            for record in &batch.records {
                let fits = bytes == 0 || bytes + record.bytes() <= BYTES;
                if portion.records.len() + taken >= most || !fits {
                    break;
                }
                bytes += record.bytes().max(1);
                taken += 1;
            }
            let whole = taken == batch.records.len();
            portion.records.extend(batch.records.drain(..taken));
            if !whole {
                portion.next = portion.records.last().map_or(portion.next, |last| last.offset + 1);
                break;
            }
            portion.next = batch.next;
            portion.done.extend(waiting.pop_front());
        }
        Some(portion)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

impl PartitionActor {
    /// Brings a portion into the store on a task of its own.
    pub(super) fn ingest(&self, claim: Claim, portion: Portion, mailbox: Mailbox<PartitionMessage>) -> AbortHandle {
        let streams = Arc::clone(&self.streams);
        let (reader, caller) = (Reader::new(self, &claim), self.caller.clone());
        let (key, figures) = (self.key.clone(), Arc::clone(&self.seat.figures));
        let work = async move {
            let mut failures = 0;
            let records = u32::try_from(portion.records.len()).unwrap_or(u32::MAX);
            while let Err(pause) = reader.pace(&streams, records) {
                figures.hold("the rate of the stream");
                tokio::time::sleep(pause.min(LONGEST_REST)).await;
            }
            let outcome = loop {
                let Some(router) = streams.router() else { return };
                while let Some(why) = streams.crowded().or_else(|| router.is_full().then_some(MANY_RUNS)) {
                    figures.hold(why);
                    tokio::time::sleep(CROWDED).await;
                }
                // Both are needed before the write and neither needs the other: the broker answers while records are read.
                let (topic, read) =
                    tokio::join!(same_topic(&streams, &key, &claim), reader.read(&router, &portion.records));
                match topic {
                    Ok(()) => {}
                    Err(Unclaimed::Stopped(trouble)) => break Ingested::Stopped(trouble),
                    Err(Unclaimed::Later(reason)) => {
                        figures.hold(reason);
                        wait(&mut failures, &streams).await;
                        continue;
                    }
                }
                let read = match read {
                    Ok(read) => read,
                    Err(reason) => {
                        figures.hold(reason);
                        wait(&mut failures, &streams).await;
                        continue;
                    }
                };
                match write(&streams, &router, &reader, &claim, &portion, read).await {
                    Ok(written) => {
                        figures.count(written.admitted, written.passed, written.dead, portion.next);
                        count(&key.stream, &written);
                        break Ingested::Done { next: portion.next, letters: written.dead > 0 };
                    }
                    Err(WriteError::Fenced) => break Ingested::Fenced,
                    Err(WriteError::Later(reason)) => {
                        figures.hold(format!("the store: {reason}"));
                        wait(&mut failures, &streams).await;
                        match settled(&streams, &reader, &claim, portion.next).await {
                            Some(Settled::Written) => {
                                // Whoever serves their shards finds the runs by itself.
                                router.runs().sweep_soon();
                                break Ingested::Done { next: portion.next, letters: true };
                            }
                            Some(Settled::Fenced) => break Ingested::Fenced,
                            None => {}
                        }
                    }
                    Err(WriteError::Never(reason)) => {
                        break Ingested::Stopped(format!("records cannot be stored: {reason}"));
                    }
                }
            };
            // The credit of what is durable goes back to the source.
            drop(portion);
            let _ = mailbox.send(&caller, PartitionMessage::Ingested(outcome), PATIENCE).await;
        };
        tokio::spawn(work).abort_handle()
    }
}

async fn wait(failures: &mut u32, streams: &Streams) {
    *failures = failures.saturating_add(1);
    tokio::time::sleep(pause_after(*failures, streams.entropy.fraction())).await;
}

/// What a portion has become.
struct Written {
    admitted: u64,
    passed: u64,
    dead: u64,
}

async fn write(
    streams: &Streams,
    router: &Arc<Router>,
    reader: &Reader,
    claim: &Claim,
    portion: &Portion,
    read: Read,
) -> Result<Written, WriteError> {
    let runs = router.runs();
    let Read { runs: begun, mut dead, passed } = read;
    let (mut expected, mut admissions) = (vec![], vec![]);
    let mut failed = None;
    for begun in begun {
        let (record, line) = (&portion.records[begun.record], begun.line);
        match Expected::prepare(runs, begun.run, begun.events).await {
            Ok((kept, admission)) => {
                let admission = Admission { line, ..admission };
                // One record that no store can keep must not take its neighbours along.
                match admission.check() {
                    Ok(()) => {
                        expected.push(kept);
                        admissions.push(admission);
                    }
                    Err(error) => {
                        kept.give_up(runs);
                        let reason = DeadReason::new(Stage::Schema, "not_storable", &error.to_string());
                        dead.push(reader.dead(record, reason, router.now()));
                    }
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let Some(error) = failed {
        expected.into_iter().for_each(|kept| kept.give_up(runs));
        return Err(error.into());
    }
    let written = Written { admitted: admissions.len() as u64, passed, dead: dead.len() as u64 };
    let ingest = Ingest {
        key: reader.key().clone(),
        epoch: claim.epoch,
        seen: claim.next,
        next: portion.next,
        at: router.now(),
        admissions,
        dead,
    };
    match streams.store.ingest(ingest).await {
        Ok(admitted) => {
            for (kept, admitted) in expected.into_iter().zip(admitted) {
                match admitted {
                    Admitted::New => kept.begin(runs).await,
                    Admitted::Replayed(_) | Admitted::KeyReused(_) => kept.give_up(runs),
                }
            }
            Ok(written)
        }
        Err(error) => {
            expected.into_iter().for_each(|kept| kept.give_up(runs));
            Err(error.into())
        }
    }
}

/// Whether the records are of the topic that was claimed: one of its name that was made since has other records at the
/// same offsets.
async fn same_topic(streams: &Streams, key: &PartitionKey, claim: &Claim) -> Result<(), Unclaimed> {
    let origin = streams.origin(&key.topic).await?;
    if origin == claim.origin { Ok(()) } else { Err(Unclaimed::Stopped(other_topic(key))) }
}

/// Why records did not become durable, by what to do about it.
enum WriteError {
    /// Somebody else has the partition, or set its offset.
    Fenced,
    /// The store is away; what it did is read from the row.
    Later(String),
    /// Trying again cannot help.
    Never(String),
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        match (&error, error.class()) {
            // Somebody moved the offset under the same epoch, or this actor's picture is wrong: it is claimed anew.
            (StoreError::OffsetGap { .. }, _) | (_, ErrorClass::Fenced) => Self::Fenced,
            (_, ErrorClass::Retryable | ErrorClass::Busy) => Self::Later(error.to_string()),
            _ => Self::Never(error.to_string()),
        }
    }
}

impl From<DriverError> for WriteError {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Store(error) => error.into(),
            error => Self::Never(error.to_string()),
        }
    }
}

enum Settled {
    Written,
    Fenced,
}

/// What became of a write whose outcome is open; none when it was surely not done.
async fn settled(streams: &Streams, reader: &Reader, claim: &Claim, next: i64) -> Option<Settled> {
    let mut failures = 0;
    loop {
        match streams.store.partition(reader.key()).await {
            Ok(Some(row)) if row.epoch != claim.epoch => return Some(Settled::Fenced),
            Ok(Some(row)) if row.next == Some(next) => return Some(Settled::Written),
            Ok(Some(row)) if row.next == Some(claim.next) => return None,
            Ok(_) => return Some(Settled::Fenced),
            Err(error) => {
                tracing::debug!(%error, "whether records became durable cannot be read yet");
                wait(&mut failures, streams).await;
            }
        }
    }
}

fn count(stream: &motet_engine::id::Name, written: &Written) {
    for (outcome, count) in [("admitted", written.admitted), ("passed", written.passed), ("dead", written.dead)] {
        if count > 0 {
            metrics::counter!("motet_stream_records_total", "stream" => stream.to_string(), "outcome" => outcome)
                .increment(count);
        }
    }
}
