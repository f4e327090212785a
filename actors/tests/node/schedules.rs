//! Schedules begin runs by themselves: each time once, also over restarts.

use std::collections::BTreeSet;

use motet_actors::node::Node;
use motet_engine::id::{Name, Namespace, RunId};
use motet_store::port::{HeadState, RunHead, RunQuery};

use crate::world::{PATIENCE, World, apply, caller, until};

const SECONDLY: &str = "
kind: Workflow
name: tick
steps: {say: {call: transform, with: '${ input.text }'}}
---
kind: Schedule
name: each-second
workflow: tick
cron: '* * * * * *'
input: {text: tock}
tags: [clock]
catch_up: {window: 1m}
";

async fn begun(node: &Node) -> Vec<RunHead> {
    let tag = Some("schedule:each-second".to_owned());
    let query = RunQuery { tag, ..RunQuery::newest(Namespace::default(), 1_000) };
    node.store().list(&query).await.unwrap()
}

/// The seconds for which runs began; each once, and none left out.
fn seconds(heads: &[RunHead]) -> Vec<i64> {
    let times: BTreeSet<i64> = heads.iter().map(|head| head.run.created_at().as_millis() / 1_000).collect();
    assert_eq!(times.len(), heads.len(), "a time began two runs");
    let (first, last) = (*times.first().unwrap(), *times.last().unwrap());
    assert_eq!(times.len() as i64, last - first + 1, "a time was left out: {times:?}");
    times.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_second_begins_one_run_also_those_while_the_node_was_down() {
    let world = World::new();
    let node = world.durable_node().await;
    apply(&node, SECONDLY).await;
    until("two runs", async || begun(&node).await.len() >= 2).await;
    let name = Name::new("each-second").unwrap();
    let figures = || node.router().schedules().figures(&Namespace::default(), &name);
    // A run is in the store a moment before it is counted.
    until("both to be counted", async || figures().is_some_and(|it| it.begun >= 2 && it.next_at.is_some())).await;
    node.stop(PATIENCE).await.unwrap();
    let stopped = std::time::Instant::now();
    until("two seconds to pass", async || stopped.elapsed().as_secs() >= 2).await;
    let node = world.durable_node().await;
    until("four more runs", async || begun(&node).await.len() >= 6).await;
    let heads = begun(&node).await;
    seconds(&heads);
    assert!(heads.iter().all(|head| head.state == HeadState::Succeeded && head.tags.contains(&"clock".to_owned())));
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_was_deleted_or_paused_begins_nothing() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, SECONDLY).await;
    let name = Name::new("each-second").unwrap();
    until("a run", async || !begun(&node).await.is_empty()).await;
    apply(&node, &SECONDLY.replace("tags:", "paused: true\ntags:")).await;
    let next = || node.router().schedules().figures(&Namespace::default(), &name).and_then(|figures| figures.next_at);
    until("the pause to be seen", async || next().is_none()).await;
    let count = begun(&node).await.len();
    apply(&node, SECONDLY).await;
    until("it to go on", async || begun(&node).await.len() > count).await;
    assert!(node.router().delete_schedule(&caller(), &name).await.unwrap());
    let gone = || node.router().schedules().figures(&Namespace::default(), &name).is_none();
    until("it to be forgotten", async || gone()).await;
    assert!(!node.router().delete_schedule(&caller(), &name).await.unwrap());
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_run_that_goes_on_is_not_overtaken() {
    let world = World::new();
    let node = world.node().await;
    let waiting = SECONDLY.replace("{call: transform, with: '${ input.text }'}", "{call: signal}");
    apply(&node, &waiting).await;
    until("a run", async || !begun(&node).await.is_empty()).await;
    let first: RunId = begun(&node).await[0].run;
    let name = Name::new("each-second").unwrap();
    let figures = || node.router().schedules().figures(&Namespace::default(), &name).unwrap();
    let later = figures().next_at.unwrap().after(std::time::Duration::from_secs(2));
    until("two more seconds", async || figures().next_at.is_some_and(|at| at > later)).await;
    assert_eq!(begun(&node).await.len(), 1, "those seconds were skipped");
    node.router().signal(&caller(), first, "say".into(), serde_json::json!(1).into(), "1".into()).await.unwrap();
    until("the next one", async || begun(&node).await.len() == 2).await;
    node.stop(PATIENCE).await.unwrap();
}
