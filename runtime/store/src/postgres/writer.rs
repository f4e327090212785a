//! A writer: commits what waits, many writes in one statement.
//!
//! It never waits for company: while one commit is being flushed the next one gathers. Every caller is answered after
//! the commit and not before. A write that is refused fails alone. When the connection is lost while a statement is in
//! flight, nobody knows what became of it: the writer connects again, reads back what is there, answers what was
//! committed and does the rest again. It never stops for good: while the server cannot be reached, writes wait for a
//! bounded time and then fail. Used by `postgres`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use motet_engine::id::{Epoch, RunId, ShardId};
use sqlx::Arguments;
use sqlx::postgres::{PgArguments, PgRow};
use tokio::sync::mpsc;

use super::batch::{Batch, Gate};
use super::fullness::Fullness;
use super::key::{self, Keyed};
use super::link::{Link, jittered};
use super::options::PostgresOptions;
use super::partition;
use super::plan::{Decision, Found, Known, Plan, Questions, Tail, tail_of};
use super::queue::{Op, Outcome, Status, Write};
use super::reader::{column, digest, number, run_id, seq, state};
use super::shard;
use super::trouble::Trouble;
use crate::StoreError;
use crate::port::Admitted;

/// Writes in one commit.
const BATCH_WRITES: usize = 512;

/// Payload bytes in one commit; the write that passes it is still taken: 256 KiB.
const BATCH_BYTES: usize = 256 << 10;

/// How often a batch is tried when the server fails it for a reason that passes.
const TRIES: u32 = 5;

/// The first pause before a batch is tried again.
const PAUSE: Duration = Duration::from_millis(20);

const FIND_TAILS: &str = "select run.id, run.state, tail.next
  from unnest($1, $2) as asked(id, born) join run on run.id = asked.id
  cross join lateral (select seq + count as next from journal where journal.born = asked.born and journal.run = asked.id
    order by seq desc limit 1) as tail";
const FIND_ENTRIES: &str = "select journal.run, journal.seq, journal.count, sha256(journal.payload)
  from unnest($1, $2, $3) as asked(id, born, seq) join journal
  on journal.born = asked.born and journal.run = asked.id and journal.seq = asked.seq";

/// The writer's state.
pub(super) struct Writer {
    link: Link,
    writes: mpsc::Receiver<Write>,
    known: Known,
    status: Arc<Status>,
    /// Writes that were taken from the queue but belong into a later transaction.
    waiting: VecDeque<Write>,
    /// Days whose partition is known to exist.
    days: HashSet<i32>,
    /// Where this writer counts heads by state.
    slot: i32,
    /// Whether it is the one that may ask for help.
    is_first: bool,
    fullness: Fullness,
}

/// Writes that are committed together, and what was tried with them.
struct Part {
    writes: Vec<Write>,
    /// Nothing that is remembered of runs counts.
    doubt: bool,
    tries: u32,
}

enum Settled {
    Answer(Result<Outcome, StoreError>),
    Again,
}

impl Writer {
    pub(super) fn new(
        options: Arc<PostgresOptions>,
        writes: mpsc::Receiver<Write>,
        status: Arc<Status>,
        slot: i32,
        place: i32,
    ) -> Self {
        Self {
            link: Link::new(options, Arc::clone(&status)),
            writes,
            known: Known::default(),
            status,
            waiting: VecDeque::new(),
            days: HashSet::new(),
            slot: slot + place,
            is_first: place == 0,
            fullness: Fullness::default(),
        }
    }

    /// Writes until the store is closed or dropped.
    pub(super) async fn run(mut self) {
        let closing = loop {
            let Some(first) = self.next().await else { break None };
            match &first.op {
                Op::Close => break Some(first),
                Op::Claim { shard, owner } => {
                    let claimed = self.claim(*shard, owner).await;
                    first.answer(claimed.map(Outcome::Claimed));
                }
                _ => {
                    let batch = self.gather(first);
                    self.commit_all(batch).await;
                }
            }
        };
        self.writes.close();
        while let Ok(late) = self.writes.try_recv() {
            late.answer(Err(StoreError::Closed));
        }
        self.link.close().await;
        if let Some(closing) = closing {
            closing.answer(Ok(Outcome::Done));
        }
    }

