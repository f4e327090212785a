//! `motet indexes`: which vector indexes the server has, and what they hold.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Context;
use super::client::segment;
use super::failure::CliResult;
use super::output::{Output, items};

/// Arguments of `motet indexes`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet indexes list
  motet indexes show articles --output json")]
pub(crate) struct IndexesArgs {
    #[command(subcommand)]
    command: IndexesCommand,
}

#[derive(Subcommand, Debug)]
enum IndexesCommand {
    /// List the indexes of the server.
    List,
    /// Show an index: its shape and how many vectors it holds.
    Show {
        /// The index's name.
        name: String,
    },
}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, args: IndexesArgs) -> CliResult {
    let (client, output) = (context.client()?, &context.output);
    match args.command {
        IndexesCommand::List => {
            let answer = client.get("/api/v1/indexes").await?;
            if output.is_json() { output.json(&answer) } else { list(output, items(&answer, "indexes")) }
        }
        IndexesCommand::Show { name } => {
            let index = client.get(&format!("/api/v1/indexes/{}", segment(&name))).await?;
            if output.is_json() { output.json(&index) } else { show(output, &index) }
        }
    }
}

/// A member of an index: of its figures, of its document, or what is so where the document says nothing.
fn cell(index: &Value, key: &str) -> String {
    let found = [&index[key], &index["document"][key]].into_iter().find(|value| !value.is_null());
    match (found, key) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(other), _) => other.to_string(),
        (None, "backend") => "embedded".to_owned(),
        (None, "metric") => "cosine".to_owned(),
        (None, _) => String::new(),
    }
}

fn list(output: &Output, indexes: &[Value]) -> CliResult {
    if indexes.is_empty() {
        output.note("no indexes; put some with: motet apply FILE");
        return Ok(());
    }
    let rows = indexes.iter().map(|it| ["name", "backend", "dimension", "metric"].map(|key| cell(it, key)));
    output.table(["name", "backend", "dimension", "metric"], &[2], rows.collect())
}

fn show(output: &Output, index: &Value) -> CliResult {
    output.line(output.paint.bold(&cell(index, "name")))?;
    for key in ["backend", "dimension", "metric", "vectors", "disk_bytes"] {
        let value = cell(index, key);
        if !value.is_empty() {
            output.line(format!("{key:<10} {value}"))?;
        }
    }
    Ok(())
}
