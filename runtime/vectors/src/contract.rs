//! What every index must do, whatever keeps it: one suite over `Box<dyn VectorIndex>`.
//!
//! Never knows which index it tests. Used by the tests of each implementation through [`check`].

use std::future::Future;
use std::pin::Pin;

use motet_engine::definition::{BatchPolicy, IndexDefinition, Metric};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::{Map, Value};
use serde_json::json;

use crate::filter::Filter;
use crate::port::{VectorIndex, VectorMatch, VectorQuery, VectorRecord};

/// Gives a fresh, empty index.
pub(crate) type Open<'a> = &'a (dyn Fn(Metric, u32) -> Pin<Box<dyn Future<Output = Box<dyn VectorIndex>>>> + Sync);

/// A definition with nothing but what an index needs.
pub(crate) fn definition(metric: Metric, dimension: u32) -> IndexDefinition {
    IndexDefinition {
        name: "test".parse().unwrap(),
        backend: "embedded".to_owned(),
        dimension,
        metric,
        batch: BatchPolicy::default(),
        document: serde_json::Value::Null,
    }
}

/// A map from JSON.
pub(crate) fn map(json: serde_json::Value) -> Map {
    match Value::from(json) {
        Value::Map(map) => (*map).clone(),
        other => panic!("{other:?} is no map"),
    }
}

/// A vector.
pub(crate) fn record(id: &str, values: &[f32], metadata: serde_json::Value) -> VectorRecord {
    VectorRecord { id: id.to_owned(), values: values.to_vec(), metadata: map(metadata) }
}

/// A query for everything near `values` in the default namespace.
pub(crate) fn query(values: &[f32], top_k: u32) -> VectorQuery {
    VectorQuery {
        namespace: String::new(),
        values: values.to_vec(),
        top_k,
        filter: None,
        include_values: false,
        include_metadata: false,
    }
}

/// Runs the whole suite.
pub(crate) async fn check(open: Open<'_>) {
    scores_and_order(open).await;
    ties_go_by_id(open).await;
    upserts_replace(open).await;
    namespaces_are_apart(open).await;
    filters_choose(open).await;
    matches_carry_what_was_asked_for(open).await;
    limits_are_told(open).await;
    a_refused_batch_changes_nothing(open).await;
    closing_is_final(open).await;
}

fn ids(matches: &[VectorMatch]) -> Vec<&str> {
    matches.iter().map(|found| found.id.as_str()).collect()
}

async fn fill(index: &dyn VectorIndex, vectors: &[(&str, [f32; 2])]) {
    let records = vectors.iter().map(|(id, values)| record(id, values, json!({}))).collect();
    index.upsert("", records).await.unwrap();
}

async fn scores_and_order(open: Open<'_>) {
    let vectors = [("far", [-3.0, 4.0]), ("near", [3.0, 4.0]), ("nearer", [6.0, 8.0])];
    for (metric, expected) in [
        (Metric::Cosine, [("near", 1.0), ("nearer", 1.0), ("far", 0.28)]),
        (Metric::Dotproduct, [("nearer", 100.0), ("near", 50.0), ("far", 14.0)]),
        (Metric::Euclidean, [("nearer", 0.0), ("near", 25.0), ("far", 97.0)]),
    ] {
        let index = open(metric, 2).await;
        fill(&*index, &vectors).await;
        let matches = index.query(query(&[6.0, 8.0], 10)).await.unwrap();
        assert_eq!(ids(&matches), expected.map(|(id, _)| id), "{metric:?}");
        for (found, (_, score)) in matches.iter().zip(expected) {
            assert!((found.score - score).abs() < 1e-5, "{metric:?} {found:?} instead of {score}");
        }
    }
}

