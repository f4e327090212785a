//! A schema of its own for each check, on the server that the environment names.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;

use super::*;

/// Names the server: the URL of a superuser on a server that is there for tests.
const URL: &str = "MOTET_TEST_POSTGRES_URL";

/// The server's URL; without one the test is skipped, loudly, and in CI it fails.
pub(super) fn url(test: &str) -> Option<String> {
    let url = std::env::var(URL).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let why = format!("{URL} is not set; `tests/services/services start postgres` prints it");
        // Written past the harness's capture, so that a plain `cargo test` shows it too.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "{test} was skipped in CI: {why}");
    }
    url
}

/// A schema that is dropped at the end.
pub(super) struct Place {
    url: String,
    name: String,
}

impl Place {
    /// An empty schema; none when there is no server.
    pub(super) async fn new(test: &str) -> Option<Self> {
        let place = Self::bare(test)?;
        PostgresStore::migrate(&place.options()).await.unwrap();
        Some(place)
    }

    /// A name for a schema that is not there yet.
    pub(super) fn bare(test: &str) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let url = url(test)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { url, name: format!("motet_{test}_{}_{number}", std::process::id()) })
    }

    /// Also the name by which the server knows the store's connections.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn options(&self) -> PostgresOptions {
        let with = if self.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{with}application_name={}", self.url, self.name);
        let mut options = PostgresOptions::from_url(&url).unwrap();
        options.schema = Some(self.name.clone());
        options
    }

    pub(super) async fn store(&self) -> Arc<PostgresStore> {
        PostgresStore::open(self.options()).await.unwrap()
    }

    /// A connection behind the stores' back.
    pub(super) async fn connection(&self) -> PgConnection {
        let options = self.options().connect().application_name("behind the back");
        let mut connection = options.connect().await.unwrap();
        schema::run(&mut connection, &format!("set search_path = {}", self.name)).await.unwrap();
        connection
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (options, name) = (self.options(), self.name.clone());
        // A runtime of its own: the test's may be the one that is ending.
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = options.connect().connect().await.unwrap();
                let text = format!("set client_min_messages = error; drop schema if exists {name} cascade");
                let _ = schema::run(&mut connection, &text).await;
            });
        });
        let _ = end.join();
    }
}
