//! From a run's end to the record that tells it: a CloudEvent whose id follows from run and end.
//!
//! A result is never lost to a mistake in the stream's `output`: where that cannot be evaluated, or what it gives is
//! too large, the record has the type of a failed run, the reason in the header `motet-output-error` and in its data,
//! the default key, and the run's own output or error beside the reason. Never sends. Used by whoever records ends.
//! Source: CloudEvents 1.0.2, Kafka protocol binding.

use std::sync::Arc;

use bytes::Bytes;

use super::coordinates::{digest, half};
use super::decode::{self, MAX_INPUT_BYTES, check_size};
use super::letter::cut;
use super::reading::record;
use super::{Cause, Headers, Source};
use crate::definition::{Delivery, Format, RunEnd, StreamDefinition, StreamOutput};
use crate::expression::{RunFacts, Scope, Template};
use crate::failure::{Failure, FailureClass};
use crate::id::RunId;
use crate::run::{Phase, Run};
use crate::tensor::Datatype;
use crate::value::{Map, Value};

/// The start of the types of our events.
const TYPE: &str = "io.motet.run";
/// Why a result looks otherwise than the stream says.
const OUTPUT_ERROR: &str = "motet-output-error";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OCTETS: &str = "application/octet-stream";

/// A record to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResultRecord {
    /// Identity of the event, the same whenever the record is made again; also in the headers `ce_id` and `event-id`.
    pub event: [u8; 16],
    /// Topic.
    pub topic: String,
    /// Key.
    pub key: Option<Bytes>,
    /// Headers.
    pub headers: Headers,
    /// Value.
    pub value: Option<Bytes>,
    /// How often readers may see it.
    pub delivery: Delivery,
}

/// The record that tells the end of a run; none when the run has not ended, comes from no record, or ended in a way
/// that the stream tells nobody. The definition is that of the revision in the run's source, and the run stands as the
/// event of its end left it: the event's number is part of the record's identity, so that a run that is retried and
/// ends again tells that, too.
#[must_use]
pub fn result_record(definition: &StreamDefinition, run: &Run) -> Option<ResultRecord> {
    let (source, output) = (run.submission().source.as_deref()?, definition.output.as_ref()?);
    let end = end_of(run.phase())?;
    if !output.on.contains(&end) {
        return None;
    }
    let view = EndView { run, source, end, output: run.output().unwrap_or_default(), error: error_of(run) };
    let shaped = view.shape(definition, output).unwrap_or_else(|failure| view.unshaped(&failure));
    let event = event_id(run.id(), run.seq().0);
    let headers = view.headers(event, &shaped);
    let (topic, value) = (output.topic.clone(), Some(shaped.body));
    Some(ResultRecord { event, topic, key: shaped.key, headers, value, delivery: output.delivery })
}

/// The id of the event of a run's end: 16 bytes in the layout of UUID version 8.
fn event_id(run: RunId, end: u64) -> [u8; 16] {
    let mut id = half(&digest(&[b"result", &run.to_bytes(), &end.to_be_bytes()]));
    id[6] = id[6] & 0x0F | 0x80;
    id[8] = id[8] & 0x3F | 0x80;
    id
}

fn end_of(phase: Phase) -> Option<RunEnd> {
    match phase {
        Phase::Active => None,
        Phase::Succeeded => Some(RunEnd::Succeeded),
        Phase::Failed => Some(RunEnd::Failed),
        Phase::Cancelled => Some(RunEnd::Cancelled),
        Phase::TimedOut => Some(RunEnd::TimedOut),
    }
}

/// `error` in expressions and in data: class, message and step; null for a run that succeeded.
fn error_of(run: &Run) -> Value {
    let state = run.state();
    let (class, message, step) = match state.phase {
        Phase::Active | Phase::Succeeded => return Value::Null,
        Phase::Failed => match &state.failure {
            Some(failed) => {
                let step = failed.step.and_then(|step| run.workflow().steps.get(step.as_usize()));
                (failed.failure.class.as_str(), failed.failure.message.as_str(), step.map(|step| &step.name))
            }
            None => ("internal", "the run failed", None),
        },
        Phase::Cancelled => ("cancelled", state.reason.as_deref().unwrap_or("the run was cancelled"), None),
        Phase::TimedOut => ("timeout", "the run did not end within its own timeout", None),
    };
    map([("class", class.into()), ("message", message.into())]
        .into_iter()
        .chain(step.map(|step| ("step", Value::String(Arc::clone(step))))))
}

