//! Promises about records that wait to leave the system.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use motet_engine::id::{Epoch, ShardId};

use super::{SHARD, admission, append, entry, owned_run, run, run_at};
use crate::StoreError;
use crate::port::{Append, OutboxRow, Store};

fn row(number: u8) -> OutboxRow {
    OutboxRow {
        event: [number; 16],
        topic: "answers".to_owned(),
        key: number.is_multiple_of(2).then(|| Bytes::from(vec![number])),
        headers: (0..number % 3).map(|place| (format!("h{place}"), Bytes::from(vec![place, 0, 255]))).collect(),
        payload: Bytes::from(vec![number; usize::from(number)]),
        transactional: number % 4 > 1,
    }
}

pub(super) async fn records_come_back_in_the_order_of_commits(store: Arc<dyn Store>) {
    let (first, epoch) = owned_run(&store).await;
    let second = run();
    store.admit(admission(second)).await.unwrap();
    let mut expected = Vec::new();
    for (run, seq, numbers) in [(first, 2, 0..3), (second, 2, 3..4), (first, 3, 4..4), (first, 4, 4..6)] {
        let outbox: Vec<_> = numbers.map(row).collect();
        expected.extend(outbox.iter().map(|row| (run, row.clone())));
        store.append(Append { outbox, ..append(run, epoch, entry(seq, 1, 1)) }).await.unwrap();
    }
    let read = store.outbox(SHARD, 0, 100).await.unwrap();
    assert!(read.iter().map(|record| record.position).eq(1..=6));
    let rows: Vec<_> = read.iter().map(|record| (record.run, record.row.clone())).collect();
    assert_eq!(rows, expected);
    for (after, limit, expected) in [(0, 2, 0..2), (3, 2, 3..5), (5, 9, 5..6), (6, 9, 6..6), (u64::MAX, 9, 6..6)] {
        assert_eq!(store.outbox(SHARD, after, limit).await.unwrap(), read[expected], "after {after}");
    }
    assert!(store.outbox(ShardId(8), 0, 9).await.unwrap().is_empty());
}

pub(super) async fn a_refused_write_leaves_no_record(store: Arc<dyn Store>) {
    let (run, old) = owned_run(&store).await;
    let with_record = |epoch, seq| Append { outbox: vec![row(1)], ..append(run, epoch, entry(seq, 1, 1)) };
    let taken = store.append(with_record(old, 1)).await;
    assert!(matches!(taken, Err(StoreError::SeqTaken { .. })), "{taken:?}");
    let hole = store.append(with_record(old, 5)).await;
    assert!(matches!(hole, Err(StoreError::Refused(_))), "{hole:?}");
    let unnamed = OutboxRow { topic: "a\0b".to_owned(), ..row(1) };
    let refused = store.append(Append { outbox: vec![unnamed], ..append(run, old, entry(2, 1, 1)) }).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let new = store.claim(SHARD, "another").await.unwrap();
    let fenced = store.append(with_record(old, 2)).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
    assert!(store.outbox(SHARD, 0, 9).await.unwrap().is_empty());
    store.append(with_record(new, 2)).await.unwrap();
    assert_eq!(store.outbox(SHARD, 0, 9).await.unwrap()[0].position, 1, "refused writes take no position");
}

pub(super) async fn only_the_owner_forgets_records(store: Arc<dyn Store>) {
    let (run, old) = owned_run(&store).await;
    let outbox = (0..5).map(row).collect();
    store.append(Append { outbox, ..append(run, old, entry(2, 1, 1)) }).await.unwrap();
    store.outbox_done(SHARD, old, &[1, 2]).await.unwrap();
    let left = async || {
        let left = store.outbox(SHARD, 0, 9).await.unwrap();
        left.iter().map(|record| record.position).collect::<Vec<_>>()
    };
    assert_eq!(left().await, [3, 4, 5]);
    let new = store.claim(SHARD, "another").await.unwrap();
    let fenced = store.outbox_done(SHARD, old, &[3, 4, 5]).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { current, .. }) if current == new), "{fenced:?}");
    assert_eq!(left().await, [3, 4, 5]);
    store.outbox_done(SHARD, new, &[3, 4]).await.unwrap();
    store.outbox_done(SHARD, new, &[3, 4]).await.unwrap();
    assert_eq!(left().await, [5]);
}

