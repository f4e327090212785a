//! The history of a run, as a stream of server-sent events or as a page of JSON.
//!
//! Read from the journal at the reader's own pace, so a slow reader never blocks the run; leaving the stream never
//! ends the run. Used by the routes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use motet_actors::message::RouteError;
use motet_actors::router::Recorded;
use motet_engine::access::{Action, Caller};
use motet_engine::definition::Workflow;
use motet_engine::event::Event;
use motet_engine::failure::Failure;
use motet_engine::id::{RunId, Seq, StepIndex};
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use motet_store::port::RunHead;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::context::Context;
use super::entry::RunEntry;
use super::problem::Problem;
use super::query::{self, Query};
use super::run_view::{maybe_moment, maybe_shown, moment};
use super::{App, body};

/// Journal entries read at a time.
const ENTRIES: u32 = 64;

/// A comment goes out when nothing else did for this long, so that nobody on the way takes the stream for dead.
const PING: Duration = Duration::from_secs(15);

/// Milliseconds after which a client that lost the stream comes back.
const RETRY: &str = "retry: 1000\n\n";

/// Where in the history to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct From {
    /// Only events after this one; for browsers, which cannot send the header `Last-Event-ID` at first.
    last_event_id: Option<String>,
}

/// One event of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunEvent)]
pub(crate) struct EventView<'a> {
    /// Number inside the run, from 1.
    #[schema(value_type = u64)]
    seq: Seq,
    /// When it was recorded.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// What happened, such as `step_succeeded`; the ends of a run begin with `run_`, and only `retried` may follow one.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: &'static str,
    /// The step that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    /// The item of a `for_each`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<u32>,
    /// The attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// The run's input.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    input: Option<&'a Value>,
    /// The elements of a `for_each`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    items: Option<&'a Value>,
    /// The evaluated inputs of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    with: Option<&'a Value>,
    /// The output of an item, a step or the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    output: Option<&'a Value>,
    /// Why something failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<super::run_view::ErrorView<'_>>)]
    error: Option<&'a Failure>,
    /// When the next attempt begins.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_at: Option<Timestamp>,
    /// Why a run was cancelled or paused, in the words of who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Who asked for it, or sent the signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// When a wait, or the patience for a signal, ends.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Name of a signal that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    /// The sender's id of a signal that came or was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal_id: Option<&'a str>,
    /// What a signal says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<&'a Value>,
    /// The run that this one was forked from.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_shown")]
    #[schema(value_type = Option<String>)]
    forked_from: Option<RunId>,
    /// Steps that run again after a retry, or that a fork keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<&'a str>>,
}

/// A page of a run's history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunEventPage)]
pub(crate) struct EventPage<'a> {
    /// The events in order.
    events: Vec<EventView<'a>>,
    /// Whether the run has ended and nothing follows.
    complete: bool,
}

impl<'a> EventView<'a> {
    fn new(recorded: &'a Recorded, workflow: &'a Workflow) -> Self {
        let event = &recorded.event;
        let step = event.step().and_then(|step| workflow.steps.get(step.as_usize()));
        let repeated = step.is_some_and(|step| step.for_each.is_some());
        let (item, attempt) = match event {
            Event::CallScheduled { call, .. }
            | Event::AttemptFailed { call, .. }
            | Event::CallRetried { call }
            | Event::FellBack { call, .. }
            | Event::WaitBegan { call, .. }
            | Event::WaitEnded { call }
            | Event::SignalTaken { call, .. } => (Some(call.item).filter(|_| repeated), Some(call.attempt)),
            Event::ItemSucceeded { item, .. } => (Some(*item), None),
            Event::StepFailed { item, .. } => (*item, None),
            _ => (None, None),
        };
        let (error, retry_at) = match event {
            Event::AttemptFailed { failure, retry_at, .. } => (Some(failure), *retry_at),
            Event::StepFailed { failure, .. } | Event::RunFailed { failure, .. } => (Some(failure), None),
            _ => (None, None),
        };
        let view = Self {
            seq: recorded.seq,
            at: recorded.at,
            kind: event.kind(),
            step: step.map(|step| &*step.name),
            item,
            attempt,
            input: matches!(event, Event::Submitted(_)).then(|| event.value()).flatten(),
            items: matches!(event, Event::StepExpanded { .. }).then(|| event.value()).flatten(),
            with: matches!(event, Event::CallScheduled { .. } | Event::FellBack { .. } | Event::WaitBegan { .. })
                .then(|| event.value())
                .flatten(),
            output: matches!(
                event,
                Event::ItemSucceeded { .. } | Event::StepSucceeded { .. } | Event::RunSucceeded { .. }
            )
            .then(|| event.value())
            .flatten(),
            error,
            retry_at,
            reason: None,
            by: None,
            until: None,
            signal: None,
            signal_id: None,
            payload: None,
            forked_from: None,
            steps: None,
        };
        view.with_steering(event, workflow)
    }

