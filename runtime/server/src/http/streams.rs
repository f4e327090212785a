//! Streams: their deleting, and how their results fare.
//!
//! Putting, reading and listing are like those of every definition. Used by the routes and by definitions.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::context::Context;
use super::entry::NameEntry;
use super::problem::Problem;

/// A topic that takes no results. They are kept in order and tried again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockedView {
    /// The topic.
    topic: String,
    /// Why, and what to do about it.
    reason: String,
    /// In how many of this node's shards results wait for it.
    shards: usize,
}

impl BlockedView {
    /// What holds up the results of a stream on this node; none when nothing does.
    pub(super) fn of(app: &App, stream: &serde_json::Value) -> Option<Self> {
        let topic = stream["output"]["topic"].as_str()?;
        let found = app.router.streams().blocked().get(topic)?;
        Some(Self { topic: topic.to_owned(), reason: found.reason, shards: found.shards })
    }
}

/// Delete a stream
///
/// Its records begin no more runs; those that they began go on.
#[utoipa::path(delete, path = "/api/v1/streams/{name}", operation_id = "deleteStream", tag = "definitions",
    params(("name" = String, Path, description = "Name of the stream.")),
    responses((status = 204, description = "There is no such stream any more.")))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(name): NameEntry,
) -> Result<Response, Problem> {
    if !app.router.delete_stream(&context.caller, &name).await? {
        return Err(Problem::new(404, "not_found", format!("stream '{name}' does not exist")));
    }
    let mut response = Response::default();
    *response.status_mut() = axum::http::StatusCode::NO_CONTENT;
    Ok(response)
}
