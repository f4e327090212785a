//! How models are served: warm-up, circuit breaker, fallback, kept responses.

use std::time::{Duration, Instant};

use motet_actors::node::Node;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Name;
use motet_engine::run::Phase;
use motet_engine::value::Value;
use serde_json::json;

use crate::world::{PATIENCE, World, apply, caller, finish, submit};

async fn infer(node: &Node, model: &str, with: serde_json::Value) -> Result<serde_json::Value, Failure> {
    let name = Name::new(model).unwrap();
    let answered = node.router().infer(&caller(), &name, Value::from(with), PATIENCE).await;
    answered.map(|answer| answer.to_json()).map_err(|error| error.into_failure())
}

#[tokio::test]
async fn samples_are_answered_before_the_first_call() {
    let world = World::new();
    let (node, fakes) = world.node_with_memory(0).await;
    apply(&node, "{kind: Model, name: warm, backend: fake, warm_up: [{text: a}, {text: [b, c]}]}").await;
    infer(&node, "warm", json!({"text": "hello"})).await.unwrap();
    assert_eq!((fakes.batches(), fakes.rows()), (3, 4));
    apply(&node, "{kind: Model, name: odd, backend: fake, warm_up: [{text: a}, {txet: a}]}").await;
    let failure = infer(&node, "odd", json!({"text": "hello"})).await.unwrap_err();
    assert!(failure.message.contains("sample 2 of warm_up"), "{failure}");
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_model_in_trouble_is_left_alone_and_tried_again() {
    let world = World::new();
    let (node, fakes) = world.node_with_memory(0).await;
    let yaml =
        "{kind: Model, name: weak, backend: fake, parameters: {fail_first: 3}, breaker: {failures: 2, pause: 200ms}}";
    apply(&node, yaml).await;
    let call = || infer(&node, "weak", json!({"text": "hello"}));
    for _ in 0..2 {
        assert!(call().await.unwrap_err().message.contains("as asked"));
    }
    let refused = call().await.unwrap_err();
    assert_eq!((refused.class, fakes.batches()), (FailureClass::Unavailable, 2), "{refused}");
    assert!(refused.message.contains("not called for now") && refused.retry_after_ms.is_some(), "{refused}");
    let begun = Instant::now();
    // The first probe fails as well, which doubles the pause.
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while call().await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        looks.tick().await;
    }
    assert_eq!(fakes.batches(), 4, "two failures, a probe that failed, one that did not");
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_fallback_answers_for_a_model_that_cannot() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, "{kind: Model, name: first, backend: fake, parameters: {fail_every: 1}, fallback: second}").await;
    apply(
        &node,
        "{kind: Model, name: second, backend: fake, parameters: {latency_ms: 60000}, timeout: 100ms, fallback: third}",
    )
    .await;
    apply(&node, "{kind: Model, name: third, backend: fake, parameters: {output_bytes: 3}, fallback: first}").await;
    let workflow = "{kind: Workflow, name: ask, steps: {ask: {call: model, model: first, with: {text: '${ input.text }'}}}, output: '${ steps.ask.output }'}";
    apply(&node, workflow).await;
    let run = submit(&node, "ask", json!({"text": "hello"})).await;
    let run = finish(&node, run).await;
    assert_eq!(run.phase(), Phase::Succeeded);
    assert_eq!(run.output().unwrap().to_json(), json!({"text": "hel"}));
    let wrong = infer(&node, "first", json!({"txet": "hello"})).await.unwrap_err();
    assert_eq!(wrong.class, FailureClass::Invalid, "what is wrong is wrong everywhere: {wrong}");
    let absent = infer(&node, "nobody", json!({"text": "hello"})).await.unwrap_err();
    assert_eq!(absent.class, FailureClass::NotFound);
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn equal_calls_are_computed_once() {
    let world = World::new();
    let (node, fakes) = world.node_with_memory(0).await;
    let yaml =
        "{kind: Model, name: kept, backend: fake, parameters: {latency_ms: 50, dimension: 3}, cache: {ttl: 10m}}";
    apply(&node, yaml).await;
    let call = |text: &'static str| infer(&node, "kept", json!({"text": text}));
    let answers = futures::future::join_all((0..10).map(|_| call("same"))).await;
    let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>().unwrap();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(fakes.rows(), 1, "ten equal calls at one time");
    assert_eq!(call("same").await.unwrap(), answers[0]);
    assert_ne!(call("other").await.unwrap(), answers[0]);
    assert_eq!(fakes.rows(), 2);
    node.stop(PATIENCE).await.unwrap();
}
