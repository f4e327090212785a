//! What backends read from `parameters` alike.
//!
//! Never guesses: what is unknown or of the wrong type is an error that names it. Used by the backends.

use std::thread::available_parallelism;

use motet_engine::definition::ModelDefinition;
use motet_engine::failure::Failure;
use motet_engine::value::Value;

use crate::failure::invalid;
use crate::suggestion::suggestion;

/// Threads that one copy may ask for.
const MAX_THREADS: i64 = 256;

/// Threads of one copy: `threads`, else the node's setting, else as many as there are processors.
///
/// # Errors
/// `Invalid` when it is no whole number from 1 to 256.
pub(crate) fn threads(definition: &ModelDefinition, setting: usize) -> Result<usize, Failure> {
    match definition.parameters.get("threads") {
        None if setting > 0 => Ok(setting),
        None => Ok(available_parallelism().map_or(1, std::num::NonZero::get)),
        Some(Value::Int(threads @ 1..=MAX_THREADS)) => Ok(usize::try_from(*threads).unwrap_or(1)),
        Some(_) => Err(invalid(format!("parameters.threads must be a whole number from 1 to {MAX_THREADS}"))),
    }
}

/// A parameter that is text.
///
/// # Errors
/// `Invalid` when it is anything else.
pub(crate) fn text<'a>(definition: &'a ModelDefinition, key: &str) -> Result<Option<&'a str>, Failure> {
    match definition.parameters.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(format!("parameters.{key} must be a string, not {}", other.kind()))),
    }
}

/// Refuses what a backend does not know.
///
/// # Errors
/// `Invalid` with the nearest known name.
pub(crate) fn check_known(definition: &ModelDefinition, backend: &str, known: &[&str]) -> Result<(), Failure> {
    match definition.parameters.keys().find(|key| !known.contains(&&***key)) {
        None => Ok(()),
        Some(key) => {
            let hint = suggestion(key, known.iter().copied());
            Err(invalid(format!("parameters.{key} is not known to the backend {backend}{hint}")))
        }
    }
}
