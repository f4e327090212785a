//! Promises about records that come in: who may write a partition, and what is kept of its records.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use motet_engine::id::{Epoch, Namespace};

use super::{SHARD, admission, append, at, entry, keyed, name, run, run_at};
use crate::StoreError;
use crate::port::{
    Admission, Admitted, DeadLetter, DeadQuery, DeadState, Ingest, OutboxRow, PartitionKey, PartitionRow, Steer, Store,
};

fn key_of(partition: i32) -> PartitionKey {
    PartitionKey { namespace: Namespace::default(), stream: name("orders"), topic: "in".to_owned(), partition }
}

fn letter(key: &PartitionKey, offset: i64) -> DeadLetter {
    DeadLetter {
        key: key.clone(),
        generation: 0,
        offset,
        at: at(offset),
        timestamp: Some(17),
        stage: "VALUE_CONVERTER".to_owned(),
        class: "not_json".to_owned(),
        message: "it says \u{0} nothing".to_owned(),
        record_key: Some(Bytes::from_static(b"\0key")),
        value: Some(Bytes::from(vec![0, 159, 146, 150])),
        headers: vec![("h".to_owned(), None), ("h".to_owned(), Some(Bytes::from_static(&[255])))],
        state: DeadState::Open,
        sent: false,
    }
}

/// Progress from one offset to another that begins nothing.
fn progress(key: &PartitionKey, epoch: Epoch, seen: i64, next: i64) -> Ingest {
    Ingest { key: key.clone(), epoch, seen, next, at: at(1), admissions: vec![], dead: vec![] }
}

/// Claims a partition and begins it at 0.
async fn begun(store: &Arc<dyn Store>, key: &PartitionKey) -> Epoch {
    let row = store.claim_partition(key, "node", at(0)).await.unwrap();
    store.begin_partition(key, row.epoch, "cluster/topic", 0, at(0)).await.unwrap();
    row.epoch
}

async fn row(store: &Arc<dyn Store>, key: &PartitionKey) -> PartitionRow {
    store.partition(key).await.unwrap().unwrap()
}

fn is_fenced<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::PartitionFenced { .. })), "{outcome:?}");
}

pub(super) async fn a_claim_begins_a_partition_and_fences_the_one_before(store: Arc<dyn Store>) {
    let key = key_of(3);
    assert_eq!(store.partition(&key).await.unwrap(), None);
    let first = store.claim_partition(&key, "one", at(0)).await.unwrap();
    assert_eq!((first.epoch, &*first.owner, first.next, &*first.origin), (Epoch(1), "one", None, ""));
    assert_eq!((first.generation, first.since, first.paused, &first.trouble), (0, at(0), false, &None));
    store.begin_partition(&key, first.epoch, "c/t", 5, at(1)).await.unwrap();
    let second = store.claim_partition(&key, "two", at(2)).await.unwrap();
    assert_eq!((second.epoch, &*second.owner, second.next, &*second.origin), (Epoch(2), "two", Some(5), "c/t"));
    assert_eq!(row(&store, &key).await, second);
    let old = first.epoch;
    is_fenced(store.begin_partition(&key, old, "c/t", 9, at(3)).await);
    is_fenced(store.ingest(progress(&key, old, 5, 6)).await);
    is_fenced(store.trouble_partition(&key, old, Some("x".to_owned()), at(3)).await);
    is_fenced(store.forgive_partition(&key, old, at(3)).await);
    is_fenced(store.release_partition(&key, old, at(3)).await);
    is_fenced(store.dead_letters_sent(&key, old, &[(0, 1)]).await);
    is_fenced(store.ingest(progress(&key_of(9), Epoch(1), 0, 1)).await);
    assert_eq!(row(&store, &key).await, second, "nothing of it was done");
    let all = store.partitions(Some(&Namespace::default()), Some(&name("orders"))).await.unwrap();
    assert_eq!(all, [second]);
    assert!(store.partitions(None, Some(&name("others"))).await.unwrap().is_empty());
}

