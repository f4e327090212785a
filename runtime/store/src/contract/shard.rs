//! Promises about the shard table: who gets a shard, who loses it, and what a leader may want.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use motet_engine::id::{Epoch, MAX_SHARDS, ShardId};

use super::{SHARD, admission, append, entry, name, run};
use crate::StoreError;
use crate::port::{Append, Assignment, Incarnation, MapVersion, ShardOwner, ShardRow, Store, Term};

const LONG: Duration = Duration::from_secs(60);
const OVER: Duration = Duration::ZERO;

async fn row(store: &Arc<dyn Store>, shard: ShardId) -> ShardRow {
    let (_, rows) = store.shards(shard.0 + 1, None).await.unwrap();
    assert!(rows.iter().map(|row| row.shard).eq((0..=shard.0).map(ShardId)), "{rows:?}");
    rows.into_iter().next_back().unwrap()
}

fn owner(incarnation: Incarnation, node: &str) -> Option<ShardOwner> {
    Some(ShardOwner { incarnation, node: node.to_owned() })
}

fn wanted(shard: ShardId, epoch: u64, target: &str) -> Assignment {
    Assignment { shard, epoch: Epoch(epoch), target: target.to_owned() }
}

pub(super) async fn rows_are_there_from_the_beginning(store: Arc<dyn Store>) {
    let (version, rows) = store.shards(MAX_SHARDS, None).await.unwrap();
    assert_eq!(version, store.map_version().await.unwrap());
    let free = |shard| ShardRow { shard: ShardId(shard), epoch: Epoch(0), owner: None, target: None };
    assert_eq!(rows, (0..MAX_SHARDS).map(free).collect::<Vec<_>>());
    assert_eq!(store.shards(0, None).await.unwrap(), (version, vec![]));
    let life = store.register("one", "", LONG).await.unwrap();
    let outside = [(ShardId(MAX_SHARDS), Epoch(0)), (ShardId(0), Epoch(7))];
    assert!(store.take(&outside, life).await.unwrap().is_empty(), "neither the shard nor the epoch exists");
    assert!(store.take(&[], life).await.unwrap().is_empty());
    assert_eq!(store.map_version().await.unwrap(), version, "nothing changed");
}

pub(super) async fn a_shard_is_taken_under_its_epoch(store: Arc<dyn Store>) {
    let life = store.register("one", "", LONG).await.unwrap();
    let asked = [(ShardId(9), Epoch(0)), (SHARD, Epoch(0)), (ShardId(8), Epoch(5)), (SHARD, Epoch(0))];
    assert_eq!(store.take(&asked, life).await.unwrap(), [(SHARD, Epoch(1)), (ShardId(9), Epoch(1))]);
    let expected = ShardRow { shard: SHARD, epoch: Epoch(1), owner: owner(life, "one"), target: Some("one".into()) };
    assert_eq!(row(&store, SHARD).await, expected);
    assert_eq!(store.epoch(SHARD).await.unwrap(), Epoch(1));
    for epoch in [0, 1, 2] {
        assert!(store.take(&[(SHARD, Epoch(epoch))], life).await.unwrap().is_empty(), "its owner lives: {epoch}");
    }
    let run = run();
    store.admit(admission(run)).await.unwrap();
    let carrying = Append { incarnation: Some(life), ..append(run, Epoch(1), entry(2, 1, 1)) };
    store.append(carrying).await.unwrap();
}

pub(super) async fn only_a_fenced_owner_is_succeeded(store: Arc<dyn Store>) {
    let run = run();
    store.admit(admission(run)).await.unwrap();
    let before = store.register("one", "", OVER).await.unwrap();
    let next = store.register("two", "", LONG).await.unwrap();
    store.take(&[(SHARD, Epoch(0))], before).await.unwrap();
    assert!(store.take(&[(SHARD, Epoch(1))], next).await.unwrap().is_empty(), "expired, but nobody fenced it");
    store.append(append(run, Epoch(1), entry(2, 1, 1))).await.unwrap();
    assert!(store.fence_expired(before).await.unwrap());
    assert!(store.take(&[(SHARD, Epoch(0))], next).await.unwrap().is_empty(), "that epoch has passed");
    assert_eq!(store.take(&[(SHARD, Epoch(1))], next).await.unwrap(), [(SHARD, Epoch(2))]);
    let late = store.append(append(run, Epoch(1), entry(3, 1, 1))).await;
    assert!(matches!(late, Err(StoreError::Fenced { current: Epoch(2), .. })), "{late:?}");
    store.append(append(run, Epoch(2), entry(3, 1, 1))).await.unwrap();
    // A new boot of the node fences the earlier one and may take at once.
    let again = store.register("two", "", LONG).await.unwrap();
    assert_eq!(store.take(&[(SHARD, Epoch(2))], again).await.unwrap(), [(SHARD, Epoch(3))]);
}

