//! What the shard table costs in PostgreSQL: the looks of a node, and shards that change hands.
//!
//! Never part of the tests: figures depend on the machine. Works in a schema of its own, which it leaves behind. Run with
//! `tests/services/services run postgres -- cargo run --release -p motet-store --example shard_speed`.

use std::time::{Duration, Instant};

use motet_engine::id::{Epoch, MAX_SHARDS, Name, ShardId};
use motet_store::StoreError;
use motet_store::port::{Assignment, LeaseStore, ShardStore, Store};
use motet_store::postgres::{PostgresOptions, PostgresStore};

/// Names the server.
const URL: &str = "MOTET_TEST_POSTGRES_URL";

const NODES: u64 = 100;
const LEASE: Duration = Duration::from_secs(600);

/// Prints the best and the middle of many tries.
fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!("{what}: best {:.2?}, median {:.2?}", times[0], times[times.len() / 2]);
}

/// The time that each of some calls takes, one after the other.
async fn times<T>(
    rounds: u32,
    mut call: impl AsyncFnMut(u32) -> Result<T, StoreError>,
) -> Result<Vec<Duration>, StoreError> {
    let mut times = vec![];
    for round in 0..rounds {
        let begun = Instant::now();
        call(round).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

#[tokio::main]
async fn main() -> Result<(), StoreError> {
    let Ok(url) = std::env::var(URL) else {
        return Err(StoreError::Refused(format!("{URL} is not set; see the head of this file")));
    };
    let mut options = PostgresOptions::from_url(&url)?;
    options.schema = Some(format!("motet_shard_speed_{}", std::process::id()));
    options.migrate_at_start = true;
    let store = PostgresStore::open(options).await?;
    let mut lives = vec![];
    for node in 0..NODES {
        lives.push(store.register(&format!("node-{node}"), "", LEASE).await?);
    }
    let all: Vec<(ShardId, Epoch)> = (0..MAX_SHARDS).map(|shard| (ShardId(shard), Epoch(0))).collect();
    let parts = all.chunks(512).collect::<Vec<_>>();
    let taking = times(8, async |round| store.take(parts[round as usize], lives[0]).await).await?;
    report("512 shards are taken in one statement", taking);
    let one = times(500, async |_| store.map_version().await).await?;
    report("the version is read", one);
    report("the leases of 100 nodes are read", times(300, async |_| store.live().await).await?);
    report("a lease is renewed", times(200, async |_| store.renew(lives[1], LEASE).await).await?);
    report("all 4,096 rows are read", times(30, async |_| store.shards(MAX_SHARDS, None).await).await?);
    let version = store.map_version().await?;
    let role = Name::new("planner").map_err(|error| StoreError::Refused(error.to_string()))?;
    let Some(term) = store.lead(&role, "one", LEASE).await? else { return Ok(()) };
    let assigning = times(20, async |round| {
        let wanted =
            |shard: u16| Assignment { shard: ShardId(shard), epoch: Epoch(1), target: format!("node-{round}") };
        store.assign(&role, term, &(0..41).map(wanted).collect::<Vec<_>>()).await
    });
    report("41 shards get targets", assigning.await?);
    report("41 rows that changed are read", times(100, async |_| store.shards(MAX_SHARDS, Some(version)).await).await?);
    let moving = times(20, async |round| {
        let epoch = 1 + u64::from(round) * 2;
        let under = |epoch| (0..41).map(|shard| (ShardId(shard), Epoch(epoch))).collect::<Vec<_>>();
        store.release(&under(epoch), lives[round as usize % 2]).await?;
        store.take(&under(epoch + 1), lives[(round as usize + 1) % 2]).await
    });
    report("41 shards are released and taken, two statements", moving.await?);
    store.close().await
}
