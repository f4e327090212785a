//! Reading definition files.
use super::{Definition, Diagnostic};

/// Reads every definition of a YAML or JSON file.
///
/// # Errors
/// Every mistake of the file.
pub fn parse_definitions(file: &str, text: &str) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    let _ = (file, text);
    Ok(vec![])
}

/// Reads one stored document.
///
/// # Errors
/// Every mistake of the document, without places.
pub fn parse_definition_value(document: &serde_json::Value) -> Result<Definition, Vec<Diagnostic>> {
    let _ = document;
    Err(vec![])
}
