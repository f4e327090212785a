//! The store of a simulated world: every request waits until the simulation says what becomes of it.
//!
//! A request may be carried out, be refused, take effect although its caller is told that it failed, or take effect
//! long after that, even when its caller is dead. Behind it stands the memory store, which is never asked directly by
//! a simulated node. Keeps the books that the checks are made from: who owns a shard, which calls are durably owed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use futures::FutureExt;
use motet_engine::event::Event;
use motet_engine::id::{CallId, RunId, ShardId};
use motet_store::StoreError;
use motet_store::codec::decode_journal;
use motet_store::memory::MemoryStore;
use motet_store::port::{Admission, Admitted, Append, Entry, RunStore, ShardStore};

/// One boot of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Boot {
    pub(super) node: usize,
    pub(super) number: u32,
}

impl std::fmt::Display for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{}.{}", self.node, self.number)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is carried out and answered.
    Done,
    /// It fails and has no effect.
    Refused,
    /// It is carried out, and the caller is told that it failed.
    Unknown,
    /// The caller is told that it failed; later it is carried out all the same, or not.
    Late,
}

type Tell = Box<dyn FnOnce() + Send>;

/// A request that waits for its fate.
pub(super) struct Request {
    pub(super) by: Boot,
    pub(super) what: String,
    pub(super) write: bool,
    pub(super) carry_out: Box<dyn FnOnce() -> Tell + Send>,
    pub(super) refuse: Tell,
}

#[derive(Default)]
struct Books {
    waiting: BTreeMap<u64, Request>,
    /// Requests whose callers are dead or were told that they failed.
    orphans: BTreeMap<u64, Request>,
    next: u64,
    owners: BTreeMap<ShardId, Boot>,
    owed: BTreeSet<(RunId, CallId)>,
    breaches: Vec<String>,
    fenced: u64,
    collisions: u64,
}

/// The store and its books.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) memory: MemoryStore,
    books: Mutex<Books>,
}

impl Disk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    pub(super) fn enter(&self, request: Request) {
        let mut books = self.books();
        books.next += 1;
        let ticket = books.next;
        books.waiting.insert(ticket, request);
    }

    /// Tickets of the requests whose callers wait.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.books().waiting.keys().copied().collect()
    }

    /// Tickets of the requests that nobody waits for any more.
    pub(super) fn orphans(&self) -> Vec<u64> {
        self.books().orphans.keys().copied().collect()
    }

    /// Gives a waiting request its fate and says what it was.
    pub(super) fn settle(&self, ticket: u64, fate: Fate) -> String {
        // The books are not held while the request is carried out: it writes into them.
        let Some(mut request) = self.books().waiting.remove(&ticket) else { return String::new() };
        let fate = if request.write || fate == Fate::Done { fate } else { Fate::Refused };
        let words = format!("{} {} {fate:?}", request.by, request.what);
        match fate {
            Fate::Done => (request.carry_out)()(),
            Fate::Refused => (request.refuse)(),
            Fate::Unknown => {
                drop((request.carry_out)());
                (request.refuse)();
            }
            Fate::Late => {
                std::mem::replace(&mut request.refuse, Box::new(|| ()))();
                self.books().orphans.insert(ticket, request);
            }
        }
        words
    }

    /// Carries an orphan out or forgets it, and says what it was.
    pub(super) fn settle_orphan(&self, ticket: u64, carry_out: bool) -> String {
        let Some(orphan) = self.books().orphans.remove(&ticket) else { return String::new() };
        if carry_out {
            drop((orphan.carry_out)());
        }
        format!("{} {} {}", orphan.by, orphan.what, if carry_out { "took effect late" } else { "was lost" })
    }

    /// The node is dead: what it wrote may still arrive, what it read matters to nobody.
    pub(super) fn abandon(&self, by: Boot) {
        let mut books = self.books();
        let tickets: Vec<_> =
            books.waiting.iter().filter(|(_, request)| request.by == by).map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            if let Some(request) = books.waiting.remove(&ticket).filter(|request| request.write) {
                books.orphans.insert(ticket, request);
            }
        }
    }

    /// Ends the circle between the requests and the disk that they hold.
    pub(super) fn clear(&self) {
        let mut books = self.books();
        books.waiting.clear();
        books.orphans.clear();
    }

    pub(super) fn breach(&self, what: String) {
        self.books().breaches.push(what);
    }

    pub(super) fn breaches(&self) -> Vec<String> {
        self.books().breaches.clone()
    }

    /// How often a write was refused for its epoch, and how often for its event number.
    pub(super) fn refusals(&self) -> (u64, u64) {
        let books = self.books();
        (books.fenced, books.collisions)
    }

    pub(super) fn owner(&self, shard: ShardId) -> Option<Boot> {
        self.books().owners.get(&shard).copied()
    }

    /// Whether the event that owes this call is durable.
    pub(super) fn owes(&self, run: RunId, call: CallId) -> bool {
        self.books().owed.contains(&(run, call))
    }

    pub(super) fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        let (run, entry) = (admission.run, admission.entry.clone());
        let admitted = at_once(self.memory.admit(admission))?;
        if admitted == Admitted::New {
            self.note_owed(run, &entry);
        }
        Ok(admitted)
    }

    pub(super) fn append(&self, by: Boot, append: Append) -> Result<(), StoreError> {
        let (run, entry) = (append.run, append.entry.clone());
        match at_once(self.memory.append(append)) {
            Ok(()) => {}
            Err(error) => {
                match &error {
                    StoreError::Fenced { .. } => self.books().fenced += 1,
                    StoreError::SeqTaken { .. } => self.books().collisions += 1,
                    _ => {}
                }
                return Err(error);
            }
        }
        let owner = self.owner(run.shard());
        if owner != Some(by) {
            let owner = owner.map_or("nobody".to_owned(), |owner| owner.to_string());
            self.breach(format!("{by} wrote event {} of {run}, whose shard {owner} owns", entry.seq));
        }
        self.note_owed(run, &entry);
        Ok(())
    }

    pub(super) fn claim(&self, by: Boot, shard: ShardId) -> Result<motet_engine::id::Epoch, StoreError> {
        let epoch = at_once(self.memory.claim(shard, &by.to_string()))?;
        self.books().owners.insert(shard, by);
        Ok(epoch)
    }

    fn note_owed(&self, run: RunId, entry: &Entry) {
        let events: Vec<Event> = decode_journal(&entry.payload).unwrap();
        let owed = events.iter().filter_map(|event| match event {
            Event::CallScheduled { call, .. } | Event::CallRetried { call } | Event::FellBack { call, .. } => {
                Some((run, *call))
            }
            _ => None,
        });
        self.books().owed.extend(owed);
    }
}

/// The answer of the memory store, which never waits.
pub(super) fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().unwrap()
}
