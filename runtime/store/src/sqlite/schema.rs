//! Opening the database file: its settings, its migrations, and what its errors mean.
//!
//! Never touches rows of runs. Used by `sqlite` when it opens, and by writer and readers to sort errors.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};

use super::connection::Connection;
use crate::StoreError;

/// Name of the database file in the data folder.
pub(super) const DATABASE_FILE: &str = "motet.db";

/// How long SQLite waits for a lock that a foreign program holds on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages in the write-ahead log at which a commit moves them into the database: 40 MiB. At SQLite's own 1,000 a
/// stream of full batches would do it several times a second.
const CHECKPOINT_PAGES: u32 = 10_000;

/// Size to which the write-ahead log shrinks when it starts again, in bytes.
const WAL_BYTES: u32 = 64 << 20;

/// Page cache of a connection, in KiB: a batch must fit, or it is written to the disk before its commit.
const CACHE_KIB: u32 = 16 << 10;

/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 256;

/// The steps that lead from an empty file to the present schema, by number.
const MIGRATIONS: [(i64, &str); 6] = [
    (1, include_str!("migrations/0001_runs.sql")),
    (2, include_str!("migrations/0002_rest.sql")),
    (3, include_str!("migrations/0003_cluster.sql")),
    (4, include_str!("migrations/0004_shards.sql")),
    (5, include_str!("migrations/0005_members.sql")),
    (6, include_str!("migrations/0006_ingest.sql")),
];

fn options(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.join(DATABASE_FILE))
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS)
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}

/// How readers open the file.
pub(super) fn read_options(folder: &Path) -> SqliteConnectOptions {
    options(folder).read_only(true)
}

/// Opens the only connection that writes, and brings the schema up to date.
pub(super) async fn open_writer(folder: &Path) -> Result<Connection, StoreError> {
    let options = options(folder)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // With less than FULL a power cut may take back commits that were acknowledged.
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", WAL_BYTES.to_string());
    let mut connection = options.connect().await.map_err(|error| Trouble::of(&error).into_error())?;
    migrate(&mut connection).await?;
    Ok(Connection::new(connection))
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| Trouble::of(&error).into_error();
    let row = sqlx::query("pragma user_version").fetch_one(&mut *connection).await.map_err(failed)?;
    let found: i64 = row.try_get(0).map_err(failed)?;
    let newest = MIGRATIONS.last().map_or(0, |(number, _)| *number);
    if found > newest {
        return Err(StoreError::Refused(format!(
            "the database has schema {found}, but this program knows only up to {newest}: a newer version of it wrote \
             the file, use that one or another data folder"
        )));
    }
    for (number, steps) in MIGRATIONS.iter().filter(|(number, _)| *number > found) {
        // The number changes with the schema, so that a crash in between leaves neither or both.
        let whole = format!("begin immediate;\n{steps}\npragma user_version = {number};\ncommit");
        if let Err(error) = sqlx::raw_sql(&whole).execute(&mut *connection).await {
            let _ = sqlx::raw_sql("rollback").execute(&mut *connection).await;
            return Err(failed(error));
        }
        tracing::info!(schema = number, "the database was brought up to date");
    }
    Ok(())
}

/// What an error of the database means.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// A row broke a rule of the schema; others may be fine.
    Row(String),
    /// A foreign program holds the file's lock, or all readers are busy. Nothing was tried.
    Busy,
    /// The store was closed.
    Closed,
    /// The file is damaged or is no database.
    Corrupt(String),
    /// The disk failed or is full.
    Storage(String),
}

impl Trouble {
    /// Sorts an error by its result code.
    pub(super) fn of(error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = error else {
            return match error {
                sqlx::Error::PoolTimedOut => Self::Busy,
                sqlx::Error::PoolClosed => Self::Closed,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
                _ => Self::Storage(error.to_string()),
            };
        };
        let code = database.code().and_then(|code| i32::from_str(&code).ok()).unwrap_or_default();
        let text = database.to_string();
        // The low byte is the kind; the codes are part of SQLite's stable interface.
        match code & 0xff {
            5 | 6 => Self::Busy,
            11 | 26 => Self::Corrupt(text),
            1 | 18 | 19 | 20 | 25 => Self::Row(text),
            _ => Self::Storage(text),
        }
    }

    /// The error that a caller sees.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Row(text) => StoreError::Refused(text),
            Self::Busy => StoreError::Busy,
            Self::Closed => StoreError::Closed,
            Self::Corrupt(text) => StoreError::Corrupt(text),
            Self::Storage(text) => StoreError::Storage(text),
        }
    }
}
