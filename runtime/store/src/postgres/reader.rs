//! Reading runs, journals, timers and bytes back.
//!
//! Every question is one statement, so that it sees one moment and costs one round trip. Never writes. Used by
//! `postgres`; the readers of columns also by its other parts.

use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Postgres, QueryBuilder, Row};

use super::partition::born;
use super::trouble::failed;
use crate::port::{Entry, HeadState, Line, RunHead, RunQuery, Snapshot, StoredRun};
use crate::{StoreError, check};

const HEAD: &str =
    "select state, created_at, finished_at, wake_at, namespace, workflow, version, tags, 0, id, line, place
  from run";

// Three shapes of rows in one answer, told apart by the ninth column: head, snapshot, entry.
pub(super) const LOAD: &str =
    "select state::bigint, created_at, finished_at, wake_at, namespace, workflow, version, tags, 0 as part, id as data,
  line, place from run where id = $1
union all
select seq, schema, null, null, null, null, null, null, 1, state, null, null from snapshot where run = $1 and not $3
union all
select seq, count, at, null, null, null, null, null, 2, payload, null, null from journal
  where born = $2 and run = $1 and seq >= coalesce((select max(early.seq) from journal as early
    where early.born = $2 and early.run = $1 and early.seq <=
      (select kept.seq + 1 from snapshot as kept where kept.run = $1 and not $3)), 0)";

pub(super) const ENTRIES: &str = "select seq, count::bigint, at, null, null, null, null, null, 2, payload from journal
  where born = $2 and run = $1 and seq >= coalesce((select max(early.seq) from journal as early
      where early.born = $2 and early.run = $1 and early.seq <= $3 + 1), 0)
    and seq + count > $3 + 1
  order by seq limit $4";

pub(super) const UNFINISHED: &str =
    "select id from run where state < 2 and shard = $1 and id > $2 order by id limit $3";
const LINES: &str = " where line is not null and shard = $1 and id > $2 order by id limit $3";
const FIRST: &str = " where line = $1 and shard = $2 order by place limit 1";
pub(super) const DUE: &str = "select id from run where shard = $1 and wake_at <= $2 order by wake_at, id limit $3";
pub(super) const NEXT_WAKE: &str =
    "select wake_at from run where shard = $1 and wake_at is not null order by wake_at limit 1";
pub(super) const COUNTS: &str = "select state, sum(runs)::bigint from run_count group by state";

/// A column of a row.
pub(super) fn column<'r, T>(row: &'r PgRow, place: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(place).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A column that holds a run id.
pub(super) fn run_id(row: &PgRow, place: usize) -> Result<RunId, StoreError> {
    let bytes: &[u8] = column(row, place)?;
    let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt(format!("a run id has {} bytes", bytes.len())))?;
    Ok(RunId::from_bytes(bytes))
}

/// A column that holds a digest.
pub(super) fn digest(row: &PgRow, place: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = column(row, place)?;
    bytes.try_into().map_err(|_| StoreError::Corrupt(format!("a digest has {} bytes", bytes.len())))
}

/// A column that holds a run's state as a small number.
pub(super) fn state(row: &PgRow, place: usize) -> Result<HeadState, StoreError> {
    state_of(column::<i16>(row, place)?.into())
}

fn state_of(number: i64) -> Result<HeadState, StoreError> {
    let known = HeadState::ALL.iter().find(|(state, _)| *state as i64 == number);
    known.map(|(state, _)| *state).ok_or_else(|| StoreError::Corrupt(format!("state {number} of a run is unknown")))
}

