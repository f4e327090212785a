//! Elections with real Redis and real PostgreSQL: whatever becomes of Redis moves nothing, and a leader that dies or
//! stands still is followed in time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

mod processes;
mod stage;

use std::time::Duration;

use stage::{Stage, let_pass};

/// Leases of 3 s where nothing depends on the usual 10 s.
const QUICK: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_dies_and_returns_moves_nothing() {
    let Some(mut stage) = Stage::new("redis_dies", Some(QUICK), 3).await else { return };
    let before = stage.leads().await;
    stage.redis.kill();
    let_pass(QUICK * 2).await;
    assert_eq!(stage.leads().await, before, "while it is away");
    stage.redis.begin().await;
    let_pass(QUICK * 3).await;
    assert_eq!(stage.leads().await, before, "after it came back with nothing");
    stage.leader_has_redis().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_moves_nothing() {
    let Some(stage) = Stage::new("redis_emptied", Some(QUICK), 3).await else { return };
    let before = stage.leads().await;
    for _ in 0..6 {
        assert_eq!(stage.redis.command("FLUSHALL").await.as_deref(), Some("+OK\r\n"));
        let_pass(QUICK / 4).await;
    }
    let_pass(QUICK).await;
    assert_eq!(stage.leads().await, before);
    stage.leader_has_redis().await;
}

/// With the usual settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_for_12_seconds_moves_nothing() {
    let Some(stage) = Stage::new("redis_frozen", None, 3).await else { return };
    let before = stage.leads().await;
    stage.redis.freeze();
    let_pass(Duration::from_secs(12)).await;
    assert_eq!(stage.leads().await, before, "while it stands still");
    stage.redis.thaw();
    let_pass(Duration::from_secs(5)).await;
    assert_eq!(stage.leads().await, before, "after it went on");
    stage.leader_has_redis().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drains_hands_over_at_once() {
    let Some(stage) = Stage::new("drains", None, 3).await else { return };
    let mut before = stage.leads().await;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        stage.candidates[before.0].stand(false);
        let after = stage.leads_other_than(before.0).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(after.1.0, before.1.0 + 1, "nobody else had it meanwhile");
        stage.candidates[before.0].stand(true);
        before = after;
    }
}
