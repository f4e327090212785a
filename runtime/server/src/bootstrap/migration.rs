//! Bringing a shared database up to the schema of this version.
//!
//! Never starts a node and never touches runs. Used by `motet migrate`.

use anyhow::Context as _;
use motet_config::Settings;
use motet_store::postgres::{PostgresOptions, PostgresStore};

/// What there was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migrated {
    /// The database at this place has the schema of this number now.
    Schema {
        /// Host, port, user and database.
        place: String,
        /// Number of the schema.
        number: i32,
    },
    /// The store brings itself up to date when it is opened.
    ByItself,
}

/// Brings the store's schema up to date, where that is not done by opening it.
///
/// # Errors
/// When the database cannot be reached, is too old or too new, or the user lacks the right.
pub async fn migrate(settings: &Settings) -> anyhow::Result<Migrated> {
    let url = settings.store.url.expose();
    if !url.starts_with("postgres") {
        return Ok(Migrated::ByItself);
    }
    let options = PostgresOptions::from_url(url).context("store.url")?;
    let place = options.place();
    let number = PostgresStore::migrate(&options).await.with_context(|| format!("the store at {place}"))?;
    Ok(Migrated::Schema { place, number })
}
