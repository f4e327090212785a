//! The embedded index: the contract, what survives a crash, and a naive model beside it.

mod durability;
mod model;

use motet_engine::definition::Metric;
use tempfile::TempDir;

use super::*;
use crate::contract::{self, definition};

/// A backend that rewrites segments at every chance.
fn eager_backend(folder: &TempDir) -> EmbeddedBackend {
    EmbeddedBackend { folder: folder.path().to_owned(), compaction: Compaction { min_dead_bytes: 0, not_before: 0 } }
}

#[tokio::test]
async fn the_contract_holds() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let count = Arc::new(AtomicU64::new(0));
    contract::check(&move |metric: Metric, dimension: u32| {
        let (backend, number) = (EmbeddedBackend::new(&root), count.fetch_add(1, Ordering::Relaxed));
        Box::pin(async move { backend.open(&format!("index-{number}"), &definition(metric, dimension)).await.unwrap() })
    })
    .await;
}

#[tokio::test]
async fn many_searches_run_beside_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let index: Arc<dyn VectorIndex> =
        EmbeddedBackend::new(folder.path()).open("k", &definition(Metric::Euclidean, 2)).await.unwrap().into();
    let writer = tokio::spawn({
        let index = Arc::clone(&index);
        async move {
            for round in 0..30u32 {
                let batch = (0..50u32).map(|n| {
                    contract::record(
                        &format!("{n}"),
                        &[round as f32, round as f32],
                        serde_json::json!({"round": round}),
                    )
                });
                index.upsert("", batch.collect()).await.unwrap();
            }
        }
    });
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let index = Arc::clone(&index);
            tokio::spawn(async move {
                for _ in 0..50 {
                    let query = VectorQuery { include_values: true, ..contract::query(&[0.0, 0.0], 50) };
                    let matches = index.query(query).await.unwrap();
                    // A batch is seen whole or not at all.
                    assert!(matches.is_empty() || matches.len() == 50);
                    assert!(matches.windows(2).all(|pair| pair[0].values == pair[1].values));
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn an_index_is_opened_once_and_as_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let backend = EmbeddedBackend::new(folder.path());
    let cosine = definition(Metric::Cosine, 3);
    let index = backend.open("ns.index", &cosine).await.unwrap();
    let twice = backend.open("ns.index", &cosine).await.err().unwrap();
    assert_eq!(twice.class, FailureClass::Unavailable);
    assert!(twice.message.contains(&format!("in use by process {}", std::process::id())), "{twice}");
    index.close().await;
    for other in [definition(Metric::Cosine, 4), definition(Metric::Euclidean, 3)] {
        let failure = backend.open("ns.index", &other).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Invalid);
        assert!(failure.message.contains("dimension 3 and metric Cosine"), "{failure}");
    }
    backend.open("ns.index", &cosine).await.unwrap();
    for key in ["", "..", ".hidden", "a/b", "a\\b", "a\0b", &"k".repeat(256)] {
        assert_eq!(backend.open(key, &cosine).await.err().unwrap().class, FailureClass::Invalid, "{key}");
    }
    for dimension in [0, 20_001] {
        assert!(backend.open("x", &definition(Metric::Cosine, dimension)).await.is_err());
    }
}
