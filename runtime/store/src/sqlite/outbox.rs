//! The outbox in SQLite: reading it, and forgetting what was sent.
//!
//! Rows are written with their run's events, by the batch. Used by the writer and by `sqlite`.

use bytes::Bytes;
use motet_engine::id::ShardId;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::connection::Connection;
use super::reader::{column, failed, number, run_id};
use super::schema::Trouble;
use crate::StoreError;
use crate::headers::decode_headers;
use crate::port::{OutboxRecord, OutboxRow};

const READ: &str = "select position, run, event, topic, key, headers, payload, transactional from outbox
  where shard = ?1 and position > ?2 order by position limit ?3";
const DONE: &str = "delete from outbox where shard = ?1 and position in (select value from json_each(?2))";
const ROWS: &str = "select count(*) from (select 1 from outbox limit ?1)";
const ORIGIN: &str = "select origin from shard_map";

/// Records of a shard after a position.
pub(super) async fn read(
    pool: &SqlitePool,
    shard: ShardId,
    after: u64,
    limit: u32,
) -> Result<Vec<OutboxRecord>, StoreError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = sqlx::query(READ).bind(shard.0).bind(after).bind(limit).fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(record).collect()
}

fn record(row: &SqliteRow) -> Result<OutboxRecord, StoreError> {
    let event: &[u8] = column(row, 2)?;
    let event = event.try_into().map_err(|_| StoreError::Corrupt("the id of an outbox record".to_owned()))?;
    let row = OutboxRecord {
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
    Ok(row)
}

/// How many records wait, up to a number.
pub(super) async fn rows(pool: &SqlitePool, at_most: u64) -> Result<u64, StoreError> {
    let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
    let row = sqlx::query(ROWS).bind(at_most).fetch_one(pool).await.map_err(failed)?;
    number(&row, 0)
}

/// What tells these outboxes from others.
pub(super) async fn origin(pool: &SqlitePool) -> Result<String, StoreError> {
    let row = sqlx::query(ORIGIN).fetch_one(pool).await.map_err(failed)?;
    column(&row, 0)
}

/// Forgets records at positions.
pub(super) async fn forget(connection: &mut Connection, shard: ShardId, positions: &[u64]) -> Result<(), Trouble> {
    let positions = serde_json::to_string(positions).map_err(|error| Trouble::Row(error.to_string()))?;
    connection.execute(sqlx::query(DONE).bind(shard.0).bind(positions)).await.map(drop)
}
