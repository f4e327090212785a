//! Reads `kind: Stream`: which records begin runs of which workflow, and where their results go.
//!
//! Never reads a record and never checks the workflow's name: it may be defined later or elsewhere. What the parts
//! mean for a record is said in `crate::stream`. Used by the document reader.

mod output;
mod topics;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use output::{Delivery, RunEnd, StreamOutput};
pub use topics::{TopicPattern, Topics};

pub(super) use output::{DELIVERIES, ENDS, OUTPUT_KEYS};
pub(super) use topics::TOPIC;

use super::diagnostic::Diagnostics;
use super::fields::{Fields, choice};
use super::limits::{self, StreamLimits};
use super::node::{Content, Node};
use super::references::{Site, check_visible};
use super::step::expression;
use super::workflow::template;
use crate::expression::wording::{nearest, shorten};
use crate::expression::{Expression, Template};
use crate::id::{Name, Namespace};
use crate::time::Timestamp;

pub(super) const KEYS: [&str; 22] = [
    "apiVersion",
    "kind",
    "name",
    "description",
    "topics",
    "pattern",
    "group",
    "workflow",
    "version",
    "format",
    "input",
    "filter",
    "ordering",
    "tags",
    "priority",
    "start",
    "protocol",
    "static_membership",
    "limits",
    "dead_letter",
    "output",
    "paused",
];
pub(super) const FORMAT_KEYS: [&str; 2] = ["value", "key"];
pub(super) const DEAD_LETTER_KEYS: [&str; 2] = ["topic", "headers"];
pub(super) const FORMATS: [(&str, Format); 6] = [
    ("json", Format::Json),
    ("text", Format::Text),
    ("bytes", Format::Bytes),
    ("avro", Format::Avro),
    ("protobuf", Format::Protobuf),
    ("json-schema", Format::JsonSchema),
];
pub(super) const PROTOCOLS: [(&str, GroupProtocol); 2] =
    [("classic", GroupProtocol::Classic), ("consumer", GroupProtocol::Consumer)];
pub(super) const LETTER_HEADERS: [(&str, LetterHeaders); 3] =
    [("connect", LetterHeaders::Connect), ("spring", LetterHeaders::Spring), ("both", LetterHeaders::Both)];
pub(super) const ORDERINGS: [&str; 3] = ["none", "key", "partition"];

/// What the expressions of `input`, `filter` and `ordering` see.
pub(crate) const RECORD_NAMES: [&str; 5] = ["value", "key", "headers", "record", "event"];

/// How bytes of a record become a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON text.
    Json,
    /// UTF-8 text.
    Text,
    /// A UINT8 tensor.
    Bytes,
    /// Avro, by a schema of the registry.
    Avro,
    /// Protobuf, by a schema of the registry.
    Protobuf,
    /// JSON behind the registry's schema number.
    JsonSchema,
}

impl Format {
    /// Whether a schema of the registry is needed, so that the value is decoded before its record is read.
    #[must_use]
    pub fn needs_registry(self) -> bool {
        matches!(self, Self::Avro | Self::Protobuf | Self::JsonSchema)
    }

    /// The name in definitions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("json", |(name, _)| name)
    }
}

/// The formats of a stream's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats {
    /// Of values; none where nothing is written: what a record's content type says, else JSON.
    pub value: Option<Format>,
    /// Of keys; none where nothing is written, which means text.
    pub key: Option<Format>,
}

/// Which runs of a stream wait for each other, each for the end of the one before it.
#[derive(Debug)]
pub enum RecordOrder {
    /// None of them.
    None,
    /// Those of one record key.
    Key,
    /// Those of one partition.
    Partition,
    /// Those of one partition for which this gives the same value; a record for which it gives null waits for none.
    Value(Box<Expression>),
}

/// Where reading begins in a partition that was never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the topic keeps.
    Earliest,
    /// After the newest record.
    Latest,
    /// At the first record that is not older than this.
    At(Timestamp),
}

/// How the members of a consumer group agree on who reads which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Among themselves, cooperatively.
    Classic,
    /// By the broker (KIP-848).
    Consumer,
}

/// Whose names the headers have that tell what was wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterHeaders {
    /// Those of Kafka Connect.
    Connect,
    /// Those of Spring Kafka.
    Spring,
    /// Both.
    Both,
}

/// What becomes of records that begin no run because something is wrong with them. The store keeps them in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterPolicy {
    /// Where they are sent besides.
    pub topic: Option<String>,
    /// Whose names the headers have.
    pub headers: LetterHeaders,
}

