//! The Open Inference Protocol v2 over HTTP: the routes below `/v2`.
//!
//! Holds no rules: requests become calls, answers become bodies. Refusals go out in the protocol's own form. Used by the
//! routes.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::encoding::{deflate, inflate, of_request, wanted};
use super::problem::Problem;
use super::{App, body, health};
use crate::inference::calling::infer;
use crate::inference::config::{config, config_json, metadata, metadata_json};
use crate::inference::message::{Written, read_call, write_answer};
use crate::inference::repository::{index, index_json, load, unload};
use crate::inference::served::{ready, served};
use crate::inference::statistics::{statistics, statistics_json};
use crate::inference::{EXTENSIONS, invalid};

/// How many bytes of a body are JSON, where raw tensors follow.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Answers below this size go out as they are: compressing them would make nothing quicker.
const WORTH_COMPRESSING: usize = 1024;

/// The `{model}` of a path, and its `{version}` where there is one.
struct ModelEntry {
    model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for ModelEntry {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let arguments = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(400, "invalid_path", "the path is not valid UTF-8"))?;
        let argument = |name: &str| arguments.iter().find(|(key, _)| *key == name).map(|(_, text)| text.to_owned());
        let model = argument("model").ok_or_else(|| Problem::new(500, "internal", "the route has no model"))?;
        Ok(Self { model, version: argument("version") })
    }
}

impl ModelEntry {
    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or_default()
    }
}

/// The routes of the protocol.
pub(super) fn routes() -> axum::Router<Arc<App>> {
    let mut routes = axum::Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/repository/index", post(repository_index))
        .route("/v2/repository/models/{model}/load", post(load_model))
        .route("/v2/repository/models/{model}/unload", post(unload_model));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        routes = routes
            .route(model, get(model_metadata))
            .route(&format!("{model}/ready"), get(model_ready))
            .route(&format!("{model}/infer"), post(infer_model))
            .route(&format!("{model}/config"), get(model_config))
            .route(&format!("{model}/stats"), get(model_statistics));
    }
    routes
}

/// An answer without a body: clients look at the status alone.
fn fine() -> Response {
    Response::new(Body::empty())
}

async fn server() -> Result<Response, Problem> {
    body::answer(200, &json!({"name": "motet", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}))
}

async fn live() -> Response {
    fine()
}

async fn server_ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    health::check(&app).await.map(|()| fine())
}

async fn model_ready(State(app): State<Arc<App>>, context: Context, entry: ModelEntry) -> Result<Response, Problem> {
    ready(&app, &context.caller, &entry.model, entry.version()).await.map(|()| fine())
}

async fn model_metadata(State(app): State<Arc<App>>, context: Context, entry: ModelEntry) -> Result<Response, Problem> {
    let served = served(&app, &context.caller, &entry.model, entry.version(), app.request_timeout).await?;
    body::answer(200, &metadata_json(&metadata(&served)))
}

async fn model_config(State(app): State<Arc<App>>, context: Context, entry: ModelEntry) -> Result<Response, Problem> {
    let served = served(&app, &context.caller, &entry.model, entry.version(), app.request_timeout).await?;
    body::answer(200, &config_json(&config(&served)))
}

async fn model_statistics(
    State(app): State<Arc<App>>,
    context: Context,
    entry: ModelEntry,
) -> Result<Response, Problem> {
    let told = statistics(&app, &context.caller, &entry.model, entry.version()).await?;
    body::answer(200, &statistics_json(&told))
}

async fn all_statistics(State(app): State<Arc<App>>, context: Context) -> Result<Response, Problem> {
    body::answer(200, &statistics_json(&statistics(&app, &context.caller, "", "").await?))
}

async fn infer_model(
    State(app): State<Arc<App>>,
    context: Context,
    entry: ModelEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let bytes = whole(&app, &headers, body).await?;
    let call = read_call(&entry.model, entry.version.as_deref(), &bytes, json_length(&headers)?)?;
    let answered = infer(&app, &context.caller, call).await?;
    send(write_answer(&answered)?, &headers).await
}

/// The body of a request as it was before it was compressed.
async fn whole(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let encoding = of_request(headers)?;
    let bytes = body::read(app, headers, body).await?;
    let (Some(encoding), most) = (encoding, app.limits.max_body) else { return Ok(bytes) };
    beside(move || inflate(encoding, &bytes, most)).await?
}

/// Does what takes long on a thread for that.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::new(500, "internal", format!("compression did not end well: {error}")))
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(header) = headers.get(&JSON_LENGTH) else { return Ok(None) };
    let length = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or_else(|| invalid("Inference-Header-Content-Length is no number of bytes"))
}

async fn send(written: Written, headers: &HeaderMap) -> Result<Response, Problem> {
    let Written { body, json_length } = written;
    let encoding = wanted(headers).filter(|_| body.len() >= WORTH_COMPRESSING);
    let body = match encoding {
        None => body,
        Some(encoding) => beside(move || deflate(encoding, &body))
            .await?
            .map_err(|error| Problem::new(500, "internal", format!("the answer cannot be compressed: {error}")))?,
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    let kind = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = json_length {
        headers.insert(JSON_LENGTH, length.into());
    }
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, encoding.value());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

/// What may stand in a request about the repository.
#[derive(Deserialize, Default)]
struct Request {
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    parameters: Map<String, Value>,
}

impl Request {
    /// Reads a request; an empty body asks for nothing in particular.
    async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let bytes = whole(app, headers, body).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(&bytes).map_err(|error| invalid(format!("the body cannot be read: {error}")))
    }
}

async fn repository_index(
    State(app): State<Arc<App>>,
    context: Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request = Request::read(&app, &headers, body).await?;
    body::answer(200, &index_json(&index(&app, &context.caller, request.ready).await?))
}

async fn load_model(
    State(app): State<Arc<App>>,
    context: Context,
    entry: ModelEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request = Request::read(&app, &headers, body).await?;
    load(&app, &context.caller, &entry.model, request.parameters.keys().map(String::as_str)).await.map(|()| fine())
}

async fn unload_model(
    State(app): State<Arc<App>>,
    context: Context,
    entry: ModelEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Request::read(&app, &headers, body).await?;
    unload(&app, &context.caller, &entry.model).await.map(|()| fine())
}
