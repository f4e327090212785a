//! What a run waits for, from live state: calls that are owed, wake-ups, the mailboxes on the way.
//!
//! Never guesses: everything shown is what the run itself owes. Used by the routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use motet_actors::address::Address;
use motet_actors::census::CensusLine;
use motet_actors::driver::head_state;
use motet_actors::runs::Place;
use motet_engine::command::{Command, CommandId, Work};
use motet_engine::id::CallId;
use motet_engine::run::Run;
use motet_engine::time::Timestamp;
use motet_models::egress::target;
use serde::Serialize;
use utoipa::ToSchema;

use super::context::Context;
use super::entry::RunEntry;
use super::problem::Problem;
use super::run_view::{ErrorView, RunState, WaitView, maybe_moment, moment, state_name};
use super::{App, body};

/// Calls and wake-ups that are shown; the numbers count all.
const MOST: usize = 100;

/// What a run waits for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Why)]
pub(crate) struct WhyView<'a> {
    /// Identity of the run.
    run: String,
    /// Like the state of a run.
    #[schema(value_type = RunState)]
    state: &'static str,
    /// The answer in one sentence.
    summary: String,
    /// Everything that is waited for, for people.
    waits_for: Vec<String>,
    /// Calls that are owed.
    calls_owed: usize,
    /// The first of them.
    calls: Vec<OwedCall<'a>>,
    /// The next time at which the run goes on by itself.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    next_wake: Option<Timestamp>,
    /// What the first wake-ups are for.
    wakes: Vec<Wake<'a>>,
    /// Times and signals that its steps wait for.
    waits: Vec<WaitView<'a>>,
    /// The run's actor; null while it waits without one.
    #[schema(value_type = Option<super::actors::ActorView>, required)]
    actor: Option<CensusLine>,
}

/// A call that is owed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwedCall<'a> {
    /// The step.
    step: &'a str,
    /// The item of a `for_each`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<u32>,
    /// The attempt, from 1.
    attempt: u32,
    /// `model`, `index` or `http`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// Name of the model or index; of an HTTP call its method and URL, without credentials and query.
    name: String,
    /// The state of the model: `loading`, `ready` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    model_state: Option<&'static str>,
    /// Calls of all runs that wait for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<u64>,
    /// Why the attempt before failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<ErrorView<'a>>,
}

/// A time at which a run goes on by itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Wake<'a> {
    /// When.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `retry` of a step, or the run's own `deadline`.
    #[serde(rename = "for")]
    #[schema(value_type = String)]
    reason: &'static str,
    /// The step that is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    /// Why its attempt before failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<ErrorView<'a>>,
}

/// Tell what a run waits for
#[utoipa::path(get, path = "/api/v1/runs/{id}/why", operation_id = "whyRun", tag = "runs",
    params(("id" = String, Path, description = "Identity of the run.")),
    responses((status = 200, description = "What the run waits for.", body = WhyView<'static>)))]
pub(crate) async fn why(
    State(app): State<Arc<App>>,
    context: Context,
    RunEntry(id): RunEntry,
) -> Result<Response, Problem> {
    let run = app.router.read_run(&context.caller, id).await?;
    let (mut calls, mut wakes) = (vec![], vec![]);
    for command in run.commands() {
        match command {
            // Told with what its step waits for.
            Command::Wake { id: CommandId::Wait(_), .. } => {}
            Command::Call { id, work, .. } if calls.len() < MOST => calls.push(owed(&app, &context, &run, id, &work)),
            Command::Wake { id, at } if wakes.len() < MOST => wakes.push(wake(&run, id, at)),
            Command::Call { .. } | Command::Wake { .. } => {}
        }
    }
    let waits: Vec<_> = run.waits(MOST).into_iter().map(|wait| WaitView::new(&run, wait)).collect();
    let turn = app.router.runs().turn_of(id);
    let mut waits_for = if run.phase().is_end() { vec![] } else { sentences(&calls, &waits, &wakes) };
    if let Some(Place { before, inside }) = turn {
        let words = "the limits of the workflow let the run wait for its turn";
        waits_for.insert(0, format!("{words}: {inside} are worked on, {before} go before it"));
    }
    if run.state().in_line {
        waits_for.insert(0, line(&app, &run).await?);
    }
    let view = WhyView {
        run: id.to_string(),
        state: state_name(head_state(&run, turn.is_some())),
        summary: summary(&run, &waits_for),
        waits_for,
        calls_owed: run.calls_owed(),
        calls,
        next_wake: run.next_wake(),
        wakes,
        waits,
        actor: app.router.census().line(&Address::Run(id)),
    };
    body::answer(200, &view)
}

/// Who stands before a run in the order of its key.
async fn line(app: &App, run: &Run) -> Result<String, Problem> {
    let words = "runs of one key go one after the other";
    Ok(match app.router.first_in_line(run).await? {
        Some(first) if first.run == run.id() => format!("{words}: it is the next one"),
        Some(first) if first.state.is_end() => format!(
            "{words}, and {} {}: retry it, or let it go with: motet runs skip {}",
            first.run,
            state_name(first.state),
            first.run
        ),
        Some(first) => format!("{words}, and {} is being worked on", first.run),
        None => words.to_owned(),
    })
}

fn step_of(run: &Run, call: CallId) -> (&str, Option<u32>, Option<ErrorView<'_>>) {
    let Some(step) = run.workflow().steps.get(call.step.as_usize()) else { return ("?", None, None) };
    let item = run.state().steps.get(call.step.as_usize()).and_then(|state| state.items.get(call.item as usize));
    let error = item.and_then(|item| item.failure.as_ref()).map(ErrorView::of);
    (&step.name, step.for_each.as_ref().map(|_| call.item), error)
}

fn owed<'a>(app: &App, context: &Context, run: &'a Run, call: CallId, work: &Work) -> OwedCall<'a> {
    let (step, item, last_error) = step_of(run, call);
    let (kind, name, view) = match work {
        Work::Model { model, .. } => {
            ("model", model.to_string(), app.router.models().view(&context.caller.namespace, model))
        }
        Work::VectorQuery { with } | Work::VectorUpsert { with } => {
            let name = with.get("index").and_then(|name| name.as_str()).unwrap_or("?");
            ("index", name.to_owned(), None)
        }
        Work::Http { with } => ("http", target(with), None),
    };
    let (model_state, queued) = (view.as_ref().map(|view| view.state), view.as_ref().map(|view| view.figures.queued));
    OwedCall { step, item, attempt: call.attempt, kind, name, model_state, queued, last_error }
}

