//! `motet run`: starts a run, waits for it or follows it, and ends as the run ended.
//!
//! A run that was accepted goes on whatever becomes of this process.

use std::fs;
use std::io::Read;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, segment};
use super::failure::{CliError, CliResult, Exit};
use super::output::{Output, text};
use super::{Context, events};

/// Longest wait that one request asks for; longer ones go on by the event stream.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
/// States after which nothing happens any more.
const END_STATES: [&str; 4] = ["succeeded", "failed", "cancelled", "timed_out"];

/// Arguments of `motet run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet run answer -i question='How do I reset my password?'
  motet run answer --input '{\"question\": \"How do I pay?\"}'
  motet run answer --input @question.json --follow   show every step as it is recorded
  motet run answer --input - --no-wait               input from standard input; print the run's id
  motet run resize -i width=5 -i note=five -i code='\"5\"'
                                                     a number, a text, a text
  motet run answer -i question=x --output json | jq .output

Ends with 0 when the run succeeded, 1 when it failed, was cancelled or timed out, 6 when it still runs.")]
pub(crate) struct RunArgs {
    /// The workflow's name.
    workflow: String,
    /// The input as JSON, @FILE, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", conflicts_with = "fields")]
    input: Option<String>,
    /// One member of the input; the value is JSON where it can be read as such, else a text. May be repeated.
    #[arg(short = 'i', value_name = "KEY=VALUE")]
    fields: Vec<String>,
    /// The workflow's version; the newest where it is not said.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// A label for finding the run again. May be repeated.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Higher goes first where calls wait for a model.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    priority: Option<i8>,
    /// The same key again gives the same run again.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long to wait for the end, such as 500ms, 30s or 10m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
    /// Print the run's id as soon as the run is durable.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Show every event as it is recorded, to the end.
    #[arg(long, conflicts_with_all = ["wait", "no_wait"])]
    follow: bool,
}

/// Starts the run and does what was asked with it.
pub(crate) async fn execute(context: &Context, args: RunArgs) -> CliResult {
    let output = &context.output;
    let body = body(&args)?;
    let client = context.client()?;
    let mut path = format!("/api/v1/workflows/{}/runs", segment(&args.workflow));
    let waits = !args.no_wait && !args.follow;
    let first_wait = args.wait.min(LONGEST_REQUEST);
    if waits {
        path.push_str(&format!("?wait={}ms", first_wait.as_millis()));
    }
    let key = match &args.idempotency_key {
        Some(key) => key.clone(),
        None => random_key()?,
    };
    let began = tokio::time::Instant::now();
    let answer = client.post_once(&path, &body, first_wait, &key).await?;
    let id = text(&answer.body, "id");
    if args.no_wait {
        return if output.is_json() { output.json(&answer.body) } else { output.line(id) };
    }
    if args.follow {
        events::follow(&client, &id, |event| events::show_streamed(output, event)).await?;
        return finish(output, &read(&client, &id).await?, true);
    }
    if is_end(&answer.body) {
        return finish(output, &answer.body, false);
    }
    let rest = args.wait.saturating_sub(began.elapsed());
    match tokio::time::timeout(rest, events::follow(&client, &id, |_| Ok(()))).await {
        Ok(followed) => followed?,
        Err(_) => {
            if output.is_json() {
                output.json(&read(&client, &id).await?)?;
            }
            return Err(CliError::new(Exit::StillRunning, format!("the run {id} still goes on"))
                .advise(format!("motet runs events {id} --follow, or motet runs why {id}")));
        }
    }
    finish(output, &read(&client, &id).await?, false)
}

async fn read(client: &Client, id: &str) -> CliResult<Value> {
    client.get(&format!("/api/v1/runs/{}", segment(id))).await
}

/// Whether a run as the server shows it has ended.
pub(crate) fn is_end(run: &Value) -> bool {
    run["state"].as_str().is_some_and(|state| END_STATES.contains(&state))
}

