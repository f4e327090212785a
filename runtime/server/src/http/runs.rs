//! Starting, finding and reading runs.
//!
//! Holds no rules of runs. Used by the routes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::Response;
use motet_actors::router::{Begun, SubmitRequest};
use motet_engine::id::{Name, RunId};
use motet_engine::run::Run;
use motet_engine::value::Value;
use motet_store::port::{HeadState, RunQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::context::Context;
use super::entry::{NameEntry, RunEntry};
use super::problem::Problem;
use super::query::{self, Query};
use super::run_view::{HeadView, RunView};
use super::{App, body, idempotency};

/// Told in answers to repeated submissions.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Labels of one run.
const MAX_TAGS: usize = 32;

/// Bytes of one label.
const MAX_TAG: usize = 128;

/// What a run is started with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// Checked against the workflow's input schema; an empty map when there is none.
    #[serde(default = "Value::empty_map")]
    #[schema(value_type = serde_json::Value)]
    input: Value,
    /// Version of the workflow; the newest when none is named.
    version: Option<String>,
    /// Labels for finding the run again: at most 32 of 1 to 128 bytes.
    #[serde(default)]
    tags: Vec<String>,
    /// Higher goes first where calls wait for a model.
    #[serde(default)]
    priority: i8,
}

/// How long a submission waits for its run.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// Answer when the run has ended, or as it stands after this time: `10s`, `500ms`, `1m`. At most what the node's
    /// `http.max_wait` says; a longer wait is cut to it.
    #[param(example = "10s")]
    wait: Option<String>,
}

impl Wait {
    fn patience(&self, most: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = &self.wait else { return Ok(None) };
        let span = query::span(text)
            .ok_or_else(|| query::refused("wait", format!("'{text}' is no time span; write one such as 10s")))?;
        Ok(Some(span.min(most)))
    }
}

/// Start a run
///
/// The run is durable before it is answered. With `wait` the answer comes when the run has ended (200) or when the
/// wait is over (202, with the run as it stands). A repetition with the same `Idempotency-Key` and the same request
/// answers with the run that the first one started.
#[utoipa::path(post, path = "/api/v1/workflows/{name}/runs", operation_id = "submitRun", tag = "runs",
    params(("name" = String, Path, description = "Name of the workflow."), Wait,
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters, bare or quoted.")),
    request_body = Submission,
    responses(
        (status = 200, description = "The run has ended.", body = RunView<'static>, headers(
            ("Location" = String, description = "Path of the run."),
            ("Idempotency-Replayed" = bool, description = "`true` when an earlier request had started the run."))),
        (status = 202, description = "The run is durable and goes on.", body = RunView<'static>, headers(
            ("Location" = String, description = "Path of the run."),
            ("Idempotency-Replayed" = bool, description = "`true` when an earlier request had started the run.")))))]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(workflow): NameEntry,
    Query(wait): Query<Wait>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let patience = wait.patience(app.max_wait)?;
    let bytes = body::read(&app, &headers, body).await?;
    let submission: Submission = body::json(&headers, &bytes)?;
    let now = app.router.now();
    let idempotency = idempotency::read(&headers, &Method::POST, uri.path(), &bytes, now, app.key_life)?;
    drop(bytes);
    check_tags(&submission.tags)?;
    let request = SubmitRequest {
        workflow,
        version: submission.version,
        input: submission.input,
        tags: submission.tags,
        priority: submission.priority,
        idempotency,
    };
    let begun = app.router.begin(&context.caller, request, patience.is_some()).await?;
    let replayed = begun.submitted.replayed;
    let run = follow(&app, &context, begun, patience).await?;
    let status = if patience.is_some() && run.phase().is_end() { 200 } else { 202 };
    begun_run(&app, status, &run, replayed)
}

/// A run in an answer.
pub(crate) fn shown(app: &App, status: u16, run: &Run) -> Result<Response, Problem> {
    body::answer(status, &RunView::new(run, app.router.runs().waits_for_turn(run.id())))
}

