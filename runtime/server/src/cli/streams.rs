//! `motet streams`: where records are read, what could not become a run, and steering both.
//!
//! A stream is changed by putting it again; its partitions are steered by themselves. Used by `cli`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::client::{Client, segment};
use super::failure::{CliError, CliResult};
use super::output::{Output, items, shorten, text};
use super::runs::when;

/// Arguments of `motet streams`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet streams list
  motet streams show orders
  motet streams pause orders --topic orders --partition 3
  motet streams seek orders --topic orders --partition 3 --to earliest --again
  motet streams letters orders
  motet streams redrive orders orders/3/0/1742
Streams are made with 'motet apply FILE'.")]
pub(crate) struct StreamsArgs {
    #[command(subcommand)]
    command: StreamsCommand,
}

#[derive(Subcommand, Debug)]
enum StreamsCommand {
    /// List streams.
    List,
    /// Show a stream with its partitions: who reads each, how far, and how far behind.
    Show {
        /// The stream's name.
        name: String,
    },
    /// Stop a stream, or one of its partitions.
    Pause(PlaceArgs),
    /// Let a stream or one of its partitions go on.
    Resume(PlaceArgs),
    /// Read a partition on from elsewhere; whoever has it begins there at once.
    Seek {
        #[command(flatten)]
        place: PlaceArgs,
        /// An offset, earliest, latest, or a time such as 2026-12-24T09:00:00Z.
        #[arg(long, value_name = "PLACE")]
        to: String,
        /// Begin new runs also for records that became runs before.
        #[arg(long)]
        again: bool,
    },
    /// List records that could not become runs.
    Letters {
        /// The stream's name.
        name: String,
        /// open, redriven, discarded, or all.
        #[arg(long, default_value = "open")]
        state: String,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show a record that could not become a run, byte for byte.
    Letter(LetterArgs),
    /// Read such a record once more and begin its run.
    Redrive {
        #[command(flatten)]
        letter: LetterArgs,
        /// Another value for the record.
        #[arg(long)]
        value: Option<String>,
    },
    /// Give such a record up.
    Discard(LetterArgs),
    /// Delete a stream; the runs that its records began go on.
    Delete {
        /// The stream's name.
        name: String,
    },
}

#[derive(Args, Debug)]
struct PlaceArgs {
    /// The stream's name.
    name: String,
    /// The topic; not needed where the stream reads one.
    #[arg(long)]
    topic: Option<String>,
    /// Number of the partition.
    #[arg(long)]
    partition: Option<i32>,
}

#[derive(Args, Debug)]
struct LetterArgs {
    /// The stream's name.
    name: String,
    /// As the list names it: topic/partition/generation/offset.
    letter: String,
}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, args: StreamsArgs) -> CliResult {
    let (client, output) = (context.client()?, &context.output);
    match args.command {
        StreamsCommand::List => {
            let answer = client.get("/api/v1/streams").await?;
            if output.is_json() { output.json(&answer) } else { list(output, items(&answer, "streams")) }
        }
        StreamsCommand::Show { name } => show(&client, output, &name).await,
        StreamsCommand::Pause(place) => pause(&client, output, &place, true).await,
        StreamsCommand::Resume(place) => pause(&client, output, &place, false).await,
        StreamsCommand::Seek { place, to, again } => {
            let path = format!("{}/seek", partition(&client, &place).await?);
            let answer = client.post(&path, &json!({"to": to, "again": again}), Duration::ZERO).await?.body;
            told(output, &answer, &format!("reads on at {}", text(&answer, "next")))
        }
        StreamsCommand::Letters { name, state, limit } => letters(&client, output, &name, &state, limit).await,
        StreamsCommand::Letter(letter) => letter_of(&client, output, &letter).await,
        StreamsCommand::Redrive { letter, value } => {
            let body = value.map_or_else(|| json!({}), |value| json!({"value": value}));
            let path = format!("{}/redrive", letter_path(&letter)?);
            let answer = client.post(&path, &body, Duration::ZERO).await?.body;
            told(output, &answer, &text(&answer, "run"))
        }
        StreamsCommand::Discard(letter) => {
            let path = format!("{}/discard", letter_path(&letter)?);
            let answer = client.post(&path, &json!({}), Duration::ZERO).await?.body;
            told(output, &answer, "discarded")
        }
        StreamsCommand::Delete { name } => {
            client.delete(&stream(&name)).await?;
            output.line(format!("deleted {name}"))
        }
    }
}

fn stream(name: &str) -> String {
    format!("/api/v1/streams/{}", segment(name))
}

fn told(output: &Output, answer: &Value, words: &str) -> CliResult {
    if output.is_json() { output.json(answer) } else { output.line(words) }
}

/// The path of the partition that is meant.
async fn partition(client: &Client, place: &PlaceArgs) -> CliResult<String> {
    let number = place.partition.ok_or_else(|| CliError::usage("name the partition with --partition NUMBER"))?;
    let topic = match &place.topic {
        Some(topic) => topic.clone(),
        None => {
            let answer = client.get(&format!("{}/partitions", stream(&place.name))).await?;
            let mut topics: Vec<_> = items(&answer, "partitions").iter().map(|it| text(it, "topic")).collect();
            topics.dedup();
            match <[String; 1]>::try_from(topics) {
                Ok([topic]) => topic,
                Err(topics) => {
                    let words = format!("the stream reads {} topics; name one with --topic", topics.len());
                    return Err(CliError::usage(words));
                }
            }
        }
    };
    Ok(format!("{}/partitions/{}/{number}", stream(&place.name), segment(&topic)))
}

