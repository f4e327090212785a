//! Mistakes in definitions, told with their place and, where possible, what to write instead.
//!
//! Never stops at the first one: whoever checks collects them. Used by everything that reads definitions and by the
//! CLI and the HTTP surface, which show them.

use std::fmt;

use serde::Serialize;

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
