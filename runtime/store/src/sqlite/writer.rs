//! The one writer: commits what waits, many writes at a time.
//!
//! It never waits for company: while one commit is being flushed the next one gathers, so a lone write is committed
//! at once and load forms batches by itself. Every caller is answered after the commit and not before. A write that
//! is refused fails alone. When the disk fails, the batch is reported as failed, nothing is tried again and all later
//! writes are refused until the process opens the store again: after a failed flush nobody can tell what the disk
//! holds. That includes a full disk. What was acknowledged is never lost; what was reported as failed may turn out
//! to be there after the next start. Used by `sqlite`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use motet_engine::id::{Namespace, RunId};
use motet_engine::time::Timestamp;
use sqlx::sqlite::SqliteRow;
use tokio::sync::mpsc;

use super::batch::Hex;
use super::connection::Connection;
use super::lock::FolderLock;
use super::plan::{KeyName, Known, Plan, Questions, Tail, UsedKey};
use super::queue::{Op, Outcome, Status, Write};
use super::reader::{column, name, number, run_id, state};
use super::schema::Trouble;
use super::{definition, ingest, lease, outbox, retention, shard};
use crate::shard_map::with_epochs;
use crate::{StoreError, check};

/// Writes in one commit.
const BATCH_WRITES: usize = 512;

/// Payload bytes in one commit; the write that passes it is still taken: 256 KiB.
const BATCH_BYTES: usize = 256 << 10;

/// Silence after which the write-ahead log is moved into the database.
const IDLE: Duration = Duration::from_millis(500);

pub(super) const FIND_TAILS: &str = "select run.id, run.state,
    (select journal.seq + journal.count from journal where journal.run = run.id order by journal.seq desc limit 1)
  from json_each(?1) as asked cross join run on run.id = unhex(asked.value)";
pub(super) const FIND_KEYS: &str = "select found.namespace, found.key, found.run, found.fingerprint, found.expires_at
  from json_each(?1) as asked cross join idempotency as found
  on found.namespace = asked.value->>0 and found.key = asked.value->>1";

/// The writer's state.
pub(super) struct Writer {
    connection: Connection,
    writes: mpsc::Receiver<Write>,
    known: Known,
    status: Arc<Status>,
    /// A write that was taken from the queue but belongs into the next transaction.
    waiting: Option<Write>,
    /// Whether anything was committed since the log was last moved.
    unmoved: bool,
    lock: FolderLock,
}

type Outcomes = Vec<Result<Outcome, StoreError>>;

impl Writer {
    pub(super) async fn open(
        mut connection: Connection,
        writes: mpsc::Receiver<Write>,
        status: Arc<Status>,
        lock: FolderLock,
    ) -> Result<Self, StoreError> {
        let (shards, positions) = shard::restore(&mut connection).await.map_err(Trouble::into_error)?;
        let lives = lease::lives(&mut connection).await.map_err(Trouble::into_error)?;
        let mut known = Known::default();
        (known.shards, known.lives) = (shards, lives);
        known.positions.extend(positions);
        known.partitions = ingest::restore(&mut connection).await.map_err(Trouble::into_error)?;
        Ok(Self { connection, writes, known, status, waiting: None, unmoved: true, lock })
    }

    /// Writes until the store is closed or dropped.
    pub(super) async fn run(mut self) {
        let closing = loop {
            let Some(first) = self.next().await else { break None };
            if matches!(first.op, Op::Close) {
                break Some(first);
            }
            if first.op.stands_alone() {
                self.alone(first).await;
            } else {
                let batch = self.gather(first);
                self.commit_all(batch).await;
            }
        };
        self.writes.close();
        while let Ok(late) = self.writes.try_recv() {
            late.answer(Err(StoreError::Closed));
        }
        let closed = self.connection.close().await.map_err(Trouble::into_error);
        // Whoever waits for the end may open the folder again at once.
        drop(self.lock);
        if let Some(closing) = closing {
            closing.answer(closed.map(|()| Outcome::Done));
        }
    }