/// Records that begin runs.
#[derive(Debug)]
pub struct StreamDefinition {
    /// Name of the stream.
    pub name: Name,
    /// Where the records are.
    pub topics: Topics,
    /// Consumer group; see [`StreamDefinition::group`].
    pub group: Option<String>,
    /// Workflow by name.
    pub workflow: Name,
    /// Version; the newest at each record where none is named.
    pub version: Option<String>,
    /// How bytes become values.
    pub format: Formats,
    /// The input of each run; the record's value where nothing is written.
    pub input: Option<Template>,
    /// Which records begin a run; all of them where nothing is written.
    pub filter: Option<Expression>,
    /// Which runs wait for each other.
    pub ordering: RecordOrder,
    /// Labels of each run.
    pub tags: Vec<String>,
    /// Higher goes first where calls wait for a model; 0 is normal.
    pub priority: i8,
    /// Where reading begins.
    pub start: Start,
    /// How the group agrees.
    pub protocol: GroupProtocol,
    /// Whether a node keeps its partitions over a short restart.
    pub static_membership: bool,
    /// How fast records are read.
    pub limits: StreamLimits,
    /// What becomes of records with mistakes.
    pub dead_letter: LetterPolicy,
    /// Where results go; nowhere where nothing is written.
    pub output: Option<StreamOutput>,
    /// Whether it stands still.
    pub paused: bool,
    /// The document as JSON.
    pub document: serde_json::Value,
    /// The names that the expressions read of a record; what nobody reads is not made.
    pub(crate) reads: BTreeSet<Arc<str>>,
}

impl StreamDefinition {
    /// The consumer group: the one that is written, else `motet.<namespace>.<name>`.
    #[must_use]
    pub fn group(&self, namespace: &Namespace) -> String {
        self.group.clone().unwrap_or_else(|| format!("motet.{namespace}.{}", self.name))
    }
}

pub(super) fn read(node: &Node, out: &mut Diagnostics<'_>) -> Option<StreamDefinition> {
    let fields = Fields::open(node, "a stream", node.place, &KEYS, misnamed, out)?;
    fields.required("name", "a stream", "such as 'name: orders'", out);
    fields.required("workflow", "a stream", "the name of the workflow to run", out);
    fields.text("description", out);
    let (name, workflow) = (fields.name("name", out), fields.name("workflow", out));
    let version = fields.get("version").map(|_| fields.version(out));
    let topics = topics::read(&fields, out);
    let group = fields.get("group").and_then(|node| topics::name(node, "group", out));
    let format = format(&fields, out);
    let mut sites = vec![];
    let input = fields.get("input").and_then(|node| {
        let template = template(node, out)?;
        sites.extend(Site::of_template(node, &template, false));
        Some(template)
    });
    let filter = fields.get("filter").and_then(|node| {
        let (filter, offset) = expression(node, "filter", out)?;
        sites.push(Site::new(node, offset, &filter, false));
        Some(filter)
    });
    let ordering = ordering(&fields, &mut sites, out);
    check_visible(&sites, &RECORD_NAMES, record_hint, out);
    let reads = reads(input.as_ref(), filter.as_ref(), &ordering);
    let priority = fields.integer("priority", -100..=100, out).unwrap_or(0);
    let tags = fields.texts("tags", out).into_iter().map(|(tag, _)| tag.to_owned()).collect();
    let start = start(&fields, out);
    let protocol = fields.choice("protocol", &PROTOCOLS, out).unwrap_or(GroupProtocol::Classic);
    let static_membership = fields.boolean("static_membership", out).unwrap_or(false);
    let limits = limits::of_stream(&fields, out);
    let dead_letter = dead_letter(&fields, topics.as_ref(), out);
    let output = output::read(&fields, topics.as_ref(), out);
    Some(StreamDefinition {
        name: name?,
        topics: topics?,
        group,
        workflow: workflow?,
        version,
        format,
        input,
        filter,
        ordering,
        tags,
        priority: i8::try_from(priority).ok()?,
        start,
        protocol,
        static_membership,
        limits,
        dead_letter,
        output,
        paused: fields.boolean("paused", out).unwrap_or(false),
        document: node.to_json(),
        reads,
    })
}

