//! Promises about the journal, its fence and its snapshots.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use motet_engine::id::{Epoch, RunId, Seq, ShardId};

use super::{START, admission, append, at, entry, head, owned_run, run, run_at};
use crate::StoreError;
use crate::port::{Append, Entry, HeadChange, HeadState, Snapshot, Store};

pub(super) async fn appends_come_back_in_order(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let empty = Entry { payload: Bytes::new(), ..entry(2, 3, 1) };
    let large = Entry { payload: Bytes::from(vec![0xA5; 1 << 20]), ..entry(5, 1, 2) };
    let written = [entry(1, 1, 0), empty, large, entry(6, 2, 3)];
    for entry in &written[1..] {
        store.append(append(run, epoch, entry.clone())).await.unwrap();
    }
    assert_eq!(store.load(run, false).await.unwrap().unwrap().entries, written);
    for (after, limit, expected) in
        [(0, 10, 0..4), (0, 2, 0..2), (1, 10, 1..4), (2, 1, 1..2), (4, 10, 2..4), (7, 9, 4..4)]
    {
        let read = store.entries(run, Seq(after), limit).await.unwrap();
        assert_eq!(read, written[expected], "after {after}, at most {limit}");
    }
    assert!(store.entries(run, Seq(u64::MAX), 10).await.unwrap().is_empty());
}

pub(super) async fn a_taken_number_is_refused(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    store.append(append(run, epoch, entry(2, 3, 1))).await.unwrap();
    for seq in [0, 1, 2, 3, 4] {
        let again = store.append(append(run, epoch, entry(seq, 1, 2))).await;
        assert!(matches!(again, Err(StoreError::SeqTaken { .. })), "{seq}: {again:?}");
    }
    store.append(append(run, epoch, entry(5, 1, 3))).await.unwrap();
    assert_eq!(store.load(run, true).await.unwrap().unwrap().entries.len(), 3);
}

pub(super) async fn a_hole_is_refused(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    for wrong in [entry(3, 1, 1), entry(2, 0, 1), entry(u64::MAX, 1, 1), entry(i64::MAX.unsigned_abs(), 1, 1)] {
        let answer = store.append(append(run, epoch, wrong)).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }
    assert_eq!(store.load(run, true).await.unwrap().unwrap().entries.len(), 1);
}

pub(super) async fn an_unknown_run_is_refused(store: Arc<dyn Store>) {
    let epoch = store.claim(run().shard(), "owner").await.unwrap();
    let stranger = run();
    let answer = store.append(append(stranger, epoch, entry(2, 1, 0))).await;
    assert!(matches!(answer, Err(StoreError::UnknownRun(run)) if run == stranger), "{answer:?}");
    let snapshot = Snapshot { seq: Seq(1), schema: 1, state: Bytes::from_static(b"s") };
    let answer = store.save_snapshot(stranger, epoch, snapshot).await;
    assert!(matches!(answer, Err(StoreError::UnknownRun(_))), "{answer:?}");
    store.admit(admission(stranger)).await.unwrap();
    store.append(append(stranger, epoch, entry(2, 1, 0))).await.unwrap();
}

pub(super) async fn an_old_epoch_is_refused(store: Arc<dyn Store>) {
    let (run, old) = owned_run(&store).await;
    store.append(append(run, old, entry(2, 1, 1))).await.unwrap();
    let new = store.claim(run.shard(), "another").await.unwrap();
    assert!(new > old);
    let answer = store.append(append(run, old, entry(3, 1, 2))).await;
    let expected = (run.shard(), old, new);
    assert!(
        matches!(answer, Err(StoreError::Fenced { shard, carried, current }) if (shard, carried, current) == expected),
        "{answer:?}"
    );
    let snapshot = Snapshot { seq: Seq(2), schema: 1, state: Bytes::from_static(b"s") };
    let answer = store.save_snapshot(run, old, snapshot).await;
    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "{answer:?}");
    let answer = store.append(append(run, Epoch(new.0 + 1), entry(3, 1, 2))).await;
    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "an epoch that nobody gave: {answer:?}");
    store.append(append(run, new, entry(3, 1, 2))).await.unwrap();
}

/// All of them wait for the same commit: the claim stands between appends of the old owner.
pub(super) async fn a_claim_fences_what_comes_after_it(store: Arc<dyn Store>) {
    let (first, old) = owned_run(&store).await;
    let second = run();
    store.admit(admission(second)).await.unwrap();
    let (before, claim, after) = tokio::join!(
        store.append(append(first, old, entry(2, 1, 1))),
        store.claim(first.shard(), "another"),
        store.append(append(second, old, entry(2, 1, 1))),
    );
    before.unwrap();
    let new = claim.unwrap();
    assert!(matches!(after, Err(StoreError::Fenced { current, .. }) if current == new), "{after:?}");
    assert_eq!(store.load(second, true).await.unwrap().unwrap().entries.len(), 1);
}

