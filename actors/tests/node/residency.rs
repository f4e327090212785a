//! Models that take turns in a memory too small for all of them.

use futures::StreamExt;
use motet_engine::run::{Phase, Run};
use serde_json::json;
use std::collections::VecDeque;

use crate::world::{PATIENCE, World, apply, finish, submit};

const MODELS: usize = 12;
const ROOM: usize = 4;
const BYTES: u64 = 100 << 20;
const RUNS: usize = 240;
const TOGETHER: usize = 40;

/// The models of each run's three steps: some models are called often, some belong together, some come up now and then.
fn trace() -> Vec<[usize; 3]> {
    let mut state = 42u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound).unwrap()
    };
    let run = |_| match below(10) {
        0..=3 => [0, 1, below(4) + 2],
        4..=6 => [below(3), 6, 7],
        _ => [below(12), below(12), below(12)],
    };
    (0..RUNS).map(run).collect()
}

/// Loads of a cache that throws out what was used longest ago, when as many runs go on in turn.
fn loads_of_plain_lru(trace: &[[usize; 3]]) -> usize {
    let (mut resident, mut loads) = (VecDeque::new(), 0);
    let mut ahead: VecDeque<_> = trace.iter().map(|steps| VecDeque::from(*steps)).collect();
    let mut live: VecDeque<VecDeque<usize>> = ahead.drain(..TOGETHER.min(ahead.len())).collect();
    while let Some(mut run) = live.pop_front() {
        let Some(model) = run.pop_front() else {
            live.extend(ahead.pop_front());
            continue;
        };
        match resident.iter().position(|held| *held == model) {
            Some(place) => drop(resident.remove(place)),
            None => loads += 1,
        }
        resident.push_back(model);
        if resident.len() > ROOM {
            resident.pop_front();
        }
        live.push_back(run);
    }
    loads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_models_with_room_for_four_stay_within_it_with_half_the_loads_of_plain_lru() {
    let world = World::new();
    let (node, fakes) = world.node_with_memory(ROOM as u64 * BYTES).await;
    for model in 0..MODELS {
        let parameters = json!({"memory_bytes": BYTES, "load_ms": 30, "latency_ms": 2});
        apply(&node, &format!("{{kind: Model, name: m{model}, backend: fake, parameters: {parameters}}}")).await;
    }
    let trace = trace();
    let mut workflows: Vec<_> = trace.clone();
    workflows.sort_unstable();
    workflows.dedup();
    for [a, b, c] in &workflows {
        let step = |model: &usize, text: &str| format!("{{call: model, model: m{model}, with: {{text: \"{text}\"}}}}");
        let steps = format!(
            "{{a: {}, b: {}, c: {}}}",
            step(a, "${ input }"),
            step(b, "${ steps.a.output.text }"),
            step(c, "${ steps.b.output.text }")
        );
        apply(&node, &format!("{{kind: Workflow, name: w{a}-{b}-{c}, steps: {steps}}}")).await;
    }
    let ends: Vec<Run> = futures::stream::iter(trace.iter().enumerate())
        .map(|(number, [a, b, c])| {
            let (node, workflow) = (&node, format!("w{a}-{b}-{c}"));
            async move {
                let run = submit(node, &workflow, json!(format!("text {number}"))).await;
                finish(node, run).await
            }
        })
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    let failed = ends.iter().filter(|run| run.phase() != Phase::Succeeded).count();
    assert_eq!((ends.len(), failed), (RUNS, 0));
    let (loads, plain) = (fakes.loads(), loads_of_plain_lru(&trace) as u64);
    println!("{loads} loads; plain LRU {plain}");
    assert!(fakes.most_resident_bytes() <= ROOM as u64 * BYTES, "{} bytes at one time", fakes.most_resident_bytes());
    assert!(loads >= MODELS as u64 && loads * 2 <= plain, "{loads} loads where plain LRU has {plain}");
    node.stop(PATIENCE).await.unwrap();
}
