//! Calling a model outside a run.
//!
//! Such a call is not durable; it shares batches with the calls of runs. Used by the routes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use motet_engine::value::Value;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::context::Context;
use super::entry::NameEntry;
use super::problem::Problem;
use super::{App, body};

/// A call of a model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inference {
    /// The model's inputs by name.
    #[schema(value_type = serde_json::Value)]
    with: Value,
}

/// The answer of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Inferred {
    /// The model's outputs by name.
    #[schema(value_type = serde_json::Value)]
    output: Value,
}

/// Call a model outside a run
#[utoipa::path(post, path = "/api/v1/models/{name}/infer", operation_id = "inferModel", tag = "models",
    params(("name" = String, Path, description = "Name of the model.")),
    request_body = Inference,
    responses((status = 200, description = "The model's answer.", body = Inferred)))]
pub(crate) async fn infer(
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(model): NameEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let bytes = body::read(&app, &headers, body).await?;
    let inference: Inference = body::json(&headers, &bytes)?;
    let output = app.router.infer(&context.caller, &model, inference.with, app.request_timeout).await?;
    body::answer(200, &Inferred { output })
}
