//! What clients were promised and what they have seen, and the proof that the node kept it.
//!
//! Knows nothing of how the node works inside: it compares what was said with what is there in the end. Used by the
//! suites that kill, stop and starve the node.

pub mod outage;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use motet_store::port::HeadState;
use serde_json::Value;

use crate::journal::Kept;
pub use shape::{check_shape, check_wire};

/// Everything that was said to clients during a test.
#[derive(Debug, Default)]
pub struct History {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// The run that was promised under each key.
    promised: BTreeMap<String, String>,
    /// The promised runs in the order of the promises.
    runs: Vec<String>,
    /// How often a key was submitted again because the answer before was lost.
    repeated: u64,
    /// Events that a client has read, by run: what was read once must stay.
    events: BTreeMap<String, Vec<Value>>,
    /// Broken promises noticed while they were made.
    broken: Vec<String>,
}

impl History {
    /// A history in which nothing was said yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the node acknowledged a submission.
    pub fn promised(&self, key: &str, run: &str) {
        let mut said = self.said.lock().unwrap();
        match said.promised.insert(key.to_owned(), run.to_owned()) {
            Some(before) if before != run => {
                said.broken.push(format!("key {key} was promised {before} and then {run}"));
            }
            Some(_) => {}
            None => said.runs.push(run.to_owned()),
        }
    }

    /// A promised run, by any number; none when nothing was promised yet.
    #[must_use]
    pub fn any_promised(&self, number: usize) -> Option<String> {
        let said = self.said.lock().unwrap();
        (!said.runs.is_empty()).then(|| said.runs[number % said.runs.len()].clone())
    }

    /// Notes that a submission was repeated because nobody knows what became of it.
    pub fn repeated(&self) {
        self.said.lock().unwrap().repeated += 1;
    }

    /// Notes the events that a client read, and that they begin with those read before.
    pub fn saw_events(&self, run: &str, events: Vec<Value>) {
        let mut said = self.said.lock().unwrap();
        if let Err(problem) = check_wire(&events) {
            said.broken.push(format!("{run}: {problem}"));
        }
        let before = said.events.get(run).map_or(0, Vec::len);
        let differs = said.events.get(run).is_some_and(|seen| seen.iter().zip(&events).any(|(old, new)| old != new));
        if differs {
            said.broken.push(format!("{run}: an event that was read has changed"));
        } else if events.len() < before {
            said.broken.push(format!("{run}: {before} events were read, now there are {}", events.len()));
        } else {
            said.events.insert(run.to_owned(), events);
        }
    }

    /// The promised runs by key.
    #[must_use]
    pub fn promises(&self) -> BTreeMap<String, String> {
        self.said.lock().unwrap().promised.clone()
    }

    /// How many submissions had to be repeated.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.said.lock().unwrap().repeated
    }

    /// How many runs had some of their events read by clients.
    #[must_use]
    pub fn witnessed(&self) -> usize {
        self.said.lock().unwrap().events.len()
    }

    /// Compares what was said with what the store holds when all is over: every promised run is there and has
    /// succeeded, nothing is there that nobody asked for, and every journal is one that the rules allow.
    ///
    /// # Panics
    /// With every broken promise.
    pub fn prove(&self, kept: &BTreeMap<String, Kept>) {
        let said = self.said.lock().unwrap();
        let mut broken = said.broken.clone();
        let mut runs = BTreeSet::new();
        for (key, run) in &said.promised {
            if !runs.insert(run) {
                broken.push(format!("{run} was promised to two keys, {key} among them"));
            }
            match kept.get(run) {
                None => broken.push(format!("{run} was promised to {key} and is lost")),
                Some(kept) if kept.state != HeadState::Succeeded => {
                    broken.push(format!("{run} was promised to {key} and ended as {:?}", kept.state));
                }
                Some(_) => {}
            }
        }
        broken.extend(kept.keys().filter(|run| !runs.contains(run)).map(|run| format!("nobody asked for {run}")));
        for (run, kept) in kept {
            broken.extend(check_shape(&kept.events).err().map(|problem| format!("{run}: {problem}")));
            if let Some(seen) = said.events.get(run).filter(|seen| seen.len() > kept.events.len()) {
                broken.push(format!("{run}: {} events were read, {} are kept", seen.len(), kept.events.len()));
            }
        }
        assert!(broken.is_empty(), "{} promises are broken:\n  {}", broken.len(), broken.join("\n  "));
    }
}
