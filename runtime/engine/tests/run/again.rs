//! Retries of ended runs and forks into new ones, case by case.

use std::collections::BTreeMap;
use std::time::Duration;

use motet_engine::access::Principal;
use motet_engine::command::Work;
use motet_engine::event::Event;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, RunId, ShardId, StepIndex};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Fork, ForkError, Phase, StepStatus};
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;
use serde_json::json;

use crate::execution::{Execution, START, echo, replay, workflow};

/// Two branches that meet: `a` and `b` begin, `c` needs `a`, `d` needs `b` and `c`.
const BODY: &str = "timeout: 1h\ninput: {schema: {type: object, required: [n]}}\n\
    steps: {a: {call: model, model: a, with: {n: '${ input.n }'}}, b: {call: model, model: b, with: {n: 2}}, \
    c: {call: model, model: c, with: {n: '${ steps.a.output.n }'}, retry: {max_attempts: 2}}, \
    d: {call: model, model: d, needs: [b, c], with: {n: '${ steps.c.output.n }'}}}";

/// Succeeds except for the named step, which fails for good.
fn failing(step: u16) -> impl Fn(CallId, &Work) -> Result<Value, Failure> {
    move |call, work| {
        if call.step.0 == step { Err(Failure::new(FailureClass::Unavailable, "down")) } else { echo(call, work) }
    }
}

fn ended(step: u16) -> Execution {
    let mut execution = Execution::begin(&workflow(BODY), json!({"n": 1}), 7);
    execution.finish(&failing(step));
    execution
}

fn statuses(execution: &Execution) -> Vec<&'static str> {
    execution.run.state().steps.iter().map(|step| step.status.as_str()).collect()
}

#[test]
fn a_retry_runs_the_failed_step_and_what_follows_and_keeps_the_rest() {
    let mut execution = ended(2);
    assert_eq!(execution.run.phase(), Phase::Failed);
    assert_eq!(execution.input(&Input::Woken), Err(Rejection::Ended));
    execution.pass(Duration::from_secs(100));
    let at = execution.now;
    execution.retry(None).unwrap();
    assert_eq!(statuses(&execution), ["succeeded", "succeeded", "running", "pending"]);
    assert_eq!(execution.run.next_wake(), Some(at.after(Duration::from_secs(3600))), "its time begins anew");
    assert_eq!(execution.retry(None), Err(Rejection::NotEnded));
    execution.finish(&echo);
    assert_eq!(execution.run.phase(), Phase::Succeeded);
    let attempts: Vec<u32> = execution.sent.iter().filter(|call| call.step.0 == 2).map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 2, 3], "attempts go on counting");
    assert_eq!(execution.sent.iter().filter(|call| call.step.0 < 2).count(), 2, "what is kept is not called again");
    assert_eq!(execution.run.state().steps[2].attempts(), 3);
    let late = Input::CallFinished { call: execution.sent[0], outcome: Ok(Value::Null) };
    assert_eq!(execution.input(&late), Err(Rejection::Ended));
}

#[test]
fn a_policy_counts_the_tries_since_the_retry() {
    let mut execution = ended(2);
    execution.retry(None).unwrap();
    execution.finish(&failing(2));
    let attempts = execution.sent.iter().filter(|call| call.step.0 == 2).count();
    assert_eq!((execution.run.phase(), attempts), (Phase::Failed, 4));
}

