//! Reads definition files and stored documents: finds the documents, tells their kind, hands each to its reader.
//!
//! Every mistake of a file is reported at once, with its place. Never reads files itself: callers hand in the text.
//! Used by the server and the CLI.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::node::{Node, Place};
use super::{Definition, index, model, schedule, stream, workflow, yaml};
use crate::expression::wording::{shorten, suggestion};
use crate::expression::{MAX_NESTING, is_too_deep};

/// The version of the format that this crate reads.
pub const API_VERSION: &str = "motet/v1";

/// The kinds that can be defined.
pub const KINDS: [&str; 5] = ["Workflow", "Model", "Index", "Schedule", "Stream"];

/// Reads every definition of a YAML or JSON file, which may hold several documents.
///
/// # Errors
/// Every mistake of the file, in its order; at most [`super::MAX_DIAGNOSTICS`].
pub fn parse_definitions(file: &str, text: &str) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    let mut out = Diagnostics::new(file, text);
    let nodes = yaml::read(text, &mut out);
    let mut definitions: Vec<Definition> = Vec::new();
    let nothing = nodes.is_empty() && out.len() == 0;
    for node in &nodes {
        let Some(definition) = read(node, &mut out) else { continue };
        if definitions.iter().any(|known| known.identity() == definition.identity()) {
            let (kind, name, version) = definition.identity();
            let at = node.entry("name").map_or(node.place, |entry| entry.value.place);
            let version = version.map_or_else(String::new, |version| format!(" version {version}"));
            out.report(
                at,
                "duplicate-definition",
                format!("the {kind} '{name}'{version} is defined twice in this file"),
            );
        }
        definitions.push(definition);
    }
    if nothing {
        let place = Place { line: 1, column: 1 };
        out.advise(place, "empty", "the file defines nothing", format!("start with 'kind: {}'", KINDS[0]));
    }
    let found = out.finish();
    if found.is_empty() { Ok(definitions) } else { Err(found) }
}

/// Reads one stored document, such as [`super::Workflow::document`].
///
/// # Errors
/// Every mistake of the document, with lines and columns of zero.
pub fn parse_definition_value(document: &serde_json::Value) -> Result<Definition, Vec<Diagnostic>> {
    let mut out = Diagnostics::new("document", "");
    if is_too_deep(document) {
        out.report(Place::default(), "too-large", format!("the document is more than {MAX_NESTING} levels deep"));
        return Err(out.finish());
    }
    let node = Node::from_json(document);
    let definition = read(&node, &mut out);
    let found = out.finish();
    match definition {
        Some(definition) if found.is_empty() => Ok(definition),
        _ => Err(found),
    }
}

/// Reads one document; none when it has mistakes.
fn read(node: &Node, out: &mut Diagnostics<'_>) -> Option<Definition> {
    let before = out.len();
    if node.as_map().is_none() {
        let message = format!("a definition must be a map, not {}", node.kind());
        out.advise(node.place, "wrong-type", message, "it starts with 'kind:' and 'name:'");
        return None;
    }
    if let Some(entry) = node.entry("apiVersion")
        && entry.value.as_text() != Some(API_VERSION)
    {
        let advice = format!("write {API_VERSION} or leave it out");
        out.advise(entry.value.place, "bad-version", "this apiVersion is not known", advice);
    }
    let Some(entry) = node.entry("kind") else {
        out.advise(node.place, "missing-key", "a definition needs 'kind'", format!("one of {}", KINDS.join(", ")));
        return None;
    };
    let definition = match entry.value.as_text() {
        Some("Workflow") => workflow::read(node, out).map(Into::into),
        Some("Model") => model::read(node, out).map(Into::into),
        Some("Index") => index::read(node, out).map(Into::into),
        Some("Schedule") => schedule::read(node, out).map(Into::into),
        Some("Stream") => stream::read(node, out).map(Into::into),
        Some(other) => {
            let near = suggestion(other, KINDS);
            let advice = match near.strip_prefix("; ") {
                Some(near) => near.to_owned(),
                None => format!("one of {}", KINDS.join(", ")),
            };
            let message = format!("there is no kind '{}' in this version", shorten(other, 40));
            out.advise(entry.value.place, "unknown-kind", message, advice);
            None
        }
        None => {
            let message = format!("'kind' must be a text, not {}", entry.value.kind());
            out.advise(entry.value.place, "wrong-type", message, format!("one of {}", KINDS.join(", ")));
            None
        }
    };
    definition.filter(|_| out.len() == before)
}
