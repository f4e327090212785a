//! Schedules: how each does on this node, and their deleting.
//!
//! Putting, reading and listing are like those of every definition. Used by the routes and by the views of
//! definitions.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use motet_actors::schedules::ScheduleFigures;
use motet_engine::id::RunId;
use motet_engine::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::context::Context;
use super::entry::NameEntry;
use super::problem::Problem;
use super::run_view::{maybe_moment, maybe_shown};

/// How a schedule does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleView {
    /// Whether it stands still.
    paused: bool,
    /// When it begins its next run; null while it is paused.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    next_at: Option<Timestamp>,
    /// The time for which the last run began.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_at: Option<Timestamp>,
    /// The last run.
    #[serde(serialize_with = "maybe_shown")]
    #[schema(value_type = Option<String>, required)]
    last_run: Option<RunId>,
    /// Why the last time began no run; null when it did.
    #[schema(required)]
    last_error: Option<String>,
    /// Runs begun since the node started.
    begun: u64,
}

impl ScheduleView {
    /// From what the scheduler knows; nothing before it has looked.
    pub(crate) fn new(document: &serde_json::Value, figures: Option<ScheduleFigures>) -> Self {
        let ScheduleFigures { next_at, last_at, last_run, last_error, begun } = figures.unwrap_or_default();
        Self { paused: document["paused"] == true, next_at, last_at, last_run, last_error, begun }
    }
}

/// Delete a schedule
///
/// It begins no more runs; those that it began go on.
#[utoipa::path(delete, path = "/api/v1/schedules/{name}", operation_id = "deleteSchedule", tag = "definitions",
    params(("name" = String, Path, description = "Name of the schedule.")),
    responses((status = 204, description = "There is no such schedule any more.")))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(name): NameEntry,
) -> Result<Response, Problem> {
    if !app.router.delete_schedule(&context.caller, &name).await? {
        return Err(Problem::new(404, "not_found", format!("schedule '{name}' does not exist")));
    }
    let mut response = Response::default();
    *response.status_mut() = axum::http::StatusCode::NO_CONTENT;
    Ok(response)
}
