//! Waits, signals and pauses, case by case.

use std::time::Duration;

use motet_engine::access::Principal;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{MAX_KEPT_SIGNALS, MAX_SIGNAL_BYTES, Phase};
use motet_engine::value::Value;
use serde_json::json;

use crate::execution::{Execution, START, echo, replay, run_to_end, workflow};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_wait_owes_no_call_and_ends_by_a_wake_up() {
    let compiled = workflow("steps: {w: {call: wait, with: {for: 2h}}, a: {call: transform, needs: [w], with: 1}}");
    let mut execution = Execution::begin(&compiled, json!({}), 7);
    assert_eq!((execution.run.calls_owed(), execution.run.next_wake()), (0, Some(START.after(2 * HOUR))));
    let waits = execution.run.waits(9);
    assert_eq!((waits.len(), waits[0].signal, waits[0].until), (1, None, Some(START.after(2 * HOUR))));
    execution.pass(HOUR);
    assert_eq!(execution.input(&Input::Woken), Err(Rejection::NotDue));
    execution.pass(3 * HOUR);
    execution.input(&Input::Woken).unwrap();
    assert_eq!(execution.output(), json!({"w": {"until": "1970-01-01T02:16:40Z"}, "a": 1}));
    assert_eq!(
        execution.kinds(),
        ["submitted", "wait_began", "wait_ended", "step_succeeded", "step_succeeded", "run_succeeded"]
    );
}

#[test]
fn times_of_waits_are_evaluated_once() {
    let each = "steps: {w: {call: wait, for_each: '${ input.l }', as: t, max_concurrency: 2, with: {for: '${ t }'}}}";
    let until = "steps: {w: {call: wait, with: {until: '${ input.t }'}}}";
    for (body, input, expected) in [
        (until, json!({"t": "1970-01-01T01:16:40Z"}), json!({"w": {"until": "1970-01-01T01:16:40Z"}})),
        (until, json!({"t": "1970-01-01T02:16:40+01:00"}), json!({"w": {"until": "1970-01-01T01:16:40Z"}})),
        (until, json!({"t": "1969-01-01T00:00:00Z"}), json!({"w": {"until": "1969-01-01T00:00:00Z"}})),
        (each, json!({"l": []}), json!({"w": []})),
        (
            each,
            json!({"l": ["10s", "PT5S", "1s"]}),
            json!({"w": [
                {"until": "1970-01-01T00:16:50Z"},
                {"until": "1970-01-01T00:16:45Z"},
                {"until": "1970-01-01T00:16:46Z"},
            ]}),
        ),
    ] {
        assert_eq!(run_to_end(body, input.clone()).output(), expected, "{input}");
    }
    let begun = Execution::begin(&workflow(each), json!({"l": ["1h", "1h", "1h"]}), 7);
    assert_eq!(begun.run.waits(9).len(), 2, "no more wait at one time than the step allows");
}

#[test]
fn what_is_no_time_fails_with_advice() {
    for (with, words) in [
        ("{for: '${ input.n }'}", "with.for must be a text, not an integer: write a duration with its unit"),
        ("{for: '${ input.t }'}", "with.for is no duration"),
        ("{until: '${ input.t }'}", "with.until is no time"),
        ("{until: '${ input.n }'}", "with.until must be a text"),
        ("'${ input.m }'", "needs either with.for or with.until"),
    ] {
        let body = format!("steps: {{w: {{call: wait, with: {with}}}}}");
        let execution = Execution::begin(&workflow(&body), json!({"n": 5, "t": "soon", "m": {}}), 7);
        let (phase, _, failure) = execution.outcome();
        assert_eq!(phase, Phase::Failed, "{with}");
        assert!(failure.clone().unwrap().contains(words), "{with}: {failure:?}");
    }
}

#[test]
fn a_signal_is_waited_for_and_its_payload_is_the_output() {
    let body = "steps: {ask: {call: signal, signal: approval, with: {q: '${ input.q }'}}}";
    let mut execution = Execution::begin(&workflow(body), json!({"q": "may I?"}), 7);
    assert_eq!((execution.run.calls_owed(), execution.run.next_wake()), (0, None), "it waits as long as it takes");
    let waits = execution.run.waits(9);
    assert_eq!((waits[0].signal, waits[0].until), (Some("approval"), None));
    assert_eq!(waits[0].with.to_json(), json!({"q": "may I?"}));
    execution.signal("approval", "1", json!({"yes": true})).unwrap();
    assert_eq!(execution.output(), json!({"ask": {"yes": true}}));
    assert!(execution.run.state().signals.is_empty());
}

