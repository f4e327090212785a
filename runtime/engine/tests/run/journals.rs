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
