//! Random upserts, deletions, queries and reopenings beside a naive model that keeps everything in a map.

use std::collections::BTreeMap;

use motet_engine::definition::Metric;
use motet_engine::value::Map;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::contract::{definition, map, query, record};
use crate::filter::Filter;

/// What is done next. Vectors are small whole numbers, so that products and distances are exact.
#[derive(Clone, Debug)]
enum Action {
    Upsert { namespace: u8, vectors: Vec<(u8, [i8; 3], i8)> },
    Delete { namespace: u8, ids: Vec<u8> },
    Query { namespace: u8, values: [i8; 3], top_k: u32, below: Option<i8> },
    Reopen,
}

type Model = BTreeMap<u8, BTreeMap<String, ([f32; 3], Map)>>;

fn name(namespace: u8) -> String {
    if namespace == 0 { String::new() } else { format!("n{namespace}") }
}

/// A vector that every metric takes.
fn values(raw: [i8; 3]) -> [f32; 3] {
    if raw == [0; 3] { [1.0, 0.0, 0.0] } else { raw.map(f32::from) }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let vector = || proptest::array::uniform3(-3i8..4);
    let action = prop_oneof![
        4 => (0u8..3, proptest::collection::vec((0u8..30, vector(), -5i8..5), 0..12))
            .prop_map(|(namespace, vectors)| Action::Upsert { namespace, vectors }),
        2 => (0u8..3, proptest::collection::vec(0u8..30, 0..8))
            .prop_map(|(namespace, ids)| Action::Delete { namespace, ids }),
        4 => (0u8..3, vector(), 1u32..40, proptest::option::of(-5i8..6))
            .prop_map(|(namespace, values, top_k, below)| Action::Query { namespace, values, top_k, below }),
        1 => Just(Action::Reopen),
    ];
    proptest::collection::vec(action, 1..25)
}

fn score(metric: Metric, row: [f32; 3], wanted: [f32; 3]) -> f64 {
    let sum =
        |of: fn(f64, f64) -> f64| row.iter().zip(wanted).map(|(&a, b)| of(f64::from(a), f64::from(b))).sum::<f64>();
    let length = |vector: [f32; 3]| vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let score = match metric {
        Metric::Euclidean => sum(|a, b| (a - b).powi(2)),
        Metric::Dotproduct => sum(|a, b| a * b),
        Metric::Cosine => sum(|a, b| a * b) / length(row) / length(wanted),
    };
    // -0 and 0 are one score, whose order is that of the ids.
    score + 0.0
}

/// Compares an answer with the model's. Cosines are rounded, so there only scores, set and order of equals are fixed.
fn compare(metric: Metric, matches: &[VectorMatch], rows: &[(String, f64)]) {
    assert_eq!(matches.len(), rows.len());
    for (found, (id, score)) in matches.iter().zip(rows) {
        assert!((f64::from(found.score) - score).abs() < 1e-5, "{found:?} where {id} with {score} is due");
        if metric != Metric::Cosine {
            assert_eq!(&found.id, id);
        }
    }
    let ordered = matches.windows(2).all(|pair| {
        let order = pair[0].score.total_cmp(&pair[1].score);
        let order = if metric == Metric::Euclidean { order } else { order.reverse() };
        order.then_with(|| pair[0].id.cmp(&pair[1].id)).is_lt()
    });
    assert!(ordered, "{matches:?}");
}

async fn ask(index: &dyn VectorIndex, metric: Metric, model: &Model, action: &Action) {
    let Action::Query { namespace, values: raw, top_k, below } = action else { return };
    let filter = below.map(|below| Filter::parse(&json!({"n": {"$lt": below}}).into()).unwrap());
    let wanted = values(*raw);
    let mut rows: Vec<(String, f64)> = model
        .get(namespace)
        .into_iter()
        .flatten()
        .filter(|(_, (_, metadata))| filter.as_ref().is_none_or(|filter| filter.matches(metadata)))
        .map(|(id, (row, _))| (id.clone(), score(metric, *row, wanted)))
        .collect();
    rows.sort_by(|a, b| {
        let order = a.1.total_cmp(&b.1);
        (if metric == Metric::Euclidean { order } else { order.reverse() }).then_with(|| a.0.cmp(&b.0))
    });
    rows.truncate(*top_k as usize);
    let query = VectorQuery { namespace: name(*namespace), filter, ..query(&wanted, *top_k) };
    compare(metric, &index.query(query).await.unwrap(), &rows);
}

async fn run(metric: Metric, actions: Vec<Action>) {
    let folder = tempfile::tempdir().unwrap();
    let backend = eager_backend(&folder);
    let open = || async { backend.open("k", &definition(metric, 3)).await.unwrap() };
    let (mut index, mut model) = (open().await, Model::new());
    for action in actions {
        match &action {
            Action::Upsert { namespace, vectors } => {
                let mut batch = Vec::new();
                for (id, raw, n) in vectors {
                    let (id, metadata) = (format!("id-{id}"), map(json!({"n": n})));
                    batch.push(record(&id, &values(*raw), json!({"n": n})));
                    model.entry(*namespace).or_default().insert(id, (values(*raw), metadata));
                }
                index.upsert(&name(*namespace), batch).await.unwrap();
            }
            Action::Delete { namespace, ids } => {
                let ids: Vec<String> = ids.iter().map(|id| format!("id-{id}")).collect();
                index.delete(&name(*namespace), &ids).await.unwrap();
                let rows = model.entry(*namespace).or_default();
                ids.iter().for_each(|id| drop(rows.remove(id)));
            }
            Action::Query { .. } => ask(&*index, metric, &model, &action).await,
            Action::Reopen => {
                drop(index);
                index = open().await;
            }
        }
        let expected: Vec<(String, u64)> = model
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(namespace, rows)| (name(*namespace), rows.len() as u64))
            .collect();
        let stats = index.stats().await.unwrap();
        assert_eq!(stats.namespaces, expected);
        let on_disk = std::fs::read_dir(folder.path().join("k")).unwrap().flatten();
        let segments: Vec<_> =
            on_disk.filter(|entry| entry.file_name().to_string_lossy().contains("segment")).collect();
        assert_eq!(segments.len(), 1);
        assert_eq!(stats.disk_bytes, segments[0].metadata().unwrap().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_index_does_what_a_naive_model_does(
        metric in proptest::sample::select(vec![Metric::Cosine, Metric::Dotproduct, Metric::Euclidean]),
        actions in actions(),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(metric, actions));
    }
}
