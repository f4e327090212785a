//! Shards that change hands while they are written to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const SHARDS: u16 = 32;
const NODES: usize = 3;

/// Rounds in which every node has shards, at least.
const ROUNDS: usize = 12;

/// Rounds that nobody can need.
const MOST_ROUNDS: usize = 5_000;

/// The run of a shard.
fn run_of(shard: ShardId) -> RunId {
    RunId::new(at(0), shard, 1)
}

/// One node's round: it takes what is free, writes to all of it at once, and gives every third shard up.
async fn round(store: &PostgresStore, life: Incarnation, number: usize) -> Vec<(ShardId, u64, Vec<u8>)> {
    let (_, rows) = store.shards(SHARDS, None).await.unwrap();
    let free: Vec<_> = rows.iter().filter(|row| row.owner.is_none()).map(|row| (row.shard, row.epoch)).collect();
    let mut owned: BTreeMap<_, _> = rows
        .iter()
        .filter(|row| row.owner.as_ref().is_some_and(|owner| owner.incarnation == life))
        .map(|row| (row.shard, row.epoch))
        .collect();
    owned.extend(store.take(&free, life).await.unwrap());
    let writes = owned.iter().map(async |(shard, epoch)| {
        let next = store.load(run_of(*shard), true).await.unwrap().unwrap().entries.len() as u64 + 1;
        let payload = format!("{life} {number}").into_bytes();
        let write = Append { incarnation: Some(life), ..append(run_of(*shard), *epoch, entry(next, payload.clone())) };
        store.append(write).await.unwrap();
        (*shard, next, payload)
    });
    let written = join_all(writes).await;
    let given: Vec<_> = owned.into_iter().filter(|(shard, _)| usize::from(shard.0) % 3 == number % 3).collect();
    assert_eq!(store.release(&given, life).await.unwrap().len(), given.len());
    written
}

/// Writes, takes and releases lock the same rows from several connections: nobody waits in a circle, and what is there
/// is what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_change_hands_under_load() {
    let Some(place) = Place::new("hands").await else { return };
    let stores: [_; NODES] = [place.store().await, place.store().await, place.store().await];
    for shard in (0..SHARDS).map(ShardId) {
        stores[0].admit(admission(run_of(shard))).await.unwrap();
    }
    // Everybody goes on until everybody has had shards often enough: who wins a race is nobody's to say.
    let content = Arc::new(AtomicUsize::new(0));
    let nodes = stores.iter().enumerate().map(|(node, store)| {
        let (store, content) = (Arc::clone(store), Arc::clone(&content));
        tokio::spawn(async move {
            let life = store.register(&format!("node {node}"), "", Duration::from_secs(60)).await.unwrap();
            let (mut written, mut rounds_with_shards) = (vec![], 0);
            for number in 0..MOST_ROUNDS {
                let some = round(&store, life, number).await;
                rounds_with_shards += usize::from(!some.is_empty());
                written.extend(some);
                if rounds_with_shards == ROUNDS {
                    rounds_with_shards += 1;
                    content.fetch_add(1, Ordering::Relaxed);
                }
                if content.load(Ordering::Relaxed) == NODES {
                    return written;
                }
            }
            panic!("somebody never had a shard");
        })
    });
    let all: Vec<_> = join_all(nodes).await.into_iter().map(Result::unwrap).collect();
    let mut acknowledged: BTreeMap<ShardId, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    for (shard, seq, payload) in all.into_iter().flatten() {
        acknowledged.entry(shard).or_default().push((seq, payload));
    }
    for (shard, mut writes) in acknowledged {
        writes.sort();
        let entries = stores[0].load(run_of(shard), true).await.unwrap().unwrap().entries;
        let there = entries.iter().skip(1).map(|entry| (entry.seq.0, entry.payload.to_vec()));
        assert!(there.eq(writes), "shard {shard}");
    }
}

/// A take waits for the write that is being committed under the epoch that it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_waits_for_a_write_and_ends_its_epoch() {
    let Some(place) = Place::new("take").await else { return };
    let store = place.store().await;
    store.admit(admission(run(1))).await.unwrap();
    let dead = store.register("dead", "", Duration::ZERO).await.unwrap();
    let next = store.register("next", "", Duration::from_secs(60)).await.unwrap();
    store.take(&[(SHARD, Epoch(0))], dead).await.unwrap();
    assert!(store.fence_expired(dead).await.unwrap());
    // A write of the dead node that the server is still at: it holds the shard's row as every write does.
    let mut foreign = place.connection().await;
    let mut write = foreign.begin().await.unwrap();
    write.execute("select epoch from shard where shard = 1 for share").await.unwrap();
    let taking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.take(&[(SHARD, Epoch(1))], next).await }
    });
    let waiting = format!(
        "select count(*) from pg_stat_activity
         where wait_event_type = 'Lock' and query like 'with taker%' and application_name = '{}'",
        place.name()
    );
    let mut watcher = place.connection().await;
    while watcher.fetch_one(&*waiting).await.unwrap().get::<i64, _>(0) == 0 {}
    write.commit().await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap(), [(SHARD, Epoch(2))]);
    let late = store.append(append(run(1), Epoch(1), entry(2, vec![2]))).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
}
