//! The rules of runs: data-driven cases for every kind of step, and properties over random workflows.
//!
//! A tiny driver carries calls out by a script that depends on nothing but the call, so that two executions of one
//! workflow can be compared whatever happened to them on the way.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests may fail loudly")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use motet_engine::access::Principal;
use motet_engine::command::{Command, Work};
use motet_engine::definition::document::parse_definitions;
use motet_engine::definition::{Definition, Workflow};
use motet_engine::event::{Event, Submission};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, Namespace, RunId, ShardId, StepIndex};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Phase, Run, State};
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;
use proptest::prelude::*;
use serde_json::json;

const START: Timestamp = Timestamp::from_millis(1_000_000);

type Script<'a> = &'a dyn Fn(CallId, &Work) -> Result<Value, Failure>;

fn workflow(body: &str) -> Arc<Workflow> {
    let yaml = format!("kind: Workflow\nname: test\n{body}");
    match parse_definitions("test.yaml", &yaml).map(|mut definitions| definitions.remove(0)) {
        Ok(Definition::Workflow(workflow)) => workflow,
        other => panic!("{other:?}\n{yaml}"),
    }
}

fn submission(workflow: &Workflow, input: serde_json::Value) -> Submission {
    Submission {
        namespace: Namespace::default(),
        principal: Principal::Local,
        workflow: workflow.name.clone(),
        version: workflow.version.clone(),
        input: input.into(),
        tags: vec![],
        priority: 0,
        trace: TraceContext::start(1, 1),
        at: START,
    }
}

/// One execution: the run, everything that was recorded, and every call that was sent, in order.
struct Execution {
    run: Run,
    history: Vec<(Event, Timestamp)>,
    sent: Vec<CallId>,
    now: Timestamp,
    dispatched: u64,
}

impl Execution {
    fn begin(workflow: &Arc<Workflow>, input: serde_json::Value, entropy: u64) -> Self {
        let id = RunId::new(START, ShardId(1), entropy);
        let (run, events) = Run::submit(id, workflow, submission(workflow, input)).unwrap();
        let history = events.into_iter().map(|event| (event, START)).collect();
        Self { run, history, sent: vec![], now: START, dispatched: 0 }
    }

    fn input(&mut self, input: &Input) -> Result<(), Rejection> {
        for event in self.run.decide(input, self.now)? {
            self.run.apply(&event, self.now);
            self.history.push((event, self.now));
        }
        Ok(())
    }

    /// Answers the lowest call that is owed, or lets the time of the next wake-up come; false when nothing is owed.
    fn step(&mut self, script: Script<'_>) -> bool {
        for (serial, command) in self.run.calls_after(self.dispatched).collect::<Vec<_>>() {
            self.dispatched = serial;
            let Command::Call { id, .. } = command else { panic!("{command:?}") };
            self.sent.push(id);
        }
        let calls = self.run.commands().into_iter().filter_map(|command| match command {
            Command::Call { id, work, .. } => Some((id, work)),
            Command::Wake { .. } => None,
        });
        if let Some((call, work)) = calls.min_by_key(|(id, _)| *id) {
            self.now = self.now.after(Duration::from_millis(1));
            self.input(&Input::CallFinished { call, outcome: script(call, &work) }).unwrap();
            return true;
        }
        let Some(wake) = self.run.next_wake() else { return false };
        self.now = self.now.max(wake);
        self.input(&Input::Woken).unwrap();
        true
    }

    fn steps(&mut self, script: Script<'_>, most: usize) {
        for _ in 0..most {
            if self.run.phase().is_end() || !self.step(script) {
                return;
            }
        }
    }

    /// Forgets everything but the first `kept` events and comes back the way a node does.
    fn crash(&mut self, kept: usize) {
        self.history.truncate(kept.max(1));
        self.run = replay(self.run.id(), self.run.workflow(), &self.history);
        self.dispatched = 0;
        let woken = self.input(&Input::Woken);
        assert!(matches!(woken, Ok(()) | Err(Rejection::NotDue | Rejection::Ended)), "{woken:?}");
    }

    fn finish(&mut self, script: Script<'_>) {
        self.steps(script, 10_000);
        assert!(self.run.phase().is_end(), "stuck: {:?}", self.run.state());
        assert!(self.run.commands().is_empty(), "an ended run owes nothing");
        let ends = self.history.iter().filter(|(event, _)| event.kind().starts_with("run_"));
        assert_eq!(ends.count(), 1, "a run ends once: {:?}", self.history);
    }

    fn outcome(&self) -> (Phase, Option<Value>, Option<String>) {
        let failure = self.run.state().failure.as_ref().map(|failure| failure.failure.message.clone());
        (self.run.phase(), self.run.output(), failure)
    }
}