pub(super) async fn a_fenced_life_takes_nothing(store: Arc<dyn Store>) {
    let life = store.register("one", "", LONG).await.unwrap();
    store.fence(life).await.unwrap();
    for (wrong, what) in [(life, "fenced"), (Incarnation(life.0 + 9), "unknown")] {
        assert!(store.take(&[(SHARD, Epoch(0))], wrong).await.unwrap().is_empty(), "{what}");
    }
    assert_eq!(store.epoch(SHARD).await.unwrap(), Epoch(0));
}

pub(super) async fn of_many_takers_each_shard_has_one(store: Arc<dyn Store>) {
    const SHARDS: u16 = 64;
    let dead = store.register("dead", "", LONG).await.unwrap();
    let all: Vec<_> = (0..SHARDS).map(|shard| (ShardId(shard), Epoch(0))).collect();
    assert_eq!(store.take(&all, dead).await.unwrap().len(), usize::from(SHARDS));
    store.fence(dead).await.unwrap();
    let takers = (0..8).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let life = store.register(&format!("node {number}"), "", LONG).await.unwrap();
            let mut taken = vec![];
            // In another order each, so that whoever locks as asked would wait for one another in a circle.
            for part in 0..8 {
                let asked: Vec<_> = (0..SHARDS).map(|place| (place * 13 + number * 7 + part) % SHARDS).collect();
                let asked: Vec<_> = asked[..24].iter().map(|shard| (ShardId(*shard), Epoch(1))).collect();
                taken.extend(store.take(&asked, life).await.unwrap());
            }
            (life, taken)
        })
    });
    let mut owners = BTreeMap::new();
    for (life, taken) in join_all(takers).await.into_iter().map(Result::unwrap) {
        for (shard, epoch) in taken {
            assert_eq!(epoch, Epoch(2));
            assert_eq!(owners.insert(shard, life), None, "{shard} was taken twice");
        }
    }
    let (_, rows) = store.shards(SHARDS, None).await.unwrap();
    for row in rows {
        let incarnation = row.owner.map(|owner| owner.incarnation);
        let expected = owners.get(&row.shard).copied().unwrap_or(dead);
        assert_eq!(incarnation, Some(expected), "{}", row.shard);
    }
    assert!(owners.len() > usize::from(SHARDS) / 2, "{} were taken", owners.len());
}

pub(super) async fn a_released_epoch_is_over(store: Arc<dyn Store>) {
    let run = run();
    store.admit(admission(run)).await.unwrap();
    let life = store.register("one", "", LONG).await.unwrap();
    store.take(&[(SHARD, Epoch(0))], life).await.unwrap();
    store.append(append(run, Epoch(1), entry(2, 1, 1))).await.unwrap();
    assert_eq!(store.release(&[(SHARD, Epoch(1))], life).await.unwrap(), [(SHARD, Epoch(2))]);
    let late = store.append(append(run, Epoch(1), entry(3, 1, 1))).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    let free = ShardRow { shard: SHARD, epoch: Epoch(2), owner: None, target: Some("one".to_owned()) };
    assert_eq!(row(&store, SHARD).await, free);
    let next = store.register("two", "", LONG).await.unwrap();
    assert!(store.take(&[(SHARD, Epoch(1))], next).await.unwrap().is_empty());
    assert_eq!(store.take(&[(SHARD, Epoch(2))], next).await.unwrap(), [(SHARD, Epoch(3))]);
    store.append(append(run, Epoch(3), entry(3, 1, 1))).await.unwrap();
}

pub(super) async fn only_its_owner_releases_a_shard(store: Arc<dyn Store>) {
    let life = store.register("one", "", LONG).await.unwrap();
    let other = store.register("two", "", LONG).await.unwrap();
    store.take(&[(SHARD, Epoch(0))], life).await.unwrap();
    for (epoch, by, what) in [(1, other, "another node"), (0, life, "an old epoch"), (2, life, "a later epoch")] {
        assert!(store.release(&[(SHARD, Epoch(epoch))], by).await.unwrap().is_empty(), "{what}");
    }
    assert_eq!(row(&store, SHARD).await.owner, owner(life, "one"));
    let asked = [(ShardId(9), Epoch(0)), (SHARD, Epoch(1)), (SHARD, Epoch(1))];
    assert_eq!(store.release(&asked, life).await.unwrap(), [(SHARD, Epoch(2))]);
    assert!(store.release(&asked, life).await.unwrap().is_empty(), "a late repetition changes nothing");
}

pub(super) async fn takers_are_their_own_target(store: Arc<dyn Store>) {
    let role = name("planner");
    let term = store.lead(&role, "one", LONG).await.unwrap().unwrap();
    let life = store.register("two", "", LONG).await.unwrap();
    assert!(store.assign(&role, term, &[wanted(SHARD, 0, "three")]).await.unwrap());
    assert_eq!(row(&store, SHARD).await.target.as_deref(), Some("three"));
    store.take(&[(SHARD, Epoch(0))], life).await.unwrap();
    assert_eq!(row(&store, SHARD).await.target.as_deref(), Some("two"), "a plan from before is out of date");
    assert!(store.assign(&role, term, &[wanted(SHARD, 1, "three")]).await.unwrap());
    let there = row(&store, SHARD).await;
    assert_eq!((there.epoch, there.owner), (Epoch(1), owner(life, "two")), "owners go on until they hand over");
    let (_, released) = store.release(&[(SHARD, Epoch(1))], life).await.unwrap()[0];
    assert_eq!((row(&store, SHARD).await.target.as_deref(), released), (Some("three"), Epoch(2)));
}

