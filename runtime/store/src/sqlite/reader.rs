//! Reading runs, journals, timers and bytes back.
//!
//! Every question is one statement, so that it sees one moment and costs one hand-off to the database's thread.
//! Never writes. Used by `sqlite`; the readers of columns also by its other parts.

use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::schema::Trouble;
use crate::port::{Entry, HeadState, Line, RunHead, RunQuery, Snapshot, StoredRun};
use crate::{StoreError, check};

const HEAD: &str = "select state, created_at, finished_at, wake_at, namespace, workflow, version, tags, null, id, line,
  place from run";

// Three shapes of rows in one answer, told apart by the ninth column: head, snapshot, entry.
pub(super) const LOAD: &str =
    "select state, created_at, finished_at, wake_at, namespace, workflow, version, tags, 0 as part, id, line, place
  from run where id = ?1
union all
select seq, schema, null, null, null, null, null, null, 1, state, null, null from snapshot where run = ?1 and not ?2
union all
select seq, count, at, null, null, null, null, null, 2, payload, null, null from journal
  where run = ?1 and seq >= coalesce((select max(early.seq) from journal as early where early.run = ?1 and early.seq <=
    (select kept.seq + 1 from snapshot as kept where kept.run = ?1 and not ?2)), 0)";

pub(super) const ENTRIES: &str = "select seq, count, at, null, null, null, null, null, 2, payload from journal
  where run = ?1 and seq >= coalesce(
    (select max(early.seq) from journal as early where early.run = ?1 and early.seq <= ?2 + 1), 0)
    and seq + count > ?2 + 1
  order by seq limit ?3";

pub(super) const UNFINISHED: &str =
    "select id from run indexed by run_live where state < 2 and shard = ?1 and id > ?2 order by id limit ?3";
const LINES: &str = " indexed by run_line where line is not null and shard = ?1 and id > ?2 order by id limit ?3";
const FIRST: &str = " indexed by run_first where line is not null and line = ?1 and shard = ?2 order by place limit 1";
pub(super) const DUE: &str =
    "select id from run indexed by run_due where shard = ?1 and wake_at <= ?2 order by wake_at, id limit ?3";
pub(super) const NEXT_WAKE: &str =
    "select min(wake_at) from run indexed by run_due where shard = ?1 and wake_at is not null";

/// An error of the database as callers see it.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    Trouble::of(&error).into_error()
}

/// A column of a row.
pub(super) fn column<'r, T>(row: &'r SqliteRow, place: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(place).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A column that holds a run id.
pub(super) fn run_id(row: &SqliteRow, place: usize) -> Result<RunId, StoreError> {
    let bytes: &[u8] = column(row, place)?;
    let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt(format!("a run id has {} bytes", bytes.len())))?;
    Ok(RunId::from_bytes(bytes))
}

/// A column that holds a run's state.
pub(super) fn state(row: &SqliteRow, place: usize) -> Result<HeadState, StoreError> {
    let number: i64 = column(row, place)?;
    let known = HeadState::ALL.iter().find(|(state, _)| *state as i64 == number);
    known.map(|(state, _)| *state).ok_or_else(|| StoreError::Corrupt(format!("state {number} of a run is unknown")))
}

/// A column that holds a name.
pub(super) fn name(row: &SqliteRow, place: usize) -> Result<Name, StoreError> {
    Name::new(column(row, place)?).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn time(row: &SqliteRow, place: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(column::<Option<i64>>(row, place)?.map(Timestamp::from_millis))
}

/// A column that holds a whole number of some kind.
pub(super) fn number<T: TryFrom<i64>>(row: &SqliteRow, place: usize) -> Result<T, StoreError> {
    let number: i64 = column(row, place)?;
    T::try_from(number).map_err(|_| StoreError::Corrupt(format!("the number {number} is out of range")))
}

fn read_line(row: &SqliteRow) -> Result<Option<Line>, StoreError> {
    let Some(line) = column::<Option<&[u8]>>(row, 10)? else { return Ok(None) };
    let line = line.try_into().map_err(|_| StoreError::Corrupt(format!("a line has {} bytes", line.len())))?;
    Ok(Some(Line { line, place: column(row, 11)? }))
}

fn read_head(row: &SqliteRow) -> Result<RunHead, StoreError> {
    let tags: &str = column(row, 7)?;
    Ok(RunHead {
        run: run_id(row, 9)?,
        namespace: Namespace(name(row, 4)?),
        workflow: name(row, 5)?,
        version: column(row, 6)?,
        tags: serde_json::from_str(tags).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        state: state(row, 0)?,
        created_at: Timestamp::from_millis(column(row, 1)?),
        finished_at: time(row, 2)?,
        wake_at: time(row, 3)?,
        line: read_line(row)?,
    })
}

fn read_entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    let at = Timestamp::from_millis(column(row, 2)?);
    let payload = Bytes::from(column::<Vec<u8>>(row, 9)?);
    Ok(Entry { seq: Seq(number(row, 0)?), count: number(row, 1)?, at, payload })
}