fn wake(run: &Run, id: CommandId, at: Timestamp) -> Wake<'_> {
    match id {
        CommandId::Retry(call) | CommandId::Call(call) | CommandId::Wait(call) => {
            let (step, _, last_error) = step_of(run, call);
            Wake { at, reason: "retry", step: Some(step), last_error }
        }
        CommandId::Deadline => Wake { at, reason: "deadline", step: None, last_error: None },
    }
}

/// Everything that is waited for, in sentences.
fn sentences(calls: &[OwedCall<'_>], waits: &[WaitView<'_>], wakes: &[Wake<'_>]) -> Vec<String> {
    let item = |item: Option<u32>| item.map(|item| format!(", item {item}")).unwrap_or_default();
    let call = |call: &OwedCall<'_>| {
        let state = call.model_state.filter(|state| *state != "ready");
        let state = state.map(|state| format!(", which is {state}")).unwrap_or_default();
        let (kind, name, attempt) = (call.kind, &call.name, call.attempt);
        format!("step '{}'{} waits for {kind} '{name}'{state} (attempt {attempt})", call.step, item(call.item))
    };
    let wait = |wait: &WaitView<'_>| {
        let until = wait.until.map(|until| Moment(until).to_string());
        let what = match (wait.signal, until) {
            (Some(signal), Some(until)) => format!("the signal '{signal}', until {until} at the longest"),
            (Some(signal), None) => format!("the signal '{signal}'"),
            (None, until) => until.unwrap_or_default(),
        };
        format!("step '{}'{} waits for {what}", wait.step, item(wait.item))
    };
    let wake = |wake: &Wake<'_>| match wake.step {
        Some(step) => format!("step '{step}' is tried again at {}", Moment(wake.at)),
        None => format!("the run times out at {}", Moment(wake.at)),
    };
    calls.iter().map(call).chain(waits.iter().map(wait)).chain(wakes.iter().map(wake)).collect()
}

fn summary(run: &Run, sentences: &[String]) -> String {
    if run.phase().is_end() {
        return "the run has ended and waits for nothing".into();
    }
    if let Some(pause) = &run.state().paused {
        let why = pause.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        return format!(
            "the run is paused by {} since {}{why}; it goes on when it is resumed",
            pause.by,
            Moment(pause.at)
        );
    }
    match sentences {
        [] => "nothing is owed at this moment".into(),
        [only] => only.clone(),
        [first, ..] => {
            let all = run.calls_owed().max(sentences.len());
            format!("{first}, and {} more", all - 1)
        }
    }
}

/// A time in RFC 3339.
struct Moment(Timestamp);

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0.as_millis()) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("a time beyond all calendars"),
        }
    }
}
