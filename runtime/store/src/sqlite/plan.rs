//! Decides, without the database, what becomes of each write of a batch.
//!
//! The writer is the only one that changes the database, so what it remembers of epochs and of runs in motion is the
//! truth; what it does not remember is looked up before. A batch's decisions are kept aside until its commit. Never
//! waits. Used by the writer.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use motet_engine::id::{Epoch, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;

use super::batch::Batch;
use super::lease::Life;
use super::queue::{Op, Outcome};
use crate::partition_rules::{self, Change};
use crate::port::{
    Admission, Admitted, Append, Entry, HeadChange, HeadState, Incarnation, Ingest, OutboxRow, PartitionKey,
    PartitionRow, ShardRow, Snapshot,
};
use crate::shard_map::ShardMap;
use crate::{StoreError, check};

/// Runs that are remembered; twice as many at most. About 15 MB.
const TAILS: usize = 100_000;

/// Where a run's journal ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// The number that the next event must have.
    pub(super) next: u64,
    pub(super) state: HeadState,
}

/// An idempotency key that was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsedKey {
    pub(super) run: RunId,
    pub(super) fingerprint: [u8; 32],
    pub(super) expires_at: Timestamp,
}

pub(super) type KeyName = (Namespace, String);

/// What the writer knows to be in the database.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) shards: ShardMap,
    /// The last position of each outbox that was given out.
    pub(super) positions: HashMap<ShardId, u64>,
    /// The boots of nodes that are not fenced.
    pub(super) lives: HashMap<Incarnation, Life>,
    pub(super) partitions: HashMap<PartitionKey, PartitionRow>,
    // Two generations in place of an order of use: a run that is not touched while a whole generation fills is
    // forgotten and looked up again when it moves.
    young: HashMap<RunId, Tail>,
    old: HashMap<RunId, Tail>,
}

impl Known {
    fn tail(&self, run: RunId) -> Option<Tail> {
        self.young.get(&run).or_else(|| self.old.get(&run)).copied()
    }

    fn remember(&mut self, run: RunId, tail: Tail) {
        if self.young.len() >= TAILS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(run, tail);
    }

    /// Forgets runs that were deleted.
    pub(super) fn forget(&mut self, runs: &[RunId]) {
        for run in runs {
            self.young.remove(run);
            self.old.remove(run);
        }
    }

    /// Takes over what a batch decided, after its commit.
    pub(super) fn learn(&mut self, decided: Decided) {
        self.shards.learn(decided.claims.into_values().collect());
        self.positions.extend(decided.positions);
        self.partitions.extend(decided.partitions);
        for (run, tail) in decided.tails {
            if let Some(tail) = tail {
                self.remember(run, tail);
            }
        }
    }
}

/// What a batch would make known.
#[derive(Debug, Default)]
pub(super) struct Decided {
    claims: BTreeMap<ShardId, ShardRow>,
    positions: HashMap<ShardId, u64>,
    partitions: HashMap<PartitionKey, PartitionRow>,
    tails: HashMap<RunId, Option<Tail>>,
}

/// What must be looked up before a batch can be planned.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pub(super) runs: Vec<RunId>,
    pub(super) keys: Vec<KeyName>,
}

impl Questions {
    /// What `known` cannot answer. With `doubt` nothing that it remembers of runs counts, and admitted runs are
    /// looked for as well: the batch failed before.
    pub(super) fn of<'a>(ops: impl Iterator<Item = &'a Op>, known: &Known, doubt: bool) -> Self {
        let mut questions = Self::default();
        for op in ops {
            match op {
                Op::Admit(admission) => {
                    if let Some(key) = &admission.idempotency {
                        questions.keys.push((admission.namespace.clone(), key.key.clone()));
                    }
                    questions.runs.extend(doubt.then_some(admission.run));
                }
                // Hardly any record comes twice: that one did is told by the run that is there.
                Op::Ingest(ingest) if doubt => questions.runs.extend(ingest.admissions.iter().map(|its| its.run)),
                Op::Append(append) => {
                    questions.runs.extend((doubt || known.tail(append.run).is_none()).then_some(append.run));
                }
                Op::Snapshot { run, .. } => {
                    questions.runs.extend((doubt || known.tail(*run).is_none()).then_some(*run));
                }
                // What does not concern a run's journal asks nothing.
                _ => {}
            }
        }
        questions.runs.sort_unstable();
        questions.runs.dedup();
        questions
    }
}

