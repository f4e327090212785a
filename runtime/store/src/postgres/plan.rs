//! Decides, before the statement, what each write of a batch asks of the database.
//!
//! Other nodes write to the same database, so what is remembered of runs only saves looking them up: nothing is refused
//! because of it, and the unique keys of the journal refuse what should not have been tried. Epochs are not remembered
//! at all: the statement compares them. Never waits. Used by the writer.

use std::collections::{BTreeMap, HashMap, HashSet};

use motet_engine::id::{Epoch, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use sha2::{Digest, Sha256};

use super::batch::{Batch, Gate};
use super::queue::{Op, Outcome, Write};
use crate::port::{Admission, Admitted, Append, Entry, HeadChange, HeadState, Snapshot};
use crate::{StoreError, check};

/// Runs that are remembered; twice as many at most. About 10 MB.
const TAILS: usize = 100_000;

/// Where a run's journal ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// The number that the next event must have.
    pub(super) next: u64,
    pub(super) state: HeadState,
}

pub(super) type KeyName = (Namespace, String);

/// What the writer remembers of runs in motion.
#[derive(Debug, Default)]
pub(super) struct Known {
    // Two generations in place of an order of use: a run that is not touched while a whole generation fills is
    // forgotten and looked up again when it moves.
    young: HashMap<RunId, Tail>,
    old: HashMap<RunId, Tail>,
}

impl Known {
    fn tail(&self, run: RunId) -> Option<Tail> {
        self.young.get(&run).or_else(|| self.old.get(&run)).copied()
    }

    /// Runs that ended are not remembered: they may be forgotten by any node, and then they must not seem to exist.
    pub(super) fn remember(&mut self, run: RunId, tail: Tail) {
        if tail.state.is_end() {
            self.young.remove(&run);
            self.old.remove(&run);
            return;
        }
        if self.young.len() >= TAILS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(run, tail);
    }
}

/// What must be looked up before a batch can be planned.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pub(super) runs: Vec<RunId>,
    /// Entries that may have been written before a connection was lost.
    pub(super) entries: Vec<(RunId, Seq)>,
}

impl Questions {
    /// What `known` cannot answer. With `doubt` nothing that it remembers counts: the batch failed before.
    pub(super) fn of(writes: &[Write], known: &Known, doubt: bool) -> Self {
        let mut questions = Self::default();
        for write in writes {
            let (run, sure) = match &write.op {
                Op::Admit(admission) => (admission.run, true),
                Op::Append(append) => {
                    (append.run, known.tail(append.run).is_some_and(|tail| tail.next == append.entry.seq.0))
                }
                Op::Snapshot { run, snapshot, .. } => {
                    (*run, known.tail(*run).is_some_and(|tail| tail.next > snapshot.seq.0))
                }
                Op::Claim { .. } | Op::Blob { .. } | Op::Close => continue,
            };
            if doubt || write.in_doubt || !sure {
                questions.runs.push(run);
            }
            if write.in_doubt {
                questions.entries.extend(entry_of(&write.op).map(|entry| (run, entry.seq)));
            }
        }
        questions.runs.sort_unstable();
        questions.runs.dedup();
        questions
    }
}

fn entry_of(op: &Op) -> Option<&Entry> {
    match op {
        Op::Admit(admission) => Some(&admission.entry),
        Op::Append(append) => Some(&append.entry),
        _ => None,
    }
}

/// The answers to the questions.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tails: HashMap<RunId, Tail>,
    /// Number of events and digest of the payload.
    pub(super) entries: HashMap<(RunId, Seq), (u32, [u8; 32])>,
}

/// What is to become of a write.
#[derive(Debug)]
pub(super) enum Decision {
    /// It needs nothing of the statement.
    Settled(Result<Outcome, StoreError>),
    /// It is done when the statement is.
    Free(Outcome),
    /// It is as told when its gate opens, and fenced otherwise.
    Gated(i32, Result<Outcome, StoreError>),
    /// It depends on whether its key is free; with `exists` the run is there already.
    Keyed { exists: bool },
    /// It depends on another write of the batch: it belongs into the next one.
    Later,
}

