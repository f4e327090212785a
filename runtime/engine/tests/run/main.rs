//! The rules of runs: data-driven cases for every kind of step, and properties over random workflows.
//!
//! A tiny driver carries calls out by a script that depends on nothing but the call, so that two executions of one
//! workflow can be compared whatever happened to them on the way.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests may fail loudly")]

mod again;
mod execution;
mod journals;
mod lines;
mod properties;
mod random;
mod waiting;

use std::time::Duration;

use motet_engine::command::Work;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, RunId, ShardId, StepIndex};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Phase, Run};
use motet_engine::value::Value;
use serde_json::json;

use execution::{Execution, START, echo, run_to_end, submission, workflow};

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
    assert!(Run::submit(id, &compiled, submission(&compiled, json!({"n": "x"})), 64).is_err());
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
