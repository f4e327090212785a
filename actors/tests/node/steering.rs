//! Runs that wait without an actor, and runs that are paused, retried and forked from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use motet_actors::message::Answer;
use motet_actors::node::Node;
use motet_actors::router::{ForkRequest, SubmitError};
use motet_engine::id::RunId;
use motet_engine::input::Rejection;
use motet_engine::run::{ForkError, Phase};
use motet_store::port::HeadState;
use serde_json::json;

use crate::world::{PATIENCE, World, apply, caller, finish, output, submit, until};

const APPROVAL: &str = "
kind: Workflow
name: approval
steps:
  ask: {call: signal, signal: approval, with: {q: '${ input.q }'}, schema: {type: object, required: [yes]}}
  rest: {call: wait, needs: [ask], with: {for: 20ms}}
output: '${ steps.ask.output }'
";

async fn head(node: &Node, run: RunId) -> HeadState {
    node.store().head(run).await.unwrap().unwrap().state
}

async fn parked(node: &Node) {
    until("the run to wait without an actor", async || node.router().runs().live() == 0).await;
}

async fn send(node: &Node, run: RunId, id: &str, payload: serde_json::Value) -> Answer {
    node.router().signal(&caller(), run, "approval".into(), payload.into(), id.into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_signal_as_a_row_and_over_a_restart() {
    let world = World::new();
    let node = world.durable_node().await;
    apply(&node, APPROVAL).await;
    let run = submit(&node, "approval", json!({"q": "may I?"})).await;
    parked(&node).await;
    assert_eq!(head(&node, run).await, HeadState::Waiting);
    let refused = send(&node, run, "1", json!("no")).await;
    assert!(matches!(refused, Answer::Rejected(Rejection::SignalUnfit { .. })), "{refused:?}");
    parked(&node).await;
    node.stop(PATIENCE).await.unwrap();
    let node = world.durable_node().await;
    let read = node.router().read_run(&caller(), run).await.unwrap();
    assert_eq!(read.waits(9)[0].with.to_json(), json!({"q": "may I?"}));
    assert!(matches!(send(&node, run, "2", json!({"yes": true})).await, Answer::Accepted));
    assert_eq!(output(&finish(&node, run).await), json!({"yes": true}));
    let again = send(&node, run, "2", json!({"yes": true})).await;
    assert!(matches!(again, Answer::Rejected(Rejection::Ended)), "{again:?}");
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_ends_while_the_node_is_down_ends_at_the_next_start() {
    let world = World::new();
    let node = world.durable_node().await;
    apply(&node, "kind: Workflow\nname: w\nsteps: {w: {call: wait, with: {for: 1500ms}}}").await;
    let run = submit(&node, "w", json!({})).await;
    parked(&node).await;
    node.stop(PATIENCE).await.unwrap();
    let node = world.durable_node().await;
    // Nobody asks for it: its row alone wakes it.
    until("the end of the wait", async || head(&node, run).await == HeadState::Succeeded).await;
    node.stop(PATIENCE).await.unwrap();
}

const SLOW: &str = "
kind: Model
name: echo
backend: fake
parameters: {latency_ms: 100}
---
kind: Workflow
name: slow
steps:
  one: {call: model, model: echo, with: {text: a}}
  two: {call: model, model: echo, needs: [one], with: {text: '${ steps.one.output.text }b'}}
output: '${ steps.two.output.text }'
";

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_records_what_is_under_way_and_holds_no_actor() {
    let world = World::new();
    let node = world.durable_node().await;
    apply(&node, SLOW).await;
    let run = submit(&node, "slow", json!({})).await;
    assert!(matches!(node.router().pause(&caller(), run, None).await.unwrap(), Answer::Accepted));
    assert_eq!(head(&node, run).await, HeadState::Paused);
    parked(&node).await;
    let read = node.router().read_run(&caller(), run).await.unwrap();
    let states: Vec<_> = read.state().steps.iter().map(|step| step.status.as_str()).collect();
    assert_eq!(states, ["succeeded", "pending"], "the answer was recorded, and nothing new began");
    let again = node.router().pause(&caller(), run, None).await.unwrap();
    assert!(matches!(again, Answer::Rejected(Rejection::Paused)), "{again:?}");
    node.stop(PATIENCE).await.unwrap();
    let node = world.durable_node().await;
    assert_eq!(head(&node, run).await, HeadState::Paused, "a restart does not let it go on");
    assert!(matches!(node.router().resume(&caller(), run).await.unwrap(), Answer::Accepted));
    assert_eq!(output(&finish(&node, run).await), json!("ab"));
    node.stop(PATIENCE).await.unwrap();
}

const FRAGILE: &str = "
kind: Model
name: flaky
backend: fake
parameters: {fail_every: 2, fail_class: unavailable}
---
kind: Workflow
name: fragile
steps:
  one: {call: model, model: flaky, with: {text: '${ input.text }'}}
  two: {call: model, model: flaky, with: {text: '${ steps.one.output.text }!'}, retry: {max_attempts: 1}}
output: '${ steps.two.output.text }'
";

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_goes_on_where_it_failed() {
    let world = World::new();
    let node = world.durable_node().await;
    apply(&node, FRAGILE).await;
    let run = submit(&node, "fragile", json!({"text": "a"})).await;
    assert_eq!(finish(&node, run).await.phase(), Phase::Failed);
    parked(&node).await;
    assert_eq!(node.router().runs().unfinished(), 0);
    let unknown = node.router().retry(&caller(), run, Some("three".into())).await.unwrap();
    assert!(matches!(unknown, Answer::Rejected(Rejection::UnknownStep { .. })), "{unknown:?}");
    parked(&node).await;
    assert_eq!(node.router().runs().unfinished(), 0, "what was turned down counts for nothing");
    assert!(matches!(node.router().retry(&caller(), run, None).await.unwrap(), Answer::Accepted));
    let ended = finish(&node, run).await;
    assert_eq!((output(&ended), ended.state().steps[1].attempts()), (json!("a!"), 2));
    until("the end to be counted", async || node.router().runs().unfinished() == 0).await;
    node.stop(PATIENCE).await.unwrap();
}

fn fork(step: &str, outputs: &[(&str, serde_json::Value)]) -> ForkRequest {
    let outputs: BTreeMap<Arc<str>, _> =
        outputs.iter().map(|(name, output)| ((*name).into(), output.clone().into())).collect();
    ForkRequest { step: step.into(), input: None, outputs, idempotency: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_begins_from_a_step_with_other_outputs() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, SLOW).await;
    let source = submit(&node, "slow", json!({})).await;
    finish(&node, source).await;
    let forked = node.router().fork(&caller(), source, fork("two", &[("one", json!({"text": "x"}))])).await.unwrap();
    let run = finish(&node, forked.submitted.run).await;
    assert_eq!((output(&run), run.state().forked_from), (json!("xb"), Some(source)));
    let refused = node.router().fork(&caller(), source, fork("three", &[])).await;
    assert!(matches!(refused, Err(SubmitError::Unforkable(ForkError::UnknownStep(_)))), "{refused:?}");
    node.stop(PATIENCE).await.unwrap();
}
