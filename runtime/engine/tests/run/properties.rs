//! Properties over random workflows: what must hold whatever happens to a run on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use motet_engine::access::Principal;
use motet_engine::event::Event;
use motet_engine::id::{CallId, RunId, ShardId, StepIndex};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Fork, ForkError, Phase, State, StepStatus};
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;
use proptest::prelude::*;
use serde_json::json;

use crate::execution::{Execution, START, replay, workflow};
use crate::random::{disturbances, happenings, random_steps, scripted, to_body};

fn cases() -> ProptestConfig {
    let full = std::env::var_os("MOTET_TEST_FULL").is_some();
    ProptestConfig { cases: if full { 5_000 } else { 300 }, ..ProptestConfig::default() }
}

/// The journal and the snapshot both lead to the run as it stands.
fn check_replay(execution: &Execution) -> Result<(), TestCaseError> {
    let run = &execution.run;
    let packed = rmp_serde::to_vec_named(&execution.history).unwrap();
    let history: Vec<_> = rmp_serde::from_slice(&packed).unwrap();
    prop_assert_eq!(&history, &execution.history);
    let replayed = replay(run.id(), run.workflow(), &history);
    prop_assert_eq!(&replayed, run);
    prop_assert_eq!(replayed.commands(), run.commands());
    let packed = rmp_serde::to_vec_named(run.state()).unwrap();
    let state: State = rmp_serde::from_slice(&packed).unwrap();
    prop_assert_eq!(&state, run.state());
    prop_assert_eq!(run.seq().0, execution.history.len() as u64);
    Ok(())
}