/// Head, snapshot and the entries after it.
pub(super) async fn load(pool: &SqlitePool, run: RunId, from_start: bool) -> Result<Option<StoredRun>, StoreError> {
    let id = run.to_bytes();
    let rows = sqlx::query(LOAD).bind(&id[..]).bind(from_start).fetch_all(pool).await.map_err(failed)?;
    let (mut head, mut snapshot, mut entries) = (None, None, Vec::with_capacity(rows.len()));
    for row in &rows {
        match column::<i64>(row, 8)? {
            0 => head = Some(read_head(row)?),
            1 => {
                let state = Bytes::from(column::<Vec<u8>>(row, 9)?);
                snapshot = Some(Snapshot { seq: Seq(number(row, 0)?), schema: number(row, 1)?, state });
            }
            _ => entries.push(read_entry(row)?),
        }
    }
    let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq.0);
    entries.retain(|entry| entry.seq.0 + u64::from(entry.count) > after + 1);
    entries.sort_unstable_by_key(|entry| entry.seq);
    Ok(head.map(|head| StoredRun { head, snapshot, entries }))
}

/// A head row.
pub(super) async fn head(pool: &SqlitePool, run: RunId) -> Result<Option<RunHead>, StoreError> {
    let mut text = QueryBuilder::<Sqlite>::new(HEAD);
    text.push(" where id = ").push_bind(run.to_bytes().to_vec());
    let row = text.build().fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(read_head).transpose()
}

/// Entries whose last event is after `after`.
pub(super) async fn entries(pool: &SqlitePool, run: RunId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
    let id = run.to_bytes();
    // Past the largest number that a row can have there is nothing.
    let after = i64::try_from(after.0).unwrap_or(i64::MAX - 1).min(i64::MAX - 1);
    let rows = sqlx::query(ENTRIES).bind(&id[..]).bind(after).bind(limit).fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read_entry).collect()
}

/// Heads, newest first.
pub(super) async fn list(pool: &SqlitePool, query: &RunQuery) -> Result<Vec<RunHead>, StoreError> {
    let mut text = list_text(query);
    let rows = text.build().fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read_head).collect()
}

/// The statement of a list. The planner has no statistics, so the way is named: failures and live runs have small
/// indexes, a workflow's runs have theirs, and everything else walks the table from its newest end.
pub(super) fn list_text(query: &RunQuery) -> QueryBuilder<'static, Sqlite> {
    let all_are =
        |states: &[HeadState]| !query.states.is_empty() && query.states.iter().all(|state| states.contains(state));
    let mut text = QueryBuilder::new(HEAD);
    let namespace = query.namespace.0.as_str().to_owned();
    if query.holding {
        // Whoever ended otherwise has left.
        text.push(" indexed by run_held where line is not null and state in (5, 7) and namespace = ");
        text.push_bind(namespace);
    } else if all_are(&[HeadState::Failed, HeadState::TimedOut]) {
        text.push(" indexed by run_failed where state in (5, 7) and namespace = ").push_bind(namespace);
    } else if all_are(&[HeadState::Pending, HeadState::Running]) {
        text.push(" indexed by run_live where state < 2 and namespace = ").push_bind(namespace);
    } else if query.workflow.is_some() {
        text.push(" indexed by run_by_workflow where namespace = ").push_bind(namespace);
    } else {
        // The plus keeps the planner from an index that would have to be sorted.
        text.push(" where +namespace = ").push_bind(namespace);
    }
    if let Some(workflow) = &query.workflow {
        text.push(" and workflow = ").push_bind(workflow.as_str().to_owned());
    }
    if !query.states.is_empty() {
        let mut states = text.push(" and state in (").separated(", ");
        for state in &query.states {
            states.push_bind(*state as u8);
        }
        text.push(")");
    }
    if let Some(tag) = &query.tag {
        text.push(" and exists (select 1 from json_each(tags) where value = ").push_bind(tag.clone()).push(")");
    }
    if let Some(from) = query.created_from {
        text.push(" and created_at >= ").push_bind(from.as_millis());
    }
    if let Some(before) = query.created_before {
        text.push(" and created_at < ").push_bind(before.as_millis());
    }
    if let Some(before) = query.before {
        text.push(" and id < ").push_bind(before.to_bytes().to_vec());
    }
    text.push(" order by id desc limit ").push_bind(query.limit.clamp(1, check::MAX_PAGE));
    text
}