fn map<'n>(members: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
    members.into_iter().map(|(name, value)| (name.into(), value)).collect::<Map>().into()
}

/// What a record is made of.
struct Shaped {
    key: Option<Bytes>,
    /// Headers that the stream adds.
    added: Vec<(String, Option<Bytes>)>,
    body: Bytes,
    content_type: &'static str,
    end: RunEnd,
}

/// The end of a run, as the stream's expressions see it.
struct EndView<'r> {
    run: &'r Run,
    source: &'r Source,
    end: RunEnd,
    output: Value,
    error: Value,
}

impl EndView<'_> {
    fn shape(&self, definition: &StreamDefinition, output: &StreamOutput) -> Result<Shaped, Failure> {
        let submission = self.run.submission();
        let facts = RunFacts {
            id: self.run.id(),
            started_at: submission.at,
            workflow: &submission.workflow,
            version: &submission.version,
            namespace: &submission.namespace,
            state: Some(self.end.as_str()),
        };
        let locals = self.locals(definition);
        let scope = Scope { input: &submission.input, steps: &|_| None, locals: &locals, run: &facts };
        let evaluate = |template: &Template| {
            let value = template.evaluate(&scope)?;
            check_size(&value).map_err(|error| Failure::new(FailureClass::Invalid, error.message))?;
            Ok::<Value, Failure>(value)
        };
        let within = |place: &str, failure: Failure| {
            Failure::new(failure.class, format!("the stream's output.{place}: {}", failure.message))
        };
        let key = match &output.key {
            None => self.source.key.clone(),
            Some(template) => plain_bytes(&evaluate(template).map_err(|failure| within("key", failure))?),
        };
        let mut added = Vec::with_capacity(output.headers.len());
        for (name, template) in &output.headers {
            let value = evaluate(template).map_err(|failure| within(&format!("headers.{name}"), failure))?;
            added.push((name.to_string(), plain_bytes(&value)));
        }
        let (body, content_type) = match &output.value {
            None => self.data().and_then(|data| body(&data))?,
            Some(template) => {
                evaluate(template).and_then(|value| body(&value)).map_err(|failure| within("value", failure))?
            }
        };
        Ok(Shaped { key, added, body, content_type, end: self.end })
    }

    /// What the record tells where the stream does not say otherwise: the output, else the error.
    fn data(&self) -> Result<Value, Failure> {
        match self.end {
            RunEnd::Succeeded => Ok(self.output.clone()),
            _ => Ok(map([("error", self.error.clone())])),
        }
    }

    /// The record where the stream's output has a mistake.
    fn unshaped(&self, failure: &Failure) -> Shaped {
        let message = cut(&failure.message);
        let error = map([("class", failure.class.as_str().into()), ("message", message.into())]);
        let own = match self.end {
            RunEnd::Succeeded => ("output", &self.output),
            _ => ("cause", &self.error),
        };
        let whole = map([("error", error.clone()), (own.0, own.1.clone())]);
        // What is too large to be sent can still be read by the run's id, which is the event's subject.
        let bytes = json(&whole).or_else(|_| json(&map([("error", error)]))).unwrap_or_default();
        let reason = Bytes::copy_from_slice(message.as_bytes());
        Shaped {
            key: self.source.key.clone(),
            added: vec![(OUTPUT_ERROR.to_owned(), Some(reason))],
            body: bytes,
            content_type: JSON,
            end: RunEnd::Failed,
        }
    }

    fn locals(&self, definition: &StreamDefinition) -> Vec<(Arc<str>, Value)> {
        let source = self.source;
        let named: [(&str, Value); 5] = [
            ("output", self.output.clone()),
            ("error", self.error.clone()),
            ("key", source.key.as_ref().map_or(Value::Null, |key| key_value(definition, key))),
            ("record", record(&source.topic, source.partition, source.offset, source.timestamp)),
            ("event", source.event.as_ref().map_or(Value::Null, event_value)),
        ];
        named.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    fn headers(&self, event: [u8; 16], shaped: &Shaped) -> Headers {
        let submission = self.run.submission();
        let id = uuid(event);
        let span = event.iter().take(8).fold(0u64, |span, byte| span << 8 | u64::from(*byte));
        let at = self.run.state().finished_at.unwrap_or(submission.at);
        let cause = self.source.event.as_ref();
        let correlation = cause.map(|cause| cause.correlation.as_ref().unwrap_or(&cause.id).to_string());
        let place = format!("/motet/{}/workflows/{}", submission.namespace, submission.workflow);
        let own = [
            ("ce_specversion", Some("1.0".to_owned())),
            ("ce_id", Some(id.clone())),
            ("ce_source", Some(place)),
            ("ce_type", Some(format!("{TYPE}.{}", shaped.end.as_str()))),
            ("ce_subject", Some(self.run.id().to_string())),
            ("ce_time", at.to_rfc3339()),
            ("ce_correlationid", correlation),
            ("ce_causationid", cause.map(|cause| cause.id.to_string())),
            ("content-type", Some(shaped.content_type.to_owned())),
            ("traceparent", Some(submission.trace.child(span).to_string())),
            ("event-id", Some(id)),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Some(Bytes::from(value?)))));
        let reply = self.source.reply.iter().map(|(name, value)| (name.to_string(), value.clone()));
        // What the stream says of a header goes before what it would be otherwise.
        let said = |name: &str| shaped.added.iter().any(|(added, _)| added == name);
        let mut headers: Headers = own.chain(reply).filter(|(name, _)| !said(name)).collect();
        headers.extend(shaped.added.iter().cloned());
        headers
    }
}