/// A batch in the making.
pub(super) struct Plan<'a> {
    known: &'a Known,
    asked: HashSet<RunId>,
    found: Found,
    admitted: HashSet<RunId>,
    keys: HashSet<(&'a Namespace, &'a str)>,
    gates: HashMap<ShardId, Gate>,
    tails: HashMap<RunId, (Tail, i32)>,
    entries: Vec<(i32, RunId, &'a Entry)>,
    heads: BTreeMap<RunId, (i32, HeadState, HeadChange, Timestamp)>,
    snapshots: BTreeMap<RunId, (i32, &'a Snapshot)>,
    batch: Batch<'a>,
}

impl<'a> Plan<'a> {
    /// A plan on top of what is remembered and of the answers: a run that was asked for and is not found does not
    /// exist.
    pub(super) fn new(known: &'a Known, asked: Vec<RunId>, found: Found) -> Self {
        Self {
            known,
            asked: asked.into_iter().collect(),
            found,
            admitted: HashSet::new(),
            keys: HashSet::new(),
            gates: HashMap::new(),
            tails: HashMap::new(),
            entries: Vec::new(),
            heads: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            batch: Batch::default(),
        }
    }

    /// Decides one write.
    pub(super) fn take(&mut self, write: &'a Write) -> Decision {
        let decided = match &write.op {
            Op::Admit(admission) => self.admit(admission, write.in_doubt),
            Op::Append(append) => self.append(append, write.in_doubt),
            Op::Snapshot { run, epoch, snapshot } => Ok(self.snapshot(*run, *epoch, snapshot)),
            Op::Blob { run, blob, data } => {
                self.batch.blob(*run, blob.sha256, data);
                Ok(Decision::Free(Outcome::Done))
            }
            // The writer carries these out by themselves and never plans them.
            Op::Claim { .. } | Op::Close => Err(StoreError::Closed),
        };
        decided.unwrap_or_else(|error| Decision::Settled(Err(error)))
    }

    /// The rows, and what can be remembered of each run when its gate opens.
    pub(super) fn finish(mut self) -> (Batch<'a>, HashMap<RunId, (Tail, i32)>) {
        // Everyone who writes rows of several runs does so in the order of their ids.
        self.entries.sort_by_key(|(_, run, _)| *run);
        for (gate, run, entry) in self.entries {
            self.batch.entry(gate, run, entry);
        }
        for (run, (gate, old, head, at)) in self.heads {
            self.batch.head(gate, run, old, head, at);
        }
        for (run, (gate, snapshot)) in self.snapshots {
            self.batch.snapshot(gate, run, snapshot);
        }
        (self.batch, self.tails)
    }

    fn tail(&self, run: RunId) -> Option<Tail> {
        if let Some((tail, _)) = self.tails.get(&run) {
            return Some(*tail);
        }
        if self.asked.contains(&run) { self.found.tails.get(&run).copied() } else { self.known.tail(run) }
    }

    /// Whether the entry is there as it was to be written.
    fn was_written(&self, run: RunId, entry: &Entry) -> bool {
        let there = self.found.entries.get(&(run, entry.seq));
        there.is_some_and(|(count, digest)| {
            *count == entry.count && *digest == <[u8; 32]>::from(Sha256::digest(&entry.payload))
        })
    }

    fn admit(&mut self, admission: &'a Admission, in_doubt: bool) -> Result<Decision, StoreError> {
        let Admission { run, namespace, entry, idempotency, .. } = admission;
        if self.admitted.contains(run) {
            return Ok(Decision::Later);
        }
        let exists = self.asked.contains(run) && self.found.tails.contains_key(run);
        if exists && in_doubt && self.was_written(*run, entry) {
            return Ok(Decision::Settled(Ok(Outcome::Admitted(Admitted::New))));
        }
        match idempotency {
            None if exists => return Err(StoreError::SeqTaken { run: *run, seq: Seq(1) }),
            None => {}
            Some(_) if exists => return Ok(Decision::Keyed { exists }),
            // One row cannot be taken twice in one statement: whoever comes second in the batch is told of the first.
            Some(key) if !self.keys.insert((namespace, &key.key)) => return Ok(Decision::Keyed { exists }),
            Some(_) => {}
        }
        self.batch.run(admission, check::head(admission.head))?;
        self.admitted.insert(*run);
        Ok(if idempotency.is_some() {
            Decision::Keyed { exists }
        } else {
            Decision::Free(Outcome::Admitted(Admitted::New))
        })
    }

    fn append(&mut self, append: &'a Append, in_doubt: bool) -> Result<Decision, StoreError> {
        let Append { run, epoch, incarnation, entry, head, outbox } = append;
        if in_doubt && self.was_written(*run, entry) {
            return Ok(Decision::Settled(Ok(Outcome::Done)));
        }
        let gate = Gate { shard: run.shard(), epoch: *epoch, incarnation: *incarnation };
        // All appends of a shard stand or fall together, so that a refused one cannot leave a hole before another.
        if self.admitted.contains(run) || *self.gates.entry(run.shard()).or_insert(gate) != gate {
            return Ok(Decision::Later);
        }
        let gate = self.batch.gate(gate);
        let Some(mut tail) = self.tail(*run) else {
            return Ok(Decision::Gated(gate, Err(StoreError::UnknownRun(*run))));
        };
        if let Err(refused) = check::sequence(*run, tail.next, entry) {
            return Ok(Decision::Gated(gate, Err(refused)));
        }
        for row in outbox {
            self.batch.outbox(gate, *run, row)?;
        }
        self.entries.push((gate, *run, entry));
        tail.next = entry.seq.0 + u64::from(entry.count);
        if let Some(head) = head.map(check::head) {
            let earlier = self.heads.get(run).map(|(_, old, earlier, _)| (*old, earlier.leaves_line));
            // Who left its line in one event of the batch does not come back with the next.
            let (old, left) = earlier.unwrap_or((tail.state, false));
            let head = HeadChange { leaves_line: head.leaves_line || left, ..head };
            self.heads.insert(*run, (gate, old, head, entry.at));
            tail.state = head.state;
        }
        self.tails.insert(*run, (tail, gate));
        Ok(Decision::Gated(gate, Ok(Outcome::Done)))
    }

    fn snapshot(&mut self, run: RunId, epoch: Epoch, snapshot: &'a Snapshot) -> Decision {
        if self.admitted.contains(&run) || self.tails.contains_key(&run) {
            return Decision::Later;
        }
        let gate = self.batch.gate(Gate { shard: run.shard(), epoch, incarnation: None });
        let allowed = self.tail(run).ok_or(StoreError::UnknownRun(run));
        if let Err(refused) = allowed.and_then(|tail| check::snapshot(run, tail.next, snapshot.seq)) {
            return Decision::Gated(gate, Err(refused));
        }
        let there = self.snapshots.get(&run);
        if there.is_none_or(|(_, there)| there.seq < snapshot.seq) {
            self.snapshots.insert(run, (gate, snapshot));
        }
        Decision::Gated(gate, Ok(Outcome::Done))
    }
}

/// Where the journal of an admitted run ends.
pub(super) fn tail_of(admission: &Admission) -> Tail {
    Tail { next: 1 + u64::from(admission.entry.count), state: admission.head.state }
}
