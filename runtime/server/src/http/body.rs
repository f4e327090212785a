//! Request bodies: bounded in size and time, of a type that is taken, with the place of every mistake.
//!
//! Never keeps more than the bound in memory. Used by handlers that take a body.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::App;
use super::problem::{Mistake, Problem};

/// Reads a whole body.
pub(crate) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let most = app.limits.max_body;
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    // The door's time limit bounds how slowly a body may come.
    let mut parts = body.into_data_stream();
    let mut first = Bytes::new();
    let mut whole: Vec<u8> = vec![];
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::new(400, "incomplete_body", "the body ended before its end"))?;
        if first.len() + whole.len() + part.len() > most {
            return Err(too_large(most));
        }
        if first.is_empty() && whole.is_empty() {
            // Nearly every body comes in one part, which needs no copy.
            first = part;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&part);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
}

fn too_large(most: usize) -> Problem {
    Problem::new(413, "body_too_large", format!("the body is larger than {most} bytes (http.max_body_bytes)"))
}

/// The type of a body without its parameters, in lower case.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a body as JSON; one that is empty counts as `{}`.
pub(crate) fn json<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    let fits = |kind: &str| kind == "application/json" || kind.ends_with("+json");
    match content_type(headers) {
        Some(kind) if !fits(&kind) && !bytes.is_empty() => {
            let words = format!("the body is '{kind}'; send it as 'application/json'");
            return Err(Problem::new(415, "unsupported_media_type", words));
        }
        _ => {}
    }
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| malformed(&error))
}

fn malformed(error: &serde_json::Error) -> Problem {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let words = error.to_string();
    let detail = words.strip_suffix(&place).unwrap_or(&words).to_owned();
    let (status, code) = match error.classify() {
        // JSON of another shape than this request has.
        serde_json::error::Category::Data => (422, "invalid"),
        _ if detail.contains("recursion limit") => (400, "too_deep"),
        _ => (400, "malformed_json"),
    };
    let known = |number: usize| Some(number).filter(|&number| number > 0);
    let mistake =
        Mistake { line: known(error.line()), column: known(error.column()), detail, ..Mistake::default() };
    Problem::new(status, code, words).with_errors(vec![mistake])
}

/// An answer that is JSON, written straight from the value.
pub(crate) fn answer(status: u16, value: &impl Serialize) -> Result<Response, Problem> {
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, value)
        .map_err(|error| Problem::new(500, "internal", format!("the answer cannot be written: {error}")))?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}
