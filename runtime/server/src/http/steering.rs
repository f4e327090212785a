//! Steering runs: cancel, signals, pause, resume, retry, fork, skip, and what their refusals mean.
//!
//! Holds no rules of runs; the run itself accepts or rejects. Used by the routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::Response;
use motet_actors::message::Answer;
use motet_actors::router::ForkRequest;
use motet_engine::id::RunId;
use motet_engine::input::Rejection;
use motet_engine::value::Value;
use serde::Deserialize;
use utoipa::ToSchema;

use super::context::Context;
use super::entry::{RunEntry, SignalEntry};
use super::problem::Problem;
use super::run_view::RunView;
use super::runs::{REPLAYED, begun_run, shown};
use super::{App, body, idempotency};

/// Why a run is to end.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancellation {
    /// In the words of whoever asks; shown with the run.
    reason: Option<String>,
}

/// Why a run is to stand still.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pausing {
    /// In the words of whoever asks; shown with the run.
    reason: Option<String>,
}

/// A body that says nothing.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// From where a run is to go on.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retrying {
    /// Name of the step; the one that failed, and whatever else did not end, where none is named.
    #[schema(value_type = Option<String>)]
    from: Option<Arc<str>>,
}

/// What a new run takes over, and what it does not.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forking {
    /// Name of the step to begin from; it and every step that needs it run again.
    #[schema(value_type = String)]
    from: Arc<str>,
    /// Another input; the existing run's where none is given.
    #[schema(value_type = Option<serde_json::Value>)]
    input: Option<Value>,
    /// Other outputs of steps that do not run again, by name.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    outputs: BTreeMap<Arc<str>, Value>,
}

/// Send a run a signal
///
/// The body is the payload. It is durable when it is answered, also when no step waits for it yet. With an
/// `Idempotency-Key` the same signal may be sent again and counts once.
#[utoipa::path(post, path = "/api/v1/runs/{id}/signals/{name}", operation_id = "signalRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run."),
        ("name" = String, Path, description = "Name of the signal."),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters, bare or quoted.")),
    request_body = serde_json::Value,
    responses((status = 202, description = "The signal is durable.", body = RunView<'static>, headers(
        ("Idempotency-Replayed" = bool, description = "`true` when it was received before.")))))]
