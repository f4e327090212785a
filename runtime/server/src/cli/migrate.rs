//! `motet migrate`: makes the tables of a shared database, or brings them up to the schema of this version.
//!
//! Reads settings and hands them to the server's bootstrap; knows nothing else of it.

use std::path::PathBuf;

use clap::Args;
use motet_server::bootstrap::{Migrated, migrate};
use serde_json::json;

use super::failure::{CliError, CliResult};
use super::serve::ServeArgs;
use super::{Context, config};

/// Arguments of `motet migrate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  MOTET__STORE__URL=postgres://motet@db/motet motet migrate
  motet migrate --config motet.yaml

Nodes of the version before may go on while it runs. Several may be started at the same time: one of them does the
work. A database in a data folder needs no migration, since opening it does that.")]
pub(crate) struct MigrateArgs {
    /// The file of settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does it.
pub(crate) async fn execute(context: &Context, args: MigrateArgs) -> CliResult {
    let settings = config::settings(&ServeArgs { config: args.config, ..ServeArgs::default() })?;
    let migrated = Box::pin(migrate(&settings)).await.map_err(|error| CliError::failed(format!("{error:#}")))?;
    match migrated {
        Migrated::Schema { place, number } if context.output.is_json() => {
            context.output.json(&json!({"store": place, "schema": number}))
        }
        Migrated::Schema { place, number } => context.output.line(format!("{place} has schema {number}")),
        Migrated::ByItself if context.output.is_json() => {
            context.output.json(&json!({"store": settings.store.url.to_string(), "schema": null}))
        }
        Migrated::ByItself => {
            context.output.line(format!("{} needs no migration: 'motet serve' does it", settings.store.url))
        }
    }
}