    /// What is told of waits, and of what was asked from outside.
    fn with_steering(self, event: &'a Event, workflow: &'a Workflow) -> Self {
        let name = |step: StepIndex| workflow.steps.get(step.as_usize()).map(|step| &*step.name);
        match event {
            Event::RunCancelled { by, reason } | Event::Paused { by, reason } => {
                Self { by: Some(by.to_string()), reason: reason.as_deref(), ..self }
            }
            Event::Resumed { by } | Event::LineLeft { by } => Self { by: Some(by.to_string()), ..self },
            Event::WaitBegan { until, .. } => Self { until: *until, ..self },
            Event::SignalReceived { name, payload, id, by } => Self {
                by: Some(by.to_string()),
                signal: Some(name),
                signal_id: Some(id),
                payload: Some(payload),
                ..self
            },
            Event::SignalTaken { id, .. } => Self { signal_id: Some(id), ..self },
            Event::RunRetried { by, steps } => {
                let steps = steps.iter().filter_map(|step| name(*step)).collect();
                Self { by: Some(by.to_string()), steps: Some(steps), ..self }
            }
            Event::Forked { from, by, kept, .. } => {
                let steps = kept.iter().filter_map(|kept| name(kept.step)).collect();
                Self { by: Some(by.to_string()), forked_from: Some(*from), steps: Some(steps), ..self }
            }
            _ => self,
        }
    }
}

/// Read a run's history
///
/// With `Accept: text/event-stream`, which is the default, events come as they are recorded until the run has ended;
/// a client that lost the stream goes on after `Last-Event-ID`, and gets 204 when nothing follows any more. With
/// `Accept: application/json` the answer is a page of what is recorded.
#[utoipa::path(get, path = "/api/v1/runs/{id}/events", operation_id = "readRunEvents", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run."), From,
        ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this one.")),
    responses(
        (status = 200, description = "The history.", content(
            (EventView<'static> = "text/event-stream"), (EventPage<'static> = "application/json"))),
        (status = 204, description = "The run has ended and nothing follows this event.")))]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    context.caller.may(Action::ReadRun)?;
    let head = head(&app, &context.caller, id).await?;
    let after = after(&headers, &from)?;
    let workflow = app.router.catalog().workflow(&head.namespace, &head.workflow, Some(head.version.as_str())).await?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") && !accept.contains("text/event-stream") {
        let recorded = app.router.events(id, after, ENTRIES).await?;
        let ended = head.state.is_end()
            && match recorded.last() {
                None => true,
                // A run that was retried has several ends, and a page may stop at any of them.
                Some(last) => ends(&last.event) && app.router.events(id, last.seq, 1).await?.is_empty(),
            };
        let events = recorded.iter().map(|recorded| EventView::new(recorded, &workflow)).collect();
        return body::answer(200, &EventPage { events, complete: ended });
    }
    let first = app.router.events(id, after, ENTRIES).await?;
    if first.is_empty() && head.state.is_end() {
        return Ok(no_content());
    }
    let permit = app.limits.stream()?;
    let reader = Reader { app, caller: context.caller, run: id, workflow, last: after, ended: false, _permit: permit };
    Ok(stream(reader, first))
}