#[test]
fn which_steps_a_retry_takes() {
    let cancel = Input::Cancel { by: Principal::Local, reason: None };
    let succeeded = ended(9);
    let failed = ended(2);
    let mut cancelled = Execution::begin(&workflow(BODY), json!({"n": 1}), 7);
    cancelled.answer(&echo);
    cancelled.input(&cancel).unwrap();
    let mut timed_out = Execution::begin(&workflow(BODY), json!({"n": 1}), 7);
    timed_out.pass(Duration::from_secs(3600));
    timed_out.input(&Input::Woken).unwrap();
    let unknown = Rejection::UnknownStep { name: "x".into() };
    for (execution, from, expected) in [
        (&succeeded, None, Err(Rejection::NothingToRetry)),
        (&succeeded, Some("d"), Ok(vec![3])),
        (&succeeded, Some("a"), Ok(vec![0, 2, 3])),
        (&failed, None, Ok(vec![2, 3])),
        (&failed, Some("b"), Ok(vec![1, 2, 3])),
        (&failed, Some("d"), Ok(vec![2, 3])),
        (&failed, Some("x"), Err(unknown)),
        (&cancelled, None, Ok(vec![1, 2, 3])),
        (&timed_out, None, Ok(vec![0, 1, 2, 3])),
    ] {
        let retry = Input::Retry { from: from.map(Into::into), by: Principal::Local };
        let decided = execution.run.decide(&retry, execution.now).map(|decision| match &decision.events[0] {
            Event::RunRetried { steps, .. } => steps.iter().map(|step| step.0).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        assert_eq!(decided, expected, "{:?} from {from:?}", execution.run.phase());
    }
    let body = "output: '${ input.missing }'\nsteps: {a: {call: transform, with: 1}}";
    let nothing = Execution::begin(&workflow(body), json!({}), 7);
    assert_eq!(nothing.run.phase(), Phase::Failed);
    let retry = Input::Retry { from: None, by: Principal::Local };
    assert_eq!(nothing.run.decide(&retry, START).err(), Some(Rejection::NothingToRetry));
}

fn fork(step: &str, input: Option<serde_json::Value>, outputs: &[(&str, i64)]) -> Fork {
    let outputs: BTreeMap<_, _> = outputs.iter().map(|(name, n)| ((*name).into(), json!({"n": n}).into())).collect();
    let (by, trace, at) = (Principal::Local, TraceContext::start(2, 2), START.after(Duration::from_secs(50)));
    Fork { step: step.into(), input: input.map(Into::into), outputs, by, trace, at }
}

fn other_id() -> RunId {
    RunId::new(START, ShardId(2), 8)
}

#[test]
fn a_fork_is_a_new_run_with_what_was_kept() {
    let source = ended(2);
    let (run, events) = source.run.fork(other_id(), fork("c", Some(json!({"n": 9})), &[("a", 5)]), 64).unwrap();
    let kinds: Vec<_> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["submitted", "forked", "call_scheduled"]);
    let mut execution = Execution::of(run, events, START.after(Duration::from_secs(50)));
    assert_eq!(execution.run, replay(other_id(), execution.run.workflow(), &execution.history));
    assert_eq!(execution.run.state().forked_from, Some(source.run.id()));
    execution.finish(&echo);
    let expected = json!({"a": {"n": 5}, "b": {"n": 2}, "c": {"n": 5}, "d": {"n": 5}});
    assert_eq!((execution.output(), execution.sent.len()), (expected, 2));
    assert_eq!(execution.run.submission().input.to_json(), json!({"n": 9}));
    assert_eq!(source.run.phase(), Phase::Failed, "the other run stands as it stood");
    execution.retry(Some("c")).unwrap();
    assert_eq!(statuses(&execution), ["succeeded", "succeeded", "running", "pending"]);
}

#[test]
fn what_cannot_be_forked() {
    let source = ended(2);
    let mut early = Execution::begin(&workflow(BODY), json!({"n": 1}), 7);
    early.answer(&echo);
    let not_ended = |name: &str| ForkError::NotEnded(name.into());
    for (execution, asked, expected) in [
        (&source, fork("x", None, &[]), Some(ForkError::UnknownStep("x".into()))),
        (&source, fork("c", None, &[("x", 1)]), Some(ForkError::UnknownStep("x".into()))),
        (&source, fork("c", None, &[("d", 1)]), Some(ForkError::RunsAgain("d".into()))),
        (&source, fork("d", None, &[]), Some(not_ended("c"))),
        (&source, fork("d", None, &[("c", 1)]), None),
        (&early, fork("d", None, &[("c", 1)]), Some(not_ended("b"))),
        (&early, fork("c", None, &[]), None),
        (&early, fork("a", None, &[]), None),
    ] {
        let found = execution.run.fork(other_id(), asked.clone(), 64).err();
        assert_eq!(found, expected, "{asked:?}");
    }
    let unfit = source.run.fork(other_id(), fork("c", Some(json!({"m": 1})), &[]), 64).unwrap_err();
    assert!(matches!(unfit, ForkError::Unfit(mistakes) if mistakes.len() == 1));
}

#[test]
fn a_fork_runs_what_had_not_ended_beside_it() {
    let mut early = Execution::begin(&workflow(BODY), json!({"n": 1}), 7);
    early.answer(&echo);
    assert_eq!(early.run.state().steps[1].status, StepStatus::Active);
    let (run, events) = early.run.fork(other_id(), fork("c", None, &[]), 64).unwrap();
    let mut execution = Execution::of(run, events, START.after(Duration::from_secs(50)));
    execution.finish(&echo);
    let called: Vec<_> = execution.sent.iter().map(|call| call.step).collect();
    assert_eq!(called, [StepIndex(1), StepIndex(2), StepIndex(3)]);
}
