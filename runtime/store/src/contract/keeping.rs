//! Promises about bytes, definitions, epochs and forgetting.

use std::sync::Arc;

use bytes::Bytes;
use motet_engine::id::{Namespace, RunId, ShardId};
use motet_engine::value::BlobRef;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{SHARD, admission, at, head, keyed, name, owned_run, run, run_at, run_in_state};
use crate::StoreError;
use crate::port::{Admitted, DefinitionKind, HeadState, PutOutcome, Store, StoredDefinition};

pub(super) async fn bytes_are_kept_once(store: Arc<dyn Store>) {
    let data = Bytes::from(vec![0x42; 300_000]);
    let (one, two) = tokio::join!(store.put_blob(run(), data.clone()), store.put_blob(run(), data.clone()));
    let blob = one.unwrap();
    assert_eq!(blob, two.unwrap());
    assert_eq!((blob.len, blob.sha256), (300_000, Sha256::digest(&data).into()));
    assert_eq!(store.blob(blob).await.unwrap(), Some(data));
    let empty = store.put_blob(run(), Bytes::new()).await.unwrap();
    assert_eq!(store.blob(empty).await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.blob(BlobRef { sha256: [0; 32], len: 1 }).await.unwrap(), None);
}

pub(super) async fn bytes_go_with_their_last_run(store: Arc<dyn Store>) {
    let [early, late, stray] = [0, 10, 5].map(|millis| run_at(millis, SHARD));
    let mut blobs = Vec::new();
    for (run, text) in [(early, "both"), (late, "both"), (early, "early"), (late, "late"), (stray, "stray")] {
        blobs.push(store.put_blob(run, Bytes::from(text)).await.unwrap());
    }
    run_in_state(&store, early, head(HeadState::Succeeded), 100).await;
    run_in_state(&store, late, head(HeadState::Succeeded), 200).await;
    let kept = async || {
        let mut kept = Vec::new();
        for blob in &blobs {
            kept.push(store.blob(*blob).await.unwrap().is_some());
        }
        kept
    };
    assert_eq!(store.retain(at(4), at(4), 10).await.unwrap(), 0);
    assert_eq!(kept().await, [true; 5], "bytes wait for their run's admission");
    assert_eq!(store.retain(at(150), at(150), 10).await.unwrap(), 1);
    assert_eq!(kept().await, [true, true, false, true, false]);
    assert_eq!(store.retain(at(250), at(250), 10).await.unwrap(), 1);
    assert_eq!(kept().await, [false; 5]);
}

fn definition(version: &str, document: serde_json::Value) -> StoredDefinition {
    StoredDefinition {
        kind: DefinitionKind::Workflow,
        namespace: Namespace::default(),
        name: name("answer"),
        version: version.to_owned(),
        document,
        created_at: at(0),
    }
}

pub(super) async fn definitions_are_immutable_per_version(store: Arc<dyn Store>) {
    let first = definition("1", json!({"a": 0.1, "b": [1, 2]}));
    let cases = [
        (first.clone(), PutOutcome::Created),
        (first.clone(), PutOutcome::Unchanged),
        (StoredDefinition { created_at: at(9), ..first.clone() }, PutOutcome::Unchanged),
        (definition("1", json!({"b": [1, 2], "a": 0.1})), PutOutcome::Unchanged),
        (definition("1", json!({"a": 0.1})), PutOutcome::Conflict),
        (StoredDefinition { kind: DefinitionKind::Model, ..definition("1", json!(1)) }, PutOutcome::Created),
        (StoredDefinition { namespace: Namespace(name("other")), ..definition("1", json!(2)) }, PutOutcome::Created),
    ];
    for (place, (definition, expected)) in cases.into_iter().enumerate() {
        assert_eq!(store.put_definition(definition).await.unwrap(), expected, "case {place}");
    }
    let read = store.definition(first.kind, &first.namespace, &first.name, Some("1")).await.unwrap();
    assert_eq!(read, Some(first));
}