/// A column that holds a name.
pub(super) fn name(row: &PgRow, place: usize) -> Result<Name, StoreError> {
    Name::new(column(row, place)?).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A column that holds an event's number.
pub(super) fn seq(row: &PgRow, place: usize) -> Result<Seq, StoreError> {
    number(row, place).map(Seq)
}

fn time(row: &PgRow, place: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(column::<Option<i64>>(row, place)?.map(Timestamp::from_millis))
}

/// A column that holds a whole number of some kind as a large one.
pub(super) fn number<T: TryFrom<i64>>(row: &PgRow, place: usize) -> Result<T, StoreError> {
    let number: i64 = column(row, place)?;
    T::try_from(number).map_err(|_| StoreError::Corrupt(format!("the number {number} is out of range")))
}

fn read_line(row: &PgRow) -> Result<Option<Line>, StoreError> {
    let Some(line) = column::<Option<&[u8]>>(row, 10)? else { return Ok(None) };
    let line = line.try_into().map_err(|_| StoreError::Corrupt(format!("a line has {} bytes", line.len())))?;
    Ok(Some(Line { line, place: column(row, 11)? }))
}

fn read_head(row: &PgRow, state: HeadState) -> Result<RunHead, StoreError> {
    let tags: &str = column(row, 7)?;
    Ok(RunHead {
        run: run_id(row, 9)?,
        namespace: Namespace(name(row, 4)?),
        workflow: name(row, 5)?,
        version: column(row, 6)?,
        tags: serde_json::from_str(tags).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        state,
        created_at: Timestamp::from_millis(column(row, 1)?),
        finished_at: time(row, 2)?,
        wake_at: time(row, 3)?,
        line: read_line(row)?,
    })
}

fn read_entry(row: &PgRow) -> Result<Entry, StoreError> {
    let at = Timestamp::from_millis(column(row, 2)?);
    let payload = Bytes::from(column::<Vec<u8>>(row, 9)?);
    Ok(Entry { seq: seq(row, 0)?, count: number(row, 1)?, at, payload })
}

/// Head, snapshot and the entries after it.
pub(super) async fn load(pool: &PgPool, run: RunId, from_start: bool) -> Result<Option<StoredRun>, StoreError> {
    let query = sqlx::query(LOAD).bind(run.to_bytes()).bind(born(run)).bind(from_start);
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    let (mut head, mut snapshot, mut entries) = (None, None, Vec::with_capacity(rows.len()));
    for row in &rows {
        match column::<i32>(row, 8)? {
            0 => head = Some(read_head(row, state_of(column(row, 0)?)?)?),
            1 => {
                let state = Bytes::from(column::<Vec<u8>>(row, 9)?);
                let schema = column::<i64>(row, 1)?;
                let schema = i32::try_from(schema).map_err(|error| StoreError::Corrupt(error.to_string()))?;
                snapshot = Some(Snapshot { seq: seq(row, 0)?, schema: schema.cast_unsigned(), state });
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
pub(super) async fn head(pool: &PgPool, run: RunId) -> Result<Option<RunHead>, StoreError> {
    let text = format!("{HEAD} where id = $1");
    let row = sqlx::query(&text).bind(run.to_bytes()).fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(|row| read_head(row, state(row, 0)?)).transpose()
}

/// Entries whose last event is after `after`.
pub(super) async fn entries(pool: &PgPool, run: RunId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
    // Past the largest number that a row can have there is nothing.
    let after = i64::try_from(after.0).unwrap_or(i64::MAX - 1).min(i64::MAX - 1);
    let query = sqlx::query(ENTRIES).bind(run.to_bytes()).bind(born(run)).bind(after).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read_entry).collect()
}

/// Heads, newest first.
pub(super) async fn list(pool: &PgPool, query: &RunQuery) -> Result<Vec<RunHead>, StoreError> {
    let rows = list_text(query).build().fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| read_head(row, state(row, 0)?)).collect()
}

/// The statement of a list. States stand in the text: the partial indexes of failures and of live runs serve only
/// those who say so.
pub(super) fn list_text(query: &RunQuery) -> QueryBuilder<'static, Postgres> {
    let mut text = QueryBuilder::new(HEAD);
    text.push(" where namespace = ").push_bind(query.namespace.0.as_str().to_owned());
    if let Some(workflow) = &query.workflow {
        text.push(" and workflow = ").push_bind(workflow.as_str().to_owned());
    }
    if !query.states.is_empty() {
        let all_live = query.states.iter().all(|state| *state < HeadState::Waiting);
        let states: Vec<String> = query.states.iter().map(|state| (*state as u8).to_string()).collect();
        text.push(if all_live { " and state < 2" } else { "" });
        text.push(format!(" and state in ({})", states.join(", ")));
    }
    if query.holding {
        // Whoever ended otherwise has left.
        text.push(" and line is not null and state in (5, 7)");
    }
    if let Some(tag) = &query.tag {
        text.push(" and tags::jsonb ? ").push_bind(tag.clone());
    }
    if let Some(from) = query.created_from {
        text.push(" and created_at >= ").push_bind(from.as_millis());
    }
    if let Some(before) = query.created_before {
        text.push(" and created_at < ").push_bind(before.as_millis());
    }
    if let Some(before) = query.before {
        text.push(" and id < ").push_bind(before.to_bytes());
    }
    text.push(" order by id desc limit ").push_bind(i64::from(query.limit.clamp(1, check::MAX_PAGE)));
    text
}

/// Runs of a shard that must be brought back, oldest first.
pub(super) async fn unfinished(
    pool: &PgPool,
    shard: ShardId,
    after: Option<RunId>,
    limit: u32,
) -> Result<Vec<RunId>, StoreError> {
    let after = after.map_or([0; 16], RunId::to_bytes);
    let query = sqlx::query(UNFINISHED).bind(shard.0.cast_signed()).bind(after).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| run_id(row, 0)).collect()
}

/// The statement that finds runs that hold a place in a line.
pub(super) fn lines_text() -> String {
    format!("{HEAD}{LINES}")
}

/// Runs of a shard that hold a place in a line, oldest first.
pub(super) async fn lines(
    pool: &PgPool,
    shard: ShardId,
    after: Option<RunId>,
    limit: u32,
) -> Result<Vec<RunHead>, StoreError> {
    let after = after.map_or([0; 16], RunId::to_bytes);
    let text = lines_text();
    let query = sqlx::query(&text).bind(shard.0.cast_signed()).bind(after).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| read_head(row, state(row, 0)?)).collect()
}