pub(super) async fn a_leader_whose_term_is_over_assigns_nothing(store: Arc<dyn Store>) {
    let role = name("planner");
    let first = store.lead(&role, "one", OVER).await.unwrap().unwrap();
    assert!(store.assign(&role, first, &[wanted(SHARD, 0, "a")]).await.unwrap(), "nobody took the lead meanwhile");
    let second = store.lead(&role, "two", LONG).await.unwrap().unwrap();
    for (role, term, leads) in
        [(&role, first, false), (&role, Term(9), false), (&name("other"), second, false), (&role, second, true)]
    {
        assert_eq!(store.assign(role, term, &[wanted(SHARD, 0, "b")]).await.unwrap(), leads, "{role} {term:?}");
        assert_eq!(row(&store, SHARD).await.target.as_deref() == Some("b"), leads, "{role} {term:?}");
    }
    store.resign(&role, second).await.unwrap();
    assert!(!store.assign(&role, second, &[]).await.unwrap(), "who resigned does not lead");
}

pub(super) async fn a_plan_for_another_epoch_is_dropped(store: Arc<dyn Store>) {
    let role = name("planner");
    let term = store.lead(&role, "one", LONG).await.unwrap().unwrap();
    let life = store.register("two", "", LONG).await.unwrap();
    store.take(&[(SHARD, Epoch(0))], life).await.unwrap();
    let plan = [wanted(SHARD, 0, "a"), wanted(ShardId(2), 0, "b"), wanted(ShardId(1), 0, "c")];
    assert!(store.assign(&role, term, &plan).await.unwrap());
    let targets: Vec<_> = store.shards(8, None).await.unwrap().1.into_iter().map(|row| row.target).collect();
    let named = |target: &str| Some(target.to_owned());
    assert_eq!(targets, [None, named("c"), named("b"), None, None, None, None, named("two")]);
}

pub(super) async fn changes_are_read_by_version(store: Arc<dyn Store>) {
    let role = name("planner");
    let term = store.lead(&role, "one", LONG).await.unwrap().unwrap();
    let life = store.register("two", "", LONG).await.unwrap();
    let mut before = store.map_version().await.unwrap();
    let mut look = async |what: &str, expected: &[u16]| {
        let (version, rows) = store.shards(MAX_SHARDS, Some(before)).await.unwrap();
        assert_eq!(version, store.map_version().await.unwrap(), "{what}");
        assert_eq!(rows.iter().map(|row| row.shard.0).collect::<Vec<_>>(), expected, "{what}");
        assert_eq!(version > before, !expected.is_empty(), "{what}: the version rises with changes only");
        before = version;
    };
    look("nothing", &[]).await;
    store.take(&[(ShardId(5), Epoch(0)), (ShardId(3), Epoch(0))], life).await.unwrap();
    look("take", &[3, 5]).await;
    store.take(&[(ShardId(5), Epoch(0))], life).await.unwrap();
    look("a take in vain", &[]).await;
    let plan = [wanted(ShardId(3), 1, "two"), wanted(ShardId(5), 1, "three"), wanted(ShardId(6), 0, "three")];
    store.assign(&role, term, &plan).await.unwrap();
    look("assign", &[5, 6]).await;
    store.assign(&role, term, &plan).await.unwrap();
    look("the same plan again", &[]).await;
    store.release(&[(ShardId(5), Epoch(1))], life).await.unwrap();
    look("release", &[5]).await;
    store.claim(ShardId(7), "alone").await.unwrap();
    look("claim", &[7]).await;
    let ahead = MapVersion(before.0 + 1);
    assert!(store.shards(MAX_SHARDS, Some(ahead)).await.unwrap().1.is_empty());
}

pub(super) async fn a_claim_respects_the_living(store: Arc<dyn Store>) {
    let life = store.register("two", "", LONG).await.unwrap();
    store.take(&[(SHARD, Epoch(0))], life).await.unwrap();
    let refused = store.claim(SHARD, "alone").await;
    assert!(matches!(&refused, Err(StoreError::Refused(text)) if text.contains("'two'")), "{refused:?}");
    assert_eq!(store.epoch(SHARD).await.unwrap(), Epoch(1));
    assert_eq!(store.claim(ShardId(8), "alone").await.unwrap(), Epoch(1), "others are free");
    store.renew(life, OVER).await.unwrap();
    assert_eq!(store.claim(SHARD, "alone").await.unwrap(), Epoch(2), "its lease has run out");
    let claimed = ShardRow { shard: SHARD, epoch: Epoch(2), owner: None, target: None };
    assert_eq!(row(&store, SHARD).await, claimed);
    assert!(store.release(&[(SHARD, Epoch(1))], life).await.unwrap().is_empty());
    assert_eq!(store.take(&[(SHARD, Epoch(2))], life).await.unwrap(), [(SHARD, Epoch(3))], "a claim holds no lease");
}
