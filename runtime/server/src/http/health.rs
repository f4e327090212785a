//! Whether the process lives, whether it can serve, and what it measured.
//!
//! Used by whoever operates the node; served on both listeners.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use motet_engine::id::ShardId;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{App, body};
use crate::telemetry::metrics::render;

/// Longest wait for the store's answer.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// How the node does.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `live` or `ready`.
    #[schema(value_type = String)]
    state: &'static str,
}

/// Whether the process answers
#[utoipa::path(get, path = "/health/live", operation_id = "healthLive", tag = "node",
    responses((status = 200, description = "The process answers.", body = Health)))]
pub(crate) async fn live() -> Result<Response, Problem> {
    body::answer(200, &Health { state: "live" })
}

/// Whether the node takes and remembers runs
///
/// 503 while the store cannot be read or refuses writes, and while the node is stopping.
#[utoipa::path(get, path = "/health/ready", operation_id = "healthReady", tag = "node",
    responses((status = 200, description = "The node takes runs.", body = Health)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    check(&app).await?;
    body::answer(200, &Health { state: "ready" })
}

/// Why the node takes no runs, where it takes none.
pub(crate) async fn check(app: &App) -> Result<(), Problem> {
    if let Some(fault) = app.store.health().fault {
        return Err(Problem::new(503, "storage_failed", format!("the store refuses writes: {fault}")).retry_after(5));
    }
    // A store far away may be gone without any write having noticed.
    match tokio::time::timeout(STORE_PATIENCE, app.store.epoch(ShardId(0))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(not_read(&error.to_string())),
        Err(_) => return Err(not_read("it gives no answer")),
    }
    if !app.router.is_open() {
        return Err(Problem::new(503, "stopping", "the node is stopping").retry_after(5));
    }
    Ok(())
}

fn not_read(why: &str) -> Problem {
    Problem::new(503, "storage_failed", format!("the store cannot be read: {why}")).retry_after(5)
}

/// What the node measured, for Prometheus
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "node",
    responses((status = 200, description = "Prometheus text format 0.0.4.", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let health = app.store.health();
    metrics::counter!("motet_store_entries_total").absolute(health.entries);
    metrics::counter!("motet_store_events_total").absolute(health.events);
    metrics::gauge!("motet_runs_live").set(app.router.runs().live() as f64);
    metrics::gauge!("motet_runs_unfinished").set(app.router.runs().unfinished() as f64);
    let mut response = Response::new(Body::from(render(&app.metrics)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
