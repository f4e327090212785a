//! What must hold of a simulated world, whatever happened in it.
//!
//! Reads the memory store behind the gate and what the clients were told; stated without the rules of the engine where
//! that is possible. Used by the world while it lives, and by `simulate` at its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use motet_actors::driver::decode_events;
use motet_engine::definition::Workflow;
use motet_engine::event::Event;
use motet_engine::id::{CallId, Namespace, RunId, StepIndex};
use motet_engine::run::{Phase, Run};
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use motet_store::port::{RunHead, RunQuery, RunStore};

use super::disk::{Disk, at_once};
use super::shapes::SHAPES;
use super::submissions::Submissions;
use crate::history::check_shape;

/// Rows of one page.
const PAGE: u32 = 1_000;

/// The events of a run with their times, numbered 1, 2, 3 and so on.
pub(super) fn journal(disk: &Disk, run: RunId) -> Result<Vec<(Event, Timestamp)>, String> {
    let stored = at_once(disk.memory.load(run, true)).map_err(|error| error.to_string())?;
    let mut events = vec![];
    for entry in stored.map(|stored| stored.entries).unwrap_or_default() {
        let next = events.len() as u64 + 1;
        if entry.seq.0 != next {
            return Err(format!("{run}: event {next} should come, {} came", entry.seq));
        }
        let decoded = at_once(decode_events(&disk.memory, &entry.payload)).map_err(|error| error.to_string())?;
        if decoded.len() != entry.count as usize {
            return Err(format!("{run}: an entry of {} events counts {}", decoded.len(), entry.count));
        }
        events.extend(decoded.into_iter().map(|event| (event, entry.at)));
    }
    Ok(events)
}

fn replay(id: RunId, workflow: &Arc<Workflow>, events: &[(Event, Timestamp)]) -> Result<Run, String> {
    let Some(((first, at), rest)) = events.split_first() else { return Err(format!("{id} has no event")) };
    let mut run = Run::begin(id, Arc::clone(workflow), first, *at).map_err(|error| error.to_string())?;
    rest.iter().for_each(|(event, at)| run.apply(event, *at));
    Ok(run)
}

/// Whether a live run is what its durable events lead to: never ahead of them, and never different.
pub(super) fn compare(disk: &Disk, live: &Run) -> Result<(), String> {
    let events = journal(disk, live.id())?;
    let seq = usize::try_from(live.seq().0).unwrap_or(usize::MAX);
    let Some(durable) = events.get(..seq) else {
        return Err(format!("{} is at event {seq}, but only {} are durable", live.id(), events.len()));
    };
    if replay(live.id(), live.workflow(), durable)? == *live {
        Ok(())
    } else {
        Err(format!("{} at event {seq} is not what its journal leads to", live.id()))
    }
}

/// Every head that the store holds.
pub(super) fn heads(disk: &Disk) -> Vec<RunHead> {
    let mut query = RunQuery::newest(Namespace::default(), PAGE);
    let mut heads = vec![];
    loop {
        let page = at_once(disk.memory.list(&query)).unwrap();
        let Some(last) = page.last() else { return heads };
        query.before = Some(last.run);
        heads.extend(page);
    }
}

/// Everything that is wrong at the end of a world.
pub(super) fn at_the_end(disk: &Disk, submissions: &Submissions) -> Vec<String> {
    let mut broken = disk.breaches();
    let mut kept: BTreeMap<usize, Vec<RunId>> = BTreeMap::new();
    for head in heads(disk) {
        match submissions.runs.get(&head.run) {
            Some(number) => kept.entry(*number).or_default().push(head.run),
            None => broken.push(format!("nobody asked for {}", head.run)),
        }
        broken.extend(run_at_the_end(disk, submissions, &head).err());
    }
    for (number, submission) in submissions.all.iter().enumerate() {
        let runs = kept.remove(&number).unwrap_or_default();
        let told: Vec<_> = submission.told.iter().collect();
        if submission.key.is_some() && (runs.len() > 1 || told.len() > 1) {
            broken.push(format!("submission {number} has the runs {runs:?} and was told {told:?}"));
        }
        let lost = told.iter().filter(|run| !runs.contains(run));
        broken.extend(lost.map(|run| format!("submission {number} was told {run}, which is lost")));
    }
    broken
}

