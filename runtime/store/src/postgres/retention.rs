//! Forgetting: runs that ended long ago, what belonged to them, keys that expired, and dead letters that are settled.
//!
//! One transaction forgets a bounded number of runs. The journal of a day in which every run may be forgotten is not
//! deleted row by row: its partition is dropped when the last head of the day is gone. Never touches a run that has
//! not ended, nor one that holds a place in a line. Used by `postgres`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use motet_engine::id::{RunId, ShardId};
use motet_engine::time::Timestamp;
use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{Connection, Executor};

use super::partition::{self, born, day, first_id};
use super::reader::{column, run_id, state};
use super::trouble::failed;
use crate::StoreError;
use crate::port::HeadState;

/// Runs that one transaction forgets.
const RUNS_AT_ONCE: u32 = 250;

/// Dead letters that one transaction forgets.
const LETTERS_AT_ONCE: i64 = 1_000;

/// Expired keys that one transaction forgets.
const KEYS_AT_ONCE: i64 = 2_000;

// Ids sort by time and no run ends before it begins, so the candidates are at the beginning of the table; a run whose
// id was made by a clock that is ahead goes a little later. Other nodes may be forgetting too.
const FIND_RUNS: &str = "select id, state from run where id < $1 and finished_at < $2
  and line is null order by id limit $3 for update skip locked";
// Bytes may have been put for a run that was never admitted: they go when the run could have ended.
const FIND_STRAYS: &str = "select distinct run from blob_use
  where run < $1 and not exists (select 1 from run where run.id = blob_use.run) limit $2";
const FIND_LATE: &str = "select exists (select 1 from run where id >= $1 and id < $2
  and (finished_at is null or finished_at >= $3 or line is not null))";
// Locked before it is asked who else uses them: a use that is being added is waited for, and then seen.
const LOCK_BLOBS: &str = "select sha256 from blob where sha256 in (select sha256 from blob_use where run = any($1))
  order by sha256 for update";
const FORGET_USES: &str = "delete from blob_use where run = any($1)";
const FORGET_BLOBS: &str = "delete from blob where sha256 = any($1)
  and not exists (select 1 from blob_use where blob_use.sha256 = blob.sha256)";
const FORGET_SNAPSHOTS: &str = "delete from snapshot where run = any($1)";
const FORGET_ENTRIES: &str = "delete from journal where born = $1 and run = any($2)";
const FORGET_RUNS: &str = "delete from run where id = any($1)";
const COUNT: &str = "insert into run_count as kept (slot, state, runs) select $1, * from unnest($2, $3)
  on conflict (slot, state) do update set runs = kept.runs + excluded.runs";
const FORGET_KEYS: &str = "delete from idempotency where (namespace, key) in
  (select namespace, key from idempotency where expires_at < $1 order by expires_at limit $2 for update skip locked)";
const FORGET_LETTERS: &str = "delete from dead_letter where (namespace, stream, topic, part, generation, at_offset) in
  (select namespace, stream, topic, part, generation, at_offset from dead_letter where state > 0 and at < $1
    order by at limit $2 for update skip locked)";

/// What is to be forgotten.
pub(super) struct Horizon {
    pub(super) ended_before: Timestamp,
    pub(super) now: Timestamp,
    /// Where the counts are changed.
    pub(super) slot: i32,
}

/// Forgets at most `limit` runs, expired keys, dead letters that are settled, and partitions that are empty. Returns how many runs went.
pub(super) async fn forget(pool: &PgPool, horizon: &Horizon, limit: u32) -> Result<u64, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut gone = 0u32;
    let mut whole_days = HashMap::new();
    loop {
        let at_once = (limit - gone).min(RUNS_AT_ONCE);
        let some = forget_some(&mut connection, horizon, at_once, &mut whole_days).await?;
        gone += some;
        if some < at_once || gone == limit {
            break;
        }
    }
    let keys = sqlx::query(FORGET_KEYS).bind(horizon.now.as_millis()).bind(KEYS_AT_ONCE);
    connection.execute(keys).await.map_err(failed)?;
    let letters = sqlx::query(FORGET_LETTERS).bind(horizon.ended_before.as_millis()).bind(LETTERS_AT_ONCE);
    connection.execute(letters).await.map_err(failed)?;
    for day in partition::days_before(&mut connection, day(horizon.ended_before)).await? {
        if partition::drop_empty(&mut connection, day).await? {
            tracing::info!(day, "a day of the journal was forgotten");
        }
    }
    Ok(gone.into())
}

