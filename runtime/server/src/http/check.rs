//! Checks definitions without storing them.
//!
//! Used by the routes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use motet_actors::catalog::word;
use motet_engine::definition::Definition;
use serde::Serialize;
use utoipa::ToSchema;

use super::context::Context;
use super::definitions::identity;
use super::problem::{Mistake, Problem};
use super::{App, body, mistakes};

/// Definitions without mistakes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Checked<'a> {
    /// Always true; a document with mistakes is answered with 422.
    valid: bool,
    /// What the document defines.
    definitions: Vec<Defined<'a>>,
}

/// One definition of a checked document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Defined<'a> {
    /// `workflow`, `model`, `index`, `schedule` or `stream`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// Name.
    name: &'a str,
    /// Version.
    version: &'a str,
}

/// Check definitions without storing them
///
/// Takes a YAML or JSON document with any number of definitions and answers with all of its mistakes at once.
#[utoipa::path(post, path = "/api/v1/check", operation_id = "check", tag = "definitions",
    request_body(content((String = "application/yaml"), (serde_json::Value = "application/json"))),
    responses((status = 200, description = "There are no mistakes.", body = Checked<'static>)))]
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    context: Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    context.caller.may(motet_engine::access::Action::ReadDefinition)?;
    let bytes = body::read(&app, &headers, body).await?;
    let definitions = mistakes::definitions(&headers, &bytes)?;
    let refused: Vec<_> = definitions.iter().filter_map(|definition| refusal(&app, definition)).collect();
    if !refused.is_empty() {
        return Err(
            Problem::new(422, "invalid_definition", "this node cannot serve what is defined").with_errors(refused)
        );
    }
    let defined = definitions.iter().map(|definition| {
        let (kind, name, version) = identity(definition);
        Defined { kind: word(kind), name: name.as_str(), version }
    });
    body::answer(200, &Checked { valid: true, definitions: defined.collect() })
}

/// What this node's backends have against a definition that is right by the language.
fn refusal(app: &App, definition: &Definition) -> Option<Mistake> {
    let (name, checked) = match definition {
        Definition::Model(model) => (&model.name, app.router.models().check(model)),
        Definition::Index(index) => (&index.name, app.router.indexes().check(index)),
        Definition::Workflow(_) | Definition::Schedule(_) | Definition::Stream(_) => return None,
    };
    let failure = checked.err()?;
    Some(Mistake { detail: format!("'{name}': {}", failure.message), code: Some("backend"), ..Mistake::default() })
}
