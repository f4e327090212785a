//! Dead letters: finding them, and what becomes of them later.
//!
//! They are written with their partition's position, by the statement of an ingest. Used by ingests.

use bytes::Bytes;
use motet_engine::id::Epoch;
use motet_engine::time::Timestamp;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Postgres, QueryBuilder};

use super::row::{self, addressed, read_key};
use crate::headers::decode_headers;
use crate::partition_rules::fenced;
use crate::port::{DeadLetter, DeadQuery, DeadState, PartitionKey};
use crate::postgres::reader::{column, number};
use crate::postgres::trouble::failed;
use crate::{StoreError, check};

const BARE: &str =
    "select namespace, stream, topic, part, generation, at_offset, at, timestamp, stage, class, state, sent,
  message, null::bytea, null::bytea, null::bytea from dead_letter";
const WHOLE: &str =
    "select namespace, stream, topic, part, generation, at_offset, at, timestamp, stage, class, state, sent,
  message, record_key, headers, record_value from dead_letter";
const UNSENT: &str = " where not sent and namespace = $1 and stream = $2 and topic = $3 and part = $4
  order by generation, at_offset limit $5";
const ONE: &str = " where namespace = $1 and stream = $2 and topic = $3 and part = $4 and generation = $5
  and at_offset = $6";
const SETTLE: &str =
    "update dead_letter set state = $7 where namespace = $1 and stream = $2 and topic = $3 and part = $4
  and generation = $5 and at_offset = $6 and state <> $7 and (state = 0 or $7 = 0)";
const SENT: &str = "with owned as materialized (select epoch from ingest_partition
    where namespace = $1 and stream = $2 and topic = $3 and part = $4 and epoch = $5 for share),
  marked as (update dead_letter set sent = true
    from owned, unnest($6::bigint[], $7::bigint[]) as asked(generation, at_offset)
    where dead_letter.namespace = $1 and dead_letter.stream = $2 and dead_letter.topic = $3 and dead_letter.part = $4
    and dead_letter.generation = asked.generation and dead_letter.at_offset = asked.at_offset)
  select count(*) from owned";

fn read(row: &PgRow) -> Result<DeadLetter, StoreError> {
    let number_of_state: i16 = column(row, 10)?;
    let state = DeadState::ALL.iter().find(|(state, _)| *state as i16 == number_of_state).map(|(state, _)| *state);
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

/// The statement of a list.
fn list_text(query: &DeadQuery) -> QueryBuilder<'static, Postgres> {
    let mut text = QueryBuilder::new(if query.with_bytes { WHOLE } else { BARE });
    text.push(" where namespace = ").push_bind(query.namespace.0.as_str().to_owned());
    if let Some(stream) = &query.stream {
        text.push(" and stream = ").push_bind(stream.as_str().to_owned());
    }
    if let Some(partition) = query.partition {
        text.push(" and part = ").push_bind(partition);
    }
    if let Some(state) = query.state {
        text.push(" and state = ").push_bind(state as i16);
    }
    if let Some(after) = &query.after {
        text.push(" and (at, stream, topic, part, generation, at_offset) < (").push_bind(after.at.as_millis());
        text.push(", ").push_bind(after.key.stream.as_str().to_owned());
        text.push(", ").push_bind(after.key.topic.clone());
        text.push(", ").push_bind(after.key.partition);
        text.push(", ").push_bind(i64::from(after.generation));
        text.push(", ").push_bind(after.offset).push(")");
    }
    text.push(" order by at desc, stream desc, topic desc, part desc, generation desc, at_offset desc limit ");
    text.push_bind(i64::from(query.limit.clamp(1, check::MAX_PAGE)));
    text
}

/// Dead letters, newest first.
pub(super) async fn list(pool: &PgPool, query: &DeadQuery) -> Result<Vec<DeadLetter>, StoreError> {
    let rows = list_text(query).build().fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read).collect()
}

/// One dead letter with its bytes.
pub(super) async fn get(
    pool: &PgPool,
    key: &PartitionKey,
    generation: u32,
    offset: i64,
) -> Result<Option<DeadLetter>, StoreError> {
    let text = format!("{WHOLE}{ONE}");
    let query = addressed(&text, key).bind(i64::from(generation)).bind(offset);
    let row = query.fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(read).transpose()
}

/// Settles an open dead letter, or opens a settled one; whether it did.
pub(super) async fn settle(
    pool: &PgPool,
    key: &PartitionKey,
    generation: u32,
    offset: i64,
    state: DeadState,
) -> Result<bool, StoreError> {
    let query = addressed(SETTLE, key).bind(i64::from(generation)).bind(offset).bind(state as i16);
    Ok(query.execute(pool).await.map_err(failed)?.rows_affected() > 0)
}

/// The statement that finds what must be sent.
fn unsent_text() -> String {
    format!("{WHOLE}{UNSENT}")
}

/// Dead letters of a partition that must be sent, oldest offset first.
pub(super) async fn unsent(pool: &PgPool, key: &PartitionKey, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
    let text = unsent_text();
    let query = addressed(&text, key).bind(i64::from(limit.clamp(1, check::MAX_PAGE)));
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read).collect()
}

/// Marks dead letters as sent, under the partition's epoch.
pub(super) async fn mark_sent(
    pool: &PgPool,
    key: &PartitionKey,
    carried: Epoch,
    offsets: &[(u32, i64)],
) -> Result<(), StoreError> {
    let (generations, offsets): (Vec<i64>, Vec<i64>) =
        offsets.iter().map(|(generation, offset)| (i64::from(*generation), *offset)).unzip();
    let query = addressed(SENT, key).bind(carried.0.cast_signed()).bind(generations).bind(offsets);
    let answer = query.fetch_one(pool).await.map_err(failed)?;
    if number::<u64>(&answer, 0)? > 0 {
        return Ok(());
    }
    Err(fenced(key, carried, row::get(pool, key).await?.map(|row| row.epoch)))
}
