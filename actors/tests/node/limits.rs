//! Limits of workflows and models on a whole node: who may go on, who waits as a row, and in which order.

use std::time::Duration;

use motet_actors::node::Node;
use motet_engine::id::{RunId, Seq};
use motet_engine::run::Phase;
use motet_store::port::HeadState;
use serde_json::json;

use crate::world::{PATIENCE, World, apply, caller, finish, request, submit, until};

/// Steps that wait for their model until the test lets them go on: by a signal, in the middle of the work.
const KEYED: &str = "
kind: Model
name: slow
backend: fake
parameters: {latency_ms: 60}
---
kind: Workflow
name: keyed
limits: {concurrency: 1, key: '${ input.customer }'}
steps:
  work: {call: model, model: slow, with: {text: '${ input.customer }'}}
output: '${ steps.work.output.text }'
";

async fn head(node: &Node, run: RunId) -> HeadState {
    node.store().head(run).await.unwrap().unwrap().state
}

/// When the runs' work began and ended, by the times of their events.
async fn spans(node: &Node, runs: &[RunId]) -> Vec<(i64, i64)> {
    let mut spans = vec![];
    for run in runs {
        finish(node, *run).await;
        let events = node.router().events(*run, Seq(0), 100).await.unwrap();
        let ended = events.last().unwrap().at.as_millis();
        // The fake model takes 60 ms: its call cannot have begun later.
        spans.push((ended - 60, ended));
    }
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_key_go_one_after_the_other_in_the_order_of_their_submission() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, KEYED).await;
    let mut runs = vec![];
    for _ in 0..4 {
        runs.push(submit(&node, "keyed", json!({"customer": "a"})).await);
    }
    let other = submit(&node, "keyed", json!({"customer": "b"})).await;
    assert_eq!(head(&node, runs[3]).await, HeadState::Pending);
    assert_eq!(node.router().runs().turn_of(runs[3]).unwrap().inside, 1);
    let spans = spans(&node, &runs).await;
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0 + 1, "{spans:?}");
    }
    finish(&node, other).await;
    // Whoever waits for a run hears of its end before it is counted.
    until("no run is left", async || node.router().runs().unfinished() == 0).await;
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_turn_is_a_row_and_can_be_cancelled() {
    let world = World::new();
    let node = world.node().await;
    apply(
        &node,
        "
kind: Workflow
name: held
limits: {concurrency: 1}
steps:
  go: {call: signal, signal: go}
  work: {call: model, model: slow, needs: [go], with: {text: x}}
---
kind: Model
name: slow
backend: fake
parameters: {latency_ms: 400}
",
    )
    .await;
    // Runs that wait for a signal are not worked on: all of them may wait at one time.
    let mut runs = vec![];
    for _ in 0..3 {
        runs.push(submit(&node, "held", json!({})).await);
    }
    until("all to wait for the signal", async || node.router().runs().live() == 0).await;
    assert!(node.router().runs().turn_of(runs[2]).is_none());
    for run in &runs {
        node.router().signal(&caller(), *run, "go".into(), json!(null).into(), "1".into()).await.unwrap();
    }
    until("two to wait for their turn", async || {
        node.router().runs().live() == 1 && node.router().runs().turn_of(runs[2]).is_some()
    })
    .await;
    assert_eq!(head(&node, runs[2]).await, HeadState::Pending);
    node.router().cancel(&caller(), runs[2], None).await.unwrap();
    assert_eq!(finish(&node, runs[2]).await.phase(), Phase::Cancelled);
    assert!(node.router().runs().turn_of(runs[2]).is_none());
    for run in &runs[..2] {
        assert_eq!(finish(&node, *run).await.phase(), Phase::Succeeded);
    }
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_come_after_a_restart_too() {
    let world = World::new();
    let node = world.durable_node().await;
    apply(&node, KEYED).await;
    let mut runs = vec![];
    for _ in 0..6 {
        runs.push(submit(&node, "keyed", json!({"customer": "a"})).await);
    }
    node.stop(Duration::ZERO).await.unwrap();
    let node = world.durable_node().await;
    for run in &runs {
        assert_eq!(finish(&node, *run).await.phase(), Phase::Succeeded);
    }
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_spreads_beginnings_over_time() {
    let world = World::new();
    let node = world.node().await;
    apply(
        &node,
        "
kind: Model
name: echo
backend: fake
---
kind: Workflow
name: paced
limits: {rate: {count: 2, per: 200ms}}
steps:
  work: {call: model, model: echo, with: {text: x}}
",
    )
    .await;
    let begun = std::time::Instant::now();
    let mut runs = vec![];
    for _ in 0..6 {
        runs.push(submit(&node, "paced", json!({})).await);
    }
    for run in runs {
        finish(&node, run).await;
    }
    // Two at once, then one in 100 ms.
    assert!(begun.elapsed() >= Duration::from_millis(390), "{:?}", begun.elapsed());
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn higher_priority_goes_first_among_those_that_wait() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, KEYED).await;
    let mut runs = vec![];
    for priority in [0, 0, 0, 5] {
        let mut request = request("keyed", json!({"customer": "a"}));
        request.priority = priority;
        runs.push(node.router().submit(&caller(), request).await.unwrap().run);
    }
    let spans = spans(&node, &runs).await;
    assert!(spans[3].1 < spans[1].1 && spans[1].1 < spans[2].1, "{spans:?}");
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_takes_no_more_calls_at_one_time_and_within_a_span_than_its_limits_say() {
    let world = World::new();
    let node = world.node().await;
    apply(
        &node,
        "
kind: Model
name: narrow
backend: fake
batch: {max: 8}
limits: {concurrency: 2, rate: {count: 4, per: 200ms}}
parameters: {latency_ms: 5}
---
kind: Workflow
name: narrow
steps:
  work: {call: model, model: narrow, with: {text: x}}
",
    )
    .await;
    let begun = std::time::Instant::now();
    let mut runs = vec![];
    for _ in 0..10 {
        runs.push(submit(&node, "narrow", json!({})).await);
    }
    for run in runs {
        assert_eq!(finish(&node, run).await.phase(), Phase::Succeeded);
    }
    // Four at once, then one in 50 ms.
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    let figures = node.router().models().views(&caller().namespace)[0].figures;
    assert!(figures.largest_batch <= 2, "{figures:?}");
    node.stop(PATIENCE).await.unwrap();
}
