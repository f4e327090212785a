//! Reads `kind: Workflow`: its schemas, its steps, and how they depend on each other.
//!
//! Never evaluates; a workflow that comes out of here has resolved references and no cycle. Used by the document
//! reader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::limits;
use super::node::{Content, Entry, Node, Place};
use super::references::{Names, Site, check_cycles};
use super::step::{self, Draft};
use super::{Step, Workflow};
use crate::expression::Template;
use crate::id::StepIndex;
use crate::schema::Schema;

pub(super) const KEYS: [&str; 12] = [
    "apiVersion",
    "kind",
    "name",
    "version",
    "description",
    "input",
    "output",
    "output_schema",
    "timeout",
    "limits",
    "steps",
    ORDER,
];
/// Most steps of one workflow.
pub(super) const MAX_STEPS: usize = 1_000;
/// The order of the steps, kept beside them in stored documents, whose maps may lose theirs.
pub(super) const ORDER: &str = "step_order";

pub(super) fn read(node: &Node, out: &mut Diagnostics<'_>) -> Option<Workflow> {
    let fields = Fields::open(node, "a workflow", node.place, &KEYS, misplaced, out)?;
    fields.required("name", "a workflow", "such as 'name: support-triage'", out);
    fields.text("description", out);
    let (name, version) = (fields.name("name", out), fields.version(out));
    let input_schema = input_schema(&fields, out);
    let output_schema = fields.get("output_schema").and_then(|node| schema(node, out));
    let longest = Duration::from_secs(365 * 24 * 3600);
    let timeout = fields.duration("timeout", Duration::from_millis(1)..=longest, out);
    let limits = limits::of_workflow(&fields, out);
    let entries = step_entries(&fields, out);
    let drafts: Vec<Draft<'_>> = entries.iter().map(|entry| step::read(entry, out)).collect();
    let names = names(&drafts, input_schema.as_ref());
    let needs: Vec<BTreeSet<StepIndex>> = drafts.iter().map(|draft| needs(draft, &names, out)).collect();
    let places: Vec<(&str, Place)> = drafts.iter().map(|draft| (draft.name, draft.place)).collect();
    check_cycles(&places, &needs, out);
    let output = fields.get("output").and_then(|node| {
        let template = template(node, out)?;
        names.check(&Site::of_template(node, &template, false), None, None, out);
        Some(template)
    });
    let document = document(node, &drafts);
    let steps = drafts.into_iter().zip(needs);
    let steps: Option<Vec<Step>> =
        steps.map(|(draft, needs)| Some(Step { needs: needs.into_iter().collect(), ..draft.step? })).collect();
    Some(Workflow {
        name: name?,
        version,
        input_schema,
        output_schema,
        steps: steps?,
        output,
        timeout,
        limits,
        document,
    })
}

/// Explains keys that other systems put at the top of a workflow.
fn misplaced(key: &str) -> Option<String> {
    match key {
        "metadata" => Some("write 'name' and 'version' at the top level".into()),
        "spec" => Some("write 'input', 'steps' and 'output' at the top level".into()),
        "input_schema" => Some("write input: {schema: ..}".into()),
        _ => None,
    }
}