#[test]
fn signals_that_come_early_are_kept_and_taken_in_order() {
    let body = "steps: {m: {call: model, model: m, with: {}}, a: {call: signal, signal: go, needs: [m]}, \
                b: {call: signal, signal: go, needs: [a]}, \
                c: {call: signal, for_each: '${ [1, 2] }', as: x, signal: go, needs: [b]}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    for n in 0..4 {
        execution.signal("go", &n.to_string(), json!(n)).unwrap();
    }
    assert_eq!(execution.run.state().signals.len(), 4);
    execution.finish(&echo);
    assert_eq!(execution.output(), json!({"m": {}, "a": 0, "b": 1, "c": [2, 3]}));
}

#[test]
fn signals_that_cannot_be_taken_in_leave_the_run_as_it_stands() {
    let body = "steps: {a: {call: signal, signal: first}, b: {call: signal, needs: [a], schema: {type: integer}}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    execution.signal("first", "1", json!(1)).unwrap();
    let before = execution.history.len();
    let large = json!("x".repeat(MAX_SIGNAL_BYTES));
    let known = vec!["first".into(), "b".into()];
    let (unknown, gone) = ("second".into(), "first".into());
    for (name, id, payload, expected) in [
        ("second", "2", json!(1), Rejection::SignalUnknown { name: unknown, known }),
        ("first", "3", json!(1), Rejection::SignalNotAwaited { name: gone }),
        ("first", "1", json!(2), Rejection::SignalRepeated { id: "1".into() }),
        ("b", "1", json!(2), Rejection::SignalRepeated { id: "1".into() }),
    ] {
        assert_eq!(execution.signal(name, id, payload), Err(expected), "{name} {id}");
    }
    let unfit = execution.signal("b", "4", json!("text")).unwrap_err();
    assert!(matches!(unfit, Rejection::SignalUnfit { .. }) && unfit.to_string().contains("integer"), "{unfit}");
    assert_eq!(execution.history.len(), before);
    execution.signal("b", "5", json!(5)).unwrap();
    assert_eq!(execution.output(), json!({"a": 1, "b": 5}));
    let mut execution = Execution::begin(&workflow("steps: {a: {call: signal}}"), json!({}), 7);
    assert!(matches!(execution.signal("a", "6", large), Err(Rejection::SignalTooLarge { .. })));
}

#[test]
fn a_run_keeps_so_many_signals_and_no_more() {
    let body = "steps: {m: {call: model, model: m, with: {}}, a: {call: signal, needs: [m]}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    for n in 0..MAX_KEPT_SIGNALS {
        execution.signal("a", &n.to_string(), json!(n)).unwrap();
    }
    assert_eq!(execution.signal("a", "more", json!(0)), Err(Rejection::SignalsFull { most: MAX_KEPT_SIGNALS }));
    execution.finish(&echo);
    assert_eq!(execution.output(), json!({"m": {}, "a": 0}));
}

#[test]
fn the_patience_for_a_signal_is_durable_and_ends_as_a_timeout() {
    let cases = [
        ("", Phase::Failed, json!(null)),
        (", fallback: {output: {by: nobody}}", Phase::Succeeded, json!({"a": {"by": "nobody"}})),
        (", fallback: {model: judge, with: {t: 1}}", Phase::Succeeded, json!({"a": {"t": 1}})),
    ];
    for (fallback, phase, output) in cases {
        let body = format!("steps: {{a: {{call: signal, timeout: 2d{fallback}}}}}");
        let mut execution = Execution::begin(&workflow(&body), json!({}), 7);
        assert_eq!(execution.run.next_wake(), Some(START.after(48 * HOUR)));
        execution.finish(&echo);
        assert_eq!((execution.run.phase(), execution.output()), (phase, output), "{fallback}");
        if phase == Phase::Failed {
            let failure = &execution.run.state().failure.as_ref().unwrap().failure;
            assert_eq!(failure.class, FailureClass::Timeout);
        }
    }
    let mut execution = Execution::begin(&workflow("steps: {a: {call: signal, timeout: 2d}}"), json!({}), 7);
    execution.pass(49 * HOUR);
    execution.signal("a", "1", json!(1)).unwrap();
    assert_eq!(execution.output(), json!({"a": 1}), "what came before anyone looked is not too late");
}

