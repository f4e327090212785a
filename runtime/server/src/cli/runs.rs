//! `motet runs`: which runs there are, how one stands and why, what happened in it, and its cancelling.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::failure::CliResult;
use super::output::{Output, items, shorten, text};
use super::run::readable;
use super::{Context, events};

/// Arguments of `motet runs`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet runs list --state failed --limit 20
  motet runs show 01JD...                    steps, times and output
  motet runs why 01JD...                     what it waits for, right now
  motet runs events 01JD... --follow         its history, as it grows
  motet runs cancel 01JD... --reason 'wrong input'")]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
}

#[derive(Subcommand, Debug)]
enum RunsCommand {
    /// List runs, newest first.
    List {
        /// Only runs of this workflow.
        #[arg(long, value_name = "NAME")]
        workflow: Option<String>,
        /// Only runs in this state.
        #[arg(long, value_enum, value_name = "STATE")]
        state: Option<RunState>,
        /// How many at most.
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show a run: where it stands, its steps, its output.
    Show {
        /// The run's id.
        id: String,
    },
    /// Show what was recorded of a run.
    Events {
        /// The run's id.
        id: String,
        /// Go on until the run has ended.
        #[arg(long)]
        follow: bool,
    },
    /// Cancel a run.
    Cancel {
        /// The run's id.
        id: String,
        /// Why, for its history.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Say what a run waits for, from live state.
    Why {
        /// The run's id.
        id: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum RunState {
    Pending,
    Running,
    Waiting,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, args: RunsArgs) -> CliResult {
    let (client, output) = (context.client()?, &context.output);
    match args.command {
        RunsCommand::List { workflow, state, limit } => list(&client, output, workflow, state, limit).await,
        RunsCommand::Show { id } => {
            let run = client.get(&path(&id)).await?;
            if output.is_json() { output.json(&run) } else { show(output, &run) }
        }
        RunsCommand::Events { id, follow } => {
            if follow {
                return events::follow(&client, &id, |event| events::show(output, event)).await;
            }
            history(&client, output, &id).await
        }
        RunsCommand::Cancel { id, reason } => {
            let body = reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
            let answer = client.post(&format!("{}/cancel", path(&id)), &body, Duration::ZERO).await?;
            if output.is_json() {
                return output.json(&answer.body);
            }
            output.line(format!("{} {id}", output.paint.state("cancelled")))
        }
        RunsCommand::Why { id } => {
            let why = client.get(&format!("{}/why", path(&id))).await?;
            if output.is_json() { output.json(&why) } else { explain(output, &why) }
        }
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/runs/{}", segment(id))
}

async fn list(
    client: &Client,
    output: &Output,
    workflow: Option<String>,
    state: Option<RunState>,
    limit: u32,
) -> CliResult {
    let mut query = format!("/api/v1/runs?limit={limit}");
    if let Some(workflow) = workflow {
        query.push_str(&format!("&workflow={}", segment(&workflow)));
    }
    if let Some(state) = state.and_then(|state| state.to_possible_value()) {
        query.push_str(&format!("&state={}", state.get_name()));
    }
    let answer = client.get(&query).await?;
    if output.is_json() {
        return output.json(&answer);
    }
    let rows: Vec<[String; 5]> = items(&answer, "runs")
        .iter()
        .map(|run| {
            let state = output.paint.state(&text(run, "state"));
            [text(run, "id"), text(run, "workflow"), text(run, "version"), state, when(run, "created_at")]
        })
        .collect();
    if rows.is_empty() {
        output.note("no runs; start one with: motet run WORKFLOW -i key=value");
        return Ok(());
    }
    output.table(["id", "workflow", "version", "state", "created"], &[], rows)
}

/// A time without the fraction of its second.
fn when(value: &Value, key: &str) -> String {
    let time = text(value, key);
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => time,
    }
}

/// Milliseconds between two times of a JSON map, where both are there.
pub(crate) fn span_ms(value: &Value, from: &str, to: &str) -> Option<f64> {
    let time = |key: &str| value[key].as_str()?.parse::<jiff::Timestamp>().ok();
    let (from, to) = (time(from)?, time(to)?);
    Some(to.duration_since(from).as_secs_f64() * 1000.0)
}

fn show(output: &Output, run: &Value) -> CliResult {
    let paint = output.paint;
    output.line(format!("{} {}", paint.bold(&text(run, "id")), paint.state(&text(run, "state"))))?;
    output.line(format!("workflow  {} version {}", text(run, "workflow"), text(run, "version")))?;
    let took = span_ms(run, "created_at", "finished_at").map_or_else(String::new, |ms| format!(", took {ms:.0} ms"));
    output.line(format!("created   {}{took}", when(run, "created_at")))?;
    if let Some(steps) = run["steps"].as_object().filter(|steps| !steps.is_empty()) {
        let mut steps: Vec<(&String, &Value)> = steps.iter().collect();
        // By the time of their start: the map is ordered by name, which says nothing.
        steps.sort_by_key(|(_, step)| (step["started_at"].is_null(), text(step, "started_at")));
        let rows = steps.into_iter().map(|(name, step)| step_row(output, name, step)).collect();
        output.line("")?;
        output.table(["step", "state", "attempts", "ms", "result"], &[2, 3], rows)?;
    }
    for (title, key) in [("error", "error"), ("output", "output")] {
        if !run[key].is_null() {
            output.line(format!("\n{}\n{}", paint.bold(title), readable(&run[key])))?;
        }
    }
    Ok(())
}

fn step_row(output: &Output, name: &str, step: &Value) -> [String; 5] {
    let took = span_ms(step, "started_at", "finished_at").map_or_else(String::new, |ms| format!("{ms:.1}"));
    let result = match (&step["error"], &step["failure"], &step["output"]) {
        (Value::Null, Value::Null, Value::Null) => String::new(),
        (Value::Null, Value::Null, value) => shorten(&value.to_string(), 48),
        (Value::Null, error, _) | (error, ..) => {
            let words = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            output.paint.red(&shorten(&words, 48))
        }
    };
    [name.to_owned(), output.paint.state(&text(step, "state")), text(step, "attempts"), took, result]
}

/// What is recorded so far. A stream of a run that goes on does not end, so the reading stops at the number of the last event that
/// the run had when the reading began.
async fn history(client: &Client, output: &Output, id: &str) -> CliResult {
    let run = client.get(&path(id)).await?;
    if super::run::is_end(&run) {
        return events::follow(client, id, |event| events::show(output, event)).await;
    }
    let shown = events::follow(client, id, |event| events::show(output, event));
    // All that is recorded comes at once; what takes longer has not happened yet.
    match tokio::time::timeout(Duration::from_secs(1), shown).await {
        Ok(done) => done,
        Err(_) => {
            output.note(format!("the run goes on; follow it with: motet runs events {id} --follow"));
            Ok(())
        }
    }
}

fn explain(output: &Output, why: &Value) -> CliResult {
    let words = ["summary", "why", "reason", "detail"].iter().find_map(|key| why[*key].as_str());
    if let Some(words) = words {
        output.line(words)?;
    }
    let list = ["waits_for", "waiting", "waiting_for", "waits", "steps"].iter().find_map(|key| why[*key].as_array());
    match (list, words) {
        (Some(list), _) => {
            for entry in list {
                output.line(format!("- {}", sentence(entry)))?;
            }
            Ok(())
        }
        (None, Some(_)) => Ok(()),
        (None, None) => output.json(why),
    }
}

/// One cause as words: its members by name, in their order.
fn sentence(entry: &Value) -> String {
    match entry {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let parts: Vec<String> = map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| match value {
                    Value::String(text) => format!("{key}: {text}"),
                    other => format!("{key}: {other}"),
                })
                .collect();
            parts.join(", ")
        }
        other => other.to_string(),
    }
}