fn replay(id: RunId, workflow: &Arc<Workflow>, history: &[(Event, Timestamp)]) -> Run {
    let (first, at) = &history[0];
    let mut run = Run::begin(id, Arc::clone(workflow), first, *at).unwrap();
    history[1..].iter().for_each(|(event, at)| run.apply(event, *at));
    run
}

fn echo(_: CallId, work: &Work) -> Result<Value, Failure> {
    let (Work::Model { with, .. } | Work::VectorQuery { with } | Work::VectorUpsert { with }) = work;
    Ok(with.clone())
}

fn run_to_end(body: &str, input: serde_json::Value) -> Execution {
    let mut execution = Execution::begin(&workflow(body), input, 7);
    execution.finish(&echo);
    execution
}

#[test]
fn outputs_follow_the_definition() {
    let model = "{call: model, model: m, for_each: '${ input.l }', as: x, max_concurrency: 2, with: {v: '${ x }'}}";
    let each = format!("steps: {{a: {model}}}");
    let cases = [
        ("steps: {a: {call: transform, with: {x: '${ input.n + 1 }'}}}", json!({"n": 1}), json!({"a": {"x": 2}})),
        (
            "steps: {a: {call: model, model: m, with: {t: 'hi ${ input.n }'}}}\noutput: '${ steps.a.output.t }'",
            json!({"n": 1}),
            json!("hi 1"),
        ),
        (
            "steps: {a: {call: transform, if: 'input.n > 5', with: 1}, b: {call: transform, needs: [a], with: 2}, \
             c: {call: transform, needs: [a], if: 'true', with: '${ steps.a.output }'}}",
            json!({"n": 1}),
            json!({"a": null, "b": null, "c": null}),
        ),
        (
            "steps: {a: {call: transform, for_each: '${ input.l }', as: x, with: '${ x * 2 + index }'}}",
            json!({"l": [1, 2, 3]}),
            json!({"a": [2, 5, 8]}),
        ),
        (&each, json!({"l": [1, 2, 3]}), json!({"a": [{"v": 1}, {"v": 2}, {"v": 3}]})),
        (&each, json!({"l": []}), json!({"a": []})),
        (
            "steps: {a: {call: prompt, template: 'Hello {{ who }}', with: {who: '${ input.who }'}}}",
            json!({"who": "you"}),
            json!({"a": {"text": "Hello you"}}),
        ),
        (
            "steps: {a: {call: parse, format: json, with: {text: '${ input.t }'}, fallback: {output: {none: true}}}}",
            json!({"t": "no json"}),
            json!({"a": {"none": true}}),
        ),
    ];
    for (body, input, expected) in cases {
        let execution = run_to_end(body, input);
        let output = execution.run.output().map(|output| output.to_json());
        assert_eq!(output, Some(expected), "{body}\n{:?}", execution.outcome());
    }
}

#[test]
fn attempts_follow_the_retry_policy_and_then_the_fallback() {
    let body = "steps: {a: {call: model, model: main, with: {x: 1}, retry: {max_attempts: 2, on: [unavailable]}, \
                fallback: {model: spare}}}";
    let asked = std::cell::RefCell::new(vec![]);
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    execution.finish(&|call, work| {
        let Work::Model { model, .. } = work else { panic!("{work:?}") };
        asked.borrow_mut().push((model.to_string(), call.attempt));
        if model.as_str() == "main" { Err(Failure::new(FailureClass::Unavailable, "down")) } else { Ok(Value::Int(5)) }
    });
    assert_eq!(asked.into_inner(), [("main".into(), 1), ("main".into(), 2), ("spare".into(), 3)]);
    assert_eq!(execution.run.phase(), Phase::Succeeded);
    assert!(execution.run.state().steps[0].fallback);
}

#[test]
fn a_class_that_is_not_named_fails_at_once_and_the_run_with_it() {
    let body = "steps: {a: {call: model, model: m, with: {}}, b: {call: model, model: m, with: {}}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    execution.finish(&|call, _| match call.step.0 {
        0 => Err(Failure::new(FailureClass::Invalid, "bad")),
        _ => Ok(Value::Null),
    });
    assert_eq!(execution.outcome(), (Phase::Failed, None, Some("bad".into())));
    assert_eq!(execution.sent.len(), 2, "both were owed at once; the second is not waited for");
}

#[test]
fn answers_that_are_not_owed_are_turned_down() {
    let body = "steps: {a: {call: model, model: m, with: {}, retry: {max_attempts: 3}}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    let first = CallId { step: StepIndex(0), item: 0, attempt: 1 };
    let failed = Input::CallFinished { call: first, outcome: Err(Failure::new(FailureClass::Timeout, "late")) };
    execution.input(&failed).unwrap();
    assert_eq!(execution.input(&failed), Err(Rejection::NotOwed(first)), "the same answer twice");
    assert_eq!(execution.input(&Input::Woken), Err(Rejection::NotDue), "before its time");
    execution.now = execution.run.next_wake().unwrap();
    execution.input(&Input::Woken).unwrap();
    for stale in [first, CallId { item: 9, ..first }, CallId { step: StepIndex(9), ..first }] {
        let late = Input::CallFinished { call: stale, outcome: Ok(Value::Null) };
        assert_eq!(execution.input(&late), Err(Rejection::NotOwed(stale)), "an older attempt, or a call of nobody");
    }
}

