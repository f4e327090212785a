//! Reads one step of a workflow: when it runs, over what, how often, and what then.
//!
//! What the step calls is read beside this file; how steps depend on each other is found out by the workflow reader.
//! Never resolves names.

use std::sync::Arc;
use std::time::Duration;

use super::call;
use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::node::{Content, Entry, Node, Place};
use super::references::Site;
use super::waiting;
use super::workflow::template;
use super::{Fallback, ForEach, RetryPolicy, Step};
use crate::expression::Expression;
use crate::expression::wording::{nearest, shorten};
use crate::failure::FailureClass;
use crate::time::span;

/// The keys that every step may have.
pub(super) const KEYS: [&str; 10] =
    ["call", "needs", "if", "for_each", "as", "max_concurrency", "retry", "timeout", "fallback", "with"];
pub(super) const RETRY_KEYS: [&str; 3] = ["max_attempts", "backoff", "on"];
pub(super) const BACKOFF_KEYS: [&str; 4] = ["initial", "factor", "max", "jitter"];
pub(super) const FALLBACK_KEYS: [&str; 3] = ["output", "model", "with"];
/// The variable of a `for_each` without `as`.
pub(super) const DEFAULT_VARIABLE: &str = "item";
pub(super) const DEFAULT_CONCURRENCY: u32 = 16;
const RESERVED: [&str; 8] = ["input", "steps", "run", "index", "true", "false", "null", "in"];
const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A step as far as it could be read by itself.
pub(super) struct Draft<'n> {
    pub(super) name: &'n str,
    pub(super) place: Place,
    pub(super) needs: Vec<(&'n str, &'n Node)>,
    pub(super) sites: Vec<Site<'n>>,
    pub(super) variable: Option<Arc<str>>,
    /// Without its needs; none when it has mistakes.
    pub(super) step: Option<Step>,
}

pub(super) fn read<'n>(entry: &'n Entry, out: &mut Diagnostics<'_>) -> Draft<'n> {
    let mut draft =
        Draft { name: &entry.key, place: entry.key_place, needs: vec![], sites: vec![], variable: None, step: None };
    check_name(entry, out);
    let kind = call::kind(&entry.value);
    let owner = format!("the step '{}'", shorten(&entry.key, 60));
    // Of an unknown call every key may be meant, so only what no call knows is told.
    let own = call::KINDS.iter().filter(|other| kind.is_none_or(|kind| kind.name == other.name));
    let known: Vec<&str> = KEYS.into_iter().chain(own.flat_map(|kind| kind.keys).copied()).collect();
    let hint = |key: &str| call::misplaced(key, kind);
    let Some(fields) = Fields::open(&entry.value, &owner, entry.key_place, &known, hint, out) else { return draft };
    draft.needs = fields.texts("needs", out);
    let condition = condition(&fields, &mut draft, out);
    let for_each = for_each(&fields, &mut draft, out);
    let retry = retry(&fields, out);
    let is_signal = kind.is_some_and(|kind| kind.name == "signal");
    let timeout = fields.duration("timeout", MILLISECOND..=if is_signal { span::LONGEST } else { 30 * DAY }, out);
    let fallback = fallback(&fields, &mut draft, out);
    if is_signal {
        waiting::check_patience(&fields, fallback.as_ref(), out);
    }
    let (call, sites) = call::read(&fields, kind, &entry.key, &owner, out);
    draft.sites.extend(sites);
    draft.step = call.map(|call| Step {
        name: entry.key.as_str().into(),
        needs: vec![],
        condition,
        for_each,
        call,
        retry,
        timeout,
        fallback,
    });
    draft
}

fn is_identifier(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !text.as_bytes()[0].is_ascii_digit()
}

fn check_name(entry: &Entry, out: &mut Diagnostics<'_>) {
    let name = entry.key.as_str();
    let message = format!("'{}' is no name for a step", shorten(name, 70));
    if matches!(name, "true" | "false" | "null" | "in") {
        out.advise(entry.key_place, "bad-name", message, "this word has a meaning in expressions");
    } else if !is_identifier(name) {
        let proposal: String =
            name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let advice = if is_identifier(&proposal) { format!("write '{proposal}'") } else { String::new() };
        let message = format!("{message}: use 1 to 63 of a-z, 0-9 and '_', starting with a letter or '_'");
        out.advise(entry.key_place, "bad-name", message, advice);
    }
}

