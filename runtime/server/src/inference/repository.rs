//! The models as a repository: which there are, and having them loaded and unloaded.
//!
//! Never takes definitions: those are put. Used by the routes and by the gRPC service.

use motet_engine::access::{Action, Caller};
use motet_store::port::DefinitionKind;
use serde_json::{Value, json};

use super::invalid;
use super::proto::repository_index_response::ModelIndex;
use super::served::{definition, unanswered};
use crate::http::App;
use crate::http::problem::Problem;

/// Every model of the namespace, or only those that are ready.
///
/// # Errors
/// When the store fails.
pub(crate) async fn index(app: &App, caller: &Caller, ready_only: bool) -> Result<Vec<ModelIndex>, Problem> {
    caller.may(Action::ReadDefinition)?;
    let stored = app.store.definitions(DefinitionKind::Model, Some(&caller.namespace)).await?;
    let models = stored.into_iter().map(|stored| {
        let standing = app.router.model_standing(caller, &stored.name);
        let state = match standing.state {
            "ready" => "READY",
            "loading" => "LOADING",
            _ => "UNAVAILABLE",
        };
        let (name, version) = (stored.name.to_string(), stored.version);
        ModelIndex { name, version, state: state.to_owned(), reason: standing.reason }
    });
    Ok(models.filter(|model| !ready_only || model.state == "READY").collect())
}

/// The same as JSON.
pub(crate) fn index_json(models: &[ModelIndex]) -> Value {
    let told = models.iter().map(
        |model| json!({"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}),
    );
    told.collect()
}

/// Has a model loaded, and waits for it. `parameters` are the names of those that were sent.
///
/// # Errors
/// `404` for an unknown model, `400` when it cannot be loaded or another definition is sent with the request.
pub(crate) async fn load<'a>(
    app: &App,
    caller: &Caller,
    name: &str,
    mut parameters: impl Iterator<Item = &'a str>,
) -> Result<(), Problem> {
    if let Some(sent) = parameters.find(|name| *name == "config" || name.starts_with("file:")) {
        let words = format!("'{sent}' is not taken here: put the model's definition (motet apply), then load it");
        return Err(invalid(words));
    }
    let definition = definition(app, caller, name, "").await?;
    let loaded = app.router.load_model(caller, &definition.name, app.request_timeout).await;
    loaded.map_err(|error| {
        let problem = unanswered(name, error);
        match problem.status().as_u16() {
            // The protocol's word for a load that failed.
            500 | 503 => invalid(format!("the load failed: {}", problem.detail())),
            _ => problem,
        }
    })
}

/// Has every node give a model's memory back. Its next call loads it again.
///
/// # Errors
/// `404` for an unknown model, `503` while it is being loaded.
pub(crate) async fn unload(app: &App, caller: &Caller, name: &str) -> Result<(), Problem> {
    let definition = definition(app, caller, name, "").await?;
    Ok(app.router.unload_model(caller, &definition.name, app.request_timeout).await?)
}
