//! Reads what a step calls: the keys of each call and the arguments under `with`.
//!
//! One table names the calls, their keys and their arguments. Never resolves names of models or indexes: they may be
//! defined later or elsewhere. Used by the step reader.

use super::diagnostic::Diagnostics;
use super::fields::{Fields, name};
use super::node::{Content, Entry, Node};
use super::references::Site;
use super::workflow::{schema, template};
use super::{Call, ParseFormat, http, waiting};
use crate::expression::Template;
use crate::expression::wording::{nearest, shorten};
use crate::parse::Pattern;
use crate::prompt::PromptTemplate;
use crate::value::Value;

/// One kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The name under `call:`.
    pub(super) name: &'static str,
    /// Keys of the step beside those of every step.
    pub(super) keys: &'static [&'static str],
    /// Keys of `with` when only certain ones have a meaning.
    pub(super) arguments: Option<&'static [&'static str]>,
    /// Keys of `with` that must be there.
    pub(super) required: &'static [&'static str],
}

pub(super) const KINDS: [Kind; 9] = [
    Kind { name: "model", keys: &["model"], arguments: None, required: &[] },
    Kind { name: "prompt", keys: &["template"], arguments: None, required: &[] },
    Kind { name: "transform", keys: &[], arguments: None, required: &[] },
    Kind { name: "parse", keys: &["format", "pattern", "schema"], arguments: Some(&["text"]), required: &["text"] },
    Kind {
        name: "vector.query",
        keys: &[],
        arguments: Some(&["index", "vector", "top_k", "filter", "namespace", "include_metadata", "include_values"]),
        required: &["index", "vector"],
    },
    Kind {
        name: "vector.upsert",
        keys: &[],
        arguments: Some(&["index", "vectors", "ids", "id", "values", "metadata", "namespace"]),
        required: &["index"],
    },
    Kind {
        name: "http",
        keys: &[],
        arguments: Some(&["method", "url", "headers", "query", "body", "timeout"]),
        required: &["method", "url"],
    },
    Kind { name: "wait", keys: &[], arguments: Some(&["for", "until"]), required: &[] },
    Kind { name: "signal", keys: &["signal", "schema"], arguments: None, required: &[] },
];
pub(super) const FORMATS: [&str; 5] = ["json", "json_lines", "lines", "number", "regex"];

/// The kind that a step's `call` names; none when it is missing or unknown.
pub(super) fn kind(step: &Node) -> Option<&'static Kind> {
    let name = step.entry("call")?.value.as_text()?;
    KINDS.iter().find(|kind| kind.name == name)
}

/// Explains a key that belongs to another call; for a step whose own call is unknown every such key is fine.
pub(super) fn misplaced(key: &str, kind: Option<&'static Kind>) -> Option<String> {
    let owners: Vec<&str> = KINDS.iter().filter(|owner| owner.keys.contains(&key)).map(|owner| owner.name).collect();
    if !owners.is_empty() {
        return Some(format!("it belongs to call: {}", owners.join(" and call: ")));
    }
    let takes = kind.is_some_and(|kind| kind.arguments.is_some_and(|arguments| arguments.contains(&key)));
    let is_variable = matches!(key, "input" | "inputs" | "arguments" | "args" | "parameters" | "params");
    if takes {
        Some("put it under 'with'".into())
    } else if is_variable {
        Some("did you mean 'with'?".into())
    } else {
        None
    }
}

/// Reads the call and the sites of its expressions.
pub(super) fn read<'n>(
    fields: &Fields<'n>,
    kind: Option<&'static Kind>,
    step: &str,
    owner: &str,
    out: &mut Diagnostics<'_>,
) -> (Option<Call>, Vec<Site<'n>>) {
    let names = KINDS.map(|kind| kind.name);
    let call = fields.required("call", owner, &format!("one of {}", names.join(", ")), out);
    if let (Some(node), None) = (call, kind)
        && let Some(text) = fields.text("call", out)
    {
        let advice = match nearest(text, names) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("one of {}", names.join(", ")),
        };
        out.advise(node.place, "unknown-call", format!("there is no call '{}'", shorten(text, 40)), advice);
    }
    let with_node = fields.get("with");
    let with = match with_node {
        Some(node) => template(node, out),
        None => Some(Template::constant(Value::empty_map())),
    };
    let sites = match (with_node, &with) {
        (Some(node), Some(with)) => Site::of_template(node, with, true),
        _ => vec![],
    };
    let Some(kind) = kind else { return (None, sites) };
    check_arguments(fields, kind, owner, out);
    let call = match kind.name {
        "model" => model(fields, with, owner, out),
        "prompt" => prompt(fields, with, owner, out),
        "transform" => {
            fields.required("with", owner, "the output of a transform is its 'with'", out);
            with.map(|with| Call::Transform { with })
        }
        "parse" => parse(fields, with, owner, out),
        "vector.query" => with.map(|with| Call::VectorQuery { with }),
        "http" => with.map(|with| Call::Http { with }),
        "wait" => {
            waiting::check_wait_step(fields, out);
            fields.required("with", owner, "such as with: {for: 2h}", out);
            with.map(|with| Call::Wait { with })
        }
        "signal" => waiting::signal(fields, step, with, out),
        _ => with.map(|with| Call::VectorUpsert { with }),
    };
    (call, sites)
}

