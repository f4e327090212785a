//! Reads `kind: Index`.
//!
//! Never touches an index: the vectors' crate does. Used by the document reader.

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::model;
use super::node::Node;
use super::{IndexDefinition, Metric};
use crate::expression::wording::{nearest, shorten};

pub(super) const KEYS: [&str; 8] =
    ["apiVersion", "kind", "name", "description", "backend", "dimension", "metric", "batch"];
pub(super) const METRICS: [(&str, Metric); 3] =
    [("cosine", Metric::Cosine), ("dotproduct", Metric::Dotproduct), ("euclidean", Metric::Euclidean)];
pub(super) const MAX_DIMENSION: i64 = 20_000;

pub(super) fn read(node: &Node, out: &mut Diagnostics<'_>) -> Option<IndexDefinition> {
    let fields = Fields::open(node, "an index", node.place, &KEYS, |_| None, out)?;
    fields.required("name", "an index", "such as 'name: kb'", out);
    fields.required("dimension", "an index", "the length of its vectors, such as 'dimension: 384'", out);
    fields.text("description", out);
    let name = fields.name("name", out);
    let backend = fields.name("backend", out).map_or_else(|| "embedded".to_owned(), |name| name.to_string());
    let dimension = fields.integer("dimension", 1..=MAX_DIMENSION, out);
    let metric = metric(&fields, out);
    let batch = model::batch(&fields, out);
    Some(IndexDefinition {
        name: name?,
        backend,
        dimension: u32::try_from(dimension?).ok()?,
        metric,
        batch,
        document: node.to_json(),
    })
}

fn metric(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Metric {
    let Some(text) = fields.text("metric", out) else { return Metric::Cosine };
    match METRICS.iter().find(|(name, _)| *name == text) {
        Some((_, metric)) => *metric,
        None => {
            let names = METRICS.map(|(name, _)| name);
            let advice = match nearest(text, names) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("one of {}", names.join(", ")),
            };
            if let Some(node) = fields.get("metric") {
                out.advise(node.place, "unknown-name", format!("there is no metric '{}'", shorten(text, 40)), advice);
            }
            Metric::Cosine
        }
    }
}
