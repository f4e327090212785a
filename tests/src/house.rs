//! The rules of the house as functions over sources and manifests; `tests/house.rs` applies them to the workspace.
//!
//! Reads text only: what rustfmt has formatted can be read by lines. Knows nothing of what the code does.

pub mod manifest;
pub mod source;

/// A broken rule: where, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    /// The file, relative to the workspace, with a line where there is one.
    pub place: String,
    /// What is wrong, in words that say what to do.
    pub rule: String,
}

impl Breach {
    pub(crate) fn new(place: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { place: place.into(), rule: rule.into() }
    }
}

/// Fails with every breach, one per line.
///
/// # Panics
/// When there is a breach.
pub fn demand_none(mut breaches: Vec<Breach>) {
    breaches.sort();
    let lines: Vec<_> = breaches.iter().map(|breach| format!("  {}: {}", breach.place, breach.rule)).collect();
    assert!(lines.is_empty(), "{} rules of the house are broken:\n{}", lines.len(), lines.join("\n"));
}
