//! Every refusal in one form: RFC 9457, with a stable code, all mistakes, and when to try again.
//!
//! Rendered by the door alone, which knows the path and the trace. Used by every handler.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use motet_engine::definition::Diagnostic;
use motet_engine::schema::SchemaError;
use serde::Serialize;
use utoipa::ToSchema;

/// One mistake in what was sent.
#[derive(Debug, Clone, Serialize, Default, ToSchema)]
pub(crate) struct Mistake {
    /// Line from 1, where the mistake has a place in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// Column from 1, beside the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
    /// JSON Pointer of the offending part, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pointer: Option<String>,
    /// What is wrong.
    pub(crate) detail: String,
    /// What to write instead, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
    /// Stable name of the kind of mistake, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
}

impl From<Diagnostic> for Mistake {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            // Zero stands for a document without places.
            line: Some(diagnostic.line).filter(|&line| line > 0),
            column: Some(diagnostic.column).filter(|&column| column > 0),
            pointer: None,
            detail: diagnostic.message,
            advice: diagnostic.advice,
            code: Some(diagnostic.code),
        }
    }
}

impl Mistake {
    /// A part of a run's input that does not fit the workflow's schema.
    pub(crate) fn in_input(error: SchemaError) -> Self {
        Self { pointer: Some(format!("/input{}", error.pointer)), detail: error.message, ..Self::default() }
    }
}

/// A refusal.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<Mistake>,
    retry_after: Option<u64>,
    run: Option<String>,
}

/// What is known of the request when its refusal is rendered.
pub(crate) struct Place<'a> {
    /// Path of the request.
    pub(crate) instance: &'a str,
    /// Trace of the request, as 32 hexadecimal digits.
    pub(crate) trace_id: &'a str,
}

/// A refusal as clients read it (RFC 9457). Clients key on `code`, never on texts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemView<'a> {
    /// Always `about:blank`: the status says the type, `code` says more.
    #[serde(rename = "type")]
    #[schema(value_type = String, examples("about:blank"))]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened and what to do about it, for people.
    detail: &'a str,
    /// Path of the request.
    instance: &'a str,
    /// Stable name of the kind of refusal.
    code: &'a str,
    /// Every mistake in what was sent.
    #[serde(skip_serializing_if = "<[Mistake]>::is_empty")]
    errors: &'a [Mistake],
    /// Seconds after which the same may be tried again, as in the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// The run that is meant, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    /// Trace of the request, for finding it in logs.
    trace_id: &'a str,
}

impl Problem {
    /// A refusal with a status, a stable code and words for people.
    pub(crate) fn new(status: u16, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(Box::new(Parts { status, code, detail: detail.into(), errors: vec![], retry_after: None, run: None }))
    }

    /// With the mistakes that led to it.
    pub(crate) fn with_errors(mut self, errors: Vec<Mistake>) -> Self {
        self.0.errors = errors;
        self
    }

    /// With the number of seconds after which trying again may help.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// With the run that is meant.
    pub(crate) fn about_run(mut self, run: impl ToString) -> Self {
        self.0.run = Some(run.to_string());
        self
    }

    /// The code.
    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    /// What happened and what to do about it, for people.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Seconds after which the same may be tried again, where that is known.
    pub(crate) fn pause(&self) -> Option<u64> {
        self.0.retry_after
    }

    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The answer that clients get.
    pub(crate) fn render(&self, place: &Place<'_>) -> Response {
        let parts = &self.0;
        let view = ProblemView {
            kind: "about:blank",
            title: parts.status.canonical_reason().unwrap_or("Error"),
            status: parts.status.as_u16(),
            detail: &parts.detail,
            instance: place.instance,
            code: parts.code,
            errors: &parts.errors,
            retry_after: parts.retry_after,
            run: parts.run.as_deref(),
            trace_id: place.trace_id,
        };
        // Plain strings and numbers always serialize.
        let bytes = serde_json::to_vec(&view).unwrap_or_default();
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = parts.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Hands the refusal to the door inside an empty answer.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
