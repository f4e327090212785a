//! The connections that take records in, beside those of the writers: streams do not wait for them.
//!
//! Each has a slot of its own for counting. What is tried again is only what certainly was not done; when the connection
//! is lost nobody knows, and the caller reads the row. Used by ingests.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use motet_engine::id::{Epoch, RunId};
use sqlx::postgres::{PgArguments, PgRow};
use tokio::sync::{Mutex, MutexGuard};

use super::statement::Statement;
use crate::StoreError;
use crate::partition_rules::{fenced, gap};
use crate::port::{Admitted, Ingest, PartitionKey};
use crate::postgres::link::{Link, jittered};
use crate::postgres::options::PostgresOptions;
use crate::postgres::partition::{self, born};
use crate::postgres::queue::Status;
use crate::postgres::reader::{column, number, run_id};
use crate::postgres::trouble::Trouble;
use crate::postgres::writer::{arguments, unreadable};

/// Connections at most; more would only fight for the same log.
pub(in crate::postgres) const LANES: usize = 2;

/// Longest wait for a free one.
const LANE_WAIT: Duration = Duration::from_secs(5);

/// How often an ingest is tried that was certainly not done.
const TRIES: u32 = 4;

/// The first pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(20);

const STANDS: &str = "select epoch, next from ingest_partition
  where namespace = $1 and stream = $2 and topic = $3 and part = $4";
// A head and its entries come together and go together, unless a whole day of the journal is to be dropped: then the
// entries of forgotten runs are left over until it is.
const SWEEP: &str = "delete from journal using unnest($1, $2) as asked(born, id)
  where journal.born = asked.born and journal.run = asked.id and not exists (select from run where run.id = asked.id)
  returning 1";

struct Lane {
    link: Link,
    /// Days whose partition is known to exist.
    days: HashSet<i32>,
    slot: i32,
}

/// The connections, made when they are needed; none once the store was closed.
pub(in crate::postgres) struct Lanes {
    lanes: [Mutex<Option<Lane>>; LANES],
    status: Arc<Status>,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("count", &LANES).finish_non_exhaustive()
    }
}

impl Lanes {
    pub(in crate::postgres) fn new(options: &Arc<PostgresOptions>, status: &Arc<Status>, first_slot: i32) -> Self {
        let lane = |place: usize| {
            // The health is told by the writers, who try to connect by themselves: a lane that lost its connection may
            // not be asked again for long.
            let link = Link::new(Arc::clone(options), Arc::default());
            let slot = first_slot + i32::try_from(place).unwrap_or_default();
            Mutex::new(Some(Lane { link, days: HashSet::new(), slot }))
        };
        Self { lanes: std::array::from_fn(lane), status: Arc::clone(status) }
    }

    /// Carries out an ingest.
    pub(in crate::postgres) async fn ingest(&self, ingest: &Ingest) -> Result<Vec<Admitted>, StoreError> {
        let mut guard = tokio::time::timeout(LANE_WAIT, self.free(&ingest.key)).await.map_err(|_| StoreError::Busy)?;
        let lane = guard.as_mut().ok_or(StoreError::Closed)?;
        let statement = Statement::new(ingest)?;
        let (mut tries, mut swept) = (0, false);
        loop {
            lane.link.ready_by_itself().await?;
            tries += 1;
            match lane.carry_out(ingest, &statement, &self.status).await {
                Ok(outcome) => return outcome,
                Err(Trouble::NoPartition) if tries < TRIES => lane.days.clear(),
                Err(Trouble::Passing(why)) if tries < TRIES => {
                    tracing::debug!(%why, "an ingest is tried again");
                    tokio::time::sleep(jittered(PAUSE * 2u32.pow(tries))).await;
                }
                Err(Trouble::Row(_)) if !swept && lane.sweep(ingest).await.map_err(Trouble::into_error)? => {
                    swept = true;
                }
                Err(trouble) => return Err(trouble.into_error()),
            }
        }
    }

    /// A lane that nobody uses, or else the one of this partition when it is free.
    async fn free(&self, key: &PartitionKey) -> MutexGuard<'_, Option<Lane>> {
        if let Some(free) = self.lanes.iter().find_map(|lane| lane.try_lock().ok()) {
            return free;
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.lanes[(hasher.finish() % LANES as u64) as usize].lock().await
    }

