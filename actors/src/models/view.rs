//! A model as the API shows it: where it stands, what it takes and gives, what it did.
//!
//! Never changes anything. Used by `models`.

use motet_engine::failure::Failure;
use motet_engine::id::{Name, Namespace};
use motet_models::port::{LoadedModel, TensorSpec};
use serde::Serialize;

use super::{Entry, Loading, Status};
use crate::stats::ModelFigures;

/// A model as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ModelView {
    /// Tenant.
    pub namespace: Namespace,
    /// Name.
    pub name: Name,
    /// Version.
    pub version: String,
    /// Backend.
    pub backend: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// How far the load has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loading: Option<Loading>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What it takes, gives and is, once it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<serde_json::Value>,
    /// What it did.
    pub figures: ModelFigures,
}

/// How a model stands now.
pub(super) fn view((namespace, name): &(Namespace, Name), entry: &Entry) -> ModelView {
    let status = entry.status.borrow().clone();
    let (state, loading, error, signature) = match status {
        Status::Loading(loading) => ("loading", Some(loading), None, None),
        Status::Ready { model, .. } => ("ready", None, None, Some(signature(&*model))),
        Status::Failed { failure, .. } => ("failed", None, Some(failure), None),
    };
    ModelView {
        namespace: namespace.clone(),
        name: name.clone(),
        version: entry.definition.version.clone(),
        backend: entry.definition.backend.clone(),
        state,
        loading,
        error,
        signature,
        figures: entry.stats.figures(),
    }
}

fn signature(model: &dyn LoadedModel) -> serde_json::Value {
    let signature = model.signature();
    let specs = |specs: &[TensorSpec]| -> Vec<serde_json::Value> {
        specs
            .iter()
            .map(|spec| {
                let shape: Vec<i64> =
                    spec.shape.iter().map(|n| n.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX))).collect();
                serde_json::json!({"name": spec.name, "datatype": spec.datatype.as_str(), "shape": shape})
            })
            .collect()
    };
    serde_json::json!({
        "inputs": specs(&signature.inputs),
        "outputs": specs(&signature.outputs),
        "memory_bytes": signature.memory_bytes,
        "facts": signature.facts,
    })
}
