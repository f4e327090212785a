//! The history of a run as it grows: reads the server's event stream, and goes on where a broken one ended.
//!
//! Never loses an event: the number of the last one is asked for again. Used by `runs events`, `run --follow` and the
//! waiting for long runs.

use std::time::Duration;

use serde_json::Value;

use super::client::{Client, segment};
use super::failure::{CliError, CliResult, Exit};
use super::output::{Output, shorten, text};

/// Longest silence of a stream; the server sends comments more often than that.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of one event; larger ones end the reading.
const MAX_EVENT: usize = 64 << 20;
/// Broken streams in a row before the reading is given up.
const MAX_BREAKS: u32 = 3;

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
    let mut last: Option<String> = None;
    let mut breaks = 0;
    loop {
        let query = last.as_ref().map_or_else(String::new, |id| format!("?last_event_id={id}"));
        let Some(mut stream) = client.stream(&format!("/api/v1/runs/{}/events{query}", segment(run))).await? else {
            return Ok(());
        };
        let mut decoder = Decoder::default();
        let ended = loop {
            match tokio::time::timeout(SILENCE, stream.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    for event in decoder.feed(&bytes) {
                        breaks = 0;
                        // Told again after a break, when the server numbers its events from elsewhere.
                        if event.id.is_some() && event.id == last {
                            continue;
                        }
                        last = event.id.clone().or(last);
                        each(&event)?;
                    }
                    if decoder.is_too_large() {
                        return Err(CliError::failed("an event of the run is too large to show"));
                    }
                }
                Ok(Ok(None)) => break true,
                Ok(Err(_)) | Err(_) => break false,
            }
        };
        if ended {
            return Ok(());
        }
        breaks += 1;
        if breaks >= MAX_BREAKS {
            return Err(CliError::new(Exit::Unreachable, "the stream of events broke again and again")
                .advise(format!("see where the run stands with: motet runs show {run}")));
        }
    }
}

/// Writes one event: a line for people, a JSON value on a line for programs.
pub(crate) fn show(output: &Output, event: &ServerEvent) -> CliResult {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_else(|_| Value::String(event.data.clone()));
    if output.is_json() {
        return output.json_line(&data);
    }
    let field = |key: &str| Some(text(&data, key)).filter(|text| !text.is_empty());
    let seq = event.id.clone().or_else(|| field("seq")).unwrap_or_default();
    let kind = field("kind").or_else(|| event.kind.clone()).or_else(|| field("type")).unwrap_or_default();
    let at = field("at").unwrap_or_default();
    let step = field("step").unwrap_or_default();
    let told = ["output", "failure", "error", "with", "input", "reason"].iter().find_map(|key| {
        let value = [&data[*key], &data["data"][*key], &data["event"][*key]].into_iter().find(|it| !it.is_null())?;
        Some(value["message"].as_str().map_or_else(|| value.to_string(), str::to_owned))
    });
    let told = output.paint.dim(&shorten(&told.unwrap_or_default(), 60));
    output.line(format!("{seq:>4}  {:<24}  {kind:<16} {step:<12} {told}", shorten(&at, 24)))
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
