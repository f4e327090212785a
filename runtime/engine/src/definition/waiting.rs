//! Reads the calls that wait: `call: wait` for a time and `call: signal` for what someone sends.
//!
//! Never waits. Used by the reader of calls.

use std::sync::Arc;
use std::time::Duration;

use super::call::is_dynamic;
use super::diagnostic::Diagnostics;
use super::fields::{Fields, name};
use super::node::{Entry, Node};
use super::workflow::schema;
use super::{Call, Fallback};
use crate::expression::Template;
use crate::expression::wording::shorten;
use crate::time::{Timestamp, span};

/// Keys that have no meaning for a wait, and why.
const NOT_FOR_WAIT: [(&str, &str); 3] =
    [("retry", "a wait cannot fail"), ("timeout", "a wait ends by itself"), ("fallback", "a wait cannot fail")];

/// Checks `with` of a wait: one of `for` and `until`, and what is written without an expression.
pub(super) fn check_wait(arguments: &Fields<'_>, with: &Entry, out: &mut Diagnostics<'_>) {
    match (arguments.entry("for"), arguments.entry("until")) {
        (Some(_), Some(until)) => {
            out.advise(until.key_place, "misplaced-key", "'until' stands beside 'for'", "give one of them");
        }
        (None, None) => {
            let advice = "such as {for: 2h} or {until: \"2026-12-24T09:00:00Z\"}";
            out.advise(with.key_place, "missing-key", "'with' needs 'for' or 'until'", advice);
        }
        _ => {}
    }
    if arguments.get("for").is_some_and(|node| !has_expression(node)) {
        arguments.duration("for", Duration::ZERO..=span::LONGEST, out);
    }
    if let Some(node) = arguments.get("until").filter(|node| !has_expression(node))
        && node.as_text().and_then(Timestamp::from_rfc3339).is_none()
    {
        let shown = node.as_text().map_or_else(|| node.kind().to_owned(), |text| format!("'{}'", shorten(text, 40)));
        let advice = "write it in quotes with its offset, such as \"2026-12-24T09:00:00Z\" or \"..+01:00\"";
        out.advise(node.place, "bad-time", format!("'until' must be a time, not {shown}"), advice);
    }
}

/// Whether a node holds an expression, be it among other text.
pub(super) fn has_expression(node: &Node) -> bool {
    is_dynamic(node) || node.as_text().is_some_and(|text| text.contains("${"))
}

/// Refuses what a wait cannot have.
pub(super) fn check_wait_step(fields: &Fields<'_>, out: &mut Diagnostics<'_>) {
    for (key, reason) in NOT_FOR_WAIT {
        if let Some(entry) = fields.entry(key) {
            let message = format!("'{key}' has no meaning for call: wait");
            out.advise(entry.key_place, "misplaced-key", message, format!("remove it: {reason}"));
        }
    }
}

/// Reads a signal step; `step` is its name, which is also the signal's where none is given.
pub(super) fn signal(
    fields: &Fields<'_>,
    step: &str,
    with: Option<Template>,
    out: &mut Diagnostics<'_>,
) -> Option<Call> {
    if let Some(entry) = fields.entry("retry") {
        let advice = "remove it; 'timeout' says how long to wait, and 'fallback' what then";
        out.advise(entry.key_place, "misplaced-key", "'retry' has no meaning for call: signal", advice);
    }
    let given = match fields.get("signal") {
        Some(node) => Arc::from(name(node, "signal", out)?.as_str()),
        None => Arc::from(step),
    };
    let schema = match fields.get("schema") {
        Some(node) => Some(schema(node, out)?),
        None => None,
    };
    Some(Call::Signal { name: given, with: with?, schema })
}

/// A fallback that can never be needed is a mistake: without a timeout a signal is waited for as long as it takes.
pub(super) fn check_patience(fields: &Fields<'_>, fallback: Option<&Fallback>, out: &mut Diagnostics<'_>) {
    if let (Some(entry), Some(_), None) = (fields.entry("fallback"), fallback, fields.get("timeout")) {
        let message = "'fallback' of a signal is used when its 'timeout' is over, and there is none";
        out.advise(entry.key_place, "missing-key", message, "add 'timeout', such as timeout: 2d");
    }
}