async fn forget_some(
    connection: &mut PgConnection,
    horizon: &Horizon,
    limit: u32,
    whole_days: &mut HashMap<i32, bool>,
) -> Result<u32, StoreError> {
    let ended_before = horizon.ended_before.as_millis();
    let first = RunId::new(horizon.ended_before, ShardId(0), 0).to_bytes();
    let mut transaction = connection.begin().await.map_err(failed)?;
    let find = sqlx::query(FIND_RUNS).bind(first).bind(ended_before).bind(i64::from(limit));
    let rows = transaction.fetch_all(find).await.map_err(failed)?;
    let read = |row: &PgRow| Ok((run_id(row, 0)?, state(row, 1)?));
    let ended: Vec<(RunId, HeadState)> = rows.iter().map(read).collect::<Result<_, StoreError>>()?;
    let find = sqlx::query(FIND_STRAYS).bind(first).bind(i64::from(limit));
    let strays = transaction.fetch_all(find).await.map_err(failed)?;
    let strays = strays.iter().map(|row| run_id(row, 0)).collect::<Result<Vec<_>, StoreError>>()?;

    let ids: Vec<[u8; 16]> = ended.iter().map(|(run, _)| run.to_bytes()).collect();
    let users: Vec<[u8; 16]> = ids.iter().copied().chain(strays.iter().map(|run| run.to_bytes())).collect();
    let rows = transaction.fetch_all(sqlx::query(LOCK_BLOBS).bind(&users)).await.map_err(failed)?;
    let digests = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<Vec<u8>>, StoreError>>()?;
    transaction.execute(sqlx::query(FORGET_USES).bind(&users)).await.map_err(failed)?;
    transaction.execute(sqlx::query(FORGET_BLOBS).bind(&digests)).await.map_err(failed)?;
    transaction.execute(sqlx::query(FORGET_SNAPSHOTS).bind(&ids)).await.map_err(failed)?;
    let days: BTreeSet<i32> = ended.iter().map(|(run, _)| born(*run)).collect();
    for day in days {
        let whole = match whole_days.get(&day) {
            Some(whole) => *whole,
            None => is_whole(&mut transaction, day, horizon).await?,
        };
        whole_days.insert(day, whole);
        if !whole {
            let delete = sqlx::query(FORGET_ENTRIES).bind(day).bind(&ids);
            transaction.execute(delete).await.map_err(failed)?;
        }
    }
    transaction.execute(sqlx::query(FORGET_RUNS).bind(&ids)).await.map_err(failed)?;
    let mut counts = BTreeMap::<i16, i64>::new();
    ended.iter().for_each(|(_, state)| *counts.entry(*state as i16).or_default() -= 1);
    let (states, changes): (Vec<i16>, Vec<i64>) = counts.into_iter().unzip();
    let count = sqlx::query(COUNT).bind(horizon.slot).bind(states).bind(changes);
    transaction.execute(count).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
}

/// Whether every run of a day may be forgotten.
async fn is_whole(connection: &mut PgConnection, its: i32, horizon: &Horizon) -> Result<bool, StoreError> {
    if its >= day(horizon.ended_before) {
        return Ok(false);
    }
    let late = sqlx::query(FIND_LATE).bind(first_id(its)).bind(first_id(its.saturating_add(1)));
    let row = connection.fetch_one(late.bind(horizon.ended_before.as_millis())).await.map_err(failed)?;
    Ok(!column::<bool>(&row, 0)?)
}