async fn ties_go_by_id(open: Open<'_>) {
    for metric in [Metric::Cosine, Metric::Dotproduct, Metric::Euclidean] {
        let index = open(metric, 2).await;
        fill(&*index, &[("c", [1.0, 0.0]), ("a", [1.0, 0.0]), ("d", [1.0, 0.0]), ("b", [1.0, 0.0])]).await;
        let matches = index.query(query(&[1.0, 0.0], 3)).await.unwrap();
        assert_eq!(ids(&matches), ["a", "b", "c"], "{metric:?}");
        let across = index.query(query(&[0.0, 1.0], 3)).await.unwrap();
        assert_eq!(ids(&across), ["a", "b", "c"], "{metric:?}");
    }
}

async fn upserts_replace(open: Open<'_>) {
    let index = open(Metric::Dotproduct, 2).await;
    fill(&*index, &[("a", [1.0, 0.0]), ("b", [0.0, 1.0])]).await;
    index.upsert("", vec![record("a", &[5.0, 5.0], json!({"new": true}))]).await.unwrap();
    let fetched = index.fetch("", &["a".to_owned(), "missing".to_owned(), "a".to_owned()]).await.unwrap();
    assert_eq!(fetched, [record("a", &[5.0, 5.0], json!({"new": true}))]);
    index.delete("", &["b".to_owned(), "missing".to_owned()]).await.unwrap();
    assert_eq!(ids(&index.query(query(&[1.0, 1.0], 10)).await.unwrap()), ["a"]);
    // Of one id twice in a batch the last one stays.
    fill(&*index, &[("c", [1.0, 1.0]), ("c", [2.0, 2.0])]).await;
    assert_eq!(index.fetch("", &["c".to_owned()]).await.unwrap()[0].values, [2.0, 2.0]);
}

async fn namespaces_are_apart(open: Open<'_>) {
    let index = open(Metric::Cosine, 2).await;
    fill(&*index, &[("a", [1.0, 0.0])]).await;
    index.upsert("other", vec![record("a", &[0.0, 1.0], json!({}))]).await.unwrap();
    let stats = index.stats().await.unwrap();
    assert_eq!((stats.dimension, stats.metric), (2, Metric::Cosine));
    assert_eq!(stats.namespaces, [(String::new(), 1), ("other".to_owned(), 1)]);
    index.delete("", &["a".to_owned()]).await.unwrap();
    assert!(index.query(query(&[1.0, 0.0], 1)).await.unwrap().is_empty());
    assert_eq!(index.fetch("other", &["a".to_owned()]).await.unwrap().len(), 1);
    assert_eq!(index.stats().await.unwrap().namespaces, [("other".to_owned(), 1)]);
    assert!(index.query(VectorQuery { namespace: "none".into(), ..query(&[1.0, 0.0], 1) }).await.unwrap().is_empty());
}

async fn filters_choose(open: Open<'_>) {
    let index = open(Metric::Dotproduct, 1).await;
    let records = (0..100u32).map(|n| record(&format!("{n:02}"), &[n as f32], json!({"n": n, "even": n % 2 == 0})));
    index.upsert("", records.collect()).await.unwrap();
    for (filter, expected) in [
        (json!({"n": {"$lt": 10}, "even": true}), vec!["08", "06", "04"]),
        (json!({"n": {"$in": [3, 50, 1000]}}), vec!["50", "03"]),
        (json!({"missing": {"$exists": true}}), vec![]),
        (json!({}), vec!["99", "98", "97"]),
    ] {
        let filter = Some(Filter::parse(&filter.into()).unwrap());
        let matches = index.query(VectorQuery { filter, ..query(&[1.0], 3) }).await.unwrap();
        assert_eq!(ids(&matches), expected);
    }
}

