//! The history of a run as it grows: reads the server's event stream, and goes on where a broken one ended.
//!
//! Never loses an event: the number of the last one is asked for again. Used by `runs events`, `run --follow` and the
//! waiting for long runs.

use std::time::Duration;

use serde_json::Value;

use super::client::{Client, segment};
use super::failure::{CliError, CliResult, Exit};
use super::output::{Output, items, shorten, text};

/// Longest silence of a stream; the server sends comments more often than that.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of one event; larger ones end the reading.
const MAX_EVENT: usize = 64 << 20;
/// Broken streams in a row before the reading is given up.
const MAX_BREAKS: u32 = 5;
/// Time before a stream that ended too early is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// How the kinds of a run's ends begin; only a retry may follow one.
const END: &str = "run_";

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServerEvent {
    /// Number by which the stream goes on.
    pub(crate) id: Option<String>,
    /// Name of the kind.
    pub(crate) kind: Option<String>,
    /// What it says.
    pub(crate) data: String,
}

/// Takes bytes in as they come and gives the events that they complete.
#[derive(Debug, Default)]
struct Decoder {
    buffer: Vec<u8>,
    event: ServerEvent,
    has_data: bool,
}

impl Decoder {
    fn feed(&mut self, bytes: &[u8]) -> Vec<ServerEvent> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[start..start + length]).into_owned();
            start += length + 1;
            self.line(line.trim_end_matches('\r'), &mut events);
        }
        self.buffer.drain(..start);
        events
    }

    fn line(&mut self, line: &str, events: &mut Vec<ServerEvent>) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.kind = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // Comments, and the server's advice on when to come again.
            _ => {}
        }
    }

    fn is_too_large(&self) -> bool {
        self.buffer.len() + self.event.data.len() > MAX_EVENT
    }
}

/// Hands every event of a run to `each`, from the first one until the run has ended.
pub(crate) async fn follow(client: &Client, run: &str, mut each: impl FnMut(&ServerEvent) -> CliResult) -> CliResult {
    let path = format!("/api/v1/runs/{}/events", segment(run));
    let mut last: Option<String> = None;
    let mut breaks = 0;
    loop {
        let Some(mut stream) = client.stream(&path, last.as_deref()).await? else { return Ok(()) };
        let mut decoder = Decoder::default();
        let mut ended = false;
        // A stream that falls silent or breaks is opened again after the last event that came.
        while let Ok(Ok(Some(bytes))) = tokio::time::timeout(SILENCE, stream.chunk()).await {
            for event in decoder.feed(&bytes) {
                breaks = 0;
                last = event.id.clone().or(last);
                each(&event)?;
                ended = event.kind.as_deref().is_some_and(|kind| kind.starts_with(END));
            }
            if decoder.is_too_large() {
                return Err(CliError::failed("an event of the run is too large to show"));
            }
        }
        // The server closes the stream after the end of the run.
        if ended {
            return Ok(());
        }
        breaks += 1;
        if breaks >= MAX_BREAKS {
            return Err(CliError::new(Exit::Unreachable, "the stream of events broke again and again")
                .advise(format!("see where the run stands with: motet runs show {run}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes what is recorded so far.
pub(crate) async fn history(client: &Client, output: &Output, run: &str) -> CliResult<bool> {
    let mut last = 0;
    loop {
        let page = client.get(&format!("/api/v1/runs/{}/events?last_event_id={last}", segment(run))).await?;
        let events = items(&page, "events");
        for event in events {
            show(output, event)?;
        }
        let complete = page["complete"] == true;
        match events.last().and_then(|event| event["seq"].as_u64()) {
            Some(seq) if !complete => last = seq,
            _ => return Ok(complete),
        }
    }
}

/// Writes one event as it came.
pub(crate) fn show_streamed(output: &Output, event: &ServerEvent) -> CliResult {
    show(output, &serde_json::from_str(&event.data)?)
}

/// Writes one event: a line for people, a JSON value on a line for programs.
fn show(output: &Output, event: &Value) -> CliResult {
    if output.is_json() {
        return output.json_line(event);
    }
    let said = [&event["error"]["message"], &event["reason"]].into_iter().find_map(Value::as_str);
    let carried = ["output", "with", "input", "items", "payload"]
        .into_iter()
        .map(|key| &event[key])
        .find(|value| !value.is_null());
    let told = match (said, carried) {
        (Some(words), _) => output.paint.red(&shorten(words, 56)),
        (None, Some(value)) => output.paint.dim(&shorten(&value.to_string(), 56)),
        (None, None) => String::new(),
    };
    let (seq, at, kind) = (text(event, "seq"), clock(&text(event, "at")), text(event, "type"));
    output.line(format!("{seq:>4}  {at}  {kind:<14} {:<10} {told}", text(event, "step")))
}

/// The time of day of a moment, to the millisecond.
fn clock(moment: &str) -> String {
    match moment.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => moment.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_however_they_are_cut() {
        let whole =
            ": ping\nretry: 1000\n\nid: 1\nevent: submitted\ndata: {\"a\":\ndata: \"ü\"}\n\nid: 2\r\ndata:x\r\n\r\n";
        for size in [1, 3, 7, whole.len()] {
            let mut decoder = Decoder::default();
            let events: Vec<ServerEvent> =
                whole.as_bytes().chunks(size).flat_map(|bytes| decoder.feed(bytes)).collect();
            assert_eq!(events.len(), 2, "{size}");
            assert_eq!(events[0].data, "{\"a\":\n\"ü\"}");
            assert_eq!(events[0].kind.as_deref(), Some("submitted"));
            assert_eq!((events[1].id.as_deref(), events[1].data.as_str()), (Some("2"), "x"));
        }
    }
}