async fn head(app: &App, caller: &Caller, id: RunId) -> Result<RunHead, Problem> {
    let head = app.store.head(id).await?.filter(|head| head.namespace == caller.namespace);
    head.ok_or_else(|| Problem::new(404, "not_found", format!("{id} does not exist")))
}

fn after(headers: &HeaderMap, from: &From) -> Result<Seq, Problem> {
    let sent = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    match sent.or(from.last_event_id.as_deref()).filter(|id| !id.is_empty()) {
        None => Ok(Seq(0)),
        Some(text) => text
            .parse()
            .map(Seq)
            .map_err(|_| query::refused("last_event_id", format!("'{text}' is no number of an event"))),
    }
}

/// Whether the run has ended as far as the event is concerned.
fn ends(event: &Event) -> bool {
    matches!(
        event,
        Event::RunSucceeded { .. }
            | Event::RunFailed { .. }
            | Event::RunCancelled { .. }
            | Event::RunTimedOut
            | Event::LineLeft { .. }
    )
}

/// Ends an `EventSource` for good.
fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// One reader of a stream and how far it has read.
struct Reader {
    app: Arc<App>,
    caller: Caller,
    run: RunId,
    workflow: Arc<Workflow>,
    last: Seq,
    /// Whether the last event was an end, which only a retry follows.
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

fn stream(mut reader: Reader, first: Vec<Recorded>) -> Response {
    let mut begin = RETRY.as_bytes().to_vec();
    reader.write(&first, &mut begin);
    let begin = futures::stream::once(std::future::ready(Ok::<_, std::convert::Infallible>(Bytes::from(begin))));
    let rest = futures::stream::unfold(reader, async |mut reader| {
        let part = reader.next().await?;
        Some((Ok(part), reader))
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(begin, rest)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Reader {
    /// The next part of the stream; none after the run's last event, and when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let recorded = match self.app.router.events(self.run, self.last, ENTRIES).await {
                Ok(recorded) => recorded,
                Err(error) => {
                    // The client comes back by itself and reads on after the last event that it has.
                    tracing::warn!(run = %self.run, %error, "a run's history could not be read");
                    return None;
                }
            };
            if !recorded.is_empty() {
                let mut part = vec![];
                self.write(&recorded, &mut part);
                return Some(part.into());
            }
            if self.ended {
                return None;
            }
            let stopping = self.app.stopping.clone();
            let progress = tokio::select! {
                progress = self.app.router.watch(&self.caller, self.run, self.last, PING) => progress,
                () = stopping.cancelled() => return None,
            };
            match progress {
                // An event that was asked for beyond the end never comes.
                Ok((seq, true)) if seq <= self.last => return None,
                Ok(_) => {}
                Err(RouteError::Expired) => return Some(Bytes::from_static(b": ping\n\n")),
                Err(error) => {
                    tracing::debug!(run = %self.run, %error, "a run cannot be watched");
                    return None;
                }
            }
        }
    }

    fn write(&mut self, recorded: &[Recorded], part: &mut Vec<u8>) {
        for recorded in recorded {
            self.last = recorded.seq;
            self.ended = ends(&recorded.event);
            let view = EventView::new(recorded, &self.workflow);
            part.extend_from_slice(format!("id: {}\nevent: {}\ndata: ", recorded.seq, view.kind).as_bytes());
            // JSON without indentation has no newline, so one line of data holds it.
            if let Err(error) = serde_json::to_writer(&mut *part, &view) {
                tracing::error!(run = %self.run, %error, "an event cannot be written");
                self.ended = true;
            }
            part.extend_from_slice(b"\n\n");
        }
    }
}