pub(super) async fn what_records_became_is_kept_at_once_or_not_at_all(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    let (first, second) = (run(), run());
    let owed = OutboxRow {
        event: [7; 16],
        topic: "done".to_owned(),
        key: None,
        headers: vec![],
        payload: Bytes::from_static(b"x"),
        transactional: false,
    };
    let admissions = vec![admission(first), Admission { outbox: vec![owed.clone()], ..admission(second) }];
    let ingest = Ingest { admissions, dead: vec![letter(&key, 2)], ..progress(&key, epoch, 0, 4) };
    assert_eq!(store.ingest(ingest).await.unwrap(), [Admitted::New, Admitted::New]);
    assert_eq!(row(&store, &key).await.next, Some(4));
    assert!(store.head(first).await.unwrap().is_some() && store.head(second).await.unwrap().is_some());
    assert_eq!(store.dead_letter(&key, 0, 2).await.unwrap(), Some(letter(&key, 2)));
    let owes = store.outbox(SHARD, 0, 9).await.unwrap();
    assert_eq!(owes.iter().map(|record| (record.run, &record.row)).collect::<Vec<_>>(), [(second, &owed)]);
    // One row that cannot be kept takes everything with it.
    let third = run();
    let wrong = Admission { tags: vec!["a\0b".to_owned()], ..admission(run()) };
    let ingest = Ingest {
        admissions: vec![admission(third), wrong],
        dead: vec![letter(&key, 5)],
        ..progress(&key, epoch, 4, 7)
    };
    let refused = store.ingest(ingest).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(row(&store, &key).await.next, Some(4));
    assert_eq!(store.head(third).await.unwrap(), None);
    assert_eq!(store.dead_letter(&key, 0, 5).await.unwrap(), None);
}

pub(super) async fn a_position_is_compared_and_set(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    store.ingest(progress(&key, epoch, 0, 10)).await.unwrap();
    for seen in [0, 9, 11] {
        let gap = store.ingest(progress(&key, epoch, seen, 20)).await;
        assert!(matches!(gap, Err(StoreError::OffsetGap { next: Some(10), .. })), "{seen}: {gap:?}");
    }
    for (seen, next) in [(10, 10), (10, 9), (-1, 3)] {
        let refused = store.ingest(progress(&key, epoch, seen, next)).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{seen} {next}: {refused:?}");
    }
    assert_eq!(row(&store, &key).await.next, Some(10));
    store.ingest(progress(&key, epoch, 10, 1_000_000_000_000)).await.unwrap();
    assert_eq!(row(&store, &key).await.next, Some(1_000_000_000_000));
}

pub(super) async fn a_run_that_is_there_is_not_begun_again(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    let (there, new) = (run(), run());
    store.ingest(Ingest { admissions: vec![admission(there)], ..progress(&key, epoch, 0, 1) }).await.unwrap();
    let shard = store.claim(there.shard(), "owner").await.unwrap();
    store.append(append(there, shard, entry(2, 1, 9))).await.unwrap();
    store.steer_partition(&key, Steer::Seek { offset: 0, again: false }, at(5)).await.unwrap();
    let epoch = store.claim_partition(&key, "node", at(6)).await.unwrap().epoch;
    let again = Ingest { admissions: vec![admission(there), admission(new)], ..progress(&key, epoch, 0, 2) };
    assert_eq!(store.ingest(again).await.unwrap(), [Admitted::Replayed(there), Admitted::New]);
    assert_eq!(store.load(there, true).await.unwrap().unwrap().entries.len(), 2, "it stays as it is");
    assert_eq!(store.load(new, true).await.unwrap().unwrap().entries.len(), 1);
}

pub(super) async fn a_new_generation_is_another_reading(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    store.ingest(Ingest { dead: vec![letter(&key, 3)], ..progress(&key, epoch, 0, 9) }).await.unwrap();
    let sought = store.steer_partition(&key, Steer::Seek { offset: 3, again: true }, at(50)).await.unwrap().unwrap();
    assert_eq!((sought.generation, sought.since, sought.next), (1, at(50), Some(3)));
    assert_eq!((&*sought.owner, &*sought.origin), ("", ""), "nobody has it, and what is there now is meant");
    assert!(sought.epoch > epoch);
    is_fenced(store.ingest(progress(&key, epoch, 9, 10)).await);
    let claimed = store.claim_partition(&key, "node", at(51)).await.unwrap();
    assert_eq!((claimed.generation, claimed.since), (1, at(50)));
    let again = DeadLetter { generation: 1, ..letter(&key, 3) };
    store.ingest(Ingest { dead: vec![again], ..progress(&key, claimed.epoch, 3, 4) }).await.unwrap();
    let query = DeadQuery::newest(Namespace::default(), 9);
    assert_eq!(store.dead_letters(&query).await.unwrap().len(), 2, "each reading has its own");
}

