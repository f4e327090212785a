//! Partitions and dead letters in SQLite.
//!
//! Rows of partitions are decided by the writer, which remembers them, and written with the batch, as are ingests. Here
//! is what is read, and what becomes of dead letters later. Used by the writer and by `sqlite`.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace};
use motet_engine::time::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Sqlite};

use super::connection::{Connection, Statement};
use super::plan::Known;
use super::queue::{Op, Outcome};
use super::reader::{column, failed, name, number};
use super::schema::Trouble;
use super::writer::{json, unreadable};
use super::{SqliteStore, mismatch};
use crate::headers::decode_headers;
use crate::partition_rules::{self, Change};
use crate::port::{Admitted, DeadLetter, DeadQuery, DeadState, Ingest, IngestStore, PartitionKey, PartitionRow, Steer};
use crate::{StoreError, check};

const PARTITIONS: &str = "select namespace, stream, topic, part, generation, since, epoch, owner, next, origin, barren,
  paused, trouble, changed_at from ingest_partition";
const BARE: &str =
    "select namespace, stream, topic, part, generation, at_offset, at, timestamp, stage, class, state, sent,
  message, null, null, null from dead_letter";
const WHOLE: &str =
    "select namespace, stream, topic, part, generation, at_offset, at, timestamp, stage, class, state, sent,
  message, record_key, headers, record_value from dead_letter";
const UNSENT: &str = " indexed by dead_letter_unsent where sent = 0 and namespace = ?1 and stream = ?2 and topic = ?3
  and part = ?4 order by generation, at_offset limit ?5";
const ONE: &str = " where namespace = ?1 and stream = ?2 and topic = ?3 and part = ?4 and generation = ?5
  and at_offset = ?6";
const SETTLE: &str =
    "update dead_letter set state = ?7 where namespace = ?1 and stream = ?2 and topic = ?3 and part = ?4
  and generation = ?5 and at_offset = ?6 and state <> ?7 and (state = 0 or ?7 = 0)";
const SENT: &str = "update dead_letter set sent = 1 where namespace = ?1 and stream = ?2 and topic = ?3 and part = ?4
  and (generation, at_offset) in (select value->>0, value->>1 from json_each(?5))";

/// A change of dead letters.
#[derive(Debug)]
pub(super) enum LetterOp {
    Settle { key: PartitionKey, generation: u32, offset: i64, state: DeadState },
    Sent { key: PartitionKey, epoch: Epoch, offsets: Vec<(u32, i64)> },
}

/// The rows of all partitions, for the writer.
pub(super) async fn restore(connection: &mut Connection) -> Result<HashMap<PartitionKey, PartitionRow>, Trouble> {
    let rows = connection.fetch(sqlx::query(PARTITIONS)).await?;
    let read = |row: &SqliteRow| read_partition(row).map(|row| (row.key.clone(), row));
    rows.iter().map(read).collect::<Result<_, StoreError>>().map_err(unreadable)
}

/// Changes dead letters, in a transaction of its own.
pub(super) async fn change_letter(
    connection: &mut Connection,
    known: &Known,
    op: &LetterOp,
) -> Result<Result<Outcome, StoreError>, Trouble> {
    match op {
        LetterOp::Settle { key, generation, offset, state } => {
            let settle = addressed(SETTLE, key).bind(*generation).bind(*offset).bind(*state as u8);
            let settled = connection.execute(settle).await?;
            Ok(Ok(Outcome::Settled(settled > 0)))
        }
        LetterOp::Sent { key, epoch, offsets } => {
            if let Err(fenced) = partition_rules::owned(known.partitions.get(key), key, *epoch) {
                return Ok(Err(fenced));
            }
            connection.execute(addressed(SENT, key).bind(json(offsets)?)).await?;
            Ok(Ok(Outcome::Done))
        }
    }
}

/// A statement whose first arguments are the key of a partition.
fn addressed<'q>(text: &'q str, key: &'q PartitionKey) -> Statement<'q> {
    let PartitionKey { namespace, stream, topic, partition } = key;
    sqlx::query(text).bind(namespace.0.as_str()).bind(stream.as_str()).bind(topic.as_str()).bind(*partition)
}