fn run_at_the_end(disk: &Disk, submissions: &Submissions, head: &RunHead) -> Result<(), String> {
    let id = head.run;
    let about = |problem: String| format!("{id}: {problem}");
    let events = journal(disk, id)?;
    let plain: Vec<_> = events.iter().map(|(event, _)| event.clone()).collect();
    check_shape(&plain).map_err(about)?;
    check_attempts(&events).map_err(about)?;
    let Some(number) = submissions.runs.get(&id) else { return Ok(()) };
    let shape = submissions.all[*number].shape;
    let run = replay(id, &submissions.workflows[shape], &events)?;
    let asked_to_cancel = submissions.to_cancel.contains(&id);
    let fits = match run.phase() {
        Phase::Active => false,
        Phase::Succeeded => true,
        Phase::Failed => !SHAPES[shape].sure,
        Phase::TimedOut => SHAPES[shape].name == "timed",
        Phase::Cancelled => asked_to_cancel,
    };
    let acknowledged = submissions.cancelled.contains(&id);
    if !fits || (acknowledged && run.phase() != Phase::Cancelled && run.phase() != Phase::TimedOut) {
        return Err(about(format!("a {} ended as {:?}: {:?}", SHAPES[shape].name, run.phase(), run.state().failure)));
    }
    if head.state.is_end() != run.phase().is_end() {
        return Err(about(format!("its head says {:?}, its journal {:?}", head.state, run.phase())));
    }
    let expected = (SHAPES[shape].output)(&SHAPES[shape].input(*number));
    match run.output() {
        Some(output) if output.to_json() != expected => {
            Err(about(format!("a {} gave {}, not {expected}", SHAPES[shape].name, output.to_json())))
        }
        _ => Ok(()),
    }
}

/// Checks that every result is one of the attempt that was owed at that time, and that no retry came too early.
fn check_attempts(events: &[(Event, Timestamp)]) -> Result<(), String> {
    let mut owed: BTreeMap<(StepIndex, u32), u32> = BTreeMap::new();
    let mut retries: BTreeMap<CallId, Timestamp> = BTreeMap::new();
    for (event, at) in events {
        match event {
            Event::CallScheduled { call, .. } | Event::FellBack { call, .. } => {
                owed.insert((call.step, call.item), call.attempt);
            }
            Event::CallRetried { call } => {
                let before = CallId { attempt: call.attempt - 1, ..*call };
                if retries.get(&before).is_none_or(|due| due > at) {
                    return Err(format!("{call} begins before it is due"));
                }
                owed.insert((call.step, call.item), call.attempt);
            }
            Event::AttemptFailed { call, retry_at, .. } => {
                expect_attempt(&owed, call.step, call.item, Some(i64::from(call.attempt)))?;
                retries.extend(retry_at.map(|at| (*call, at)));
            }
            Event::ItemSucceeded { step, item, output, .. } => expect_attempt(&owed, *step, *item, attempt_of(output))?,
            Event::StepSucceeded { step, output: Some(output), .. } => {
                expect_attempt(&owed, *step, 0, attempt_of(output))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn attempt_of(output: &Value) -> Option<i64> {
    output.get("attempt")?.to_json().as_i64()
}

fn expect_attempt(
    owed: &BTreeMap<(StepIndex, u32), u32>,
    step: StepIndex,
    item: u32,
    attempt: Option<i64>,
) -> Result<(), String> {
    // Outputs that no model gave carry no attempt.
    let Some(attempt) = attempt else { return Ok(()) };
    match owed.get(&(step, item)) {
        Some(owed) if i64::from(*owed) == attempt => Ok(()),
        owed => Err(format!("step {step:?} item {item} took the answer of attempt {attempt}, owed is {owed:?}")),
    }
}
