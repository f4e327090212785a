//! From a record to its verdict: decoded, filtered, turned into the input of a run.
//!
//! What the stream's expressions do not read is not made. Never starts a run: whoever asks does, after the commit.
//! Used by the actors that own partitions.

use std::sync::Arc;

use bytes::Bytes;

use super::cloud_event::{self, Data, Mode};
use super::coordinates::{Coordinates, Origin, header, run_id};
use super::decode::{self, Undecodable, check_size, essence, format_of};
use super::{DeadReason, Headers, Incoming, Skip, Source, Stage, StartRun, Verdict};
use crate::access::Principal;
use crate::definition::{Format, RecordOrder, StreamDefinition, Workflow};
use crate::event::{Event, Submission};
use crate::expression::{RunFacts, Scope};
use crate::failure::Failure;
use crate::id::{Namespace, RunId};
use crate::run::Run;
use crate::time::Timestamp;
use crate::trace::TraceContext;
use crate::value::{Map, Value};

/// Headers that go to the result unchanged.
const REPLY: [&str; 3] = ["correlation-id", "kafka_correlationId", "kafka_replyTopic"];
/// The longest of them that is kept, in bytes.
const MAX_REPLY: usize = 4_096;
/// The longest key of a record that may begin a run, in bytes; it is kept with the run.
const MAX_KEY: usize = 256 << 10;
/// The longest `idempotency-key` that counts.
const MAX_IDENTITY: usize = 255;

/// What was decoded elsewhere, since it needs a registry.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Decoded {
    /// The key.
    pub key: Option<Value>,
    /// The value.
    pub value: Option<Value>,
}

/// What of a record must be decoded with a registry before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Undecoded {
    /// The key's format.
    pub key: Option<Format>,
    /// The value's format.
    pub value: Option<Format>,
}

/// What of a record must be decoded with a registry before [`read`] gets it: nothing of a tombstone and of a
/// structured event, and of a key that no expression reads.
#[must_use]
pub fn undecoded(definition: &StreamDefinition, incoming: &Incoming) -> Undecoded {
    if incoming.value.is_none() {
        return Undecoded::default();
    }
    let formats = definition.format;
    let structured = matches!(cloud_event::mode(&incoming.headers), Ok(Mode::Structured) | Err(_));
    let reads_key = incoming.key.is_some() && definition.reads.contains("key");
    Undecoded {
        key: formats.key.filter(|format| format.needs_registry() && reads_key),
        value: formats.value.filter(|format| format.needs_registry() && !structured),
    }
}

/// What a record of the stream means. `decoded` holds what [`undecoded`] told.
#[must_use]
pub fn read(
    definition: &StreamDefinition,
    origin: &Origin<'_>,
    incoming: &Incoming,
    decoded: Option<Decoded>,
) -> Verdict {
    let Some(bytes) = &incoming.value else { return Verdict::Skip(Skip::Tombstone) };
    let decoded = decoded.unwrap_or_default();
    match examine(definition, origin, incoming, bytes, decoded) {
        Ok(Some(start)) => Verdict::Start(Box::new(start)),
        Ok(None) => Verdict::Skip(Skip::Filtered),
        Err(reason) => Verdict::Dead(reason),
    }
}

/// The run that a record begins; none when the filter is false.
fn examine(
    definition: &StreamDefinition,
    origin: &Origin<'_>,
    incoming: &Incoming,
    bytes: &Bytes,
    decoded: Decoded,
) -> Result<Option<StartRun>, DeadReason> {
    let key_bytes = incoming.key.as_ref().map_or(0, Bytes::len);
    if key_bytes > MAX_KEY {
        let message = format!("the key has {key_bytes} bytes; at most {MAX_KEY} are allowed");
        return Err(DeadReason::new(Stage::KeyConverter, "too_large", &message));
    }
    let (value, event) = content(definition, incoming, bytes, decoded.value)?;
    let locals = locals(definition, incoming, &value, event.as_ref(), decoded.key)?;
    let facts = no_run(origin.namespace, definition);
    let scope = Scope { input: &Value::Null, steps: &|_| None, locals: &locals, run: &facts };
    if let Some(filter) = &definition.filter
        && !filter.evaluate_bool(&scope).map_err(|failure| unevaluated(Stage::Filter, &failure))?
    {
        return Ok(None);
    }
    let input = match &definition.input {
        None => value,
        Some(template) => template.evaluate(&scope).map_err(|failure| unevaluated(Stage::Input, &failure))?,
    };
    check_size(&input).map_err(|error| error.at(Stage::Input))?;
    let coordinates = Coordinates::of(origin, &definition.name, incoming);
    let line = line(definition, incoming, &scope).map_err(|failure| unevaluated(Stage::Ordering, &failure))?;
    let shards = origin.shards;
    let (order, shard) = match &line {
        Line::None => (None, coordinates.any_shard(shards)),
        Line::Partition => (Some(coordinates.order(None)), coordinates.shard_of(None, shards)),
        Line::Of(key) => (Some(coordinates.order(Some(key))), coordinates.shard_of(Some(key), shards)),
    };
    let source = Source {
        stream: definition.name.clone(),
        revision: Arc::clone(origin.revision),
        generation: origin.generation,
        topic: Arc::clone(&incoming.topic),
        partition: incoming.partition,
        offset: incoming.offset,
        timestamp: incoming.timestamp,
        key: incoming.key.clone(),
        order,
        reply: reply(&incoming.headers),
        event: event.as_ref().and_then(cloud_event::cause),
    };
    Ok(Some(StartRun {
        id: run_id(&coordinates, origin.since, incoming.timestamp, shard),
        input,
        order,
        tags: definition.tags.clone(),
        priority: definition.priority,
        trace: trace(incoming, event.as_ref()).unwrap_or_else(|| coordinates.trace()),
        identity: identity(incoming, &source, &coordinates),
        source: Arc::new(source),
    }))
}