pub(super) async fn barren_claims_are_counted_until_there_is_progress(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    let claim = async || store.claim_partition(&key, "node", at(1)).await.unwrap();
    assert_eq!((claim().await.barren, claim().await.barren), (2, 3));
    let last = claim().await;
    assert_eq!(last.barren, 4);
    store.release_partition(&key, last.epoch, at(2)).await.unwrap();
    store.release_partition(&key, last.epoch, at(2)).await.unwrap();
    let released = row(&store, &key).await;
    assert_eq!((released.barren, &*released.owner, released.epoch), (3, "", last.epoch), "taken back once");
    let next = claim().await;
    assert_eq!(next.barren, 4);
    store.ingest(progress(&key, next.epoch, 0, 1)).await.unwrap();
    assert_eq!(row(&store, &key).await.barren, 0);
    for _ in 0..2 {
        claim().await;
    }
    let idle = claim().await;
    assert_eq!(idle.barren, 3);
    store.forgive_partition(&key, idle.epoch, at(3)).await.unwrap();
    assert_eq!((row(&store, &key).await.barren, claim().await.barren), (0, 1));
    assert!(epoch < idle.epoch);
}

pub(super) async fn operators_steer_whoever_owns(store: Arc<dyn Store>) {
    let key = key_of(0);
    assert_eq!(store.steer_partition(&key, Steer::Pause(true), at(1)).await.unwrap(), None);
    let epoch = begun(&store, &key).await;
    let steer = async |steer| store.steer_partition(&key, steer, at(2)).await.unwrap().unwrap();
    assert!(steer(Steer::Pause(true)).await.paused);
    store.ingest(progress(&key, epoch, 0, 1)).await.unwrap();
    store.trouble_partition(&key, epoch, Some("what to do".to_owned()), at(3)).await.unwrap();
    let troubled = row(&store, &key).await;
    assert_eq!((troubled.trouble.as_deref(), troubled.paused), (Some("what to do"), true));
    let cleared = steer(Steer::Clear).await;
    assert_eq!((&cleared.trouble, cleared.barren, &*cleared.origin), (&None, 0, "cluster/topic"));
    assert_eq!((cleared.epoch, &*cleared.owner), (epoch, "node"), "its owner keeps it");
    assert!(!steer(Steer::Pause(false)).await.paused);
    let refused = store.steer_partition(&key, Steer::Seek { offset: -1, again: false }, at(2)).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
}

pub(super) async fn dead_letters_are_found_and_settled_once(store: Arc<dyn Store>) {
    let (one, other) = (key_of(0), key_of(1));
    for key in [&one, &other] {
        let epoch = begun(&store, key).await;
        let dead = (0..3).map(|offset| letter(key, offset)).collect();
        store.ingest(Ingest { dead, ..progress(key, epoch, 0, 3) }).await.unwrap();
    }
    let all = DeadQuery { with_bytes: true, ..DeadQuery::newest(Namespace::default(), 100) };
    let listed = store.dead_letters(&all).await.unwrap();
    let places: Vec<_> = listed.iter().map(DeadLetter::place).collect();
    assert_eq!(places.len(), 6);
    assert!(places.is_sorted_by(|before, after| before > after), "newest first: {places:?}");
    let (mut paged, mut after) = (vec![], None);
    loop {
        let page = store.dead_letters(&DeadQuery { limit: 2, after, ..all.clone() }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.place());
        paged.extend(page);
    }
    assert_eq!(paged, listed);
    let bare = store.dead_letters(&DeadQuery { with_bytes: false, ..all.clone() }).await.unwrap();
    assert!(bare.iter().all(|it| it.value.is_none() && it.headers.is_empty() && it.message == listed[0].message));
    assert!(store.settle_dead_letter(&one, 0, 1, DeadState::Redriven).await.unwrap());
    assert!(!store.settle_dead_letter(&one, 0, 1, DeadState::Discarded).await.unwrap(), "one of two");
    assert!(!store.settle_dead_letter(&one, 0, 77, DeadState::Discarded).await.unwrap());
    let count = async |query| store.dead_letters(&query).await.unwrap().len();
    assert_eq!(count(DeadQuery { state: Some(DeadState::Open), ..all.clone() }).await, 5);
    assert_eq!(count(DeadQuery { partition: Some(1), ..all.clone() }).await, 3);
    assert_eq!(count(DeadQuery { stream: Some(name("others")), ..all.clone() }).await, 0);
}