async fn pause(client: &Client, output: &Output, place: &PlaceArgs, pause: bool) -> CliResult {
    let word = if pause { "paused" } else { "resumed" };
    if place.partition.is_none() {
        let mut document = client.get(&stream(&place.name)).await?["document"].take();
        document["paused"] = pause.into();
        let answer = client.put(&stream(&place.name), &document).await?;
        return told(output, &answer.body, &format!("{} {}", output.paint.state(word), place.name));
    }
    let path = format!("{}/{}", partition(client, place).await?, if pause { "pause" } else { "resume" });
    let answer = client.post(&path, &json!({}), Duration::ZERO).await?.body;
    told(output, &answer, &format!("{} {}", output.paint.state(word), place.name))
}

fn list(output: &Output, streams: &[Value]) -> CliResult {
    if streams.is_empty() {
        output.note("no streams; put some with: motet apply FILE");
        return Ok(());
    }
    let rows = streams.iter().map(|it| {
        let document = &it["document"];
        let topics = match &document["topics"] {
            Value::Array(topics) => topics.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            Value::String(topic) => topic.clone(),
            _ => text(document, "pattern"),
        };
        let state = if document["paused"] == true { "paused" } else { "reading" };
        let (workflow, target) = (text(document, "workflow"), text(&document["output"], "topic"));
        [text(it, "name"), topics, workflow, target, output.paint.state(state)]
    });
    output.table(["name", "topics", "workflow", "results", "state"], &[], rows.collect())
}

async fn show(client: &Client, output: &Output, name: &str) -> CliResult {
    let mut shown = client.get(&stream(name)).await?;
    let partitions = client.get(&format!("{}/partitions", stream(name))).await?;
    if output.is_json() {
        shown["partitions"] = partitions["partitions"].clone();
        return output.json(&shown);
    }
    output.line(output.paint.bold(&text(&shown, "name")))?;
    for key in ["topics", "pattern", "group", "workflow", "ordering", "start"] {
        let value = &shown["document"][key];
        if !value.is_null() {
            output.line(format!("{key:<10} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))?;
        }
    }
    let found = items(&partitions, "partitions");
    if found.is_empty() {
        output.note("no partition has been read yet");
        return Ok(());
    }
    let rows = found.iter().map(|it| {
        let held = it["here"]["held"].as_str().or(it["trouble"].as_str()).unwrap_or_default();
        [
            text(it, "topic"),
            text(it, "partition"),
            output.paint.state(&text(it, "state")),
            text(it, "owner"),
            text(it, "next"),
            text(it, "lag"),
            shorten(held, 60),
        ]
    });
    let header = ["topic", "partition", "state", "node", "next", "lag", "held up by"];
    output.table(header, &[1, 4, 5], rows.collect())?;
    for it in found.iter().filter(|it| it["trouble"].is_string()) {
        output.line(format!("{}/{}: {}", text(it, "topic"), text(it, "partition"), text(it, "trouble")))?;
    }
    Ok(())
}

async fn letters(client: &Client, output: &Output, name: &str, state: &str, limit: u32) -> CliResult {
    let state = if state == "all" { String::new() } else { format!("&state={}", segment(state)) };
    let answer = client.get(&format!("{}/dead-letters?limit={limit}{state}", stream(name))).await?;
    if output.is_json() {
        return output.json(&answer);
    }
    let letters = items(&answer, "dead_letters");
    if letters.is_empty() {
        output.note("no such dead letters");
        return Ok(());
    }
    let rows = letters.iter().map(|it| {
        let parts = ["topic", "partition", "generation", "offset"].map(|key| text(it, key));
        let state = output.paint.state(&text(it, "state"));
        [parts.join("/"), state, when(it, "at"), text(it, "stage"), shorten(&text(it, "message"), 70)]
    });
    output.table(["letter", "state", "read", "stage", "why"], &[], rows.collect())
}

/// The path of a letter as the list names it.
fn letter_path(args: &LetterArgs) -> CliResult<String> {
    let parts: Vec<_> = args.letter.split('/').collect();
    let [topic, partition, generation, offset] = parts[..] else {
        return Err(CliError::usage(
            "a letter is named topic/partition/generation/offset, as 'motet streams letters' lists",
        ));
    };
    let place = format!("{}/{}/{}/{}", segment(topic), segment(partition), segment(generation), segment(offset));
    Ok(format!("{}/dead-letters/{place}", stream(&args.name)))
}

async fn letter_of(client: &Client, output: &Output, args: &LetterArgs) -> CliResult {
    let letter = client.get(&letter_path(args)?).await?;
    if output.is_json() {
        return output.json(&letter);
    }
    for key in ["topic", "partition", "generation", "offset", "state", "stage", "class", "message"] {
        output.line(format!("{key:<10} {}", text(&letter, key)))?;
    }
    let bytes = |value: &Value| {
        value["text"].as_str().map(str::to_owned).or_else(|| value["base64"].as_str().map(|it| format!("base64 {it}")))
    };
    let record = &letter["record"];
    for header in items(record, "headers") {
        let value = bytes(&header["value"]).unwrap_or_else(|| "(none)".to_owned());
        output.line(format!("{:<10} {} = {value}", "header", text(header, "name")))?;
    }
    for key in ["key", "value"] {
        output.line(format!("{key:<10} {}", bytes(&record[key]).unwrap_or_else(|| "(none)".to_owned())))?;
    }
    Ok(())
}
