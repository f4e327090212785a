//! `motet schedules`: when runs begin by themselves, and steering that.
//!
//! A schedule is changed by putting it again: pausing one puts its own document with another `paused`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Context;
use super::client::{Client, segment};
use super::failure::CliResult;
use super::output::{Output, items, shorten, text};
use super::runs::when;

/// Arguments of `motet schedules`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet schedules list
  motet schedules show nightly
  motet schedules pause nightly
  motet schedules delete nightly
Schedules are made with 'motet apply FILE'.")]
pub(crate) struct SchedulesArgs {
    #[command(subcommand)]
    command: SchedulesCommand,
}

#[derive(Subcommand, Debug)]
enum SchedulesCommand {
    /// List schedules: when each begins its next run, and how the last one went.
    List,
    /// Show a schedule.
    Show {
        /// The schedule's name.
        name: String,
    },
    /// Let a schedule stand still; times that come meanwhile never count.
    Pause {
        /// The schedule's name.
        name: String,
    },
    /// Let a paused schedule go on.
    Resume {
        /// The schedule's name.
        name: String,
    },
    /// Delete a schedule; the runs that it began go on.
    Delete {
        /// The schedule's name.
        name: String,
    },
}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, args: SchedulesArgs) -> CliResult {
    let (client, output) = (context.client()?, &context.output);
    match args.command {
        SchedulesCommand::List => {
            let answer = client.get("/api/v1/schedules").await?;
            if output.is_json() { output.json(&answer) } else { list(output, items(&answer, "schedules")) }
        }
        SchedulesCommand::Show { name } => {
            let schedule = client.get(&path(&name)).await?;
            if output.is_json() { output.json(&schedule) } else { show(output, &schedule) }
        }
        SchedulesCommand::Pause { name } => set_paused(&client, output, &name, true).await,
        SchedulesCommand::Resume { name } => set_paused(&client, output, &name, false).await,
        SchedulesCommand::Delete { name } => {
            client.delete(&path(&name)).await?;
            output.line(format!("deleted {name}"))
        }
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/schedules/{}", segment(name))
}

async fn set_paused(client: &Client, output: &Output, name: &str, paused: bool) -> CliResult {
    let mut document = client.get(&path(name)).await?["document"].take();
    document["paused"] = paused.into();
    let answer = client.put(&path(name), &document).await?;
    if output.is_json() {
        return output.json(&answer.body);
    }
    output.line(format!("{} {name}", output.paint.state(if paused { "paused" } else { "resumed" })))
}

fn list(output: &Output, schedules: &[Value]) -> CliResult {
    if schedules.is_empty() {
        output.note("no schedules; put some with: motet apply FILE");
        return Ok(());
    }
    let rows = schedules.iter().map(|it| {
        let (document, state) = (&it["document"], &it["schedule"]);
        let next = if state["paused"] == true { output.paint.state("paused") } else { when(state, "next_at") };
        let last = match state["last_error"].as_str() {
            Some(words) => output.paint.red(&shorten(words, 40)),
            None => when(state, "last_at"),
        };
        [text(it, "name"), text(document, "workflow"), text(document, "cron"), text(document, "time_zone"), next, last]
    });
    output.table(["name", "workflow", "cron", "time zone", "next", "last"], &[], rows.collect())
}

fn show(output: &Output, schedule: &Value) -> CliResult {
    output.line(output.paint.bold(&text(schedule, "name")))?;
    for key in ["workflow", "cron", "time_zone", "overlap", "paused"] {
        let value = text(&schedule["document"], key);
        if !value.is_empty() {
            output.line(format!("{key:<10} {value}"))?;
        }
    }
    let state = &schedule["schedule"];
    for (title, value) in [
        ("next", when(state, "next_at")),
        ("last", when(state, "last_at")),
        ("last run", text(state, "last_run")),
        ("last error", text(state, "last_error")),
    ] {
        if !value.is_empty() {
            output.line(format!("{title:<10} {value}"))?;
        }
    }
    Ok(())
}
