//! The schema: bringing it up to date under a lock, and checking it before anything is read or written.
//!
//! Never changes a schema that it was not asked to change. Used by `postgres` when it opens or migrates.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, Row};

use super::link;
use super::options::{PostgresOptions, quoted};
use super::partition;
use super::trouble::failed;
use crate::StoreError;

/// The steps that lead from nothing to the present schema, by number.
const MIGRATIONS: [(i32, &str); 4] = [
    (1, include_str!("migrations/0001_start.sql")),
    (2, include_str!("migrations/0002_shards.sql")),
    (3, include_str!("migrations/0003_members.sql")),
    (4, include_str!("migrations/0004_ingest.sql")),
];

/// The oldest server that is spoken to, as the server counts.
const OLDEST_SERVER: i32 = 140_000;

const VERSION: &str = "select coalesce(max(version), 0) from motet_schema";

fn newest() -> i32 {
    MIGRATIONS.last().map_or(0, |(number, _)| *number)
}

/// Brings the schema up to date. Several processes may do so at the same time. Returns the schema's number.
pub(super) async fn migrate(options: &PostgresOptions) -> Result<i32, StoreError> {
    let mut connection = link::connect(options).await?;
    check_server(&mut connection).await?;
    let done = migrate_on(&mut connection, options).await;
    // The lock goes with the connection whatever happened.
    let _ = connection.close().await;
    done
}

async fn migrate_on(connection: &mut PgConnection, options: &PostgresOptions) -> Result<i32, StoreError> {
    // Whoever comes second waits as long as the first one needs, not as long as a row's lock may be waited for.
    run(connection, "set lock_timeout = 0; set statement_timeout = 0").await?;
    run(connection, "select pg_advisory_lock(hashtextextended('motet migrations ' || current_database(), 0))").await?;
    if let Some(schema) = &options.schema {
        run(connection, &format!("create schema if not exists {}", quoted(schema))).await?;
    }
    run(
        connection,
        "create table if not exists motet_schema (version integer primary key, applied_at timestamptz default now())",
    )
    .await?;
    let found: i32 = scalar(connection, VERSION).await?;
    refuse_newer(found)?;
    for (number, steps) in MIGRATIONS.iter().filter(|(number, _)| *number > found) {
        // The number changes with the schema, so that a crash in between leaves neither or both.
        let whole = format!("begin;\n{steps}\ninsert into motet_schema (version) values ({number});\ncommit");
        if let Err(error) = run(connection, &whole).await {
            let _ = run(connection, "rollback").await;
            return Err(error);
        }
        tracing::info!(schema = number, "the database was brought up to date");
    }
    partition::make_ahead(connection).await?;
    Ok(newest())
}

/// Refuses a server or a schema that this program cannot work with.
pub(super) async fn check(options: &PostgresOptions) -> Result<(), StoreError> {
    let mut connection = link::connect(options).await?;
    check_server(&mut connection).await?;
    let there: bool = scalar(&mut connection, "select to_regclass('motet_schema') is not null").await?;
    let found = if there { scalar(&mut connection, VERSION).await? } else { 0 };
    refuse_newer(found)?;
    if found < newest() {
        return Err(StoreError::Refused(format!(
            "the database {} has schema {found} of Motet, this program needs {}: run `motet migrate`",
            options.place(),
            newest()
        )));
    }
    partition::make_ahead(&mut connection).await?;
    let _ = connection.close().await;
    Ok(())
}

fn refuse_newer(found: i32) -> Result<(), StoreError> {
    if found <= newest() {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "the database has schema {found} of Motet, but this program knows only up to {}: a newer version of it \
         migrated the database, use that one",
        newest()
    )))
}

async fn check_server(connection: &mut PgConnection) -> Result<(), StoreError> {
    let version: i32 = scalar(connection, "select current_setting('server_version_num')::integer").await?;
    refuse_old_server(version)
}

/// Refuses a server that lacks what is used here.
pub(super) fn refuse_old_server(version: i32) -> Result<(), StoreError> {
    if version >= OLDEST_SERVER {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "the server is PostgreSQL {}, but Motet needs {} or newer: upgrade the server",
        version / 10_000,
        OLDEST_SERVER / 10_000
    )))
}

/// Runs a text of several statements.
pub(super) async fn run(connection: &mut PgConnection, text: &str) -> Result<(), StoreError> {
    connection.execute(sqlx::raw_sql(text)).await.map(drop).map_err(failed)
}

async fn scalar<T>(connection: &mut PgConnection, text: &str) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row: PgRow = connection.fetch_one(sqlx::query(text)).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}