/// Explains keys that other systems use.
fn misnamed(key: &str) -> Option<String> {
    match key {
        "topic" => Some("did you mean 'topics'?".into()),
        "with" => Some("did you mean 'input'?".into()),
        "if" | "when" => Some("did you mean 'filter'?".into()),
        "dlq" | "dead_letter_queue" => Some("did you mean 'dead_letter'?".into()),
        "offset" | "from" | "auto_offset_reset" => Some("did you mean 'start'?".into()),
        "result" | "results" | "sink" => Some("did you mean 'output'?".into()),
        "concurrency" | "rate" => Some("put it under 'limits'".into()),
        _ => None,
    }
}

/// Why names that other expressions see are not seen before a run begins.
fn record_hint(name: &str) -> Option<&'static str> {
    match name {
        "input" => Some("the record's decoded value is 'value'"),
        "run" | "steps" | "output" | "error" => Some("a record is read before its run begins"),
        "offset" | "partition" | "topic" | "timestamp" => Some("it is a member of 'record'"),
        _ => None,
    }
}

fn reads(input: Option<&Template>, filter: Option<&Expression>, ordering: &RecordOrder) -> BTreeSet<Arc<str>> {
    let ordering = match ordering {
        RecordOrder::Value(expression) => Some(&**expression),
        _ => None,
    };
    let expressions = filter.into_iter().chain(ordering).map(Expression::references);
    input.map(Template::references).into_iter().chain(expressions).flat_map(|it| it.locals.iter().cloned()).collect()
}

fn format(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Formats {
    let Some(entry) = fields.entry("format") else { return Formats::default() };
    if entry.value.as_map().is_none() {
        return Formats { value: choice(&entry.value, "format", &FORMATS, out), key: None };
    }
    let Some(fields) = Fields::open(&entry.value, "'format'", entry.key_place, &FORMAT_KEYS, |_| None, out) else {
        return Formats::default();
    };
    let mut of = |key| fields.get(key).and_then(|node| choice(node, "format", &FORMATS, out));
    Formats { value: of("value"), key: of("key") }
}

fn ordering<'n>(fields: &Fields<'n>, sites: &mut Vec<Site<'n>>, out: &mut Diagnostics<'_>) -> RecordOrder {
    let (Some(node), Some(text)) = (fields.get("ordering"), fields.text("ordering", out)) else {
        return RecordOrder::None;
    };
    match text {
        "none" => RecordOrder::None,
        "key" => RecordOrder::Key,
        "partition" => RecordOrder::Partition,
        text if text.contains("${") => match expression(node, "ordering", out) {
            Some((expression, offset)) => {
                sites.push(Site::new(node, offset, &expression, false));
                RecordOrder::Value(Box::new(expression))
            }
            None => RecordOrder::None,
        },
        other => {
            let advice = match nearest(other, ORDERINGS) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("one of {}, or an expression such as ${{ value.customer }}", ORDERINGS.join(", ")),
            };
            out.advise(node.place, "unknown-name", format!("there is no ordering '{}'", shorten(other, 40)), advice);
            RecordOrder::None
        }
    }
}

fn start(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Start {
    let (Some(node), Some(text)) = (fields.get("start"), fields.text("start", out)) else { return Start::Earliest };
    match (text, Timestamp::from_rfc3339(text)) {
        ("earliest", _) => Start::Earliest,
        ("latest", _) => Start::Latest,
        (_, Some(at)) => Start::At(at),
        (other, None) => {
            let advice = match nearest(other, ["earliest", "latest"]) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "earliest, latest, or a time with its offset such as \"2026-12-24T09:00:00Z\"".to_owned(),
            };
            out.advise(node.place, "bad-time", format!("'{}' is no place to start", shorten(other, 40)), advice);
            Start::Earliest
        }
    }
}

fn dead_letter(owner: &Fields<'_>, topics: Option<&Topics>, out: &mut Diagnostics<'_>) -> LetterPolicy {
    let nothing = LetterPolicy { topic: None, headers: LetterHeaders::Connect };
    let Some(entry) = owner.entry("dead_letter") else { return nothing };
    if let Content::Text(topic) = &entry.value.content {
        let advice = format!("write {{topic: {}}}", shorten(topic, 40));
        out.advise(entry.value.place, "wrong-type", "'dead_letter' must be a map, not a text", advice);
        return nothing;
    }
    let place = entry.key_place;
    let Some(fields) = Fields::open(&entry.value, "'dead_letter'", place, &DEAD_LETTER_KEYS, |_| None, out) else {
        return nothing;
    };
    let topic = fields.get("topic").and_then(|node| topics::target(node, topics, out));
    let headers = fields.get("headers").and_then(|node| choice(node, "family of headers", &LETTER_HEADERS, out));
    LetterPolicy { topic, headers: headers.unwrap_or(nothing.headers) }
}
