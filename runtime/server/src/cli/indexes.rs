//! `motet indexes`: which vector indexes the server has, and what they hold.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Context;
use super::client::segment;
use super::failure::CliResult;
use super::output::{Output, items, text};

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
    /// Show an index: its shape, and how many vectors its namespaces hold.
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

fn list(output: &Output, indexes: &[Value]) -> CliResult {
    if indexes.is_empty() {
        output.note("no indexes; put some with: motet apply FILE");
        return Ok(());
    }
    let rows = indexes.iter().map(|it| ["name", "backend", "dimension", "metric", "vectors"].map(|key| text(it, key)));
    output.table(["name", "backend", "dimension", "metric", "vectors"], &[2, 4], rows.collect())
}

fn show(output: &Output, index: &Value) -> CliResult {
    output.line(output.paint.bold(&text(index, "name")))?;
    for key in ["backend", "dimension", "metric", "vectors", "disk_bytes"] {
        let value = text(index, key);
        if !value.is_empty() {
            output.line(format!("{key:<10} {value}"))?;
        }
    }
    let Some(namespaces) = index["namespaces"].as_object().filter(|map| !map.is_empty()) else { return Ok(()) };
    let rows = namespaces.iter().map(|(name, count)| {
        let name = if name.is_empty() { "(default)" } else { name.as_str() };
        [name.to_owned(), count.to_string()]
    });
    output.line("")?;
    output.table(["namespace", "vectors"], &[1], rows.collect())
}
