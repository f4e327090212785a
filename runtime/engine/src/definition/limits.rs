//! Reads `limits`: how many at one time, how many within a span, and which of them are counted together.
//!
//! Never enforces: whoever begins runs or calls does. Used by the readers of workflows, models and streams.

use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::node::Node;
use super::step::expression;
use crate::expression::Expression;
use crate::expression::wording::shorten;
use crate::time::span;

pub(super) const KEYS: [&str; 2] = ["concurrency", "rate"];
pub(super) const WORKFLOW_KEYS: [&str; 3] = ["concurrency", "rate", "key"];
pub(super) const STREAM_KEYS: [&str; 1] = ["rate"];
pub(super) const RATE_KEYS: [&str; 2] = ["count", "per"];
pub(super) const RATE_TEXT: &str = "^[0-9]{1,7}/([0-9.]*(ms|s|m|h|d))+$";
pub(super) const MOST: i64 = 1_000_000;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

/// How much may go on at one time and begin within a span; nothing is limited where nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most that may be under way at one time, at least 1.
    pub concurrency: Option<u32>,
    /// Most that may begin within a span.
    pub rate: Option<Rate>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.concurrency.is_none() && self.rate.is_none()
    }
}

/// So many within a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// The span, 100 milliseconds to 31 days.
    pub per: Duration,
}

/// The limits of a workflow's runs.
#[derive(Debug, Default)]
pub struct WorkflowLimits {
    /// The limits, of all runs or of those with one key.
    pub limits: Limits,
    /// Runs whose key is the same are counted together; reads the run's input only. Without it all of them are.
    pub key: Option<Expression>,
}

/// How fast a stream's records begin runs, and how many of those may be unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamLimits {
    /// Most records within a span that may begin runs.
    pub rate: Option<Rate>,
}

/// The limits of a model.
pub(super) fn of_model(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> Limits {
    let Some(entry) = owner.entry("limits") else { return Limits::default() };
    let hint = |key: &str| (key == "key").then(|| "only a workflow's limits have a key".to_owned());
    match Fields::open(&entry.value, "'limits'", entry.key_place, &KEYS, hint, out) {
        Some(fields) => bounds(&fields, out),
        None => Limits::default(),
    }
}

/// The limits of a workflow.
pub(super) fn of_workflow(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> WorkflowLimits {
    let Some(entry) = owner.entry("limits") else { return WorkflowLimits::default() };
    let Some(fields) = Fields::open(&entry.value, "'limits'", entry.key_place, &WORKFLOW_KEYS, |_| None, out) else {
        return WorkflowLimits::default();
    };
    let limits = bounds(&fields, out);
    if let (Some(entry), None, None) = (fields.entry("key"), fields.get("concurrency"), fields.get("rate")) {
        let message = "'key' has no meaning without 'concurrency' or 'rate'";
        out.advise(entry.key_place, "missing-key", message, "add one of them or remove it");
    }
    WorkflowLimits { limits, key: fields.get("key").and_then(|node| key(node, out)) }
}

/// The limits of a stream.
pub(super) fn of_stream(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> StreamLimits {
    let Some(entry) = owner.entry("limits") else { return StreamLimits::default() };
    let hint = |key: &str| (key == "concurrency").then(|| "write it under 'limits' of the workflow".to_owned());
    let Some(fields) = Fields::open(&entry.value, "'limits'", entry.key_place, &STREAM_KEYS, hint, out) else {
        return StreamLimits::default();
    };
    StreamLimits { rate: rate(&fields, out) }
}

fn bounds(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Limits {
    let concurrency = fields.integer("concurrency", 1..=MOST, out).and_then(|most| u32::try_from(most).ok());
    Limits { concurrency, rate: rate(fields, out) }
}

fn rate(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> Option<Rate> {
    let entry = owner.entry("rate")?;
    if let Some(text) = entry.value.as_text() {
        return short_rate(text, &entry.value, out);
    }
    let fields = Fields::open(&entry.value, "'rate'", entry.key_place, &RATE_KEYS, |_| None, out)?;
    let example = "such as rate: {count: 100, per: 1m}";
    fields.required("count", "'rate'", example, out);
    fields.required("per", "'rate'", example, out);
    let count = fields.integer("count", 1..=MOST, out);
    let per = fields.duration("per", SHORTEST..=LONGEST, out);
    Some(Rate { count: u32::try_from(count?).ok()?, per: per? })
}

/// A rate such as `500/s` or `100/10s`.
fn short_rate(text: &str, node: &Node, out: &mut Diagnostics<'_>) -> Option<Rate> {
    let read = text.split_once('/').and_then(|(count, per)| {
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        Some((count.trim().parse::<u32>().ok()?, span::parse(&per)?))
    });
    let Some((count, per)) = read else {
        let message = format!("'rate' must be a count and a span, not '{}'", shorten(text, 40));
        out.advise(node.place, "bad-rate", message, "such as 500/s, 100/10s or {count: 100, per: 1m}");
        return None;
    };
    if !(1..=MOST).contains(&i64::from(count)) || !(SHORTEST..=LONGEST).contains(&per) {
        let message = format!("'rate' must be 1 to {MOST} within {SHORTEST:?} to {LONGEST:?}, not '{text}'");
        out.report(node.place, "out-of-range", message);
        return None;
    }
    Some(Rate { count, per })
}

fn key(node: &Node, out: &mut Diagnostics<'_>) -> Option<Expression> {
    let (expression, offset) = expression(node, "key", out)?;
    let reads = expression.references();
    if reads.steps.is_empty() && !reads.run && reads.locals.is_empty() && reads.input {
        return Some(expression);
    }
    let place = out.inside(node, offset);
    let message = "'key' is evaluated before the run begins and must read the run's input, and nothing else";
    out.advise(place, "bad-reference", message, "such as key: \"${ input.customer }\"");
    None
}