/// A batch in the making.
pub(super) struct Plan<'a> {
    known: &'a Known,
    decided: Decided,
    keys: HashMap<KeyName, UsedKey>,
    heads: HashMap<RunId, (HeadChange, Timestamp)>,
    batch: Batch,
}

impl<'a> Plan<'a> {
    /// A plan on top of what is known and of the answers to the batch's questions: a run that was asked for and is
    /// not among `tails` does not exist.
    pub(super) fn new(
        known: &'a Known,
        asked: &[RunId],
        tails: Vec<(RunId, Tail)>,
        keys: HashMap<KeyName, UsedKey>,
    ) -> Self {
        let mut decided = Decided::default();
        decided.tails.extend(asked.iter().map(|run| (*run, None)));
        decided.tails.extend(tails.into_iter().map(|(run, tail)| (run, Some(tail))));
        Self { known, decided, keys, heads: HashMap::new(), batch: Batch::new() }
    }

    /// Decides one write. A refusal changes nothing.
    pub(super) fn take(&mut self, op: &Op) -> Result<Outcome, StoreError> {
        match op {
            Op::Admit(admission) => self.admit(admission).map(Outcome::Admitted),
            Op::Append(append) => self.append(append).map(|()| Outcome::Done),
            Op::Snapshot { run, epoch, snapshot } => self.snapshot(*run, *epoch, snapshot).map(|()| Outcome::Done),
            Op::Claim { shard, owner } => self.claim(*shard, owner).map(Outcome::Claimed),
            Op::Blob { run, blob, data } => self.batch.blob(*run, blob.sha256, data).map(|()| Outcome::Done),
            Op::Ingest(ingest) => self.ingest(ingest).map(Outcome::Ingested),
            Op::Partition { key, change, now } => {
                self.change_partition(key, change, *now).map(|row| Outcome::Partition(row.map(Box::new)))
            }
            // The writer gives these a transaction of their own and never plans them.
            Op::Define(_)
            | Op::Retain { .. }
            | Op::OutboxDone { .. }
            | Op::Letter(_)
            | Op::Lease(_)
            | Op::Shard(_)
            | Op::Close => Err(StoreError::Closed),
        }
    }

    /// The rows to write, and what will be known once they are written.
    pub(super) fn finish(mut self) -> Result<(Batch, Decided), StoreError> {
        for (run, (head, at)) in self.heads {
            self.batch.head(run, head, at)?;
        }
        for row in self.decided.partitions.values() {
            self.batch.partition(row)?;
        }
        for (shard, last) in &self.decided.positions {
            self.batch.position(*shard, *last)?;
        }
        Ok((self.batch, self.decided))
    }

    fn tail(&self, run: RunId) -> Option<Tail> {
        self.decided.tails.get(&run).copied().unwrap_or_else(|| self.known.tail(run))
    }

    fn fence(&self, run: RunId, carried: Epoch) -> Result<(), StoreError> {
        check::epoch(run.shard(), carried, self.epoch(run.shard()))
    }

    fn epoch(&self, shard: ShardId) -> Epoch {
        self.decided.claims.get(&shard).map_or_else(|| self.known.shards.epoch(shard), |row| row.epoch)
    }

    fn position(&self, shard: ShardId) -> u64 {
        self.decided.positions.get(&shard).or_else(|| self.known.positions.get(&shard)).copied().unwrap_or_default()
    }

    fn admit(&mut self, admission: &Admission) -> Result<Admitted, StoreError> {
        let Admission { run, namespace, entry, idempotency, .. } = admission;
        let name = idempotency.as_ref().map(|key| (namespace.clone(), key.key.clone()));
        if let (Some(key), Some(name)) = (idempotency, &name) {
            let used = self.keys.get(name).filter(|used| used.expires_at > entry.at);
            if let Some(used) = used {
                let same = used.fingerprint == key.fingerprint;
                return Ok(if same { Admitted::Replayed(used.run) } else { Admitted::KeyReused(used.run) });
            }
        }
        if !self.begin(admission)? {
            return Err(StoreError::SeqTaken { run: *run, seq: Seq(1) });
        }
        self.batch.key(admission)?;
        if let (Some(key), Some(name)) = (idempotency, name) {
            let used = UsedKey { run: *run, fingerprint: key.fingerprint, expires_at: key.expires_at };
            self.keys.insert(name, used);
        }
        Ok(Admitted::New)
    }

