//! What a schema registry says: schemas, and why there is none.
//!
//! Only understands; the client asks. Used by the client.

use serde::Deserialize;

use crate::port::SourceError;

/// Longest words of a registry that are told on, in characters.
const MAX_WORDS: usize = 200;

/// A schema as a registry gives it.
#[derive(Deserialize, Debug)]
pub(super) struct Registered {
    pub(super) schema: String,
    /// None for Avro.
    #[serde(rename = "schemaType")]
    pub(super) schema_type: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<Referred>,
}

/// A schema that one refers to.
#[derive(Deserialize, Debug)]
pub(super) struct Referred {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: i64,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
    #[serde(default)]
    message: String,
}

/// What the registry says when it has no subject, no version or no schema of that name.
const UNKNOWN: [u32; 3] = [40_401, 40_402, 40_403];

/// What an answer means that brings no schema.
pub(super) fn refusal(what: &str, status: u16, body: &[u8]) -> SourceError {
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let said = refusal.as_ref().map(|refusal| refusal.message.trim()).filter(|message| !message.is_empty());
    let said: String = said.map(|words| format!(": {words}")).unwrap_or_default().chars().take(MAX_WORDS).collect();
    match status {
        404 if refusal.as_ref().is_some_and(|refusal| UNKNOWN.contains(&refusal.error_code)) => {
            SourceError::Unknown(format!("the schema registry does not know {what}{said}"))
        }
        // Whoever answers so is another server, or the protocol lies below another path.
        404 => SourceError::Away(format!("no schema registry answers at registry.url (404 for {what}){said}")),
        401 | 403 => SourceError::Away(format!(
            "the schema registry lets nobody in ({status} for {what}){said}; look at registry.user and registry.password"
        )),
        _ => SourceError::Away(format!("the schema registry answered {status} for {what}{said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (status, body, unknown, words) in [
            (404, r#"{"error_code":40403,"message":"Schema 7 not found"}"#, true, "Schema 7 not found"),
            (404, r#"{"error_code":40401,"message":"Subject 'a' not found."}"#, true, "does not know schema 7"),
            (404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, false, "registry.url"),
            (404, "<html>", false, "registry.url"),
            (401, r#"{"error_code":401,"message":"Unauthorized"}"#, false, "registry.password"),
            (403, "", false, "403"),
            (429, "", false, "answered 429"),
            (500, r#"{"error_code":50001,"message":"Error in the backend data store"}"#, false, "backend data store"),
        ] {
            let error = refusal("schema 7", status, body.as_bytes());
            assert_eq!(matches!(error, SourceError::Unknown(_)), unknown, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