fn unevaluated(stage: Stage, failure: &Failure) -> DeadReason {
    DeadReason::new(stage, "expression", &failure.message)
}

/// The decoded value, and the attributes of the event that the record carries.
fn content(
    definition: &StreamDefinition,
    incoming: &Incoming,
    bytes: &Bytes,
    decoded: Option<Value>,
) -> Result<(Value, Option<Map>), DeadReason> {
    let at_value = |error: Undecodable| error.at(Stage::ValueConverter);
    let named = definition.format.value;
    let content_type = header(&incoming.headers, "content-type").map(|kind| essence(&String::from_utf8_lossy(kind)));
    let says = |kind: Option<&str>| named.or_else(|| kind.and_then(format_of)).unwrap_or(Format::Json);
    match cloud_event::mode(&incoming.headers).map_err(at_value)? {
        Mode::Structured => {
            let whole = decode::decode(Format::Json, bytes).map_err(at_value)?;
            event_content(whole, says).map_err(at_value)
        }
        Mode::Binary => {
            let event = cloud_event::binary(&incoming.headers).map_err(|error| error.at(Stage::HeaderConverter))?;
            plain_value(says(content_type.as_deref()), bytes, decoded)
                .map(|value| (value, Some(event)))
                .map_err(at_value)
        }
        Mode::Unmarked => {
            let format = says(content_type.as_deref());
            let text = named.is_none() && format == Format::Text && bytes.first() == Some(&b'{');
            if let (true, Ok(whole)) = (text, decode::decode(Format::Json, bytes))
                && cloud_event::looks_like_event(&whole)
            {
                return event_content(whole, says).map_err(at_value);
            }
            let value = plain_value(format, bytes, decoded).map_err(at_value)?;
            if format == Format::Json && cloud_event::looks_like_event(&value) {
                return event_content(value, says).map_err(at_value);
            }
            Ok((value, None))
        }
    }
}

/// The data of a structured event, and its attributes.
fn event_content(whole: Value, says: impl Fn(Option<&str>) -> Format) -> Result<(Value, Option<Map>), Undecodable> {
    let (attributes, data) = cloud_event::structured(whole)?;
    let value = match data {
        Data::Value(value) => value,
        Data::Bytes(bytes, kind) => decode::decode(says(kind.as_deref()), &bytes)?,
    };
    Ok((value, Some(attributes)))
}

fn plain_value(format: Format, bytes: &Bytes, decoded: Option<Value>) -> Result<Value, Undecodable> {
    match decoded {
        Some(value) if format.needs_registry() => check_size(&value).map(|()| value),
        _ => decode::decode(format, bytes),
    }
}

/// What the stream's expressions see, as far as they read it.
fn locals(
    definition: &StreamDefinition,
    incoming: &Incoming,
    value: &Value,
    event: Option<&Map>,
    mut decoded_key: Option<Value>,
) -> Result<Vec<(Arc<str>, Value)>, DeadReason> {
    let mut locals = Vec::with_capacity(definition.reads.len());
    for name in &definition.reads {
        let found = match &**name {
            "value" => value.clone(),
            "key" => key(definition, incoming, decoded_key.take())?,
            "headers" => headers(&incoming.headers),
            "record" => record(&incoming.topic, incoming.partition, incoming.offset, incoming.timestamp),
            "event" => event.map_or(Value::Null, |event| event.clone().into()),
            _ => continue,
        };
        locals.push((Arc::clone(name), found));
    }
    Ok(locals)
}