pub(super) fn first_text() -> String {
    format!("{HEAD}{FIRST}")
}

/// The run with the smallest place in a line.
pub(super) async fn line_head(pool: &PgPool, shard: ShardId, line: [u8; 16]) -> Result<Option<RunHead>, StoreError> {
    let text = first_text();
    let query = sqlx::query(&text).bind(line).bind(shard.0.cast_signed());
    let row = query.fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(|row| read_head(row, state(row, 0)?)).transpose()
}

/// Runs by state.
pub(super) async fn counts(pool: &PgPool) -> Result<Vec<(HeadState, u64)>, StoreError> {
    let rows = sqlx::query(COUNTS).fetch_all(pool).await.map_err(failed)?;
    let mut counts = HeadState::ALL.map(|(state, _)| (state, 0));
    for row in &rows {
        counts[state(row, 0)? as usize].1 = number(row, 1)?;
    }
    Ok(counts.to_vec())
}

/// Runs that want to be woken, earliest first.
pub(super) async fn due(pool: &PgPool, shard: ShardId, now: Timestamp, limit: u32) -> Result<Vec<RunId>, StoreError> {
    let query = sqlx::query(DUE).bind(shard.0.cast_signed()).bind(now.as_millis()).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| run_id(row, 0)).collect()
}

/// The earliest time at which a run of the shard wants to be woken.
pub(super) async fn next_wake(pool: &PgPool, shard: ShardId) -> Result<Option<Timestamp>, StoreError> {
    let row = sqlx::query(NEXT_WAKE).bind(shard.0.cast_signed()).fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map_or(Ok(None), |row| time(row, 0))
}

/// Bytes by their digest, which is checked.
pub(super) async fn blob(pool: &PgPool, blob: BlobRef) -> Result<Option<Bytes>, StoreError> {
    let query = sqlx::query("select data from blob where sha256 = $1").bind(blob.sha256);
    let Some(row) = query.fetch_optional(pool).await.map_err(failed)? else { return Ok(None) };
    let data = Bytes::from(column::<Vec<u8>>(&row, 0)?);
    if <[u8; 32]>::from(Sha256::digest(&data)) != blob.sha256 {
        return Err(StoreError::Corrupt(format!("the bytes of {blob} have another digest")));
    }
    Ok(Some(data))
}

/// A shard's epoch.
pub(super) async fn epoch(pool: &PgPool, shard: ShardId) -> Result<Epoch, StoreError> {
    let query = sqlx::query("select epoch from shard where shard = $1").bind(shard.0.cast_signed());
    let row = query.fetch_optional(pool).await.map_err(failed)?;
    Ok(Epoch(row.map_or(Ok(0), |row| number(&row, 0))?))
}