pub(super) async fn records_are_forgotten_one_by_one(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let other = run_at(0, ShardId(8));
    store.admit(admission(other)).await.unwrap();
    let beside = store.claim(ShardId(8), "owner").await.unwrap();
    for (run, epoch) in [(run, epoch), (other, beside)] {
        let outbox = (0..6).map(row).collect();
        store.append(Append { outbox, ..append(run, epoch, entry(2, 1, 1)) }).await.unwrap();
    }
    let left = async |shard| {
        let left = store.outbox(shard, 0, 9).await.unwrap();
        left.iter().map(|record| record.position).collect::<Vec<_>>()
    };
    let cases: [(&[u64], &[u64]); 5] = [
        (&[], &[1, 2, 3, 4, 5, 6]),
        (&[2, 5], &[1, 3, 4, 6]),
        (&[5, 7, u64::MAX], &[1, 3, 4, 6]),
        (&[6, 1], &[3, 4]),
        (&[3, 4], &[]),
    ];
    for (positions, expected) in cases {
        store.outbox_done(SHARD, epoch, positions).await.unwrap();
        assert_eq!(left(SHARD).await, expected, "after {positions:?}");
        let all = expected.len() as u64 + 6;
        for (at_most, counted) in [(0, 0), (3, 3), (all, all), (u64::MAX, all)] {
            assert_eq!(store.outbox_rows(at_most).await.unwrap(), counted, "at most {at_most}");
        }
    }
    assert_eq!(left(ShardId(8)).await, [1, 2, 3, 4, 5, 6], "the other shard's stay");
}

pub(super) async fn outboxes_are_told_apart(store: Arc<dyn Store>) {
    let origin = store.outbox_origin().await.unwrap();
    assert!(origin.len() == 32 && origin.bytes().all(|digit| digit.is_ascii_hexdigit()), "{origin}");
    assert_eq!(store.outbox_origin().await.unwrap(), origin);
}

pub(super) async fn positions_are_never_given_twice(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    for seq in 2..=4 {
        store.append(Append { outbox: vec![row(9)], ..append(run, epoch, entry(seq, 1, 1)) }).await.unwrap();
        assert_eq!(store.outbox(SHARD, 0, 9).await.unwrap()[0].position, seq - 1);
        store.outbox_done(SHARD, epoch, &[seq - 1]).await.unwrap();
    }
}

pub(super) async fn many_writers_leave_no_gap(store: Arc<dyn Store>) {
    const SHARDS: u16 = 2;
    for shard in 0..SHARDS {
        store.claim(ShardId(shard), "owner").await.unwrap();
    }
    let writers = (0..64u16).map(|place| {
        let (store, run) = (Arc::clone(&store), run_at(i64::from(place), ShardId(place % SHARDS)));
        tokio::spawn(async move {
            store.admit(admission(run)).await.unwrap();
            for seq in 2..=4 {
                let outbox = vec![row(2), row(3)];
                store.append(Append { outbox, ..append(run, Epoch(1), entry(seq, 1, 1)) }).await.unwrap();
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    for shard in 0..SHARDS {
        let read = store.outbox(ShardId(shard), 0, 1_000).await.unwrap();
        assert!(read.iter().map(|record| record.position).eq(1..=192), "{} records", read.len());
        let pairs = read.chunks(2).all(|pair| pair[0].run == pair[1].run && pair[0].row == row(2));
        assert!(pairs, "the records of one write follow each other");
    }
}