async fn matches_carry_what_was_asked_for(open: Open<'_>) {
    let index = open(Metric::Cosine, 2).await;
    let stored = record("a", &[3.0, 4.0], json!({"kind": "x", "tags": ["p", "q"], "n": 1.5}));
    index.upsert("", vec![stored.clone()]).await.unwrap();
    let bare = index.query(query(&[1.0, 0.0], 1)).await.unwrap();
    assert_eq!((&bare[0].values, &bare[0].metadata), (&None, &None));
    let full = VectorQuery { include_values: true, include_metadata: true, ..query(&[1.0, 0.0], 1) };
    let full = index.query(full).await.unwrap();
    assert_eq!(full[0].values.as_ref(), Some(&stored.values), "as stored, not of length one");
    assert_eq!(full[0].metadata.as_ref(), Some(&stored.metadata));
}

fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, words: &str) {
    let failure = result.unwrap_err();
    assert_eq!(failure.class, FailureClass::Invalid, "{failure}");
    assert!(failure.message.contains(words), "'{}' does not say '{words}'", failure.message);
}

async fn limits_are_told(open: Open<'_>) {
    let index = open(Metric::Cosine, 2).await;
    let bad_vectors: [(&[f32], &str); 5] = [
        (&[1.0], "dimension 2"),
        (&[f32::NAN, 1.0], "value 0 is NaN"),
        (&[1.0, f32::INFINITY], "value 1 is inf"),
        (&[0.0, 0.0], "no direction"),
        (&[1e30, 1e30], "too large"),
    ];
    for (values, words) in bad_vectors {
        refused(index.upsert("", vec![record("a", values, json!({}))]).await, words);
        refused(index.query(query(values, 1)).await, words);
    }
    let fine = [1.0, 0.0];
    for (bad, words) in [
        (record("", &fine, json!({})), "id is empty"),
        (record(&"i".repeat(513), &fine, json!({})), "513 bytes"),
        (record("a", &fine, json!({"nested": {"x": 1}})), "'nested' is a map"),
        (record("a", &fine, json!({"gone": null})), "'gone' is null"),
        (record("a", &fine, json!({"list": [1]})), "'list' is a list of other things"),
        (record("a", &fine, json!({"long": "x".repeat(40 << 10)})), "at most 40960"),
    ] {
        refused(index.upsert("", vec![bad]).await, words);
    }
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    refused(index.upsert("", many.iter().map(|id| record(id, &fine, json!({}))).collect()).await, "at most 1000");
    refused(index.fetch("", &many).await, "at most 1000");
    refused(index.delete("", &many).await, "at most 1000");
    refused(index.delete("", &[String::new()]).await, "id is empty");
    refused(index.query(query(&fine, 0)).await, "1 to 10000");
    refused(index.query(query(&fine, 10_001)).await, "1 to 10000");
    refused(index.upsert(&"n".repeat(513), vec![]).await, "513 bytes");
    index.upsert("", vec![record(&"i".repeat(512), &fine, json!({}))]).await.unwrap();
    let plain = open(Metric::Dotproduct, 2).await;
    plain.upsert("", vec![record("zero", &[0.0, 0.0], json!({}))]).await.unwrap();
}

async fn a_refused_batch_changes_nothing(open: Open<'_>) {
    let index = open(Metric::Cosine, 2).await;
    let batch = vec![record("good", &[1.0, 0.0], json!({})), record("bad", &[0.0, 0.0], json!({}))];
    refused(index.upsert("", batch).await, "vector 1 ('bad')");
    assert!(index.stats().await.unwrap().namespaces.is_empty());
}

async fn closing_is_final(open: Open<'_>) {
    let index = open(Metric::Cosine, 2).await;
    index.close().await;
    index.close().await;
    for failure in [
        index.upsert("", vec![record("a", &[1.0, 0.0], json!({}))]).await.unwrap_err(),
        index.upsert("", vec![]).await.unwrap_err(),
        index.query(query(&[1.0, 0.0], 1)).await.unwrap_err(),
        index.fetch("", &[]).await.unwrap_err(),
        index.delete("", &[]).await.unwrap_err(),
        index.stats().await.unwrap_err(),
    ] {
        assert_eq!(failure.class, FailureClass::Unavailable, "{failure}");
    }
}
