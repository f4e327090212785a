//! `motet runs pause|resume|retry|skip|fork|signal`: steering a run from outside.
//!
//! Holds no rules: the run itself accepts or refuses. Used by `motet runs`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Client, segment};
use super::failure::{CliError, CliResult};
use super::output::{Output, text};
use super::run::{argument, random_key};

/// How a run can be steered.
#[derive(Subcommand, Debug)]
pub(crate) enum SteerCommand {
    /// Cancel a run.
    Cancel(WithReason),
    /// Let a run stand still: what is under way is recorded, nothing new begins.
    Pause(WithReason),
    /// Let a paused run go on.
    Resume {
        /// The run's id.
        id: String,
    },
    /// Let a run go on after its end, from the step that failed.
    Retry {
        /// The run's id.
        id: String,
        /// Begin from this step instead; it and what needs it run again.
        #[arg(long, value_name = "STEP")]
        from: Option<String>,
    },
    /// Let the next run of an order go on without this one, which ended without success.
    Skip {
        /// The run's id.
        id: String,
    },
    /// Start a new run from a step of this one.
    Fork(Fork),
    /// Send a run a signal that a step waits for, or will.
    Signal(Signal),
}

/// A run, and why it is steered.
#[derive(Args, Debug)]
pub(crate) struct WithReason {
    /// The run's id.
    id: String,
    /// Why, for its history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `motet runs fork`.
#[derive(Args, Debug)]
pub(crate) struct Fork {
    /// The run's id.
    id: String,
    /// The step to begin from; it and what needs it run again, the others keep their outputs.
    #[arg(long, value_name = "STEP")]
    from: String,
    /// Another input as JSON, @FILE, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-")]
    input: Option<String>,
    /// Another output of a step that is kept, as JSON. May be repeated.
    #[arg(long = "set", value_name = "STEP=JSON")]
    outputs: Vec<String>,
}

/// Arguments of `motet runs signal`.
#[derive(Args, Debug)]
pub(crate) struct Signal {
    /// The run's id.
    id: String,
    /// The signal's name.
    name: String,
    /// The payload as JSON, @FILE, or - for standard input.
    #[arg(value_name = "JSON|@FILE|-", default_value = "{}")]
    payload: String,
    /// The same key again counts as the same signal.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Does what was asked.
pub(crate) async fn execute(client: &Client, output: &Output, command: SteerCommand) -> CliResult {
    let (id, verb, body, said) = match command {
        SteerCommand::Cancel(WithReason { id, reason }) => (id, "cancel", with_reason(reason), "cancelled"),
        SteerCommand::Pause(WithReason { id, reason }) => (id, "pause", with_reason(reason), "paused"),
        SteerCommand::Resume { id } => (id, "resume", json!({}), "resumed"),
        SteerCommand::Retry { id, from } => {
            let body = from.map_or_else(|| json!({}), |from| json!({"from": from}));
            (id, "retry", body, "retried")
        }
        SteerCommand::Skip { id } => (id, "skip", json!({}), "skipped"),
        SteerCommand::Fork(fork) => return self::fork(client, output, fork).await,
        SteerCommand::Signal(signal) => return self::signal(client, output, signal).await,
    };
    let answer = client.post(&format!("/api/v1/runs/{}/{verb}", segment(&id)), &body, Duration::ZERO).await?;
    if output.is_json() {
        return output.json(&answer.body);
    }
    let state = text(&answer.body, "state");
    let now = if state == said { String::new() } else { format!(", now {}", output.paint.state(&state)) };
    output.line(format!("{} {id}{now}", output.paint.state(said)))
}

fn with_reason(reason: Option<String>) -> Value {
    reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}))
}

async fn fork(client: &Client, output: &Output, fork: Fork) -> CliResult {
    let mut body = json!({"from": fork.from, "outputs": outputs(&fork.outputs)?});
    if let Some(input) = &fork.input {
        body["input"] = argument(input, "the input")?;
    }
    let path = format!("/api/v1/runs/{}/fork", segment(&fork.id));
    let answer = client.post_once(&path, &body, Duration::ZERO, &random_key()?).await?;
    if output.is_json() {
        return output.json(&answer.body);
    }
    output.line(text(&answer.body, "id"))?;
    output.note(format!("forked from {}; see it with: motet runs show {}", fork.id, text(&answer.body, "id")));
    Ok(())
}

fn outputs(set: &[String]) -> CliResult<Value> {
    let mut outputs = Map::new();
    for one in set {
        let (step, value) = one.split_once('=').ok_or_else(|| {
            CliError::usage(format!("'{one}' is no output of a step")).advise("write it as --set step='{\"key\": 1}'")
        })?;
        outputs.insert(step.to_owned(), argument(value, &format!("the output of '{step}'"))?);
    }
    Ok(outputs.into())
}

async fn signal(client: &Client, output: &Output, signal: Signal) -> CliResult {
    let payload = argument(&signal.payload, "the payload")?;
    let key = signal.idempotency_key.map_or_else(random_key, Ok)?;
    let path = format!("/api/v1/runs/{}/signals/{}", segment(&signal.id), segment(&signal.name));
    let answer = client.post_once(&path, &payload, Duration::ZERO, &key).await?;
    if output.is_json() {
        return output.json(&answer.body);
    }
    let state = output.paint.state(&text(&answer.body, "state"));
    output.line(format!("signal '{}' received by {}, now {state}", signal.name, signal.id))
}