pub(crate) async fn signal(
    State(app): State<Arc<App>>,
    context: Context,
    SignalEntry { run, name }: SignalEntry,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let bytes = body::read(&app, &headers, body).await?;
    let payload: Value = body::json(&headers, &bytes)?;
    let key = idempotency::read(&headers, &Method::POST, uri.path(), &bytes, app.router.now(), app.key_life)?;
    let id: Arc<str> = match key {
        Some(key) => key.key.into(),
        // Whoever names no key sends another signal each time.
        None => app.router.new_trace().to_string().into(),
    };
    let answer = app.router.signal(&context.caller, run, name, payload, id).await?;
    let replayed = matches!(answer, Answer::Rejected(Rejection::SignalRepeated { .. }));
    let mut response = if replayed {
        read_again(&app, &context, run, 202).await?
    } else {
        outcome(&app, &context, run, answer, 202).await?
    };
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Cancel a run
///
/// 409 when the run has ended already.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", operation_id = "cancelRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    request_body = Cancellation,
    responses((status = 200, description = "The run has ended as cancelled.", body = RunView<'static>)))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let cancellation: Cancellation = read(&app, &headers, body).await?;
    let answer = app.router.cancel(&context.caller, id, cancellation.reason).await?;
    outcome(&app, &context, id, answer, 200).await
}

/// Pause a run
///
/// Calls that are under way are recorded, nothing new begins, and signals are kept. The run's own timeout goes on.
/// 409 when it is paused or has ended.
#[utoipa::path(post, path = "/api/v1/runs/{id}/pause", operation_id = "pauseRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    request_body = Pausing,
    responses((status = 200, description = "The run stands still.", body = RunView<'static>)))]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let pausing: Pausing = read(&app, &headers, body).await?;
    let answer = app.router.pause(&context.caller, id, pausing.reason).await?;
    outcome(&app, &context, id, answer, 200).await
}

/// Let a paused run go on
///
/// What became due meanwhile is done at once. 409 when it is not paused.
#[utoipa::path(post, path = "/api/v1/runs/{id}/resume", operation_id = "resumeRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    request_body = Nothing,
    responses((status = 200, description = "The run goes on.", body = RunView<'static>)))]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Nothing {} = read(&app, &headers, body).await?;
    let answer = app.router.resume(&context.caller, id).await?;
    outcome(&app, &context, id, answer, 200).await
}

/// Let a run go on after its end
///
/// The failed step, or the one named, and every step that needs it run again; the others keep their outputs. The
/// run's own timeout begins anew. 409 when it has not ended.
#[utoipa::path(post, path = "/api/v1/runs/{id}/retry", operation_id = "retryRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    request_body = Retrying,
    responses((status = 202, description = "The run goes on.", body = RunView<'static>)))]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let retrying: Retrying = read(&app, &headers, body).await?;
    let answer = app.router.retry(&context.caller, id, retrying.from).await?;
    outcome(&app, &context, id, answer, 202).await
}

/// Start a new run from a step of this one
///
/// Steps that the named one needs keep their outputs, or get those that are given; it and what needs it run again.
#[utoipa::path(post, path = "/api/v1/runs/{id}/fork", operation_id = "forkRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run."),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters, bare or quoted.")),
    request_body = Forking,
    responses((status = 202, description = "The new run is durable and goes on.", body = RunView<'static>, headers(
        ("Location" = String, description = "Path of the new run."),
        ("Idempotency-Replayed" = bool, description = "`true` when an earlier request had started it.")))))]
pub(crate) async fn fork(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(source): RunEntry,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let bytes = body::read(&app, &headers, body).await?;
    let Forking { from, input, outputs } = body::json(&headers, &bytes)?;
    let idempotency = idempotency::read(&headers, &Method::POST, uri.path(), &bytes, app.router.now(), app.key_life)?;
    let request = ForkRequest { step: from, input, outputs, idempotency };
    let begun = app.router.fork(&context.caller, source, request).await?;
    let (id, replayed) = (begun.submitted.run, begun.submitted.replayed);
    let run = app.router.read_run(&context.caller, id).await?;
    begun_run(&app, 202, &run, replayed)
}

/// Let the next run of an order go on
///
/// For a run that ended without success and stands first in the order of its key: it gives its place up, and those
/// behind it go on without it. 409 when it has not ended, or stands in no order.
#[utoipa::path(post, path = "/api/v1/runs/{id}/skip", operation_id = "skipRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    request_body = Nothing,
    responses((status = 200, description = "The next run of its order goes on.", body = RunView<'static>)))]
pub(crate) async fn skip(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Nothing {} = read(&app, &headers, body).await?;
    let answer = app.router.leave_line(&context.caller, id).await?;
    outcome(&app, &context, id, answer, 200).await
}

async fn read<T: serde::de::DeserializeOwned>(app: &App, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = body::read(app, headers, body).await?;
    body::json(headers, &bytes)
}

/// The run as it stands after an input, or why the input changed nothing.
async fn outcome(app: &App, context: &Context, id: RunId, answer: Answer, status: u16) -> Result<Response, Problem> {
    match answer {
        Answer::Rejected(rejection) => Err(rejected(id, &rejection)),
        _ => read_again(app, context, id, status).await,
    }
}

async fn read_again(app: &App, context: &Context, id: RunId, status: u16) -> Result<Response, Problem> {
    let run = app.router.read_run(&context.caller, id).await?;
    shown(app, status, &run)
}

/// The one table from what a run turns down to statuses and codes.
fn rejected(id: RunId, rejection: &Rejection) -> Problem {
    let (status, code) = match rejection {
        Rejection::Ended => (409, "run_ended"),
        Rejection::SignalUnknown { .. } => (404, "unknown_signal"),
        Rejection::SignalNotAwaited { .. } => (409, "signal_not_awaited"),
        Rejection::SignalUnfit { .. } => (422, "unfit_signal"),
        Rejection::SignalTooLarge { .. } => (413, "signal_too_large"),
        Rejection::SignalsFull { .. } => (409, "signals_full"),
        Rejection::SignalRepeated { .. } => (409, "signal_repeated"),
        Rejection::Paused => (409, "run_paused"),
        Rejection::NotPaused => (409, "run_not_paused"),
        Rejection::NotEnded => (409, "run_not_ended"),
        Rejection::NothingToRetry => (409, "nothing_to_retry"),
        Rejection::UnknownStep { .. } => (422, "unknown_step"),
        Rejection::LineInUse => (409, "line_in_use"),
        Rejection::NoLine => (409, "no_line"),
        Rejection::NotOwed(_) | Rejection::NotDue => (409, "rejected"),
    };
    Problem::new(status, code, format!("{id}: {rejection}")).about_run(id)
}
