//! The checker of histories finds what it is there to find: a test of the tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use motet_engine::access::Principal;
use motet_engine::event::{Event, Submission};
use motet_engine::id::{CallId, Name, Namespace, RunId, ShardId, StepIndex};
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;
use motet_store::port::HeadState;
use motet_tests::history::outage::{Outage, Work, percentile};
use motet_tests::history::{History, check_shape, check_wire};
use motet_tests::journal::Kept;
use serde_json::json;

fn submitted() -> Event {
    let submission = Submission {
        namespace: Namespace::default(),
        principal: Principal::Local,
        workflow: Name::new("w").unwrap(),
        version: "1".to_owned(),
        input: Value::empty_map(),
        tags: vec![],
        priority: 0,
        trace: TraceContext::start(1, 1),
        at: Timestamp::from_millis(1),
        source: None,
    };
    Event::Submitted(submission.into())
}

fn scheduled(attempt: u32) -> Event {
    let call = CallId { step: StepIndex(0), item: 0, attempt };
    if attempt == 1 { Event::CallScheduled { call, with: Value::empty_map() } } else { Event::CallRetried { call } }
}

fn succeeded(text: &str) -> Event {
    let output = Some(Value::from(json!({ "text": text })));
    Event::StepSucceeded { step: StepIndex(0), output, fallback: false }
}

fn item(item: u32) -> Event {
    let output = Value::from(json!(item));
    Event::ItemSucceeded { step: StepIndex(0), item, output, fallback: false }
}

fn wait(attempt: u32) -> [Event; 2] {
    let call = CallId { step: StepIndex(0), item: 0, attempt };
    [Event::WaitBegan { call, with: Value::empty_map(), until: None }, Event::WaitEnded { call }]
}

fn signal() -> [Event; 2] {
    let (call, id) = (CallId { step: StepIndex(0), item: 0, attempt: 1 }, std::sync::Arc::<str>::from("1"));
    let received =
        Event::SignalReceived { name: "s".into(), payload: Value::empty_map(), id: id.clone(), by: Principal::Local };
    [received, Event::SignalTaken { call, id }]
}

fn retried() -> Event {
    Event::RunRetried { by: Principal::Local, steps: vec![StepIndex(0)] }
}

fn paused() -> Event {
    Event::Paused { by: Principal::Local, reason: None }
}

const END: Event = Event::RunSucceeded { output: None };

#[test]
fn journals_that_cannot_be_are_found() {
    let [began, ended] = wait(1);
    let [began_again, ended_again] = wait(2);
    let [came, taken] = signal();
    let resumed = Event::Resumed { by: Principal::Local };
    let done = || succeeded("a");
    for (what, fits, events) in [
        ("a wait", true, vec![submitted(), began.clone(), ended.clone(), done(), END]),
        ("a wait that ends twice", false, vec![submitted(), began.clone(), ended.clone(), ended.clone(), done(), END]),
        ("a wait that never began", false, vec![submitted(), ended.clone(), done(), END]),
        ("a signal", true, vec![submitted(), came.clone(), began.clone(), taken.clone(), done(), END]),
        ("a signal that never came", false, vec![submitted(), began.clone(), taken, done(), END]),
        ("a signal twice", false, vec![submitted(), came.clone(), came, END]),
        ("a pause", true, vec![submitted(), paused(), resumed.clone(), began.clone(), ended.clone(), done(), END]),
        ("a wait that began in a pause", false, vec![submitted(), paused(), began.clone(), resumed, END]),
        (
            "a retry",
            true,
            vec![
                submitted(),
                began.clone(),
                ended.clone(),
                done(),
                END,
                retried(),
                began_again,
                ended_again,
                done(),
                END,
            ],
        ),
        (
            "a retry that repeats an attempt",
            false,
            vec![submitted(), began.clone(), ended.clone(), done(), END, retried(), began, ended, done(), END],
        ),
        ("a retry before the end", false, vec![submitted(), retried(), END]),
        ("a plain run", true, vec![submitted(), scheduled(1), succeeded("a"), END]),
        ("a retried step", true, vec![submitted(), scheduled(1), scheduled(2), succeeded("a"), END]),
        ("two items", true, vec![submitted(), scheduled(1), item(0), item(1), succeeded("a"), END]),
        ("no end", false, vec![submitted(), scheduled(1), succeeded("a")]),
        ("two ends", false, vec![submitted(), scheduled(1), succeeded("a"), END, END]),
        ("two submissions", false, vec![submitted(), submitted(), END]),
        ("no submission", false, vec![scheduled(1), succeeded("a"), END]),
        ("two results of a step", false, vec![submitted(), scheduled(1), succeeded("a"), succeeded("b"), END]),
        ("two results of an item", false, vec![submitted(), item(0), item(0), succeeded("a"), END]),
        ("an attempt twice", false, vec![submitted(), scheduled(1), scheduled(1), succeeded("a"), END]),
        ("an attempt after the result", false, vec![submitted(), scheduled(1), succeeded("a"), scheduled(2), END]),
    ] {
        assert_eq!(check_shape(&events).is_ok(), fits, "{what}: {:?}", check_shape(&events));
    }
}