/// Runs of a shard that must be brought back, oldest first.
pub(super) async fn unfinished(
    pool: &SqlitePool,
    shard: ShardId,
    after: Option<RunId>,
    limit: u32,
) -> Result<Vec<RunId>, StoreError> {
    let after = after.map_or_else(Vec::new, |after| after.to_bytes().to_vec());
    let rows = sqlx::query(UNFINISHED).bind(shard.0).bind(after).bind(limit).fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| run_id(row, 0)).collect()
}

/// The statement that finds runs that hold a place in a line.
pub(super) fn lines_text() -> String {
    format!("{HEAD}{LINES}")
}

/// Runs of a shard that hold a place in a line, oldest first.
pub(super) async fn lines(
    pool: &SqlitePool,
    shard: ShardId,
    after: Option<RunId>,
    limit: u32,
) -> Result<Vec<RunHead>, StoreError> {
    let after = after.map_or_else(Vec::new, |after| after.to_bytes().to_vec());
    let text = lines_text();
    let rows = sqlx::query(&text).bind(shard.0).bind(after).bind(limit).fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read_head).collect()
}

pub(super) fn first_text() -> String {
    format!("{HEAD}{FIRST}")
}

/// The run with the smallest place in a line.
pub(super) async fn line_head(
    pool: &SqlitePool,
    shard: ShardId,
    line: [u8; 16],
) -> Result<Option<RunHead>, StoreError> {
    let text = first_text();
    let row = sqlx::query(&text).bind(line.to_vec()).bind(shard.0).fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(read_head).transpose()
}

/// Runs by state.
pub(super) async fn counts(pool: &SqlitePool) -> Result<Vec<(HeadState, u64)>, StoreError> {
    let text = "select pending, running, waiting, paused, succeeded, failed, cancelled, timed_out from run_count";
    let row = sqlx::query(text).fetch_one(pool).await.map_err(failed)?;
    let count = |(place, (state, _)): (usize, &(HeadState, &str))| Ok((*state, number(&row, place)?));
    HeadState::ALL.iter().enumerate().map(count).collect()
}

/// Whether the file is sound, and its counts those of its rows.
pub(super) async fn verify(pool: &SqlitePool) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("pragma integrity_check(1)").fetch_one(pool).await.map_err(failed)?;
    if found != "ok" {
        return Err(StoreError::Corrupt(found));
    }
    let text = "select state, count(*) from run group by state";
    let rows = sqlx::query(text).fetch_all(pool).await.map_err(failed)?;
    let kept = counts(pool).await?;
    let counted = rows.iter().map(|row| Ok((state(row, 0)?, number(row, 1)?)));
    let counted = counted.collect::<Result<Vec<(HeadState, u64)>, StoreError>>()?;
    for (state, kept) in kept {
        let rows = counted.iter().find(|(other, _)| *other == state).map_or(0, |(_, rows)| *rows);
        if rows != kept {
            return Err(StoreError::Corrupt(format!("{kept} runs are counted as {state:?}, and there are {rows}")));
        }
    }
    Ok(())
}

/// Runs that want to be woken, earliest first.
pub(super) async fn due(
    pool: &SqlitePool,
    shard: ShardId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<RunId>, StoreError> {
    let rows = sqlx::query(DUE).bind(shard.0).bind(now.as_millis()).bind(limit);
    let rows = rows.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| run_id(row, 0)).collect()
}

/// The earliest time at which a run of the shard wants to be woken.
pub(super) async fn next_wake(pool: &SqlitePool, shard: ShardId) -> Result<Option<Timestamp>, StoreError> {
    let row = sqlx::query(NEXT_WAKE).bind(shard.0).fetch_one(pool).await.map_err(failed)?;
    time(&row, 0)
}

/// Bytes by their digest, which is checked.
pub(super) async fn blob(pool: &SqlitePool, blob: BlobRef) -> Result<Option<Bytes>, StoreError> {
    let row = sqlx::query("select data from blob where sha256 = ?1").bind(&blob.sha256[..]);
    let Some(row) = row.fetch_optional(pool).await.map_err(failed)? else { return Ok(None) };
    let data = Bytes::from(column::<Vec<u8>>(&row, 0)?);
    if <[u8; 32]>::from(Sha256::digest(&data)) != blob.sha256 {
        return Err(StoreError::Corrupt(format!("the bytes of {blob} have another digest")));
    }
    Ok(Some(data))
}

/// A shard's epoch.
pub(super) async fn epoch(pool: &SqlitePool, shard: ShardId) -> Result<Epoch, StoreError> {
    let row = sqlx::query("select epoch from shard where shard = ?1").bind(shard.0);
    let row = row.fetch_optional(pool).await.map_err(failed)?;
    Ok(Epoch(row.map_or(Ok(0), |row| number(&row, 0))?))
}