/// Whether a node is one expression, whose value is known only when it is evaluated.
pub(super) fn is_dynamic(node: &Node) -> bool {
    node.as_text().is_some_and(|text| text.trim_start().starts_with("${"))
}

fn check_arguments(fields: &Fields<'_>, kind: &Kind, owner: &str, out: &mut Diagnostics<'_>) {
    let Some(entry) = fields.entry("with") else {
        if !kind.required.is_empty() {
            let advice = format!("its keys are {}", kind.required.join(", "));
            fields.required("with", owner, &advice, out);
        }
        return;
    };
    if kind.name == "transform" || is_dynamic(&entry.value) {
        return;
    }
    let Some(known) = kind.arguments else {
        if entry.value.as_map().is_none() {
            let message = format!("'with' must be a map, not {}", entry.value.kind());
            out.report(entry.value.place, "wrong-type", message);
        }
        return;
    };
    let place = entry.key_place;
    let Some(arguments) = Fields::open(&entry.value, "'with'", place, known, |_| None, out) else { return };
    for key in kind.required {
        arguments.required(key, "'with'", &format!("call: {} reads it", kind.name), out);
    }
    if let Some(node) = arguments.get("index").filter(|node| !is_dynamic(node)) {
        name(node, "index", out);
    }
    if arguments.get("top_k").is_some_and(|node| !is_dynamic(node)) {
        arguments.integer("top_k", 1..=10_000, out);
    }
    for key in ["include_metadata", "include_values"] {
        if let Some(node) =
            arguments.get(key).filter(|node| !is_dynamic(node) && !matches!(node.content, Content::Bool(_)))
        {
            out.report(node.place, "wrong-type", format!("'{key}' must be true or false, not {}", node.kind()));
        }
    }
    match kind.name {
        "vector.upsert" => check_upsert(&arguments, place, out),
        "http" => http::check(&arguments, out),
        "wait" => waiting::check_wait(&arguments, entry, out),
        _ => {}
    }
}

fn check_upsert(arguments: &Fields<'_>, place: super::node::Place, out: &mut Diagnostics<'_>) {
    if let Some(ids) = arguments.entry("ids") {
        check_columns(arguments, ids, place, out);
        return;
    }
    let single = ["id", "values", "metadata"].into_iter().find_map(|key| arguments.entry(key));
    match (arguments.get("vectors"), single) {
        (Some(_), Some(entry)) => {
            let message = format!("'{}' stands beside 'vectors'", entry.key);
            out.advise(
                entry.key_place,
                "misplaced-key",
                message,
                "give either 'vectors' or one 'id' with its 'values'",
            );
        }
        (None, None) => {
            let advice = "give a list of {id, values, metadata}, or one 'id' with its 'values'";
            out.advise(place, "missing-key", "'with' needs 'vectors'", advice);
        }
        (None, Some(_)) => {
            for key in ["id", "values"] {
                arguments.required(key, "'with'", "a single vector has an id and values", out);
            }
        }
        (Some(_), None) => {}
    }
}

