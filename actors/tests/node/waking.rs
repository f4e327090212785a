//! Runs that wake or end while their shards come and go.

use std::time::Duration;

use motet_actors::ports::{Clock as _, SystemClock};
use motet_engine::id::ShardId;
use motet_engine::run::Phase;
use motet_store::port::HeadState;
use serde_json::json;

use crate::world::{ECHO, PATIENCE, World, apply, finish, submit, until};

/// Nobody serves the shard that goes away, so its runs stay due for ever.
#[tokio::test(flavor = "multi_thread")]
async fn runs_wake_although_a_shard_goes_away_while_they_do() {
    let world = World::new();
    let node = world.member(2, true).await;
    let (stays, goes) = (ShardId(0), ShardId(1));
    for shard in [stays, goes] {
        let epoch = world.store().claim(shard, "test").await.unwrap();
        node.shard_host().take_over(shard, epoch).await;
    }
    apply(&node, "kind: Workflow\nname: rest\nsteps: {w: {call: wait, with: {until: '${ input.until }'}}}").await;
    let due = SystemClock::default().now().after(Duration::from_secs(2));
    let rest = json!({"until": due.to_rfc3339().unwrap()});
    let mut runs = vec![];
    for _ in 0..500 {
        runs.push(submit(&node, "rest", rest.clone()).await);
    }
    let ended = async || {
        let counts = world.store().counts().await.unwrap();
        counts.iter().any(|(state, runs)| *state == HeadState::Succeeded && *runs > 0)
    };
    until("the first of many to wake", ended).await;
    node.shard_host().lost(goes);
    // One more than were due with the shard that went away: it is met by a later look.
    runs.push(submit(&node, "rest", json!({"until": due.after(Duration::from_secs(2)).to_rfc3339().unwrap()})).await);
    for run in runs.into_iter().filter(|run| run.shard() == stays) {
        finish(&node, run).await;
    }
}

/// Among them are always some that end by themselves just then.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_handed_over_while_its_runs_end() {
    let world = World::new();
    let node = world.member(1, true).await;
    apply(&node, ECHO).await;
    let shard = ShardId(0);
    let mut runs = vec![];
    for round in 0..200 {
        let epoch = world.store().claim(shard, "test").await.unwrap();
        node.shard_host().take_over(shard, epoch).await;
        for number in 0..8 {
            runs.push(submit(&node, "echo", json!({"text": number.to_string()})).await);
        }
        let host = node.shard_host();
        let handed_over = tokio::time::timeout(PATIENCE, host.hand_over(shard, PATIENCE)).await;
        assert!(handed_over.is_ok(), "round {round}");
        assert_eq!(node.router().runs().live(), 0, "round {round}");
    }
    let epoch = world.store().claim(shard, "test").await.unwrap();
    node.shard_host().take_over(shard, epoch).await;
    for run in runs {
        assert_eq!(finish(&node, run).await.phase(), Phase::Succeeded);
    }
}
