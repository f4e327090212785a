//! `motet apply`: definition files onto the server, models and indexes before the workflows that call them.
//!
//! Checks every file first: with one mistake nothing is put anywhere.

use std::path::PathBuf;

use clap::Args;
use motet_engine::definition::Definition;
use serde_json::{Value, json};

use super::failure::{CliError, CliResult, Exit};
use super::{Context, check, definitions};

/// Status of an answer to a definition that was new.
const CREATED: u16 = 201;

/// Arguments of `motet apply`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet apply flows/                      all definitions of a folder
  motet apply answer.yaml --server http://motet:8080

Definitions are immutable per version: the same content again is unchanged, other content needs another version.
Schedules and streams have no versions: what is applied replaces what was there.")]
pub(crate) struct ApplyArgs {
    /// Files, or folders that are searched for .yaml, .yml and .json.
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,
}

/// Puts every definition, and says what became of each.
pub(crate) async fn execute(context: &Context, args: ApplyArgs) -> CliResult {
    let output = &context.output;
    let files = definitions::read(&args.paths)?;
    if files.iter().any(|file| !file.mistakes.is_empty()) {
        check::report(output, &files)?;
        return Err(CliError::Silent(Exit::Failed));
    }
    let mut all: Vec<&Definition> = files.iter().flat_map(|file| &file.definitions).collect();
    all.sort_by_key(|definition| definitions::rank(definition));
    let client = context.client()?;
    let mut rows: Vec<Value> = Vec::new();
    let mut failure = None;
    for definition in all {
        let (kind, name, version) = definition.identity();
        let outcome = match client.put(&definitions::path(definition), definition.document()).await {
            Ok(answer) if answer.status == CREATED => "created",
            Ok(_) => "unchanged",
            Err(error) => {
                failure = Some(error);
                "refused"
            }
        };
        rows.push(json!({"kind": kind, "name": name.to_string(), "version": version, "outcome": outcome}));
        if failure.is_some() {
            break;
        }
    }
    if output.is_json() {
        output.json(&json!({"definitions": rows}))?;
    } else {
        let cell = |row: &Value, key: &str| super::output::text(row, key);
        let rows = rows
            .iter()
            .map(|row| {
                let outcome = output.paint.state(&cell(row, "outcome"));
                [cell(row, "kind").to_lowercase(), cell(row, "name"), cell(row, "version"), outcome]
            })
            .collect();
        output.table(["kind", "name", "version", "outcome"], &[], rows)?;
    }
    failure.map_or(Ok(()), Err)
}