    async fn next(&mut self) -> Option<Write> {
        if let Some(write) = self.waiting.pop_front() {
            return Some(write);
        }
        // Without a connection nobody may be sending writes because the store is known to be down: so it tries by
        // itself.
        while let Some(pause) = self.link.retry_in() {
            match tokio::time::timeout(pause, self.writes.recv()).await {
                Ok(write) => return write,
                Err(_) => self.link.attempt().await,
            }
        }
        self.writes.recv().await
    }

    /// Takes what waits besides the first write, up to the bounds of a batch.
    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while batch.len() < BATCH_WRITES && bytes < BATCH_BYTES {
            let Some(write) = self.waiting.pop_front().or_else(|| self.writes.try_recv().ok()) else { break };
            if write.op.stands_alone() {
                self.waiting.push_front(write);
                break;
            }
            bytes += write.bytes;
            batch.push(write);
        }
        self.fullness.note(batch.len() >= BATCH_WRITES || bytes >= BATCH_BYTES);
        if self.is_first {
            self.ask_for_help();
        }
        metrics::gauge!("motet_store_queue_depth").set(self.writes.len() as f64);
        metrics::gauge!("motet_store_batch_full_ratio").set(self.fullness.ratio());
        batch
    }

    /// Gives the second writer its half of the shards, or takes it back. A run's writes come one after the other, so
    /// one that was written by the one writer may be written by the other next.
    fn ask_for_help(&self) {
        let helped = self.status.further.load(Ordering::Relaxed) > 0;
        let wanted = self.fullness.wants_help(helped);
        if wanted != helped {
            self.status.further.store(usize::from(wanted), Ordering::Relaxed);
            let now = if wanted { "two writers: one was always full" } else { "one writer: two had room to spare" };
            tracing::info!(now, "the writers of the store have changed");
        }
    }

    async fn commit_all(&mut self, batch: Vec<Write>) {
        let mut parts = vec![Part { writes: batch, doubt: false, tries: 0 }];
        while let Some(part) = parts.pop() {
            if let Err(error) = self.link.ready().await {
                part.writes.into_iter().for_each(|write| write.answer(Err(error.clone())));
                continue;
            }
            match self.commit(&part).await {
                Ok(settled) => {
                    for (write, settled) in part.writes.into_iter().zip(settled) {
                        match settled {
                            Settled::Answer(outcome) => write.answer(outcome),
                            Settled::Again => self.waiting.push_back(write),
                        }
                    }
                }
                Err(trouble) => parts.extend(self.recover(part, trouble).await),
            }
        }
    }

    /// What is to be tried next with a part that failed, last things first.
    async fn recover(&mut self, mut part: Part, trouble: Trouble) -> Vec<Part> {
        part.tries += 1;
        let again = part.tries < TRIES;
        match trouble {
            Trouble::Lost(_) if again => {
                part.writes.iter_mut().for_each(|write| write.in_doubt = true);
                part.doubt = true;
                return vec![part];
            }
            Trouble::NoPartition if again => {
                self.days.clear();
                return vec![part];
            }
            Trouble::Passing(ref why) | Trouble::NoRoom(ref why) if again => {
                tracing::debug!(%why, "a batch is tried again");
                tokio::time::sleep(jittered(PAUSE * 2u32.pow(part.tries))).await;
                return vec![part];
            }
            // A row broke a rule that the plan did not foresee: it is planned again from what the database holds.
            Trouble::Row(_) if !part.doubt => {
                part.doubt = true;
                return vec![part];
            }
            // Then halved until the row stands alone, so that it does not take its neighbours along.
            Trouble::Row(_) if part.writes.len() > 1 => {
                let second = part.writes.split_off(part.writes.len() / 2);
                let half = |writes| Part { writes, doubt: true, tries: 0 };
                return vec![half(second), half(part.writes)];
            }
            // What was in flight on a lost connection may have been committed just now.
            Trouble::Row(_) if again && part.writes.iter().any(|write| write.in_doubt) => return vec![part],
            _ => {}
        }
        // Until it can be reached anew the store counts as broken, so that its users are told and wait.
        if let Trouble::NoRoom(why) = &trouble {
            self.link.lost(why.clone());
        }
        let error = trouble.into_error();
        tracing::warn!(%error, writes = part.writes.len(), "writes failed");
        part.writes.into_iter().for_each(|write| write.answer(Err(error.clone())));
        Vec::new()
    }

    async fn commit(&mut self, part: &Part) -> Result<Vec<Settled>, Trouble> {
        let started = Instant::now();
        let questions = Questions::of(&part.writes, &self.known, part.doubt);
        let found = self.find(&questions).await?;
        let mut plan = Plan::new(&self.known, questions.runs, found);
        let decisions: Vec<Decision> = part.writes.iter().map(|write| plan.take(write)).collect();
        let (batch, tails) = plan.finish();
        let mut answer = Answer::default();
        if let Some((text, arguments)) = batch.statement(self.slot).map_err(|error| Trouble::Row(error.to_string()))? {
            partition::make_missing(&mut self.link, &mut self.days, batch.days()).await?;
            answer = Answer::read(&self.link.fetch(&text, arguments).await?)?;
            count(&self.status, &batch, started);
        }
        let gates = batch.gates;
        for (run, (tail, gate)) in tails {
            if !answer.closed.contains_key(&gate) {
                self.known.remember(run, tail);
            }
        }
        let mut keyed = Keyed::new(&part.writes, &decisions, &answer.taken);
        // The batch is committed: whatever goes wrong now only sends those whose key is in use round again.
        if let Some(used) = key::look_up(&mut self.link, keyed.unknown()).await.unwrap_or_default() {
            keyed.learn(used);
        }
        let settle = |(write, decision): (&Write, Decision)| settle(write, decision, &answer, &gates, &keyed);
        let settled: Vec<Settled> = part.writes.iter().zip(decisions).map(settle).collect();
        for (write, settled) in part.writes.iter().zip(&settled) {
            let (Op::Admit(admission), false) = (&write.op, part.doubt) else { continue };
            if let Settled::Answer(Ok(Outcome::Admitted(Admitted::New))) = settled {
                self.known.remember(admission.run, tail_of(admission));
            }
        }
        Ok(settled)
    }

    async fn find(&mut self, questions: &Questions) -> Result<Found, Trouble> {
        let mut found = Found::default();
        if !questions.runs.is_empty() {
            let ids: Vec<[u8; 16]> = questions.runs.iter().map(|run| run.to_bytes()).collect();
            let born: Vec<i32> = questions.runs.iter().map(|run| partition::born(*run)).collect();
            let rows = self.link.fetch(FIND_TAILS, arguments((ids, born))?).await?;
            let read = |row: &PgRow| Ok((run_id(row, 0)?, Tail { state: state(row, 1)?, next: number(row, 2)? }));
            found.tails = rows.iter().map(read).collect::<Result<_, StoreError>>().map_err(unreadable)?;
        }
        if !questions.entries.is_empty() {
            let ids: Vec<[u8; 16]> = questions.entries.iter().map(|(run, _)| run.to_bytes()).collect();
            let born: Vec<i32> = questions.entries.iter().map(|(run, _)| partition::born(*run)).collect();
            let seqs: Vec<i64> = questions.entries.iter().map(|(_, seq)| seq.0.cast_signed()).collect();
            let mut given = arguments((ids, born))?;
            given.add(seqs).map_err(|error| Trouble::Row(error.to_string()))?;
            let rows = self.link.fetch(FIND_ENTRIES, given).await?;
            let read = |row: &PgRow| {
                let count: i32 = column(row, 2)?;
                Ok(((run_id(row, 0)?, seq(row, 1)?), (count.cast_unsigned(), digest(row, 3)?)))
            };
            found.entries = rows.iter().map(read).collect::<Result<_, StoreError>>().map_err(unreadable)?;
        }
        Ok(found)
    }

    /// Doing it again after a lost answer only raises the epoch once more: nobody has used the one that was lost.
    async fn claim(&mut self, shard: ShardId, owner: &str) -> Result<Epoch, StoreError> {
        let mut tries = 0;
        loop {
            self.link.ready().await?;
            match shard::claim(&mut self.link, shard, owner).await {
                Ok(claimed) => return claimed,
                Err(Trouble::Lost(_) | Trouble::Passing(_)) if tries < TRIES => tries += 1,
                Err(trouble) => return Err(trouble.into_error()),
            }
        }
    }
}