#[test]
fn while_a_run_is_paused_nothing_new_begins() {
    let body = "timeout: 10d\nsteps: {m: {call: model, model: m, with: {}, retry: {max_attempts: 3}}, \
                n: {call: model, model: n, with: {}}, next: {call: model, model: m, needs: [n], with: {}}, \
                w: {call: wait, with: {for: 1h}}, s: {call: signal}}";
    let mut execution = Execution::begin(&workflow(body), json!({}), 7);
    let (deadline, down) = (START.after(240 * HOUR), Failure::new(FailureClass::Unavailable, "down"));
    execution.pause().unwrap();
    assert_eq!(execution.pause(), Err(Rejection::Paused));
    let calls: Vec<_> = [0, 1].into_iter().map(|step| call(step, 1)).collect();
    assert!(calls.iter().all(|call| execution.run.owes(*call)), "what is under way may still be answered");
    assert_eq!((execution.run.commands().len(), execution.run.next_wake()), (1, Some(deadline)));
    execution.input(&Input::CallFinished { call: calls[0], outcome: Err(down) }).unwrap();
    execution.input(&Input::CallFinished { call: calls[1], outcome: Ok(Value::Int(1)) }).unwrap();
    execution.pass(48 * HOUR);
    execution.signal("s", "1", json!(1)).unwrap();
    assert_eq!(execution.input(&Input::Woken), Err(Rejection::NotDue));
    let kinds = execution.kinds();
    assert_eq!(kinds[kinds.len() - 4..], ["paused", "attempt_failed", "step_succeeded", "signal_received"]);
    execution.resume().unwrap();
    let kinds = execution.kinds();
    let after: Vec<_> = kinds.iter().skip_while(|kind| **kind != "resumed").skip(1).copied().collect();
    let expected = ["signal_taken", "call_retried", "wait_ended", "call_scheduled", "step_succeeded", "step_succeeded"];
    assert_eq!(sorted(&after), sorted(&expected));
    assert_eq!(execution.resume(), Err(Rejection::NotPaused));
    execution.finish(&echo);
    assert_eq!(execution.run.phase(), Phase::Succeeded);
}

fn call(step: u16, attempt: u32) -> motet_engine::id::CallId {
    motet_engine::id::CallId { step: motet_engine::id::StepIndex(step), item: 0, attempt }
}

fn sorted(kinds: &[&'static str]) -> Vec<&'static str> {
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds
}

#[test]
fn the_runs_own_time_goes_on_while_it_is_paused() {
    let compiled = workflow("timeout: 1h\nsteps: {m: {call: model, model: m, with: {}}}");
    let mut execution = Execution::begin(&compiled, json!({}), 7);
    execution.pause().unwrap();
    execution.pass(HOUR);
    execution.input(&Input::Woken).unwrap();
    assert_eq!((execution.run.phase(), execution.run.is_paused()), (Phase::TimedOut, false));
    let mut execution = Execution::begin(&compiled, json!({}), 7);
    execution.pause().unwrap();
    execution.input(&Input::Cancel { by: Principal::Local, reason: None }).unwrap();
    assert_eq!(execution.run.phase(), Phase::Cancelled);
}

#[test]
fn a_node_that_finds_a_paused_run_sends_nothing_for_it_before_it_goes_on() {
    let compiled = workflow("steps: {m: {call: model, model: m, with: {}}}");
    let mut execution = Execution::begin(&compiled, json!({}), 7);
    execution.pause().unwrap();
    let mut run = replay(execution.run.id(), &compiled, &execution.history);
    assert_eq!((run.calls_after(0).count(), run.calls_owed()), (0, 1));
    run = run.decide(&Input::Resume { by: Principal::Local }, START).unwrap().run;
    assert_eq!(run.calls_after(0).count(), 1);
}
