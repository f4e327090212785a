//! Reads `placement`: which nodes of a cluster may hold a model, and how many of them.
//!
//! Never places: the actors do, by what nodes tell of themselves. Used by the reader of models.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostics;
use super::fields::{Fields, text};
use super::node::{Content, Entry};
use crate::expression::wording::shorten;

pub(super) const KEYS: [&str; 3] = ["labels", "min", "max"];
/// Most nodes that may be asked for.
pub(super) const MOST: i64 = 1_000;
/// What a node may tell of itself.
pub(super) const MAX_LABELS: usize = 64;
const KEY_CHARS: usize = 63;
const VALUE_CHARS: usize = 255;

/// Which nodes of a cluster may hold a model, and how many of them. A node that runs alone holds every model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPlacement {
    /// What the labels of such a node must say; none for any node.
    pub labels: BTreeMap<String, String>,
    /// Nodes that hold it as soon as it is used, at least 1.
    pub min: u32,
    /// Most nodes that hold it when there is much to do, at least `min`; none for as many as there are.
    pub max: Option<u32>,
}

impl Default for ModelPlacement {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), min: 1, max: None }
    }
}

/// The placement of a model.
pub(super) fn of_model(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> ModelPlacement {
    let mut placement = ModelPlacement::default();
    let Some(entry) = owner.entry("placement") else { return placement };
    let hint = |key: &str| (key == "replicas").then(|| "copies on each node are 'replicas' of the model".to_owned());
    let Some(fields) = Fields::open(&entry.value, "'placement'", entry.key_place, &KEYS, hint, out) else {
        return placement;
    };
    let (min, max) = (fields.integer("min", 1..=MOST, out), fields.integer("max", 1..=MOST, out));
    let least = min.unwrap_or(1);
    if let (Some(node), Some(max)) = (fields.get("max"), max)
        && max < least
    {
        let message = format!("'max' must be at least 'min', which is {least}, not {max}");
        out.advise(node.place, "out-of-range", message, "raise 'max' or lower 'min'");
    }
    placement.min = u32::try_from(least).unwrap_or(1);
    placement.max = max.and_then(|max| u32::try_from(max).ok());
    placement.labels = labels(&fields, out);
    placement
}

fn labels(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> BTreeMap<String, String> {
    let Some(node) = owner.get("labels") else { return BTreeMap::new() };
    let Content::Map(entries) = &node.content else {
        let message = format!("'labels' must be a map of texts, not {}", node.kind());
        out.advise(node.place, "wrong-type", message, "such as labels: {gpu: h100}");
        return BTreeMap::new();
    };
    if entries.len() > MAX_LABELS {
        out.report(node.place, "out-of-range", format!("'labels' may have at most {MAX_LABELS} entries"));
    }
    entries.iter().take(MAX_LABELS).filter_map(|entry| label(entry, out)).collect()
}

fn label(entry: &Entry, out: &mut Diagnostics<'_>) -> Option<(String, String)> {
    let shown = shorten(&entry.key, KEY_CHARS);
    let value = text(&entry.value, &format!("the label '{shown}'"), out)?;
    // No node can have such a label, so the model would be nowhere.
    let fits = |text: &str, most: usize| {
        !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control)
    };
    if !fits(&entry.key, KEY_CHARS) {
        let message = format!("the name of a label must have 1 to {KEY_CHARS} characters: '{shown}'");
        out.report(entry.key_place, "bad-name", message);
    }
    if !fits(value, VALUE_CHARS) {
        let message = format!("the label '{shown}' must have 1 to {VALUE_CHARS} characters");
        out.report(entry.value.place, "out-of-range", message);
    }
    Some((entry.key.clone(), value.to_owned()))
}
