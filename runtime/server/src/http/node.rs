//! What this node is and does.
//!
//! Used by the routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use motet_engine::access::Action;
use motet_engine::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::context::Context;
use super::problem::Problem;
use super::run_view::{moment, state_name};
use super::{App, body};
use crate::telemetry::metrics::resident_bytes;

/// This node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(crate) struct NodeView<'a> {
    /// Its name.
    name: &'a str,
    /// Version of the binary.
    #[schema(value_type = String)]
    version: &'static str,
    /// When it started.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Seconds since it started.
    uptime_seconds: u64,
    /// Whether it takes new runs.
    open: bool,
    /// Resident memory of the process, where the system tells it.
    resident_bytes: Option<u64>,
    /// Its runs.
    runs: RunFigures,
    /// Its store.
    store: StoreFigures,
    /// Number of actors of models and indexes.
    models: usize,
    /// Indexes that are open.
    indexes: usize,
}

/// The runs of a node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunFigures {
    /// Run actors.
    live: usize,
    /// Runs admitted and not ended, live or waiting.
    unfinished: u64,
    /// Number of runs by state.
    by_state: std::collections::BTreeMap<&'static str, u64>,
}

/// The store of a node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoreFigures {
    /// Why it refuses writes; null while it works.
    #[schema(required)]
    fault: Option<String>,
    /// Commits since the start.
    commits: u64,
    /// Journal entries since the start.
    entries: u64,
    /// Events since the start.
    events: u64,
    /// Writes that wait for the next commit.
    queued: u64,
}

/// Read what this node is and does
#[utoipa::path(get, path = "/api/v1/node", operation_id = "getNode", tag = "node",
    responses((status = 200, description = "This node.", body = NodeView<'static>)))]
pub(crate) async fn show(State(app): State<Arc<App>>, context: Context) -> Result<Response, Problem> {
    context.caller.may(Action::ReadNode)?;
    let (router, health) = (&app.router, app.store.health());
    let counts = app.store.counts().await?;
    let view = NodeView {
        name: &app.name,
        version: env!("CARGO_PKG_VERSION"),
        started_at: app.started_at,
        uptime_seconds: app.started.elapsed().as_secs(),
        open: router.is_open(),
        resident_bytes: resident_bytes(),
        runs: RunFigures {
            live: router.runs().live(),
            unfinished: router.runs().unfinished(),
            by_state: counts.into_iter().map(|(state, count)| (state_name(state), count)).collect(),
        },
        store: StoreFigures {
            fault: health.fault,
            commits: health.commits,
            entries: health.entries,
            events: health.events,
            queued: health.queued,
        },
        models: router.census().count("model"),
        indexes: router.census().count("index"),
    };
    body::answer(200, &view)
}