    /// Writes a new run. False, and nothing is written, when it is there already.
    fn begin(&mut self, admission: &Admission) -> Result<bool, StoreError> {
        let Admission { run, entry, outbox, .. } = admission;
        if self.tail(*run).is_some() {
            return Ok(false);
        }
        let head = check::head(admission.head);
        self.batch.run(admission, head)?;
        self.batch.entry(*run, entry);
        self.owe(*run, outbox)?;
        self.decided.tails.insert(*run, Some(Tail { next: next(entry), state: head.state }));
        Ok(true)
    }

    fn owe(&mut self, run: RunId, outbox: &[OutboxRow]) -> Result<(), StoreError> {
        let mut last = self.position(run.shard());
        for row in outbox {
            last += 1;
            self.batch.outbox(run, last, row)?;
        }
        if !outbox.is_empty() {
            self.decided.positions.insert(run.shard(), last);
        }
        Ok(())
    }

    fn partition(&self, key: &PartitionKey) -> Option<&PartitionRow> {
        self.decided.partitions.get(key).or_else(|| self.known.partitions.get(key))
    }

    fn change_partition(
        &mut self,
        key: &PartitionKey,
        change: &Change,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        let row = partition_rules::changed(self.partition(key), key, change, now)?;
        if let Some(row) = &row {
            self.decided.partitions.insert(key.clone(), row.clone());
        }
        Ok(row)
    }

    /// What could be refused was refused before: after the position is checked, all of it is written.
    fn ingest(&mut self, ingest: &Ingest) -> Result<Vec<Admitted>, StoreError> {
        let row = partition_rules::advanced(self.partition(&ingest.key), ingest)?;
        self.decided.partitions.insert(row.key.clone(), row);
        let mut answers = Vec::with_capacity(ingest.admissions.len());
        for admission in &ingest.admissions {
            let new = self.begin(admission)?;
            answers.push(if new { Admitted::New } else { Admitted::Replayed(admission.run) });
        }
        ingest.dead.iter().try_for_each(|letter| self.batch.letter(letter))?;
        Ok(answers)
    }

    fn append(&mut self, append: &Append) -> Result<(), StoreError> {
        let Append { run, epoch, incarnation, entry, head, outbox } = append;
        self.fence(*run, *epoch)?;
        check::incarnation(*incarnation, |incarnation| self.known.lives.contains_key(&incarnation))?;
        let mut tail = self.tail(*run).ok_or(StoreError::UnknownRun(*run))?;
        check::sequence(*run, tail.next, entry)?;
        self.owe(*run, outbox)?;
        self.batch.entry(*run, entry);
        tail.next = next(entry);
        if let Some(head) = head.map(check::head) {
            self.batch.count_change(tail.state, head.state);
            tail.state = head.state;
            // Who left its line in one event of the batch does not come back with the next.
            let left = self.heads.get(run).is_some_and(|(earlier, _)| earlier.leaves_line);
            self.heads.insert(*run, (HeadChange { leaves_line: head.leaves_line || left, ..head }, entry.at));
        }
        self.decided.tails.insert(*run, Some(tail));
        Ok(())
    }

    fn snapshot(&mut self, run: RunId, epoch: Epoch, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.fence(run, epoch)?;
        let tail = self.tail(run).ok_or(StoreError::UnknownRun(run))?;
        check::snapshot(run, tail.next, snapshot.seq)?;
        self.batch.snapshot(run, snapshot)
    }

    fn claim(&mut self, shard: ShardId, owner: &str) -> Result<Epoch, StoreError> {
        let epoch = Epoch(self.epoch(shard).0 + 1);
        let now = Timestamp::from_millis(unix_millis());
        let leased = |owner| self.known.lives.get(&owner).is_some_and(|life| life.until > now);
        let row = self.known.shards.claimed(shard, epoch, leased)?;
        self.batch.claim(shard, epoch, owner, self.known.shards.next_version())?;
        self.decided.claims.insert(shard, row);
        Ok(epoch)
    }
}

/// The time of day as the database's own functions tell it.
fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn next(entry: &Entry) -> u64 {
    entry.seq.0 + u64::from(entry.count)
}
