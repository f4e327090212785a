//! The models that clients may call, and what is known of each.
//!
//! Keeps what models take and give, which never changes for a version, so that only the first call of a version asks the
//! node that has it. Used by every call of the protocol that names a model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use motet_actors::message::RouteError;
use motet_actors::models::ModelDescription;
use motet_engine::access::{Action, Caller};
use motet_engine::definition::ModelDefinition;
use motet_engine::id::{Name, Namespace};

use crate::http::App;
use crate::http::problem::Problem;

/// Descriptions that are kept; more than a cluster has models, and bounded all the same.
const KEPT: usize = 4096;

/// Seconds after which a model that could not be loaded may be there.
const LOAD_AGAIN: u64 = 5;

/// Descriptions of models in their newest versions, as they were told.
#[derive(Default)]
pub(crate) struct Descriptions(Mutex<HashMap<(Namespace, Name), Arc<ModelDescription>>>);

impl Descriptions {
    fn get(&self, key: &(Namespace, Name), version: &str) -> Option<Arc<ModelDescription>> {
        // A map is whole whatever happened to another thread.
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|kept| kept.version == version).cloned()
    }

    fn keep(&self, key: (Namespace, Name), description: &Arc<ModelDescription>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, Arc::clone(description));
    }
}

/// A model that may be called.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// The newest definition of its name.
    pub(crate) definition: Arc<ModelDefinition>,
    /// What it takes and gives.
    pub(crate) description: Arc<ModelDescription>,
}

/// The definition of a model by the name that a client gave, in the version that it asks for.
///
/// # Errors
/// `404` for a name or version that does not exist: only the newest version of a model is served.
pub(crate) async fn definition(
    app: &App,
    caller: &Caller,
    name: &str,
    version: &str,
) -> Result<Arc<ModelDefinition>, Problem> {
    caller.may(Action::InferModel)?;
    let unknown = || Problem::new(404, "not_found", format!("model '{name}' does not exist"));
    let key = Name::new(name).map_err(|_| unknown())?;
    let definition = app.router.catalog().known_model(&caller.namespace, &key).await?;
    if !version.is_empty() && version != definition.version {
        let words = format!("model '{name}' is served in version '{}', not '{version}'", definition.version);
        return Err(Problem::new(404, "not_found", words));
    }
    Ok(definition)
}

/// The same with what the model takes and gives; it is loaded for that if need be.
///
/// # Errors
/// As [`definition`], and why the model cannot be loaded within `patience`.
pub(crate) async fn served(
    app: &App,
    caller: &Caller,
    name: &str,
    version: &str,
    patience: Duration,
) -> Result<Served, Problem> {
    let definition = definition(app, caller, name, version).await?;
    let key = (caller.namespace.clone(), definition.name.clone());
    if let Some(description) = app.descriptions.get(&key, &definition.version) {
        return Ok(Served { definition, description });
    }
    let described = app.router.describe_model(caller, &definition.name, patience).await;
    let description = Arc::new(described.map_err(|error| unanswered(name, error))?);
    app.descriptions.keep(key, &description);
    Ok(Served { definition, description })
}

/// Why a model that exists did not answer. What kept it from being loaded, such as a file that is not found, says nothing
/// about the request.
pub(crate) fn unanswered(name: &str, error: RouteError) -> Problem {
    match error {
        RouteError::Absent(failure) => {
            let words = format!("model '{name}' is not ready: {}", failure.message);
            Problem::new(503, "unavailable", words).retry_after(LOAD_AGAIN)
        }
        error => error.into(),
    }
}

/// Whether a model can be called without waiting for its load. One that nobody asked for since this node started begins
/// to be loaded: a client that waits for readiness before it calls would wait for ever otherwise.
///
/// # Errors
/// As [`definition`], and `503` with the reason where it is not ready.
pub(crate) async fn ready(app: &App, caller: &Caller, name: &str, version: &str) -> Result<(), Problem> {
    let definition = definition(app, caller, name, version).await?;
    let standing = app.router.model_standing(caller, &definition.name);
    if standing.state == "ready" {
        return Ok(());
    }
    let asked_for = app.router.models().view(&caller.namespace, &definition.name).is_some();
    // Among several nodes this one does not know who was asked before.
    if standing.state == "unloaded" && !asked_for && app.router.is_alone() {
        app.router.begin_load(caller, &definition.name).await?;
    }
    Err(Problem::new(503, "unavailable", format!("model '{name}' is not ready: {}", standing.reason)).retry_after(1))
}
