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
    /// Show an index: its shape, its namespaces and how many vectors they hold.
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

/// A member of an index as the server shows it: beside its figures, or in its definition.
fn member<'v>(index: &'v Value, key: &str) -> &'v Value {
    [&index[key], &index["definition"][key], &index["stats"][key]]
        .into_iter()
        .find(|it| !it.is_null())
        .unwrap_or(&Value::Null)
}

fn cell(index: &Value, key: &str) -> String {
    match member(index, key) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(output: &Output, indexes: &[Value]) -> CliResult {
    if indexes.is_empty() {
        output.note("no indexes; put some with: motet apply FILE");
        return Ok(());
    }
    let rows = indexes.iter().map(|it| ["name", "backend", "dimension", "metric", "vectors"].map(|key| cell(it, key)));
    output.table(["name", "backend", "dimension", "metric", "vectors"], &[2, 4], rows.collect())
}

fn show(output: &Output, index: &Value) -> CliResult {
    output.line(output.paint.bold(&cell(index, "name")))?;
    for key in ["backend", "dimension", "metric", "vectors"] {
        let value = cell(index, key);
        if !value.is_empty() {
            output.line(format!("{key:<10} {value}"))?;
        }
    }
    let Some(namespaces) = member(index, "namespaces").as_object().filter(|map| !map.is_empty()) else {
        return Ok(());
    };
    let rows = namespaces
        .iter()
        .map(|(name, count)| {
            let count = ["vectors", "vector_count"].iter().find_map(|key| count[*key].as_u64());
            let count = count.or_else(|| namespaces[name].as_u64());
            let name = if name.is_empty() { "(default)".to_owned() } else { name.clone() };
            [name, count.map_or_else(String::new, |count| count.to_string())]
        })
        .collect();
    output.line("")?;
    output.table(["namespace", "vectors"], &[1], rows)
}