#[test]
fn numbers_that_are_missing_or_twice_are_found() {
    for (numbers, fits) in
        [(vec![], true), (vec![1, 2, 3], true), (vec![2], false), (vec![1, 3], false), (vec![1, 1], false)]
    {
        let events: Vec<_> = numbers.iter().map(|seq| json!({ "seq": seq })).collect();
        assert_eq!(check_wire(&events).is_ok(), fits, "{numbers:?}");
    }
}

#[test]
fn broken_promises_are_found() {
    let events = vec![submitted(), scheduled(1), succeeded("a"), END];
    let whole = Kept { state: HeadState::Succeeded, events, written: vec![] };
    let failed = Kept { state: HeadState::Failed, ..whole.clone() };
    let event = |seq: u64, value: &str| json!({ "seq": seq, "value": value });
    type Tell = fn(&History);
    type Case<'k> = (&'static str, bool, Tell, Vec<(&'static str, &'k Kept)>);
    let promised: Tell = |history| history.promised("k", "r");
    let two_runs: Tell = |history| (history.promised("k", "r"), history.promised("k", "s")).1;
    let two_keys: Tell = |history| (history.promised("k", "r"), history.promised("l", "r")).1;
    let cases: [Case<'_>; 6] = [
        ("all is well", true, promised, vec![("r", &whole)]),
        ("a lost run", false, promised, vec![]),
        ("a run that failed", false, promised, vec![("r", &failed)]),
        ("a run that nobody asked for", false, promised, vec![("r", &whole), ("s", &whole)]),
        ("a key with two runs", false, two_runs, vec![("r", &whole), ("s", &whole)]),
        ("a run of two keys", false, two_keys, vec![("r", &whole)]),
    ];
    for (what, fits, tell, kept) in cases {
        let history = History::new();
        tell(&history);
        let kept: BTreeMap<_, _> = kept.into_iter().map(|(run, kept)| (run.to_owned(), kept.clone())).collect();
        assert_eq!(catch_unwind(AssertUnwindSafe(|| history.prove(&kept))).is_ok(), fits, "{what}");
    }
    for (what, fits, later) in [
        ("more events", true, vec![event(1, "a"), event(2, "b")]),
        ("a changed event", false, vec![event(1, "other")]),
        ("an event less", false, vec![]),
    ] {
        let history = History::new();
        history.promised("k", "r");
        history.saw_events("r", vec![event(1, "a")]);
        history.saw_events("r", later);
        let kept = BTreeMap::from([("r".to_owned(), whole.clone())]);
        assert_eq!(catch_unwind(AssertUnwindSafe(|| history.prove(&kept))).is_ok(), fits, "{what}");
    }
}

/// Runs on two shards whose owners wrote at these milliseconds.
fn work() -> Work {
    let run = |shard: u16, written: [i64; 3]| {
        let id = RunId::new(Timestamp::from_millis(1), ShardId(shard), u64::from(shard)).to_string();
        let written = written.map(Timestamp::from_millis).to_vec();
        (id, Kept { state: HeadState::Succeeded, events: vec![], written })
    };
    Work::of(&BTreeMap::from([run(0, [10, 100, 400]), run(1, [90, 250, 300])])).unwrap()
}

#[test]
fn work_that_stood_still_is_found() {
    let millis = Duration::from_millis;
    let outage = |at: i64, shards: &[u16]| Outage {
        at: Timestamp::from_millis(at),
        shards: shards.iter().copied().map(ShardId).collect(),
    };
    for (outages, resumed) in [
        (vec![], Some(vec![])),
        (vec![outage(100, &[0])], Some(vec![millis(300)])),
        (vec![outage(95, &[0, 1])], Some(vec![millis(5), millis(155)])),
        (vec![outage(95, &[1]), outage(0, &[0])], Some(vec![millis(10), millis(155)])),
        // Nothing came after it, or nothing ever was there.
        (vec![outage(400, &[0])], None),
        (vec![outage(0, &[2])], None),
    ] {
        assert_eq!(work().resumed(&outages).ok(), resumed, "{outages:?}");
    }
    for (from, to, silence) in [(0, 100, 80), (0, 400, 150), (300, 900, 500), (110, 120, 10)] {
        let (from, to) = (Timestamp::from_millis(from), Timestamp::from_millis(to));
        assert_eq!(work().longest_silence(from, to), millis(silence), "{from:?} to {to:?}");
    }
    let sorted: Vec<_> = (1..=200).map(millis).collect();
    assert_eq!([50, 99, 100].map(|part| percentile(&sorted, part)), [100, 198, 200].map(millis));
    assert_eq!(percentile(&[], 99), Duration::ZERO);
}
