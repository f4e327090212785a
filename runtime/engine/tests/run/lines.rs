//! Places in an order: who holds one, who gives it up, and what that changes.

use motet_engine::access::Principal;
use motet_engine::event::Event;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, RunId, ShardId};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Fork, Phase, Run};
use motet_engine::stream::{Cause, Source};
use motet_engine::trace::TraceContext;
use serde_json::json;

use crate::execution::{Execution, START, echo, replay, submission, workflow};

const BODY: &str = "timeout: 1h\nsteps: {a: {call: model, model: a, with: {n: 1}, retry: {max_attempts: 1}}}";

pub(crate) fn source(order: Option<[u8; 16]>) -> Source {
    Source {
        stream: Name::new("orders").unwrap(),
        revision: "7".into(),
        generation: 2,
        topic: "in".into(),
        partition: 3,
        offset: 42,
        timestamp: Some(START.as_millis()),
        key: Some(bytes::Bytes::from_static(b"ada")),
        order,
        reply: vec![("correlation-id".into(), Some(bytes::Bytes::from_static(b"abc")))],
        event: Some(Cause {
            id: "e1".into(),
            source: "/shop".into(),
            kind: "order.placed".into(),
            correlation: Some("c1".into()),
        }),
    }
}

fn begun(order: Option<[u8; 16]>) -> Execution {
    let compiled = workflow(BODY);
    let submission =
        motet_engine::event::Submission { source: Some(source(order).into()), ..submission(&compiled, json!({})) };
    let (run, events) = Run::submit(RunId::new(START, ShardId(1), 7), &compiled, submission, 64).unwrap();
    let mut execution = Execution::of(run, events, START);
    if order.is_some() {
        execution.input(&Input::LineReached).unwrap();
    }
    execution
}

fn leave(execution: &mut Execution) -> Result<(), Rejection> {
    execution.input(&Input::LeaveLine { by: Principal::Local })
}

fn failed(order: Option<[u8; 16]>) -> Execution {
    let mut execution = begun(order);
    execution.finish(&|_, _| Err(Failure::new(FailureClass::Invalid, "bad")));
    execution
}

#[test]
fn who_holds_a_place_and_who_may_give_it_up() {
    let mut timed_out = begun(Some([9; 16]));
    timed_out.now = START.after(std::time::Duration::from_secs(3600));
    timed_out.input(&Input::Woken).unwrap();
    let mut cancelled = begun(Some([9; 16]));
    cancelled.input(&Input::Cancel { by: Principal::Local, reason: None }).unwrap();
    let mut succeeded = begun(Some([9; 16]));
    succeeded.finish(&echo);
    let mut paused = begun(Some([9; 16]));
    paused.pause().unwrap();
    for (mut execution, phase, holds, answer) in [
        (begun(Some([9; 16])), Phase::Active, true, Err(Rejection::LineInUse)),
        (paused, Phase::Active, true, Err(Rejection::LineInUse)),
        (begun(None), Phase::Active, false, Err(Rejection::NoLine)),
        (failed(Some([9; 16])), Phase::Failed, true, Ok(())),
        (timed_out, Phase::TimedOut, true, Ok(())),
        (failed(None), Phase::Failed, false, Err(Rejection::NoLine)),
        (cancelled, Phase::Cancelled, false, Err(Rejection::NoLine)),
        (succeeded, Phase::Succeeded, false, Err(Rejection::NoLine)),
    ] {
        assert_eq!((execution.run.phase(), execution.run.state().holds_line()), (phase, holds));
        let before = execution.history.len();
        assert_eq!(leave(&mut execution), answer, "{phase:?}");
        if answer.is_ok() {
            assert_eq!(execution.kinds()[before..], ["line_left"], "nothing else follows from it");
            assert_eq!(execution.run.phase(), phase, "it stays ended as it ended");
            assert_eq!(leave(&mut execution), Err(Rejection::NoLine), "twice");
            assert!(execution.run.commands().is_empty());
            let again = replay(execution.run.id(), execution.run.workflow(), &execution.history);
            assert_eq!(again, execution.run);
        }
    }
}

#[test]
fn events_tell_whether_a_place_is_left() {
    let by = || Principal::Local;
    let failure = Failure::new(FailureClass::Invalid, "bad");
    for (event, leaves) in [
        (Event::RunSucceeded { output: None }, true),
        (Event::RunCancelled { by: by(), reason: None }, true),
        (Event::LineLeft { by: by() }, true),
        (Event::RunFailed { step: None, failure }, false),
        (Event::RunTimedOut, false),
        (Event::RunRetried { by: by(), steps: vec![] }, false),
    ] {
        assert_eq!(event.leaves_line(), leaves, "{}", event.kind());
        let mut execution = begun(Some([9; 16]));
        execution.run.apply(&event, START);
        let fits = !matches!(event, Event::LineLeft { .. });
        assert_eq!(execution.run.state().holds_line(), !leaves || !fits, "{}: state and event agree", event.kind());
    }
}

#[test]
fn a_retry_keeps_the_place_and_brings_none_back() {
    let mut kept = failed(Some([9; 16]));
    kept.retry(None).unwrap();
    assert!(kept.run.state().holds_line());
    assert_eq!(leave(&mut kept), Err(Rejection::LineInUse));
    kept.finish(&echo);
    assert!(!kept.run.state().holds_line());
    let mut left = failed(Some([9; 16]));
    leave(&mut left).unwrap();
    left.retry(None).unwrap();
    assert!(!left.run.state().holds_line() && left.run.phase() == Phase::Active);
    assert_eq!(leave(&mut left), Err(Rejection::NoLine));
    left.finish(&echo);
    assert_eq!(left.run.phase(), Phase::Succeeded);
}

#[test]
fn a_fork_comes_from_no_record() {
    let fork = Fork {
        step: "a".into(),
        input: None,
        outputs: Default::default(),
        by: Principal::Local,
        trace: TraceContext::start(2, 2),
        at: START,
    };
    let (run, _) = failed(Some([9; 16])).run.fork(RunId::new(START, ShardId(2), 8), fork, 64).unwrap();
    assert!(run.submission().source.is_none() && !run.state().holds_line());
}
