//! A model as it is shown: to the API where it stands, what it takes and gives, what it did; to other nodes whether
//! they may call it.
//!
//! Never changes anything. Used by `models`.

use std::collections::BTreeMap;

use motet_cluster::members::{MAX_REPLICAS, ModelName, Replica};
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::Failure;
use motet_engine::id::{Name, Namespace};
use motet_models::port::{LoadedModel, TensorSpec};
use serde::Serialize;

use super::{Entry, LOAD_AGAIN_AFTER, Loading, Models, Status};
use crate::stats::ModelFigures;

/// Batches of each copy that may wait before a model counts as having no room for others.
const SOON_BATCHES: u32 = 4;

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
    /// `loading`, `ready`, `failed` or `unloaded`.
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

/// A node of a cluster that has a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelNode {
    /// Its name.
    pub node: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// Calls that it would still take, as it told last.
    pub spare_queue: u32,
}

impl ModelNode {
    /// A node that tells this of the model.
    pub(crate) fn new(node: &str, replica: &Replica) -> Self {
        let state = match replica {
            Replica { ready: true, .. } => "ready",
            Replica { failed: true, .. } => "failed",
            _ => "loading",
        };
        Self { node: node.to_owned(), state, spare_queue: replica.spare_queue }
    }
}

impl Models {
    /// How one model does, in the words in which it is told to other nodes.
    pub(crate) fn replica(&self, namespace: &Namespace, name: &Name) -> Option<Replica> {
        let entry = self.entries.get(&(namespace.clone(), name.clone()))?;
        replica(&entry)
    }

    /// How all models do, as many as may be told.
    pub(crate) fn replicas(&self) -> BTreeMap<ModelName, Replica> {
        let named =
            |(namespace, name): &(Namespace, Name)| ModelName { namespace: namespace.clone(), name: name.clone() };
        let all = self.entries.iter().filter_map(|entry| Some((named(entry.key()), replica(entry.value())?)));
        let mut all: Vec<_> = all.collect();
        if all.len() > MAX_REPLICAS {
            // Those that can be called are told first.
            all.sort_by(|(a, one), (b, other)| other.ready.cmp(&one.ready).then_with(|| a.cmp(b)));
            all.truncate(MAX_REPLICAS);
        }
        all.into_iter().collect()
    }
}

fn replica(entry: &Entry) -> Option<Replica> {
    match &*entry.status.borrow() {
        Status::Loading(_) => Some(Replica::default()),
        Status::Ready { model, .. } => Some(Replica {
            spare_queue: spare(entry),
            ready: true,
            failed: false,
            memory_bytes: model.signature().memory_bytes.saturating_mul(u64::from(entry.definition.replicas)),
        }),
        Status::Failed { since, .. } if since.elapsed() >= LOAD_AGAIN_AFTER => None,
        Status::Failed { .. } => Some(Replica { failed: true, ..Replica::default() }),
        Status::Left => None,
    }
}

fn spare(entry: &Entry) -> u32 {
    let free = u32::try_from(entry.places.available_permits()).unwrap_or(u32::MAX);
    room(&entry.definition, free)
}

/// Calls that a model should still be given of which `free` places are left: its queue takes more of them than are soon
/// done, so that a second node that has the model is worth it long before the queue is full.
fn room(ModelDefinition { queue, batch, replicas, .. }: &ModelDefinition, free: u32) -> u32 {
    let soon = batch.max.saturating_mul(*replicas).saturating_mul(SOON_BATCHES);
    free.min(soon.saturating_sub(queue.saturating_sub(free)))
}

/// How a model stands now.
pub(super) fn view((namespace, name): &(Namespace, Name), entry: &Entry) -> ModelView {
    let status = entry.status.borrow().clone();
    let (state, loading, error, signature) = match status {
        Status::Loading(loading) => ("loading", Some(loading), None, None),
        Status::Ready { model, .. } => ("ready", None, None, Some(signature(&*model))),
        Status::Failed { failure, .. } => ("failed", None, Some(failure), None),
        Status::Left => ("unloaded", None, None, None),
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
        figures: entry.history.stats.figures(),
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

#[cfg(test)]
mod tests {
    use motet_engine::definition::Definition;
    use motet_engine::definition::document::parse_definitions;

    use super::*;

    #[test]
    fn a_model_has_room_for_what_is_soon_done() {
        for (queue, batch, replicas, free, expected) in [
            (100, 8, 1, 100, 32),
            (100, 8, 1, 90, 22),
            (100, 8, 1, 68, 0),
            (100, 8, 2, 68, 32),
            (100, 8, 1, 0, 0),
            (10, 8, 1, 10, 10),
            (1, 1, 1, 1, 1),
            (1, 1, 1, 0, 0),
        ] {
            let yaml = format!(
                "{{kind: Model, name: m, backend: fake, queue: {queue}, batch: {{max: {batch}}}, replicas: {replicas}}}"
            );
            let parsed = parse_definitions("m.yaml", &yaml).unwrap();
            let Definition::Model(model) = &parsed[0] else { panic!("{parsed:?}") };
            assert_eq!(room(model, free), expected, "{yaml} {free}");
        }
    }
}