/// An expression that may be wrapped in `${ }`, and where its source begins inside the text.
pub(super) fn expression(node: &Node, key: &str, out: &mut Diagnostics<'_>) -> Option<(Expression, usize)> {
    let truth;
    let text = match &node.content {
        Content::Text(text) => text.as_str(),
        Content::Bool(value) => {
            truth = value.to_string();
            &truth
        }
        _ => {
            let message = format!("'{key}' must be an expression, not {}", node.kind());
            out.advise(node.place, "wrong-type", message, format!("such as {key}: \"${{ input.x }}\""));
            return None;
        }
    };
    let leading = text.len() - text.trim_start().len();
    let (source, offset) = match text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(inner) => (inner, leading + 2),
        None => (text, 0),
    };
    match Expression::parse(source) {
        Ok(expression) => Some((expression, offset)),
        Err(error) => {
            let blank = source.len() - source.trim_start().len();
            let place = out.inside(node, offset + error.offset.unwrap_or(blank));
            out.report(place, "bad-expression", error.message);
            None
        }
    }
}

fn condition<'n>(fields: &Fields<'n>, draft: &mut Draft<'n>, out: &mut Diagnostics<'_>) -> Option<Expression> {
    let node = fields.get("if")?;
    let (expression, offset) = expression(node, "if", out)?;
    draft.sites.push(Site::new(node, offset, &expression, false));
    Some(expression)
}

fn for_each<'n>(fields: &Fields<'n>, draft: &mut Draft<'n>, out: &mut Diagnostics<'_>) -> Option<ForEach> {
    let Some(node) = fields.get("for_each") else {
        for key in ["as", "max_concurrency"] {
            if let Some(entry) = fields.entry(key) {
                let message = format!("'{key}' has no meaning without 'for_each'");
                out.advise(entry.key_place, "missing-key", message, "add 'for_each' or remove it");
            }
        }
        return None;
    };
    let variable = variable(fields, out);
    draft.variable = Some(Arc::clone(&variable));
    let most = fields.integer("max_concurrency", 1..=10_000, out);
    let max_concurrency = most.and_then(|most| u32::try_from(most).ok()).unwrap_or(DEFAULT_CONCURRENCY);
    let (items, offset) = expression(node, "for_each", out)?;
    draft.sites.push(Site::new(node, offset, &items, false));
    Some(ForEach { items, variable, max_concurrency })
}

