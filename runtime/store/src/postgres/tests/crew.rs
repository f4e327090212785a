//! Two writers: the second one comes when the first is always full, goes when there is room, and nothing shows it.

use std::sync::atomic::Ordering;

use super::*;
use crate::port::RunStore;

const RUNS: u64 = 48;
const ENTRIES: u64 = 10;

/// Three of these fill a commit.
const LARGE: usize = 100 << 10;

fn number(store: &PostgresStore) -> usize {
    store.queue.status.further.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_comes_and_goes_and_no_write_is_lost_or_doubled() {
    let Some(place) = Place::new("crew").await else { return };
    let store = place.store().await;
    let runs: Vec<_> = (0..RUNS).map(|number| RunId::new(at(0), ShardId((number % 8) as u16), number)).collect();
    let mut epochs = vec![];
    for shard in 0..8 {
        epochs.push(store.claim(ShardId(shard), "crew").await.unwrap());
    }
    let epoch = |run: RunId| epochs[usize::from(run.shard().0)];
    let large = |run: RunId| {
        let store = Arc::clone(&store);
        async move {
            store.admit(admission(run)).await.unwrap();
            let mut most = 0;
            for seq in 2..=ENTRIES {
                store.append(append(run, epoch(run), entry(seq, vec![7; LARGE]))).await.unwrap();
                most = most.max(number(&store));
            }
            most
        }
    };
    let most = join_all(runs.iter().map(|run| large(*run))).await.into_iter().max();
    assert_eq!(most, Some(1), "the second writer was not asked");
    // Small ones, one at a time, in turn over all shards, until the first writer has room to spare.
    let mut seq = ENTRIES + 1;
    while number(&store) > 0 {
        assert!(seq < ENTRIES + 50, "the second writer stays");
        for run in &runs {
            store.append(append(*run, epoch(*run), entry(seq, vec![1]))).await.unwrap();
        }
        seq += 1;
    }
    for run in runs {
        // Once more with one writer, which wrote some of the entries and not others.
        store.append(append(run, epoch(run), entry(seq, vec![2]))).await.unwrap();
        let again = store.append(append(run, epoch(run), entry(seq, vec![3]))).await;
        assert!(matches!(again, Err(StoreError::SeqTaken { .. })), "{again:?}");
        let stored = store.load(run, true).await.unwrap().unwrap();
        let numbers: Vec<_> = stored.entries.iter().map(|entry| entry.seq.0).collect();
        assert_eq!(numbers, (1..=seq).collect::<Vec<_>>());
    }
}