pub(super) async fn the_newest_definition_is_current(store: Arc<dyn Store>) {
    let (old, new) = (definition("9", json!("old")), definition("10", json!("new")));
    let second = StoredDefinition { name: name("beta"), ..definition("1", json!("second")) };
    let foreign = StoredDefinition { namespace: Namespace(name("other")), ..definition("1", json!("foreign")) };
    for definition in [&second, &old, &new, &old, &foreign] {
        store.put_definition(definition.clone()).await.unwrap();
    }
    let get = async |version| store.definition(old.kind, &old.namespace, &old.name, version).await.unwrap();
    assert_eq!(get(None).await.as_ref(), Some(&new));
    assert_eq!(get(Some("9")).await.as_ref(), Some(&old));
    assert_eq!(get(Some("11")).await, None);
    let own = store.definitions(old.kind, Some(&old.namespace)).await.unwrap();
    assert_eq!(own, [new.clone(), second.clone()]);
    assert_eq!(store.definitions(old.kind, None).await.unwrap(), [new, foreign, second]);
    assert!(store.definitions(DefinitionKind::Index, None).await.unwrap().is_empty());
}

pub(super) async fn ended_runs_are_forgotten(store: Arc<dyn Store>) {
    let ended: Vec<RunId> = (0..600).map(|millis| run_at(millis, SHARD)).collect();
    let each = ended.iter().map(|run| run_in_state(&store, *run, head(HeadState::Failed), 1_000));
    futures::future::join_all(each).await;
    let (live, late) = (run_at(0, SHARD), run_at(0, SHARD));
    run_in_state(&store, live, head(HeadState::Running), 1_000).await;
    run_in_state(&store, late, head(HeadState::Succeeded), 2_000).await;
    assert_eq!(store.retain(at(1_000), at(0), 1_000).await.unwrap(), 0, "not before the time");
    assert_eq!(store.retain(at(1_001), at(0), 3).await.unwrap(), 3);
    assert!(store.load(ended[2], true).await.unwrap().is_none());
    assert!(store.entries(ended[2], motet_engine::id::Seq(0), 9).await.unwrap().is_empty());
    assert!(store.head(ended[3]).await.unwrap().is_some());
    assert_eq!(store.retain(at(1_001), at(0), 1_000).await.unwrap(), 597);
    assert_eq!(store.retain(at(1_001), at(0), 1_000).await.unwrap(), 0);
    for run in [live, late] {
        assert_eq!(store.load(run, true).await.unwrap().unwrap().entries.len(), 2);
    }
    let left: u64 = store.counts().await.unwrap().iter().map(|(_, count)| count).sum();
    assert_eq!(left, 2);
    let epoch = store.epoch(SHARD).await.unwrap();
    let answer = store.append(super::append(ended[0], epoch, super::entry(3, 1, 9))).await;
    assert!(matches!(answer, Err(StoreError::UnknownRun(_))), "{answer:?}");
}

pub(super) async fn keys_outlive_their_runs_until_they_expire(store: Arc<dyn Store>) {
    let first = run();
    store.admit(keyed(first, "k", 1)).await.unwrap();
    let epoch = store.epoch(SHARD).await.unwrap();
    let mut end = super::append(first, epoch, super::entry(2, 1, 10));
    end.head = Some(head(HeadState::Succeeded));
    store.append(end).await.unwrap();
    assert_eq!(store.retain(at(20), at(20), 10).await.unwrap(), 1);
    assert_eq!(store.admit(keyed(run(), "k", 1)).await.unwrap(), Admitted::Replayed(first));
    store.retain(at(20), at(60_001), 10).await.unwrap();
    assert_eq!(store.admit(keyed(run(), "k", 1)).await.unwrap(), Admitted::New);
}

pub(super) async fn epochs_only_grow(store: Arc<dyn Store>) {
    assert_eq!(store.epoch(ShardId(3)).await.unwrap().0, 0);
    for expected in 1..=3 {
        assert_eq!(store.claim(ShardId(3), "owner").await.unwrap().0, expected);
        assert_eq!(store.epoch(ShardId(3)).await.unwrap().0, expected);
    }
    let claims = (0..16).map(|_| store.claim(ShardId(4), "owner"));
    let mut epochs: Vec<u64> =
        futures::future::join_all(claims).await.into_iter().map(|epoch| epoch.unwrap().0).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=16).collect::<Vec<_>>());
}

pub(super) async fn a_closed_store_refuses_writes(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let (last, closed) = tokio::join!(store.append(super::append(run, epoch, super::entry(2, 1, 1))), store.close());
    last.unwrap();
    closed.unwrap();
    store.close().await.unwrap();
    let answer = store.append(super::append(run, epoch, super::entry(3, 1, 1))).await;
    assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
    let answer = store.admit(admission(super::run())).await;
    assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
}
