//! The outbox in PostgreSQL: reading it, and forgetting what was sent.
//!
//! Rows are written with their run's events, by the batch. Used by `postgres`.

use bytes::Bytes;
use motet_engine::id::{Epoch, ShardId};
use sqlx::postgres::{PgPool, PgRow};

use super::reader::{column, epoch, number, run_id};
use super::trouble::failed;
use crate::headers::decode_headers;
use crate::port::{OutboxRecord, OutboxRow};
use crate::{StoreError, check};

const READ: &str = "select position, run, event, topic, key, headers, payload, transactional from outbox
  where shard = $1 and position > $2 order by position limit $3";
const DONE: &str = "with owned as materialized (select shard from shard where shard = $1 and epoch = $2 for share),
  gone as (delete from outbox using owned where outbox.shard = owned.shard and position = any($3))
  select count(*) from owned";
const ROWS: &str = "select count(*) from (select from outbox limit $1) as waiting";
const ORIGIN: &str = "select origin from shard_map";

/// Records of a shard after a position.
pub(super) async fn read(
    pool: &PgPool,
    shard: ShardId,
    after: u64,
    limit: u32,
) -> Result<Vec<OutboxRecord>, StoreError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let query = sqlx::query(READ).bind(shard.0.cast_signed()).bind(after).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(record).collect()
}

fn record(row: &PgRow) -> Result<OutboxRecord, StoreError> {
    let event: &[u8] = column(row, 2)?;
    let event = event.try_into().map_err(|_| StoreError::Corrupt("the id of an outbox record".to_owned()))?;
    let record = OutboxRecord {
        position: number(row, 0)?,
        run: run_id(row, 1)?,
        row: OutboxRow {
            event,
            topic: column(row, 3)?,
            key: column::<Option<Vec<u8>>>(row, 4)?.map(Bytes::from),
            headers: decode_headers(column(row, 5)?)?,
            payload: Bytes::from(column::<Vec<u8>>(row, 6)?),
            transactional: column(row, 7)?,
        },
    };
    Ok(record)
}

/// How many records wait, up to a number.
pub(super) async fn rows(pool: &PgPool, at_most: u64) -> Result<u64, StoreError> {
    let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
    let row = sqlx::query(ROWS).bind(at_most).fetch_one(pool).await.map_err(failed)?;
    number(&row, 0)
}

/// What tells these outboxes from others.
pub(super) async fn origin(pool: &PgPool) -> Result<String, StoreError> {
    let row = sqlx::query(ORIGIN).fetch_one(pool).await.map_err(failed)?;
    column(&row, 0)
}

/// Forgets records at positions, under the shard's epoch.
pub(super) async fn forget(pool: &PgPool, shard: ShardId, carried: Epoch, positions: &[u64]) -> Result<(), StoreError> {
    let positions: Vec<i64> = positions.iter().map(|position| position.cast_signed()).collect();
    let query = sqlx::query(DONE).bind(shard.0.cast_signed()).bind(carried.0.cast_signed()).bind(positions);
    let row = query.fetch_one(pool).await.map_err(failed)?;
    if number::<u64>(&row, 0)? > 0 {
        return Ok(());
    }
    let current = epoch(pool, shard).await?;
    check::epoch(shard, carried, current)?;
    // Only a claim in between can bring us here, and it has raised the epoch.
    Err(StoreError::Fenced { shard, carried, current })
}
