//! The floor below ingest: the bare transaction that a portion of records needs, in plain SQL.
//!
//! One statement per commit: the partition's position is compared and set, and runs and first entries go in as arrays
//! (UNNEST), with the rows and bytes that Motet wrote for such records, into tables with the same indexes. Used by
//! `ingest`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use super::Floor;

/// Records of one commit, as Motet takes them.
pub const RECORDS: usize = 500;

const SCHEMA: &str = "drop table if exists floor_partition, floor_run, floor_journal;
  create table floor_partition (like ingest_partition including all) with (fillfactor = 50);
  create table floor_run (like run including all) with (fillfactor = 70);
  create table floor_journal (like journal including all) partition by range (born);
  create table floor_journal_0 partition of floor_journal for values from (0) to (1000000)";
const BEGIN: &str =
    "insert into floor_partition (namespace, stream, topic, part, since, epoch, owner, next, changed_at)
  values ('floor', 'floor', 'floor', $1, 0, 1, 'floor', 0, 0)";
const TEMPLATES: &str = "select run.id, shard, namespace, workflow, version, tags, state, born, count, payload
  from run join journal on journal.run = run.id where workflow = $1 limit $2";
const INGEST: &str = "with moved as (update floor_partition set next = $2, changed_at = $4
    where namespace = 'floor' and stream = 'floor' and topic = 'floor' and part = $1 and epoch = 1 and next = $3
    returning epoch),
  fresh as materialized (select * from unnest($5::bytea[], $6::smallint[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::smallint[], $12::integer[], $13::integer[], $14::bytea[])
    as f(id, shard, namespace, workflow, version, tags, state, born, count, payload)),
  runs as (insert into floor_run (id, shard, namespace, workflow, version, tags, state, created_at, finished_at)
    select id, shard, namespace, workflow, version, tags, state, $4, $4 from fresh where exists (select from moved))
  insert into floor_journal (born, run, seq, count, at, payload)
    select born, id, 1, count, $4, payload from fresh where exists (select from moved)";

/// A run as Motet wrote it.
#[derive(Debug, Clone)]
pub struct Template {
    id: Vec<u8>,
    shard: i16,
    namespace: String,
    workflow: String,
    version: String,
    tags: String,
    state: i16,
    born: i32,
    count: i32,
    payload: Vec<u8>,
}

impl Template {
    fn read(row: &PgRow) -> Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            shard: row.try_get(1)?,
            namespace: row.try_get(2)?,
            workflow: row.try_get(3)?,
            version: row.try_get(4)?,
            tags: row.try_get(5)?,
            state: row.try_get(6)?,
            born: row.try_get(7)?,
            count: row.try_get(8)?,
            payload: row.try_get(9)?,
        })
    }
}

/// What Motet wrote for records: as many runs of the workflow as fit one commit.
///
/// # Errors
/// When there are fewer, or a run has more than its first entry: then this floor is of something else.
pub async fn templates(url: &str, workflow: &str) -> Result<Vec<Template>> {
    let mut connection = PgConnection::connect(url).await?;
    let query = sqlx::query(TEMPLATES).bind(workflow).bind(i64::try_from(RECORDS)?);
    let rows = query.fetch_all(&mut connection).await?;
    let mut found = rows.iter().map(Template::read).collect::<Result<Vec<_>>>()?;
    connection.close().await?;
    found.sort_by(|one, other| one.id.cmp(&other.id));
    let all = found.len();
    found.dedup_by(|one, other| one.id == other.id);
    ensure!(all == RECORDS && found.len() == all, "{all} entries of {} runs, not {RECORDS} of each", found.len());
    Ok(found)
}

/// Commits portions for `time` over so many connections, each with a partition of its own and one commit after the
/// other.
///
/// # Errors
/// When the server refuses, or a position was not what it had been set to.
pub async fn measure(url: &str, rows: &[Template], connections: usize, time: Duration) -> Result<Floor> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    let rows: Arc<[Template]> = rows.into();
    let begun = Instant::now();
    let writers =
        (0..connections).map(|part| tokio::spawn(write(url.to_owned(), Arc::clone(&rows), part, begun, time)));
    let mut times = Histogram::<u64>::new(3)?;
    for written in try_join_all(writers).await? {
        times.add(written?)?;
    }
    let floor = Floor::of(rows.len(), &times, begun.elapsed());
    connection.close().await?;
    Ok(floor)
}

async fn write(
    url: String,
    rows: Arc<[Template]>,
    part: usize,
    begun: Instant,
    time: Duration,
) -> Result<Histogram<u64>> {
    let mut connection = PgConnection::connect(&url).await?;
    let (part, each) = (i32::try_from(part)?, i64::try_from(rows.len())?);
    sqlx::query(BEGIN).bind(part).execute(&mut connection).await?;
    let (mut times, mut next) = (Histogram::<u64>::new(3)?, 0i64);
    let column = |text: fn(&Template) -> &str| rows.iter().map(text).collect::<Vec<_>>();
    let (namespaces, workflows) = (column(|row| &row.namespace), column(|row| &row.workflow));
    let (versions, tags) = (column(|row| &row.version), column(|row| &row.tags));
    let numbers = |number: fn(&Template) -> i32| rows.iter().map(number).collect::<Vec<_>>();
    let (born, counts) = (numbers(|row| row.born), numbers(|row| row.count));
    let small = |number: fn(&Template) -> i16| rows.iter().map(number).collect::<Vec<_>>();
    let (shards, states) = (small(|row| row.shard), small(|row| row.state));
    let payloads: Vec<&[u8]> = rows.iter().map(|row| &row.payload[..]).collect();
    while begun.elapsed() < time {
        let ids = ids(&rows, part, next)?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let commit = Instant::now();
        let query = sqlx::query(INGEST).bind(part).bind(next + each).bind(next).bind(now);
        let query = query.bind(ids).bind(&shards).bind(&namespaces).bind(&workflows).bind(&versions).bind(&tags);
        let query = query.bind(&states).bind(&born).bind(&counts).bind(&payloads);
        let done = query.execute(&mut connection).await?;
        times.record(u64::try_from(commit.elapsed().as_micros())?)?;
        ensure!(done.rows_affected() == rows.len() as u64, "the position was not {next}");
        next += each;
    }
    connection.close().await?;
    Ok(times)
}

/// Fresh ids that begin as those of Motet's runs do, with a time, and are scattered as those are.
fn ids(rows: &[Template], part: i32, next: i64) -> Result<Vec<Vec<u8>>> {
    let id = |(place, row): (usize, &Template)| {
        let mut id = row.id.clone();
        let number = (u64::from(part.cast_unsigned()) << 48) + next.cast_unsigned() + place as u64;
        let tail = id.get_mut(8..16).context("an id has 16 bytes")?;
        tail.copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Ok(id)
    };
    rows.iter().enumerate().map(id).collect()
}
