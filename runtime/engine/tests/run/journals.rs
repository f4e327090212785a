//! Journals that earlier versions wrote: they decode and replay to the same end for ever.
//!
//! The files under `tests/journals` hold the events of one run each, with their times, as MessagePack with names.

use std::path::Path;

use motet_engine::event::Event;
use motet_engine::id::{RunId, ShardId};
use motet_engine::run::Phase;
use motet_engine::time::Timestamp;
use serde_json::json;

use crate::execution::{START, replay, workflow};

#[test]
fn what_was_written_once_is_read_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals");
    let yaml = std::fs::read_to_string(folder.join("workflow.yaml")).unwrap();
    let body = yaml.split_once("name: remembered\n").unwrap().1;
    for (name, phase, count) in [
        ("succeeded", Phase::Succeeded, 20),
        ("failed", Phase::Failed, 22),
        ("cancelled", Phase::Cancelled, 19),
        ("timed-out", Phase::TimedOut, 19),
    ] {
        let bytes = std::fs::read(folder.join(name).with_extension("mpk")).unwrap();
        let history: Vec<(Event, Timestamp)> = rmp_serde::from_slice(&bytes).unwrap();
        let run = replay(RunId::new(START, ShardId(1), 7), &workflow(body), &history);
        assert_eq!((run.phase(), history.len()), (phase, count), "{name}");
        assert!(run.commands().is_empty() && run.state().finished_at == Some(history.last().unwrap().1));
        if phase == Phase::Succeeded {
            let output = run.output().unwrap().to_json();
            assert_eq!(output, json!({"ask": "2.0", "each": ["3.0", "3.1", "3.2"]}));
        }
    }
}

/// A run that a record began, which failed and gave its place in its order up.
#[test]
fn a_run_that_a_record_began_is_read_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals");
    let yaml = std::fs::read_to_string(folder.join("workflow.yaml")).unwrap();
    let body = yaml.split_once("name: remembered\n").unwrap().1;
    let bytes = std::fs::read(folder.join("from-record.mpk")).unwrap();
    let history: Vec<(Event, Timestamp)> = rmp_serde::from_slice(&bytes).unwrap();
    let run = replay(RunId::new(START, ShardId(1), 7), &workflow(body), &history);
    assert_eq!((run.phase(), history.last().unwrap().0.kind()), (Phase::Failed, "line_left"));
    assert!(!run.state().holds_line() && run.commands().is_empty());
    let source = run.submission().source.as_deref().unwrap();
    assert_eq!((source.stream.as_str(), &*source.revision, source.generation), ("orders", "7", 2));
    assert_eq!((&*source.topic, source.partition, source.offset), ("in", 3, 42));
    assert_eq!((source.key.as_deref(), source.order), (Some(&b"ada"[..]), Some([9; 16])));
    assert_eq!((&*source.reply[0].0, source.reply[0].1.as_deref()), ("correlation-id", Some(&b"abc"[..])));
    let cause = source.event.as_ref().unwrap();
    assert_eq!((&*cause.id, &*cause.source, &*cause.kind), ("e1", "/shop", "order.placed"));
    assert_eq!(cause.correlation.as_deref(), Some("c1"));
}