fn read_key(row: &SqliteRow) -> Result<PartitionKey, StoreError> {
    Ok(PartitionKey {
        namespace: Namespace(name(row, 0)?),
        stream: name(row, 1)?,
        topic: column(row, 2)?,
        partition: number(row, 3)?,
    })
}

fn read_partition(row: &SqliteRow) -> Result<PartitionRow, StoreError> {
    Ok(PartitionRow {
        key: read_key(row)?,
        generation: number(row, 4)?,
        since: Timestamp::from_millis(column(row, 5)?),
        epoch: Epoch(number(row, 6)?),
        owner: column(row, 7)?,
        next: column(row, 8)?,
        origin: column(row, 9)?,
        barren: number(row, 10)?,
        paused: column(row, 11)?,
        trouble: column(row, 12)?,
        changed_at: Timestamp::from_millis(column(row, 13)?),
    })
}

fn read_letter(row: &SqliteRow) -> Result<DeadLetter, StoreError> {
    let number_of_state: i64 = column(row, 10)?;
    let state = DeadState::ALL.iter().find(|(state, _)| *state as i64 == number_of_state).map(|(state, _)| *state);
    let unknown = || StoreError::Corrupt(format!("state {number_of_state} of a dead letter is unknown"));
    let bytes = |place| Ok::<_, StoreError>(column::<Option<Vec<u8>>>(row, place)?.map(Bytes::from));
    let message = String::from_utf8(column(row, 12)?).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(DeadLetter {
        key: read_key(row)?,
        generation: number(row, 4)?,
        offset: column(row, 5)?,
        at: Timestamp::from_millis(column(row, 6)?),
        timestamp: column(row, 7)?,
        stage: column(row, 8)?,
        class: column(row, 9)?,
        message,
        record_key: bytes(13)?,
        value: bytes(15)?,
        headers: column::<Option<&[u8]>>(row, 14)?.map_or(Ok(vec![]), decode_headers)?,
        state: state.ok_or_else(unknown)?,
        sent: column(row, 11)?,
    })
}

/// The statement of a list. The planner has no statistics, so the way is named.
pub(super) fn list_text(query: &DeadQuery) -> QueryBuilder<'static, Sqlite> {
    let mut text = QueryBuilder::new(if query.with_bytes { WHOLE } else { BARE });
    let index = if query.stream.is_some() { "dead_letter_by_stream" } else { "dead_letter_by_time" };
    text.push(format!(" indexed by {index} where namespace = ")).push_bind(query.namespace.0.as_str().to_owned());
    if let Some(stream) = &query.stream {
        text.push(" and stream = ").push_bind(stream.as_str().to_owned());
    }
    if let Some(partition) = query.partition {
        text.push(" and part = ").push_bind(partition);
    }
    if let Some(state) = query.state {
        text.push(" and state = ").push_bind(state as u8);
    }
    if let Some(after) = &query.after {
        text.push(" and (at, stream, topic, part, generation, at_offset) < (").push_bind(after.at.as_millis());
        text.push(", ").push_bind(after.key.stream.as_str().to_owned());
        text.push(", ").push_bind(after.key.topic.clone());
        text.push(", ").push_bind(after.key.partition);
        text.push(", ").push_bind(after.generation);
        text.push(", ").push_bind(after.offset).push(")");
    }
    text.push(" order by at desc, stream desc, topic desc, part desc, generation desc, at_offset desc limit ");
    text.push_bind(query.limit.clamp(1, check::MAX_PAGE));
    text
}

async fn partitions(
    pool: &SqlitePool,
    namespace: Option<&Namespace>,
    stream: Option<&Name>,
) -> Result<Vec<PartitionRow>, StoreError> {
    let mut text = QueryBuilder::<Sqlite>::new(PARTITIONS);
    text.push(" where true");
    if let Some(namespace) = namespace {
        text.push(" and namespace = ").push_bind(namespace.0.as_str().to_owned());
    }
    if let Some(stream) = stream {
        text.push(" and stream = ").push_bind(stream.as_str().to_owned());
    }
    text.push(" order by namespace, stream, topic, part");
    let rows = text.build().fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read_partition).collect()
}

