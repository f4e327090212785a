//! Promises about orders: which run of a line goes first, and when it leaves.

use std::sync::Arc;

use motet_engine::id::Namespace;

use super::{SHARD, admission, append, entry, head, run};
use crate::port::{Admission, Append, HeadChange, HeadState, Line, RunQuery, Store};

const LINE: [u8; 16] = [9; 16];

fn at_place(place: i64) -> Admission {
    Admission { line: Some(Line { line: LINE, place }), ..admission(run()) }
}

pub(super) async fn the_first_of_a_line_is_known(store: Arc<dyn Store>) {
    assert_eq!(store.line_head(SHARD, LINE).await.unwrap(), None);
    let (late, early) = (at_place(20), at_place(10));
    let other = Admission { line: Some(Line { line: [1; 16], place: 1 }), ..admission(run()) };
    for admission in [&late, &early, &other] {
        store.admit(admission.clone()).await.unwrap();
    }
    store.admit(admission(run())).await.unwrap();
    let first = async || store.line_head(SHARD, LINE).await.unwrap().map(|head| head.run);
    assert_eq!(first().await, Some(early.run));
    let held = store.lines(SHARD, None, 10).await.unwrap();
    let mut expected = vec![late.run, early.run, other.run];
    expected.sort();
    assert_eq!(held.iter().map(|head| head.run).collect::<Vec<_>>(), expected);
    assert_eq!(store.lines(SHARD, Some(expected[0]), 10).await.unwrap(), held[1..]);
    assert_eq!(store.lines(SHARD, None, 2).await.unwrap(), held[..2]);
    let epoch = store.claim(SHARD, "owner").await.unwrap();
    for (run, state) in [(early.run, HeadState::Succeeded), (late.run, HeadState::Cancelled)] {
        let ended = Append { head: Some(head(state)), ..append(run, epoch, entry(2, 1, 5)) };
        store.append(ended).await.unwrap();
        assert_ne!(first().await, Some(run), "{state:?} leaves");
    }
    assert_eq!(first().await, None);
    assert_eq!(store.lines(SHARD, None, 10).await.unwrap().len(), 1);
}

pub(super) async fn a_failure_keeps_its_place_until_it_is_left(store: Arc<dyn Store>) {
    let (first, second) = (at_place(1), at_place(2));
    for admission in [&first, &second] {
        store.admit(admission.clone()).await.unwrap();
    }
    let epoch = store.claim(SHARD, "owner").await.unwrap();
    let head_of = async || store.line_head(SHARD, LINE).await.unwrap().map(|head| (head.run, head.state));
    let holding = RunQuery { holding: true, ..RunQuery::newest(Namespace::default(), 10) };
    assert!(store.list(&holding).await.unwrap().is_empty(), "only what has ended holds others up");
    for (seq, state) in [(2, HeadState::Failed), (3, HeadState::Running), (4, HeadState::TimedOut)] {
        let change = Append { head: Some(head(state)), ..append(first.run, epoch, entry(seq, 1, 5)) };
        store.append(change).await.unwrap();
        assert_eq!(head_of().await, Some((first.run, state)));
        let held = store.list(&holding).await.unwrap();
        assert_eq!(held.len(), usize::from(state != HeadState::Running), "{state:?}");
    }
    let leaves = HeadChange { leaves_line: true, ..head(HeadState::TimedOut) };
    store.append(Append { head: Some(leaves), ..append(first.run, epoch, entry(5, 1, 6)) }).await.unwrap();
    assert_eq!(head_of().await, Some((second.run, HeadState::Pending)));
    assert!(store.list(&holding).await.unwrap().is_empty());
}
