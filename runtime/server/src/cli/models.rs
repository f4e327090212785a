//! `motet models`: which models the server has, what they did, and the fetching of what they need.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::segment;
use super::failure::CliResult;
use super::output::{Output, items, text};
use super::{Context, fetch};

/// Arguments of `motet models`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet models list                       state, calls and batches of every model
  motet models show minilm                what it takes, gives and is
  motet models fetch flows/               fetch what the models of a folder need, ahead of the first call
  motet models fetch minilm               the same for the embedding model of the demo")]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Subcommand, Debug)]
enum ModelsCommand {
    /// List the models of the server.
    List,
    /// Show a model.
    Show {
        /// The model's name.
        name: String,
    },
    /// Fetch artefacts into the cache, offline from any server.
    Fetch {
        /// Definition files or folders, or 'minilm'.
        #[arg(value_name = "FILE|DIR|minilm", required = true)]
        what: Vec<PathBuf>,
        /// The folder of artefacts; by default the one that a server of this user has.
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
    },
}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, args: ModelsArgs) -> CliResult {
    let output = &context.output;
    match args.command {
        ModelsCommand::List => {
            let answer = context.client()?.get("/api/v1/models").await?;
            if output.is_json() { output.json(&answer) } else { list(output, items(&answer, "models")) }
        }
        ModelsCommand::Show { name } => {
            let model = context.client()?.get(&format!("/api/v1/models/{}", segment(&name))).await?;
            if output.is_json() { output.json(&model) } else { show(output, &model) }
        }
        ModelsCommand::Fetch { what, cache } => fetch::execute(context, &what, cache).await,
    }
}

fn list(output: &Output, models: &[Value]) -> CliResult {
    if models.is_empty() {
        output.note("no models; put some with: motet apply FILE");
        return Ok(());
    }
    let rows = models
        .iter()
        .map(|model| {
            let figures = &model["figures"];
            [
                text(model, "name"),
                text(model, "version"),
                text(model, "backend"),
                output.paint.state(&text(model, "state")),
                text(figures, "calls"),
                text(figures, "batches"),
                figures["mean_batch"].as_f64().map_or_else(String::new, |mean| format!("{mean:.1}")),
                text(figures, "largest_batch"),
                text(figures, "busy_ms"),
            ]
        })
        .collect();
    let header = ["name", "version", "backend", "state", "calls", "batches", "mean", "largest", "busy ms"];
    output.table(header, &[4, 5, 6, 7, 8], rows)
}

fn show(output: &Output, model: &Value) -> CliResult {
    let (paint, document) = (output.paint, &model["document"]);
    output.line(format!("{} {}", paint.bold(&text(model, "name")), paint.state(&text(model, "state"))))?;
    let source = document["source"]["uri"].as_str().or_else(|| document["source"].as_str());
    let described = [
        ("about", document["description"].as_str()),
        ("version", model["version"].as_str()),
        ("backend", model["backend"].as_str()),
        ("source", source),
        ("licence", document["source"]["license"].as_str()),
        ("error", model["error"]["message"].as_str()),
        ("loading", model["loading"]["what"].as_str()),
    ];
    for (title, words) in described {
        if let Some(words) = words {
            output.line(format!("{title:<9} {words}"))?;
        }
    }
    for (file, digest) in digests(&document["source"]["sha256"]) {
        output.line(format!("{:<9} {digest} {file}", "sha-256"))?;
    }
    if let Some(nodes) = model["nodes"].as_array() {
        let node = |node: &Value| match text(node, "state").as_str() {
            "ready" => text(node, "node"),
            state => format!("{} ({state})", text(node, "node")),
        };
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        output.line(format!(
            "{:<9} {}",
            "nodes",
            if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") }
        ))?;
    }
    for key in ["inputs", "outputs"] {
        for spec in model["signature"][key].as_array().map_or(&[][..], Vec::as_slice) {
            output.line(format!("{:<9} {}", key.trim_end_matches('s'), specification(spec)))?;
        }
    }
    for (title, map) in [("facts", &model["signature"]["facts"]), ("figures", &model["figures"])] {
        let Some(map) = map.as_object().filter(|map| !map.is_empty()) else { continue };
        output.line(format!("\n{}", paint.bold(title)))?;
        for (key, value) in map {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
                other => other.to_string(),
            };
            output.line(format!("  {key:<16} {value}"))?;
        }
    }
    Ok(())
}

/// The files of an artefact and what they must be: one digest stands for the only file.
fn digests(sha256: &Value) -> Vec<(&str, &str)> {
    match sha256 {
        Value::String(digest) => vec![("", digest)],
        Value::Object(files) => files.iter().filter_map(|(file, digest)| Some((&**file, digest.as_str()?))).collect(),
        _ => vec![],
    }
}

/// One input or output: `text: BYTES [*]`.
fn specification(spec: &Value) -> String {
    let lengths = spec["shape"].as_array().map_or(&[][..], Vec::as_slice);
    let lengths: Vec<String> = lengths
        .iter()
        .map(|length| length.as_i64().filter(|length| *length >= 0).map_or_else(|| "*".to_owned(), |it| it.to_string()))
        .collect();
    format!("{}: {} [{}]", text(spec, "name"), text(spec, "datatype"), lengths.join(", "))
}
