//! The floor below the store on PostgreSQL: what the server itself does with rows of the journal's shape and size.
//!
//! One connection, one statement per commit with its rows as arrays (UNNEST), the server as `initdb` makes it, nothing
//! else going on. Used by `durable_runs`.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use sqlx::{Connection, Executor, PgConnection};

use super::{Floor, RUNS, Written};

const SCHEMA: &str = "create table floor (born integer not null, run bytea not null, seq bigint not null,
    count integer not null, at bigint not null, payload bytea not null, primary key (born, run, seq))
    partition by range (born); create table floor_0 partition of floor for values from (0) to (1)";
const INSERT: &str = "insert into floor (born, run, seq, count, at, payload)
    select 0, run, seq, 1, 0, payload from unnest($1::bytea[], $2::bigint[], $3::bytea[]) as rows(run, seq, payload)";

/// Commits `rows` rows at a time for `time`, one commit after the other.
///
/// # Errors
/// When the server refuses.
pub async fn measure(url: &str, rows: usize, payload_bytes: usize, time: Duration) -> Result<Floor> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute("drop table if exists floor").await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    let payloads = vec![vec![7u8; payload_bytes]; rows];
    let mut times = Histogram::<u64>::new(3)?;
    let (begun, mut next) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        let (mut runs, mut seqs) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for _ in 0..rows {
            let run = (next % RUNS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            runs.push([run.to_be_bytes(), run.to_le_bytes()].concat());
            seqs.push(i64::try_from(next / RUNS)?);
            next += 1;
        }
        let commit = Instant::now();
        sqlx::query(INSERT).bind(runs).bind(seqs).bind(&payloads).execute(&mut connection).await?;
        times.record(u64::try_from(commit.elapsed().as_micros())?)?;
    }
    let floor = Floor::of(rows, &times, begun.elapsed());
    connection.close().await?;
    Ok(floor)
}

/// Counts what a stopped node has written.
///
/// # Errors
/// When the database cannot be read.
pub async fn written(url: &str) -> Result<Written> {
    let mut connection = PgConnection::connect(url).await?;
    let (rows, bytes): (i64, f64) =
        sqlx::query_as("select count(*), coalesce(avg(length(payload)), 0)::float8 from journal")
            .fetch_one(&mut connection)
            .await?;
    let (runs,): (i64,) = sqlx::query_as("select count(*) from run").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(Written { rows: rows.unsigned_abs(), runs: runs.unsigned_abs(), payload_bytes: bytes as usize })
}

/// Bytes of write-ahead log since the server was made.
///
/// # Errors
/// When the server cannot be asked.
pub async fn log_bytes(url: &str) -> Result<f64> {
    let mut connection = PgConnection::connect(url).await?;
    let (bytes,): (f64,) = sqlx::query_as("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(bytes)
}
