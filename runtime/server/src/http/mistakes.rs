//! Definitions in request bodies: YAML or JSON in, all mistakes out.
//!
//! Never stores; `definitions` does. Used by `definitions` and `check`.

use axum::http::HeaderMap;
use motet_engine::definition::Definition;
use motet_engine::definition::document::parse_definitions;

use super::body::content_type;
use super::problem::{Mistake, Problem};

/// Media types in which definitions are taken. JSON is read as the part of YAML that it is.
const TYPES: [&str; 7] = [
    "application/yaml",
    "application/x-yaml",
    "text/yaml",
    "text/x-yaml",
    "text/plain",
    "application/json",
    "application/octet-stream",
];

/// How messages call the body.
const FILE: &str = "body";

/// Reads every definition of a body.
pub(crate) fn definitions(headers: &HeaderMap, bytes: &[u8]) -> Result<Vec<Definition>, Problem> {
    if let Some(kind) = content_type(headers)
        && !TYPES.contains(&kind.as_str())
    {
        let words = format!("the body is '{kind}'; send a definition as 'application/yaml' or 'application/json'");
        return Err(Problem::new(415, "unsupported_media_type", words));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let words = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
        Problem::new(400, "not_utf8", words)
    })?;
    parse_definitions(FILE, text).map_err(|mistakes| {
        let count = mistakes.len();
        let words = format!("the definition has {count} mistake{}", if count == 1 { "" } else { "s" });
        Problem::new(422, "invalid_definition", words)
            .with_errors(mistakes.into_iter().map(Mistake::from).collect())
    })
}
