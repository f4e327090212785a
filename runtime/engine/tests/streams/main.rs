//! The rules of records: what each begins, which ids follow from it, what its run's end becomes.
//!
//! Definitions are read from YAML as users write them; records are made by hand or at random.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests may fail loudly")]

mod cloud_events;
mod identities;
mod letters;
mod random;
mod reading;
mod results;

use std::sync::Arc;

use bytes::Bytes;
use motet_engine::definition::{Definition, StreamDefinition, Workflow, parse_definitions};
use motet_engine::id::Namespace;
use motet_engine::stream::{Decoded, Headers, Incoming, Origin, StartRun, Verdict, read};
use motet_engine::time::Timestamp;

/// When the generation began.
pub(crate) const SINCE: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// When records are read.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_100_000);

fn definition(yaml: &str) -> Definition {
    match parse_definitions("test.yaml", yaml) {
        Ok(mut definitions) => definitions.remove(0),
        Err(mistakes) => panic!("{mistakes:?}\n{yaml}"),
    }
}

pub(crate) fn stream(body: &str) -> Arc<StreamDefinition> {
    match definition(&format!("kind: Stream\nname: orders\ntopics: [in]\nworkflow: w\n{body}")) {
        Definition::Stream(stream) => stream,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn workflow(body: &str) -> Arc<Workflow> {
    match definition(&format!("kind: Workflow\nname: w\n{body}")) {
        Definition::Workflow(workflow) => workflow,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn header(name: &str, value: &str) -> (String, Option<Bytes>) {
    (name.to_owned(), Some(Bytes::copy_from_slice(value.as_bytes())))
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| header(name, value)).collect()
}

pub(crate) fn incoming(value: &[u8], pairs: &[(&str, &str)]) -> Incoming {
    Incoming {
        topic: "in".into(),
        partition: 3,
        offset: 42,
        timestamp: Some(NOW.as_millis()),
        key: Some(Bytes::from_static(b"ada")),
        value: Some(Bytes::copy_from_slice(value)),
        headers: headers(pairs),
    }
}

/// Reads a record in the second generation of revision 7.
pub(crate) fn look(definition: &StreamDefinition, incoming: &Incoming, decoded: Option<Decoded>) -> Verdict {
    look_in(definition, incoming, decoded, 2)
}

pub(crate) fn look_in(
    definition: &StreamDefinition,
    incoming: &Incoming,
    decoded: Option<Decoded>,
    generation: u32,
) -> Verdict {
    let (namespace, revision) = (Namespace::default(), Arc::from("7"));
    let origin =
        Origin { namespace: &namespace, revision: &revision, generation, since: SINCE, cluster: "cluster", shards: 64 };
    read(definition, &origin, incoming, decoded)
}

pub(crate) fn started(verdict: Verdict) -> StartRun {
    match verdict {
        Verdict::Start(start) => *start,
        other => panic!("{other:?}"),
    }
}

/// The verdict in one line: the input as JSON, why it is passed over, or stage and class.
pub(crate) fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Start(start) => start.input.to_json().to_string(),
        Verdict::Skip(skip) => format!("{skip:?}"),
        Verdict::Dead(reason) => format!("{} {}", reason.stage, reason.class),
    }
}
