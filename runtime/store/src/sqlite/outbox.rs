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

const READ: &str = "select position, run, event, topic, key, headers, payload from outbox
  where shard = ?1 and position > ?2 order by position limit ?3";
const DONE: &str = "delete from outbox where shard = ?1 and position <= ?2";

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
        },
    };
    Ok(row)
}

/// Forgets records up to a position.
pub(super) async fn forget(connection: &mut Connection, shard: ShardId, up_to: u64) -> Result<(), Trouble> {
    let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
    connection.execute(sqlx::query(DONE).bind(shard.0).bind(up_to)).await.map(drop)
}
