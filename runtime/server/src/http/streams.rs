//! Streams: their deleting.
//!
//! Putting, reading and listing are like those of every definition. Used by the routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::App;
use super::context::Context;
use super::entry::NameEntry;
use super::problem::Problem;

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
