//! A schema of a test's own in the database that tests share, with Motet's tables in it.
//!
//! Dropped with its value. Used, behind the feature `contract`, by tests of those who call the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor};

use super::redis_server::service;
use crate::postgres::{PostgresOptions, PostgresStore};

/// Names the server: the URL of a superuser on a server that is there for tests.
const URL: &str = "MOTET_TEST_POSTGRES_URL";

/// A schema that is dropped at the end.
#[derive(Debug)]
pub struct PostgresSchema {
    /// The URL of the server.
    pub url: String,
    /// The name of the schema.
    pub name: String,
}

impl PostgresSchema {
    /// A schema with empty tables. None when there is no server; that is told loudly, and is a failure in CI.
    ///
    /// # Panics
    /// When the tables cannot be made.
    pub async fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let url = service(test, URL)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = Self { url, name: format!("motet_{test}_{}_{number}", std::process::id()) };
        PostgresStore::migrate(&schema.options()).await.unwrap();
        Some(schema)
    }

    /// How the schema is opened.
    ///
    /// # Panics
    /// When the environment holds no URL of a PostgreSQL server.
    #[must_use]
    pub fn options(&self) -> PostgresOptions {
        let mut options = PostgresOptions::from_url(&self.url).unwrap();
        options.schema = Some(self.name.clone());
        options
    }

    /// A store with connections of its own.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn store(&self) -> Arc<PostgresStore> {
        PostgresStore::open(self.options()).await.unwrap()
    }
}

impl Drop for PostgresSchema {
    fn drop(&mut self) {
        let (url, name) = (self.url.clone(), self.name.clone());
        // A runtime of its own: the test's may be the one that is ending.
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let Ok(mut connection) = sqlx::PgConnection::connect(&url).await else { return };
                let text = format!("set client_min_messages = error; drop schema if exists {name} cascade");
                let _ = connection.execute(sqlx::raw_sql(&text)).await;
            });
        });
        let _ = end.join();
    }
}