pub(super) async fn heads_follow_appends(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let waiting = HeadChange { state: HeadState::Waiting, wake_at: Some(at(500)), leaves_line: false };
    let ended = HeadChange { state: HeadState::Failed, wake_at: Some(at(900)), leaves_line: false };
    let steps = [
        (Some(waiting), (HeadState::Waiting, Some(at(500)), None)),
        (None, (HeadState::Waiting, Some(at(500)), None)),
        (Some(head(HeadState::Running)), (HeadState::Running, None, None)),
        (Some(ended), (HeadState::Failed, None, Some(at(5)))),
        (Some(head(HeadState::Running)), (HeadState::Running, None, None)),
        (Some(head(HeadState::Succeeded)), (HeadState::Succeeded, None, Some(at(7)))),
    ];
    for (place, (change, expected)) in steps.into_iter().enumerate() {
        let seq = place as u64 + 2;
        let step = Append { head: change, ..append(run, epoch, entry(seq, 1, seq.cast_signed())) };
        store.append(step).await.unwrap();
        let head = store.head(run).await.unwrap().unwrap();
        assert_eq!((head.state, head.wake_at, head.finished_at), expected, "step {place}");
        assert_eq!(head.created_at, START);
    }
}

pub(super) async fn bad_writes_do_not_hurt_their_neighbours(store: Arc<dyn Store>) {
    let (good, epoch) = owned_run(&store).await;
    let twice = run();
    let (first, unknown, hole, again, taken, second) = tokio::join!(
        store.append(append(good, epoch, entry(2, 1, 1))),
        store.append(append(run(), epoch, entry(2, 1, 1))),
        store.append(append(good, epoch, entry(9, 1, 1))),
        async { (store.admit(admission(twice)).await, store.admit(admission(twice)).await) },
        store.append(append(good, epoch, entry(2, 1, 1))),
        store.append(append(good, epoch, entry(3, 1, 1))),
    );
    first.unwrap();
    second.unwrap();
    assert!(matches!(unknown, Err(StoreError::UnknownRun(_))), "{unknown:?}");
    assert!(matches!(hole, Err(StoreError::Refused(_))), "{hole:?}");
    assert!(matches!(taken, Err(StoreError::SeqTaken { .. })), "{taken:?}");
    assert!(matches!(again, (Ok(_), Err(StoreError::SeqTaken { .. }))), "{again:?}");
    assert_eq!(store.load(good, true).await.unwrap().unwrap().entries.len(), 3);
    assert_eq!(store.load(twice, true).await.unwrap().unwrap().entries.len(), 1);
}

pub(super) async fn a_thousand_writers_leave_whole_journals(store: Arc<dyn Store>) {
    const SHARDS: u16 = 4;
    for shard in 0..SHARDS {
        store.claim(ShardId(shard), "owner").await.unwrap();
    }
    let runs: Vec<RunId> = (0..1_000u16).map(|place| run_at(i64::from(place), ShardId(place % SHARDS))).collect();
    let writers = runs.iter().map(|&run| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store.admit(admission(run)).await.unwrap();
            for seq in 2..=4 {
                let head = (seq == 4).then_some(head(HeadState::Succeeded));
                let step = Append { head, ..append(run, Epoch(1), entry(seq, 1, seq.cast_signed())) };
                store.append(step).await.unwrap();
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    for run in &runs {
        let loaded = store.load(*run, true).await.unwrap().unwrap();
        let numbers: Vec<u64> = loaded.entries.iter().map(|entry| entry.seq.0).collect();
        assert_eq!((numbers, loaded.head.state), (vec![1, 2, 3, 4], HeadState::Succeeded), "{run}");
    }
    let health = store.health();
    assert_eq!((health.fault, health.entries, health.queued), (None, 4_000, 0));
}

pub(super) async fn a_snapshot_shortens_loading(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    for seq in [2, 4, 6] {
        store.append(append(run, epoch, entry(seq, 2, 1))).await.unwrap();
    }
    for (seq, left) in [(3, 2), (4, 2), (5, 1), (7, 0)] {
        let snapshot = Snapshot { seq: Seq(seq), schema: 9, state: Bytes::from(vec![1; 5_000]) };
        store.save_snapshot(run, epoch, snapshot.clone()).await.unwrap();
        let loaded = store.load(run, false).await.unwrap().unwrap();
        assert_eq!((loaded.snapshot, loaded.entries.len()), (Some(snapshot), left), "snapshot at {seq}");
    }
    let whole = store.load(run, true).await.unwrap().unwrap();
    assert_eq!((whole.snapshot, whole.entries.len()), (None, 4));
}

pub(super) async fn an_older_snapshot_changes_nothing(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    store.append(append(run, epoch, entry(2, 1, 1))).await.unwrap();
    let snapshot = |seq, state| Snapshot { seq: Seq(seq), schema: 1, state: Bytes::from_static(state) };
    for (seq, state) in [(2, &b"new"[..]), (1, b"old"), (2, b"same")] {
        store.save_snapshot(run, epoch, snapshot(seq, state)).await.unwrap();
    }
    assert_eq!(store.load(run, false).await.unwrap().unwrap().snapshot, Some(snapshot(2, b"new")));
}

pub(super) async fn a_snapshot_needs_its_events(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let ahead = Snapshot { seq: Seq(2), schema: 1, state: Bytes::new() };
    let answer = store.save_snapshot(run, epoch, ahead).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    let empty = Snapshot { seq: Seq(1), schema: 1, state: Bytes::new() };
    store.save_snapshot(run, epoch, empty.clone()).await.unwrap();
    assert_eq!(store.load(run, false).await.unwrap().unwrap().snapshot, Some(empty));
}