/// Every attempt that was ever begun.
fn attempts(execution: &Execution) -> Vec<CallId> {
    let begun = execution.history.iter().filter_map(|(event, _)| match event {
        Event::CallScheduled { call, .. }
        | Event::CallRetried { call }
        | Event::FellBack { call, .. }
        | Event::WaitBegan { call, .. } => Some(*call),
        _ => None,
    });
    begun.collect()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn replaying_the_events_gives_the_same_state(
        steps in random_steps(),
        seed: u64,
        n in 0i64..3,
        happenings in happenings(),
    ) {
        let compiled = workflow(&to_body(&steps));
        let mut execution = Execution::begin(&compiled, json!({"n": n}), seed);
        let script = scripted(seed);
        for happening in &happenings {
            execution.happen(happening, &script);
            check_replay(&execution)?;
        }
        execution.unpause();
        for _ in 0..10_000 {
            check_replay(&execution)?;
            if execution.run.phase().is_end() || !execution.step(&script) {
                break;
            }
        }
        prop_assert!(execution.run.phase().is_end());
        check_replay(&execution)?;
    }

    #[test]
    fn every_owed_call_is_sent_exactly_once_and_end_states_absorb(
        steps in random_steps(),
        seed: u64,
        n in 0i64..3,
        happenings in happenings(),
    ) {
        let compiled = workflow(&to_body(&steps));
        let script = scripted(seed);
        let mut execution = Execution::begin(&compiled, json!({"n": n}), seed);
        for happening in &happenings {
            execution.happen(happening, &script);
        }
        execution.unpause();
        execution.finish(&script);
        let distinct: BTreeSet<_> = execution.sent.iter().copied().collect();
        prop_assert_eq!(distinct.len(), execution.sent.len(), "a call was sent twice");
        let begun = attempts(&execution);
        let owed: BTreeSet<_> = begun.iter().copied().collect();
        prop_assert_eq!(owed.len(), begun.len(), "an attempt was named twice");
        prop_assert!(owed.is_superset(&distinct));
        let count = |wanted: fn(&str) -> bool| execution.kinds().into_iter().filter(|kind| wanted(kind)).count();
        let (ends, retries) = (count(|kind| kind.starts_with("run_")), count(|kind| kind == "retried"));
        prop_assert_eq!(ends, retries + 1, "one end, and one more for each retry");
        let nobody = CallId { step: StepIndex(0), item: 0, attempt: 1 };
        let call = execution.sent.first().copied().unwrap_or(nobody);
        let by = Principal::Local;
        for input in [
            Input::Woken,
            Input::Cancel { by: by.clone(), reason: None },
            Input::CallFinished { call, outcome: Ok(Value::Null) },
            Input::Signal { name: "answered-1".into(), payload: Value::Null, id: "x".into(), by: by.clone() },
            Input::Pause { by: by.clone(), reason: None },
            Input::Resume { by },
        ] {
            prop_assert_eq!(execution.run.decide(&input, execution.now).err(), Some(Rejection::Ended));
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
        prop_assert_eq!(shaken.run.phase(), calm.run.phase());
        prop_assert_eq!(shaken.run.output(), calm.run.output());
    }

    /// Which of several failing steps fails the run first may differ; whether it succeeds, and with what, may not.
    #[test]
    fn pauses_early_signals_and_crashes_change_no_outcome(
        steps in random_steps(),
        seed: u64,
        n in 0i64..3,
        disturbances in disturbances(),
    ) {
        let compiled = workflow(&to_body(&steps));
        let script = scripted(seed);
        let mut calm = Execution::begin(&compiled, json!({"n": n}), seed);
        calm.finish(&script);
        let mut shaken = Execution::begin(&compiled, json!({"n": n}), seed);
        for disturbance in &disturbances {
            shaken.happen(disturbance, &script);
        }
        shaken.unpause();
        shaken.finish(&script);
        prop_assert_eq!(shaken.run.phase(), calm.run.phase());
        prop_assert_eq!(shaken.run.output(), calm.run.output());
    }

    #[test]
    fn a_retry_keeps_every_output_that_it_does_not_run_again(
        steps in random_steps(),
        seed: u64,
        n in 0i64..3,
        from in prop::option::of(0u8..8),
    ) {
        let compiled = workflow(&to_body(&steps));
        let script = scripted(seed);
        let mut execution = Execution::begin(&compiled, json!({"n": n}), seed);
        execution.finish(&script);
        let before = execution.run.state().clone();
        let from = from.map(|place| format!("s{place}"));
        match execution.retry(from.as_deref()) {
            Ok(()) => {}
            Err(Rejection::NothingToRetry) => {
                prop_assert!(from.is_none() && before.phase == Phase::Succeeded);
                return Ok(());
            }
            Err(Rejection::UnknownStep { .. }) => return Ok(()),
            Err(other) => prop_assert!(false, "{}", other),
        }
        let again = execution.history.iter().find_map(|(event, _)| match event {
            Event::RunRetried { steps, .. } => Some(steps.clone()),
            _ => None,
        });
        let again: BTreeSet<_> = again.unwrap().into_iter().collect();
        execution.finish(&script);
        for (place, (old, new)) in before.steps.iter().zip(&execution.run.state().steps).enumerate() {
            if !again.contains(&StepIndex(place as u16)) && old.status != StepStatus::Pending {
                prop_assert_eq!(old, new, "step {}", place);
            }
        }
        check_replay(&execution)?;
    }

    #[test]
    fn cancelling_ends_a_run_wherever_it_stands(
        steps in random_steps(),
        seed: u64,
        happenings in happenings(),
    ) {
        let compiled = workflow(&to_body(&steps));
        let mut execution = Execution::begin(&compiled, json!({"n": 1}), seed);
        for happening in &happenings {
            execution.happen(happening, &scripted(seed));
        }
        if !execution.run.phase().is_end() {
            execution.input(&Input::Cancel { by: Principal::Local, reason: Some("enough".into()) }).unwrap();
            prop_assert_eq!(execution.run.phase(), Phase::Cancelled);
            prop_assert!(execution.run.commands().is_empty());
        }
    }
    #[test]
    fn a_fork_replays_and_ends_like_any_other_run(
        steps in random_steps(),
        seed: u64,
        n in 0i64..3,
        after in 0usize..20,
        from in any::<prop::sample::Index>(),
    ) {
        let compiled = workflow(&to_body(&steps));
        let script = scripted(seed);
        let mut source = Execution::begin(&compiled, json!({"n": n}), seed);
        source.steps(&script, after);
        let step = Arc::clone(&compiled.steps[from.index(steps.len())].name);
        let (by, trace) = (Principal::Local, TraceContext::start(2, 2));
        let fork = Fork { step, input: None, outputs: BTreeMap::new(), by, trace, at: source.now };
        let id = RunId::new(START, ShardId(2), seed);
        match source.run.fork(id, fork, 64) {
            Ok((run, events)) => {
                let kept = run.state().steps.iter().zip(&source.run.state().steps);
                let kept: Vec<_> = kept.enumerate().filter(|(_, (new, old))| {
                    new.status == StepStatus::Succeeded && old.status == StepStatus::Succeeded
                }).map(|(place, (_, old))| (place, old.output.clone())).collect();
                let mut forked = Execution::of(run, events, source.now);
                check_replay(&forked)?;
                forked.finish(&script);
                check_replay(&forked)?;
                for (place, output) in kept {
                    prop_assert_eq!(&forked.run.state().steps[place].output, &output);
                }
            }
            Err(error) => prop_assert!(matches!(error, ForkError::NotEnded(_)), "{}", error),
        }
    }
}
