//! Promises about new runs.

use std::sync::Arc;

use futures::future::join_all;
use motet_engine::id::{Namespace, Seq};

use super::{SHARD, admission, at, entry, keyed, name, run, run_at};
use crate::StoreError;
use crate::port::{Admission, Admitted, HeadState, IdempotencyKey, RunHead, Store};

pub(super) async fn an_admitted_run_can_be_read(store: Arc<dyn Store>) {
    let new = admission(run());
    assert_eq!(store.admit(new.clone()).await.unwrap(), Admitted::New);
    let head = RunHead {
        run: new.run,
        namespace: new.namespace,
        workflow: new.workflow,
        version: new.version,
        tags: new.tags,
        state: HeadState::Pending,
        created_at: new.entry.at,
        finished_at: None,
        wake_at: None,
        line: None,
    };
    assert_eq!(store.head(new.run).await.unwrap(), Some(head.clone()));
    let loaded = store.load(new.run, false).await.unwrap().unwrap();
    assert_eq!((loaded.head, loaded.snapshot, loaded.entries), (head, None, vec![new.entry]));
    assert_eq!(store.head(run()).await.unwrap(), None);
    assert_eq!(store.load(run(), true).await.unwrap(), None);
}

pub(super) async fn the_same_key_means_the_same_run(store: Arc<dyn Store>) {
    let (first, second) = (run(), run());
    assert_eq!(store.admit(keyed(first, "k", 1)).await.unwrap(), Admitted::New);
    assert_eq!(store.admit(keyed(second, "k", 1)).await.unwrap(), Admitted::Replayed(first));
    assert_eq!(store.head(second).await.unwrap(), None);
    let elsewhere = Admission { namespace: Namespace(name("other")), ..keyed(run(), "k", 1) };
    assert_eq!(store.admit(elsewhere).await.unwrap(), Admitted::New, "a key belongs to its namespace");
}

pub(super) async fn a_key_of_another_request_is_told_apart(store: Arc<dyn Store>) {
    let first = run();
    store.admit(keyed(first, "k", 1)).await.unwrap();
    assert_eq!(store.admit(keyed(run(), "k", 2)).await.unwrap(), Admitted::KeyReused(first));
}

pub(super) async fn a_key_may_be_used_again_after_it_expired(store: Arc<dyn Store>) {
    let (first, late, later) = (run(), run_at(60_000, SHARD), run_at(61_000, SHARD));
    store.admit(keyed(first, "k", 1)).await.unwrap();
    assert_eq!(store.admit(keyed(late, "k", 2)).await.unwrap(), Admitted::New);
    assert_eq!(store.admit(keyed(later, "k", 2)).await.unwrap(), Admitted::Replayed(late));
}

pub(super) async fn one_key_used_at_once_starts_one_run(store: Arc<dyn Store>) {
    let calls = (0..32).map(|_| {
        let (store, run) = (Arc::clone(&store), run());
        tokio::spawn(async move { (run, store.admit(keyed(run, "k", 1)).await.unwrap()) })
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let new: Vec<_> = answers.iter().filter(|(_, answer)| *answer == Admitted::New).collect();
    let [(winner, _)] = new[..] else { panic!("{} runs were started", new.len()) };
    for (run, answer) in &answers {
        assert!(run == winner || *answer == Admitted::Replayed(*winner));
        assert_eq!(store.head(*run).await.unwrap().is_some(), run == winner);
    }
}

pub(super) async fn a_run_is_admitted_once(store: Arc<dyn Store>) {
    let run = run();
    store.admit(admission(run)).await.unwrap();
    let again = store.admit(admission(run)).await;
    assert!(matches!(again, Err(StoreError::SeqTaken { seq: Seq(1), .. })), "{again:?}");
    assert_eq!(store.load(run, true).await.unwrap().unwrap().entries.len(), 1);
}

pub(super) async fn impossible_admissions_are_refused(store: Arc<dyn Store>) {
    let key = |key: String| IdempotencyKey { key, fingerprint: [0; 32], expires_at: at(1) };
    let good = || admission(run());
    let wrong = [
        Admission { entry: entry(2, 1, 0), ..good() },
        Admission { entry: entry(1, 0, 0), ..good() },
        Admission { version: "1\0".to_owned(), ..good() },
        Admission { idempotency: Some(key(String::new())), ..good() },
        Admission { idempotency: Some(key("k".repeat(256))), ..good() },
    ];
    for admission in wrong {
        let (run, answer) = (admission.run, store.admit(admission).await);
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
        assert_eq!(store.head(run).await.unwrap(), None);
    }
}
