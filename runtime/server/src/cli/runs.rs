//! `motet runs`: which runs there are, how one stands and why, what happened in it; and, beside it, steering one.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::client::{Client, segment};
use super::failure::CliResult;
use super::output::{Output, items, shorten, text};
use super::run::readable;
use super::steering::{self, SteerCommand};
use super::{Context, events};

/// Arguments of `motet runs`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet runs list --state failed --limit 20
  motet runs show 01JD...                    steps, times and output
  motet runs why 01JD...                     what it waits for, right now
  motet runs events 01JD... --follow         its history, as it grows
  motet runs cancel 01JD... --reason 'wrong input'
  motet runs signal 01JD... approval '{\"yes\": true}'
  motet runs pause 01JD...                   and later: motet runs resume 01JD...
  motet runs retry 01JD...                   goes on where it failed
  motet runs list --holding                  what keeps others of their key waiting
  motet runs skip 01JD...                    lets those behind it in its order go on
  motet runs fork 01JD... --from answer --set search='{\"matches\": []}'")]
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
        /// Only those that ended without success and hold up what follows them in the order of their key.
        #[arg(long)]
        holding: bool,
        /// How many at most.
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
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
    /// Say what a run waits for, from live state.
    Why {
        /// The run's id.
        id: String,
    },
    #[command(flatten)]
    Steer(SteerCommand),
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
        RunsCommand::List { workflow, state, holding, limit } => {
            list(&client, output, workflow, state, holding, limit).await
        }
        RunsCommand::Show { id } => {
            let run = client.get(&path(&id)).await?;
            if output.is_json() { output.json(&run) } else { show(output, &run) }
        }
        RunsCommand::Events { id, follow } => {
            if follow {
                return events::follow(&client, &id, |event| events::show_streamed(output, event)).await;
            }
            if !events::history(&client, output, &id).await? {
                output.note(format!("the run goes on; follow it with: motet runs events {id} --follow"));
            }
            Ok(())
        }
        RunsCommand::Steer(command) => steering::execute(&client, output, command).await,
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
    holding: bool,
    limit: u32,
) -> CliResult {
    let mut query = format!("/api/v1/runs?limit={limit}");
    if let Some(workflow) = workflow {
        query.push_str(&format!("&workflow={}", segment(&workflow)));
    }
    if let Some(state) = state.and_then(|state| state.to_possible_value()) {
        query.push_str(&format!("&state={}", state.get_name()));
    }
    if holding {
        query.push_str("&holding=true");
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
pub(crate) fn when(value: &Value, key: &str) -> String {
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
    let source = &run["source"];
    if source.is_object() {
        let place = ["topic", "partition", "offset"].map(|key| text(source, key)).join("/");
        let order = Some(text(source, "order")).filter(|order| order != "none");
        let order = order.map_or_else(String::new, |order| format!(", in its order: {order}"));
        output.line(format!("record    {place} of stream {}{order}", text(source, "stream")))?;
    }
    if let Some(steps) = run["steps"].as_object().filter(|steps| !steps.is_empty()) {
        let mut steps: Vec<(&String, &Value)> = steps.iter().collect();
        // By the time of their start: the map is ordered by name, which says nothing.
        steps.sort_by_key(|(_, step)| (step["started_at"].is_null(), text(step, "started_at")));
        let rows = steps.into_iter().map(|(name, step)| step_row(output, name, step)).collect();
        output.line("")?;
        output.table(["step", "state", "attempts", "ms", "result"], &[2, 3], rows)?;
    }
    let waits = items(run, "waits_for").iter().map(|wait| wait_row(output, wait));
    let waits: Vec<[String; 4]> = waits.collect();
    if !waits.is_empty() {
        output.line("")?;
        output.table(["step", "waits for", "until", "asks"], &[], waits)?;
    }
    if let Some(by) = run["paused"]["by"].as_str() {
        let reason = run["paused"]["reason"].as_str().map_or_else(String::new, |reason| format!(": {reason}"));
        output.line(format!("\n{} by {by} since {}{reason}", paint.state("paused"), when(&run["paused"], "since")))?;
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
    let result = match (step["error"]["message"].as_str(), &step["output"]) {
        (Some(words), _) => output.paint.red(&shorten(words, 48)),
        (None, Value::Null) => String::new(),
        (None, value) => shorten(&value.to_string(), 48),
    };
    [name.to_owned(), output.paint.state(&text(step, "state")), text(step, "attempts"), took, result]
}

fn wait_row(output: &Output, wait: &Value) -> [String; 4] {
    let item = wait["item"].as_u64().map_or_else(String::new, |item| format!(" [{item}]"));
    let what = match wait["signal"].as_str() {
        Some(signal) => format!("signal {}", output.paint.bold(signal)),
        None => "time".to_owned(),
    };
    let asks = if wait["asks"].is_null() { String::new() } else { shorten(&wait["asks"].to_string(), 48) };
    [text(wait, "step") + &item, what, when(wait, "until"), asks]
}

/// One sentence, then every call and every wake-up that the run waits for.
fn explain(output: &Output, why: &Value) -> CliResult {
    output.line(text(why, "summary"))?;
    let calls: Vec<[String; 6]> = items(&why["calls"], "")
        .iter()
        .map(|call| {
            let error = call["last_error"]["message"].as_str().unwrap_or_default();
            let state = output.paint.state(&text(call, "model_state"));
            let target = format!("{} {}", text(call, "kind"), text(call, "name"));
            [text(call, "step"), target, text(call, "attempt"), state, text(call, "queued"), shorten(error, 40)]
        })
        .collect();
    if !calls.is_empty() {
        output.line("")?;
        output.table(["step", "waits for", "attempt", "state", "queue", "last error"], &[2, 4], calls)?;
    }
    let waits: Vec<[String; 4]> = items(&why["waits"], "").iter().map(|wait| wait_row(output, wait)).collect();
    if !waits.is_empty() {
        output.line("")?;
        output.table(["step", "waits for", "until", "asks"], &[], waits)?;
    }
    let wakes = items(&why["wakes"], "").iter().map(|wake| {
        let error = wake["last_error"]["message"].as_str().unwrap_or_default();
        [when(wake, "at"), text(wake, "for"), text(wake, "step"), shorten(error, 40)]
    });
    let wakes: Vec<[String; 4]> = wakes.collect();
    if wakes.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.table(["wakes at", "for", "step", "last error"], &[], wakes)
}
