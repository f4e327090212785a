//! The API's description of itself: OpenAPI 3.1 at `/openapi.json`.
//!
//! What every operation shares - problems, marks, the tenant - is added to each here, once. Used by the routes.

use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{
    actors, check, cluster, dead_letters, definitions, events, health, infer, node, partitions, problem, run_view,
    runs, schedules, steering, streams, why,
};

/// What the macros gather from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Motet", description = "Runs many machine-learning models as one durable workflow system.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        runs::submit, runs::list, runs::show, steering::cancel, steering::pause, steering::resume, steering::retry,
        steering::fork, steering::skip, steering::signal, schedules::delete, streams::delete,
        partitions::list, partitions::pause, partitions::resume, partitions::seek, dead_letters::list,
        dead_letters::show, dead_letters::redrive, dead_letters::discard, events::events, why::why, infer::infer, check::check,
        actors::list, cluster::show, cluster::drain, node::show, health::live, health::ready, health::metrics,
    ),
    components(schemas(
        problem::ProblemView<'_>, problem::Mistake, run_view::RunState, definitions::DefinitionView<'_>, definitions::List<'_>,
        definitions::Put<'_>,
    )),
    tags(
        (name = "runs", description = "Executions of workflows."),
        (name = "definitions", description = "Workflows, models, indexes, schedules and streams."),
        (name = "streams", description = "Partitions of streams, and records that could not become runs."),
        (name = "models", description = "Calls outside runs."),
        (name = "node", description = "This process, and the others that it works with."),
    )
)]
struct Gathered;

/// The kinds of definitions, and where they live.
const KINDS: [(&str, &str); 5] = [
    ("workflow", "workflows"),
    ("model", "models"),
    ("index", "indexes"),
    ("schedule", "schedules"),
    ("stream", "streams"),
];

/// The document, written once.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));

/// Shows the document.
pub(crate) async fn show() -> Response {
    let mut response = Response::new(Body::from(DOCUMENT.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The whole description.
fn document() -> Value {
    let mut document = serde_json::to_value(Gathered::openapi()).unwrap_or_default();
    for (kind, path) in KINDS {
        document["paths"][format!("/api/v1/{path}")] = listing(kind, path);
        let Some(operations) = one(kind).as_object().cloned() else { continue };
        for (method, operation) in operations {
            document["paths"][format!("/api/v1/{path}/{{name}}")][method] = operation;
        }
    }
    document["components"]["headers"] = headers();
    document["components"]["parameters"] = parameters();
    document["components"]["responses"] = json!({"Problem": {
        "description": "Why the request was refused (RFC 9457). Clients key on `code`.",
        "headers": {
            "x-request-id": {"$ref": "#/components/headers/RequestId"},
            "traceresponse": {"$ref": "#/components/headers/TraceResponse"},
            "Retry-After": {"$ref": "#/components/headers/RetryAfter"},
            "Allow": {"$ref": "#/components/headers/Allow"},
        },
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }});
    let Some(paths) = document["paths"].as_object_mut() else { return document };
    for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        complete(operation);
    }
    document
}

/// Adds what every operation shares.
fn complete(operation: &mut Value) {
    if let Some(responses) = operation["responses"].as_object_mut() {
        for response in responses.values_mut() {
            response["headers"]["x-request-id"] = json!({"$ref": "#/components/headers/RequestId"});
            response["headers"]["traceresponse"] = json!({"$ref": "#/components/headers/TraceResponse"});
        }
        responses.insert("default".into(), json!({"$ref": "#/components/responses/Problem"}));
    }
    let shared = ["Namespace", "TraceParent", "RequestId"]
        .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}));
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.extend(shared),
        None => operation["parameters"] = shared.to_vec().into(),
    }
}

fn headers() -> Value {
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    json!({
        "RequestId": text("The client's `x-request-id`, else the trace id."),
        "TraceResponse": text("The request's trace in the layout of `traceparent`."),
        "Allow": text("With 405: the methods that the path takes."),
        "RetryAfter": {"description": "Seconds after which the same may be tried again; with 429 and 503.",
            "schema": {"type": "integer", "minimum": 1}},
    })
}

fn parameters() -> Value {
    let header = |name: &str, description: &str| {
        json!({"name": name, "in": "header", "required": false, "description": description,
            "schema": {"type": "string"}})
    };
    json!({
        "Namespace": header("Motet-Namespace", "Tenant whose resources are meant; `default` when none is named."),
        "TraceParent": header("traceparent", "W3C trace context that the request is part of."),
        "RequestId": header("x-request-id", "Name of the request, handed back; at most 128 visible characters."),
    })
}

fn answer(description: &str, schema: &str) -> Value {
    json!({"description": description,
        "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}}})
}

/// A word with a capital.
fn titled(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// Whether what is put replaces what was there.
fn is_changed(kind: &str) -> bool {
    matches!(kind, "schedule" | "stream")
}

/// The list of a kind.
fn listing(kind: &str, path: &str) -> Value {
    let plural = titled(path);
    let versions = if is_changed(kind) { "" } else { " in their newest versions" };
    json!({"get": {
        "tags": ["definitions"],
        "operationId": format!("list{plural}"),
        "summary": format!("List {path}{versions}"),
        "responses": {"200": answer("The definitions by name.", "DefinitionList")},
    }})
}

/// Reading and putting one definition of a kind.
fn one(kind: &str) -> Value {
    let titled = titled(kind);
    let name = json!({"name": "name", "in": "path", "required": true, "schema": {"type": "string"},
        "description": format!("Name of the {kind}.")});
    let version = json!({"name": "version", "in": "query", "required": false, "schema": {"type": "string"},
        "description": "The newest when none is named."});
    json!({
        "get": {
            "tags": ["definitions"],
            "operationId": format!("get{titled}"),
            "summary": format!("Read a {kind}"),
            "parameters": [name, version],
            "responses": {"200": answer("The definition.", "Definition")},
        },
        "put": {
            "tags": ["definitions"],
            "operationId": format!("put{titled}"),
            "summary": format!("Put a version of a {kind}"),
            "description": if is_changed(kind) {
                format!("It replaces the {kind} of the name; runs that began go on.")
            } else {
                "Versions never change: the same content again is 200, other content is 409.".to_owned()
            },
            "parameters": [name],
            "requestBody": {"required": true, "content": {
                "application/yaml": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}},
            }},
            "responses": {
                "200": answer("This version is there with equal content.", "PutResult"),
                "201": answer("This version is new.", "PutResult"),
            },
        },
    })
}