pub(super) async fn dead_letters_wait_to_be_sent(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    let dead = vec![letter(&key, 4), DeadLetter { sent: true, ..letter(&key, 1) }, letter(&key, 2), letter(&key, 0)];
    store.ingest(Ingest { dead, ..progress(&key, epoch, 0, 5) }).await.unwrap();
    let unsent = async |limit| {
        let letters = store.unsent_dead_letters(&key, limit).await.unwrap();
        letters.iter().map(|letter| letter.offset).collect::<Vec<_>>()
    };
    assert_eq!((unsent(9).await, unsent(2).await), (vec![0, 2, 4], vec![0, 2]));
    assert_eq!(store.unsent_dead_letters(&key, 1).await.unwrap()[0].value, letter(&key, 0).value);
    store.dead_letters_sent(&key, epoch, &[(0, 0), (0, 4)]).await.unwrap();
    assert_eq!(unsent(9).await, [2]);
    assert!(store.unsent_dead_letters(&key_of(8), 9).await.unwrap().is_empty());
}

pub(super) async fn of_two_owners_only_the_last_writes(store: Arc<dyn Store>) {
    let key = key_of(0);
    let mut old = begun(&store, &key).await;
    let mut next = 0;
    for round in 0..20 {
        let new = store.claim_partition(&key, "other", at(round)).await.unwrap().epoch;
        let write = async |epoch| {
            let ingest = Ingest { admissions: vec![admission(run())], ..progress(&key, epoch, next, next + 1) };
            store.ingest(ingest).await
        };
        let (stale, fresh) = futures::join!(write(old), write(new));
        is_fenced(stale);
        assert_eq!(fresh.unwrap(), [Admitted::New]);
        (old, next) = (new, next + 1);
    }
    assert_eq!(row(&store, &key).await.next, Some(20));
    assert_eq!(store.unfinished(SHARD, None, 100).await.unwrap().len(), 20, "nothing of a stale owner is there");
}

pub(super) async fn partitions_do_not_get_in_each_others_way(store: Arc<dyn Store>) {
    let work = (0..16).map(|partition| {
        let store = Arc::clone(&store);
        async move {
            let key = key_of(partition);
            let epoch = begun(&store, &key).await;
            for offset in 0..10 {
                let admissions = vec![admission(run_at(offset, SHARD)), admission(run_at(offset, SHARD))];
                let ingest = Ingest { admissions, ..progress(&key, epoch, offset * 2, offset * 2 + 2) };
                store.ingest(ingest).await.unwrap();
            }
        }
    });
    join_all(work).await;
    let rows = store.partitions(None, None).await.unwrap();
    assert!(rows.len() == 16 && rows.iter().all(|row| row.next == Some(20)), "{rows:?}");
    assert!(rows.is_sorted_by(|one, other| one.key < other.key));
    assert_eq!(store.unfinished(SHARD, None, 1_000).await.unwrap().len(), 320);
}

pub(super) async fn what_no_store_keeps_is_told_beforehand(store: Arc<dyn Store>) {
    let key = key_of(0);
    let epoch = begun(&store, &key).await;
    let refused =
        |outcome: Result<(), StoreError>| assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    let wrong = Admission { tags: vec!["a\0b".to_owned()], ..admission(run()) };
    refused(wrong.check());
    refused(DeadLetter { stage: "a\0b".to_owned(), ..letter(&key, 0) }.check());
    admission(run()).check().unwrap();
    letter(&key, 0).check().unwrap();
    // A record has no idempotency key of its own: its place is its identity.
    let keyed = Ingest { admissions: vec![keyed(run(), "k", 1)], ..progress(&key, epoch, 0, 1) };
    refused(store.ingest(keyed).await.map(drop));
    let elsewhere = Ingest { dead: vec![letter(&key_of(5), 0)], ..progress(&key, epoch, 0, 1) };
    refused(store.ingest(elsewhere).await.map(drop));
    for (owner, topic) in [("", "in"), ("node", ""), ("node", "a\0b")] {
        let key = PartitionKey { topic: topic.to_owned(), ..key.clone() };
        refused(store.claim_partition(&key, owner, at(0)).await.map(drop));
    }
}
