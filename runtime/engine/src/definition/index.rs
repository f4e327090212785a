//! Reads `kind: Index`.
//!
//! Never touches an index: the vectors' crate does. Used by the document reader.

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::model;
use super::node::Node;
use super::{IndexDefinition, Metric};

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
    let metric = fields.choice("metric", &METRICS, out).unwrap_or(Metric::Cosine);
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