    /// Finishes what was begun and closes the connections.
    pub(in crate::postgres) async fn close(&self) {
        for lane in &self.lanes {
            if let Some(lane) = lane.lock().await.take() {
                lane.link.close().await;
            }
        }
    }
}

impl Lane {
    async fn carry_out(
        &mut self,
        ingest: &Ingest,
        statement: &Statement<'_>,
        status: &Status,
    ) -> Result<Result<Vec<Admitted>, StoreError>, Trouble> {
        let started = Instant::now();
        partition::make_missing(&mut self.link, &mut self.days, statement.days()).await?;
        let text = statement.text(ingest, self.slot).map_err(|error| Trouble::Row(error.to_string()))?;
        let rows = self.link.fetch(&text.0, text.1).await?;
        if rows.is_empty() {
            return self.refusal(ingest).await.map(Err);
        }
        let old = |row: &PgRow| (column::<i32>(row, 0)? == 1).then(|| run_id(row, 1)).transpose();
        let old = rows.iter().map(old).collect::<Result<Vec<Option<RunId>>, StoreError>>().map_err(unreadable)?;
        // One that comes twice was written once.
        let mut known: HashSet<RunId> = old.into_iter().flatten().collect();
        let answer = |run: RunId| if known.insert(run) { Admitted::New } else { Admitted::Replayed(run) };
        let answers = ingest.admissions.iter().map(|admission| admission.run).map(answer).collect::<Vec<_>>();
        count(status, ingest, &answers, started);
        Ok(Ok(answers))
    }

    /// Why the partition did not move.
    async fn refusal(&mut self, ingest: &Ingest) -> Result<StoreError, Trouble> {
        let PartitionKey { namespace, stream, topic, partition } = &ingest.key;
        let mut given = arguments((namespace.0.as_str(), stream.as_str()))?;
        let added = sqlx::Arguments::add(&mut given, topic.as_str());
        let added = added.and_then(|()| sqlx::Arguments::add(&mut given, *partition));
        added.map_err(|error| Trouble::Row(error.to_string()))?;
        let rows = self.link.fetch(STANDS, given).await?;
        let read = |row: &PgRow| Ok((Epoch(number(row, 0)?), column(row, 1)?));
        let there = rows.first().map(read).transpose().map_err(unreadable)?;
        Ok(match there {
            Some((epoch, next)) if epoch == ingest.epoch && next != Some(ingest.seen) => {
                gap(&ingest.key, ingest.seen, next)
            }
            Some((epoch, _)) if epoch == ingest.epoch => {
                StoreError::Storage(format!("{} was moved and moved back; try again", ingest.key))
            }
            other => fenced(&ingest.key, ingest.epoch, other.map(|(epoch, _)| epoch)),
        })
    }

    /// Deletes what is left of forgotten runs with these ids; whether there was anything.
    async fn sweep(&mut self, ingest: &Ingest) -> Result<bool, Trouble> {
        let days: Vec<i32> = ingest.admissions.iter().map(|admission| born(admission.run)).collect();
        let runs: Vec<[u8; 16]> = ingest.admissions.iter().map(|admission| admission.run.to_bytes()).collect();
        let given: PgArguments = arguments((days, runs))?;
        Ok(!self.link.fetch(SWEEP, given).await?.is_empty())
    }
}

fn count(status: &Status, ingest: &Ingest, answers: &[Admitted], started: Instant) {
    let each = ingest.admissions.iter().zip(answers);
    let admitted: Vec<_> = each.filter(|(_, answer)| **answer == Admitted::New).map(|(its, _)| its).collect();
    let events: u64 = admitted.iter().map(|admission| u64::from(admission.entry.count)).sum();
    status.commits.fetch_add(1, Ordering::Relaxed);
    status.entries.fetch_add(admitted.len() as u64, Ordering::Relaxed);
    status.events.fetch_add(events, Ordering::Relaxed);
    metrics::counter!("motet_store_commits_total").increment(1);
    metrics::histogram!("motet_store_commit_events").record(events as f64);
    metrics::histogram!("motet_store_commit_seconds").record(started.elapsed().as_secs_f64());
}