fn count(status: &Status, batch: &Batch<'_>, started: Instant) {
    status.commits.fetch_add(1, Ordering::Relaxed);
    status.entries.fetch_add(batch.entries, Ordering::Relaxed);
    status.events.fetch_add(batch.events, Ordering::Relaxed);
    metrics::counter!("motet_store_commits_total").increment(1);
    metrics::histogram!("motet_store_commit_events").record(batch.events as f64);
    metrics::histogram!("motet_store_commit_seconds").record(started.elapsed().as_secs_f64());
}

/// What the statement told.
#[derive(Default)]
struct Answer {
    /// Gates that did not open: the shard's epoch, and whether that was the reason.
    closed: HashMap<i32, (Epoch, bool)>,
    /// Runs whose key was free.
    taken: HashSet<RunId>,
}

impl Answer {
    fn read(rows: &[PgRow]) -> Result<Self, Trouble> {
        let mut answer = Self::default();
        let mut read = |row: &PgRow| {
            if column::<i32>(row, 0)? == 0 {
                let owns: bool = column(row, 3)?;
                answer.closed.insert(column(row, 1)?, (Epoch(number(row, 2)?), !owns));
            } else {
                answer.taken.insert(run_id(row, 4)?);
            }
            Ok(())
        };
        rows.iter().try_for_each(&mut read).map_err(unreadable)?;
        Ok(answer)
    }
}