impl SqliteStore {
    async fn change_partition(
        &self,
        key: &PartitionKey,
        change: Change,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        match self.queue.write(Op::Partition { key: key.clone(), change, now }).await? {
            Outcome::Partition(row) => Ok(row.map(|row| *row)),
            other => mismatch(other),
        }
    }
}

#[async_trait]
impl IngestStore for SqliteStore {
    async fn claim_partition(
        &self,
        key: &PartitionKey,
        owner: &str,
        now: Timestamp,
    ) -> Result<PartitionRow, StoreError> {
        check::partition(key)?;
        check::owner(owner)?;
        let row = self.change_partition(key, Change::Claim { owner: owner.to_owned() }, now).await?;
        row.ok_or_else(|| StoreError::Corrupt(format!("{key} has no row after a claim")))
    }

    async fn begin_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        origin: &str,
        next: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        check::text("origin", origin)?;
        check::offset(next)?;
        self.change_partition(key, Change::Begin { epoch, origin: origin.to_owned(), next }, now).await.map(drop)
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Admitted>, StoreError> {
        check::ingest(&ingest)?;
        match self.queue.write(Op::Ingest(Box::new(ingest))).await? {
            Outcome::Ingested(answers) => Ok(answers),
            other => mismatch(other),
        }
    }

    async fn release_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        self.change_partition(key, Change::Release { epoch }, now).await.map(drop)
    }

    async fn forgive_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        self.change_partition(key, Change::Forgive { epoch }, now).await.map(drop)
    }

    async fn trouble_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        trouble: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        check::text("trouble", trouble.as_deref().unwrap_or_default())?;
        self.change_partition(key, Change::Trouble { epoch, trouble }, now).await.map(drop)
    }

    async fn steer_partition(
        &self,
        key: &PartitionKey,
        steer: Steer,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        check::steer(&steer)?;
        self.change_partition(key, Change::Steer(steer), now).await
    }

    async fn partitions(
        &self,
        namespace: Option<&Namespace>,
        stream: Option<&Name>,
    ) -> Result<Vec<PartitionRow>, StoreError> {
        partitions(&self.readers, namespace, stream).await
    }

    async fn partition(&self, key: &PartitionKey) -> Result<Option<PartitionRow>, StoreError> {
        let text = format!("{PARTITIONS} where namespace = ?1 and stream = ?2 and topic = ?3 and part = ?4");
        let row = addressed(&text, key).fetch_optional(&self.readers).await.map_err(failed)?;
        row.as_ref().map(read_partition).transpose()
    }

    async fn dead_letters(&self, query: &DeadQuery) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = list_text(query).build().fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter().map(read_letter).collect()
    }

    async fn dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let text = format!("{WHOLE}{ONE}");
        let query = addressed(&text, key).bind(generation).bind(offset);
        let row = query.fetch_optional(&self.readers).await.map_err(failed)?;
        row.as_ref().map(read_letter).transpose()
    }

    async fn settle_dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        state: DeadState,
    ) -> Result<bool, StoreError> {
        match self.queue.write(Op::Letter(LetterOp::Settle { key: key.clone(), generation, offset, state })).await? {
            Outcome::Settled(settled) => Ok(settled),
            other => mismatch(other),
        }
    }

    async fn unsent_dead_letters(&self, key: &PartitionKey, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let text = format!("{WHOLE}{UNSENT}");
        let query = addressed(&text, key).bind(limit.clamp(1, check::MAX_PAGE));
        let rows = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter().map(read_letter).collect()
    }

    async fn dead_letters_sent(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        offsets: &[(u32, i64)],
    ) -> Result<(), StoreError> {
        let op = LetterOp::Sent { key: key.clone(), epoch, offsets: offsets.to_vec() };
        self.queue.write(Op::Letter(op)).await.map(drop)
    }
}
