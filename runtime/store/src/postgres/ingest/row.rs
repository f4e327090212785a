//! The rows of partitions: each change is one statement that compares and sets.
//!
//! The rules are those of `partition_rules`, which the memory store has, as statements. Used by ingests.

use motet_engine::id::{Epoch, Name, Namespace};
use motet_engine::time::Timestamp;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, QueryBuilder};

use crate::StoreError;
use crate::partition_rules::fenced;
use crate::port::{PartitionKey, PartitionRow, Steer};
use crate::postgres::reader::{column, name, number};
use crate::postgres::trouble::failed;

const COLUMNS: &str = "namespace, stream, topic, part, generation, since, epoch, owner, next, origin, barren, paused, trouble, changed_at";

const CLAIM: &str = "insert into ingest_partition as kept
    (namespace, stream, topic, part, since, epoch, owner, barren, changed_at)
  values ($1, $2, $3, $4, $6, 1, $5, 1, $6)
  on conflict (namespace, stream, topic, part) do update set epoch = kept.epoch + 1, owner = excluded.owner,
    barren = kept.barren + 1, changed_at = excluded.changed_at";
const BEGIN: &str = "update ingest_partition set origin = $7, next = $8, changed_at = $6";
// Its claim is taken back once only.
const RELEASE: &str = "update ingest_partition set owner = '', changed_at = $6,
    barren = greatest(barren - case when owner = '' then 0 else 1 end, 0)";
const FORGIVE: &str = "update ingest_partition set barren = 0, changed_at = $6";
const TROUBLE: &str = "update ingest_partition set trouble = $7, changed_at = $6";
const PAUSE: &str = "update ingest_partition set paused = $6, changed_at = $5";
const SEEK: &str = "update ingest_partition set next = $6, epoch = epoch + 1, owner = '', barren = 0, trouble = null,
    generation = generation + case when $7 then 1 else 0 end, since = case when $7 then $5 else since end,
    origin = '', changed_at = $5";
const CLEAR: &str = "update ingest_partition set trouble = null, barren = 0, changed_at = $5";
const THIS: &str = " where namespace = $1 and stream = $2 and topic = $3 and part = $4";
const OWNED: &str = " where namespace = $1 and stream = $2 and topic = $3 and part = $4 and epoch = $5";

/// A statement whose first arguments are the key of a partition.
pub(super) fn addressed<'q>(text: &'q str, key: &'q PartitionKey) -> Query<'q, Postgres, PgArguments> {
    let PartitionKey { namespace, stream, topic, partition } = key;
    sqlx::query(text).bind(namespace.0.as_str()).bind(stream.as_str()).bind(topic.as_str()).bind(*partition)
}

/// The key of a partition in the first columns of a row.
pub(super) fn read_key(row: &PgRow) -> Result<PartitionKey, StoreError> {
    Ok(PartitionKey {
        namespace: Namespace(name(row, 0)?),
        stream: name(row, 1)?,
        topic: column(row, 2)?,
        partition: column(row, 3)?,
    })
}

fn read(row: &PgRow) -> Result<PartitionRow, StoreError> {
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

/// Takes a partition over. Waits for an ingest that is being committed.
pub(super) async fn claim(
    pool: &PgPool,
    key: &PartitionKey,
    owner: &str,
    now: Timestamp,
) -> Result<PartitionRow, StoreError> {
    let text = format!("{CLAIM} returning {COLUMNS}");
    let row = addressed(&text, key).bind(owner).bind(now.as_millis()).fetch_one(pool).await.map_err(failed)?;
    read(&row)
}

/// Makes a first position durable.
pub(super) async fn begin(
    pool: &PgPool,
    key: &PartitionKey,
    epoch: Epoch,
    origin: &str,
    next: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let text = format!("{BEGIN}{OWNED}");
    let query = addressed(&text, key).bind(epoch.0.cast_signed()).bind(now.as_millis()).bind(origin).bind(next);
    done(pool, query, key, epoch).await
}

/// Gives a partition up.
pub(super) async fn release(pool: &PgPool, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
    let text = format!("{RELEASE}{OWNED}");
    done(pool, addressed(&text, key).bind(epoch.0.cast_signed()).bind(now.as_millis()), key, epoch).await
}

/// Takes all barren claims back.
pub(super) async fn forgive(pool: &PgPool, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
    let text = format!("{FORGIVE}{OWNED}");
    done(pool, addressed(&text, key).bind(epoch.0.cast_signed()).bind(now.as_millis()), key, epoch).await
}

/// Notes why a partition cannot be read.
pub(super) async fn trouble(
    pool: &PgPool,
    key: &PartitionKey,
    epoch: Epoch,
    trouble: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let text = format!("{TROUBLE}{OWNED}");
    let query = addressed(&text, key).bind(epoch.0.cast_signed()).bind(now.as_millis()).bind(trouble);
    done(pool, query, key, epoch).await
}

async fn done(
    pool: &PgPool,
    query: Query<'_, Postgres, PgArguments>,
    key: &PartitionKey,
    carried: Epoch,
) -> Result<(), StoreError> {
    if query.execute(pool).await.map_err(failed)?.rows_affected() > 0 {
        return Ok(());
    }
    Err(fenced(key, carried, get(pool, key).await?.map(|row| row.epoch)))
}

/// Does what an operator wants.
pub(super) async fn steer(
    pool: &PgPool,
    key: &PartitionKey,
    steer: &Steer,
    now: Timestamp,
) -> Result<Option<PartitionRow>, StoreError> {
    let change = match steer {
        Steer::Pause(_) => PAUSE,
        Steer::Seek { .. } => SEEK,
        Steer::Clear => CLEAR,
    };
    let text = format!("{change}{THIS} returning {COLUMNS}");
    let query = addressed(&text, key).bind(now.as_millis());
    let query = match steer {
        Steer::Pause(paused) => query.bind(*paused),
        Steer::Seek { offset, again } => query.bind(*offset).bind(*again),
        Steer::Clear => query,
    };
    let row = query.fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(read).transpose()
}

/// The row of a partition.
pub(super) async fn get(pool: &PgPool, key: &PartitionKey) -> Result<Option<PartitionRow>, StoreError> {
    let text = format!("select {COLUMNS} from ingest_partition{THIS}");
    let row = addressed(&text, key).fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(read).transpose()
}

/// The rows of partitions by their keys.
pub(super) async fn list(
    pool: &PgPool,
    namespace: Option<&Namespace>,
    stream: Option<&Name>,
) -> Result<Vec<PartitionRow>, StoreError> {
    let mut text = QueryBuilder::<Postgres>::new(format!("select {COLUMNS} from ingest_partition where true"));
    if let Some(namespace) = namespace {
        text.push(" and namespace = ").push_bind(namespace.0.as_str());
    }
    if let Some(stream) = stream {
        text.push(" and stream = ").push_bind(stream.as_str());
    }
    text.push(" order by namespace, stream, topic, part");
    let rows = text.build().fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(read).collect()
}