fn settle(write: &Write, decision: Decision, answer: &Answer, gates: &[Gate], keyed: &Keyed) -> Settled {
    match decision {
        Decision::Settled(outcome) => Settled::Answer(outcome),
        Decision::Free(outcome) => Settled::Answer(Ok(outcome)),
        Decision::Later => Settled::Again,
        Decision::Keyed { exists } => keyed.settle(write, exists).map_or(Settled::Again, Settled::Answer),
        Decision::Gated(gate, outcome) => {
            let place = usize::try_from(gate).ok().and_then(|place| gates.get(place));
            let (Some(Gate { shard, epoch, incarnation }), Some((current, by_epoch))) =
                (place, answer.closed.get(&gate))
            else {
                return Settled::Answer(outcome);
            };
            Settled::Answer(Err(match incarnation {
                Some(incarnation) if !by_epoch => StoreError::IncarnationFenced(*incarnation),
                _ => StoreError::Fenced { shard: *shard, carried: *epoch, current: *current },
            }))
        }
    }
}

/// Two values as the arguments of a statement.
pub(super) fn arguments<'q, A, B>((first, second): (A, B)) -> Result<PgArguments, Trouble>
where
    A: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + 'q,
    B: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + 'q,
{
    let mut arguments = PgArguments::default();
    let added = arguments.add(first).and_then(|()| arguments.add(second));
    added.map_err(|error| Trouble::Row(error.to_string()))?;
    Ok(arguments)
}

/// A row that is not what was written.
pub(super) fn unreadable(error: StoreError) -> Trouble {
    Trouble::Corrupt(error.to_string())
}