fn variable(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Arc<str> {
    let Some(text) = fields.text("as", out) else { return DEFAULT_VARIABLE.into() };
    if let Some(node) = fields.get("as") {
        if RESERVED.contains(&text) {
            let message = format!("the variable '{text}' hides what expressions already call '{text}'");
            out.advise(node.place, "reserved-name", message, "choose another name, such as 'item'");
        } else if !is_identifier(text) {
            let message = format!("'{}' is no name for a variable", shorten(text, 70));
            out.advise(node.place, "bad-name", message, "use a-z, 0-9 and '_', starting with a letter or '_'");
        }
    }
    text.into()
}

fn retry(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let Some(entry) = fields.entry("retry") else { return policy };
    let hint = |key: &str| match key {
        "attempts" | "limit" | "max" | "retries" => Some("did you mean 'max_attempts'?".to_owned()),
        _ => None,
    };
    let Some(fields) = Fields::open(&entry.value, "'retry'", entry.key_place, &RETRY_KEYS, hint, out) else {
        return policy;
    };
    if let Some(attempts) = fields.integer("max_attempts", 1..=100, out) {
        policy.max_attempts = u32::try_from(attempts).unwrap_or(policy.max_attempts);
    }
    backoff(&fields, &mut policy, out);
    if fields.get("on").is_some() {
        policy.on = fields.texts("on", out).into_iter().filter_map(|(text, node)| class(text, node, out)).collect();
        policy.on.sort();
        policy.on.dedup();
    }
    policy
}

fn backoff(owner: &Fields<'_>, policy: &mut RetryPolicy, out: &mut Diagnostics<'_>) {
    let Some(entry) = owner.entry("backoff") else { return };
    let Some(fields) = Fields::open(&entry.value, "'backoff'", entry.key_place, &BACKOFF_KEYS, |_| None, out) else {
        return;
    };
    let initial = fields.duration("initial", MILLISECOND..=DAY, out);
    let max = fields.duration("max", MILLISECOND..=DAY, out);
    policy.initial = initial.unwrap_or(policy.initial);
    policy.max = max.unwrap_or_else(|| policy.max.max(policy.initial));
    if let (Some(initial), Some(max), Some(node)) = (initial, max, fields.get("max"))
        && initial > max
    {
        out.report(node.place, "out-of-range", format!("'max' ({max:?}) is shorter than 'initial' ({initial:?})"));
    }
    if let Some(node) = fields.get("factor") {
        let factor = match node.content {
            Content::Int(number) => Some(number as f64),
            Content::Float(number) => Some(number),
            _ => None,
        };
        match factor {
            Some(factor) if (1.0..=100.0).contains(&factor) => policy.factor = factor,
            Some(_) => out.report(node.place, "out-of-range", "'factor' must be 1 to 100"),
            None => out.report(node.place, "wrong-type", format!("'factor' must be a number, not {}", node.kind())),
        }
    }
    if let (Some(jitter), Some(node)) = (fields.text("jitter", out), fields.get("jitter"))
        && jitter != "full"
    {
        let message = format!("there is no jitter '{}'", shorten(jitter, 40));
        out.advise(node.place, "unknown-name", message, "write 'full', which is also the default");
    }
}

fn class(text: &str, node: &Node, out: &mut Diagnostics<'_>) -> Option<FailureClass> {
    let names = FailureClass::RETRYABLE.map(FailureClass::as_str);
    let found = FailureClass::RETRYABLE.into_iter().find(|class| class.as_str() == text);
    if found.is_none() {
        let never = match text {
            "invalid" => Some("the request itself is wrong, so trying again cannot help"),
            "denied" => Some("what is not allowed stays so when tried again"),
            "not_found" => Some("what does not exist stays so when tried again"),
            _ => None,
        };
        match never {
            Some(reason) => {
                out.advise(node.place, "never-retried", format!("'{text}' failures are never retried"), reason);
            }
            None => {
                let advice = match nearest(text, names) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("one of {}", names.join(", ")),
                };
                let message = format!("there is no failure class '{}'", shorten(text, 40));
                out.advise(node.place, "unknown-name", message, advice);
            }
        }
    }
    found
}

fn fallback<'n>(fields: &Fields<'n>, draft: &mut Draft<'n>, out: &mut Diagnostics<'_>) -> Option<Fallback> {
    let entry = fields.entry("fallback")?;
    let fields = Fields::open(&entry.value, "'fallback'", entry.key_place, &FALLBACK_KEYS, |_| None, out)?;
    let mut compiled = |key: &str, out: &mut Diagnostics<'_>| {
        let node = fields.get(key)?;
        let template = template(node, out)?;
        draft.sites.extend(Site::of_template(node, &template, true));
        Some(template)
    };
    // An output of null is a value, so the key counts and not what is under it.
    let output = entry.value.entry("output");
    match (output, fields.get("model")) {
        (Some(_), None) => {
            if let Some(with) = fields.entry("with") {
                out.report(with.key_place, "misplaced-key", "'with' belongs to a fallback model");
            }
            match fields.get("output") {
                Some(_) => compiled("output", out).map(Fallback::Output),
                None => Some(Fallback::Output(crate::expression::Template::constant(crate::value::Value::Null))),
            }
        }
        (None, Some(_)) => {
            let model = fields.name("model", out);
            let with = fields.get("with").map(|_| compiled("with", out));
            match with {
                Some(with) => Some(Fallback::Model { model: model?, with: Some(with?) }),
                None => Some(Fallback::Model { model: model?, with: None }),
            }
        }
        (Some(output), Some(_)) => {
            out.report(output.key_place, "misplaced-key", "'fallback' has either 'output' or 'model', not both");
            None
        }
        (None, None) => {
            out.advise(
                entry.key_place,
                "missing-key",
                "'fallback' needs 'output' or 'model'",
                "such as fallback: {output: {}}",
            );
            None
        }
    }
}
