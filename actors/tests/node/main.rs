//! A whole node over ports in memory: runs end to end, batches across runs, parking, supervision, stopping and
//! starting again.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests may fail loudly")]

mod cluster;
mod egress;
mod faulty;
mod homes;
mod ingest;
mod limits;
mod newer;
mod placing;
mod residency;
mod results;
mod schedules;
mod schemas;
mod serving;
mod steering;
mod streams;
mod waking;
mod world;

use std::time::Duration;

use motet_actors::address::Address;
use motet_actors::message::{Answer, Ask, RouteError, RunAsk};
use motet_actors::router::SubmitError;
use motet_engine::access::{Caller, Principal};
use motet_engine::failure::FailureClass;
use motet_engine::id::{Name, Namespace, RunId, Seq};
use motet_engine::input::Rejection;
use motet_engine::run::Phase;
use motet_engine::value::Value;
use motet_models::fake::CRASH_INPUT;
use serde_json::json;

use world::{ECHO, PATIENCE, World, apply, caller, finish, output, request, submit};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_through_models_to_its_end() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, ECHO).await;
    let run = submit(&node, "echo", json!({"text": "hello"})).await;
    assert_eq!(output(&finish(&node, run).await), json!("hello"));
    let events = node.router().events(run, Seq(0), 100).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq.0).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(node.stop(PATIENCE).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_runs_form_batches() {
    let world = World::new();
    let node = world.node().await;
    let slow = ECHO.replace("backend: fake", "backend: fake\nparameters: {latency_ms: 20}\nbatch: {max: 16}");
    apply(&node, &slow).await;
    let mut runs = vec![];
    for n in 0..64 {
        runs.push((n, submit(&node, "echo", json!({"text": n.to_string()})).await));
    }
    for (n, run) in runs {
        assert_eq!(output(&finish(&node, run).await), json!(n.to_string()), "answers must not be mixed up");
    }
    let view = node.router().models().view(&Namespace::default(), &Name::new("echo").unwrap()).unwrap();
    assert_eq!(view.figures.rows, 128);
    assert!(view.figures.batches <= 64 && view.figures.largest_batch == 16, "{:?}", view.figures);
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_input_costs_only_its_own_call() {
    let world = World::new();
    let node = world.node().await;
    let batched = ECHO.replace("backend: fake", "backend: fake\nparameters: {latency_ms: 20}\nbatch: {max: 16}");
    apply(
        &node,
        &batched
            .replace("with: {text: '${ input.text }'}", "retry: {max_attempts: 1}, with: {text: '${ input.text }'}"),
    )
    .await;
    let mut runs = vec![];
    for n in 0..32 {
        let text = if n == 7 { CRASH_INPUT.to_owned() } else { n.to_string() };
        runs.push((n, submit(&node, "echo", json!({"text": text})).await));
    }
    for (n, run) in runs {
        let run = finish(&node, run).await;
        let expected = if n == 7 { Phase::Failed } else { Phase::Succeeded };
        assert_eq!(run.phase(), expected, "run {n}: {:?}", run.state().failure);
    }
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_after_the_node_is_started_again() {
    let world = World::new();
    let node = world.durable_node().await;
    let slow = ECHO.replace("backend: fake", "backend: fake\nparameters: {latency_ms: 200}\nbatch: {max: 4}");
    apply(&node, &slow).await;
    let mut runs = vec![];
    for n in 0..24 {
        runs.push((n, submit(&node, "echo", json!({"text": n.to_string()})).await));
    }
    let left = node.stop(Duration::ZERO).await.unwrap();
    assert!(left > 0, "the test must stop while runs are under way");
    let node = world.durable_node().await;
    for (n, run) in runs {
        assert_eq!(output(&finish(&node, run).await), json!(n.to_string()));
    }
    assert_eq!(node.router().runs().unfinished(), 0);
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_long_gives_up_its_actor_and_is_woken() {
    let world = World::new();
    let node = world.node().await;
    let yaml = "
kind: Model
name: flaky
backend: fake
parameters: {fail_every: 2, fail_class: unavailable}
---
kind: Workflow
name: patient
steps:
  one: {call: model, model: flaky, with: {text: a}}
  two:
    call: model
    model: flaky
    needs: [one]
    with: {text: b}
    retry: {max_attempts: 3, backoff: {initial: 1500ms, factor: 1, max: 1500ms}}
";
    apply(&node, yaml).await;
    // Jitter decides how long each waits; among several some wait longer than a second and park.
    for _ in 0..6 {
        let run = submit(&node, "patient", json!({})).await;
        let (seq, ended) = node.router().watch(&caller(), run, Seq(3), PATIENCE).await.unwrap();
        assert!(seq > Seq(3) || ended);
        assert_eq!(finish(&node, run).await.phase(), Phase::Succeeded);
    }
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_is_durable_and_ends_absorb() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, &ECHO.replace("backend: fake", "backend: fake\nparameters: {latency_ms: 5000}")).await;
    let run = submit(&node, "echo", json!({"text": "x"})).await;
    let answer = node.router().cancel(&caller(), run, Some("enough".into())).await.unwrap();
    assert!(matches!(answer, Answer::Accepted), "{answer:?}");
    assert_eq!(finish(&node, run).await.phase(), Phase::Cancelled);
    let again = node.router().cancel(&caller(), run, None).await.unwrap();
    assert!(matches!(again, Answer::Rejected(Rejection::Ended)), "{again:?}");
    node.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_stored_and_found_by_runs() {
    let world = World::new();
    let node = world.node().await;
    let yaml = "
kind: Index
name: kb
dimension: 2
metric: cosine
---
kind: Workflow
name: store
steps:
  put: {call: vector.upsert, with: {index: kb, id: '${ input.id }', values: '${ input.v }', metadata: {n: '${ input.id }'}}}
---
kind: Workflow
name: find
steps:
  near: {call: vector.query, with: {index: kb, vector: '${ input.v }', top_k: 1}}
output: '${ steps.near.output.matches[0].metadata.n }'
";
    apply(&node, yaml).await;
    for (id, v) in [("right", [1.0, 0.0]), ("up", [0.0, 1.0])] {
        let run = submit(&node, "store", json!({"id": id, "v": v})).await;
        assert_eq!(finish(&node, run).await.phase(), Phase::Succeeded);
    }
    let run = submit(&node, "find", json!({"v": [0.1, 0.9]})).await;
    assert_eq!(output(&finish(&node, run).await), json!("up"));
    let stats = node.router().index_stats(&Namespace::default(), &Name::new("kb").unwrap(), PATIENCE).await.unwrap();
    assert_eq!(stats.namespaces.iter().map(|(_, count)| count).sum::<u64>(), 2);
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_by_type() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, ECHO).await;
    let unknown = node.router().submit(&caller(), request("nothing", json!({}))).await;
    assert!(matches!(unknown, Err(SubmitError::Catalog(_))), "{unknown:?}");
    let run = submit(&node, "echo", json!({"text": "x"})).await;
    finish(&node, run).await;
    let stranger = Caller { namespace: Namespace(Name::new("other").unwrap()), ..caller() };
    assert!(matches!(node.router().read_run(&stranger, run).await, Err(RouteError::Unknown(_))));
    let ghost = RunId::from_bytes([0; 16]);
    let asked = node.router().ask(&caller(), &Address::Run(ghost), Ask::Run(RunAsk::Read), PATIENCE).await;
    assert!(matches!(asked, Err(RouteError::Unknown(_))), "{asked:?}");
    let wrong = node.router().ask(&caller(), &Address::Run(run), Ask::Run(RunAsk::Read), Duration::ZERO).await;
    assert!(matches!(wrong, Err(RouteError::Expired) | Ok(_)), "{wrong:?}");
    let named = Caller { principal: Principal::Named("eve".into()), ..caller() };
    let denied = node.router().submit(&named, request("echo", json!({"text": "x"}))).await;
    assert!(matches!(denied, Err(SubmitError::Denied(_))), "{denied:?}");
    let inferred = node.router().infer(&caller(), &Name::new("nobody").unwrap(), Value::empty_map(), PATIENCE).await;
    assert_eq!(inferred.unwrap_err().into_failure().class, FailureClass::NotFound);
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_runs_than_actors_fit_are_all_carried_on() {
    let world = World::new();
    let node = world.node_with(4, 40).await;
    apply(&node, &ECHO.replace("backend: fake", "backend: fake\nparameters: {latency_ms: 10}")).await;
    let mut runs = vec![];
    for n in 0..40 {
        runs.push(submit(&node, "echo", json!({"text": n.to_string()})).await);
    }
    let mut refused = 0;
    for _ in 0..5 {
        if let Err(SubmitError::Full(_)) = node.router().submit(&caller(), request("echo", json!({"text": "x"}))).await
        {
            refused += 1;
        }
    }
    assert!(refused > 0, "the bound on unfinished runs was never met");
    for run in runs {
        assert_eq!(finish(&node, run).await.phase(), Phase::Succeeded);
    }
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_wait_for_a_full_model_and_others_are_told() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, &ECHO.replace("backend: fake", "backend: fake\nqueue: 1\nparameters: {latency_ms: 5}")).await;
    let mut runs = vec![];
    for n in 0..50 {
        runs.push(submit(&node, "echo", json!({"text": n.to_string()})).await);
    }
    let asked = node
        .router()
        .infer(
            &caller(),
            &Name::new("echo").unwrap(),
            Value::from(serde_json::from_str::<serde_json::Value>(r#"{"text": "x"}"#).unwrap()),
            PATIENCE,
        )
        .await;
    assert!(matches!(asked, Err(RouteError::Overloaded(_))), "{asked:?}");
    for run in runs {
        let run = finish(&node, run).await;
        assert_eq!(run.phase(), Phase::Succeeded);
        assert!(run.state().steps.iter().all(|step| step.attempts() == 1), "waiting for room is no attempt");
    }
    node.stop(PATIENCE).await.unwrap();
}
