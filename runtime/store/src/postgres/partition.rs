//! The journal's partitions: one per day on which runs were born.
//!
//! They are made ahead of time, and on demand for runs of other days. Never drops one in which a run is left. Used by
//! the writers and ingests before they admit, by the schema at the start, and by retention.

use std::collections::HashSet;

use motet_engine::id::RunId;
use motet_engine::time::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::link::Link;
use super::schema;
use super::trouble::{Trouble, failed};
use crate::StoreError;

/// Milliseconds of a day.
pub(super) const DAY_MILLIS: i64 = 86_400_000;

/// Days beyond today whose partitions exist before they are needed.
const AHEAD: i32 = 2;

/// Longest wait for the locks that dropping a partition needs, since all writes queue behind it, in milliseconds.
const DROP_WAIT_MILLIS: u32 = 500;

/// The day on which a run was born, in days since 1970.
pub(super) fn born(run: RunId) -> i32 {
    let millis = i64::try_from(run.as_u128() >> 80).unwrap_or_default();
    day(Timestamp::from_millis(millis))
}

/// The day of a time.
pub(super) fn day(at: Timestamp) -> i32 {
    i32::try_from(at.as_millis().div_euclid(DAY_MILLIS)).unwrap_or(i32::MAX)
}

/// The smallest id of a run that was born on a day.
pub(super) fn first_id(day: i32) -> [u8; 16] {
    let millis = i64::from(day) * DAY_MILLIS;
    RunId::new(Timestamp::from_millis(millis), motet_engine::id::ShardId(0), 0).to_bytes()
}

/// Makes the partitions of today and the days after it, by the clock of the server.
pub(super) async fn make_ahead(connection: &mut PgConnection) -> Result<(), StoreError> {
    let text = "select floor(extract(epoch from now()) / 86400)::integer";
    let row = connection.fetch_one(sqlx::query(text)).await.map_err(failed)?;
    let today: i32 = row.try_get(0).map_err(failed)?;
    for day in today..=today + AHEAD {
        make(connection, day).await.map_err(Trouble::into_error)?;
    }
    Ok(())
}

/// Makes a day's partition unless it is there.
pub(super) async fn make(connection: &mut PgConnection, day: i32) -> Result<(), Trouble> {
    // Made apart and then attached, which does not wait for writes as making it in place would.
    let text = format!(
        "do $$ begin
           if to_regclass('journal_{day}') is null then
             perform pg_advisory_xact_lock(hashtextextended('motet partitions ' || current_schema(), 0));
             if to_regclass('journal_{day}') is null then
               create table journal_{day} (like journal including all)
                 with (autovacuum_vacuum_insert_scale_factor = 0.05);
               alter table journal attach partition journal_{day} for values from ({day}) to ({});
             end if;
           end if;
         end $$",
        i64::from(day) + 1
    );
    connection.execute(sqlx::raw_sql(&text)).await.map(drop).map_err(|error| Trouble::of(&error))
}

/// Makes the partitions of days that are not known to have one.
pub(super) async fn make_missing(
    link: &mut Link,
    known: &mut HashSet<i32>,
    wanted: impl Iterator<Item = i32>,
) -> Result<(), Trouble> {
    let missing: HashSet<i32> = wanted.filter(|day| !known.contains(day)).collect();
    for day in missing {
        // The next day too, so that midnight finds its partition there.
        for day in [day, day.saturating_add(1)] {
            let Some(connection) = link.connection() else {
                return Err(Trouble::Lost("there is no connection".to_owned()));
            };
            let made = make(connection, day).await;
            if let Err(Trouble::Lost(why)) = &made {
                link.lost(why.clone());
            }
            made?;
        }
        known.insert(day);
    }
    Ok(())
}

/// The days before `end` that have a partition.
pub(super) async fn days_before(connection: &mut PgConnection, end: i32) -> Result<Vec<i32>, StoreError> {
    let text = "select substr(c.relname, 9)::integer from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'journal'::regclass and substr(c.relname, 9)::integer < $1 order by 1";
    let rows = connection.fetch_all(sqlx::query(text).bind(end)).await.map_err(failed)?;
    rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
}

/// Drops a day's partition when no run of that day is left; whether it did. Gives way when the table is busy.
pub(super) async fn drop_empty(connection: &mut PgConnection, day: i32) -> Result<bool, StoreError> {
    let left = "select exists (select 1 from run where id >= $1 and id < $2)";
    let query = || sqlx::query(left).bind(first_id(day).to_vec()).bind(first_id(day.saturating_add(1)).to_vec());
    let any = |row: sqlx::postgres::PgRow| row.try_get::<bool, _>(0).map_err(failed);
    if any(connection.fetch_one(query()).await.map_err(failed)?)? {
        return Ok(false);
    }
    // Once the locks are held, every admission that could have written to the partition has ended and is seen. The
    // parent comes first, as in an insert.
    let lock = format!(
        "begin; set local lock_timeout = {DROP_WAIT_MILLIS}; lock table only journal in access exclusive mode;
         lock table journal_{day} in access exclusive mode"
    );
    let done = async {
        schema::run(connection, &lock).await?;
        if any(connection.fetch_one(query()).await.map_err(failed)?)? {
            return Ok(false);
        }
        schema::run(connection, &format!("drop table journal_{day}")).await?;
        schema::run(connection, "commit").await?;
        Ok(true)
    };
    let done = done.await;
    if !matches!(done, Ok(true)) {
        schema::run(connection, "rollback").await?;
    }
    match done {
        Err(StoreError::Storage(why)) => {
            tracing::info!(day, %why, "the partition is in use and is dropped another time");
            Ok(false)
        }
        other => other,
    }
}