/// The answer to whoever began a run: the run and where it is found.
pub(crate) fn begun_run(app: &App, status: u16, run: &Run, replayed: bool) -> Result<Response, Problem> {
    let mut response = shown(app, status, run)?;
    let place = HeaderValue::try_from(format!("/api/v1/runs/{}", run.id()))
        .map_err(|_| Problem::new(500, "internal", "the run's path is no header"))?;
    response.headers_mut().insert(header::LOCATION, place);
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The run as the answer shows it: at its end when that was asked for, else as it stands.
async fn follow(app: &App, context: &Context, begun: Begun, patience: Option<Duration>) -> Result<Run, Problem> {
    if let Some(patience) = patience {
        return Ok(app.router.end_of(&context.caller, begun, patience).await?);
    }
    match begun.run {
        Some(run) => Ok(run),
        None => Ok(app.router.read_run(&context.caller, begun.submitted.run).await?),
    }
}

fn check_tags(tags: &[String]) -> Result<(), Problem> {
    let fits = tags.len() <= MAX_TAGS && tags.iter().all(|tag| (1..=MAX_TAG).contains(&tag.len()));
    if fits {
        return Ok(());
    }
    Err(Problem::new(422, "invalid", format!("tags: at most {MAX_TAGS} labels of 1 to {MAX_TAG} bytes are taken")))
}

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only runs of this workflow.
    #[param(value_type = Option<String>)]
    workflow: Option<String>,
    /// Only runs in one of these states, separated by commas.
    #[param(example = "failed,timed_out")]
    state: Option<String>,
    /// Only runs with this label.
    tag: Option<String>,
    /// `true` for only those that ended without success and hold up what follows them in the order of their key.
    holding: Option<bool>,
    /// Only runs created at or after this time (RFC 3339).
    created_from: Option<String>,
    /// Only runs created before this time (RFC 3339).
    created_before: Option<String>,
    /// Runs per page, 1 to 500; 50 when not given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of runs, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunPage)]
pub(crate) struct Page<'a> {
    /// The runs.
    runs: Vec<HeadView<'a>>,
    /// For the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl Filter {
    fn query(self, context: &Context) -> Result<RunQuery, Problem> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=500).contains(&limit) {
            return Err(query::refused("limit", "write a number from 1 to 500"));
        }
        let workflow = self.workflow.map(|name| Name::new(&name)).transpose();
        let cursor = self.cursor.map(|text| text.parse::<RunId>()).transpose();
        let time = |name, text: Option<String>| text.map(|text| query::time(name, &text)).transpose();
        Ok(RunQuery {
            namespace: context.caller.namespace.clone(),
            workflow: workflow.map_err(|error| query::refused("workflow", error.to_string()))?,
            states: states(self.state.as_deref().unwrap_or_default())?,
            tag: self.tag,
            created_from: time("created_from", self.created_from)?,
            created_before: time("created_before", self.created_before)?,
            holding: self.holding.unwrap_or(false),
            before: cursor.map_err(|_| query::refused("cursor", "it is not the 'next_cursor' of a page"))?,
            limit,
        })
    }
}

fn states(text: &str) -> Result<Vec<HeadState>, Problem> {
    let read = |name: &str| {
        HeadState::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state).ok_or_else(|| {
            let known: Vec<_> = HeadState::ALL.iter().map(|(_, name)| *name).collect();
            query::refused("state", format!("'{name}' is not known; there are {}", known.join(", ")))
        })
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(read).collect()
}

/// List runs, newest first
#[utoipa::path(get, path = "/api/v1/runs", operation_id = "listRuns", tag = "runs", params(Filter),
    responses((status = 200, description = "A page of runs.", body = Page<'static>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    Query(filter): Query<Filter>,
) -> Result<Response, Problem> {
    context.caller.may(motet_engine::access::Action::ReadRun)?;
    let mut query = filter.query(&context)?;
    let limit = query.limit as usize;
    // One more than the page tells whether there is a next one.
    query.limit += 1;
    let mut heads = app.router.list_runs(&query).await?;
    let more = heads.len() > limit;
    heads.truncate(limit);
    let next_cursor = heads.last().filter(|_| more).map(|head| head.run.to_string());
    body::answer(200, &Page { runs: heads.iter().map(HeadView::new).collect(), next_cursor })
}

/// Read a run
#[utoipa::path(get, path = "/api/v1/runs/{id}", operation_id = "getRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    responses((status = 200, description = "The run as it stands.", body = RunView<'static>)))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
) -> Result<Response, Problem> {
    let run = app.router.read_run(&context.caller, id).await?;
    shown(&app, 200, &run)
}