fn key(definition: &StreamDefinition, incoming: &Incoming, decoded: Option<Value>) -> Result<Value, DeadReason> {
    let Some(bytes) = &incoming.key else { return Ok(Value::Null) };
    let format = definition.format.key.unwrap_or(Format::Text);
    plain_value(format, bytes, decoded).map_err(|error| error.at(Stage::KeyConverter))
}

/// Headers as a map of texts; of a name that stands several times the last one.
fn headers(headers: &Headers) -> Value {
    let value = |value: &Option<Bytes>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        None => Value::Null,
    };
    headers.iter().map(|(name, bytes)| (name.as_str().into(), value(bytes))).collect::<Map>().into()
}

/// `record` in expressions.
pub(super) fn record(topic: &str, partition: i32, offset: i64, timestamp: Option<i64>) -> Value {
    let members = [
        ("topic", topic.into()),
        ("partition", Value::Int(i64::from(partition))),
        ("offset", Value::Int(offset)),
        ("timestamp", timestamp.map_or(Value::Null, Value::Int)),
    ];
    members.into_iter().map(|(name, value)| (name.into(), value)).collect::<Map>().into()
}

/// What the record's run waits for.
enum Line {
    None,
    Partition,
    Of(Bytes),
}

fn line(definition: &StreamDefinition, incoming: &Incoming, scope: &Scope<'_>) -> Result<Line, Failure> {
    Ok(match &definition.ordering {
        RecordOrder::None => Line::None,
        RecordOrder::Partition => Line::Partition,
        RecordOrder::Key => incoming.key.clone().map_or(Line::None, Line::Of),
        RecordOrder::Value(expression) => match expression.evaluate(scope)? {
            Value::Null => Line::None,
            value => Line::Of(value.to_json().to_string().into()),
        },
    })
}

/// No expression of a stream reads anything of a run before there is one: the reader of definitions sees to that.
fn no_run<'a>(namespace: &'a Namespace, definition: &'a StreamDefinition) -> RunFacts<'a> {
    RunFacts {
        id: RunId::from_bytes([0; 16]),
        started_at: Timestamp::default(),
        workflow: &definition.workflow,
        version: "",
        namespace,
        state: None,
    }
}

fn reply(headers: &Headers) -> Vec<(Arc<str>, Option<Bytes>)> {
    let last = |name: &str| headers.iter().rev().find(|(found, _)| found == name);
    let short = |value: &Option<Bytes>| value.as_ref().is_none_or(|value| value.len() <= MAX_REPLY);
    let found = REPLY.iter().filter_map(|name| last(name)).filter(|(_, value)| short(value));
    found.map(|(name, value)| (name.as_str().into(), value.clone())).collect()
}

fn trace(incoming: &Incoming, event: Option<&Map>) -> Option<TraceContext> {
    let sent = header(&incoming.headers, "traceparent").and_then(|value| decode::text(value).ok());
    let carried = || event?.get("traceparent")?.as_str();
    sent.and_then(TraceContext::parse).or_else(|| carried().and_then(TraceContext::parse))
}

fn identity(incoming: &Incoming, source: &Source, coordinates: &Coordinates<'_>) -> Option<[u8; 16]> {
    match (header(&incoming.headers, "idempotency-key"), &source.event) {
        (Some(key), _) if (1..=MAX_IDENTITY).contains(&key.len()) => Some(coordinates.identity(&[b"key", key])),
        (_, Some(event)) => Some(coordinates.identity(&[b"event", event.source.as_bytes(), event.id.as_bytes()])),
        _ => None,
    }
}

impl StartRun {
    /// The run and its first events, submitted at this time to the workflow that the stream names. Where the workflow's
    /// limits count runs by a key of their own, a run that stands in an order stays on the shard of its order.
    ///
    /// # Errors
    /// When the input does not fit the workflow, so that the record becomes a dead letter.
    pub fn begin(
        self,
        namespace: &Namespace,
        workflow: &Arc<Workflow>,
        at: Timestamp,
        shards: u16,
    ) -> Result<(Run, Vec<Event>), DeadReason> {
        let submission = Submission {
            namespace: namespace.clone(),
            principal: Principal::System,
            workflow: workflow.name.clone(),
            version: workflow.version.clone(),
            input: self.input,
            tags: self.tags,
            priority: self.priority,
            trace: self.trace,
            at,
            source: Some(self.source),
        };
        Run::submit(self.id, workflow, submission, shards).map_err(|mistakes| {
            let words: Vec<String> = mistakes.iter().take(5).map(ToString::to_string).collect();
            let message = format!("the input does not fit the workflow '{}': {}", workflow.name, words.join("; "));
            DeadReason::new(Stage::Schema, "unfit_input", &message)
        })
    }
}