#[test]
fn a_run_whose_time_is_over_ends() {
    let body = "timeout: 5s\nsteps: {a: {call: model, model: m, with: {}}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    assert_eq!(execution.run.next_wake(), Some(START.after(Duration::from_secs(5))));
    execution.now = START.after(Duration::from_secs(5));
    execution.input(&Input::Woken).unwrap();
    assert_eq!(execution.run.phase(), Phase::TimedOut);
}

#[test]
fn input_and_output_must_fit_their_schemas() {
    let body = "input: {schema: {type: object, required: [n], properties: {n: {type: integer}}}}\n\
                output_schema: {type: integer, maximum: 10}\n\
                steps: {a: {call: transform, with: '${ input.n }'}}\noutput: '${ steps.a.output }'";
    let compiled = workflow(body);
    let id = RunId::new(START, ShardId(1), 1);
    assert!(Run::submit(id, &compiled, submission(&compiled, json!({"n": "x"}))).is_err());
    assert_eq!(run_to_end(body, json!({"n": 10})).run.phase(), Phase::Succeeded);
    let (phase, _, failure) = run_to_end(body, json!({"n": 11})).outcome();
    assert_eq!(phase, Phase::Failed);
    assert!(failure.unwrap().contains("schema"));
}

#[test]
fn a_hundred_thousand_items_keep_only_a_few_calls_owed() {
    let body = "steps: {a: {call: model, model: m, for_each: '${ input.l }', as: x, max_concurrency: 8, \
                with: {v: '${ x }'}}}";
    let list: Vec<u32> = (0..100_000).collect();
    let mut execution = Execution::begin(&workflow(body), json!({"l": list}), 7);
    assert_eq!(execution.run.calls_owed(), 8);
    for _ in 0..1_000 {
        execution.step(&echo);
        assert_eq!(execution.run.calls_owed(), 8);
    }
    let refused = Execution::begin(&workflow(body), json!({"l": vec![0; 100_001]}), 7);
    assert_eq!(refused.run.phase(), Phase::Failed);
}

/// A random step: what it calls, what it needs among the steps before it, and what surrounds it.
#[derive(Debug, Clone)]
struct RandomStep {
    kind: u8,
    needs: Vec<prop::sample::Index>,
    condition: u8,
    attempts: u8,
    fallback: u8,
    items: u8,
}

fn random_steps() -> impl Strategy<Value = Vec<RandomStep>> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let step = (0u8..5, needs, 0u8..6, 1u8..4, 0u8..4, 0u8..5);
    let step = step.prop_map(|(kind, needs, condition, attempts, fallback, items)| RandomStep {
        kind,
        needs,
        condition,
        attempts,
        fallback,
        items,
    });
    prop::collection::vec(step, 1..8)
}

fn to_body(steps: &[RandomStep]) -> String {
    let mut yaml = String::from("steps:\n");
    for (place, step) in steps.iter().enumerate() {
        let needs: BTreeSet<_> =
            step.needs.iter().filter(|_| place > 0).map(|need| format!("s{}", need.index(place.max(1)))).collect();
        let needs = needs.into_iter().collect::<Vec<_>>().join(", ");
        let call = match step.kind {
            0 => "transform",
            1 => "prompt\n    template: 'n={{ n }}'",
            2 => "vector.query",
            _ => "model\n    model: main",
        };
        let with = if step.kind == 2 { "{index: i, vector: [1, 2]}" } else { "{n: '${ input.n }'}" };
        writeln!(yaml, "  s{place}:\n    call: {call}\n    needs: [{needs}]\n    with: {with}").unwrap();
        match step.condition {
            0 => yaml.push_str("    if: 'input.n > 1'\n"),
            1 => yaml.push_str("    if: 'input.n < 1'\n"),
            _ => {}
        }
        if step.kind == 4 {
            let items = (0..step.items).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
            writeln!(yaml, "    for_each: '${{ [{items}] }}'\n    as: x\n    max_concurrency: 2").unwrap();
        }
        if step.kind >= 2 {
            writeln!(yaml, "    retry: {{max_attempts: {}, backoff: {{initial: 10ms}}}}", step.attempts).unwrap();
        }
        match step.fallback {
            0 => yaml.push_str("    fallback: {output: 'spare'}\n"),
            1 if step.kind >= 3 => yaml.push_str("    fallback: {model: spare}\n"),
            _ => {}
        }
    }
    yaml
}

