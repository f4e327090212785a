//! Mistakes in definitions, told with their place and, where possible, what to write instead.
//!
//! Never stops at the first one: whoever checks collects them. Used by everything that reads definitions and by the
//! CLI and the HTTP surface, which show them.

use std::fmt;

use serde::Serialize;

use super::node::{Node, Place};

/// Mistakes reported of one file at most.
pub const MAX_DIAGNOSTICS: usize = 100;

/// One mistake in a definition file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub struct Diagnostic {
    /// Name of the file as the caller gave it.
    pub file: String,
    /// Line from 1; 0 where the source has no places, such as a stored document.
    pub line: usize,
    /// Column in characters from 1; 0 like the line.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Stable name of the kind of mistake, such as `unknown-key`.
    pub code: &'static str,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.advice {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

/// Collects the mistakes of one file.
pub(super) struct Diagnostics<'s> {
    file: &'s str,
    source: &'s str,
    found: Vec<Diagnostic>,
}

impl<'s> Diagnostics<'s> {
    /// `source` is the text of the file, empty for a document without places.
    pub(super) fn new(file: &'s str, source: &'s str) -> Self {
        Self { file, source, found: Vec::new() }
    }

    /// Adds a mistake.
    pub(super) fn report(&mut self, place: Place, code: &'static str, message: impl Into<String>) {
        self.add(place, code, message.into(), None);
    }

    /// Adds a mistake with what to write instead; empty advice counts as none.
    pub(super) fn advise(
        &mut self,
        place: Place,
        code: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(place, code, message.into(), Some(advice.into()).filter(|advice| !advice.is_empty()));
    }

    /// The place of a byte of a node's text.
    pub(super) fn inside(&self, node: &Node, offset: usize) -> Place {
        // Finding a place reads the file from its start, which is not worth it for what will not be shown.
        if self.is_full() {
            return node.place;
        }
        node.inside(self.source, offset)
    }

    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_DIAGNOSTICS
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// The mistakes in the order of the file, each once.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
        self.found.dedup();
        self.found
    }

    fn add(&mut self, place: Place, code: &'static str, message: String, advice: Option<String>) {
        if self.is_full() {
            return;
        }
        let Place { line, column } = place;
        self.found.push(Diagnostic { file: self.file.to_owned(), line, column, message, advice, code });
    }
}