/// The form that keeps a tensor whole: `ids`, `vectors` and `metadata` beside each other.
fn check_columns(arguments: &Fields<'_>, ids: &Entry, place: super::node::Place, out: &mut Diagnostics<'_>) {
    if arguments.get("vectors").is_none() {
        out.advise(place, "missing-key", "'ids' stands without 'vectors'", "give as many vectors as ids");
    }
    if !is_dynamic(&ids.value) && !matches!(ids.value.content, Content::List(_)) {
        out.report(ids.value.place, "wrong-type", format!("'ids' must be a list, not {}", ids.value.kind()));
    }
    for entry in ["id", "values"].into_iter().filter_map(|key| arguments.entry(key)) {
        let message = format!("'{}' stands beside 'ids'", entry.key);
        out.advise(
            entry.key_place,
            "misplaced-key",
            message,
            "give either 'ids' with 'vectors' or one 'id' with its 'values'",
        );
    }
}

fn model(fields: &Fields<'_>, with: Option<Template>, owner: &str, out: &mut Diagnostics<'_>) -> Option<Call> {
    fields.required("model", owner, "the name of the model to ask", out);
    let model = fields.name("model", out);
    Some(Call::Model { model: model?, with: with? })
}

fn prompt(fields: &Fields<'_>, with: Option<Template>, owner: &str, out: &mut Diagnostics<'_>) -> Option<Call> {
    let node = fields.required("template", owner, "the text of the prompt with {{ variables }}", out)?;
    let source = fields.text("template", out)?;
    let template = match PromptTemplate::parse(source) {
        Ok(template) => template,
        Err(error) => {
            let line_start: usize = source.split_inclusive('\n').take(error.line.saturating_sub(1)).map(str::len).sum();
            let line = source[line_start.min(source.len())..].char_indices();
            let column = line.map(|(at, _)| at).nth(error.column.saturating_sub(1)).unwrap_or(0);
            let place = out.inside(node, line_start + column);
            out.report(place, "bad-prompt", format!("the prompt is wrong: {}", error.message));
            return None;
        }
    };
    let dynamic = fields.get("with").is_some_and(is_dynamic);
    if let (Some(with), false) = (&with, dynamic) {
        let given = with.keys().unwrap_or_default();
        for variable in template.variables().iter().filter(|variable| !given.contains(&&***variable)) {
            let advice = match nearest(variable, given.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("add 'with: {{{variable}: \"${{ .. }}\"}}'"),
            };
            let place = out.inside(node, variable_offset(source, variable));
            out.advise(
                place,
                "unknown-variable",
                format!("the prompt reads '{variable}', which is not in 'with'"),
                advice,
            );
        }
    }
    Some(Call::Prompt { template, with: with? })
}

/// Where a variable first stands as a word of its own inside `{{ }}` or `{% %}`.
fn variable_offset(source: &str, variable: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let found = source.match_indices(variable).find(|(at, _)| {
        let (before, after) = (&source[..*at], &source[at + variable.len()..]);
        let opened = before.rfind(['{', '}']).is_some_and(|brace| before[brace..].starts_with('{'));
        opened && !before.ends_with(is_word) && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    });
    found.map_or(0, |(at, _)| at)
}

fn parse(fields: &Fields<'_>, with: Option<Template>, owner: &str, out: &mut Diagnostics<'_>) -> Option<Call> {
    let node = fields.required("format", owner, &format!("one of {}", FORMATS.join(", ")), out);
    let schema = fields.get("schema").map(|node| schema(node, out));
    let format = fields.text("format", out);
    if format.is_some_and(|format| format != "regex")
        && let Some(entry) = fields.entry("pattern")
    {
        out.advise(
            entry.key_place,
            "misplaced-key",
            "'pattern' belongs to format: regex",
            "remove it or write format: regex",
        );
    }
    let format = match format? {
        "json" => ParseFormat::Json,
        "json_lines" => ParseFormat::JsonLines,
        "lines" => ParseFormat::Lines,
        "number" => ParseFormat::Number,
        "regex" => {
            let node = fields.required("pattern", owner, "a regular expression with (?<name>..) groups", out)?;
            match Pattern::parse(fields.text("pattern", out)?) {
                Ok(pattern) => ParseFormat::Regex(Box::new(pattern)),
                Err(error) => {
                    out.report(node.place, "bad-pattern", error.to_string());
                    return None;
                }
            }
        }
        other => {
            let advice = match nearest(other, FORMATS) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("one of {}", FORMATS.join(", ")),
            };
            out.advise(node?.place, "unknown-name", format!("there is no format '{}'", shorten(other, 40)), advice);
            return None;
        }
    };
    let schema = match schema {
        Some(schema) => Some(schema?),
        None => None,
    };
    Some(Call::Parse { format, with: with?, schema })
}
