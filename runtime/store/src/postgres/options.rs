//! Where the database is and how it is spoken to, from a URL as libpq's users write it.
//!
//! Never shows a password: neither errors nor `Debug` repeat what the URL held besides host, port and names. Used by
//! whoever opens a store, and by `postgres` for every connection.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::passfile;
use crate::StoreError;

/// Parameters of a URL that are handed on as they are.
const KNOWN: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
    "options",
];

/// Prepared statements that a connection keeps: the shapes of a batch and the reads.
const STATEMENTS: usize = 256;

/// How a [`PostgresStore`](super::PostgresStore) reaches its database.
#[derive(Clone)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
    /// Schema whose tables are used; it is made by migrating. The server's choice (`public`) when none is named.
    pub schema: Option<String>,
    /// Whether opening brings the schema up to date, instead of asking for `motet migrate`.
    pub migrate_at_start: bool,
    /// Connections that read at the same time.
    pub readers: u32,
    /// Longest wait for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest time that one statement may take on the server.
    pub statement_timeout: Duration,
    /// Longest wait for a lock on the server.
    pub lock_timeout: Duration,
    /// How long writes wait for a server that cannot be reached, before they fail.
    pub patience: Duration,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("place", &self.place())
            .field("schema", &self.schema)
            .field("migrate_at_start", &self.migrate_at_start)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// Reads `postgres://` and `postgresql://` URLs. What the URL leaves out comes from the `PG*` variables; a password
    /// that neither has comes from the password file (`passfile=`, `PGPASSFILE` or `~/.pgpass`). Understood are user,
    /// password, host, port and database in their places, a folder as `host=/...` for a Unix socket, and `sslmode`,
    /// `sslrootcert`, `sslcert`, `sslkey`, `hostaddr`, `port`, `dbname`, `user`, `password`, `passfile`,
    /// `connect_timeout` (seconds), `application_name` and `options`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with advice when the text is no such URL, or a parameter is unknown.
    pub fn from_url(text: &str) -> Result<Self, StoreError> {
        let form = "expected postgres://user@host:5432/database";
        // The parser's own words may repeat a part of the text that is a password.
        let mut url =
            Url::parse(text).map_err(|error| refused(format!("the store's URL is unreadable ({error}); {form}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(refused(format!("the store's URL begins with '{}:'; {form}", url.scheme())));
        }
        if url.host_str().is_some_and(|host| host.contains(',')) {
            return Err(refused(
                "the store's URL names several hosts: name one, or an address that follows the primary",
            ));
        }
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let (mut password, mut file, mut seconds) = (url.password().is_some(), None, None);
        url.set_query(None);
        for (key, value) in pairs {
            match key.as_str() {
                "password" => {
                    password = true;
                    url.query_pairs_mut().append_pair(&key, &value);
                }
                "passfile" => file = Some(PathBuf::from(value)),
                "connect_timeout" => {
                    let number = value.parse().map_err(|_| refused("connect_timeout must be a number of seconds"))?;
                    seconds = Some(number).filter(|number| *number > 0);
                }
                known if KNOWN.contains(&known) => _ = url.query_pairs_mut().append_pair(&key, &value),
                _ => {
                    return Err(refused(format!(
                        "the store's URL has the unknown parameter '{key}'; known are password, passfile, \
                         connect_timeout, {}",
                        KNOWN.join(", ")
                    )));
                }
            }
        }
        let connect = PgConnectOptions::from_str(url.as_str()).map_err(|_| {
            refused("a parameter of the store's URL has a value that it cannot have (sslmode, port, hostaddr?)")
        })?;
        let mut options = Self { connect, ..Self::new(seconds.map_or(CONNECT_TIMEOUT, Duration::from_secs)) };
        if let (false, Some(file)) = (password, file) {
            options.connect = passfile::apply(options.connect, &file)?;
        }
        Ok(options)
    }

    fn new(connect_timeout: Duration) -> Self {
        Self {
            connect: PgConnectOptions::new_without_pgpass(),
            schema: None,
            migrate_at_start: false,
            readers: 4,
            connect_timeout,
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(10),
        }
    }

    /// Host, port, user and database, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        let (user, port) = (self.connect.get_username(), self.connect.get_port());
        let database = self.connect.get_database().unwrap_or(user);
        let host = self.connect.get_socket().map(|socket| socket.display().to_string());
        let host = host.unwrap_or_else(|| self.connect.get_host().to_owned());
        format!("{user}@{host}:{port}/{database}")
    }

    /// Whether the way to the server must be encrypted.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        !matches!(self.connect.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer)
    }

    /// How one connection is made.
    pub(super) fn connect(&self) -> PgConnectOptions {
        let options = self.connect.clone().statement_cache_capacity(STATEMENTS).disable_statement_logging();
        if options.get_application_name().is_some() { options } else { options.application_name("motet") }
    }

    /// What every connection is told first.
    pub(super) fn greeting(&self) -> String {
        let Self { statement_timeout, lock_timeout, .. } = self;
        let mut text = format!(
            "set statement_timeout = {}; set lock_timeout = {}; set idle_in_transaction_session_timeout = {};
             set client_min_messages = warning;",
            statement_timeout.as_millis(),
            lock_timeout.as_millis(),
            IDLE_IN_TRANSACTION.as_millis()
        );
        if let Some(schema) = &self.schema {
            text.push_str(&format!("set search_path = {};", quoted(schema)));
        }
        text
    }
}

#[cfg(test)]
impl PostgresOptions {
    pub(super) fn with_user(mut self, user: &str, password: &str) -> Self {
        self.connect = self.connect.username(user).password(password);
        self
    }

    pub(super) fn has_password(&self, password: &str) -> bool {
        self.connect.to_url_lossy().password() == Some(password)
    }
}

/// Longest wait for a connection unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A transaction that stands still so long belongs to a process that is frozen: it must not hold its locks.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// A name as it stands in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn refused(text: impl Into<String>) -> StoreError {
    StoreError::Refused(text.into())
}