/// Success or failure by the call alone, so that every execution meets the same world.
fn scripted(seed: u64) -> impl Fn(CallId, &Work) -> Result<Value, Failure> {
    move |call, _| {
        let mut mixed = seed ^ u64::from(call.step.0) << 40 ^ u64::from(call.item) << 20 ^ u64::from(call.attempt);
        mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40;
        match mixed % 8 {
            0 | 1 => Err(Failure::new(FailureClass::Unavailable, format!("down at {call}"))),
            2 if call.attempt > 1 => Err(Failure::new(FailureClass::Invalid, format!("bad at {call}"))),
            _ => Ok(Value::from(format!("{}.{}", call.step.0, call.item))),
        }
    }
}

fn cases() -> ProptestConfig {
    let full = std::env::var_os("MOTET_TEST_FULL").is_some();
    ProptestConfig { cases: if full { 5_000 } else { 300 }, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn replaying_the_events_gives_the_same_state(steps in random_steps(), seed: u64, n in 0i64..3) {
        let compiled = workflow(&to_body(&steps));
        let mut execution = Execution::begin(&compiled, json!({"n": n}), seed);
        let script = scripted(seed);
        for _ in 0..10_000 {
            let replayed = replay(execution.run.id(), &compiled, &execution.history);
            prop_assert_eq!(&replayed, &execution.run);
            prop_assert_eq!(replayed.commands(), execution.run.commands());
            let packed = rmp_serde::to_vec_named(execution.run.state()).unwrap();
            let state: State = rmp_serde::from_slice(&packed).unwrap();
            prop_assert_eq!(&state, execution.run.state());
            if execution.run.phase().is_end() || !execution.step(&script) {
                break;
            }
        }
        prop_assert!(execution.run.phase().is_end());
        prop_assert_eq!(execution.run.seq().0, execution.history.len() as u64);
    }

    #[test]
    fn every_owed_call_is_sent_exactly_once_and_end_states_absorb(steps in random_steps(), seed: u64, n in 0i64..3) {
        let compiled = workflow(&to_body(&steps));
        let mut execution = Execution::begin(&compiled, json!({"n": n}), seed);
        execution.finish(&scripted(seed));
        let distinct: BTreeSet<_> = execution.sent.iter().copied().collect();
        prop_assert_eq!(distinct.len(), execution.sent.len(), "a call was sent twice");
        let owed: BTreeSet<_> = execution.history.iter().filter_map(|(event, _)| match event {
            Event::CallScheduled { call, .. } | Event::CallRetried { call } | Event::FellBack { call, .. } => Some(*call),
            _ => None,
        }).collect();
        prop_assert!(owed.is_superset(&distinct));
        let nobody = CallId { step: StepIndex(0), item: 0, attempt: 1 };
        let call = execution.sent.first().copied().unwrap_or(nobody);
        for input in [
            Input::Woken,
            Input::Cancel { by: Principal::Local, reason: None },
            Input::CallFinished { call, outcome: Ok(Value::Null) },
        ] {
            prop_assert_eq!(execution.run.decide(&input, execution.now), Err(Rejection::Ended));
        }
        let phase = execution.run.phase();
        execution.run.apply(&Event::RunTimedOut, execution.now);
        prop_assert_eq!(execution.run.phase(), phase);
    }

    #[test]
    fn a_crash_between_any_two_events_changes_no_outcome(
        steps in random_steps(),
        seed: u64,
        n in 0i64..3,
        crashes in prop::collection::vec((0usize..30, 0usize..4), 1..5),
    ) {
        let compiled = workflow(&to_body(&steps));
        let script = scripted(seed);
        let mut calm = Execution::begin(&compiled, json!({"n": n}), seed);
        calm.finish(&script);
        let mut shaken = Execution::begin(&compiled, json!({"n": n}), seed);
        for (after, lost) in crashes {
            shaken.steps(&script, after);
            let kept = shaken.history.len().saturating_sub(lost);
            shaken.crash(kept);
        }
        shaken.finish(&script);
        prop_assert_eq!(shaken.outcome(), calm.outcome());
    }

    #[test]
    fn cancelling_ends_a_run_wherever_it_stands(steps in random_steps(), seed: u64, after in 0usize..20) {
        let compiled = workflow(&to_body(&steps));
        let mut execution = Execution::begin(&compiled, json!({"n": 1}), seed);
        execution.steps(&scripted(seed), after);
        if !execution.run.phase().is_end() {
            execution.input(&Input::Cancel { by: Principal::Local, reason: Some("enough".into()) }).unwrap();
            prop_assert_eq!(execution.run.phase(), Phase::Cancelled);
            prop_assert!(execution.run.commands().is_empty());
        }
    }
}