fn input_schema(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Option<Schema> {
    let entry = fields.entry("input")?;
    let hint = |key: &str| {
        let is_schema = ["type", "properties", "required", "additionalProperties", "items", "$ref"].contains(&key);
        is_schema.then(|| "put the JSON Schema one level deeper: input: {schema: ..}".into())
    };
    let input = Fields::open(&entry.value, "'input'", entry.key_place, &["schema"], hint, out)?;
    schema(input.get("schema")?, out)
}

/// A JSON Schema, with every mistake at its place.
pub(super) fn schema(node: &Node, out: &mut Diagnostics<'_>) -> Option<Schema> {
    match Schema::compile(&node.to_json()) {
        Ok(schema) => Some(schema),
        Err(mistakes) => {
            for (pointer, message) in mistakes {
                out.report(node.find(&pointer).place, "bad-schema", format!("the JSON Schema is wrong: {message}"));
            }
            None
        }
    }
}

/// A template, with every mistake at its place.
pub(super) fn template(node: &Node, out: &mut Diagnostics<'_>) -> Option<Template> {
    match Template::compile(&node.to_json()) {
        Ok(template) => Some(template),
        Err(mistakes) => {
            for mistake in mistakes {
                let place = out.inside(node.find(&mistake.pointer), mistake.offset.unwrap_or(0));
                out.report(place, "bad-expression", mistake.message);
            }
            None
        }
    }
}

/// The steps in their declared order.
fn step_entries<'n>(fields: &Fields<'n>, out: &mut Diagnostics<'_>) -> Vec<&'n Entry> {
    let example = "such as 'steps: {greet: {call: transform, with: {..}}}'";
    let Some(node) = fields.required("steps", "a workflow", example, out) else { return vec![] };
    let Content::Map(entries) = &node.content else {
        let message = format!("'steps' must be a map of steps by name, not {}", node.kind());
        out.advise(node.place, "wrong-type", message, "write each step as 'name: {call: ..}'");
        return vec![];
    };
    if entries.is_empty() {
        out.advise(node.place, "missing-key", "a workflow needs at least one step", example);
    }
    if entries.len() > MAX_STEPS {
        let message = format!("a workflow may have at most {MAX_STEPS} steps, not {}", entries.len());
        out.advise(node.place, "out-of-range", message, "use for_each for repeated work");
    }
    let mut entries: Vec<&Entry> = entries.iter().take(MAX_STEPS).collect();
    if let Some(Content::List(order)) = fields.get(ORDER).map(|node| &node.content) {
        let rank: BTreeMap<&str, usize> =
            order.iter().enumerate().filter_map(|(n, it)| Some((it.as_text()?, n))).collect();
        entries.sort_by_key(|entry| rank.get(entry.key.as_str()).copied().unwrap_or(usize::MAX));
    }
    entries
}

fn names<'d>(drafts: &[Draft<'d>], input: Option<&'d Schema>) -> Names<'d> {
    let mut steps = BTreeMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        steps.entry(draft.name).or_insert(StepIndex(u16::try_from(place).unwrap_or(u16::MAX)));
    }
    let closed = input.map(Schema::document).filter(|document| document["additionalProperties"] == false);
    let properties = closed
        .filter(|document| !["patternProperties", "$ref", "allOf"].iter().any(|key| document.get(key).is_some()))
        .and_then(|document| document["properties"].as_object());
    Names { steps, input: properties.map(|properties| properties.keys().map(String::as_str).collect()) }
}

/// Declared needs joined with those that the step's expressions imply.
fn needs(draft: &Draft<'_>, names: &Names<'_>, out: &mut Diagnostics<'_>) -> BTreeSet<StepIndex> {
    let mut needs = names.check(&draft.sites, Some(draft.name), draft.variable.as_deref(), out);
    for (name, node) in &draft.needs {
        match names.steps.get(name) {
            _ if *name == draft.name => {
                out.report(node.place, "self-reference", format!("the step '{name}' needs itself"));
            }
            Some(index) => {
                needs.insert(*index);
            }
            None => names.unknown_step(name, node.place, out),
        }
    }
    needs
}

/// The document as JSON. Where the declared order of the steps is not that of their names it is written beside them,
/// because a step's index is recorded in runs and must be the same when the document is read again.
fn document(node: &Node, drafts: &[Draft<'_>]) -> serde_json::Value {
    let mut document = node.to_json();
    if let Some(map) = document.as_object_mut() {
        map.remove(ORDER);
        let order: Vec<&str> = drafts.iter().map(|draft| draft.name).collect();
        if !order.is_sorted() {
            map.insert(ORDER.to_owned(), order.into());
        }
    }
    document
}
