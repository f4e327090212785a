//! Reads `output` of a stream: which ends of its runs become records, of which topic, and how those look.
//!
//! Never evaluates. Used by the reader of streams.

use std::sync::Arc;

use super::topics::{self, Topics};
use crate::definition::diagnostic::Diagnostics;
use crate::definition::fields::{Fields, choice};
use crate::definition::node::{Content, Entry, Node};
use crate::definition::references::{Site, check_visible};
use crate::definition::workflow::template;
use crate::expression::Template;
use crate::expression::wording::shorten;

pub(in crate::definition) const OUTPUT_KEYS: [&str; 6] = ["topic", "key", "headers", "value", "on", "delivery"];
pub(in crate::definition) const ENDS: [(&str, RunEnd); 4] = [
    ("succeeded", RunEnd::Succeeded),
    ("failed", RunEnd::Failed),
    ("timed_out", RunEnd::TimedOut),
    ("cancelled", RunEnd::Cancelled),
];
pub(in crate::definition) const DELIVERIES: [(&str, Delivery); 2] =
    [("idempotent", Delivery::Idempotent), ("transactional", Delivery::Transactional)];

/// Headers whose values follow from the run, so that nobody can write them.
const RESERVED: [&str; 7] =
    ["ce_specversion", "ce_id", "ce_source", "ce_time", "traceparent", "event-id", "motet-output-error"];
/// Most headers of a record.
const MAX_HEADERS: usize = 100;

/// What the expressions of `output` see.
const NAMES: [&str; 7] = ["output", "error", "run", "input", "key", "record", "event"];

/// How a run may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// With an output.
    Succeeded,
    /// With a failure.
    Failed,
    /// Because its time was over.
    TimedOut,
    /// By request.
    Cancelled,
}

impl RunEnd {
    /// The name in definitions, and the last part of the type of the record's event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ENDS.iter().find(|(_, end)| *end == self).map_or("failed", |(name, _)| name)
    }
}

/// How often a result may be seen by who reads the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// At least once; a repetition after a crash has the same event id.
    Idempotent,
    /// Once, for readers of committed records.
    Transactional,
}

/// Where results go.
#[derive(Debug)]
pub struct StreamOutput {
    /// The topic.
    pub topic: String,
    /// The record's key; that of the record that began the run where nothing is written.
    pub key: Option<Template>,
    /// Further headers, sorted by name.
    pub headers: Vec<(Arc<str>, Template)>,
    /// The record's value; the run's output or error where nothing is written.
    pub value: Option<Template>,
    /// Which ends become records.
    pub on: Vec<RunEnd>,
    /// How often a result may be seen.
    pub delivery: Delivery,
}

pub(super) fn read(owner: &Fields<'_>, topics: Option<&Topics>, out: &mut Diagnostics<'_>) -> Option<StreamOutput> {
    let entry = owner.entry("output")?;
    let hint = |key: &str| matches!(key, "with" | "data").then(|| "did you mean 'value'?".to_owned());
    let fields = Fields::open(&entry.value, "'output'", entry.key_place, &OUTPUT_KEYS, hint, out)?;
    let topic = fields.required("topic", "'output'", "such as {topic: triaged}", out);
    let topic = topic.and_then(|node| topics::target(node, topics, out));
    let mut sites = vec![];
    let key = fields.get("key").and_then(|node| compiled(node, &mut sites, out));
    let value = fields.get("value").and_then(|node| compiled(node, &mut sites, out));
    let headers = fields.entry("headers").map_or_else(Vec::new, |entry| headers(entry, &mut sites, out));
    check_visible(&sites, &NAMES, hint_of, out);
    let on = on(&fields, out);
    let delivery = fields.choice("delivery", &DELIVERIES, out).unwrap_or(Delivery::Idempotent);
    Some(StreamOutput { topic: topic?, key, headers, value, on, delivery })
}

/// Why names that other expressions see are not seen at the end of a run.
fn hint_of(name: &str) -> Option<&'static str> {
    match name {
        "value" => Some("the record's value is not kept; what the run took of it is 'input'"),
        "headers" => Some("the record's headers are not kept; take what is needed into 'input'"),
        "steps" => Some("take what is needed into the workflow's output, which is 'output'"),
        _ => None,
    }
}

fn compiled<'n>(node: &'n Node, sites: &mut Vec<Site<'n>>, out: &mut Diagnostics<'_>) -> Option<Template> {
    let template = template(node, out)?;
    sites.extend(Site::of_template(node, &template, false));
    Some(template)
}

fn headers<'n>(entry: &'n Entry, sites: &mut Vec<Site<'n>>, out: &mut Diagnostics<'_>) -> Vec<(Arc<str>, Template)> {
    let Content::Map(entries) = &entry.value.content else {
        let message = format!("'headers' must be a map of headers by name, not {}", entry.value.kind());
        out.advise(entry.value.place, "wrong-type", message, "such as {kind: '${ output.kind }'}");
        return vec![];
    };
    if entries.len() > MAX_HEADERS {
        let message = format!("'headers' may have at most {MAX_HEADERS} entries, not {}", entries.len());
        out.report(entry.value.place, "out-of-range", message);
    }
    let mut headers = vec![];
    for entry in entries.iter().take(MAX_HEADERS) {
        let shown = shorten(&entry.key, 60);
        if RESERVED.contains(&entry.key.as_str()) {
            let message = format!("the header '{shown}' follows from the run and cannot be written");
            out.report(entry.key_place, "reserved-name", message);
        } else if entry.key.is_empty() || entry.key.len() > 249 {
            out.report(entry.key_place, "bad-name", "the name of a header must have 1 to 249 bytes");
        } else if let Some(template) = compiled(&entry.value, sites, out) {
            headers.push((entry.key.as_str().into(), template));
        }
    }
    // Stored documents lose the order that was written.
    headers.sort_by(|(one, _): &(Arc<str>, Template), (other, _)| one.cmp(other));
    headers
}

fn on(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Vec<RunEnd> {
    let Some(node) = fields.get("on") else { return vec![RunEnd::Succeeded, RunEnd::Failed, RunEnd::TimedOut] };
    let mut ends = vec![];
    for (_, item) in fields.texts("on", out) {
        let Some(end) = choice(item, "end of a run", &ENDS, out) else { continue };
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    if matches!(&node.content, Content::List(items) if items.is_empty()) {
        out.advise(node.place, "out-of-range", "'on' names no end, so there would be no results", "remove 'output'");
    }
    ends
}