    async fn next(&mut self) -> Option<Write> {
        if let Some(write) = self.waiting.take() {
            return Some(write);
        }
        if !self.unmoved {
            return self.writes.recv().await;
        }
        match tokio::time::timeout(IDLE, self.writes.recv()).await {
            Ok(write) => write,
            Err(_) => {
                self.unmoved = false;
                self.connection.move_log().await;
                self.writes.recv().await
            }
        }
    }

    /// Takes what waits besides the first write, up to the bounds of a batch.
    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while batch.len() < BATCH_WRITES && bytes < BATCH_BYTES {
            let Ok(write) = self.writes.try_recv() else { break };
            if write.op.stands_alone() {
                self.waiting = Some(write);
                break;
            }
            bytes += write.bytes;
            batch.push(write);
        }
        metrics::gauge!("motet_store_queue_depth").set(self.writes.len() as f64);
        batch
    }

    /// Commits a batch. When a row breaks a rule that the plan did not foresee, the batch is planned again from what
    /// the database holds, then halved until the row stands alone, so that it does not take its neighbours along.
    async fn commit_all(&mut self, batch: Vec<Write>) {
        let mut parts = vec![(batch, false)];
        while let Some((mut part, doubt)) = parts.pop() {
            if let Some(fault) = self.status.fault.get() {
                let error = StoreError::Storage(fault.clone());
                part.into_iter().for_each(|write| write.answer(Err(error.clone())));
                continue;
            }
            match self.commit(&part, doubt).await {
                Ok(outcomes) => part.into_iter().zip(outcomes).for_each(|(write, outcome)| write.answer(outcome)),
                Err(Trouble::Row(_)) if !doubt => parts.push((part, true)),
                Err(Trouble::Row(_)) if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.push((second, true));
                    parts.push((part, true));
                }
                Err(trouble) => {
                    let error = self.fail(trouble);
                    part.into_iter().for_each(|write| write.answer(Err(error.clone())));
                }
            }
        }
    }

    async fn commit(&mut self, part: &[Write], doubt: bool) -> Result<Outcomes, Trouble> {
        let started = Instant::now();
        let questions = Questions::of(part.iter().map(|write| &write.op), &self.known, doubt);
        let tails = self.find_tails(&questions.runs).await?;
        let keys = self.find_keys(&questions.keys).await?;
        let mut plan = Plan::new(&self.known, &questions.runs, tails, keys);
        let outcomes: Outcomes = part.iter().map(|write| plan.take(&write.op)).collect();
        let unwritable = |error: StoreError| Trouble::Row(error.to_string());
        let (batch, decided) = plan.finish().map_err(unwritable)?;
        let (entries, events) = (batch.entries, batch.events);
        if let Some((text, arguments)) = batch.statement().map_err(unwritable)? {
            self.connection.transaction(sqlx::query_with(&text, arguments)).await?;
            self.unmoved = true;
            self.status.commits.fetch_add(1, Ordering::Relaxed);
            self.status.entries.fetch_add(entries, Ordering::Relaxed);
            self.status.events.fetch_add(events, Ordering::Relaxed);
            metrics::counter!("motet_store_commits_total").increment(1);
            metrics::histogram!("motet_store_commit_events").record(events as f64);
            metrics::histogram!("motet_store_commit_seconds").record(started.elapsed().as_secs_f64());
        }
        self.known.learn(decided);
        Ok(outcomes)
    }

    async fn find_tails(&mut self, runs: &[RunId]) -> Result<Vec<(RunId, Tail)>, Trouble> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<_> = runs.iter().map(|run| Hex(run.to_bytes())).collect();
        let rows = self.connection.fetch(sqlx::query(FIND_TAILS).bind(json(&asked)?)).await?;
        let read = |row: &SqliteRow| Ok((run_id(row, 0)?, Tail { state: state(row, 1)?, next: number(row, 2)? }));
        rows.iter().map(read).collect::<Result<_, StoreError>>().map_err(unreadable)
    }

    async fn find_keys(&mut self, keys: &[KeyName]) -> Result<HashMap<KeyName, UsedKey>, Trouble> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.connection.fetch(sqlx::query(FIND_KEYS).bind(json(&keys)?)).await?;
        let read = |row: &SqliteRow| {
            let fingerprint: &[u8] = column(row, 3)?;
            let fingerprint = fingerprint.try_into().map_err(|_| StoreError::Corrupt("a fingerprint".to_owned()))?;
            let expires_at = Timestamp::from_millis(column(row, 4)?);
            let used = UsedKey { run: run_id(row, 2)?, fingerprint, expires_at };
            Ok(((Namespace(name(row, 0)?), column(row, 1)?), used))
        };
        rows.iter().map(read).collect::<Result<_, StoreError>>().map_err(unreadable)
    }

    /// Writes that have a transaction of their own: definitions, leases, shards that change hands, retention.
    async fn alone(&mut self, write: Write) {
        if let Some(fault) = self.status.fault.get() {
            let error = StoreError::Storage(fault.clone());
            return write.answer(Err(error));
        }
        let outcome = self.carry_out(&write.op).await;
        self.unmoved = true;
        write.answer(outcome.unwrap_or_else(|trouble| Err(self.fail(trouble))));
    }

    async fn carry_out(&mut self, op: &Op) -> Result<Result<Outcome, StoreError>, Trouble> {
        match op {
            Op::Define(new) => {
                let put = definition::put(&mut self.connection, new).await?;
                Ok(Ok(Outcome::Put(put)))
            }
            Op::Retain { ended_before, now, limit } => {
                let gone = retention::forget(&mut self.connection, *ended_before, *now, *limit).await?;
                self.known.forget(&gone);
                Ok(Ok(Outcome::Forgotten(gone.len() as u64)))
            }
            Op::OutboxDone { shard, epoch, positions } => {
                let current = self.known.shards.epoch(*shard);
                if let Err(fenced) = check::epoch(*shard, *epoch, current) {
                    return Ok(Err(fenced));
                }
                outbox::forget(&mut self.connection, *shard, positions).await?;
                Ok(Ok(Outcome::Done))
            }
            Op::Letter(op) => ingest::change_letter(&mut self.connection, &self.known, op).await,
            Op::Lease(op) => {
                let number = lease::change(&mut self.connection, op).await?;
                self.known.lives = lease::lives(&mut self.connection).await?;
                Ok(Ok(Outcome::Lease(number)))
            }
            Op::Shard(op) => {
                let rows = shard::change(&mut self.connection, &self.known, op).await?;
                let changed = rows.as_deref().map(with_epochs);
                self.known.shards.learn(rows.unwrap_or_default());
                Ok(Ok(Outcome::Shards(changed)))
            }
            _ => Ok(Ok(Outcome::Done)),
        }
    }

    /// The error for the callers; a failing disk also ends all writing.
    fn fail(&self, trouble: Trouble) -> StoreError {
        let reason = match trouble {
            Trouble::Row(_) | Trouble::Busy | Trouble::Closed => return trouble.into_error(),
            Trouble::Corrupt(text) => format!("the database is damaged: {text}"),
            Trouble::Storage(text) => text,
        };
        tracing::error!(%reason, "the store refuses all writes until it is opened again");
        metrics::counter!("motet_store_faults_total").increment(1);
        StoreError::Storage(self.status.fault.get_or_init(|| reason).clone())
    }
}

/// A list of what is asked for, as the statements take it.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(|error| Trouble::Row(error.to_string()))
}

/// A row that is not what was written.
pub(super) fn unreadable(error: StoreError) -> Trouble {
    Trouble::Corrupt(error.to_string())
}
