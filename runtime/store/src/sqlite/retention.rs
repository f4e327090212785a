//! Forgetting: runs that ended long ago, what belonged to them, keys that expired, and dead letters that are settled.
//!
//! One transaction forgets a bounded number of runs, so that other writes wait for milliseconds. An idempotency key
//! outlives its run until it expires: its promise is about repeating, not about reading. Used by the writer.

use motet_engine::id::{RunId, ShardId};
use motet_engine::time::Timestamp;
use sqlx::sqlite::SqliteRow;

use super::batch::Hex;
use super::connection::Connection;
use super::reader::{column, run_id, state};
use super::schema::Trouble;
use super::writer::{json, unreadable};
use crate::StoreError;
use crate::port::HeadState;

/// Runs that one transaction forgets.
pub(super) const RUNS_AT_ONCE: u32 = 250;

/// Expired keys that one transaction forgets.
const KEYS_AT_ONCE: u32 = 2_000;

/// Dead letters that one transaction forgets; each may be large.
const LETTERS_AT_ONCE: u32 = 50;

// Ids sort by time and no run ends before it begins, so the candidates are at the beginning of the table and no
// index by time of finishing is needed; a run whose id was made by a clock that is ahead goes a little later.
pub(super) const FIND_RUNS: &str =
    "select id, state from run where id < ?1 and finished_at < ?2 and line is null order by id limit ?3";
// Bytes may have been put for a run that was never admitted: they go when the run could have ended.
const FIND_STRAYS: &str = "select distinct run from blob_use
  where run < ?1 and not exists (select 1 from run where run.id = blob_use.run) limit ?2";
const FIND_BLOBS: &str = "select distinct sha256 from blob_use
  where run in (select unhex(value) from json_each(?1))";
const FORGET: &str = "begin immediate;
delete from journal where run in (select unhex(value) from json_each($1));
delete from snapshot where run in (select unhex(value) from json_each($1));
delete from blob_use where run in (select unhex(value) from json_each($1));
delete from run where id in (select unhex(value) from json_each($1));
delete from blob where sha256 in (select unhex(value) from json_each($2))
  and not exists (select 1 from blob_use where blob_use.sha256 = blob.sha256);
update run_count set succeeded = succeeded - ($3->>0), failed = failed - ($3->>1), cancelled = cancelled - ($3->>2),
  timed_out = timed_out - ($3->>3);
delete from idempotency where (namespace, key) in
  (select namespace, key from idempotency where expires_at < $4 order by expires_at limit $5);
delete from dead_letter where id in
  (select id from dead_letter where state > 0 and at < $6 order by at limit $7);
commit";

/// Forgets at most `limit` runs that ended before a time, dead letters that are settled and older than that, and keys
/// that expired before `now`. Returns the runs.
pub(super) async fn forget(
    connection: &mut Connection,
    ended_before: Timestamp,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<RunId>, Trouble> {
    let horizon = RunId::new(ended_before, ShardId(0), 0).to_bytes();
    let rows = sqlx::query(FIND_RUNS).bind(horizon.to_vec()).bind(ended_before.as_millis()).bind(limit);
    let rows = connection.fetch(rows).await?;
    let ended = rows.iter().map(|row| Ok((run_id(row, 0)?, state(row, 1)?)));
    let ended: Vec<(RunId, HeadState)> = ended.collect::<Result<_, StoreError>>().map_err(unreadable)?;
    let rows = connection.fetch(sqlx::query(FIND_STRAYS).bind(horizon.to_vec()).bind(limit)).await?;
    let strays = rows.iter().map(|row| run_id(row, 0)).collect::<Result<Vec<_>, StoreError>>().map_err(unreadable)?;

    let gone: Vec<RunId> = ended.iter().map(|(run, _)| *run).collect();
    let all = json(&gone.iter().chain(&strays).map(|run| Hex(run.to_bytes())).collect::<Vec<_>>())?;
    let rows = connection.fetch(sqlx::query(FIND_BLOBS).bind(all.clone())).await?;
    let digests = rows.iter().map(digest).collect::<Result<Vec<_>, StoreError>>().map_err(unreadable)?;
    let count = |state| ended.iter().filter(|(_, its)| *its == state).count();
    let counts = [HeadState::Succeeded, HeadState::Failed, HeadState::Cancelled, HeadState::TimedOut].map(count);
    let whole = sqlx::query(FORGET).bind(all).bind(json(&digests)?).bind(json(&counts)?);
    let whole = whole.bind(now.as_millis()).bind(KEYS_AT_ONCE);
    connection.transaction(whole.bind(ended_before.as_millis()).bind(LETTERS_AT_ONCE)).await?;
    Ok(gone)
}

fn digest(row: &SqliteRow) -> Result<Hex<Vec<u8>>, StoreError> {
    column(row, 0).map(Hex)
}