/// The record's key as expressions see it at the end of a run. What needs a registry, or is not what the stream says
/// that it is, stays bytes.
fn key_value(definition: &StreamDefinition, key: &Bytes) -> Value {
    let format = definition.format.key.filter(|format| !format.needs_registry());
    let decoded = match (format, definition.format.key) {
        (None, Some(_)) => None,
        (format, _) => decode::decode(format.unwrap_or(Format::Text), key).ok(),
    };
    decoded.unwrap_or_else(|| decode::plain(key))
}

fn event_value(cause: &Cause) -> Value {
    let own = [("id", &cause.id), ("source", &cause.source), ("type", &cause.kind)];
    let correlation = cause.correlation.as_ref().map(|correlation| ("correlationid", correlation));
    map(own.into_iter().chain(correlation).map(|(name, text)| (name, Value::String(Arc::clone(text)))))
}

/// A key or a header: a text and bytes as they are, nothing for null, JSON for everything else.
fn plain_bytes(value: &Value) -> Option<Bytes> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Value::Tensor(tensor) if tensor.datatype() == Datatype::Uint8 => Some(tensor.data().clone()),
        other => Some(other.to_json().to_string().into()),
    }
}

/// A value: a text and bytes as they are, JSON for everything else, null among it: a record without a value would say
/// that something is gone.
fn body(value: &Value) -> Result<(Bytes, &'static str), Failure> {
    match value {
        Value::String(text) => Ok((Bytes::copy_from_slice(text.as_bytes()), TEXT)),
        Value::Tensor(tensor) if tensor.datatype() == Datatype::Uint8 => Ok((tensor.data().clone(), OCTETS)),
        other => json(other).map(|bytes| (bytes, JSON)),
    }
}

fn json(value: &Value) -> Result<Bytes, Failure> {
    let bytes = serde_json::to_vec(value).map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))?;
    if bytes.len() > MAX_INPUT_BYTES {
        let message = format!("the value has {} bytes as JSON; at most {MAX_INPUT_BYTES} are sent", bytes.len());
        return Err(Failure::new(FailureClass::Invalid, message));
    }
    Ok(bytes.into())
}

/// 16 bytes as a UUID is written.
fn uuid(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