/// Shows the end of a run; `events` says whether its events were shown, so that JSON stays one value per line.
fn finish(output: &Output, run: &Value, events: bool) -> CliResult {
    let state = text(run, "state");
    let succeeded = state == "succeeded";
    match (output.is_json(), events) {
        (true, true) => output.json_line(run)?,
        (true, false) => output.json(run)?,
        (false, _) => {
            output.note(format!("{} {}", output.error_paint.state(&state), text(run, "id")));
            if succeeded {
                output.line(readable(&run["output"]))?;
            }
        }
    }
    match (succeeded, is_end(run)) {
        (true, _) => Ok(()),
        (false, true) => Err(ended_badly(run, &state)),
        (false, false) => Err(CliError::new(Exit::StillRunning, format!("the run {} still goes on", text(run, "id")))),
    }
}

fn ended_badly(run: &Value, state: &str) -> CliError {
    let id = text(run, "id");
    let error = &run["error"];
    let why = ["message", "detail"].iter().find_map(|key| error[*key].as_str());
    let step = error["step"].as_str().map_or_else(String::new, |step| format!(" in step '{step}'"));
    let message = match why {
        Some(why) => format!("the run {state}{step}: {why}"),
        None => format!("the run {}", state.replace('_', " ")),
    };
    CliError::failed(message).advise(format!("motet runs show {id}"))
}

/// An output for people: a text as it is, anything else as indented JSON.
pub(crate) fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    }
}

fn body(args: &RunArgs) -> CliResult<Value> {
    let mut body = json!({"input": input(args)?});
    if let Some(version) = &args.version {
        body["version"] = version.as_str().into();
    }
    if !args.tag.is_empty() {
        body["tags"] = args.tag.clone().into();
    }
    if let Some(priority) = args.priority {
        body["priority"] = priority.into();
    }
    Ok(body)
}

fn input(args: &RunArgs) -> CliResult<Value> {
    match &args.input {
        Some(input) => argument(input, "the input")
            .map_err(|error| error.advise("single members are easier as -i key=value; a file is --input @FILE")),
        None => fields(&args.fields),
    }
}

/// JSON that is written as an argument, lies in @FILE, or comes with `-` from standard input; `what` it is, for
/// people.
pub(crate) fn argument(given: &str, what: &str) -> CliResult<Value> {
    let source = match given.strip_prefix('@') {
        Some(path) => fs::read_to_string(path)
            .map_err(|error| CliError::usage(format!("cannot read {what} from {path}: {error}")))?,
        None if given == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| CliError::usage(format!("cannot read {what}: {error}")))?;
            text
        }
        None => given.to_owned(),
    };
    serde_json::from_str(&source).map_err(|error| CliError::usage(format!("{what} is no JSON: {error}")))
}

fn fields(fields: &[String]) -> CliResult<Value> {
    let mut map = Map::new();
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| {
            CliError::usage(format!("'{field}' is no member of an input")).advise("write it as -i key=value")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if map.insert(key.to_owned(), value).is_some() {
            return Err(CliError::usage(format!("'{key}' is given twice")));
        }
    }
    Ok(Value::Object(map))
}

/// A key of our own, so that a request that is sent again by something on the way starts one run.
pub(crate) fn random_key() -> CliResult<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| CliError::failed(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A length of time with its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number with its unit, such as 500ms, 30s, 10m or 1h".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{digits}' is no whole number"))?;
    Ok(Duration::from_millis(number.saturating_mul(factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_an_input_keep_their_types() {
        let given = ["a=1", "b=true", "c=x=y", "d=\"5\"", "e=[1]", "f="].map(str::to_owned);
        let expected = json!({"a": 1, "b": true, "c": "x=y", "d": "5", "e": [1], "f": ""});
        assert_eq!(fields(&given).unwrap(), expected);
        assert!(fields(&["a".to_owned()]).is_err());
        assert!(fields(&["a=1".to_owned(), "a=2".to_owned()]).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["5", "s", "-5s", "5 s", "1.5s", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn failures_of_a_run_are_told_in_one_line() {
        let run = json!({"id": "r", "state": "failed", "error": {"step": "embed", "message": "no such model"}});
        let CliError::Told(told) = ended_badly(&run, "failed") else { panic!("silent") };
        assert_eq!(told.message, "the run failed in step 'embed': no such model");
        assert_eq!(told.exit, Exit::Failed);
    }
}
